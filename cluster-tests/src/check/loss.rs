//! A3, A20: what was acknowledged and what was delivered is there in the end.

use super::versions::{Version, Versions};
use super::{Anomaly, Findings};
use crate::history::{History, Outcome, WRONG_BYTES};

pub(super) fn check(history: &History, versions: &Versions, findings: &mut Findings) {
    if history.about.durable {
        lost(history, versions, findings);
    }
    truncated(history, versions, findings);
}

/// Acknowledged records that nobody ever reads: not in the final reading, or, without one, not below what was read.
fn lost(history: &History, versions: &Versions, findings: &mut Findings) {
    let is_drained = |key: u32| versions.ends[key as usize].is_some();
    // What can be relied on to be there: the final reading, or what was read of a partition that has none.
    let drained = versions.drained.iter().map(|v| (v.key, v.value));
    let mut there: Vec<(u32, u64)> = drained.collect();
    let mut highest = vec![-1; history.keys.len()];
    for (key, record) in history.records().filter(|(key, _)| !is_drained(*key)) {
        there.push((key, record.value));
        let highest: &mut i64 = &mut highest[key as usize];
        *highest = record.offset.max(*highest);
    }
    there.sort_unstable();
    for send in history.sends.iter().filter(|s| s.outcome == Outcome::Ok) {
        let is_out_of_sight = match versions.ends[send.key as usize] {
            Some(end) => send.offset < end.start,
            None => send.offset > highest[send.key as usize],
        };
        let is_there = is_out_of_sight || there.binary_search(&(send.key, send.value)).is_ok();
        if !is_there {
            findings.note(Anomaly::LostWrite, || {
                let (key, high) = (
                    history.keys.text(send.key),
                    versions.ends[send.key as usize].map(|e| e.high),
                );
                let high = high.map_or(String::new(), |h| format!("; the high watermark is {h}"));
                format!(
                    "{} was acknowledged at offset {} of {key} and is not there{high}",
                    send.value, send.offset
                )
            });
        }
    }
}

/// Delivered records whose place is empty in the end. A place with another value is an inconsistent offset (A1).
fn truncated(history: &History, versions: &Versions, findings: &mut Findings) {
    for poll in &history.polls {
        let Some(end) = versions.ends[poll.key as usize] else {
            continue;
        };
        for record in &history.received[poll.records.clone()] {
            if record.offset < end.start || record.value == WRONG_BYTES {
                continue;
            }
            let place = Version {
                key: poll.key,
                offset: record.offset,
                value: 0,
            };
            let at = versions.drained.partition_point(|v| *v < place);
            let stands = versions
                .drained
                .get(at)
                .is_some_and(|v| (v.key, v.offset) == (poll.key, record.offset));
            if !stands {
                findings.note(Anomaly::TruncatedRead, || {
                    let key = history.keys.text(poll.key);
                    format!(
                        "process {} read {} from offset {} of {key}; nothing is there now",
                        poll.process, record.value, record.offset
                    )
                });
            }
        }
    }
}
