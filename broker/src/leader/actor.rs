//! The shell of a partition's leader: a mailbox, the open log, and the callers who wait.

use std::collections::BTreeMap;

use actix::prelude::*;
use bytes::Bytes;
use callboard_common::record::Batch;
use callboard_common::{Monotonic, Offset};
use slog::{debug, error, info, warn};

use super::ends::Ends;
use super::error::{FetchError, ProduceError};
use super::messages::Reply;
pub use super::messages::{
    Close, Configure, Crash, DeleteRecords, Fetch, Fetched, FindEpochEnd, FindTimestamp, Found,
    Produce, Replicate, Replicated, UpdateReplicas,
};
use super::opening::{LeaderStart, Loss};
use super::reading::Reading;
use super::state::{Appended, Effect, Effects, Input, Leader, Refused, Ticket};
use super::syncing::Syncing;
use crate::planted::{self, Bug};
use crate::storage::error::unless_full;
use crate::storage::{Log, ReadPlan, StorageError};
use crate::supervision::{self, Permit};

/// See the module.
#[derive(Debug)]
pub struct LeaderActor {
    pub(super) start: LeaderStart,
    /// Counts lives; what an earlier life began is not listened to.
    pub(super) incarnation: u64,
    pub(super) armed: Option<(Monotonic, SpawnHandle)>,
    pub(super) state: Option<Open>,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) log: Log,
    pub(super) leader: Leader,
    pub(super) effects: Effects,
    pub(super) producers: BTreeMap<Ticket, (Reply<Appended, ProduceError>, Permit)>,
    pub(super) readers: BTreeMap<Ticket, (Reply<Fetched, FetchError>, Permit)>,
    pub(super) deleters: BTreeMap<Ticket, Reply<Offset, FetchError>>,
    pub(super) next_ticket: u64,
    pub(super) syncing: Syncing,
}

impl LeaderActor {
    /// A leader that opens its log when it is started.
    #[must_use]
    pub fn new(start: LeaderStart) -> Self {
        Self {
            start,
            incarnation: 0,
            armed: None,
            state: None,
        }
    }

