//! Fetch: reads what is there, and waits on the partitions' ends if that is too little.
//!
//! Waiting costs no message: [`Ends`] are watched, so an idle partition that is polled does not wake its leader.
//! The watch is taken before the read, so what is appended in between is not missed.

use bytes::Bytes;
use callboard_common::protocol::TopicRef;
use callboard_common::protocol::fetch::{
    Fetch, FetchPartition, Fetched, FetchedPartition, FetchedTopic,
};
use callboard_common::{BrokerId, ErrorCode, Offset, TopicPartition};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::{Api, Caller, Door, Operation, or_timeout, timeout};
use crate::controller::MetadataImage;
use crate::directory::Replica;
use crate::leader::{Ends, FetchError, actor};
use crate::supervision;

/// One partition of a fetch.
struct Part {
    wanted: FetchPartition,
    replica: Result<Replica, ErrorCode>,
    /// Who else keeps it, in the reader's rack.
    nearer: Option<BrokerId>,
    ends: Option<watch::Receiver<Ends>>,
    result: Result<Found, FetchFailed>,
    waiting: Option<oneshot::Receiver<Result<actor::Fetched, FetchError>>>,
}

/// What a partition gives.
struct Found {
    batches: Bytes,
    ends: Ends,
    /// Who is to be asked instead.
    preferred: Option<BrokerId>,
}

impl Found {
    /// There is nothing yet.
    fn nothing(ends: Ends) -> Self {
        Self {
            batches: Bytes::new(),
            ends,
            preferred: None,
        }
    }
}

/// Why a partition gives nothing, and what is known of its ends.
struct FetchFailed {
    error: ErrorCode,
    ends: Option<Ends>,
}

impl From<ErrorCode> for FetchFailed {
    fn from(error: ErrorCode) -> Self {
        Self { error, ends: None }
    }
}

pub(super) async fn fetch(api: &Api, caller: &Caller, fetch: Fetch) -> Fetched {
    let mut topics = resolve(api, caller, &fetch);
    let clock = api.shared().clock.clone();
    let wait = timeout(fetch.max_wait_ms).min(api.config().fetch_max_wait);
    let deadline = clock.now().monotonic.after(wait);
    let max_bytes = fetch.max_bytes.clamp(0, api.config().fetch_max_bytes) as u32;
    let enough = usize::try_from(fetch.min_bytes).unwrap_or(0);
    loop {
        for part in topics.iter_mut().flat_map(|(_, parts)| parts) {
            // Whatever comes after this is noticed.
            part.ends = part
                .replica
                .as_ref()
                .ok()
                .map(|replica| replica.ends().clone());
            if let Some(ends) = &mut part.ends {
                ends.mark_unchanged();
            }
        }
        let found = read_all(api, caller, &mut topics, max_bytes).await;
        let mut parts = topics.iter().flat_map(|(_, parts)| parts);
        let says_something = |part: &Part| match &part.result {
            Ok(found) => found.preferred.is_some(),
            Err(_) => true,
        };
        let told = parts.any(says_something);
        // As in Kafka, a fetch of nothing does not wait: there is nothing to wait for.
        let of_nothing = topics.iter().all(|(_, parts)| parts.is_empty());
        if told || of_nothing || found >= enough || clock.now().monotonic >= deadline {
            break;
        }
        let changed: FuturesUnordered<_> = topics
            .iter_mut()
            .flat_map(|(_, parts)| parts)
            .filter_map(|p| p.ends.take())
            .map(|mut ends| async move { ends.changed().await })
            .collect();
        if or_timeout(changed.into_future(), clock.sleep_until(deadline))
            .await
            .is_none()
        {
            // What was read so far is the answer.
            break;
        }
    }
    Fetched {
        topics: topics
            .into_iter()
            .map(|topic| answer(topic, caller.door))
            .collect(),
    }
}

type Topics = Vec<(TopicRef, Vec<Part>)>;

