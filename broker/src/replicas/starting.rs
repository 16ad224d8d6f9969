//! How the actors of a partition are started, and what they may ask of the controller.

use std::time::Duration;

use actix::prelude::*;
use callboard_common::{BrokerId, LeaderEpoch, TopicName, TopicPartition, Uuid};
use futures::FutureExt;
use slog::{Logger, error, o};
use tokio::sync::watch;

use super::actor::{GaveUp, ReplicasActor};
use super::state::{Duty, Role};
use crate::controller::actor::propose;
use crate::controller::{Command, ControllerActor, Outcome, PartitionImage, READ_LEASE};
use crate::coordinator::{CoordinatorActor, CoordinatorStart};
use crate::directory::{Replica, ReplicaRef};
use crate::follower::{FollowerActor, FollowerStart};
use crate::leader::opening::{ChangeIsr, LoseReplica, NewEpoch};
use crate::leader::{Ends, LeaderActor, LeaderStart};
use crate::supervision::{self, Child, Exit, Restart, RestartLimit};

impl ReplicasActor {
    pub(super) fn start_duty(
        &mut self,
        partition: &TopicPartition,
        role: &Role,
        ctx: &mut Context<Self>,
    ) {
        match &role.duty {
            Duty::Lead(image) => self.start_leader(partition, role, image, ctx),
            Duty::Follow(leader, epoch) => {
                self.start_follower(partition, role, (*leader, *epoch), ctx)
            }
            Duty::Rest => {}
        }
    }

    fn logger_of(&self, partition: &TopicPartition) -> Logger {
        let (topic, number) = (partition.topic.to_string(), partition.partition);
        let logger = &self.start.shared.logger;
        logger.new(o!("topic" => topic, "partition" => number))
    }

    fn start_follower(
        &mut self,
        partition: &TopicPartition,
        role: &Role,
        (leader, epoch): (BrokerId, LeaderEpoch),
        ctx: &mut Context<Self>,
    ) {
        let shared = self.start.shared.clone();
        let logger = self.logger_of(partition);
        let Some(fetchers) = self.start.fetchers.clone() else {
            return error!(logger, "another node leads and this one has no certificates for other nodes";
                "leader" => %leader);
        };
        let image = self.start.published.image.load();
        let registered = image.brokers.get(&shared.broker);
        let ends = watch::Sender::new(Ends::default());
        let start = FollowerStart {
            files: self.files(partition),
            config: self.topic_config(&partition.topic, &role.configs),
            topic_id: role.topic_id,
            leader,
            epoch,
            // As registered: the node may be fenced just now.
            broker_epoch: registered.map_or(-1, |b| b.epoch),
            fetchers,
            ends: ends.clone(),
            lose_replica: lose_replica(
                self.start.controller.clone(),
                (partition.clone(), role.topic_id, shared.broker),
            ),
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
        let follower = ReplicaRef {
            actor,
            ends: ends.subscribe(),
            topic_id: role.topic_id,
        };
        self.begins(partition, Replica::Follower(follower), ctx);
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
        let logger = self.logger_of(partition);
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
            new_epoch: new_epoch(controller.clone(), of.clone()),
            lose_replica: lose_replica(controller, of),
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
        let leader = ReplicaRef {
            actor,
            ends: ends.subscribe(),
            topic_id: role.topic_id,
        };
        self.begins(partition, Replica::Leader(leader), ctx);
        if partition.topic == TopicName::consumer_offsets() {
            self.start_coordinator(partition, role.is_contested, ctx);
        }
    }

    fn start_coordinator(
        &mut self,
        partition: &TopicPartition,
        is_contested: bool,
        ctx: &mut Context<Self>,
    ) {
        let shared = &self.start.shared;
        let logger = shared.logger.new(o!("coordinator" => partition.partition));
        let start = CoordinatorStart {
            partition: partition.clone(),
            serves_from: shared.clock.now().monotonic.after(match is_contested {
                true => READ_LEASE,
                false => Duration::ZERO,
            }),
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
}

/// Asks the controller for the next leader epoch of a partition.
fn new_epoch(
    controller: Addr<ControllerActor>,
    (partition, topic_id, broker): (TopicPartition, Uuid, BrokerId),
) -> NewEpoch {
    std::sync::Arc::new(move || {
        let command = Command::NextLeaderEpoch {
            partition: partition.clone(),
            topic_id,
            broker,
        };
        let answer = propose(&controller, command);
        async move {
            match answer.await {
                Ok(Outcome::LeaderEpoch(epoch)) => Some(epoch),
                Ok(_) | Err(_) => None,
            }
        }
        .boxed()
    })
}

/// Tells the controller what this replica is without.
pub(super) fn lose_replica(
    controller: Addr<ControllerActor>,
    (partition, topic_id, broker): (TopicPartition, Uuid, BrokerId),
) -> LoseReplica {
    let partition = partition.partition;
    std::sync::Arc::new(move |loss| {
        let command = loss.command(topic_id, partition, broker);
        let answer = propose(&controller, command);
        async move { answer.await.is_ok() }.boxed()
    })
}

/// Asks the controller to change who is in sync.
fn change_isr(
    controller: Addr<ControllerActor>,
    (partition, topic_id, leader): (TopicPartition, Uuid, BrokerId),
) -> ChangeIsr {
    std::sync::Arc::new(move |epoch, change| {
        let command = Command::AlterIsr {
            topic_id,
            partition: partition.partition,
            leader,
            epoch,
            version: change.version,
            isr: change.isr,
        };
        let answer = propose(&controller, command);
        async move { answer.await.is_ok() }.boxed()
    })
}
