//! The shell of the controller: proposals in, synced writes out, the image for everybody to read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use actix::prelude::*;
use arc_swap::ArcSwap;
use callboard_common::Clock;
use callboard_common::runtime::Runtime;
use slog::{Drain, Logger, error, warn};
use tokio::sync::{oneshot, watch};

use super::image::MetadataImage;
use super::log_file::MetadataLog;
use super::records::{Command, Outcome, Refusal};
use super::state::{Controller, Effect, Effects, Identity, Input, Led, Ticket};
use crate::storage::{Disk, StorageError};
use crate::supervision;

/// Asks for a change of the metadata; answered once it is committed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Propose {
    /// The change.
    pub command: Command,
    /// What it came to; dropped if the controller stops.
    pub reply: oneshot::Sender<Result<Outcome, Refusal>>,
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
struct WriteDone {
    incarnation: u64,
    log: MetadataLog,
    written: Option<u64>,
    result: Result<(), StorageError>,
}

/// Where the committed metadata is shown.
#[derive(Clone, Debug)]
pub struct Published {
    /// The newest image: requests read it without locks.
    pub image: Arc<ArcSwap<MetadataImage>>,
    /// Its index, for who wants to be woken.
    pub version: watch::Sender<u64>,
    /// Who leads the quorum.
    pub led: watch::Sender<Led>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            image: Arc::default(),
            version: watch::Sender::new(0),
            led: watch::Sender::default(),
        }
    }
}

/// What a controller is started with.
#[derive(Clone, Debug)]
pub struct ControllerStart {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The data directory.
    pub dir: PathBuf,
    /// Who it is in the quorum.
    pub identity: Identity,
    /// Pools.
    pub runtime: Runtime,
    /// Time.
    pub clock: Clock,
    /// Where the image is shown.
    pub published: Published,
    /// The log.
    pub logger: Logger,
}

/// See the module.
#[derive(Debug)]
pub struct ControllerActor {
    start: ControllerStart,
    incarnation: u64,
    state: Option<Open>,
}

#[derive(Debug)]
struct Open {
    controller: Controller,
    effects: Effects,
    waiting: BTreeMap<Ticket, oneshot::Sender<Result<Outcome, Refusal>>>,
    next_ticket: u64,
    /// With the pool while a write is under way.
    log: Option<MetadataLog>,
    /// Writes that wait for it, in order.
    writes: Effects,
}

impl ControllerActor {
    /// A controller that restores its metadata when it is started.
    #[must_use]
    pub fn new(start: ControllerStart) -> Self {
        Self {
            start,
            incarnation: 0,
            state: None,
        }
    }

    fn open(&mut self, ctx: &mut Context<Self>) {
        self.incarnation += 1;
        let start = self.start.clone();
        let opening = async move {
            let (disk, dir) = (start.disk, start.dir);
            start
                .runtime
                .background()
                .ask(move || MetadataLog::open(disk, &dir))
                .await
        };
        ctx.wait(opening.into_actor(self).map(|opened, actor, ctx| {
            let mut effects = Effects::new();
            let restored = match opened {
                Some(Ok((log, restored))) => {
                    if restored.torn_bytes > 0 {
                        warn!(actor.start.logger, "torn end of the metadata log cut off and kept";
                            "size_bytes" => restored.torn_bytes);
                    }
                    // Raft tells of every step; an operator needs only what is wrong.
                    let logger = raft_logger(&actor.start.logger);
                    let controller = Controller::restore(
                        &logger,
                        actor.start.identity,
                        actor.start.clock.now(),
                        restored.saved,
                        &restored.writes,
                        &mut effects,
                    );
                    controller
                        .map(|controller| (log, controller))
                        .map_err(|e| e.to_string())
                }
                Some(Err(error)) => Err(error.to_string()),
                None => Err("opening the metadata log panicked".into()),
            };
            match restored {
                Ok((log, controller)) => {
                    let (log, writes) = (Some(log), Effects::new());
                    let waiting = BTreeMap::new();
                    actor.state = Some(Open {
                        controller,
                        effects,
                        waiting,
                        next_ticket: 0,
                        log,
                        writes,
                    });
                    actor.perform_all(ctx);
                }
                Err(error) => {
                    error!(actor.start.logger, "metadata cannot be restored"; "error" => error);
                    supervision::fail(ctx);
                }
            }
        }));
    }

