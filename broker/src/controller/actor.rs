//! The shell of the controller: proposals in, synced writes out, the image for everybody to read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use callboard_common::runtime::Runtime;
use callboard_common::{BrokerId, Clock, FeatureLevel, Monotonic};
use futures::stream;
use slog::{Drain, Logger, error, warn};
use tokio::sync::oneshot;

use super::balancer::Policy;
use super::log_file::{MetadataLog, RESERVE_BYTES};
pub use super::published::Published;
use super::quorum::QuorumView;
use super::raft_wire::RaftMessage;
use super::records::{Command, Endpoint, Member, Outcome, Refusal};
use super::state::{Controller, Effect, Effects, Identity, Input, Proposal, TICK, Ticket};
use crate::peer::link::Lane;
use crate::peer::protocol::{LogSizes, PeerRequest, PeerResponse};
use crate::peer::{LinkError, Peers};
use crate::storage::{Disk, StorageError};
use crate::supervision;

/// A full disk is looked at again after this.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Asks for a change of the metadata; answered once it is committed and in the image here. See [`propose`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Propose {
    /// The change.
    command: Command,
    /// What it came to; dropped if the controller stops.
    reply: oneshot::Sender<Result<Outcome, Refusal>>,
}

/// Asks the controller for a change of the metadata; the request is on its way before the answer is awaited.
///
/// # Errors
///
/// What the controller refuses; [`Refusal::Stopped`] if it stops before it answers.
pub fn propose(
    controller: &Addr<ControllerActor>,
    command: Command,
) -> impl Future<Output = Result<Outcome, Refusal>> + use<> {
    let (reply, answer) = oneshot::channel();
    supervision::tell(controller, Propose { command, reply });
    async move { answer.await.unwrap_or(Err(Refusal::Stopped)) }
}

/// Asks for a change of the quorum; answered as [`Propose`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ChangeQuorum {
    /// The change.
    pub change: super::QuorumChange,
    /// What it came to.
    pub reply: oneshot::Sender<Result<Outcome, Refusal>>,
}

/// Another node asks.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ProposedByPeer {
    /// For what.
    pub proposal: Proposal,
    /// Whether the leader is asked if it is somebody else.
    pub relay: bool,
    /// The entry that says what it came to, and what that is.
    pub reply: oneshot::Sender<(u64, Result<Outcome, Refusal>)>,
}

/// Another member of the quorum speaks.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RaftArrived {
    /// Who.
    pub from: Member,
    /// What, in order.
    pub messages: Vec<RaftMessage>,
}

/// This incarnation of a node has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Died {
    /// The node.
    pub broker: BrokerId,
    /// Its incarnation.
    pub epoch: i64,
}

/// Asks how the quorum is. Who leads it knows most; if that is another node, it is asked.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct DescribeQuorum {
    /// Whether the leader is asked if it is somebody else.
    pub relay: bool,
    /// What is known.
    pub reply: oneshot::Sender<QuorumView>,
}

/// Somebody tells how large the logs are that it leads.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct LogSizesTold {
    /// What it told.
    pub sizes: LogSizes,
}

/// If this member leads the quorum, another one shall.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct HandOver;

struct Tick;

/// Where an answer goes.
#[derive(Debug)]
enum Reply {
    Here(oneshot::Sender<Result<Outcome, Refusal>>),
    Peer(oneshot::Sender<(u64, Result<Outcome, Refusal>)>),
}

