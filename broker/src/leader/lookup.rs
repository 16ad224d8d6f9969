//! What a leader looks up in its log: records by time, ends of reigns.

use actix::prelude::*;

use super::actor::LeaderActor;
use super::error::FetchError;
use super::messages::{FindEpochEnd, FindTimestamp, Found};
use crate::storage::StorageError;

/// The most that a look-up by time decompresses of one batch.
const DECOMPRESS_LIMIT_BYTES: usize = 64 << 20;

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
        // Not the high watermark, as in Kafka: after a change of leaders it may be less than what readers have seen, who
        // would take that for records that are gone.
        let end = open.leader.ends().log_end;
        let known = open.leader.knows_the_reign(find.current_epoch);
        let found = known.map(|()| open.log.epochs().end_of(find.epoch, end));
        drop(find.reply.send(found));
    }
}
