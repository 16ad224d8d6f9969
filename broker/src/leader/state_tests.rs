use std::time::Duration;

use callboard_common::Timestamp;
use callboard_common::record::{BatchBuilder, Compression};

use super::*;
use crate::storage::leader_epochs::LeaderEpochs;

const EPOCH: LeaderEpoch = LeaderEpoch(4);
const WALL: i64 = 1_000_000_000;

struct Stepper {
    leader: Leader,
    now: Now,
}

impl Stepper {
    fn new(config: TopicConfig) -> Self {
        let now = Now {
            wall: Timestamp(WALL),
            ..Now::default()
        };
        let leader = Leader::new(
            now,
            EPOCH,
            config,
            (Offset::ZERO, Offset::ZERO, Offset::ZERO),
            ProducerTable::default(),
            alone(),
        );
        Self { leader, now }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Effects::new();
        self.leader.step(self.now, input, &mut out);
        out.into()
    }

    /// Produces and lets the log take it.
    fn append(&mut self, ticket: u64, batch: Batch, acks: Acks) -> Vec<Effect> {
        let base = self.leader.ends().log_end;
        let effects = self.step(produce(ticket, batch, acks));
        assert!(
            matches!(effects[..], [Effect::Append { .. }]),
            "{effects:?}"
        );
        self.step(Input::Appended { base })
    }
}

/// A partition without followers.
fn alone() -> Replication {
    let me = BrokerId(1);
    let partition = PartitionImage::new(vec![me], EPOCH, &[me].into());
    Replication::new(
        Monotonic::default(),
        me,
        partition,
        [(me, 1)].into(),
        Offset::ZERO,
    )
}

fn produce(ticket: u64, batch: Batch, acks: Acks) -> Input {
    Input::Produce {
        ticket: Ticket(ticket),
        batch,
        acks,
        epoch: EPOCH,
    }
}

fn batch_at(timestamp: i64, count: i32, sequence: i32) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None).producer(9, 0, sequence);
    (0..count).for_each(|_| builder.push(timestamp, None, Some(b"v"), &[]));
    builder.build()
}

fn batch(count: i32, sequence: i32) -> Batch {
    batch_at(WALL, count, sequence)
}

fn ack(ticket: u64, base: i64) -> Effect {
    let appended = Appended {
        base: Offset::new(base),
        append_time: None,
        log_start: Offset::ZERO,
    };
    Effect::Acknowledge(Ticket(ticket), Ok(appended))
}

fn error(effects: &[Effect]) -> &ProduceError {
    let [Effect::Acknowledge(_, Err(error))] = effects else {
        panic!("one refusal: {effects:?}")
    };
    error
}

/// DESIGN, promise 1: by default an acknowledgement means synced.
#[test]
fn an_acknowledgement_waits_for_the_sync() {
    let mut leader = Stepper::new(TopicConfig::default());
    assert_eq!(leader.append(1, batch(3, 0), Acks::Leader), [Effect::Sync]);
    assert_eq!(leader.append(2, batch(2, 3), Acks::All), [Effect::Sync]);
    assert_eq!(
        leader.leader.ends().high_watermark,
        Offset::ZERO,
        "nothing is shown that is not durable"
    );
    assert_eq!(
        leader.step(Input::Synced {
            end: Offset::new(3)
        }),
        [ack(1, 0)],
        "the rest shares the next"
    );
    assert_eq!(
        leader.step(Input::Synced {
            end: Offset::new(5)
        }),
        [ack(2, 3)]
    );
    assert_eq!(leader.leader.ends().high_watermark, Offset::new(5));
}

#[test]
fn acks_0_does_not_wait() {
    let mut leader = Stepper::new(TopicConfig::default());
    assert_eq!(
        leader.append(1, batch(1, 0), Acks::None),
        [ack(1, 0), Effect::Sync]
    );
}