    pub(super) fn step(&mut self, input: Input, ctx: &mut Context<Self>) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let Some(open) = &mut self.state else { return };
            open.leader
                .step(self.start.clock.now(), input, &mut open.effects);
            while let Some(effect) = self
                .state
                .as_mut()
                .and_then(|open| open.effects.pop_front())
            {
                match self.perform(effect, ctx) {
                    Ok(None) => {}
                    Ok(outcome) => next = outcome,
                    Err(error) => {
                        // The core is now ahead of the log: the supervisor drops the state and reopens from disk.
                        error!(self.start.logger, "leader fails"; "error" => %error);
                        return supervision::fail(ctx);
                    }
                }
            }
        }
        self.settle(ctx);
    }

    /// The leader's log may lack something: it does not serve yet.
    pub(super) fn begin_in_doubt(&mut self, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        open.leader.doubt(&mut open.effects);
        self.step(Input::Tick, ctx);
    }

    /// Shows the ends to who watches them and sets the timer.
    pub(super) fn settle(&mut self, ctx: &mut Context<Self>) {
        let Some(open) = &self.state else { return };
        open.leader.ends().show(&self.start.ends);
        let deadline = open.leader.next_deadline();
        if self.armed.as_ref().is_some_and(|(at, _)| *at == deadline) {
            return;
        }
        if let Some((_, timer)) = self.armed.take() {
            let _cancelled: bool = ctx.cancel_future(timer);
        }
        let sleep = self.start.clock.sleep_until(deadline);
        let timer = ctx.spawn(sleep.into_actor(self).map(|(), actor, ctx| {
            actor.armed = None;
            actor.step(Input::Tick, ctx);
        }));
        self.armed = Some((deadline, timer));
    }

    #[expect(clippy::too_many_lines, reason = "a row of effects, each a few lines")]
    fn perform(
        &mut self,
        effect: Effect,
        ctx: &mut Context<Self>,
    ) -> Result<Option<Input>, StorageError> {
        let now = self.start.clock.now();
        let Some(open) = &mut self.state else {
            return Ok(None);
        };
        match effect {
            Effect::Append { batch } => return self.append(&batch),
            Effect::Sync => self.sync_wanted(ctx),
            Effect::Acknowledge(ticket, result) => {
                if let Some((reply, _permit)) = open.producers.remove(&ticket) {
                    drop(reply.send(result));
                }
            }
            Effect::Read {
                ticket,
                from,
                limit,
                max_bytes,
                at_least_one,
            } => {
                let plan = open.log.plan_read(from, limit, max_bytes, at_least_one);
                let ends = open.leader.ends();
                // Who has gone away meanwhile costs no read.
                let waits = open.readers.remove(&ticket).filter(|(r, _)| !r.is_closed());
                if let Some((reply, permit)) = waits {
                    self.read(plan, ends, reply, permit);
                }
            }
            Effect::NothingToRead(ticket) => {
                let fetched = Fetched {
                    batches: Bytes::new(),
                    ends: open.leader.ends(),
                };
                if let Some((reply, _permit)) = open.readers.remove(&ticket) {
                    drop(reply.send(Ok(fetched)));
                }
            }
            Effect::Refuse(ticket, error) => {
                if let Some((reply, _permit)) = open.readers.remove(&ticket) {
                    drop(reply.send(Err(error)));
                } else if let Some(reply) = open.deleters.remove(&ticket) {
                    drop(reply.send(Err(error)));
                }
            }
            Effect::AdvanceStart { ticket, log_start } => {
                open.log.advance_start(log_start);
                let reply = open.deleters.remove(&ticket);
                let removal = unless_full(open.log.retain(
                    log_start,
                    now.wall,
                    open.leader.producers(),
                ))?;
                let start = open.log.log_start();
                match removal {
                    Some(removal) => self.remove(removal, ctx, move || {
                        drop(reply.map(|r| r.send(Ok(log_start))));
                    }),
                    None => warn!(
                        self.start.logger,
                        "the disk is full, no records are deleted"
                    ),
                }
                return Ok(Some(Input::StartAdvanced { log_start: start }));
            }
            Effect::ChangeIsr(change) => self.change_isr(change, ctx),
            Effect::GiveUp => {
                warn!(
                    self.start.logger,
                    "the log was cut, and another replica has more: it shall lead"
                );
                self.give_up(Loss::Certainty);
            }
            Effect::Settled => {
                info!(self.start.logger, "the log was cut, and lacks nothing");
                open.log.settle_doubt()?;
            }
            Effect::Retain { high_watermark } => {
                let removal = unless_full(open.log.retain(
                    high_watermark,
                    now.wall,
                    open.leader.producers(),
                ))?
                .flatten();
                let start = open.log.log_start();
                if removal.is_some() {
                    info!(self.start.logger, "old segments go"; "log_start" => %start);
                    self.remove(removal, ctx, || {});
                }
                return Ok(Some(Input::StartAdvanced { log_start: start }));
            }
        }
        Ok(None)
    }

    fn append(&mut self, batch: &Batch) -> Result<Option<Input>, StorageError> {
        let now = self.start.clock.now();
        let Some(open) = &mut self.state else {
            return Ok(None);
        };
        match open.log.append(batch, open.leader.epoch(), now.wall) {
            Ok(base) => {
                self.start
                    .metrics
                    .appended_bytes
                    .inc_by(batch.size_bytes() as u64);
                self.start
                    .metrics
                    .appended_records
                    .inc_by(batch.offset_count().unsigned_abs());
                Ok(Some(Input::Appended { base }))
            }
            Err(StorageError::Full { path }) => {
                warn!(self.start.logger, "the disk is full, nothing is appended"; "path" => %path.display());
                // Whoever has space leads on; this one follows again when it has some too.
                self.give_up(Loss::Space);
                Ok(Some(Input::AppendRefused(Refused::DiskFull)))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn read(
        &self,
        plan: ReadPlan,
        ends: Ends,
        reply: Reply<Fetched, FetchError>,
        permit: Permit,
    ) {
        let reading = Reading {
            plan,
            ends,
            reply,
            permit,
        };
        let told = (&self.start.metrics, &self.start.logger);
        reading.start(self.start.runtime.background(), told, self.damaged());
    }
}

impl Open {
    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }
}

impl Actor for LeaderActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.open(ctx);
    }
}

