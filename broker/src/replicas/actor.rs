//! The shell of `replicas`: starts leaders, followers and coordinators of one worker and stops them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use actix::prelude::*;
use callboard_common::runtime::Worker;
use callboard_common::{TopicName, TopicPartition, Uuid};
use futures::stream;
use slog::{error, warn};
use tokio::sync::oneshot;

use super::directories::Directory;
use super::starting::lose_replica;
use super::state::{Duty, Effect, Effects, Replicas, Role};
use crate::controller::ControllerActor;
use crate::controller::actor::Published;
use crate::coordinator::actor::Stop;
use crate::coordinator::{CoordinatorActor, GroupConfig};
use crate::directory::Replica;
use crate::leader::actor::{Close, Configure, UpdateReplicas};
use crate::leader::opening::Loss;
use crate::node::Shared;
use crate::peer::fetcher::Fetchers;
use crate::storage::LogFiles;
use crate::storage::sync::Outstanding;
use crate::supervision::{self};
use crate::topic_config::TopicConfig;

/// A directory that cannot be used is tried again after this.
const PREPARE_PAUSE: Duration = Duration::from_secs(2);
/// A partition whose actor gave up is tried again after this.
const OFFLINE_PAUSE: Duration = Duration::from_mins(1);
/// Largest record of a group.
const GROUP_MAX_BYTES: u32 = 16 << 20;
/// So many directories are prepared one after another, with one sync of the directory above.
const PREPARED_TOGETHER: usize = 64;

/// What the roles of one worker are started with.
#[derive(Clone, Debug)]
pub struct ReplicasStart {
    /// What all actors of the node share.
    pub shared: Shared,
    /// The worker.
    pub worker: Worker,
    /// The controller.
    pub controller: Addr<ControllerActor>,
    /// The metadata.
    pub published: Published,
    /// The lanes to leaders on other nodes; `None` if the node is alone.
    pub fetchers: Option<Fetchers>,
    /// Settings of topics that choose nothing else.
    pub topic_defaults: TopicConfig,
    /// Settings of groups.
    pub groups: GroupConfig,
    /// When the offsets partition has grown by so much, its live state is written anew.
    pub group_rewrite_bytes: u64,
}

/// The metadata has changed.
struct Changed;

/// Closes all logs in order and ends.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct CloseAll {
    /// Answered when all are closed: the partitions that were not closed in order.
    pub reply: oneshot::Sender<Vec<TopicPartition>>,
}

/// A role gave up.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct GaveUp {
    pub(super) partition: TopicPartition,
    pub(super) error: String,
}

/// The partition's directory is as it should be.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Prepared {
    partition: TopicPartition,
    role: Role,
    result: Result<(), String>,
}

/// An actor has closed its log, or it is removed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Closed {
    partition: TopicPartition,
    /// Whether all that it had is durable.
    in_order: bool,
}

/// What can be done for many partitions at once is due.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Settle;

/// Tells who keeps a partition to close its log; the answer comes when it has.
fn tell_to_close(replica: &Replica) -> oneshot::Receiver<Result<(), String>> {
    let (reply, closed) = oneshot::channel();
    let close = Close { reply: Some(reply) };
    match replica {
        Replica::Leader(leader) => supervision::tell(&leader.actor, close),
        Replica::Follower(follower) => supervision::tell(&follower.actor, close),
    }
    closed
}

/// What happens to a partition when its log is closed.
#[derive(Debug)]
enum After {
    Start(Role),
    Delete(Uuid),
    Rest,
}

