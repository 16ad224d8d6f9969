//! The shell of `replicas`: starts leaders, followers and coordinators of one worker and stops them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use actix::prelude::*;
use callboard_common::runtime::Worker;
use callboard_common::{BrokerId, LeaderEpoch, TopicName, TopicPartition, Uuid};
use futures::FutureExt;
use futures::stream;
use slog::{Logger, error, o, warn};
use tokio::sync::{oneshot, watch};

use super::state::{Duty, Effect, Effects, Replicas, Role};
use crate::controller::actor::{Propose, Published};
use crate::controller::{Command, ControllerActor, Outcome, PartitionImage};
use crate::coordinator::actor::Stop;
use crate::coordinator::{CoordinatorActor, CoordinatorStart, GroupConfig};
use crate::directory::LeaderRef;
use crate::follower::{FollowerActor, FollowerStart};
use crate::leader::actor::{Close, Configure, UpdateReplicas};
use crate::leader::opening::{ChangeIsr, NewEpoch};
use crate::leader::{Ends, LeaderActor, LeaderStart};
use crate::node::Shared;
use crate::peer::fetcher::Fetchers;
use crate::storage::sync::Outstanding;
use crate::storage::{LogFiles, meta_properties};
use crate::supervision::{self, Child, Exit, Restart, RestartLimit};
use crate::topic_config::TopicConfig;

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
struct GaveUp {
    partition: TopicPartition,
    error: String,
}

/// The partition's directory is as it should be.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Prepared {
    partition: TopicPartition,
    role: Role,
    result: Result<(), String>,
}

/// An actor has closed its log.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Closed {
    partition: TopicPartition,
}

/// Who does a duty.
#[derive(Clone, Debug)]
enum Doer {
    Leader(Addr<LeaderActor>),
    Follower(Addr<FollowerActor>),
}

