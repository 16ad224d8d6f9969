//! The shell of a partition's follower: the open log, the lane to its leader.

use actix::prelude::*;
use callboard_common::runtime::Runtime;
use callboard_common::{BrokerId, Clock, LeaderEpoch, Offset, Uuid};
use slog::{Logger, debug, error, info, warn};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

use super::state::{Effect, Effects, Follower, Input, Position};
use crate::leader::Ends;
use crate::leader::actor::{Close, Configure};
use crate::leader::opening::{LoseReplica, Loss};
use crate::metrics::Metrics;
use crate::peer::fetcher::Fetchers;
use crate::peer::protocol::{Part, PartitionPosition};
use crate::storage::error::unless_full;
use crate::storage::log::{Opened, Removal};
use crate::storage::{Log, LogFiles, StorageError, producer_snapshot, sync};
use crate::supervision;
use crate::topic_config::TopicConfig;

/// What did not work is tried again after this.
const PAUSE: Duration = Duration::from_millis(200);
/// A full disk is looked at again after this.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// What a follower is started with.
#[derive(Clone)]
pub struct FollowerStart {
    /// Where its log is.
    pub files: LogFiles,
    /// Its topic's settings.
    pub config: TopicConfig,
    /// The topic.
    pub topic_id: Uuid,
    /// Who leads, and in which reign.
    pub leader: BrokerId,
    /// See `leader`.
    pub epoch: LeaderEpoch,
    /// This node's incarnation.
    pub broker_epoch: i64,
    /// The lanes to leaders.
    pub fetchers: Fetchers,
    /// Shown to readers (KIP-392).
    pub ends: watch::Sender<Ends>,
    /// Tells the controller that this log is damaged.
    pub lose_replica: LoseReplica,
    /// Pools.
    pub runtime: Runtime,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
    /// The log.
    pub logger: Logger,
}

impl std::fmt::Debug for FollowerStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FollowerStart")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// There is a lane to the leader.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Connected;

/// The leader sends something.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Sent(pub Part);

#[derive(Debug, Message)]
#[rtype(result = "()")]
struct SyncDone {
    incarnation: u64,
    end: Offset,
    result: Result<(), StorageError>,
}

/// See the module.
#[derive(Debug)]
pub struct FollowerActor {
    pub(super) start: FollowerStart,
    pub(super) incarnation: u64,
    pub(super) state: Option<Open>,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) log: Log,
    pub(super) follower: Follower,
    effects: Effects,
    sync_in_flight: bool,
    sync_wanted: bool,
    /// Whether [`Input::RemoveAgain`] is on its way.
    removes_again: bool,
}

impl FollowerActor {
    /// A follower that opens its log when it is started.
    #[must_use]
    pub fn new(start: FollowerStart) -> Self {
        Self {
            start,
            incarnation: 0,
            state: None,
        }
    }

    fn key(&self) -> (Uuid, i32) {
        (self.start.topic_id, self.start.files.partition.partition)
    }

    /// Opens the log, or does something else with it on the pool, and follows from where it ends then.
    fn open_by(
        &mut self,
        open: impl FnOnce() -> Result<Opened, StorageError> + Send + 'static,
        ctx: &mut Context<Self>,
    ) {
        self.incarnation += 1;
        self.show();
        let pool = self.start.runtime.background().clone();
        let opening = async move { pool.ask(open).await };
        ctx.wait(
            opening
                .into_actor(self)
                .map(|opened, actor, ctx| match opened {
                    Some(Ok(opened)) => actor.opened(opened, ctx),
                    Some(Err(error)) => actor.fail(&error, ctx),
                    None => supervision::fail(ctx),
                }),
        );
    }

    fn fail(&mut self, error: &StorageError, ctx: &mut Context<Self>) {
        self.state = None;
        self.show();
        if let StorageError::Full { path } = error {
            warn!(self.start.logger, "the disk is full, nothing is followed"; "path" => %path.display());
            // Nobody waits for this replica meanwhile.
            let left = (self.start.lose_replica)(Loss::Space);
            let _running = ctx.spawn(left.into_actor(self).map(|_, _, _| {}));
            let sleep = self.start.clock.sleep(FULL_PAUSE);
            let _timer = ctx.spawn(sleep.into_actor(self).map(|(), actor, ctx| actor.open(ctx)));
            return;
        }
        error!(self.start.logger, "follower fails"; "error" => %error);
        supervision::fail(ctx);
    }