/// `flush.messages` above 1: acknowledgements follow the written end and syncs come by count or time, as in Kafka.
#[test]
fn a_topic_may_choose_not_to_wait_for_the_sync() {
    let config = TopicConfig {
        flush_messages: 4,
        flush_interval: Some(Duration::from_secs(1)),
        ..TopicConfig::default()
    };
    let mut leader = Stepper::new(config);
    assert_eq!(leader.append(1, batch(3, 0), Acks::All), [ack(1, 0)]);
    assert_eq!(leader.leader.ends().high_watermark, Offset::new(3));
    assert_eq!(
        leader.append(2, batch(1, 3), Acks::All),
        [ack(2, 3), Effect::Sync],
        "by count"
    );
    assert_eq!(leader.append(3, batch(1, 4), Acks::All), [ack(3, 4)]);
    assert_eq!(
        leader.leader.next_deadline(),
        Monotonic(Duration::from_secs(1))
    );
    leader.now.monotonic = Monotonic(Duration::from_secs(1));
    assert_eq!(leader.step(Input::Tick), [Effect::Sync], "by time");
}

/// KIP-98: a retried batch is answered with where its first copy is, once that is durable.
#[test]
fn a_duplicate_is_answered_when_its_first_copy_is_durable() {
    let mut leader = Stepper::new(TopicConfig::default());
    assert_eq!(leader.append(1, batch(2, 0), Acks::All), [Effect::Sync]);
    assert_eq!(leader.append(2, batch(2, 2), Acks::All), [Effect::Sync]);
    assert_eq!(leader.step(produce(3, batch(2, 0), Acks::All)), []);
    let effects = leader.step(Input::Synced {
        end: Offset::new(2),
    });
    assert_eq!(effects, [ack(1, 0), ack(3, 0)]);
    assert_eq!(leader.step(produce(4, batch(2, 0), Acks::All)), [ack(4, 0)]);
    let gap = leader.step(produce(5, batch(1, 9), Acks::All));
    assert!(matches!(error(&gap), ProduceError::Sequence(_)));
}

#[test]
fn what_a_topic_does_not_allow_is_refused_and_nothing_is_appended() {
    let config = TopicConfig {
        max_message_bytes: 100,
        timestamp_before_max: Some(Duration::from_secs(10)),
        timestamp_after_max: Duration::from_secs(5),
        min_insync_replicas: 2,
        ..TopicConfig::default()
    };
    let mut leader = Stepper::new(config);
    let mut refused = |batch, acks| error(&leader.step(produce(1, batch, acks))).clone();
    assert!(matches!(
        refused(batch(20, 0), Acks::Leader),
        ProduceError::BatchTooLarge {
            limit_bytes: 100,
            ..
        }
    ));
    for timestamp in [WALL - 10_001, WALL + 5001, i64::MIN, i64::MAX, -2] {
        let error = refused(batch_at(timestamp, 1, 0), Acks::Leader);
        assert_eq!(error, ProduceError::TimestampOutOfRange { timestamp });
    }
    let error = refused(batch(1, 0), Acks::All);
    assert_eq!(
        error,
        ProduceError::NotEnoughReplicas {
            in_sync: 1,
            required: 2
        }
    );
    assert!(matches!(
        leader.step(produce(1, batch_at(-1, 1, 0), Acks::Leader))[..],
        [Effect::Append { .. }]
    ));
}

#[test]
fn a_full_disk_is_refused_and_the_next_batch_is_taken() {
    let mut leader = Stepper::new(TopicConfig::default());
    assert!(matches!(
        leader.step(produce(1, batch(1, 0), Acks::All))[..],
        [Effect::Append { .. }]
    ));
    let refused = leader.step(Input::AppendRefused(Refused::DiskFull));
    assert_eq!(error(&refused), &ProduceError::DiskFull);
    assert_eq!(
        leader.append(2, batch(1, 0), Acks::All),
        [Effect::Sync],
        "the sequence number was not used up"
    );
}

