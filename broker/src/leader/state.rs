//! The pure core of a partition's leader.

use std::collections::{BTreeMap, VecDeque};

use callboard_common::record::producers::{ProducerTable, Sequence};
use callboard_common::record::{Batch, BatchHeader};
use callboard_common::{BrokerId, LeaderEpoch, Monotonic, Now, Offset};

use super::delayed::DelayedAcks;
use super::ends::Ends;
use super::error::{FetchError, ProduceError};
use super::replication::{IsrChange, Replication};
use crate::controller::PartitionImage;
use crate::planted::{self, Bug};
use crate::topic_config::TopicConfig;

/// How often a leader looks for segments that are too old (`log.retention.check.interval.ms`).
const RETENTION_INTERVAL: std::time::Duration = std::time::Duration::from_secs(300);
/// How often a leader looks for followers that are behind for too long.
const ISR_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
/// How long an idempotent producer that is silent is remembered (`producer.id.expiration.ms`).
const PRODUCER_EXPIRATION_MS: i64 = 24 * 3600 * 1000;

/// Names a caller who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// When a producer wants its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// At once, before anything is certain.
    None,
    /// When the leader has it, as its topic asks for: by default synced.
    Leader,
    /// When all in-sync replicas have it.
    All,
}

/// Where a batch is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base: Offset,
    /// The time that the broker stamped, if the topic asks for it.
    pub append_time: Option<i64>,
    /// The log's start when it was appended.
    pub log_start: Offset,
}

/// Why the shell could not append; the log is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The disk is full.
    DiskFull,
}

/// What happens to a leader.
#[derive(Clone, Debug)]
pub enum Input {
    /// A producer sends a batch. `epoch` is the reign it was sent to.
    Produce {
        ticket: Ticket,
        batch: Batch,
        acks: Acks,
        epoch: LeaderEpoch,
    },
    /// The batch of the last [`Effect::Append`] is in the log.
    Appended { base: Offset },
    /// The batch of the last [`Effect::Append`] is not in the log.
    AppendRefused(Refused),
    /// Everything below `end` is durable.
    Synced { end: Offset },
    /// Somebody wants batches from `from` on. `current_epoch` is what it knows of the leader.
    Fetch {
        ticket: Ticket,
        from: i64,
        max_bytes: u32,
        at_least_one: bool,
        current_epoch: Option<LeaderEpoch>,
    },
    /// Somebody wants the records below `before` gone; `None` means all that can be read.
    DeleteRecords { ticket: Ticket, before: Option<i64> },
    /// Segments were deleted from the front.
    StartAdvanced { log_start: Offset },
    /// A follower says how far it is: the end of its log, and how much of it is durable.
    Followed {
        replica: BrokerId,
        broker_epoch: i64,
        end: Offset,
        synced: Offset,
    },
    /// A follower says where its log ends, and in which reign, before anything else is done with that; and so does this one.
    Compared {
        replica: BrokerId,
        broker_epoch: i64,
        theirs: (Option<LeaderEpoch>, Offset),
        ours: (Option<LeaderEpoch>, Offset),
    },
    /// The partition's replicas changed, or who of them is alive.
    Replicated {
        partition: Box<PartitionImage>,
        alive: BTreeMap<BrokerId, i64>,
    },
    /// The controller did not agree to an [`Effect::ChangeIsr`] as of this version, or it is not known whether it did.
    IsrRefused(i32),
    /// The topic's settings changed.
    Configured(TopicConfig),
    /// The deadline has come.
    Tick,
}

/// What must happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append the batch; its outcome is the next input.
    Append { batch: Batch },
    /// Make the log durable up to its end; if a sync is in flight, another one follows it.
    Sync,
    /// Answer a producer.
    Acknowledge(Ticket, Result<Appended, ProduceError>),
    /// Read and answer with the bytes.
    Read {
        ticket: Ticket,
        from: Offset,
        limit: Offset,
        max_bytes: u32,
        at_least_one: bool,
    },
    /// There is nothing to read yet.
    NothingToRead(Ticket),
    /// Refuse a fetch or a deletion.
    Refuse(Ticket, FetchError),
    /// Move the log's start, make that durable, then answer.
    AdvanceStart { ticket: Ticket, log_start: Offset },
    /// Look for segments that are too old or too much.
    Retain { high_watermark: Offset },
    /// Ask the controller to change who is in sync.
    ChangeIsr(IsrChange),
    /// Another replica has more: it shall lead.
    GiveUp,
    /// The log is not in doubt any more.
    Settled,
}

/// Effects in order; the shell reuses the buffer.
pub type Effects = VecDeque<Effect>;

/// What a batch waits for while the shell appends it.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ticket: Ticket,
    acks: Acks,
    pub(super) header: BatchHeader,
    append_time: Option<i64>,
}