    pub(super) fn open(&mut self, ctx: &mut Context<Self>) {
        let (files, config) = (self.start.files.clone(), self.start.config.clone());
        self.open_by(move || Log::open(files, config), ctx);
    }

    fn opened(&mut self, opened: Opened, ctx: &mut Context<Self>) {
        let Opened {
            log,
            producers,
            quarantined,
            damaged,
        } = opened;
        for part in &quarantined {
            self.start.metrics.quarantined_bytes.inc_by(part.size_bytes);
            info!(self.start.logger, "end of the log moved to quarantine"; "path" => %part.path.display(),
                "size_bytes" => part.size_bytes, "log_end" => %part.log_end, "reason" => &part.reason);
        }
        let lost = damaged.iter().filter_map(|d| match d {
            StorageError::Damaged { offset, .. } => Some(*offset),
            StorageError::Full { .. }
            | StorageError::Io { .. }
            | StorageError::Content { .. }
            | StorageError::Contradiction { .. } => None,
        });
        // Reads may have found what opening did not look at.
        let noted = self.start.files.outstanding.damage();
        // What was deleted since does not matter any more.
        let lost = lost.chain(noted.filter(|at| *at >= log.log_start()));
        if let Some(first) = lost.min() {
            let _count = self.start.metrics.damaged_reads.inc();
            error!(self.start.logger, "log is damaged; it is fetched again from there"; "offset" => %first);
            return self.fetch_again(log, first, ctx);
        }
        debug!(self.start.logger, "follows"; "leader" => %self.start.leader, "leader_epoch" => %self.start.epoch,
            "log_end" => %log.log_end());
        let follower = Follower::new(
            self.start.epoch,
            (log.log_start(), log.high_watermark(), log.log_end()),
            producers,
        );
        self.state = Some(Open {
            log,
            follower,
            effects: Effects::new(),
            sync_in_flight: false,
            sync_wanted: false,
            removes_again: false,
        });
        self.show();
        self.start
            .fetchers
            .attach(self.start.leader, self.key(), ctx.address());
    }

    /// Cuts a damaged log, once it is known not to count as whole any more. While no other replica is whole it stays as it
    /// is, and nothing is followed.
    fn fetch_again(&mut self, log: Log, first: Offset, ctx: &mut Context<Self>) {
        let (lose, clock, logger) = (
            self.start.lose_replica.clone(),
            self.start.clock.clone(),
            self.start.logger.clone(),
        );
        let allowed = async move {
            while !lose(Loss::Records).await {
                warn!(
                    logger,
                    "the log is damaged and no other replica is whole: it stays as it is"
                );
                clock.sleep(FULL_PAUSE).await;
            }
        };
        let incarnation = self.incarnation;
        let cut = move |(), actor: &mut Self, ctx: &mut Context<Self>| {
            if actor.incarnation == incarnation {
                actor.open_by(move || log.truncate(first), ctx);
            }
        };
        // It may be told to close meanwhile: to lead with what is left, if that is all there is.
        let _running = ctx.spawn(allowed.into_actor(self).map(cut));
    }

    fn step(&mut self, input: Input, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        open.removes_again &= !matches!(input, Input::RemoveAgain);
        open.follower.step(input, &mut open.effects);
        while let Some(effect) = self
            .state
            .as_mut()
            .and_then(|open| open.effects.pop_front())
        {
            if let Err(error) = self.perform(effect, ctx) {
                // The core is now ahead of the log, which is opened anew.
                return self.fail(&error, ctx);
            }
        }
        self.settle_doubt(ctx);
        self.checkpoint(ctx);
        self.show();
    }

