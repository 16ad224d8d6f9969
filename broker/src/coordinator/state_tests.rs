use std::collections::VecDeque;

use callboard_common::protocol::groups::JoinGroup;
use callboard_common::{Offset, TopicPartition};

use super::*;

const SESSION: Duration = Duration::from_secs(10);

struct Stepper {
    coordinator: Coordinator,
    now: Now,
    tickets: u64,
    log: Vec<GroupRecord>,
    end: i64,
}

impl Stepper {
    fn new() -> Self {
        let now = Now {
            monotonic: Monotonic::default(),
            wall: Timestamp(1_000_000),
        };
        Self {
            coordinator: Coordinator::new(GroupConfig::default(), now),
            now,
            tickets: 0,
            log: Vec::new(),
            end: 0,
        }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Effects::new();
        self.coordinator.step(self.now, input, &mut out);
        out.into()
    }

    fn ask(&mut self, question: Question) -> (Ticket, Vec<Effect>) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        (ticket, self.step(Input::Ask(ticket, Box::new(question))))
    }

    /// Performs writes as a log would and returns the answers.
    fn settle(&mut self, effects: Vec<Effect>) -> Vec<(Ticket, Answer)> {
        let mut answers = Vec::new();
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Answer(ticket, answer) => answers.push((ticket, answer)),
                Effect::Write { write, records } => {
                    let base = Offset::new(self.end);
                    self.end += records.len() as i64;
                    self.log.extend(records);
                    queue.extend(self.step(Input::Written { write, base }));
                }
                Effect::DeleteBefore(offset) => drop(
                    self.log
                        .drain(..offset.get() as usize - (self.end as usize - self.log.len())),
                ),
            }
        }
        answers
    }

    fn call(&mut self, question: Question) -> (Ticket, Vec<(Ticket, Answer)>) {
        let (ticket, effects) = self.ask(question);
        (ticket, self.settle(effects))
    }

    fn advance(&mut self, by: Duration) -> Vec<(Ticket, Answer)> {
        let end = self.now.monotonic.after(by);
        let mut answers = Vec::new();
        while self.coordinator.next_deadline() <= end {
            self.now.monotonic = self.now.monotonic.max(self.coordinator.next_deadline());
            let effects = self.step(Input::Tick);
            answers.extend(self.settle(effects));
        }
        self.now.monotonic = end;
        answers
    }

    /// A member joins and, if it is alone, is in the generation.
    fn join(&mut self, member: &str, new_member: &str) -> (Ticket, Vec<(Ticket, Answer)>) {
        self.call(join(member, new_member, None))
    }

    /// One member, stable.
    fn stable(&mut self) -> i32 {
        let (_, answers) = self.join("", "a");
        let joined = joined(&answers[0].1);
        let (_, answers) = self.call(sync("a", joined.generation, &[("a", b"plan-a")]));
        assert_eq!(synced(&answers[0].1).assignment.0, &b"plan-a"[..]);
        joined.generation
    }

    fn replayed(&self) -> Coordinator {
        let mut coordinator = Coordinator::new(GroupConfig::default(), self.now);
        self.log
            .iter()
            .for_each(|r| coordinator.replay(self.now, r.clone()));
        coordinator
    }
}

fn join(member: &str, new_member: &str, instance: Option<&str>) -> Question {
    let join = JoinGroup {
        group: "g".into(),
        session_timeout_ms: SESSION.as_millis() as i32,
        rebalance_timeout_ms: 30_000,
        member: member.into(),
        instance: instance.map(Text::from),
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Blob(bytes::Bytes::from_static(b"topics")))],
        member_id_required: false,
    };
    Question::Join {
        join,
        client_id: "c".into(),
        client_host: "/h".into(),
        new_member: new_member.into(),
    }
}

