//! What a leader looks up in its log: records by time, ends of reigns.

use actix::prelude::*;
use callboard_common::{LeaderEpoch, Offset};

use super::actor::LeaderActor;
use super::error::FetchError;
use super::messages::{FindEpochEnd, FindTimestamp, Found};
use super::state::Leader;
use crate::planted::{self, Bug};
use crate::storage::StorageError;
use crate::storage::leader_epochs::LeaderEpochs;

/// The most that a look-up by time decompresses of one batch.
const DECOMPRESS_LIMIT_BYTES: usize = 64 << 20;

/// Where a reign ended, and which: the one asked for, or the last before it (KIP-279); where the first that is known begins, if
/// that is later. Who has read records of that reign beyond its end has read what is gone (KIP-320). `current` is the reign
/// that the reader takes for the newest.
///
/// # Errors
///
/// [`FetchError::Fenced`], [`FetchError::UnknownEpoch`], and [`FetchError::LeaderStopped`] of a leader that does not serve.
pub fn reign_end(
    leader: &Leader,
    epochs: &LeaderEpochs,
    current: Option<LeaderEpoch>,
    asked: LeaderEpoch,
) -> Result<Option<(LeaderEpoch, Offset)>, FetchError> {
    leader.knows_the_reign(current)?;
    let ends = leader.ends();
    // Not up to the high watermark only, as in Kafka: after a change of leaders it may be less than what readers have seen, who
    // would take that for records that are gone.
    let limit = match planted::is(Bug::ReignEndsAtHighWatermark) {
        true => ends.high_watermark,
        false => ends.log_end,
    };
    let within = |(epoch, end): (LeaderEpoch, Offset)| (epoch, end.min(limit));
    // What was written in that reign is deleted: the reader goes on with the first that is known, as in Kafka.
    let first = epochs.first_start().filter(|_| asked.0 >= 0);
    let deleted = first.map(|start| (asked, start));
    Ok(epochs.end_of(asked, ends.log_end).or(deleted).map(within))
}

impl Handler<FindTimestamp> for LeaderActor {
    type Result = ();

    fn handle(&mut self, find: FindTimestamp, _ctx: &mut Context<Self>) {
        let Some(open) = &self.state else { return };
        let limit = open.leader.ends().high_watermark;
        let Some(timestamp) = find.timestamp.or_else(|| open.log.max_timestamp()) else {
            drop(find.reply.send(Ok(None)));
            return;
        };
        let (plan, epochs) = (
            open.log.plan_time_search(timestamp, limit),
            open.log.epochs().clone(),
        );
        self.start.runtime.background().run(move || {
            let found = plan.run(DECOMPRESS_LIMIT_BYTES).map_err(|e| match e {
                StorageError::Content { .. } => FetchError::Content(e.to_string()),
                StorageError::Full { .. }
                | StorageError::Io { .. }
                | StorageError::Damaged { .. }
                | StorageError::Contradiction { .. } => FetchError::Storage(e.to_string()),
            });
            let with_epoch = |(offset, timestamp)| Found {
                offset,
                timestamp,
                epoch: epochs.at(offset),
            };
            drop(find.reply.send(found.map(|f| f.map(with_epoch))));
        });
    }
}

impl Handler<FindEpochEnd> for LeaderActor {
    type Result = ();

    fn handle(&mut self, find: FindEpochEnd, _ctx: &mut Context<Self>) {
        let Some(open) = &self.state else { return };
        let epochs = open.log.epochs();
        let found = reign_end(&open.leader, epochs, find.current_epoch, find.epoch);
        drop(find.reply.send(found));
    }
}
