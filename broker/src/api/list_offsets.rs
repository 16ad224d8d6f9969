//! ListOffsets: ends from the directory, times from the leader.

use callboard_common::protocol::Response;
use callboard_common::protocol::list_offsets::{
    EpochEnd, EpochEnds, EpochEndsAnswer, ListOffsets, ListOffsetsPartition, ListedOffset,
    ListedOffsets, ListedOffsetsTopic, OffsetTarget,
};
use callboard_common::{ErrorCode, LeaderEpoch, Offset, TopicName, TopicPartition};
use tokio::sync::oneshot;

use super::{Api, Caller, Operation};
use crate::leader::actor::{FindEpochEnd, FindTimestamp};
use crate::supervision;

pub(super) async fn list(api: &Api, caller: &Caller, list: ListOffsets) -> ListedOffsets {
    let image = api.image();
    let mut topics = Vec::with_capacity(list.topics.len());
    for topic in list.topics {
        let name = api
            .topic(caller, Operation::Describe, &image, &topic.topic)
            .map(|(name, _)| name);
        let look_ups = topic
            .partitions
            .iter()
            .map(|p| look_up(api, name.clone(), p));
        let partitions = futures::future::join_all(look_ups).await;
        topics.push(ListedOffsetsTopic {
            topic: topic.topic,
            partitions,
        });
    }
    ListedOffsets { topics }
}

/// Where reigns ended.
pub(super) async fn epoch_ends(api: &Api, caller: &Caller, ask: EpochEnds) -> Response {
    let image = api.image();
    let mut topics = Vec::with_capacity(ask.topics.len());
    for (topic, wanted) in ask.topics {
        let name = api
            .topic(caller, Operation::Describe, &image, &topic)
            .map(|(name, _)| name);
        let ends = wanted
            .iter()
            .map(|wanted| epoch_end(api, name.clone(), *wanted));
        let ends = futures::future::join_all(ends).await;
        topics.push((topic, ends));
    }
    Response::EpochEnds(EpochEndsAnswer { topics })
}

async fn epoch_end(
    api: &Api,
    name: Result<TopicName, ErrorCode>,
    (partition, current_epoch, epoch): (i32, Option<LeaderEpoch>, LeaderEpoch),
) -> EpochEnd {
    let found = async {
        let leader = api.leader(&TopicPartition::new(name?, partition))?;
        let (reply, found) = oneshot::channel();
        supervision::tell(
            &leader.actor,
            FindEpochEnd {
                current_epoch,
                epoch,
                reply,
            },
        );
        let found = found.await.map_err(|_| ErrorCode::NotLeaderOrFollower)?;
        found.map_err(|e| super::fetch::error_code(&e))
    };
    let (error, end) = match found.await {
        Ok(end) => (ErrorCode::None, end),
        Err(error) => (error, None),
    };
    EpochEnd {
        partition,
        error,
        end,
    }
}

async fn look_up(
    api: &Api,
    name: Result<TopicName, ErrorCode>,
    wanted: &ListOffsetsPartition,
) -> ListedOffset {
    let partition = wanted.partition;
    match find(api, name, wanted).await {
        Ok(found) => ListedOffset { partition, ..found },
        Err(error) => ListedOffset {
            partition,
            error,
            offset: None,
            timestamp: None,
            epoch: None,
        },
    }
}

async fn find(
    api: &Api,
    name: Result<TopicName, ErrorCode>,
    wanted: &ListOffsetsPartition,
) -> Result<ListedOffset, ErrorCode> {
    let leader = api.leader(&TopicPartition::new(name?, wanted.partition))?;
    let ends = *leader.ends.borrow();
    let epoch = ends.epoch.ok_or(ErrorCode::NotLeaderOrFollower)?;
    match wanted.current_epoch {
        Some(asked) if asked < epoch => return Err(ErrorCode::FencedLeaderEpoch),
        Some(asked) if asked > epoch => return Err(ErrorCode::UnknownLeaderEpoch),
        Some(_) | None => {}
    }
    let at = |offset: Option<Offset>| ListedOffset {
        partition: wanted.partition,
        error: ErrorCode::None,
        offset,
        timestamp: None,
        epoch: offset.map(|_| epoch),
    };
    let timestamp = match wanted.target {
        OffsetTarget::Earliest => return Ok(at(Some(ends.log_start))),
        OffsetTarget::Latest if !ends.have_caught_up() => {
            return Err(ErrorCode::OffsetNotAvailable);
        }
        OffsetTarget::Latest => return Ok(at(Some(ends.high_watermark))),
        OffsetTarget::Tiered => return Ok(at(None)),
        OffsetTarget::MaxTimestamp => None,
        OffsetTarget::Timestamp(timestamp) => Some(timestamp),
    };
    let (reply, found) = oneshot::channel();
    supervision::tell(&leader.actor, FindTimestamp { timestamp, reply });
    let found = found.await.map_err(|_| ErrorCode::NotLeaderOrFollower)?;
    let found = found.map_err(|e| super::fetch::error_code(&e))?;
    Ok(match found {
        Some(found) => ListedOffset {
            timestamp: Some(found.timestamp),
            epoch: found.epoch,
            ..at(Some(found.offset))
        },
        // It may be among what is committed and not known to be.
        None if !ends.have_caught_up() => return Err(ErrorCode::OffsetNotAvailable),
        None => at(None),
    })
}