/// See the module.
#[derive(Debug)]
pub struct ReplicasActor {
    pub(super) start: ReplicasStart,
    pub(super) replicas: Replicas,
    effects: Effects,
    pub(super) doers: BTreeMap<TopicPartition, Replica>,
    /// What runs on the pools and what is not to be trusted, over all duties: who followed may lead next.
    outstanding: BTreeMap<TopicPartition, Outstanding>,
    /// Logs that are being closed or removed.
    ending: BTreeMap<TopicPartition, After>,
    pub(super) coordinators: BTreeMap<i32, Addr<CoordinatorActor>>,
    /// Logs whose last close is not known to have made everything durable, until they are opened again.
    not_closed: BTreeSet<TopicPartition>,
    closing: bool,
    /// Who waits until all is closed.
    awaits_close: Option<oneshot::Sender<Vec<TopicPartition>>>,
    /// Replicas to be shown in the directory, or hidden there.
    shown: BTreeMap<TopicPartition, Option<Replica>>,
    /// Logs that were closed, for another duty.
    reopened: Vec<(TopicPartition, Role)>,
    /// Whether a [`Settle`] is on its way.
    settles: bool,
}

impl ReplicasActor {
    /// Starts nothing until metadata says so.
    #[must_use]
    pub fn new(start: ReplicasStart) -> Self {
        let workers = start.shared.runtime.workers().len() as u64;
        let replicas = Replicas::new(start.shared.broker, start.worker.index() as u64, workers);
        Self {
            start,
            replicas,
            effects: Effects::new(),
            doers: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            ending: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            not_closed: BTreeSet::new(),
            closing: false,
            awaits_close: None,
            shown: BTreeMap::new(),
            reopened: Vec::new(),
            settles: false,
        }
    }

    /// Somebody keeps a partition from now on.
    pub(super) fn begins(
        &mut self,
        partition: &TopicPartition,
        replica: Replica,
        ctx: &mut Context<Self>,
    ) {
        let _was: bool = self.not_closed.remove(partition);
        drop(self.doers.insert(partition.clone(), replica.clone()));
        self.show(partition.clone(), Some(replica), ctx);
    }

    /// Shows a replica, or hides one, together with others of which is known soon.
    fn show(
        &mut self,
        partition: TopicPartition,
        replica: Option<Replica>,
        ctx: &mut Context<Self>,
    ) {
        drop(self.shown.insert(partition, replica));
        self.settle_soon(ctx);
    }

