//! The shell of a leader towards its followers and the controller.

use actix::prelude::*;
use slog::{debug, info};
use tokio::sync::oneshot;

use super::actor::LeaderActor;
use super::messages::{Replicate, Replicated, UpdateReplicas};
use super::opening::Loss;
use super::replication::IsrChange;
use super::state::Input;
use crate::storage::{StorageError, producer_snapshot};
use crate::supervision::Permit;

impl LeaderActor {
    /// What is done when damage is found: if another replica is whole it leads from then on, and this one fetches from
    /// it what it lacks.
    pub(super) fn damaged(&self) -> impl FnOnce(&StorageError) + Send + use<> {
        let outstanding = self.start.files.outstanding.clone();
        let give_up = self.giving_up(Loss::Records);
        move |error| {
            if let StorageError::Damaged { offset, .. } = *error {
                outstanding.note_damage(offset);
                give_up();
            }
        }
    }

    /// If another replica is whole it leads from now on.
    pub(super) fn give_up(&self, loss: Loss) {
        self.giving_up(loss)();
    }

    fn giving_up(&self, loss: Loss) -> impl FnOnce() + Send + use<> {
        let (lose, runtime) = (self.start.lose_replica.clone(), self.start.runtime.clone());
        let partition = &self.start.partition;
        let has_others = partition.isr.len() + partition.elr.len() > 1;
        move || {
            if has_others {
                let told = move || drop(actix_rt::spawn(lose(loss)));
                let _alive: bool = runtime.control().run(told);
            }
        }
    }

    /// Whether the log is not in doubt, now that a follower has said where its own ends.
    fn is_settled(&mut self, replicate: &Replicate, ctx: &mut Context<Self>) -> bool {
        let in_doubt = |actor: &Self| {
            let open = actor.state.as_ref();
            open.is_some_and(|open| open.leader.ends().in_doubt == Some(replicate.epoch))
        };
        if in_doubt(self)
            && let Some(open) = &self.state
        {
            let ours = (open.log.last_epoch(), open.log.log_end());
            let compared = Input::Compared {
                replica: replicate.replica,
                broker_epoch: replicate.broker_epoch,
                theirs: (replicate.last_epoch, replicate.end),
                ours,
            };
            self.step(compared, ctx);
        }
        !in_doubt(self)
    }

    /// Asks the controller to change who is in sync.
    pub(super) fn change_isr(&self, change: IsrChange, ctx: &mut Context<Self>) {
        let Some(open) = &self.state else { return };
        info!(self.start.logger, "asks for other in-sync replicas"; "isr" => ?change.isr);
        let incarnation = self.incarnation;
        let version = change.version;
        let asked = (self.start.change_isr)(open.leader.epoch(), change);
        let _running = ctx.spawn(asked.into_actor(self).map(move |done, actor, ctx| {
            // What was done comes back with the metadata.
            if !done && actor.incarnation == incarnation {
                actor.step(Input::IsrRefused(version), ctx);
            }
        }));
    }
}

impl Handler<Replicate> for LeaderActor {
    type Result = ();

    fn handle(&mut self, replicate: Replicate, ctx: &mut Context<Self>) {
        if !self.is_settled(&replicate, ctx) {
            return;
        }
        let Some(open) = &self.state else { return };
        let (epoch, log_start) = (open.leader.epoch(), open.log.log_start());
        let answer = if replicate.epoch != epoch || !open.leader.is_replica(replicate.replica) {
            Some(Replicated::Fenced(epoch))
        } else if replicate.end < log_start {
            let producers = open.leader.producers().up_to(log_start.get());
            let producers = producer_snapshot::encode(&producers).into();
            Some(Replicated::TooOld(log_start, producers))
        } else {
            let last = replicate.last_epoch;
            let diverged = last.and_then(|e| open.log.divergence(e, replicate.end));
            diverged.map(|(epoch, end)| Replicated::Diverged(epoch, end))
        };
        if let Some(answer) = answer {
            debug!(self.start.logger, "follower is told"; "replica" => %replicate.replica, "answer" => ?answer);
            drop(replicate.reply.send(answer));
            return;
        }
        let followed = Input::Followed {
            replica: replicate.replica,
            broker_epoch: replicate.broker_epoch,
            end: replicate.end,
            synced: replicate.synced,
        };
        self.step(followed, ctx);
        let Some(open) = &self.state else { return };
        let ends = open.leader.ends();
        if replicate.end >= ends.log_end {
            drop(replicate.reply.send(Replicated::Nothing(ends)));
            return;
        }
        let plan = open
            .log
            .plan_read(replicate.end, ends.log_end, replicate.max_bytes, true);
        let (read, records) = oneshot::channel();
        self.read(plan, ends, read, Permit::internal());
        drop(replicate.reply.send(Replicated::Records(records)));
    }
}

impl Handler<UpdateReplicas> for LeaderActor {
    type Result = ();

    fn handle(&mut self, update: UpdateReplicas, ctx: &mut Context<Self>) {
        let UpdateReplicas { partition, alive } = update;
        (self.start.partition, self.start.alive) = (partition.clone(), alive.clone());
        let current = self.state.as_ref().map(|open| open.leader.epoch());
        if current.is_some_and(|current| partition.epoch > current) {
            // The same node was elected again: the reign is another one all the same.
            self.start.epoch = partition.epoch;
            return self.reopen(ctx);
        }
        let partition = Box::new(partition);
        self.step(Input::Replicated { partition, alive }, ctx);
    }
}
