//! What a leader has done beside its work: checkpoints, and old segments removed, on the pool.

use actix::prelude::*;
use slog::{error, warn};

use super::actor::LeaderActor;
use crate::storage::StorageError;
use crate::supervision;

#[derive(Debug, Message)]
#[rtype(result = "()")]
struct BackgroundFailed {
    incarnation: u64,
    error: StorageError,
}

impl LeaderActor {
    /// Makes the new start durable and removes what lies below it, on the pool.
    pub(super) fn remove(
        &self,
        removal: Option<crate::storage::log::Removal>,
        ctx: &mut Context<Self>,
        done: impl FnOnce() + Send + 'static,
    ) {
        let checkpoints = self.start.files.checkpoints.clone();
        let (actor, incarnation) = (ctx.address(), self.incarnation);
        let dir = self.start.files.dir.clone();
        self.start.runtime.background().run(move || {
            let removed = match removal {
                Some(removal) => removal.run(),
                None => checkpoints
                    .write()
                    .map_err(StorageError::io("writing the checkpoints of", &dir)),
            };
            match removed {
                Ok(()) => done(),
                Err(error) => supervision::tell(&actor, BackgroundFailed { incarnation, error }),
            }
        });
    }

    /// Brings the recovery point up when enough was appended.
    pub(super) fn checkpoint(&mut self, ctx: &mut Context<Self>) {
        let Some(open) = &mut self.state else { return };
        if !open.log.checkpoint_due() {
            return;
        }
        let high_watermark = open.leader.ends().high_watermark;
        match open.log.checkpoint(high_watermark, open.leader.producers()) {
            Ok(snapshot) => {
                let logger = self.start.logger.clone();
                self.start.runtime.background().run(move || {
                    if let Err(error) = snapshot.write() {
                        // The next recovery reads more; nothing else depends on it.
                        warn!(logger, "checkpoint failed"; "error" => %error);
                    }
                });
            }
            Err(StorageError::Full { path }) => {
                warn!(self.start.logger, "the disk is full, no checkpoint is made"; "path" => %path.display());
            }
            Err(error) => {
                error!(self.start.logger, "leader fails"; "error" => %error);
                supervision::fail(ctx);
            }
        }
    }
}

impl Handler<BackgroundFailed> for LeaderActor {
    type Result = ();

    fn handle(&mut self, failed: BackgroundFailed, ctx: &mut Context<Self>) {
        if let StorageError::Full { path } = &failed.error {
            // The partition serves on; the next retention tries again.
            warn!(self.start.logger, "the disk is full, nothing is removed"; "path" => %path.display());
        } else if failed.incarnation == self.incarnation {
            error!(self.start.logger, "leader fails"; "error" => %failed.error);
            supervision::fail(ctx);
        }
    }
}
