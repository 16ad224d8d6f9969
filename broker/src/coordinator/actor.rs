//! The shell of a coordinator: replays its partition, appends records through the partition's leader.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::prelude::*;
use callboard_common::record::Batch;
use callboard_common::{Clock, ErrorCode, Monotonic, Offset, TopicPartition};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::future::BoxFuture;
use slog::{Logger, error, info, warn};
use tokio::sync::oneshot;

use super::records::batches;
use super::replay::Replay;
use super::state::{
    Answer, Coordinator, Effect, Effects, GroupConfig, Input, Question, Ticket, WriteId,
};
use crate::directory::{Directory, LeaderRef};
use crate::leader::actor::{DeleteRecords, Fetch, Fetched, Produce};
use crate::leader::{Acks, Appended, ProduceError};
use crate::supervision::{self, Permit};

/// Records of the offsets partition are read in pieces of this size.
const REPLAY_BYTES: u32 = 4 << 20;
/// Who asks while the partition is replayed waits for so long before it hears that it is.
const REPLAY_PATIENCE: Duration = Duration::from_secs(1);
/// Writes beyond this wait in the mailbox's order for earlier ones.
const WRITES_IN_FLIGHT: usize = 4096;

/// Asks the coordinator something.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Ask {
    /// What.
    pub question: Question,
    /// The request's credits.
    pub permit: Permit,
    /// The answer, or why there is none; dropped if the coordinator stops.
    pub reply: oneshot::Sender<Result<Answer, ErrorCode>>,
}

/// Ends the actor.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;

/// What a coordinator is started with.
#[derive(Clone, Debug)]
pub struct CoordinatorStart {
    /// Its offsets partition.
    pub partition: TopicPartition,
    /// Until then somebody else may still say what groups have committed: it begins after that.
    pub serves_from: Monotonic,
    /// Settings of all groups.
    pub config: GroupConfig,
    /// When the log has grown by so much beyond its live state, that is written anew.
    pub rewrite_bytes: u64,
    /// Where the leader is.
    pub directory: Directory,
    /// Time.
    pub clock: Clock,
    /// The log.
    pub logger: Logger,
}

/// See the module.
#[derive(Debug)]
pub struct CoordinatorActor {
    start: CoordinatorStart,
    armed: Option<(Monotonic, SpawnHandle)>,
    state: Option<Open>,
    /// What is asked meanwhile, while the partition is replayed and that has not taken long.
    held: Option<Vec<Ask>>,
}

#[derive(Debug)]
struct Open {
    leader: LeaderRef,
    coordinator: Coordinator,
    effects: Effects,
    waiting: BTreeMap<Ticket, (oneshot::Sender<Result<Answer, ErrorCode>>, Permit)>,
    next_ticket: u64,
    writes: UnboundedSender<BoxFuture<'static, Outcome>>,
    bytes_since_rewrite: u64,
}

/// What became of a write.
#[derive(Debug)]
struct Outcome {
    write: WriteId,
    result: Result<Offset, ProduceError>,
}

impl CoordinatorActor {
    /// A coordinator that replays its partition when it is started.
    #[must_use]
    pub fn new(start: CoordinatorStart) -> Self {
        Self {
            start,
            armed: None,
            state: None,
            held: None,
        }
    }

    fn open(&mut self, ctx: &mut Context<Self>) {
        let (directory, partition) = (self.start.directory.clone(), self.start.partition.clone());
        let wait = self.start.clock.sleep_until(self.start.serves_from);
        let replay = async move {
            wait.await;
            replay(&directory, &partition).await
        };
        self.held = Some(Vec::new());
        let patience = self.start.clock.sleep(REPLAY_PATIENCE).into_actor(self);
        let _timer = ctx.spawn(patience.map(|(), actor, _ctx| {
            for ask in actor.held.take().into_iter().flatten() {
                drop(ask.reply.send(Err(ErrorCode::CoordinatorLoadInProgress)));
            }
        }));
        let _replay = ctx.spawn(replay.into_actor(self).map(
            |replayed, actor, ctx| match replayed {
                Ok((leader, replayed)) => actor.opened(leader, replayed, ctx),
                Err(error) => {
                    error!(actor.start.logger, "groups cannot be loaded"; "error" => error);
                    supervision::fail(ctx);
                }
            },
        ));
    }