    /// What was cut off at the last opening is here again, or was never committed.
    fn settle_doubt(&mut self, ctx: &mut Context<Self>) {
        let open = self.state.as_mut();
        let Some(open) = open.filter(|o| o.log.is_in_doubt() && o.follower.is_whole()) else {
            return;
        };
        if let Err(error) = open.log.settle_doubt() {
            self.fail(&error, ctx);
        }
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) -> Result<(), StorageError> {
        let now = self.start.clock.now();
        let Some(open) = &mut self.state else {
            return Ok(());
        };
        match effect {
            Effect::Append(batch) => open.log.append_placed(&batch, now.wall)?,
            Effect::Sync => self.sync(ctx),
            Effect::Report(position) => self.report(position),
            Effect::CutAt(epoch, end) => self.cut(epoch, end, ctx),
            Effect::RestartAt(start, snapshot) => match producer_snapshot::decode(&snapshot) {
                Some(producers) => {
                    warn!(self.start.logger, "the leader has nothing that old; begins anew"; "log_start" => %start);
                    if let Some(open) = self.state.take() {
                        self.open_by(move || open.log.restart_at(start, &producers), ctx);
                    }
                }
                None => {
                    warn!(
                        self.start.logger,
                        "the leader sends producers that cannot be read; it is asked again"
                    );
                    self.retry_later(ctx);
                }
            },
            Effect::AdvanceStart(start) => {
                open.log.advance_start(start);
                // No further than the leader: what it still has is read here too.
                let retained = open.log.retain(start, now.wall, open.follower.producers());
                match unless_full(retained)? {
                    Some(removal) => self.remove(removal, ctx),
                    None => self.remove_later(ctx),
                }
            }
            Effect::Wait => self.retry_later(ctx),
        }
        Ok(())
    }

    /// Removes on the pool what left the log; what a full disk keeps is tried again.
    fn remove(&self, removal: Option<Removal>, ctx: &mut Context<Self>) {
        let Some(removal) = removal else { return };
        let (reply, removed) = oneshot::channel();
        self.start.runtime.background().run(move || {
            drop(reply.send(removal.run()));
        });
        let incarnation = self.incarnation;
        let after = move |removed, actor: &mut Self, ctx: &mut Context<Self>| match removed {
            Ok(removed) if actor.incarnation == incarnation => match unless_full(removed) {
                Ok(Some(())) => {}
                Ok(None) => actor.remove_later(ctx),
                Err(error) => actor.fail(&error, ctx),
            },
            Ok(_) | Err(_) => {}
        };
        let _running = ctx.spawn(removed.into_actor(self).map(after));
    }

    /// However often a full disk refuses, it is tried again once.
    fn remove_later(&mut self, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        if !std::mem::replace(&mut open.removes_again, true) {
            warn!(
                self.start.logger,
                "the disk is full, nothing is removed; tries again soon"
            );
            self.step_after(FULL_PAUSE, Input::RemoveAgain, ctx);
        }
    }

    fn retry_later(&self, ctx: &mut Context<Self>) {
        self.step_after(PAUSE, Input::Retry, ctx);
    }

    /// Nothing comes of it if the log is opened anew meanwhile.
    fn step_after(&self, pause: Duration, input: Input, ctx: &mut Context<Self>) {
        let incarnation = self.incarnation;
        let sleep = self.start.clock.sleep(pause);
        let _timer = ctx.spawn(sleep.into_actor(self).map(move |(), actor, ctx| {
            if actor.incarnation == incarnation {
                actor.step(input, ctx);
            }
        }));
    }

    fn report(&self, position: Position) {
        let Some(open) = &self.state else { return };
        let report = PartitionPosition {
            topic_id: self.start.topic_id,
            partition: self.start.files.partition.partition,
            broker_epoch: self.start.broker_epoch,
            epoch: self.start.epoch,
            end: position.end,
            synced: position.synced,
            last_epoch: open.log.last_epoch(),
        };
        self.start.fetchers.report(self.start.leader, report);
    }

    /// Cuts where the leader's log and this one differ (KIP-279).
    fn cut(&mut self, epoch: LeaderEpoch, leader_end: Offset, ctx: &mut Context<Self>) {
        let Some(Open { log, follower, .. }) = self.state.take() else {
            return;
        };
        let end = log.cut_point(epoch, leader_end);
        let (log_end, committed) = (log.log_end(), follower.high_watermark());
        info!(self.start.logger, "cuts what its leader has not"; "log_end" => %log_end, "cut_at" => %end);
        if end < committed {
            error!(self.start.logger, "what was committed is cut: a replica was elected that had lost it";
                "high_watermark" => %committed, "cut_at" => %end);
        }
        self.open_by(move || log.truncate(end), ctx);
    }