/// librdkafka takes a gap for the end of its sequence and sends what is on its way once more, under a new epoch.
#[test]
fn what_follows_a_batch_that_a_full_disk_refused_is_no_gap() {
    let mut leader = Stepper::new(TopicConfig::default());
    let _appended = leader.append(1, batch(1, 0), Acks::All);
    let _asked = leader.step(produce(2, batch(1, 1), Acks::All));
    let _refused = leader.step(Input::AppendRefused(Refused::DiskFull));
    let next = leader.step(produce(3, batch(1, 2), Acks::All));
    assert_eq!(error(&next), &ProduceError::DiskFull);
    let _appended = leader.append(4, batch(1, 1), Acks::All);
    let gap = leader.step(produce(5, batch(1, 4), Acks::All));
    assert!(matches!(error(&gap), ProduceError::Sequence(_)));
}

/// Segments go only when they are durable, also of a topic that is never asked to sync.
#[test]
fn retention_makes_durable_what_is_to_go() {
    let mut leader = Stepper::new(TopicConfig {
        flush_messages: u64::MAX,
        ..TopicConfig::default()
    });
    assert_eq!(leader.append(1, batch(1, 0), Acks::All).len(), 1, "no sync");
    leader.now.monotonic = Monotonic(Duration::from_hours(1));
    let mut effects = leader.step(Input::Tick);
    effects.retain(|e| matches!(e, Effect::Sync | Effect::Retain { .. }));
    assert!(matches!(effects[..], [Effect::Sync, Effect::Retain { .. }]));
}

/// DESIGN section 4: a restarted leader accepts nothing that was sent to its old reign.
#[test]
fn requests_of_an_earlier_reign_are_fenced() {
    let mut leader = Stepper::new(TopicConfig::default());
    let old = Input::Produce {
        ticket: Ticket(1),
        batch: batch(1, 0),
        acks: Acks::All,
        epoch: LeaderEpoch(3),
    };
    let effects = leader.step(old);
    assert_eq!(
        error(&effects),
        &ProduceError::Fenced {
            asked: LeaderEpoch(3),
            current: EPOCH
        }
    );
}

fn fetch(leader: &mut Stepper, from: i64, epoch: Option<i32>) -> Effect {
    let current_epoch = epoch.map(LeaderEpoch);
    let input = Input::Fetch {
        ticket: Ticket(1),
        from,
        max_bytes: 10,
        at_least_one: true,
        current_epoch,
    };
    leader.step(input).remove(0)
}

#[test]
fn fetches_end_at_the_high_watermark() {
    let mut leader = Stepper::new(TopicConfig::default());
    assert_eq!(leader.append(1, batch(3, 0), Acks::All), [Effect::Sync]);
    assert_eq!(
        fetch(&mut leader, 0, None),
        Effect::NothingToRead(Ticket(1))
    );
    let _acked = leader.step(Input::Synced {
        end: Offset::new(3),
    });
    let _unsynced = leader.append(2, batch(2, 3), Acks::All);
    let Effect::Read { limit, .. } = fetch(&mut leader, 1, Some(4)) else {
        panic!("there is something")
    };
    assert_eq!(limit, Offset::new(3));
    assert_eq!(
        fetch(&mut leader, 5, None),
        Effect::NothingToRead(Ticket(1))
    );
    for outside in [6, -1, i64::MAX, i64::MIN] {
        assert!(matches!(
            fetch(&mut leader, outside, None),
            Effect::Refuse(_, FetchError::OutOfRange { .. })
        ));
    }
    assert!(matches!(
        fetch(&mut leader, 0, Some(3)),
        Effect::Refuse(_, FetchError::Fenced { .. })
    ));
    assert!(matches!(
        fetch(&mut leader, 0, Some(5)),
        Effect::Refuse(_, FetchError::UnknownEpoch { .. })
    ));
}