impl Supervised for LeaderActor {
    fn restarting(&mut self, _ctx: &mut Context<Self>) {
        // Whoever waits for an answer sees it dropped; the log is opened anew in `started`.
        if let Some(open) = self
            .state
            .as_mut()
            .filter(|_| planted::is(Bug::AnswersForgotten))
        {
            std::mem::forget(std::mem::take(&mut open.producers));
        }
        self.state = None;
        self.armed = None;
        self.start.ends.send_modify(|ends| ends.epoch = None);
    }
}

impl Handler<Produce> for LeaderActor {
    type Result = ();

    fn handle(&mut self, produce: Produce, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        let ticket = open.ticket();
        drop(
            open.producers
                .insert(ticket, (produce.reply, produce.permit)),
        );
        self.step(
            Input::Produce {
                ticket,
                batch: produce.batch,
                acks: produce.acks,
                epoch: produce.epoch,
            },
            ctx,
        );
    }
}

impl Handler<Fetch> for LeaderActor {
    type Result = ();

    fn handle(&mut self, fetch: Fetch, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        let ticket = open.ticket();
        drop(open.readers.insert(ticket, (fetch.reply, fetch.permit)));
        let Fetch {
            from,
            max_bytes,
            at_least_one,
            current_epoch,
            ..
        } = fetch;
        self.step(
            Input::Fetch {
                ticket,
                from,
                max_bytes,
                at_least_one,
                current_epoch,
            },
            ctx,
        );
    }
}

impl Handler<DeleteRecords> for LeaderActor {
    type Result = ();

    fn handle(&mut self, delete: DeleteRecords, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        let ticket = open.ticket();
        drop(open.deleters.insert(ticket, delete.reply));
        self.step(
            Input::DeleteRecords {
                ticket,
                before: delete.before,
            },
            ctx,
        );
    }
}

impl Handler<Configure> for LeaderActor {
    type Result = ();

    fn handle(&mut self, Configure(config): Configure, ctx: &mut Context<Self>) {
        self.start.config = config.clone();
        if let Some(open) = &mut self.state {
            open.log.set_config(config.clone());
        }
        self.step(Input::Configured(config), ctx);
    }
}

impl Handler<Close> for LeaderActor {
    type Result = ();

    fn handle(&mut self, close: Close, ctx: &mut Context<Self>) {
        self.start.ends.send_modify(|ends| ends.epoch = None);
        let Some(Open { log, leader, .. }) = self.state.take() else {
            drop(
                close
                    .reply
                    .map(|r| r.send(Err("the log was not open".into()))),
            );
            return supervision::finish(ctx);
        };
        let logger = self.start.logger.clone();
        let pool = self.start.runtime.background().clone();
        let work = move || {
            let closed = log.close(leader.ends().high_watermark, leader.producers());
            if let Err(error) = &closed {
                error!(logger, "log was not closed in order"; "error" => %error);
            }
            drop(
                close
                    .reply
                    .map(|r| r.send(closed.map_err(|e| e.to_string()))),
            );
        };
        let closing = async move { pool.ask(work).await };
        debug!(self.start.logger, "leader closes");
        ctx.wait(
            closing
                .into_actor(self)
                .map(|_, _, ctx| supervision::finish(ctx)),
        );
    }
}

impl Handler<Crash> for LeaderActor {
    type Result = ();

    fn handle(&mut self, _: Crash, _ctx: &mut Context<Self>) {
        panic!("asked to panic");
    }
}