fn resolve(api: &Api, caller: &Caller, fetch: &Fetch) -> Topics {
    let image = api.image();
    // Who does not say where it stands reads from leaders only.
    let rack = fetch.rack.as_deref();
    let redirects = api.config().follower_fetch;
    let part = |name: &Result<_, ErrorCode>, wanted: &FetchPartition| {
        let of = name.clone();
        let of = of.map(|name| TopicPartition::new(name, wanted.partition));
        let replica = of.as_ref().map_err(|e| *e).and_then(|of| match rack {
            Some(_) => api.replica(of),
            None => api.leader(of).map(Replica::Leader),
        });
        let nearer = match (&of, &replica, rack) {
            (Ok(of), Ok(Replica::Leader(_)), Some(rack)) if redirects => nearer(&image, of, rack),
            (Ok(_) | Err(_), Ok(_) | Err(_), Some(_) | None) => None,
        };
        let result = Err(FetchFailed::from(ErrorCode::None));
        Part {
            wanted: *wanted,
            replica,
            nearer,
            ends: None,
            result,
            waiting: None,
        }
    };
    let topic = |topic: &callboard_common::protocol::fetch::FetchTopic| {
        let name = api
            .topic(caller, Operation::Read, &image, &topic.topic)
            .map(|(name, _)| name);
        (
            topic.topic.clone(),
            topic.partitions.iter().map(|p| part(&name, p)).collect(),
        )
    };
    fetch.topics.iter().map(topic).collect()
}

/// A replica in sync in the reader's rack, if the leader stands elsewhere: as Kafka's `RackAwareReplicaSelector`, but several
/// share the partitions.
fn nearer(image: &MetadataImage, of: &TopicPartition, rack: &str) -> Option<BrokerId> {
    let partition = image.partition(of)?;
    let stands_here = |broker: &BrokerId| {
        let broker = image.brokers.get(broker);
        broker.is_some_and(|b| b.rack.as_deref() == Some(rack))
    };
    if partition.leader.is_some_and(|leader| stands_here(&leader)) {
        return None;
    }
    let in_rack = partition.isr.iter().filter(|b| stands_here(b));
    let in_rack: Vec<BrokerId> = in_rack.copied().collect();
    let turn = of.partition.unsigned_abs() as usize;
    in_rack.get(turn.checked_rem(in_rack.len())?).copied()
}

/// Reads every partition, in order of the request, until `max_bytes` are found; returns how many were.
async fn read_all(api: &Api, caller: &Caller, topics: &mut Topics, max_bytes: u32) -> usize {
    let credit = credit(api, topics, max_bytes).await;
    // Partitions with something to read are asked together; the others are answered from their ends.
    let mut budget = max_bytes;
    let mut first = true;
    for part in topics.iter_mut().flat_map(|(_, parts)| parts) {
        ask(part, caller, budget, first);
        if part.waiting.is_some() {
            first = false;
            // An estimate: what is read is counted below.
            budget = budget.saturating_sub(part.wanted.max_bytes.max(0) as u32);
        }
    }
    let mut found = 0;
    for part in topics.iter_mut().flat_map(|(_, parts)| parts) {
        if let Some(waiting) = part.waiting.take() {
            part.result = match waiting.await {
                Ok(Ok(fetched)) => Ok(Found {
                    batches: fetched.batches,
                    ..Found::nothing(fetched.ends)
                }),
                Ok(Err(error)) => Err(failed(&error, part)),
                Err(_) => Err(ErrorCode::NotLeaderOrFollower.into()),
            };
        }
        if let Ok(Found { batches, .. }) = &part.result {
            found += batches.len();
        }
    }
    if let Some(mut credit) = credit {
        // What was not read is free for others at once; the rest when the answer is written.
        let unused = credit.num_permits().saturating_sub(found);
        drop(credit.split(unused));
        caller.permit.add(credit);
    }
    found
}

/// Credits for what there is to read, so that many fetches at once do not fill the memory.
async fn credit(api: &Api, topics: &Topics, max_bytes: u32) -> Option<OwnedSemaphorePermit> {
    let wanted = |part: &Part| {
        let ends = *part.replica.as_ref().ok()?.ends().borrow();
        let something = part.wanted.offset < ends.high_watermark.get() && ends.epoch.is_some();
        something.then_some(part.wanted.max_bytes.max(0) as u32)
    };
    let parts = topics
        .iter()
        .flat_map(|(_, parts)| parts)
        .filter_map(wanted);
    let sum = parts.fold(0u32, u32::saturating_add).min(max_bytes);
    api.0.fetch_bytes.clone().acquire_many_owned(sum).await.ok()
}