#[test]
fn records_are_deleted_up_to_the_high_watermark() {
    let mut leader = Stepper::new(TopicConfig::default());
    let _sync = leader.append(1, batch(3, 0), Acks::All);
    let mut delete = |before| {
        leader
            .step(Input::DeleteRecords {
                ticket: Ticket(7),
                before,
            })
            .remove(0)
    };
    assert!(
        matches!(
            delete(Some(1)),
            Effect::Refuse(_, FetchError::OutOfRange { .. })
        ),
        "not durable yet"
    );
    let _acked = leader.step(Input::Synced {
        end: Offset::new(3),
    });
    let mut delete = |before| {
        leader
            .step(Input::DeleteRecords {
                ticket: Ticket(7),
                before,
            })
            .remove(0)
    };
    let advanced = |to| Effect::AdvanceStart {
        ticket: Ticket(7),
        log_start: Offset::new(to),
    };
    assert_eq!(delete(Some(2)), advanced(2));
    assert_eq!(delete(Some(1)), advanced(2), "the start never moves back");
    assert_eq!(delete(None), advanced(3));
}

#[test]
fn retention_comes_by_time() {
    let mut leader = Stepper::new(TopicConfig::default());
    assert_eq!(leader.step(Input::Tick), []);
    leader.now.monotonic = leader.leader.next_deadline();
    assert_eq!(
        leader.step(Input::Tick),
        [Effect::Retain {
            high_watermark: Offset::ZERO
        }]
    );
}

/// KIP-279, KIP-320; a reign whose records were deleted ended where the first begins that is known.
#[test]
fn kip_320_the_end_of_a_reign_is_told_also_after_its_records_were_deleted() {
    let Stepper { leader, .. } = Stepper::new(TopicConfig::default());
    let mut epochs = LeaderEpochs::default();
    let _new: bool = epochs.begin(LeaderEpoch(2), Offset::ZERO);
    let end = |asked| crate::leader::reign_end(&leader, &epochs, None, LeaderEpoch(asked)).ok();
    let zero = |epoch| Some(Some((LeaderEpoch(epoch), Offset::ZERO)));
    assert_eq!(end(2), zero(2));
    assert_eq!(end(7), zero(2), "the last before it");
    assert_eq!(end(1), zero(1), "its records were deleted");
}

/// An earlier life may have had a replica taken in, of which it has not heard.
#[test]
fn nothing_is_committed_before_the_metadata_of_the_reign_is_known() {
    let (me, other, at) = (BrokerId(1), BrokerId(2), Offset::new);
    let everybody = [me, other].into();
    let mut image = PartitionImage::new(vec![me, other], LeaderEpoch(3), &everybody);
    image.isr = vec![me];
    let alive: BTreeMap<_, _> = [(me, 1), (other, 2)].into();
    let leader = |is_in_doubt: bool| {
        let replication = Replication::new(
            Monotonic::default(),
            me,
            image.clone(),
            alive.clone(),
            at(2),
        );
        let ends = (Offset::ZERO, at(1), at(2));
        let (config, producers) = (TopicConfig::default(), ProducerTable::default());
        let now = Now::default();
        let mut leader = Leader::new(now, EPOCH, config, ends, producers, replication);
        if is_in_doubt {
            leader.doubt(&mut Effects::new());
        }
        Stepper { leader, now }
    };
    let (mut sure, mut unsure) = (leader(false), leader(true));
    assert_eq!(sure.leader.ends().high_watermark, at(1));
    assert!(unsure.leader.ends().in_doubt.is_some());
    let mut image = image.clone();
    image.isr = vec![me, other];
    (image.epoch, image.version) = (EPOCH, image.version + 2);
    let update = Input::Replicated {
        partition: Box::new(image),
        alive,
    };
    let followed = |end| Input::Followed {
        replica: other,
        broker_epoch: 2,
        end: at(end),
        synced: at(end),
    };
    for (input, high_watermark) in [(update.clone(), 1), (followed(1), 1), (followed(2), 2)] {
        let _effects = sure.step(input);
        assert_eq!(sure.leader.ends().high_watermark, at(high_watermark));
    }
    let _effects = unsure.step(update);
    assert!(
        unsure.leader.ends().in_doubt.is_some(),
        "the other one may have more"
    );
}

