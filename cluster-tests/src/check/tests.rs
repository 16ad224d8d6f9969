//! Each anomaly has a history that is as small as it can be and fires under its own name only, and one that nearly does.

use super::{Anomaly, Judgement, check};
use crate::history::History;
use crate::history::generate::{Size, generate};
use crate::history::line::Line;
use crate::sim::random::Random;

fn history(about: &str, lines: &str) -> History {
    let about = format!("{{\"format\":\"callboard-history\",\"version\":1{about}}}\n");
    History::read((about + lines).as_bytes()).expect("a history")
}

fn found(about: &str, lines: &str) -> Vec<Anomaly> {
    let verdict = check(&history(about, lines));
    verdict.findings.iter().map(|(a, _)| a).collect()
}

#[track_caller]
fn fires(anomaly: Anomaly, about: &str, bad: &str, near: &str) {
    assert_eq!(found(about, bad), [anomaly], "the bad one");
    assert_eq!(found(about, near), [], "the near miss");
}

/// A send by process 1 that was acknowledged.
fn sent(at: u64, value: u64, offset: i64) -> String {
    let complete = at + 1;
    format!(
        r#"{{"f":"send","process":1,"invoke":{at},"complete":{complete},"key":"t-0","value":{value},"offset":{offset}}}"#
    ) + "\n"
}

fn unknown(at: u64, value: u64) -> String {
    let complete = at + 1;
    format!(
        r#"{{"f":"send","process":2,"invoke":{at},"complete":{complete},"type":"info","key":"t-0","value":{value}}}"#
    ) + "\n"
}

fn polled(at: u64, records: &str) -> String {
    let complete = at + 1;
    format!(
        r#"{{"f":"poll","process":7,"invoke":{at},"complete":{complete},"key":"t-0","records":{records}}}"#
    ) + "\n"
}

fn drained(end: i64, records: &str) -> String {
    format!(
        r#"{{"f":"drain","process":9,"invoke":900,"complete":901,"key":"t-0","start":0,"high":{end},"records":{records}}}"#
    ) + "\n"
}

/// Something of a group's member.
fn member(f: &str, process: u32, at: u64, epoch: i32, offset: i64) -> String {
    let complete = at + 1;
    format!(
        r#"{{"f":"{f}","process":{process},"invoke":{at},"complete":{complete},"key":"t-0","group":"g","epoch":{epoch},"offset":{offset}}}"#
    ) + "\n"
}

fn group_polled(process: u32, at: u64, records: &str) -> String {
    polled(at, records)
        .replace("\"process\":7", &format!("\"process\":{process}"))
        .replace("\"key\"", "\"group\":\"g\",\"key\"")
}

#[test]
fn a1_an_offset_has_one_value() {
    let two = unknown(10, 5) + &unknown(20, 6);
    let bad = two.clone() + &polled(30, "[[0,5]]") + &polled(40, "[]") + &drained(1, "[[0,6]]");
    let near = two + &polled(30, "[[0,5]]") + &drained(2, "[[0,5],[1,6]]");
    fires(Anomaly::InconsistentOffset, "", &bad, &near);
}