impl Reply {
    fn send(self, index: u64, outcome: Result<Outcome, Refusal>) {
        // Who asked may have gone away.
        match self {
            Self::Here(reply) => drop(reply.send(outcome)),
            Self::Peer(reply) => drop(reply.send((index, outcome))),
        }
    }
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
struct WriteDone {
    incarnation: u64,
    log: MetadataLog,
    written: Option<u64>,
    result: Result<(), StorageError>,
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
    /// What it moves by itself while it leads the quorum.
    pub policy: Policy,
    /// Other nodes, and where they find this one; `None` if it is alone.
    pub peers: Option<(Peers, Endpoint)>,
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
    pub(super) start: ControllerStart,
    incarnation: u64,
    state: Option<Open>,
}

#[derive(Debug)]
struct Open {
    controller: Controller,
    effects: Effects,
    waiting: BTreeMap<Ticket, Reply>,
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
                .ask(move || MetadataLog::open(disk, &dir, RESERVE_BYTES))
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
                Some(Err(StorageError::Full { path })) => {
                    warn!(actor.start.logger, "the disk is full, metadata waits for space"; "path" => %path.display());
                    let sleep = actor.start.clock.sleep(FULL_PAUSE);
                    let again = |(), actor: &mut Self, ctx: &mut Context<Self>| actor.open(ctx);
                    return ctx.wait(sleep.into_actor(actor).map(again));
                }
                Some(Err(error)) => Err(error.to_string()),
                None => Err("opening the metadata log panicked".into()),
            };
            match restored {
                Ok((log, mut controller)) => {
                    controller.balance_by(actor.start.policy);
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
        let now = self.start.clock.now();
        open.controller.step(now, input, &mut open.effects);
        let contact = open.controller.contact();
        self.perform_all(ctx);
        // After what was decided is shown.
        self.start.published.note_contact(contact);
    }

    fn perform_all(&mut self, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        let (mut outgoing, mut forwards) = (Vec::new(), Vec::new());
        while let Some(effect) = open.effects.pop_front() {
            match effect {
                Effect::Persist(..) | Effect::Snapshot(..) => open.writes.push_back(effect),
                Effect::Answer(ticket, index, outcome) => {
                    if let Some(reply) = open.waiting.remove(&ticket) {
                        reply.send(index, outcome);
                    }
                }
                Effect::Publish(image) => {
                    let now = self.start.clock.now().monotonic;
                    let _newer: bool = self.start.published.show(image, now);
                }
                Effect::Led(led) => {
                    let _before = self.start.published.led.send_replace(led);
                }
                Effect::Send(to, message) => outgoing.push((to, *message)),
                Effect::Forward(ticket, to, proposal) => forwards.push((ticket, to, proposal)),
                Effect::Outdated => {
                    let _before = self.start.published.outdated.send_replace(true);
                    // Who waits, or asks from now on, is told that it has stopped.
                    self.state = None;
                    return;
                }
                Effect::TooNew(index) => {
                    error!(self.start.logger, "the cluster has moved on to what this release does not know: start a newer one";
                        "metadata_index" => index, "newest_feature_level" => %FeatureLevel::NEWEST);
                    return supervision::fail(ctx);
                }
            }
        }
        self.send(outgoing, ctx);
        for (ticket, to, proposal) in forwards {
            self.forward(ticket, &to, proposal, ctx);
        }
        self.write(ctx);
    }

    /// Sends messages of the quorum, those to one member together and in order.
    fn send(&self, outgoing: Vec<(Member, RaftMessage)>, ctx: &mut Context<Self>) {
        let Some((peers, own)) = &self.start.peers else {
            return;
        };
        let mut by_member: BTreeMap<u64, (Member, Vec<RaftMessage>)> = BTreeMap::new();
        for (to, message) in outgoing {
            let entry = by_member.entry(message.to);
            entry.or_insert_with(|| (to, Vec::new())).1.push(message);
        }
        let identity = self.start.identity;
        for (id, (to, messages)) in by_member {
            let from = Member {
                broker: identity.broker,
                directory: identity.directory,
                peer: own.clone(),
            };
            let link = peers.link(to.broker, &to.peer);
            let incarnation = self.incarnation;
            let asked = async move {
                link.ask(Lane::Raft, PeerRequest::Raft { from, messages })
                    .await
            };
            let _running = ctx.spawn(asked.into_actor(self).map(move |answer, actor, ctx| {
                if answer.is_err() {
                    let input = Input::Unreachable(id);
                    actor.heard(incarnation, input, ctx);
                }
            }));
        }
    }

    /// Asks the leader of the quorum instead.
    fn forward(&self, ticket: Ticket, to: &Member, proposal: Proposal, ctx: &mut Context<Self>) {
        let incarnation = self.incarnation;
        let link = self
            .start
            .peers
            .as_ref()
            .map(|(peers, _)| peers.link(to.broker, &to.peer));
        let asked = async move {
            let request = PeerRequest::Propose {
                proposal,
                relay: false,
            };
            match link {
                Some(link) => link.ask(Lane::Control, request).await,
                None => Err(LinkError::Unreachable(BrokerId(-1))),
            }
        };
        let _running = ctx.spawn(asked.into_actor(self).map(move |answer, actor, ctx| {
            let (index, result) = match answer {
                Ok(PeerResponse::Proposed { index, result }) => (index, result),
                Ok(_) | Err(LinkError::Broken(_)) => (0, Err(Refusal::Stopped)),
                Err(LinkError::Unreachable(_) | LinkError::Unknown(_)) => {
                    (0, Err(Refusal::NoQuorum))
                }
            };
            let input = Input::Forwarded(ticket, index, result);
            actor.heard(incarnation, input, ctx);
        }));
    }

    /// What another member answered to this life.
    fn heard(&mut self, incarnation: u64, input: Input, ctx: &mut Context<Self>) {
        if incarnation == self.incarnation {
            self.step(input, ctx);
        }
    }

    fn ask(&mut self, reply: Reply, input: impl FnOnce(Ticket) -> Input, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        open.next_ticket += 1;
        let ticket = Ticket(open.next_ticket);
        drop(open.waiting.insert(ticket, reply));
        self.step(input(ticket), ctx);
    }

    /// Raft's clock; one that is alone needs none.
    fn start_clock(&self, ctx: &mut Context<Self>) {
        if self.start.peers.is_none() {
            return;
        }
        let clock = self.start.clock.clone();
        let ticks = stream::unfold(clock, |clock| async move {
            clock.sleep(TICK).await;
            Some((Tick, clock))
        });
        let _stream = ctx.add_stream(ticks);
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
            let (written, result) = log.write(effect);
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
        self.start_clock(ctx);
        self.open(ctx);
    }
}

impl Supervised for ControllerActor {
    fn restarting(&mut self, _ctx: &mut Context<Self>) {
        self.state = None;
        // Until it knows again what was decided, others of this process know nothing.
        self.start.published.note_contact(Monotonic::default());
    }
}

impl Handler<Propose> for ControllerActor {
    type Result = ();