    fn opened(&mut self, leader: LeaderRef, replayed: Replay, ctx: &mut Context<Self>) {
        let now = self.start.clock.now();
        let mut coordinator = Coordinator::new(self.start.config.clone(), now);
        let count = replayed.records.len();
        for record in replayed.records {
            coordinator.replay(now, record);
        }
        if replayed.skipped > 0 {
            warn!(self.start.logger, "records of the offsets partition are not understood and left alone";
                "count" => replayed.skipped);
        }
        if count > 0 {
            info!(self.start.logger, "groups loaded"; "records" => count);
        }
        let (writes, outcomes) = unbounded::<BoxFuture<'static, Outcome>>();
        let _stream = ctx.add_stream(outcomes.buffered(WRITES_IN_FLIGHT));
        self.state = Some(Open {
            leader,
            coordinator,
            effects: Effects::new(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            writes,
            bytes_since_rewrite: replayed.size_bytes,
        });
        for ask in self.held.take().into_iter().flatten() {
            self.ask(ask, ctx);
        }
        self.settle(ctx);
    }

    fn ask(&mut self, ask: Ask, ctx: &mut Context<Self>) {
        match (&mut self.state, &mut self.held) {
            (Some(open), _) => {
                open.next_ticket += 1;
                let ticket = Ticket(open.next_ticket);
                drop(open.waiting.insert(ticket, (ask.reply, ask.permit)));
                self.step(Input::Ask(ticket, Box::new(ask.question)), ctx);
            }
            (None, Some(held)) => held.push(ask),
            (None, None) => drop(ask.reply.send(Err(ErrorCode::CoordinatorLoadInProgress))),
        }
    }

    fn step(&mut self, input: Input, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        open.coordinator
            .step(self.start.clock.now(), input, &mut open.effects);
        while let Some(effect) = self
            .state
            .as_mut()
            .and_then(|open| open.effects.pop_front())
        {
            self.perform(effect);
        }
        self.settle(ctx);
    }

    fn perform(&mut self, effect: Effect) {
        let now = self.start.clock.now();
        let Some(open) = &mut self.state else { return };
        match effect {
            Effect::Answer(ticket, answer) => {
                if let Some((reply, _permit)) = open.waiting.remove(&ticket) {
                    drop(reply.send(Ok(answer)));
                }
            }
            Effect::Write { write, records } => {
                let batches = batches(&records, now.wall.0);
                open.bytes_since_rewrite +=
                    batches.iter().map(|b| b.size_bytes() as u64).sum::<u64>();
                let outcome = append(&open.leader, write, batches);
                // The stream ends with the actor only.
                drop(open.writes.unbounded_send(outcome));
            }
            Effect::DeleteBefore(offset) => {
                open.bytes_since_rewrite = 0;
                let (reply, _done) = oneshot::channel();
                let delete = DeleteRecords {
                    before: Some(offset.get()),
                    reply,
                };
                supervision::tell(&open.leader.actor, delete);
            }
        }
    }

    /// Only after something could be written: on a full disk that, too, would be refused, and so on for ever.
    fn rewrite_if_grown(&mut self, ctx: &mut Context<Self>) {
        let limit = self.start.rewrite_bytes;
        let open = self.state.as_ref();
        if open.is_some_and(|o| o.bytes_since_rewrite > limit) {
            self.step(Input::Rewrite, ctx);
        }
    }

    fn settle(&mut self, ctx: &mut Context<Self>) {
        let Some(open) = &self.state else { return };
        let deadline = open.coordinator.next_deadline();
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
}

/// Waits for the partition's leader and reads the whole partition.
async fn replay(
    directory: &Directory,
    partition: &TopicPartition,
) -> Result<(LeaderRef, Replay), String> {
    let leader = led(directory, partition).await?;
    let (mut ends, mut replay) = (leader.ends.clone(), Replay::default());
    loop {
        let possible = ends.wait_for(Replay::is_possible).await;
        let ends = *possible.map_err(|_| "the leader is gone".to_owned())?;
        // The leader has dealt with all that it was sent before when it answers.
        let fetched = fetch(&leader, replay.next(&ends)).await?;
        if replay.take(fetched.batches, &fetched.ends)? {
            return Ok((leader, replay));
        }
    }
}

async fn led(directory: &Directory, partition: &TopicPartition) -> Result<LeaderRef, String> {
    let mut changes = directory.changes();
    loop {
        if let Some(leader) = directory.leader(partition) {
            return Ok(leader);
        }
        let changed = changes.changed().await;
        changed.map_err(|_| "the node stops".to_owned())?;
    }
}

async fn fetch(leader: &LeaderRef, from: Offset) -> Result<Fetched, String> {
    let (reply, fetched) = oneshot::channel();
    let fetch = Fetch {
        from: from.get(),
        max_bytes: REPLAY_BYTES,
        at_least_one: true,
        current_epoch: None,
        permit: Permit::internal(),
        reply,
    };
    supervision::tell(&leader.actor, fetch);
    let fetched = fetched.await.map_err(|_| "the leader stopped".to_owned())?;
    fetched.map_err(|e| e.to_string())
}

/// Hands batches to the leader at once; the future waits until all are durable.
fn append(leader: &LeaderRef, write: WriteId, batches: Vec<Batch>) -> BoxFuture<'static, Outcome> {
    let epoch = leader.epoch();
    let send = |batch| {
        let (reply, appended) = oneshot::channel();
        let epoch = epoch?;
        let produce = Produce {
            batch,
            acks: Acks::All,
            epoch,
            permit: Permit::internal(),
            reply,
        };
        supervision::tell(&leader.actor, produce);
        Some(appended)
    };
    let replies: Vec<_> = batches.into_iter().map(send).collect();
    Box::pin(async move {
        let mut results = Vec::with_capacity(replies.len());
        for reply in replies {
            results.push(match reply {
                Some(reply) => reply.await.unwrap_or(Err(ProduceError::LeaderStopped)),
                None => Err(ProduceError::LeaderStopped),
            });
        }
        let result = together(results);
        Outcome { write, result }
    })
}

/// What became of all batches of a write: where the first one stands, or why none of them is in the log. Of what is there in
/// part only the log can tell, as if the leader had stopped.
fn together(results: Vec<Result<Appended, ProduceError>>) -> Result<Offset, ProduceError> {
    let is_whole = results.iter().all(Result::is_ok);
    let is_nothing = results.iter().all(|r| r.as_ref().is_err_and(is_refusal));
    match results.into_iter().next() {
        Some(first) if is_whole || is_nothing => first.map(|appended| appended.base),
        Some(_) | None => Err(ProduceError::LeaderStopped),
    }
}

/// Whether nothing was appended, and the leader goes on.
fn is_refusal(error: &ProduceError) -> bool {
    matches!(
        error,
        ProduceError::DiskFull
            | ProduceError::NotEnoughReplicas { .. }
            | ProduceError::BatchTooLarge { .. }
    )
}

/// What clients are told of a refusal; what is too large is so the next time too.
fn error_code(refusal: &ProduceError) -> ErrorCode {
    match matches!(refusal, ProduceError::BatchTooLarge { .. }) {
        true => ErrorCode::UnknownServerError,
        false => ErrorCode::CoordinatorNotAvailable,
    }
}

impl Actor for CoordinatorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.open(ctx);
    }
}