#[test]
fn a2_a_value_has_one_offset() {
    let bad = sent(10, 5, 0) + &drained(2, "[[0,5],[1,5]]");
    let near = sent(10, 5, 0) + &sent(20, 6, 1) + &drained(2, "[[0,5],[1,6]]");
    fires(Anomaly::Duplicate, "", &bad, &near);
    assert_eq!(found(r#","idempotent":false"#, &bad), []);
}

#[test]
fn a3_an_acknowledged_record_is_there() {
    let bad = sent(10, 5, 0) + &sent(20, 6, 1) + &drained(1, "[[0,5]]");
    let near = sent(10, 5, 0) + &unknown(20, 6) + &drained(1, "[[0,5]]");
    fires(Anomaly::LostWrite, "", &bad, &near);
    // Removed on purpose: below the log start offset.
    let removed = sent(10, 5, 0)
        + &sent(20, 6, 1)
        + &drained(2, "[[1,6]]").replace("\"start\":0", "\"start\":1");
    assert_eq!(found("", &removed), []);
    // Without a final reading: what others read beyond it.
    let beyond = sent(10, 5, 0) + &sent(20, 6, 1) + &polled(30, "[[1,6]]");
    assert_eq!(found("", &beyond), [Anomaly::LostWrite]);
    assert_eq!(found(r#","durable":false"#, &bad), []);
}

#[test]
fn a4_what_was_refused_or_never_sent_is_not_read() {
    let refused = unknown(10, 5).replace("info", "fail");
    fires(
        Anomaly::AbortedRead,
        "",
        &(refused + &polled(20, "[[0,5]]")),
        &(unknown(10, 5) + &polled(20, "[[0,5]]")),
    );
    assert_eq!(found("", &polled(20, "[[0,5]]")), [Anomaly::AbortedRead]);
}

#[test]
fn a5_bytes_are_those_that_were_sent() {
    let near = unknown(10, 5) + &polled(20, "[[0,5]]");
    fires(Anomaly::WrongBytes, "", &polled(20, "[[0,null]]"), &near);
}

#[test]
fn a6_a_poll_goes_forward_and_leaves_nothing_out() {
    let three =
        sent(10, 5, 0) + &sent(20, 6, 1) + &sent(30, 7, 3) + &drained(4, "[[0,5],[1,6],[3,7]]");
    fires(
        Anomaly::InternalPoll,
        "",
        &(three.clone() + &polled(40, "[[0,5],[3,7]]")),
        &(three.clone() + &polled(40, "[[0,5],[1,6],[3,7]]")),
    );
    assert_eq!(
        found("", &(three + &polled(40, "[[1,6],[0,5]]"))),
        [Anomaly::InternalPoll]
    );
}

#[test]
fn a7_polls_follow_each_other_unless_the_partition_was_assigned_anew() {
    let three =
        sent(10, 5, 0) + &sent(20, 6, 1) + &sent(30, 7, 2) + &drained(3, "[[0,5],[1,6],[2,7]]");
    let (first, third) = (polled(40, "[[0,5]]"), polled(60, "[[2,7]]"));
    let assigned = r#"{"f":"assign","process":7,"invoke":50,"complete":51,"key":"t-0","offset":2}"#
        .to_owned()
        + "\n";
    let bad = three.clone() + &first + &third;
    fires(
        Anomaly::ExternalPoll,
        "",
        &bad,
        &(three.clone() + &first + &assigned + &third),
    );
    assert_eq!(
        found("", &(three + &third + &first)),
        [Anomaly::ExternalPoll]
    );
}

#[test]
fn a8_a_producers_offsets_rise() {
    let all = drained(2, "[[0,6],[1,5]]");
    let bad = sent(10, 5, 1) + &sent(20, 6, 0) + &all;
    let near = sent(10, 5, 1) + &sent(20, 6, 0).replace("\"invoke\":20", "\"invoke\":5") + &all;
    fires(Anomaly::NonmonotonicSend, "", &bad, &near);
}

#[test]
fn a9_the_log_has_the_order_of_the_world() {
    let all = drained(2, "[[0,6],[1,5]]");
    let other = |at: u64| sent(at, 6, 0).replace("\"process\":1", "\"process\":2");
    let bad = sent(10, 5, 1) + &other(12) + &all;
    // Asked for while the other was not acknowledged yet: either order will do.
    let near = sent(10, 5, 1) + &other(11) + &all;
    fires(Anomaly::RealTimeOrder, "", &bad, &near);
}

#[test]
fn a13_what_is_known_is_not_answered_as_zero() {
    let commit = member("commit", 7, 10, 1, 5);
    let answered = |at: u64, offset: i64| member("committed", 7, at, 1, offset);
    fires(
        Anomaly::SpuriousZero,
        "",
        &(commit.clone() + &answered(20, 0)),
        &(commit.clone() + &answered(11, 0)),
    );
    assert_eq!(
        found("", &(commit.clone() + &answered(20, -1))),
        [Anomaly::SpuriousZero]
    );
    let reset = member("commit", 7, 15, 1, 0).replace("\"offset\"", "\"reset\":true,\"offset\"");
    assert_eq!(found("", &(commit + &reset + &answered(20, 0))), []);
}

#[test]
fn a16_a_group_leaves_nothing_out() {
    let three =
        sent(1, 5, 0) + &sent(3, 6, 1) + &sent(5, 7, 2) + &drained(3, "[[0,5],[1,6],[2,7]]");
    let first = member("assign", 7, 10, 1, 0)
        + &group_polled(7, 20, "[[0,5],[1,6]]")
        + &member("commit", 7, 30, 1, 2);
    let begins = |offset: i64| three.clone() + &first + &member("assign", 8, 40, 2, offset);
    // From the committed offset, or from one whose commit was not answered.
    fires(Anomaly::GroupGap, "", &begins(1), &begins(2));
    let unsure = member("commit", 7, 35, 1, 3).replace("\"key\"", "\"type\":\"info\",\"key\"");
    assert_eq!(found("", &(begins(3) + &unsure)), []);
    let skipped = three.clone()
        + &member("assign", 7, 10, 1, 0)
        + &group_polled(7, 20, "[[0,5]]")
        + &member("commit", 7, 30, 1, 2);
    assert_eq!(found("", &skipped), [Anomaly::GroupGap]);
}

#[test]
fn a17_a_groups_offset_goes_forward_and_former_owners_do_not_commit() {
    let first = member("commit", 7, 10, 1, 5);
    fires(
        Anomaly::CommitRegress,
        "",
        &(first.clone() + &member("commit", 7, 20, 1, 4)),
        &(first.clone() + &member("commit", 7, 11, 1, 4)),
    );
    let newer = member("commit", 8, 20, 2, 6);
    assert_eq!(
        found(
            "",
            &(first.clone() + &newer + &member("commit", 7, 30, 1, 7))
        ),
        [Anomaly::CommitRegress]
    );
    assert_eq!(
        found("", &(first + &member("committed", 7, 20, 1, 3))),
        [Anomaly::CommitRegress]
    );
}

#[test]
fn a18_a_partition_has_one_owner() {
    let (first, second) = (
        member("assign", 7, 10, 1, -1),
        member("assign", 8, 20, 1, -1),
    );
    let commits = member("commit", 7, 30, 1, 3) + &member("commit", 8, 40, 1, 3);
    let revoked = member("revoke", 7, 35, 1, -1);
    let bad = first.clone() + &second + &commits;
    fires(
        Anomaly::DoubleOwner,
        "",
        &bad,
        &(first
            + &member("commit", 7, 12, 1, 3)
            + &second
            + &revoked
            + &member("commit", 8, 40, 1, 3)),
    );
}

#[test]
fn a19_the_ends_of_a_partition_do_not_go_back() {
    let told = |at: u64, high: i64| {
        let complete = at + 5;
        format!(
            r#"{{"f":"watermarks","process":7,"invoke":{at},"complete":{complete},"key":"t-0","high":{high}}}"#
        ) + "\n"
    };
    fires(
        Anomaly::WatermarkRegress,
        "",
        &(told(10, 5) + &told(20, 4)),
        &(told(10, 5) + &told(15, 4)),
    );
}

#[test]
fn a20_what_was_delivered_stays() {
    let two = unknown(10, 5) + &unknown(20, 6);
    let bad = two.clone() + &polled(30, "[[0,5],[1,6]]") + &drained(1, "[[0,5]]");
    let near = two + &polled(30, "[[0,5],[1,6]]") + &drained(2, "[[0,5],[1,6]]");
    fires(Anomaly::TruncatedRead, "", &bad, &near);
}

#[test]
fn a23_metadata_does_not_go_back() {
    let line = |f: &str, at: u64, value: u64, more: &str| {
        let complete = at + 5;
        format!(
            r#"{{"f":"{f}","process":7,"invoke":{at},"complete":{complete},"key":"topic t","value":{value}{more}}}"#
        ) + "\n"
    };
    let two = line("write", 10, 1, "") + &line("write", 20, 2, "");
    let read = |at: u64, value: u64, broker: i32| {
        line("read", at, value, &format!(r#","broker":{broker}"#))
    };
    let bad = two.clone() + &read(30, 2, 1) + &read(40, 1, 1);
    // Another broker may be behind.
    fires(
        Anomaly::StaleMetadata,
        "",
        &bad,
        &(two.clone() + &read(30, 2, 1) + &read(40, 1, 2)),
    );
    let last = |value: u64| two.clone() + &line("read", 50, value, r#","broker":1,"last":true"#);
    fires(Anomaly::StaleMetadata, "", &last(1), &last(2));
    assert_eq!(
        found("", &(two + &read(30, 9, 1))),
        [Anomaly::StaleMetadata]
    );
}

#[test]
fn a25_what_waits_is_acknowledged_in_time() {
    let about = r#","gap_max_ms":1"#;
    let ms = 1_000_000;
    let slow = |ms_later: u64| {
        sent(10, 5, 0)
            + &sent(ms, 6, 1).replace(
                &format!("\"complete\":{}", ms + 1),
                &format!("\"complete\":{}", ms + ms_later),
            )
    };
    fires(Anomaly::Stalled, about, &slow(ms + 1), &slow(ms));
    let fault = |stops: bool| {
        format!(
            r#"{{"f":"fault","invoke":{ms},"complete":{},"row":"K2","stops":{stops}}}"#,
            2 * ms
        ) + "\n"
    };
    assert_eq!(found(about, &(slow(2 * ms) + &fault(true))), []);
    assert_eq!(
        found(about, &(slow(2 * ms) + &fault(false))),
        [Anomaly::Stalled]
    );
}

#[test]
fn a_run_in_which_nothing_happened_says_nothing() {
    let fault = r#"{"f":"fault","invoke":5,"complete":50,"row":"K1"}"#.to_owned() + "\n";
    let about = r#","acknowledged_min":2"#;
    let judgement = |lines: &str| check(&history(about, lines)).judgement;
    assert_eq!(
        judgement(&(fault.clone() + &sent(10, 5, 0))),
        Judgement::Void
    );
    assert_eq!(
        judgement(&(fault + &sent(10, 5, 0) + &sent(20, 6, 1))),
        Judgement::Passed
    );
}

#[test]
fn what_is_no_history_is_refused_by_its_line() {
    let said = |text: &str| {
        History::read(text.as_bytes())
            .expect_err("refused")
            .to_string()
    };
    assert!(said("{}").starts_with("line 1 of the history"));
    assert!(said("{\"format\":\"callboard-history\",\"version\":2}\n").contains("2 is not"));
    let about = "{\"format\":\"callboard-history\",\"version\":1}\n";
    assert!(
        said(&format!("{about}{{\"f\":\"send\",\"key\":\"t-0\"}}\n"))
            .contains("a Send needs `value`")
    );
    assert!(said(&format!("{about}{{\"f\":\"send\",\"kye\":\"t-0\"}}\n")).contains("line 2"));
}

const SMALL: Size = Size {
    sends: 3_000,
    keys: 3,
    producers: 4,
    unknown_percent: 5,
};

fn random_history(seed: u64) -> History {
    let mut history = History::default();
    let mut number = 0;
    generate(seed, SMALL, |line: &Line<'_>| {
        number += 1;
        // Through its text, as a file would have it.
        let text = serde_json::to_string(line).expect("a line");
        let line: Line<'_> = serde_json::from_str(&text).expect("the same line");
        history.push(&line, number).expect("whole");
    });
    history
}

#[test]
fn legal_histories_are_clean() {
    for seed in 0..50 {
        let verdict = check(&random_history(seed));
        assert!(
            verdict.findings.is_empty(),
            "seed {seed}: {:?}",
            verdict.findings
        );
        assert!(verdict.acknowledged > 2_000);
    }
}

type Mutation = (&'static str, fn(&mut History, &mut Random));

/// What a broken broker would have answered.
const MUTATIONS: [Mutation; 10] = [
    ("a record is lost", |h, r| {
        let acknowledged: Vec<u64> = h
            .sends
            .iter()
            .filter(|s| s.offset >= 0)
            .map(|s| s.value)
            .collect();
        let lost = *r.pick(&acknowledged);
        let drain = h.drains.iter_mut().find(|d| {
            h.received[d.records.clone()]
                .iter()
                .any(|v| v.value == lost)
        });
        let drain = drain.expect("it was there");
        let mut left: Vec<_> = h.received[drain.records.clone()].to_vec();
        left.retain(|v| v.value != lost);
        let from = h.received.len();
        h.received.extend(left);
        drain.records = from..h.received.len();
    }),
    ("a record is read twice", |h, r| {
        let poll = r.pick(&h.polls).clone();
        h.polls.push(crate::history::Poll {
            line: usize::MAX,
            ..poll
        });
    }),
    ("two records change places", |h, r| {
        let many: Vec<usize> = (0..h.polls.len())
            .filter(|p| h.polls[*p].records.len() > 1)
            .collect();
        let at = h.polls[*r.pick(&many)].records.start;
        h.received.swap(at, at + 1);
    }),
    ("a poll leaves a record out", |h, r| {
        let many: Vec<usize> = (0..h.polls.len())
            .filter(|p| h.polls[*p].records.len() > 2)
            .collect();
        let poll = *r.pick(&many);
        h.received.copy_within(
            h.polls[poll].records.start + 2..h.polls[poll].records.end,
            h.polls[poll].records.start + 1,
        );
        h.polls[poll].records.end -= 1;
    }),
    ("an offset is answered that is another's", |h, r| {
        let acknowledged: Vec<usize> = (0..h.sends.len())
            .filter(|s| h.sends[*s].offset > 0)
            .collect();
        h.sends[*r.pick(&acknowledged)].offset -= 1;
    }),
    ("a value is changed", |h, r| {
        let at = r.below(h.received.len() as u64) as usize;
        h.received[at].value += 1_000_000;
    }),
    ("bytes are wrong", |h, r| {
        let at = r.below(h.received.len() as u64) as usize;
        h.received[at].value = crate::history::WRONG_BYTES;
    }),
    ("a committed offset is answered as none", |h, r| {
        let at = r.below(h.committed.len() as u64) as usize;
        h.committed[at].offset = -1;
    }),
    ("a high watermark goes back", |h, r| {
        let later: Vec<usize> = (h.watermarks.len() / 2..h.watermarks.len()).collect();
        h.watermarks[*r.pick(&later)].high = 0;
    }),
    ("a setting is what it was long ago", |h, r| {
        let at = r.between(3, h.reads.len() as u64 - 1) as usize;
        h.reads[at].value = Some(0);
    }),
];

#[test]
fn one_random_mutation_is_noticed() {
    for (what, mutate) in MUTATIONS {
        for seed in 0..6 {
            let mut history = random_history(seed);
            mutate(&mut history, &mut Random::new(seed, what));
            assert!(!check(&history).findings.is_empty(), "{what}, seed {seed}");
        }
    }
}
