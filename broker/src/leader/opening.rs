//! How a leader begins each of its lives: a new reign, then the log, recovered on the pool.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::prelude::*;
use callboard_common::runtime::Runtime;
use callboard_common::{BrokerId, Clock, LeaderEpoch, Uuid};
use futures::future::BoxFuture;
use slog::{Logger, error, info, warn};
use tokio::sync::watch;

use super::actor::{LeaderActor, Open};
use super::ends::Ends;
use super::replication::{IsrChange, Replication};
use super::state::{Effects, Leader};
use super::syncing::Syncing;
use crate::controller::{Command, PartitionImage};
use crate::metrics::Metrics;
use crate::storage::log::Opened;
use crate::storage::{Log, LogFiles, StorageError};
use crate::supervision;
use crate::topic_config::TopicConfig;

/// Takes a new leader epoch from the controller.
pub type NewEpoch = Arc<dyn Fn() -> BoxFuture<'static, Option<LeaderEpoch>> + Send + Sync>;

/// Asks the controller to change who is in sync, in a reign; answers whether that was done.
pub type ChangeIsr = Arc<dyn Fn(LeaderEpoch, IsrChange) -> BoxFuture<'static, bool> + Send + Sync>;

/// What a replica is without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Some of its records: it does not count as whole any more.
    Records,
    /// Space for more of them.
    Space,
    /// Certainty: its log was cut, and another one has more, which nobody need have committed.
    Certainty,
}

impl Loss {
    /// What the controller is asked for.
    #[must_use]
    pub fn command(self, topic_id: Uuid, partition: i32, broker: BrokerId) -> Command {
        match self {
            Self::Records => Command::LoseReplica {
                topic_id,
                partition,
                broker,
            },
            Self::Space | Self::Certainty => Command::StepAside {
                topic_id,
                partition,
                broker,
            },
        }
    }
}

/// Tells the controller what this replica is without; answers whether others are whole, so that it may fetch anew what it
/// lacks.
pub type LoseReplica = Arc<dyn Fn(Loss) -> BoxFuture<'static, bool> + Send + Sync>;

/// What a leader is started with.
#[derive(Clone)]
pub struct LeaderStart {
    /// Where its log is.
    pub files: LogFiles,
    /// Its topic's settings.
    pub config: TopicConfig,
    /// The reign that metadata gave it.
    pub epoch: LeaderEpoch,
    /// This node.
    pub broker: BrokerId,
    /// The partition's replicas.
    pub partition: PartitionImage,
    /// Incarnations of the nodes that are alive.
    pub alive: BTreeMap<BrokerId, i64>,
    /// How it asks the controller to change who is in sync; answers whether that was done.
    pub change_isr: ChangeIsr,
    /// How a restarted leader gets a new reign.
    pub new_epoch: NewEpoch,
    /// Gives the leadership up when the log is damaged.
    pub lose_replica: LoseReplica,
    /// Where its readers watch its ends.
    pub ends: watch::Sender<Ends>,
    /// Pools.
    pub runtime: Runtime,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
    /// The log.
    pub logger: Logger,
}

impl std::fmt::Debug for LeaderStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaderStart")
            .field("partition", &self.files.partition)
            .finish_non_exhaustive()
    }
}

impl LeaderActor {
    /// Begins the first life, or one after a failure: nothing is accepted any more in the reign of that one.
    pub(super) fn open(&mut self, ctx: &mut Context<Self>) {
        let is_first = self.incarnation == 0;
        self.open_in(is_first, ctx);
    }

    /// Closes the log, in which nothing was wrong, and opens it in the reign that the metadata gave. Who waits asks
    /// again.
    pub(super) fn reopen(&mut self, ctx: &mut Context<Self>) {
        self.start.ends.send_modify(|ends| ends.epoch = None);
        let Some(Open { log, leader, .. }) = self.state.take() else {
            return;
        };
        let high_watermark = leader.ends().high_watermark;
        let pool = self.start.runtime.background().clone();
        let closing = async move {
            pool.ask(move || log.close(high_watermark, leader.producers()))
                .await
        };
        ctx.wait(
            closing
                .into_actor(self)
                .map(|_recovered_if_not, actor, ctx| actor.open_in(true, ctx)),
        );
    }

    fn open_in(&mut self, epoch_is_given: bool, ctx: &mut Context<Self>) {
        let start = self.start.clone();
        self.incarnation += 1;
        let opening = async move {
            let epoch = if epoch_is_given {
                Some(start.epoch)
            } else {
                (start.new_epoch)().await
            };
            // Without a new reign nothing may be accepted: the controller will say who leads.
            let epoch = epoch.ok_or_else(|| "the controller gave no leader epoch".to_owned())?;
            let (files, config) = (start.files, start.config);
            let opened = start.runtime.background().ask(move || {
                let mut opened = Log::open(files, config)?;
                opened.log.begin_epoch(epoch);
                Ok::<_, StorageError>(opened)
            });
            match opened.await {
                Some(Ok(opened)) => Ok((epoch, opened)),
                Some(Err(error)) => Err(error.to_string()),
                None => Err("opening the log panicked".to_owned()),
            }
        };
        ctx.wait(
            opening
                .into_actor(self)
                .map(|opened, actor, ctx| match opened {
                    Ok((epoch, opened)) => actor.opened(epoch, opened, ctx),
                    Err(error) => {
                        error!(actor.start.logger, "log cannot be opened"; "error" => error);
                        supervision::fail(ctx);
                    }
                }),
        );
    }

    pub(super) fn opened(&mut self, epoch: LeaderEpoch, opened: Opened, ctx: &mut Context<Self>) {
        let Opened {
            log,
            producers,
            quarantined,
            damaged,
        } = opened;
        for part in &quarantined {
            self.start.metrics.quarantined_bytes.inc_by(part.size_bytes);
            warn!(self.start.logger, "unsynced end of the log moved to quarantine"; "path" => %part.path.display(),
                "size_bytes" => part.size_bytes, "log_end" => %part.log_end, "reason" => &part.reason);
        }
        for damage in &damaged {
            let _count = self.start.metrics.damaged_reads.inc();
            error!(self.start.logger, "log is damaged; reads that reach it fail, the rest is served"; "error" => %damage);
            self.damaged()(damage);
        }
        info!(self.start.logger, "leads"; "leader_epoch" => %epoch, "log_start" => %log.log_start(), "log_end" => %log.log_end());
        let now = self.start.clock.now();
        let config = log.config().clone();
        let leader = Leader::new(
            now,
            epoch,
            config,
            (log.log_start(), log.high_watermark(), log.log_end()),
            producers,
            Replication::new(
                now.monotonic,
                self.start.broker,
                self.start.partition.clone(),
                self.start.alive.clone(),
                log.log_end(),
            ),
        );
        self.state = Some(Open {
            log,
            leader,
            effects: Effects::new(),
            producers: BTreeMap::new(),
            readers: BTreeMap::new(),
            deleters: BTreeMap::new(),
            next_ticket: 0,
            syncing: Syncing::default(),
        });
        if self.start.partition.epoch > epoch {
            // Meanwhile the metadata began another reign.
            self.start.epoch = self.start.partition.epoch;
            return self.reopen(ctx);
        }
        if self
            .state
            .as_ref()
            .is_some_and(|open| open.log.is_in_doubt())
        {
            warn!(
                self.start.logger,
                "the end of the log was cut: it serves once another replica was heard of"
            );
            return self.begin_in_doubt(ctx);
        }
        self.settle(ctx);
    }
}