/// What a leader knows of its partition.
#[derive(Debug)]
pub struct Leader {
    pub(super) epoch: LeaderEpoch,
    pub(super) config: TopicConfig,
    pub(super) ends: Ends,
    synced_end: Offset,
    pub(super) producers: ProducerTable,
    pub(super) replication: Replication,
    /// Who waits until all have it.
    delayed: DelayedAcks,
    /// Who waits until it is durable here.
    delayed_here: DelayedAcks,
    pub(super) pending: Option<Pending>,
    /// Producers a batch of which was refused for the time being, and why: what follows it is refused alike. A gap in a
    /// sequence makes some clients begin a new one, in which they send again what stands in the log already.
    pub(super) refused: BTreeMap<i64, ProduceError>,
    pub(super) unsynced_records: u64,
    flush_at: Option<Monotonic>,
    retain_at: Monotonic,
    /// When the followers are judged again.
    judge_at: Monotonic,
}

impl Leader {
    /// A leader over a log that is durable up to its end. `high_watermark` is what was committed in earlier reigns as
    /// far as it is known here; without followers all of it is.
    #[must_use]
    pub fn new(
        now: Now,
        epoch: LeaderEpoch,
        config: TopicConfig,
        (log_start, high_watermark, log_end): (Offset, Offset, Offset),
        producers: ProducerTable,
        replication: Replication,
    ) -> Self {
        let ends = Ends {
            epoch: Some(epoch),
            in_doubt: None,
            log_start,
            high_watermark: match replication.is_alone() {
                true => log_end,
                false => high_watermark.clamp(log_start, log_end),
            },
            log_end,
            reign_start: log_end,
        };
        let mut leader = Self {
            epoch,
            config,
            ends,
            synced_end: log_end,
            producers,
            replication,
            delayed: DelayedAcks::default(),
            delayed_here: DelayedAcks::default(),
            pending: None,
            refused: BTreeMap::new(),
            unsynced_records: 0,
            flush_at: None,
            retain_at: now.monotonic.after(RETENTION_INTERVAL),
            judge_at: now.monotonic.after(ISR_INTERVAL),
        };
        // Nobody waits yet.
        leader.commit(&mut Effects::new());
        leader
    }

    /// A leader whose log may lack what was committed: it does not serve until it was compared with another replica that
    /// may lead. If there is none, what is here is all there is.
    pub fn doubt(&mut self, out: &mut Effects) {
        (self.ends.epoch, self.ends.in_doubt) = (None, Some(self.epoch));
        self.settle_without_others(out);
    }

    fn is_in_doubt(&self) -> bool {
        self.ends.in_doubt.is_some()
    }

    fn settle_without_others(&mut self, out: &mut Effects) {
        let is_known = self.replication.knows_reign(self.epoch);
        if self.is_in_doubt() && is_known && !self.replication.has_others() {
            self.settle(out);
        }
    }

    fn settle(&mut self, out: &mut Effects) {
        (self.ends.epoch, self.ends.in_doubt) = (Some(self.epoch), None);
        out.push_back(Effect::Settled);
    }

    /// Of two logs the longer one is complete, if at most one of them has rotted.
    fn compared(
        &mut self,
        (replica, broker_epoch): (BrokerId, i64),
        theirs: (Option<LeaderEpoch>, Offset),
        ours: (Option<LeaderEpoch>, Offset),
        out: &mut Effects,
    ) {
        if !self.is_in_doubt() || !self.replication.may_lead(replica, broker_epoch) {
            return;
        }
        match theirs > ours {
            true => out.push_back(Effect::GiveUp),
            false => self.settle(out),
        }
    }

    /// The ends that readers may know.
    #[must_use]
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// The reign.
    #[must_use]
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// The idempotent producers.
    #[must_use]
    pub fn producers(&self) -> &ProducerTable {
        &self.producers
    }