impl Supervised for CoordinatorActor {
    fn restarting(&mut self, _ctx: &mut Context<Self>) {
        // Callers see their answers dropped; `started` replays the partition.
        self.state = None;
        self.armed = None;
        self.held = None;
    }
}

impl Handler<Ask> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, ask: Ask, ctx: &mut Context<Self>) {
        self.ask(ask, ctx);
    }
}

impl Handler<Stop> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        self.state = None;
        self.held = None;
        supervision::finish(ctx);
    }
}

impl StreamHandler<Outcome> for CoordinatorActor {
    fn handle(&mut self, outcome: Outcome, ctx: &mut Context<Self>) {
        let write = outcome.write;
        match outcome.result {
            Ok(base) => {
                self.step(Input::Written { write, base }, ctx);
                self.rewrite_if_grown(ctx);
            }
            Err(error) if is_refusal(&error) => {
                self.step(
                    Input::WriteFailed {
                        write,
                        error: error_code(&error),
                    },
                    ctx,
                );
            }
            // The records may be in the log: only the log can tell. The leader has its own limit.
            Err(error @ (ProduceError::LeaderStopped | ProduceError::Fenced { .. })) => {
                info!(self.start.logger, "the leader went on in another reign, the groups are loaded anew"; "error" => %error);
                supervision::begin_again(ctx);
            }
            Err(error) => {
                warn!(self.start.logger, "group records may be lost, the groups are loaded anew"; "error" => %error);
                supervision::fail(ctx);
            }
        }
    }

    /// The writes end with the state that made them, not with the actor.
    fn finished(&mut self, _ctx: &mut Context<Self>) {}
}