fn sync(member: &str, generation: i32, assignments: &[(&str, &'static [u8])]) -> Question {
    let assignments = assignments
        .iter()
        .map(|(m, a)| (Text::from(*m), Blob(bytes::Bytes::from_static(a))))
        .collect();
    let (group, instance) = ("g".into(), None);
    let member = member.into();
    Question::Sync(SyncGroup {
        group,
        generation,
        member,
        instance,
        protocol_type: None,
        protocol: None,
        assignments,
    })
}

fn heartbeat(member: &str, generation: i32) -> Question {
    Question::Heartbeat(Heartbeat {
        group: "g".into(),
        generation,
        member: member.into(),
        instance: None,
    })
}

fn commit(member: &str, generation: i32, offset: i64) -> Question {
    let partition = TopicPartition::parse("t-0").expect("valid");
    let offsets = vec![(partition, Offset::new(offset), None, Text::default())];
    Question::Commit(Commit {
        group: "g".into(),
        generation,
        member: member.into(),
        instance: None,
        offsets,
    })
}

fn leave(member: &str) -> Question {
    Question::Leave(LeaveGroup {
        group: "g".into(),
        members: vec![(member.into(), None)],
    })
}

fn joined(answer: &Answer) -> &JoinedGroup {
    let Answer::Joined(joined) = answer else {
        panic!("a join is answered: {answer:?}")
    };
    joined
}

fn synced(answer: &Answer) -> &SyncedGroup {
    let Answer::Synced(synced) = answer else {
        panic!("a sync is answered: {answer:?}")
    };
    synced
}

fn error(answers: &[(Ticket, Answer)]) -> ErrorCode {
    let [(_, answer)] = answers else {
        panic!("one answer: {answers:?}")
    };
    match answer {
        Answer::Joined(joined) => joined.error,
        Answer::Synced(synced) => synced.error,
        Answer::Heartbeat(answer) => answer.error,
        Answer::Committed(errors) => errors[0],
        Answer::Left(left) => left.members[0].2,
        Answer::Deleted(error) => *error,
        Answer::OffsetsDeleted(result) => result.as_ref().map_or_else(|e| *e, |errors| errors[0]),
        Answer::Offsets(_) | Answer::Listed(_) | Answer::Described(_) => {
            panic!("no error in {answer:?}")
        }
    }
}

fn partition() -> TopicPartition {
    TopicPartition::parse("t-0").expect("valid")
}

fn committed(coordinator: &Coordinator) -> Option<Offset> {
    let partition = partition();
    coordinator
        .offsets(&"g".into(), Some(vec![partition]))
        .pop()
        .and_then(|(_, o)| o)
        .map(|o| o.offset)
}

#[test]
fn one_member_leads_its_generation() {
    let mut stepper = Stepper::new();
    let (_, answers) = stepper.join("", "a");
    let joined = joined(&answers[0].1);
    assert_eq!(
        (joined.error, joined.generation, &*joined.leader),
        (ErrorCode::None, 1, "a")
    );
    assert_eq!(joined.members.len(), 1);
    let (ticket, effects) = stepper.ask(sync("a", 1, &[("a", b"plan")]));
    assert!(
        matches!(effects[..], [Effect::Write { .. }]),
        "not before the assignment is durable: {effects:?}"
    );
    let answers = stepper.settle(effects);
    assert_eq!(
        (answers[0].0, synced(&answers[0].1).error),
        (ticket, ErrorCode::None)
    );
    assert_eq!(error(&stepper.call(heartbeat("a", 1)).1), ErrorCode::None);
}

/// KIP-394: who has no id is given one and joins again with it.
#[test]
fn new_members_are_given_an_id_first() {
    let mut stepper = Stepper::new();
    let Question::Join {
        join: mut request, ..
    } = join("", "", None)
    else {
        unreachable!()
    };
    request.member_id_required = true;
    let ask = |request: JoinGroup, new: &str| Question::Join {
        join: request,
        client_id: "c".into(),
        client_host: "/h".into(),
        new_member: new.into(),
    };
    let (_, answers) = stepper.call(ask(request.clone(), "a"));
    let first = joined(&answers[0].1);
    assert_eq!(
        (first.error, &*first.member),
        (ErrorCode::MemberIdRequired, "a")
    );
    request.member = "a".into();
    let (_, answers) = stepper.call(ask(request, "unused"));
    assert_eq!(joined(&answers[0].1).error, ErrorCode::None);
    assert_eq!(
        error(&stepper.join("stranger", "x").1),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn a_second_member_makes_everybody_join_again() {
    let mut stepper = Stepper::new();
    let generation = stepper.stable();
    let (b, answers) = stepper.join("", "b");
    assert_eq!(answers, [], "it waits for the other one");
    assert_eq!(
        error(&stepper.call(heartbeat("a", generation)).1),
        ErrorCode::RebalanceInProgress
    );
    let (a, answers) = stepper.join("a", "");
    let tickets: Vec<_> = answers.iter().map(|(t, _)| *t).collect();
    assert_eq!(tickets, [a, b]);
    assert!(
        answers
            .iter()
            .all(|(_, j)| joined(j).generation == generation + 1)
    );
    let (b, answers) = stepper.call(sync("b", generation + 1, &[]));
    assert_eq!(answers, [], "it waits for the leader's assignment");
    let (a, answers) = stepper.call(sync("a", generation + 1, &[("a", b"1"), ("b", b"2")]));
    let plans: Vec<_> = answers
        .iter()
        .map(|(t, s)| (*t, synced(s).assignment.0.clone()))
        .collect();
    assert_eq!(
        plans,
        [
            (a, bytes::Bytes::from_static(b"1")),
            (b, bytes::Bytes::from_static(b"2"))
        ]
    );
    assert_eq!(
        error(&stepper.call(heartbeat("a", generation)).1),
        ErrorCode::IllegalGeneration
    );
}

#[test]
fn who_leaves_or_falls_silent_is_replaced() {
    let mut stepper = Stepper::new();
    let _generation = stepper.stable();
    let (_, _waiting) = stepper.join("", "b");
    let (_, answers) = stepper.join("a", "");
    let generation = joined(&answers[0].1).generation;
    let (_, _waiting) = stepper.call(sync("b", generation, &[]));
    let (_, _stable) = stepper.call(sync("a", generation, &[]));
    assert_eq!(error(&stepper.call(leave("b")).1), ErrorCode::None);
    assert_eq!(
        error(&stepper.call(leave("b")).1),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        error(&stepper.call(heartbeat("a", generation)).1),
        ErrorCode::RebalanceInProgress
    );
    // Nothing is heard of the last one.
    assert_eq!(stepper.advance(SESSION * 4), []);
    assert_eq!(
        error(&stepper.call(heartbeat("a", generation)).1),
        ErrorCode::UnknownMemberId
    );
}

/// A rebalance goes on without members that do not join again in time.
#[test]
fn a_rebalance_ends_without_the_missing() {
    let mut stepper = Stepper::new();
    let generation = stepper.stable();
    let (b, _waiting) = stepper.join("", "b");
    // The first member only sends heartbeats.
    let mut answers = Vec::new();
    for _ in 0..11 {
        answers.extend(stepper.advance(Duration::from_secs(3)));
        drop(stepper.call(heartbeat("a", generation)));
    }
    let [(ticket, answer)] = &answers[..] else {
        panic!("one is told: {answers:?}")
    };
    assert_eq!((*ticket, &*joined(answer).leader), (b, "b"));
    assert_eq!(
        error(&stepper.call(heartbeat("a", generation)).1),
        ErrorCode::UnknownMemberId
    );
}

/// KIP-345: a static member that comes back takes its place without a rebalance and fences its old self.
#[test]
fn a_static_member_comes_back_to_its_place() {
    let mut stepper = Stepper::new();
    let (_, answers) = stepper.call(join("", "s-1", Some("s")));
    let generation = joined(&answers[0].1).generation;
    let (_, _stable) = stepper.call(sync("s-1", generation, &[("s-1", b"plan")]));
    let (_, answers) = stepper.call(join("", "s-2", Some("s")));
    let back = joined(&answers[0].1);
    assert_eq!(
        (back.error, back.generation, &*back.member),
        (ErrorCode::None, generation, "s-2")
    );
    assert!(back.skip_assignment);
    let (_, answers) = stepper.call(sync("s-2", generation, &[]));
    assert_eq!(synced(&answers[0].1).assignment.0, &b"plan"[..]);
    let (_, answers) = stepper.call(join("s-1", "", Some("s")));
    assert_eq!(error(&answers), ErrorCode::FencedInstanceId);
}

#[test]
fn commits_are_answered_when_durable_and_fenced_by_generation() {
    let mut stepper = Stepper::new();
    let generation = stepper.stable();
    assert_eq!(committed(&stepper.coordinator), None, "unknown is not zero");
    let (_, effects) = stepper.ask(commit("a", generation, 42));
    assert_eq!(
        committed(&stepper.coordinator),
        None,
        "not before it is durable"
    );
    let answers = stepper.settle(effects);
    assert_eq!(
        (error(&answers), committed(&stepper.coordinator)),
        (ErrorCode::None, Some(Offset::new(42)))
    );
    assert_eq!(
        error(&stepper.call(commit("a", generation - 1, 1)).1),
        ErrorCode::IllegalGeneration
    );
    assert_eq!(
        error(&stepper.call(commit("x", generation, 1)).1),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        error(&stepper.call(commit("", -1, 1)).1),
        ErrorCode::UnknownMemberId,
        "the group has members"
    );
    assert_eq!(committed(&stepper.coordinator), Some(Offset::new(42)));
    let (_, effects) = stepper.ask(commit("a", generation, 50));
    let Effect::Write { write, .. } = effects[0] else {
        panic!("a write")
    };
    let failed = stepper.step(Input::WriteFailed {
        write,
        error: ErrorCode::CoordinatorNotAvailable,
    });
    assert_eq!(
        error(&stepper.settle(failed)),
        ErrorCode::CoordinatorNotAvailable
    );
    assert_eq!(committed(&stepper.coordinator), Some(Offset::new(42)));
}

#[test]
fn what_is_asked_for_is_bounded() {
    let mut stepper = Stepper::new();
    let with = |change: fn(&mut JoinGroup)| {
        let Question::Join {
            mut join,
            client_id,
            client_host,
            new_member,
        } = join("", "a", None)
        else {
            unreachable!()
        };
        change(&mut join);
        Question::Join {
            join,
            client_id,
            client_host,
            new_member,
        }
    };
    for timeout in [0, 1, i32::MAX, -5] {
        let mut question = with(|_| {});
        let Question::Join { join, .. } = &mut question else {
            unreachable!()
        };
        join.session_timeout_ms = timeout;
        assert_eq!(
            error(&stepper.call(question).1),
            ErrorCode::InvalidSessionTimeout,
            "{timeout}"
        );
    }
    let large = with(|j| j.protocols[0].1 = Blob(vec![0; 2 << 20].into()));
    assert_eq!(
        error(&stepper.call(large).1),
        ErrorCode::GroupMaxSizeReached
    );
    assert_eq!(
        error(&stepper.call(with(|j| j.protocols.clear())).1),
        ErrorCode::InconsistentGroupProtocol
    );
    let _generation = stepper.stable();
    let other = with(|j| j.protocols[0].0 = "other".into());
    assert_eq!(
        error(&stepper.call(other).1),
        ErrorCode::InconsistentGroupProtocol
    );
    let mut question = commit("a", 1, 1);
    let Question::Commit(request) = &mut question else {
        unreachable!()
    };
    request.offsets[0].3 = "x".repeat(5000).into();
    assert_eq!(
        error(&stepper.call(question).1),
        ErrorCode::OffsetMetadataTooLarge
    );
}

/// Restart is replay: the log gives the same groups and offsets, also after it was written anew.
#[test]
fn replay_gives_what_was_durable() {
    let mut stepper = Stepper::new();
    let generation = stepper.stable();
    for offset in 0..100 {
        let _committed = stepper.call(commit("a", generation, offset));
    }
    let check = |coordinator: &Coordinator| {
        assert_eq!(committed(coordinator), Some(Offset::new(99)));
        let described = coordinator.describe(&DescribeGroups {
            groups: vec!["g".into()],
        });
        let group = &described.groups[0];
        assert_eq!(
            (&*group.state, group.generation, group.members.len()),
            ("Stable", generation, 1)
        );
        assert_eq!(group.members[0].assignment.0, &b"plan-a"[..]);
    };
    check(&stepper.replayed());
    let effects = stepper.step(Input::Rewrite);
    assert_eq!(stepper.settle(effects), []);
    assert_eq!(
        stepper.log.len(),
        2,
        "one generation and one offset are left"
    );
    check(&stepper.replayed());
    let mut again = Stepper {
        coordinator: stepper.replayed(),
        ..Stepper::new()
    };
    assert_eq!(
        error(&again.call(heartbeat("a", generation)).1),
        ErrorCode::None,
        "members go on after a restart"
    );
}

/// Nothing that is on its way may be below what was written anew.
#[test]
fn a_rewrite_waits_for_writes_under_way() {
    let mut stepper = Stepper::new();
    let generation = stepper.stable();
    let (_, commit_effects) = stepper.ask(commit("a", generation, 7));
    assert_eq!(stepper.step(Input::Rewrite), []);
    let _answers = stepper.settle(commit_effects);
    assert_eq!(committed(&stepper.replayed()), Some(Offset::new(7)));
    assert_eq!(stepper.log.len(), 2);
}

/// Who comes soon after all have left does not get a generation once more, whether or not the group has offsets or gets them
/// late.
#[test]
fn a_group_without_members_keeps_its_generation_for_a_while() {
    for commits in [false, true] {
        let mut stepper = Stepper::new();
        let generation = stepper.stable();
        let mut under_way = match commits {
            true => stepper.ask(commit("a", generation, 7)).1,
            false => vec![],
        };
        under_way.extend(stepper.ask(leave("a")).1);
        let _answers = stepper.settle(under_way);
        let offset = commits.then_some(Offset::new(7));
        assert_eq!(committed(&stepper.replayed()), offset);
        let (_, answers) = stepper.join("", "b");
        assert!(joined(&answers[0].1).generation > generation + 1);
    }
}

#[test]
fn a_group_that_nobody_needs_expires() {
    let mut stepper = Stepper::new();
    let _generation = stepper.stable();
    let _left = stepper.call(leave("a"));
    assert_eq!(stepper.coordinator.list().len(), 1);
    assert_eq!(stepper.replayed().list().len(), 1);
    assert_eq!(stepper.advance(EXPIRY_INTERVAL * 2), []);
    assert_eq!(stepper.coordinator.list(), []);
    assert_eq!(stepper.replayed().list(), []);
}

/// If that cannot be written the group stays: after the next start it would be back, and be older than what came meanwhile.
#[test]
fn a_group_whose_end_is_not_written_stays() {
    let mut stepper = Stepper::new();
    let generation = stepper.stable();
    let _left = stepper.call(leave("a"));
    stepper.now.monotonic = stepper.now.monotonic.after(EXPIRY_INTERVAL * 2);
    let effects = stepper.step(Input::Tick);
    let [Effect::Write { write, .. }] = effects[..] else {
        panic!("{effects:?}");
    };
    let error = ErrorCode::NotEnoughReplicas;
    assert_eq!(stepper.step(Input::WriteFailed { write, error }), []);
    assert_eq!(stepper.coordinator.list().len(), 1);
    let (_, answers) = stepper.join("", "b");
    assert!(joined(&answers[0].1).generation > generation);
}

#[test]
fn offsets_of_groups_without_members_expire() {
    let mut stepper = Stepper::new();
    let _committed = stepper.call(commit("", -1, 5));
    assert_eq!(stepper.advance(EXPIRY_INTERVAL * 2), []);
    assert_eq!(committed(&stepper.coordinator), Some(Offset::new(5)));
    stepper.now.wall.0 += 8 * 24 * 3600 * 1000;
    assert_eq!(stepper.advance(EXPIRY_INTERVAL * 2), []);
    assert_eq!(committed(&stepper.coordinator), None);
    assert_eq!(committed(&stepper.replayed()), None);
}

fn delete_offsets() -> Question {
    Question::DeleteOffsets {
        group: "g".into(),
        partitions: vec![partition()],
    }
}

/// A group with members is not deleted; one without goes with all its offsets, also after a restart.
#[test]
fn groups_without_members_are_deleted() {
    let mut stepper = Stepper::new();
    let delete = || Question::DeleteGroup("g".into());
    assert_eq!(error(&stepper.call(delete()).1), ErrorCode::GroupIdNotFound);
    let generation = stepper.stable();
    let _committed = stepper.call(commit("a", generation, 7));
    assert_eq!(error(&stepper.call(delete()).1), ErrorCode::NonEmptyGroup);
    let leave = LeaveGroup {
        group: "g".into(),
        members: vec![("a".into(), None)],
    };
    let _left = stepper.call(Question::Leave(leave));
    assert_eq!(committed(&stepper.coordinator), Some(Offset::new(7)));
    assert_eq!(error(&stepper.call(delete()).1), ErrorCode::None);
    assert_eq!(stepper.coordinator.list(), []);
    assert_eq!(stepper.replayed().list(), []);
    assert_eq!(committed(&stepper.replayed()), None);
}

/// Offsets of topics that members read stay; without members they go.
#[test]
fn offsets_that_nobody_reads_are_deleted() {
    let mut stepper = Stepper::new();
    let unknown = stepper.call(delete_offsets());
    assert_eq!(error(&unknown.1), ErrorCode::GroupIdNotFound);
    let _committed = stepper.call(commit("", -1, 5));
    assert_eq!(error(&stepper.call(delete_offsets()).1), ErrorCode::None);
    assert_eq!(committed(&stepper.coordinator), None);
    assert_eq!(committed(&stepper.replayed()), None);
}
