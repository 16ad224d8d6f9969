//! The shell of `replicas`: starts leaders and coordinators of one worker and stops them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use actix::prelude::*;
use callboard_common::runtime::Worker;
use callboard_common::{BrokerId, TopicName, TopicPartition, Uuid};
use futures::FutureExt;
use futures::stream;
use slog::{Logger, error, o, warn};
use tokio::sync::{oneshot, watch};

use super::state::{Effect, Effects, Replicas, Role};
use crate::controller::actor::{Propose, Published};
use crate::controller::{Command, ControllerActor, Outcome};
use crate::coordinator::actor::Stop;
use crate::coordinator::{CoordinatorActor, CoordinatorStart, GroupConfig};
use crate::directory::LeaderRef;
use crate::leader::actor::{Close, Configure};
use crate::leader::opening::NewEpoch;
use crate::leader::{Ends, LeaderActor, LeaderStart};
use crate::node::Shared;
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

/// See the module.
#[derive(Debug)]
pub struct ReplicasActor {
    start: ReplicasStart,
    replicas: Replicas,
    effects: Effects,
    leaders: BTreeMap<TopicPartition, (Addr<LeaderActor>, Uuid)>,
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
            leaders: BTreeMap::new(),
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
        self.replicas.follow(
            image.topics.iter().map(|(n, t)| (n, &**t)),
            &mut self.effects,
        );
        let (mut stopped, mut prepare) = (Vec::new(), Vec::new());
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Start { partition, role } => prepare.push((partition, role)),
                Effect::Delete {
                    partition,
                    topic_id,
                } => {
                    self.delete(&partition, topic_id);
                    stopped.push(partition);
                }
                Effect::Configure { partition, configs } => {
                    let config = self.topic_config(&partition.topic, &configs);
                    if let Some((leader, _)) = self.leaders.get(&partition) {
                        supervision::tell(leader, Configure(config));
                    }
                }
            }
        }
        self.start
            .shared
            .directory
            .update_leaders(Vec::new(), &stopped);
        self.prepare(prepare, ctx);
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

    fn start_leader(&mut self, partition: &TopicPartition, role: &Role, ctx: &mut Context<Self>) {
        let shared = self.start.shared.clone();
        let ends = watch::Sender::new(Ends::default());
        let logger = shared
            .logger
            .new(o!("topic" => partition.topic.to_string(), "partition" => partition.partition));
        let start = LeaderStart {
            files: LogFiles {
                partition: partition.clone(),
                dir: self.dir(partition),
                open: shared.open.clone(),
                checkpoints: shared.checkpoints.clone(),
                outstanding: Outstanding::default(),
            },
            config: self.topic_config(&partition.topic, &role.configs),
            epoch: role.epoch,
            new_epoch: new_epoch(
                self.start.controller.clone(),
                partition.clone(),
                role.topic_id,
                shared.broker,
            ),
            ends: ends.clone(),
            runtime: shared.runtime.clone(),
            clock: shared.clock.clone(),
            metrics: shared.metrics.clone(),
            logger: logger.clone(),
        };
        let child = self.child(
            format!("leader {partition}"),
            partition.clone(),
            logger,
            ctx,
        );
        let actor = supervision::start(&self.start.worker, child, move |_| {
            LeaderActor::new(start.clone())
        });
        drop(
            self.leaders
                .insert(partition.clone(), (actor.clone(), role.topic_id)),
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

    /// Ends the leader of a deleted topic and removes its log.
    fn delete(&mut self, partition: &TopicPartition, topic_id: Uuid) {
        self.stop_coordinator(partition);
        let closed = self.leaders.remove(partition).map(|(leader, _)| {
            let (reply, closed) = oneshot::channel();
            supervision::tell(&leader, Close { reply: Some(reply) });
            closed
        });
        let shared = self.start.shared.clone();
        let (dir, disk) = (self.dir(partition), shared.open.disk().clone());
        // As Kafka names it; a crash in between leaves a directory that the next start removes.
        let doomed = dir.with_file_name(format!("{partition}.{topic_id}-delete"));
        let partition = partition.clone();
        let remove = move || {
            shared.open.forget_below(&dir);
            shared.checkpoints.remove(&partition);
            let removed = disk
                .rename(&dir, &doomed)
                .and_then(|()| disk.remove_dir(&doomed));
            if let Err(error) = removed {
                warn!(shared.logger, "deleted topic's log was not removed"; "path" => %dir.display(), "error" => %error);
            }
        };
        let pool = self.start.shared.runtime.background().clone();
        drop(actix_rt::spawn(async move {
            if let Some(closed) = closed {
                // However it closed, the log is not needed any more.
                drop(closed.await);
            }
            let _done = pool.ask(remove).await;
        }));
    }
}

/// Asks the controller for the next leader epoch of a partition.
fn new_epoch(
    controller: Addr<ControllerActor>,
    partition: TopicPartition,
    topic_id: Uuid,
    broker: BrokerId,
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
        let image = self.start.published.image.load();
        let is_wanted = image
            .topics
            .get(&partition.topic)
            .is_some_and(|t| t.id == role.topic_id);
        if self.closing || !is_wanted {
            return;
        }
        match result {
            Ok(()) => self.start_leader(&partition, &role, ctx),
            Err(error) => {
                let _count = self.start.shared.metrics.offline_partitions.inc();
                error!(self.start.shared.logger, "partition is offline: its directory cannot be used";
                    "topic" => %partition.topic, "partition" => partition.partition, "error" => error);
            }
        }
    }
}

impl Handler<GaveUp> for ReplicasActor {
    type Result = ();

    fn handle(&mut self, gave_up: GaveUp, _ctx: &mut Context<Self>) {
        let GaveUp { partition, error } = gave_up;
        if self.closing || !self.leaders.contains_key(&partition) {
            return;
        }
        let _count = self.start.shared.metrics.offline_partitions.inc();
        error!(self.start.shared.logger, "partition is offline until the node is started again";
            "topic" => %partition.topic, "partition" => partition.partition, "error" => error);
        self.stop_coordinator(&partition);
        drop(self.leaders.remove(&partition));
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
        for (partition, (leader, _)) in std::mem::take(&mut self.leaders) {
            let (reply, closed) = oneshot::channel();
            supervision::tell(&leader, Close { reply: Some(reply) });
            closing.push((partition, closed));
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