    fn sync(&mut self, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        open.sync_wanted = true;
        if open.sync_in_flight {
            return;
        }
        open.sync_wanted = false;
        let Some(request) = open.log.sync_request() else {
            return;
        };
        open.sync_in_flight = true;
        let (actor, incarnation) = (ctx.address(), self.incarnation);
        sync::start(
            self.start.runtime.sync(),
            request,
            move |request, result| {
                let end = request.end;
                drop(request);
                supervision::tell(
                    &actor,
                    SyncDone {
                        incarnation,
                        end,
                        result,
                    },
                );
            },
        );
    }

    fn checkpoint(&mut self, ctx: &mut Context<Self>) {
        let Some(open) = self.state.as_mut().filter(|open| open.log.checkpoint_due()) else {
            return;
        };
        let checkpoint = open
            .log
            .checkpoint(open.follower.high_watermark(), open.follower.producers());
        match checkpoint {
            Ok(snapshot) => {
                let logger = self.start.logger.clone();
                self.start.runtime.background().run(move || {
                    if let Err(error) = snapshot.write() {
                        warn!(logger, "checkpoint failed"; "error" => %error);
                    }
                });
            }
            Err(error) => self.fail(&error, ctx),
        }
    }
}

impl Actor for FollowerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.open(ctx);
    }
}

impl Supervised for FollowerActor {
    fn restarting(&mut self, _ctx: &mut Context<Self>) {
        self.state = None;
        self.show();
    }
}

impl Handler<Connected> for FollowerActor {
    type Result = ();

    fn handle(&mut self, _: Connected, ctx: &mut Context<Self>) {
        self.step(Input::Connected, ctx);
    }
}

impl Handler<Sent> for FollowerActor {
    type Result = ();

    fn handle(&mut self, Sent(part): Sent, ctx: &mut Context<Self>) {
        self.step(Input::Sent(part), ctx);
    }
}

impl Handler<SyncDone> for FollowerActor {
    type Result = ();

    fn handle(&mut self, done: SyncDone, ctx: &mut Context<Self>) {
        let Some(open) = self
            .state
            .as_mut()
            .filter(|_| done.incarnation == self.incarnation)
        else {
            return;
        };
        if let Err(error) = done.result {
            let _count = self.start.metrics.failed_syncs.inc();
            error!(self.start.logger, "sync failed; the log is cut to its synced end"; "error" => %error);
            return supervision::fail(ctx);
        }
        open.sync_in_flight = false;
        open.log.synced(done.end);
        if open.sync_wanted {
            self.sync(ctx);
        }
        self.step(Input::Synced(done.end), ctx);
    }
}

impl Handler<Configure> for FollowerActor {
    type Result = ();

    fn handle(&mut self, Configure(config): Configure, _ctx: &mut Context<Self>) {
        self.start.config = config.clone();
        if let Some(open) = &mut self.state {
            open.log.set_config(config);
        }
    }
}

impl Handler<Close> for FollowerActor {
    type Result = ();

    fn handle(&mut self, close: Close, ctx: &mut Context<Self>) {
        self.start.fetchers.detach(self.start.leader, self.key());
        let state = self.state.take();
        self.show();
        let Some(Open { log, follower, .. }) = state else {
            drop(
                close
                    .reply
                    .map(|r| r.send(Err("the log was not open".into()))),
            );
            return supervision::finish(ctx);
        };
        let pool = self.start.runtime.background().clone();
        let closing = async move {
            let close_log = move || log.close(follower.high_watermark(), follower.producers());
            pool.ask(close_log).await
        };
        ctx.wait(closing.into_actor(self).map(|closed, actor, ctx| {
            let panicked = || Err("closing it panicked".to_owned());
            let closed = closed.map_or_else(panicked, |c| c.map_err(|e| e.to_string()));
            if let Err(error) = &closed {
                error!(actor.start.logger, "log was not closed in order"; "error" => error);
            }
            drop(close.reply.map(|r| r.send(closed)));
            supervision::finish(ctx);
        }));
    }
}