/// Sends a read to the replica if there is something to read.
fn ask(part: &mut Part, caller: &Caller, budget: u32, at_least_one: bool) {
    let replica = match &part.replica {
        Ok(replica) => replica,
        Err(error) => {
            part.result = Err((*error).into());
            return;
        }
    };
    let ends = *replica.ends().borrow();
    // Nobody will show others: its actor has given up.
    let is_gone = replica.ends().has_changed().is_err();
    let Some(epoch) = ends.epoch.filter(|_| !is_gone) else {
        part.result = Err(ErrorCode::NotLeaderOrFollower.into());
        return;
    };
    let max_bytes = (part.wanted.max_bytes.max(0) as u32).min(budget);
    let knows_better = part.wanted.current_epoch.is_some_and(|e| e != epoch);
    // All that is committed is in the log of who is in sync.
    let is_there = (ends.log_start.get()..=ends.high_watermark.get()).contains(&part.wanted.offset);
    if part.nearer.is_some() && is_there && !knows_better {
        part.result = Ok(Found {
            preferred: part.nearer,
            ..Found::nothing(ends)
        });
        return;
    }
    let at_the_end = part.wanted.offset == ends.high_watermark.get() && !knows_better;
    // Without budget a partition is left for the next fetch, but its errors are still told.
    let in_range =
        (ends.log_start.get()..=ends.log_end.get()).contains(&part.wanted.offset) && !knows_better;
    if at_the_end || (in_range && max_bytes == 0 && !at_least_one) {
        part.result = Ok(Found::nothing(ends));
        return;
    }
    let (reply, waiting) = oneshot::channel();
    let fetch = actor::Fetch {
        from: part.wanted.offset,
        max_bytes,
        at_least_one,
        current_epoch: part.wanted.current_epoch,
        permit: caller.permit.clone(),
        reply,
    };
    match replica {
        Replica::Leader(leader) => supervision::tell(&leader.actor, fetch),
        Replica::Follower(follower) => supervision::tell(&follower.actor, fetch),
    }
    part.waiting = Some(waiting);
}

fn failed(error: &FetchError, part: &Part) -> FetchFailed {
    let replica = part.replica.as_ref().ok();
    let ends = replica.map(|replica| *replica.ends().borrow());
    FetchFailed {
        error: error_code(error),
        ends,
    }
}

/// What a client is told.
pub(super) fn error_code(error: &FetchError) -> ErrorCode {
    match error {
        FetchError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        FetchError::Fenced { .. } => ErrorCode::FencedLeaderEpoch,
        FetchError::UnknownEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        FetchError::Content(_) => ErrorCode::CorruptMessage,
        FetchError::Storage(_) => ErrorCode::KafkaStorageError,
        FetchError::LeaderStopped => ErrorCode::NotLeaderOrFollower,
    }
}

fn answer((topic, parts): (TopicRef, Vec<Part>), door: Door) -> FetchedTopic {
    // A new leader may know less of what is committed than was told before it. Kafka's clients are told that, as by Kafka.
    let tells = |ends: &Ends| door != Door::Quic || ends.have_caught_up();
    let known = |ends: Option<Ends>, end: fn(&Ends) -> Offset| ends.as_ref().map(end);
    let partition = |part: Part| {
        let (error, batches, ends, preferred_replica) = match part.result {
            Ok(found) => (
                ErrorCode::None,
                found.batches,
                Some(found.ends),
                found.preferred,
            ),
            Err(failed) => (failed.error, Bytes::new(), failed.ends, None),
        };
        FetchedPartition {
            partition: part.wanted.partition,
            error,
            high_watermark: known(ends.filter(tells), |e| e.high_watermark),
            log_start: known(ends, |e| e.log_start),
            preferred_replica,
            records: batches.into(),
        }
    };
    FetchedTopic {
        topic,
        partitions: parts.into_iter().map(partition).collect(),
    }
}
