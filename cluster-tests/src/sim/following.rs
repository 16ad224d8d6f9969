//! A follower's core over its log, with the duties of its actor.

use callboard_broker::follower::{Effect, Effects, Follower, Input, Position};
use callboard_broker::peer::protocol::PartitionPosition;
use callboard_broker::storage::{Log, StorageError, producer_snapshot};
use callboard_common::record::producers::ProducerTable;
use callboard_common::{BrokerId, LeaderEpoch, Offset};

use super::context::{Background, Cx, Files};
use super::event::{Message, OfPartition};
use super::plan::MS;
use super::syncing::Syncing;

/// What did not work is tried again after this.
const PAUSE: u64 = 200 * MS;
/// As the actor's.
pub const FULL_PAUSE: u64 = 1_000 * MS;

/// A partition's follower with its open log.
#[derive(Debug)]
pub struct Following {
    /// The log.
    pub log: Log,
    /// The core.
    pub follower: Follower,
    /// Whom it follows, and in which reign.
    pub leader: BrokerId,
    epoch: LeaderEpoch,
    broker_epoch: i64,
    effects: Effects,
    /// Its syncs.
    pub syncing: Syncing,
}

/// What becomes of a follower's log after a step.
#[derive(Debug)]
pub enum Then {
    /// It goes on.
    Goes,
    /// It is cut here and opened again.
    Cut(Offset),
    /// It begins anew here, with these producers.
    RestartAt(Offset, Box<ProducerTable>),
}

impl Following {
    /// Over a log that was just opened.
    #[must_use]
    pub fn new(
        log: Log,
        follower: Follower,
        (leader, epoch): (BrokerId, LeaderEpoch),
        broker_epoch: i64,
    ) -> Self {
        Self {
            log,
            follower,
            leader,
            epoch,
            broker_epoch,
            effects: Effects::new(),
            syncing: Syncing::default(),
        }
    }

    /// Advances the core and does what follows.
    ///
    /// # Errors
    ///
    /// What the disk says: the follower starts again.
    ///
    /// # Panics
    ///
    /// Panics if a leader sends producers that cannot be read.
    pub fn step(
        &mut self,
        files: &Files,
        cx: &mut Cx<'_>,
        input: Input,
    ) -> Result<Then, StorageError> {
        let other_reign = matches!(&input, Input::Sent(part) if part.epoch != self.epoch);
        self.follower.step(input, &mut self.effects);
        if other_reign && !self.effects.is_empty() {
            let (node, key) = (cx.node + 1, &files.key);
            cx.hub.truth.violate(|| {
                format!("I9: node {node} does what the leader of another reign says of {key}")
            });
        }
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Append(batch) => self.log.append_placed(&batch, cx.now().wall)?,
                Effect::Sync => self.syncing.want(&mut self.log, files, cx),
                Effect::Report(position) => self.report(files, cx, position),
                Effect::CutAt(epoch, end) => {
                    return Ok(Then::Cut(self.cut_at(files, cx, (epoch, end))));
                }
                Effect::RestartAt(start, snapshot) => {
                    let producers = producer_snapshot::decode(&snapshot);
                    let producers = producers.expect("leaders send snapshots");
                    return Ok(Then::RestartAt(start, Box::new(producers)));
                }
                Effect::AdvanceStart(start) => {
                    self.log.advance_start(start);
                    let producers = self.follower.producers();
                    match self.log.retain(start, cx.now().wall, producers) {
                        Ok(removal) => files.background(cx, removal.map(Background::Removal)),
                        Err(StorageError::Full { .. }) => {
                            files.later(cx, FULL_PAUSE, OfPartition::RemoveAgain);
                        }
                        Err(error) => return Err(error),
                    }
                }
                Effect::Wait => files.later(cx, PAUSE, OfPartition::Retry),
            }
        }
        if self.log.is_in_doubt() && self.follower.is_whole() {
            self.log.settle_doubt()?;
        }
        Ok(Then::Goes)
    }

    /// Where this log and its leader's differ (KIP-279), as the actor finds it.
    fn cut_at(
        &self,
        files: &Files,
        cx: &mut Cx<'_>,
        (epoch, leader_end): (LeaderEpoch, Offset),
    ) -> Offset {
        cx.hub.coverage.truncations += 1;
        let at = self.log.cut_point(epoch, leader_end);
        let of = (files.topic_id, &files.key);
        cx.hub.truth.cuts(cx.node, of, &self.log, at);
        at
    }

    fn report(&self, files: &Files, cx: &mut Cx<'_>, position: Position) {
        let report = PartitionPosition {
            topic_id: files.topic_id,
            partition: files.key.partition,
            broker_epoch: self.broker_epoch,
            epoch: self.epoch,
            end: position.end,
            synced: position.synced,
            last_epoch: self.log.last_epoch(),
        };
        let leader = self.leader.0 as usize - 1;
        // Without a lane it is told again when there is one.
        if let Some(lane) = cx.hub.lane(cx.node, leader) {
            let message = Message::Position(files.key.clone(), report);
            cx.hub.send_on(lane, true, message);
        }
    }

    /// A sync has ended.
    ///
    /// # Errors
    ///
    /// As [`Following::step`].
    pub fn synced(&mut self, files: &Files, cx: &mut Cx<'_>) -> Result<Then, StorageError> {
        let Some(end) = self.syncing.ended(&mut self.log, files, cx)? else {
            return Ok(Then::Goes);
        };
        let then = self.step(files, cx, Input::Synced(end))?;
        if matches!(then, Then::Goes) && cx.hub.random.percent(cx.hub.plan.checkpoints) {
            let committed = self.follower.high_watermark();
            let snapshot = self.log.checkpoint(committed, self.follower.producers())?;
            files.background(cx, Some(Background::Snapshot(snapshot)));
            files.judge_checkpoint(cx, &self.log);
        }
        Ok(then)
    }
}