    /// After all that is in the mailbox: of thousands of partitions each would cost as much as all of them.
    fn settle_soon(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.settles, true) {
            ctx.notify(Settle);
        }
    }

    fn follow(&mut self, ctx: &mut Context<Self>) {
        if self.closing {
            return;
        }
        let image = self.start.published.image.load_full();
        // Before the node is registered the epochs are those of its earlier start.
        if self.start.shared.broker_epoch(&image).is_none() {
            return;
        }
        self.replicas.follow(&image, &mut self.effects);
        let mut prepare = Vec::new();
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Start { partition, role } => match self.ending.get_mut(&partition) {
                    Some(after) => *after = After::Start(role),
                    None => prepare.push((partition, role)),
                },
                Effect::Stop { partition } => self.end(partition, After::Rest, ctx),
                Effect::Delete {
                    partition,
                    topic_id,
                } => {
                    drop(self.outstanding.remove(&partition));
                    self.end(partition, After::Delete(topic_id), ctx);
                }
                Effect::Configure { partition, configs } => {
                    let config = self.topic_config(&partition.topic, &configs);
                    match self.doers.get(&partition) {
                        Some(Replica::Leader(leader)) => {
                            supervision::tell(&leader.actor, Configure(config));
                        }
                        Some(Replica::Follower(follower)) => {
                            supervision::tell(&follower.actor, Configure(config));
                        }
                        None => {}
                    }
                }
                Effect::Update { partition, image } => {
                    if let Some(Replica::Leader(leader)) = self.doers.get(&partition) {
                        let alive = self.replicas.alive().clone();
                        let update = UpdateReplicas {
                            partition: image,
                            alive,
                        };
                        supervision::tell(&leader.actor, update);
                    }
                }
            }
        }
        self.prepare(prepare, ctx);
    }

    /// Answers who waits when all logs are closed, also those whose duty had ended before.
    fn finish_closing(&mut self, ctx: &mut Context<Self>) {
        if self.ending.is_empty()
            && let Some(reply) = self.awaits_close.take()
        {
            let not_closed = std::mem::take(&mut self.not_closed);
            drop(reply.send(not_closed.into_iter().collect()));
            supervision::finish(ctx);
        }
    }

    /// Ends a duty; when the log is closed, something else happens to it.
    fn end(&mut self, partition: TopicPartition, after: After, ctx: &mut Context<Self>) {
        self.stop_coordinator(&partition);
        if self.doers.contains_key(&partition) {
            self.show(partition.clone(), None, ctx);
        }
        if let Some(ending) = self.ending.get_mut(&partition) {
            *ending = after;
            return;
        }
        let Some(doer) = self.doers.remove(&partition) else {
            if let After::Delete(topic_id) = after {
                self.delete(partition, topic_id, ctx);
            }
            return;
        };
        let closed = tell_to_close(&doer);
        drop(self.ending.insert(partition.clone(), after));
        let actor = ctx.address();
        drop(actix_rt::spawn(async move {
            // However it closed: the next to open the log finds out.
            let in_order = matches!(closed.await, Ok(Ok(())));
            let closed = Closed {
                partition,
                in_order,
            };
            supervision::tell(&actor, closed);
        }));
    }

    pub(super) fn topic_config(
        &self,
        topic: &TopicName,
        configs: &BTreeMap<String, String>,
    ) -> TopicConfig {
        let mut defaults = self.start.topic_defaults.clone();
        if topic.is_internal() {
            // The coordinator decides what of it is still needed.
            (defaults.retention, defaults.retention_bytes) = (None, None);
            // A group is one record, however many members it has.
            defaults.max_message_bytes = defaults.max_message_bytes.max(GROUP_MAX_BYTES);
        }
        defaults.clone().with(configs).unwrap_or_else(|error| {
            error!(self.start.shared.logger, "topic's configs are not understood, the defaults hold";
                "topic" => %topic, "error" => %error);
            defaults
        })
    }

    fn dir(&self, partition: &TopicPartition) -> PathBuf {
        self.start.shared.dir.join(partition.to_string())
    }

    /// Makes or checks the directories on the pool; many share the sync of the directory above them.
    fn prepare(&self, mut partitions: Vec<(TopicPartition, Role)>, ctx: &mut Context<Self>) {
        while !partitions.is_empty() {
            let rest = partitions.split_off(partitions.len().min(PREPARED_TOGETHER));
            let together = std::mem::replace(&mut partitions, rest);
            let (actor, shared) = (ctx.address(), self.start.shared.clone());
            let directories: Vec<_> = together.iter().map(|(p, _)| self.directory(p)).collect();
            self.start.shared.runtime.background().run(move || {
                let disk = shared.open.disk();
                let prepare = |((partition, role), directory): ((TopicPartition, Role), Directory)| {
                    let result = directory.prepare(role.topic_id).map(|earlier| {
                        if let Some(earlier) = earlier {
                            warn!(shared.logger, "what a deleted topic of this name had left here is removed";
                                "topic" => %partition.topic, "partition" => partition.partition, "topic_id" => %earlier);
                        }
                    });
                    (partition, role, result)
                };
                let together = together.into_iter().zip(directories);
                let prepared: Vec<_> = together.map(prepare).collect();
                let synced = disk.sync_dir(&shared.dir).map_err(|e| e.to_string());
                for (partition, role, result) in prepared {
                    let result = result.and_then(|()| synced.clone());
                    let prepared = Prepared {
                        partition,
                        role,
                        result,
                    };
                    supervision::tell(&actor, prepared);
                }
            });
        }
    }

    pub(super) fn files(&mut self, partition: &TopicPartition) -> LogFiles {
        let outstanding = self.outstanding.entry(partition.clone()).or_default();
        let outstanding = outstanding.clone();
        let shared = &self.start.shared;
        LogFiles {
            partition: partition.clone(),
            dir: self.dir(partition),
            open: shared.open.clone(),
            checkpoints: shared.checkpoints.clone(),
            outstanding,
        }
    }

    fn stop_coordinator(&mut self, partition: &TopicPartition) {
        if partition.topic == TopicName::consumer_offsets()
            && let Some(coordinator) = self.coordinators.remove(&partition.partition)
        {
            self.start
                .shared
                .directory
                .set_coordinator(partition.partition, None);
            supervision::tell(&coordinator, Stop);
        }
    }

    /// Begins a duty that could not be done, if it is still wanted.
    fn try_again(&mut self, partition: TopicPartition, ctx: &mut Context<Self>) {
        let is_idle = !self.closing
            && !self.doers.contains_key(&partition)
            && !self.ending.contains_key(&partition);
        if let Some(role) = self.replicas.role(&partition).filter(|_| is_idle) {
            let role = role.clone();
            self.prepare(vec![(partition, role)], ctx);
        }
    }

    fn directory(&self, partition: &TopicPartition) -> Directory {
        let shared = &self.start.shared;
        Directory {
            partition: partition.clone(),
            dir: self.dir(partition),
            open: shared.open.clone(),
            checkpoints: shared.checkpoints.clone(),
        }
    }

    /// Removes the log of a partition that is not kept here any more. If it is kept again soon, that begins afterwards.
    fn delete(&mut self, partition: TopicPartition, topic_id: Uuid, ctx: &mut Context<Self>) {
        let (directory, logger) = (self.directory(&partition), self.start.shared.logger.clone());
        drop(self.ending.insert(partition.clone(), After::Rest));
        let (actor, pool) = (
            ctx.address(),
            self.start.shared.runtime.background().clone(),
        );
        let removing = move || {
            if let Err(error) = directory.delete(topic_id) {
                warn!(logger, "deleted topic's log was not removed"; "path" => %directory.dir.display(), "error" => %error);
            }
        };
        drop(actix_rt::spawn(async move {
            let _done = pool.ask(removing).await;
            // Nothing that anybody wants was in it.
            let closed = Closed {
                partition,
                in_order: true,
            };
            supervision::tell(&actor, closed);
        }));
    }
}