    fn handle(&mut self, propose: Propose, ctx: &mut Context<Self>) {
        let proposal = Proposal::Command(propose.command);
        self.ask(
            Reply::Here(propose.reply),
            |t| Input::Propose(t, proposal),
            ctx,
        );
    }
}

impl Handler<ChangeQuorum> for ControllerActor {
    type Result = ();

    fn handle(&mut self, change: ChangeQuorum, ctx: &mut Context<Self>) {
        let proposal = Proposal::Quorum(change.change);
        self.ask(
            Reply::Here(change.reply),
            |t| Input::Propose(t, proposal),
            ctx,
        );
    }
}

impl Handler<ProposedByPeer> for ControllerActor {
    type Result = ();

    fn handle(&mut self, proposed: ProposedByPeer, ctx: &mut Context<Self>) {
        let ProposedByPeer {
            proposal,
            relay,
            reply,
        } = proposed;
        let input = move |ticket| match relay {
            true => Input::Propose(ticket, proposal),
            false => Input::ProposeHere(ticket, proposal),
        };
        self.ask(Reply::Peer(reply), input, ctx);
    }
}

impl Handler<RaftArrived> for ControllerActor {
    type Result = ();

    fn handle(&mut self, arrived: RaftArrived, ctx: &mut Context<Self>) {
        for message in arrived.messages {
            self.step(Input::Message(arrived.from.clone(), Box::new(message)), ctx);
        }
    }
}

impl Handler<Died> for ControllerActor {
    type Result = ();

    fn handle(&mut self, died: Died, ctx: &mut Context<Self>) {
        warn!(self.start.logger, "a node has ended"; "peer" => %died.broker);
        self.step(Input::Died(died.broker, died.epoch), ctx);
        // Nobody waits for the next tick with that.
        self.step(Input::Tick, ctx);
    }
}

impl Handler<LogSizesTold> for ControllerActor {
    type Result = ();

    fn handle(&mut self, told: LogSizesTold, ctx: &mut Context<Self>) {
        self.step(Input::LogSizes(told.sizes), ctx);
    }
}

impl Handler<HandOver> for ControllerActor {
    type Result = ();

    fn handle(&mut self, _: HandOver, ctx: &mut Context<Self>) {
        self.step(Input::HandOver, ctx);
    }
}

impl Handler<DescribeQuorum> for ControllerActor {
    type Result = ();

    fn handle(&mut self, describe: DescribeQuorum, ctx: &mut Context<Self>) {
        let Some(open) = &self.state else { return };
        let view = open.controller.quorum(self.start.clock.now().monotonic);
        let leader = view.members.iter().map(|m| &m.member);
        let leader = leader.clone().find(|m| Some(m.broker) == view.leader);
        let (true, false, Some(leader), Some((peers, _))) =
            (describe.relay, view.leads, leader, &self.start.peers)
        else {
            // Who asked may have gone away.
            return drop(describe.reply.send(view));
        };
        let link = peers.link(leader.broker, &leader.peer);
        let asking = async move {
            let asked = link.ask(Lane::Control, PeerRequest::Quorum).await;
            let view = match asked {
                Ok(PeerResponse::Quorum(view)) => view,
                Ok(_) | Err(_) => view,
            };
            drop(describe.reply.send(view));
        };
        let _running = ctx.spawn(asking.into_actor(self));
    }
}

impl StreamHandler<Tick> for ControllerActor {
    fn handle(&mut self, _: Tick, ctx: &mut Context<Self>) {
        self.step(Input::Tick, ctx);
    }

    fn finished(&mut self, _ctx: &mut Context<Self>) {}
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