impl Doer {
    /// Tells it to close its log; the answer comes when it has.
    fn close(&self) -> oneshot::Receiver<Result<(), String>> {
        let (reply, closed) = oneshot::channel();
        let close = Close { reply: Some(reply) };
        match self {
            Self::Leader(leader) => supervision::tell(leader, close),
            Self::Follower(follower) => supervision::tell(follower, close),
        }
        closed
    }
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
    start: ReplicasStart,
    replicas: Replicas,
    effects: Effects,
    doers: BTreeMap<TopicPartition, Doer>,
    /// Logs that are being closed.
    ending: BTreeMap<TopicPartition, After>,
    coordinators: BTreeMap<i32, Addr<CoordinatorActor>>,
    closing: bool,
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
            ending: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            closing: false,
        }
    }

    fn follow(&mut self, ctx: &mut Context<Self>) {
        if self.closing {
            return;
        }
        let image = self.start.published.image.load_full();
        // Before the node is registered the epochs are those of its earlier start.
        let shared = &self.start.shared;
        if image
            .brokers
            .get(&shared.broker)
            .is_none_or(|b| b.incarnation != shared.incarnation)
        {
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
                } => self.end(partition, After::Delete(topic_id), ctx),
                Effect::Configure { partition, configs } => {
                    let config = self.topic_config(&partition.topic, &configs);
                    match self.doers.get(&partition) {
                        Some(Doer::Leader(leader)) => supervision::tell(leader, Configure(config)),
                        Some(Doer::Follower(follower)) => {
                            supervision::tell(follower, Configure(config));
                        }
                        None => {}
                    }
                }
                Effect::Update { partition, image } => {
                    if let Some(Doer::Leader(leader)) = self.doers.get(&partition) {
                        let alive = self.replicas.alive().clone();
                        let update = UpdateReplicas {
                            partition: image,
                            alive,
                        };
                        supervision::tell(leader, update);
                    }
                }
            }
        }
        self.prepare(prepare, ctx);
    }

    /// Ends a duty; when the log is closed, something else happens to it.
    fn end(&mut self, partition: TopicPartition, after: After, ctx: &mut Context<Self>) {
        self.stop_coordinator(&partition);
        let hidden = std::slice::from_ref(&partition);
        self.start
            .shared
            .directory
            .update_leaders(Vec::new(), hidden);
        if let Some(ending) = self.ending.get_mut(&partition) {
            *ending = after;
            return;
        }
        let Some(doer) = self.doers.remove(&partition) else {
            if let After::Delete(topic_id) = after {
                self.delete(&partition, topic_id);
            }
            return;
        };
        let closed = doer.close();
        drop(self.ending.insert(partition.clone(), after));
        let actor = ctx.address();
        drop(actix_rt::spawn(async move {
            // However it closed: the next to open the log finds out.
            drop(closed.await);
            supervision::tell(&actor, Closed { partition });
        }));
    }

    fn topic_config(&self, topic: &TopicName, configs: &BTreeMap<String, String>) -> TopicConfig {
        let mut defaults = self.start.topic_defaults.clone();
        if topic.is_internal() {
            // The coordinator decides what of it is still needed.
            (defaults.retention, defaults.retention_bytes) = (None, None);
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

    /// Makes or checks the directories on the pool; leaders start as each is ready.
    fn prepare(&self, partitions: Vec<(TopicPartition, Role)>, ctx: &mut Context<Self>) {
        for (partition, role) in partitions {
            let (disk, dir) = (self.start.shared.open.disk().clone(), self.dir(&partition));
            let (actor, topic_id) = (ctx.address(), role.topic_id);
            self.start.shared.runtime.background().run(move || {
                let prepare = || -> Result<(), String> {
                    disk.create_dir(&dir).map_err(|e| e.to_string())?;
                    match meta_properties::read_topic_id(&*disk, &dir).map_err(|e| e.to_string())? {
                        Some(id) if id == topic_id => Ok(()),
                        Some(id) => Err(format!(
                            "{} belongs to topic {id}, not {topic_id}",
                            dir.display()
                        )),
                        None => meta_properties::write_topic_id(&*disk, &dir, topic_id)
                            .map_err(|e| e.to_string()),
                    }
                };
                let result = prepare().and_then(|()| {
                    let parent = dir.parent().unwrap_or(&dir);
                    disk.sync_dir(parent).map_err(|e| e.to_string())
                });
                supervision::tell(
                    &actor,
                    Prepared {
                        partition,
                        role,
                        result,
                    },
                );
            });
        }
    }

    fn files(&self, partition: &TopicPartition) -> LogFiles {
        let shared = &self.start.shared;
        LogFiles {
            partition: partition.clone(),
            dir: self.dir(partition),
            open: shared.open.clone(),
            checkpoints: shared.checkpoints.clone(),
            outstanding: Outstanding::default(),
        }
    }

    fn start_duty(&mut self, partition: &TopicPartition, role: &Role, ctx: &mut Context<Self>) {
        match &role.duty {
            Duty::Lead(image) => self.start_leader(partition, role, image, ctx),
            Duty::Follow(leader, epoch) => {
                self.start_follower(partition, role, (*leader, *epoch), ctx)
            }
            Duty::Rest => {}
        }
    }

    fn start_follower(
        &mut self,
        partition: &TopicPartition,
        role: &Role,
        (leader, epoch): (BrokerId, LeaderEpoch),
        ctx: &mut Context<Self>,
    ) {
        let shared = self.start.shared.clone();
        let logger = shared
            .logger
            .new(o!("topic" => partition.topic.to_string(), "partition" => partition.partition));
        let Some(fetchers) = self.start.fetchers.clone() else {
            return error!(logger, "another node leads and this one has no certificates for other nodes";
                "leader" => %leader);
        };
        let alive = self.replicas.alive();
        let start = FollowerStart {
            files: self.files(partition),
            config: self.topic_config(&partition.topic, &role.configs),
            topic_id: role.topic_id,
            leader,
            epoch,
            broker_epoch: alive.get(&shared.broker).copied().unwrap_or(-1),
            fetchers,
            runtime: shared.runtime.clone(),
            clock: shared.clock.clone(),
            metrics: shared.metrics.clone(),
            logger: logger.clone(),
        };
        let name = format!("follower {partition}");
        let child = self.child(name, partition.clone(), logger, ctx);
        let actor = supervision::start(&self.start.worker, child, move |_| {
            FollowerActor::new(start.clone())
        });
        drop(self.doers.insert(partition.clone(), Doer::Follower(actor)));
    }

    fn start_leader(
        &mut self,
        partition: &TopicPartition,
        role: &Role,
        image: &PartitionImage,
        ctx: &mut Context<Self>,
    ) {
        let shared = self.start.shared.clone();
        let ends = watch::Sender::new(Ends::default());
        let logger = shared
            .logger
            .new(o!("topic" => partition.topic.to_string(), "partition" => partition.partition));
        let (controller, broker) = (self.start.controller.clone(), shared.broker);
        let of = (partition.clone(), role.topic_id, broker);
        let start = LeaderStart {
            files: self.files(partition),
            config: self.topic_config(&partition.topic, &role.configs),
            epoch: image.epoch,
            broker,
            partition: image.clone(),
            alive: self.replicas.alive().clone(),
            change_isr: change_isr(controller.clone(), of.clone()),
            new_epoch: new_epoch(controller, of),
            ends: ends.clone(),
            runtime: shared.runtime.clone(),
            clock: shared.clock.clone(),
            metrics: shared.metrics.clone(),
            logger: logger.clone(),
        };
        let name = format!("leader {partition}");
        let child = self.child(name, partition.clone(), logger, ctx);
        let actor = supervision::start(&self.start.worker, child, move |_| {
            LeaderActor::new(start.clone())
        });
        drop(
            self.doers
                .insert(partition.clone(), Doer::Leader(actor.clone())),
        );
        let leader = LeaderRef {
            actor,
            ends: ends.subscribe(),
            topic_id: role.topic_id,
        };
        self.start
            .shared
            .directory
            .update_leaders(vec![(partition.clone(), leader)], &[]);
        if partition.topic == TopicName::consumer_offsets() {
            self.start_coordinator(partition, ctx);
        }
    }

    fn start_coordinator(&mut self, partition: &TopicPartition, ctx: &mut Context<Self>) {
        let shared = &self.start.shared;
        let logger = shared.logger.new(o!("coordinator" => partition.partition));
        let start = CoordinatorStart {
            partition: partition.clone(),
            config: self.start.groups.clone(),
            rewrite_bytes: self.start.group_rewrite_bytes,
            directory: shared.directory.clone(),
            clock: shared.clock.clone(),
            logger: logger.clone(),
        };
        let child = self.child(
            format!("coordinator {}", partition.partition),
            partition.clone(),
            logger,
            ctx,
        );
        let actor = supervision::start(&self.start.worker, child, move |_| {
            CoordinatorActor::new(start.clone())
        });
        drop(self.coordinators.insert(partition.partition, actor.clone()));
        self.start
            .shared
            .directory
            .set_coordinator(partition.partition, Some(actor));
    }

    /// Permanent, 5 in 60 s; beyond that the partition goes offline here, and nothing else does.
    fn child(
        &self,
        name: String,
        partition: TopicPartition,
        logger: Logger,
        ctx: &mut Context<Self>,
    ) -> Child {
        let (metrics, parent) = (self.start.shared.metrics.clone(), ctx.address());
        Child {
            name,
            restart: Restart::Permanent,
            limit: RestartLimit::default(),
            clock: self.start.shared.clock.clone(),
            logger,
            on_restart: Box::new(move || {
                let _count = metrics.restarts.inc();
            }),
            on_exit: Box::new(move |exit| match exit {
                Exit::GaveUp(error) => supervision::tell(&parent, GaveUp { partition, error }),
                Exit::Finished => {}
            }),
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

    /// Removes the log of a partition that is not kept here any more.
    fn delete(&self, partition: &TopicPartition, topic_id: Uuid) {
        let shared = self.start.shared.clone();
        let (dir, disk) = (self.dir(partition), shared.open.disk().clone());
        // As Kafka names it; a crash in between leaves a directory that the next start removes.
        let doomed = dir.with_file_name(format!("{partition}.{topic_id}-delete"));
        let partition = partition.clone();
        self.start.shared.runtime.background().run(move || {
            shared.open.forget_below(&dir);
            shared.checkpoints.remove(&partition);
            let removed = disk
                .rename(&dir, &doomed)
                .and_then(|()| disk.remove_dir(&doomed));
            if let Err(error) = removed {
                warn!(shared.logger, "deleted topic's log was not removed"; "path" => %dir.display(), "error" => %error);
            }
        });
    }
}

/// Asks the controller for the next leader epoch of a partition.
fn new_epoch(
    controller: Addr<ControllerActor>,
    (partition, topic_id, broker): (TopicPartition, Uuid, BrokerId),
) -> NewEpoch {
    std::sync::Arc::new(move || {
        let (reply, answer) = oneshot::channel();
        let command = Command::NextLeaderEpoch {
            partition: partition.clone(),
            topic_id,
            broker,
        };
        supervision::tell(&controller, Propose { command, reply });
        async move {
            match answer.await {
                Ok(Ok(Outcome::LeaderEpoch(epoch))) => Some(epoch),
                Ok(_) | Err(_) => None,
            }
        }
        .boxed()
    })
}

/// Asks the controller to change who is in sync.
fn change_isr(
    controller: Addr<ControllerActor>,
    (partition, topic_id, leader): (TopicPartition, Uuid, BrokerId),
) -> ChangeIsr {
    std::sync::Arc::new(move |epoch, change| {
        let (reply, answer) = oneshot::channel();
        let command = Command::AlterIsr {
            topic_id,
            partition: partition.partition,
            leader,
            epoch,
            version: change.version,
            isr: change.isr,
        };
        supervision::tell(&controller, Propose { command, reply });
        async move { matches!(answer.await, Ok(Ok(_))) }.boxed()
    })
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
    }
}

impl Supervised for ReplicasActor {
    fn restarting(&mut self, _ctx: &mut Context<Self>) {
        // Leaders that run go on running; they are known by their addresses.
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
        if self.closing || !is_wanted || self.doers.contains_key(&partition) {
            return;
        }
        // What changed since is known already.
        let role = self.replicas.role(&partition).cloned().unwrap_or(role);
        match result {
            Ok(()) => self.start_duty(&partition, &role, ctx),
            Err(error) => {
                let _count = self.start.shared.metrics.offline_partitions.inc();
                error!(self.start.shared.logger, "partition is offline: its directory cannot be used";
                    "topic" => %partition.topic, "partition" => partition.partition, "error" => error);
            }
        }
    }
}

impl Handler<Closed> for ReplicasActor {
    type Result = ();

    fn handle(&mut self, Closed { partition }: Closed, ctx: &mut Context<Self>) {
        match self.ending.remove(&partition) {
            Some(After::Start(role)) if !self.closing => self.prepare(vec![(partition, role)], ctx),
            Some(After::Delete(topic_id)) => self.delete(&partition, topic_id),
            Some(After::Start(_) | After::Rest) | None => {}
        }
    }
}

impl Handler<GaveUp> for ReplicasActor {
    type Result = ();

    fn handle(&mut self, gave_up: GaveUp, _ctx: &mut Context<Self>) {
        let GaveUp { partition, error } = gave_up;
        if self.closing || !self.doers.contains_key(&partition) {
            return;
        }
        let _count = self.start.shared.metrics.offline_partitions.inc();
        error!(self.start.shared.logger, "partition is offline until the node is started again";
            "topic" => %partition.topic, "partition" => partition.partition, "error" => error);
        self.stop_coordinator(&partition);
        drop(self.doers.remove(&partition));
        self.start
            .shared
            .directory
            .update_leaders(Vec::new(), &[partition]);
    }
}

impl Handler<CloseAll> for ReplicasActor {
    type Result = ();

    fn handle(&mut self, close: CloseAll, ctx: &mut Context<Self>) {
        self.closing = true;
        for (number, coordinator) in std::mem::take(&mut self.coordinators) {
            self.start.shared.directory.set_coordinator(number, None);
            supervision::tell(&coordinator, Stop);
        }
        let mut closing = Vec::new();
        for (partition, doer) in std::mem::take(&mut self.doers) {
            closing.push((partition, doer.close()));
        }
        let all = async move {
            let mut unclean = Vec::new();
            for (partition, closed) in closing {
                if !matches!(closed.await, Ok(Ok(()))) {
                    unclean.push(partition);
                }
            }
            drop(close.reply.send(unclean));
        };
        ctx.wait(
            all.into_actor(self)
                .map(|(), _, ctx| supervision::finish(ctx)),
        );
    }
}