impl Actor for ReplicasActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let changes = self.start.published.version.subscribe();
        let changes = stream::unfold(changes, |mut changes| async move {
            changes.changed().await.ok().map(|()| (Changed, changes))
        });
        let _stream = ctx.add_stream(changes);
        self.follow(ctx);
        self.settle_soon(ctx);
    }
}

impl Supervised for ReplicasActor {
    fn restarting(&mut self, _ctx: &mut Context<Self>) {
        // Leaders that run go on running; they are known by their addresses.
        self.settles = false;
    }
}

impl StreamHandler<Changed> for ReplicasActor {
    fn handle(&mut self, _: Changed, ctx: &mut Context<Self>) {
        self.follow(ctx);
    }

    fn finished(&mut self, _ctx: &mut Context<Self>) {}
}

impl Handler<Prepared> for ReplicasActor {
    type Result = ();

    fn handle(&mut self, prepared: Prepared, ctx: &mut Context<Self>) {
        let Prepared {
            partition,
            role,
            result,
        } = prepared;
        // Meanwhile the metadata may want something else, which has its own turn.
        let is_wanted = self.replicas.role(&partition).is_some_and(|wanted| {
            let same = match (&wanted.duty, &role.duty) {
                (Duty::Lead(_), Duty::Lead(_)) => true,
                (a, b) => a == b,
            };
            wanted.topic_id == role.topic_id && same
        });
        let is_ending = self.ending.contains_key(&partition);
        if self.closing || !is_wanted || is_ending || self.doers.contains_key(&partition) {
            return;
        }
        // What changed since is known already.
        let role = self.replicas.role(&partition).cloned().unwrap_or(role);
        match result {
            Ok(()) => self.start_duty(&partition, &role, ctx),
            Err(error) => {
                let _count = self.start.shared.metrics.offline_partitions.inc();
                error!(self.start.shared.logger, "partition is offline: its directory cannot be used; tries again soon";
                    "topic" => %partition.topic, "partition" => partition.partition, "error" => error);
                // A full disk has space again some day.
                let sleep = self.start.shared.clock.sleep(PREPARE_PAUSE);
                let again = move |(), actor: &mut Self, ctx: &mut Context<Self>| {
                    let _count = actor.start.shared.metrics.offline_partitions.dec();
                    actor.try_again(partition, ctx);
                };
                let _timer = ctx.spawn(sleep.into_actor(self).map(again));
            }
        }
    }
}

