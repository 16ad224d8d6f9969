//! What a leader lets in and what it shows: batches are judged before they are appended, fetches before they are read.

use callboard_common::record::producers::{Sequence, SequenceError};
use callboard_common::record::{Batch, BatchHeader};
use callboard_common::{BrokerId, LeaderEpoch, Now, Offset};

use super::ends::same_reign;
use super::error::{FetchError, ProduceError};
use super::state::{Acks, Effect, Effects, Leader, Pending, Refused, Ticket};
use crate::planted::{self, Bug};

/// So many producers are remembered whose batches were refused for the time being.
const REFUSED_MAX: usize = 1_000;

impl Leader {
    /// What is not asked to be durable is made so all the same.
    pub(super) fn flush_rest(&mut self, out: &mut Effects) {
        if self.unsynced_records > 0 {
            self.flush(out);
        }
    }

    /// Whether this is one of the replicas, as far as is known here. One that knows newer metadata than this leader is not
    /// yet: it must be heard again later, or it would never be in sync if it is idle.
    #[must_use]
    pub fn is_replica(&self, broker: BrokerId) -> bool {
        self.replication.is_replica(broker)
    }

    /// Whether a replica is in sync, as far as is known here.
    #[must_use]
    pub fn is_in_sync(&self, replica: BrokerId) -> bool {
        self.replication.is_in_sync(replica)
    }

    /// The log did not take what was to be appended.
    pub(super) fn append_refused(&mut self, refused: Refused, out: &mut Effects) {
        let Pending { ticket, header, .. } = self.pending.take().expect("an append was asked for");
        let error = match refused {
            Refused::DiskFull => ProduceError::DiskFull,
        };
        let error = self.refuse(header.producer_id, error);
        out.push_back(Effect::Acknowledge(ticket, Err(error)));
    }

    /// What a producer is told of a batch that is not appended, with what its earlier ones were told in mind.
    pub(super) fn refuse(&mut self, producer: i64, error: ProduceError) -> ProduceError {
        match &error {
            ProduceError::Sequence(SequenceError::OutOfOrder { .. }) => {
                self.refused.get(&producer).cloned().unwrap_or(error)
            }
            ProduceError::DiskFull
            | ProduceError::NotEnoughReplicas { .. }
            | ProduceError::LeaderStopped
            | ProduceError::Fenced { .. } => {
                if self.refused.len() >= REFUSED_MAX {
                    self.refused.clear();
                }
                if producer >= 0 {
                    let _before = self.refused.insert(producer, error.clone());
                }
                error
            }
            ProduceError::Sequence(SequenceError::OldEpoch { .. })
            | ProduceError::BatchTooLarge { .. }
            | ProduceError::TimestampOutOfRange { .. } => error,
        }
    }

    pub(super) fn judge(
        &self,
        now: Now,
        batch: &Batch,
        acks: Acks,
        epoch: LeaderEpoch,
    ) -> Result<Sequence, ProduceError> {
        if self.ends.in_doubt.is_some() {
            return Err(ProduceError::LeaderStopped);
        }
        if epoch != self.epoch {
            return Err(ProduceError::Fenced {
                asked: epoch,
                current: self.epoch,
            });
        }
        let limit_bytes = self.config.max_message_bytes;
        if batch.size_bytes() > limit_bytes as usize {
            return Err(ProduceError::BatchTooLarge {
                size_bytes: batch.size_bytes(),
                limit_bytes,
            });
        }
        let required = self.config.min_insync_replicas;
        let in_sync = u32::try_from(self.replication.in_sync()).unwrap_or(u32::MAX);
        if acks == Acks::All && required > in_sync {
            return Err(ProduceError::NotEnoughReplicas { in_sync, required });
        }
        self.judge_timestamps(now, batch.header())?;
        if planted::is(Bug::SequencesIgnored) {
            return Ok(Sequence::New);
        }
        Ok(self.producers.check(batch.header())?)
    }

    /// Both ends of the batch's timestamps must lie within the topic's bounds; -1 is "none given".
    fn judge_timestamps(&self, now: Now, header: &BatchHeader) -> Result<(), ProduceError> {
        if self.config.log_append_time {
            return Ok(());
        }
        let ms = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        let earliest = self
            .config
            .timestamp_before_max
            .map_or(i64::MIN, |d| now.wall.0.saturating_sub(ms(d)));
        let latest = now
            .wall
            .0
            .saturating_add(ms(self.config.timestamp_after_max));
        for timestamp in [header.base_timestamp, header.max_timestamp] {
            let given = timestamp != -1;
            if given && (timestamp < 0 || timestamp < earliest || timestamp > latest) {
                return Err(ProduceError::TimestampOutOfRange { timestamp });
            }
        }
        Ok(())
    }

    /// Whether a caller knows the leader that is (KIP-320).
    ///
    /// # Errors
    ///
    /// [`FetchError`] says who is behind.
    pub fn knows_the_reign(&self, asked: Option<LeaderEpoch>) -> Result<(), FetchError> {
        match self.ends.in_doubt {
            Some(_) => Err(FetchError::LeaderStopped),
            None => same_reign(asked, self.epoch),
        }
    }

    pub(super) fn fetch(
        &self,
        ticket: Ticket,
        from: i64,
        max_bytes: u32,
        at_least_one: bool,
        epoch: Option<LeaderEpoch>,
    ) -> Effect {
        let mut ends = self.ends;
        if planted::is(Bug::ReadAboveHighWatermark) {
            ends.high_watermark = ends.log_end;
        }
        let readable = self
            .knows_the_reign(epoch)
            .and_then(|()| ends.readable(from));
        match readable {
            Ok(Some(limit)) => Effect::Read {
                ticket,
                from: Offset::new(from),
                limit,
                max_bytes,
                at_least_one,
            },
            Ok(None) => Effect::NothingToRead(ticket),
            Err(error) => Effect::Refuse(ticket, error),
        }
    }
}