    /// Acknowledgements that wait.
    #[must_use]
    pub fn delayed(&self) -> usize {
        self.delayed.len() + self.delayed_here.len()
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Monotonic {
        let next = self
            .flush_at
            .map_or(self.retain_at, |flush| flush.min(self.retain_at));
        match self.replication.is_alone() {
            true => next,
            false => next.min(self.judge_at),
        }
    }

    /// Advances by one input and puts what must happen next into `out`, in order.
    ///
    /// # Panics
    ///
    /// Panics if an invariant of this module is broken; the supervisor then reopens the partition.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Effects) {
        let before = self.ends.high_watermark;
        match input {
            Input::Produce {
                ticket,
                batch,
                acks,
                epoch,
            } => self.produce(now, ticket, batch, acks, epoch, out),
            Input::Appended { base } => self.appended(now, base, out),
            Input::AppendRefused(refused) => self.append_refused(refused, out),
            Input::Synced { end } => self.synced(end, out),
            Input::Fetch {
                ticket,
                from,
                max_bytes,
                at_least_one,
                current_epoch,
            } => {
                out.push_back(self.fetch(ticket, from, max_bytes, at_least_one, current_epoch));
            }
            Input::DeleteRecords { ticket, before } => self.delete_records(ticket, before, out),
            Input::StartAdvanced { log_start } => {
                self.ends.log_start = self.ends.log_start.max(log_start)
            }
            Input::Followed {
                replica,
                broker_epoch,
                end,
                synced,
            } => self.followed(now, replica, broker_epoch, (end, synced), out),
            Input::Compared {
                replica,
                broker_epoch,
                theirs,
                ours,
            } => self.compared((replica, broker_epoch), theirs, ours, out),
            Input::Replicated { partition, alive } => {
                self.replication.update(*partition, alive);
                self.settle_without_others(out);
                self.commit(out);
                self.judge_followers(now, out);
            }
            Input::IsrRefused(version) => self.replication.refused(version),
            Input::Configured(config) => self.configured(now, config, out),
            Input::Tick => self.tick(now, out),
        }
        let ends = self.ends;
        assert!(
            ends.log_start <= ends.high_watermark && ends.high_watermark <= ends.log_end,
            "{ends:?}"
        );
        assert!(
            ends.high_watermark >= before,
            "the high watermark moved back from {before}"
        );
        assert!(
            self.config.flush_messages > 1
                || ends.high_watermark <= self.synced_end
                || planted::is(Bug::AckBeforeOwnSync),
            "{ends:?} not durable"
        );
    }

    fn produce(
        &mut self,
        now: Now,
        ticket: Ticket,
        batch: Batch,
        acks: Acks,
        epoch: LeaderEpoch,
        out: &mut Effects,
    ) {
        assert!(self.pending.is_none(), "one append at a time");
        match self.judge(now, &batch, acks, epoch) {
            Err(error) => {
                let error = self.refuse(batch.header().producer_id, error);
                out.push_back(Effect::Acknowledge(ticket, Err(error)));
            }
            Ok(Sequence::Duplicate(earlier)) => {
                let (base, log_start) = (Offset::new(earlier.base_offset()), self.ends.log_start);
                let appended = Appended {
                    base,
                    append_time: None,
                    log_start,
                };
                // The first copy may still wait for its sync.
                self.acknowledge(
                    ticket,
                    acks,
                    Offset::new(earlier.last_offset + 1),
                    appended,
                    out,
                );
            }
            Ok(Sequence::New) => {
                let append_time = self.config.log_append_time.then_some(now.wall.0);
                let batch = append_time.map_or(batch.clone(), |time| batch.stamped(time));
                self.pending = Some(Pending {
                    ticket,
                    acks,
                    header: *batch.header(),
                    append_time,
                });
                out.push_back(Effect::Append { batch });
            }
        }
    }

    fn appended(&mut self, now: Now, base: Offset, out: &mut Effects) {
        assert_eq!(
            base, self.ends.log_end,
            "the log and its leader agree on the end"
        );
        self.replication.appending(now.monotonic, base);
        let Pending {
            ticket,
            acks,
            header,
            append_time,
        } = self.pending.take().expect("an append was asked for");
        let header = BatchHeader {
            base_offset: base.get(),
            ..header
        };
        let _was_refused = self.refused.remove(&header.producer_id);
        self.producers.apply(&header);
        self.ends.log_end = Offset::new(header.next_offset());
        self.unsynced_records += u64::try_from(self.ends.log_end - base).unwrap_or(0);
        let appended = Appended {
            base,
            append_time,
            log_start: self.ends.log_start,
        };
        self.commit(out);
        self.acknowledge(ticket, acks, self.ends.log_end, appended, out);
        if self.unsynced_records >= self.config.flush_messages {
            self.flush(out);
        } else if let Some(interval) = self.config.flush_interval {
            let _first = self.flush_at.get_or_insert(now.monotonic.after(interval));
        }
    }

    fn acknowledge(
        &mut self,
        ticket: Ticket,
        acks: Acks,
        end: Offset,
        appended: Appended,
        out: &mut Effects,
    ) {
        let (reached, delayed) = match acks {
            Acks::None => (end, &mut self.delayed),
            Acks::Leader if !self.is_durable() => (end, &mut self.delayed),
            Acks::Leader => (self.synced_end, &mut self.delayed_here),
            Acks::All => (self.ends.high_watermark, &mut self.delayed),
        };
        if end <= reached {
            out.push_back(Effect::Acknowledge(ticket, Ok(appended)));
        } else {
            delayed.wait(end, ticket, appended);
        }
    }