impl Handler<Closed> for ReplicasActor {
    type Result = ();

    fn handle(&mut self, closed: Closed, ctx: &mut Context<Self>) {
        let Closed {
            partition,
            in_order,
        } = closed;
        let _changed: bool = match in_order {
            true => self.not_closed.remove(&partition),
            false => self.not_closed.insert(partition.clone()),
        };
        match self.ending.remove(&partition) {
            Some(After::Start(role)) if !self.closing => {
                self.reopened.push((partition, role));
                self.settle_soon(ctx);
            }
            Some(After::Delete(topic_id)) => self.delete(partition, topic_id, ctx),
            Some(After::Start(_) | After::Rest) | None => {}
        }
        self.finish_closing(ctx);
    }
}

impl Handler<Settle> for ReplicasActor {
    type Result = ();

    fn handle(&mut self, _: Settle, ctx: &mut Context<Self>) {
        self.settles = false;
        let shown = std::mem::take(&mut self.shown);
        self.start.shared.directory.update(shown);
        let reopened = std::mem::take(&mut self.reopened);
        if !self.closing {
            self.prepare(reopened, ctx);
        }
    }
}

impl Handler<GaveUp> for ReplicasActor {
    type Result = ();

    fn handle(&mut self, gave_up: GaveUp, ctx: &mut Context<Self>) {
        let GaveUp { partition, error } = gave_up;
        if self.closing || !self.doers.contains_key(&partition) {
            return;
        }
        let _count = self.start.shared.metrics.offline_partitions.inc();
        error!(self.start.shared.logger, "partition is offline here; tries again in a minute";
            "topic" => %partition.topic, "partition" => partition.partition, "error" => error);
        if let Some(role) = self.replicas.role(&partition) {
            let of = (partition.clone(), role.topic_id, self.start.shared.broker);
            // Another one that is whole leads meanwhile, if there is one.
            drop(lose_replica(self.start.controller.clone(), of)(
                Loss::Certainty,
            ));
        }
        self.end(partition.clone(), After::Rest, ctx);
        let sleep = self.start.shared.clock.sleep(OFFLINE_PAUSE);
        let again = move |(), actor: &mut Self, ctx: &mut Context<Self>| {
            let _count = actor.start.shared.metrics.offline_partitions.dec();
            actor.try_again(partition, ctx);
        };
        let _timer = ctx.spawn(sleep.into_actor(self).map(again));
    }
}

impl Handler<CloseAll> for ReplicasActor {
    type Result = ();

    fn handle(&mut self, close: CloseAll, ctx: &mut Context<Self>) {
        self.closing = true;
        self.awaits_close = Some(close.reply);
        for (number, coordinator) in std::mem::take(&mut self.coordinators) {
            self.start.shared.directory.set_coordinator(number, None);
            supervision::tell(&coordinator, Stop);
        }
        let all: Vec<TopicPartition> = self.doers.keys().cloned().collect();
        for partition in all {
            self.end(partition, After::Rest, ctx);
        }
        self.finish_closing(ctx);
    }
}
