//! Making a leader's log durable: one sync in flight, the next one when the [`Pace`] says so.

use std::time::Duration;

use actix::prelude::*;
use callboard_common::{Monotonic, Offset};
use slog::error;

use super::actor::LeaderActor;
use super::pace::{PATIENCE, Pace};
use super::state::Input;
use crate::storage::{StorageError, sync};
use crate::supervision;

/// How far the syncs of an open log are.
#[derive(Debug, Default)]
pub(super) struct Syncing {
    pace: Pace,
    in_flight: bool,
    /// When a sync began to be wanted that has not begun.
    wanted_since: Option<Monotonic>,
    timer_is_set: bool,
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
struct SyncDone {
    incarnation: u64,
    end: Offset,
    took: Duration,
    result: Result<(), StorageError>,
}

impl LeaderActor {
    /// A batch wants to be durable.
    pub(super) fn sync_wanted(&mut self, ctx: &mut Context<Self>) {
        let now = self.start.clock.now().monotonic;
        let Some(open) = &mut self.state else { return };
        open.syncing.pace.arrived(now);
        self.sync(ctx, false);
    }

    /// Begins a sync, or notes that one is wanted.
    fn sync(&mut self, ctx: &mut Context<Self>, patience_ended: bool) {
        let now = self.start.clock.now().monotonic;
        let Some(open) = &mut self.state else { return };
        let since = *open.syncing.wanted_since.get_or_insert(now);
        if open.syncing.in_flight {
            return;
        }
        if !patience_ended && !open.syncing.pace.is_due() {
            return self.wait_for_more(since.after(PATIENCE), ctx);
        }
        open.syncing.wanted_since = None;
        let Some(request) = open.log.sync_request() else {
            return;
        };
        open.syncing.pace.begun(patience_ended);
        open.syncing.in_flight = true;
        let (actor, incarnation) = (ctx.address(), self.incarnation);
        let clock = self.start.clock.clone();
        sync::start(
            self.start.runtime.sync(),
            request,
            move |request, result| {
                let took = clock.now().monotonic.since(now);
                let end = request.end;
                let done = SyncDone {
                    incarnation,
                    end,
                    took,
                    result,
                };
                supervision::tell(&actor, done);
            },
        );
    }

    /// Asks again at `deadline`, unless that will be asked anyway.
    fn wait_for_more(&mut self, deadline: Monotonic, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        if std::mem::replace(&mut open.syncing.timer_is_set, true) {
            return;
        }
        let incarnation = self.incarnation;
        let sleep = self.start.clock.sleep_until(deadline);
        let _timer = ctx.spawn(sleep.into_actor(self).map(move |(), actor, ctx| {
            if actor.incarnation == incarnation {
                actor.waited(ctx);
            }
        }));
    }

    fn waited(&mut self, ctx: &mut Context<Self>) {
        let now = self.start.clock.now().monotonic;
        let Some(open) = &mut self.state else { return };
        open.syncing.timer_is_set = false;
        match open.syncing.wanted_since {
            Some(_) if open.syncing.in_flight => {}
            // The timer was set for an earlier sync.
            Some(since) if now < since.after(PATIENCE) => {
                self.wait_for_more(since.after(PATIENCE), ctx);
            }
            Some(_) => self.sync(ctx, true),
            None => {}
        }
    }
}

impl Handler<SyncDone> for LeaderActor {
    type Result = ();

    fn handle(&mut self, done: SyncDone, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        if done.incarnation != self.incarnation {
            return;
        }
        self.start
            .metrics
            .sync_seconds
            .observe(done.took.as_secs_f64());
        if let Err(error) = done.result {
            // The page cache lies from now on: the opening believes nothing above the synced end.
            let _count = self.start.metrics.failed_syncs.inc();
            error!(self.start.logger, "sync failed; the log is cut to its synced end"; "error" => %error);
            return supervision::fail(ctx);
        }
        open.syncing.in_flight = false;
        open.log.synced(done.end);
        if let Some(since) = &mut open.syncing.wanted_since {
            // Patience begins when the sync could.
            *since = self.start.clock.now().monotonic;
            self.sync(ctx, false);
        }
        self.step(Input::Synced { end: done.end }, ctx);
        self.checkpoint(ctx);
    }
}