/// A leader that stands alone, of a topic that wants two in sync; the other replica is eligible.
fn standing_alone(is_in_doubt: bool) -> (Stepper, PartitionImage) {
    let (me, other, at) = (BrokerId(1), BrokerId(2), Offset::new);
    let mut image = PartitionImage::new(vec![me, other], EPOCH, &[me, other].into());
    (image.isr, image.elr) = (vec![me], vec![other]);
    let (now, alive) = (Now::default(), [(me, 1)].into());
    let replication = Replication::new(now.monotonic, me, image.clone(), alive, at(2));
    let ends = (Offset::ZERO, at(1), at(2));
    let producers = ProducerTable::default();
    let mut leader = Leader::new(now, EPOCH, wanting(2), ends, producers, replication);
    if is_in_doubt {
        leader.doubt(&mut Effects::new());
    }
    (Stepper { leader, now }, image)
}

fn wanting(min_insync_replicas: u32) -> TopicConfig {
    TopicConfig {
        min_insync_replicas,
        ..TopicConfig::default()
    }
}

/// Asks for the same in sync: nobody is eligible then.
fn alone_in_sync(version: i32) -> Effect {
    let isr = vec![(BrokerId(1), 1)];
    Effect::ChangeIsr(IsrChange { isr, version })
}

/// `min.insync.replicas` is lowered: whoever is eligible could lead without what is committed now.
#[test]
fn kip_966_what_fewer_commit_waits_until_nobody_else_is_eligible() {
    let (mut leader, mut image) = standing_alone(false);
    let second = |s| Monotonic(Duration::from_secs(s));
    assert_eq!(
        leader.step(Input::Configured(wanting(1))),
        [alone_in_sync(0)]
    );
    assert_eq!(leader.leader.ends().high_watermark, Offset::new(1));
    assert_eq!(leader.step(Input::IsrRefused(0)), []);
    leader.now.monotonic = second(1);
    assert_eq!(leader.step(Input::Tick), [], "not again and again");
    leader.now.monotonic = second(2);
    assert_eq!(leader.step(Input::Tick), [alone_in_sync(0)]);
    image.version += 1;
    image.elr.clear();
    let (partition, alive) = (Box::new(image), [(BrokerId(1), 1)].into());
    assert_eq!(leader.step(Input::Replicated { partition, alive }), []);
    assert_eq!(leader.leader.ends().high_watermark, Offset::new(2));
}

/// One that was elected, or has restarted, when fewer were enough already.
#[test]
fn kip_966_a_new_leader_asks_too() {
    let (mut leader, _) = standing_alone(false);
    leader.leader.config = wanting(1);
    leader.now.monotonic = Monotonic(Duration::from_secs(1));
    assert_eq!(leader.step(Input::Tick), [alone_in_sync(0)]);
    let (mut leader, _) = standing_alone(false);
    leader.now.monotonic = Monotonic(Duration::from_secs(1));
    assert_eq!(leader.step(Input::Tick), [], "one is too few");
}

/// The log was cut: only the eligible one can tell what it lacks.
#[test]
fn who_is_in_doubt_waits_for_the_eligible_although_fewer_are_enough() {
    let (mut leader, image) = standing_alone(true);
    assert_eq!(leader.step(Input::Configured(wanting(1))), []);
    let (partition, alive) = (Box::new(image), [(BrokerId(1), 1), (BrokerId(2), 2)].into());
    assert_eq!(leader.step(Input::Replicated { partition, alive }), []);
    assert!(leader.leader.ends().in_doubt.is_some());
    let compared = |theirs| Input::Compared {
        replica: BrokerId(2),
        broker_epoch: 2,
        theirs: (Some(EPOCH), Offset::new(theirs)),
        ours: (Some(EPOCH), Offset::new(2)),
    };
    assert_eq!(leader.step(compared(3)), [Effect::GiveUp]);
    assert_eq!(leader.leader.ends().high_watermark, Offset::new(1));
    assert_eq!(leader.step(compared(2)), [Effect::Settled]);
    leader.now.monotonic = Monotonic(Duration::from_secs(1));
    assert_eq!(leader.step(Input::Tick), [alone_in_sync(0)]);
}