    /// Whether the topic is synced before it is acknowledged.
    fn is_durable(&self) -> bool {
        self.config.flush_messages == 1
    }

    /// Moves the high watermark to what all have that count, and answers who waited for that.
    fn commit(&mut self, out: &mut Effects) {
        let durable = self.is_durable();
        let own = if durable && !planted::is(Bug::AckBeforeOwnSync) {
            self.synced_end
        } else {
            self.ends.log_end
        };
        let committed = self
            .replication
            .committed(own, durable, self.config.min_insync_replicas);
        let is_known = self.replication.knows_reign(self.epoch);
        if let Some(committed) = committed.filter(|_| is_known) {
            // A follower that was heard of lately may know less than was committed before.
            let committed = committed.min(self.ends.log_end);
            self.ends.high_watermark = self.ends.high_watermark.max(committed);
        }
        while let Some((ticket, appended)) = self.delayed.pop(self.ends.high_watermark) {
            out.push_back(Effect::Acknowledge(ticket, Ok(appended)));
        }
    }

    fn followed(
        &mut self,
        now: Now,
        replica: BrokerId,
        broker_epoch: i64,
        (end, synced): (Offset, Offset),
        out: &mut Effects,
    ) {
        // What a follower has above this log's end will be cut off there.
        let log_end = self.ends.log_end;
        let ends = (end.min(log_end), synced.min(log_end));
        if self.is_in_doubt() {
            return;
        }
        if self
            .replication
            .heard(now.monotonic, replica, broker_epoch, ends, log_end)
        {
            self.commit(out);
            self.judge_followers(now, out);
        }
    }

    fn judge_followers(&mut self, now: Now, out: &mut Effects) {
        self.judge_at = now.monotonic.after(ISR_INTERVAL);
        if self.is_in_doubt() || !self.replication.knows_reign(self.epoch) {
            return;
        }
        let (ends, durable) = (self.ends, self.is_durable());
        let ends = (ends.high_watermark, ends.log_end);
        let (replication, min_isr) = (&mut self.replication, self.config.min_insync_replicas);
        let change = replication.isr_change(now.monotonic, ends, durable);
        let change = change.or_else(|| replication.without_eligible(now.monotonic, min_isr));
        out.extend(change.map(Effect::ChangeIsr));
    }

    pub(super) fn flush(&mut self, out: &mut Effects) {
        self.unsynced_records = 0;
        self.flush_at = None;
        out.push_back(Effect::Sync);
    }

    fn synced(&mut self, end: Offset, out: &mut Effects) {
        self.synced_end = self.synced_end.max(end);
        while let Some((ticket, appended)) = self.delayed_here.pop(self.synced_end) {
            out.push_back(Effect::Acknowledge(ticket, Ok(appended)));
        }
        self.commit(out);
    }

    fn delete_records(&mut self, ticket: Ticket, before: Option<i64>, out: &mut Effects) {
        let Ends {
            log_start,
            high_watermark,
            ..
        } = self.ends;
        match before.map_or(Some(high_watermark), Offset::checked) {
            Some(before) if before <= high_watermark => {
                self.flush_rest(out);
                self.ends.log_start = log_start.max(before);
                out.push_back(Effect::AdvanceStart {
                    ticket,
                    log_start: self.ends.log_start,
                });
            }
            Some(_) | None => {
                let offset = before.unwrap_or(-1);
                out.push_back(Effect::Refuse(
                    ticket,
                    FetchError::OutOfRange {
                        offset,
                        log_start,
                        high_watermark,
                    },
                ));
            }
        }
    }

    fn configured(&mut self, now: Now, config: TopicConfig, out: &mut Effects) {
        let becomes_durable = config.flush_messages == 1 && self.config.flush_messages > 1;
        self.config = config;
        if becomes_durable && self.synced_end < self.ends.log_end {
            // What was shown before it was durable stays shown; from now on the synced end decides.
            self.synced_end = self.ends.high_watermark;
            self.flush(out);
        }
        // Fewer replicas may be enough now.
        self.commit(out);
        self.judge_followers(now, out);
    }

    fn tick(&mut self, now: Now, out: &mut Effects) {
        if self.flush_at.is_some_and(|at| at <= now.monotonic) {
            self.flush(out);
        }
        if !self.replication.is_alone() && self.judge_at <= now.monotonic {
            self.judge_followers(now, out);
        }
        if self.retain_at <= now.monotonic {
            self.retain_at = now.monotonic.after(RETENTION_INTERVAL);
            self.producers
                .expire(now.wall.0.saturating_sub(PRODUCER_EXPIRATION_MS));
            // Only what is durable goes.
            self.flush_rest(out);
            out.push_back(Effect::Retain {
                high_watermark: self.ends.high_watermark,
            });
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