    fn step(&mut self, input: Input, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        open.controller
            .step(self.start.clock.now(), input, &mut open.effects);
        self.perform_all(ctx);
    }

    fn perform_all(&mut self, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        while let Some(effect) = open.effects.pop_front() {
            match effect {
                Effect::Persist(..) | Effect::Snapshot(..) => open.writes.push_back(effect),
                Effect::Answer(ticket, _, outcome) => {
                    if let Some(reply) = open.waiting.remove(&ticket) {
                        drop(reply.send(outcome));
                    }
                }
                Effect::Publish(image) => {
                    let version = image.applied;
                    self.start.published.image.store(image);
                    let _before = self.start.published.version.send_replace(version);
                }
                Effect::Led(led) => {
                    let _before = self.start.published.led.send_replace(led);
                }
                Effect::Send(..) => {}
                Effect::Forward(ticket, ..) => {
                    if let Some(reply) = open.waiting.remove(&ticket) {
                        drop(reply.send(Err(Refusal::NoQuorum)));
                    }
                }
            }
        }
        self.write(ctx);
    }

    /// Hands the next write to the pool; one is under way at a time, so they reach the disk in order.
    fn write(&mut self, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        let Some(mut log) = open.log.take() else {
            return;
        };
        let Some(effect) = open.writes.pop_front() else {
            open.log = Some(log);
            return;
        };
        let (actor, incarnation) = (ctx.address(), self.incarnation);
        self.start.runtime.sync().run(move || {
            let (written, result) = match effect {
                Effect::Persist(number, write) => (Some(number), log.persist(&write)),
                Effect::Snapshot(saved, rest) => (None, log.snapshot(&saved, &rest)),
                Effect::Answer(..)
                | Effect::Publish(_)
                | Effect::Led(_)
                | Effect::Send(..)
                | Effect::Forward(..) => (None, Ok(())),
            };
            supervision::tell(
                &actor,
                WriteDone {
                    incarnation,
                    log,
                    written,
                    result,
                },
            );
        });
    }
}

/// Raft's own log, from warnings on.
fn raft_logger(logger: &Logger) -> Logger {
    Logger::root(
        slog::LevelFilter::new(logger.clone(), slog::Level::Warning).ignore_res(),
        slog::o!(),
    )
}

impl Actor for ControllerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.open(ctx);
    }
}

impl Supervised for ControllerActor {
    fn restarting(&mut self, _ctx: &mut Context<Self>) {
        self.state = None;
    }
}

impl Handler<Propose> for ControllerActor {
    type Result = ();

    fn handle(&mut self, propose: Propose, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        open.next_ticket += 1;
        let ticket = Ticket(open.next_ticket);
        drop(open.waiting.insert(ticket, propose.reply));
        self.step(Input::Propose(ticket, propose.command), ctx);
    }
}

impl Handler<WriteDone> for ControllerActor {
    type Result = ();

    fn handle(&mut self, done: WriteDone, ctx: &mut Context<Self>) {
        let Some(open) = self
            .state
            .as_mut()
            .filter(|_| done.incarnation == self.incarnation)
        else {
            return;
        };
        if let Err(error) = done.result {
            // What the disk has now is found out by reading it again.
            error!(self.start.logger, "metadata cannot be written"; "error" => %error);
            return supervision::fail(ctx);
        }
        open.log = Some(done.log);
        match done.written {
            Some(number) => self.step(Input::Persisted(number), ctx),
            None => self.write(ctx),
        }
    }
}
