//! What a follower shows to readers in its rack (KIP-392).

use actix::prelude::*;
use bytes::Bytes;
use callboard_common::Offset;

use super::actor::FollowerActor;
use crate::leader::Reading;
use crate::leader::actor::{Fetch, Fetched};
use crate::storage::StorageError;
use crate::supervision;

/// A read has found damage.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Damaged {
    incarnation: u64,
    offset: Offset,
}

impl FollowerActor {
    /// Tells readers what they may read, or that nothing can be read now.
    pub(super) fn show(&self) {
        let ends = self.state.as_ref().map(|open| open.follower.ends());
        ends.unwrap_or_default().show(&self.start.ends);
    }

    /// Reads for a consumer in this node's rack.
    fn read(&self, fetch: Fetch, limit: Offset, ctx: &Context<Self>) {
        let Some(open) = &self.state else { return };
        let (from, ends) = (Offset::new(fetch.from), open.follower.ends());
        let plan = open
            .log
            .plan_read(from, limit, fetch.max_bytes, fetch.at_least_one);
        let reading = Reading {
            plan,
            ends,
            reply: fetch.reply,
            permit: fetch.permit,
        };
        let (actor, incarnation) = (ctx.address(), self.incarnation);
        let failed = move |error: &StorageError| {
            if let StorageError::Damaged { offset, .. } = *error {
                let damaged = Damaged {
                    incarnation,
                    offset,
                };
                supervision::tell(&actor, damaged);
            }
        };
        let told = (&self.start.metrics, &self.start.logger);
        reading.start(self.start.runtime.background(), told, failed);
    }
}

impl Handler<Fetch> for FollowerActor {
    type Result = ();

    fn handle(&mut self, fetch: Fetch, ctx: &mut Context<Self>) {
        let Some(open) = &self.state else { return };
        let ends = open.follower.ends();
        match open.follower.readable(fetch.from, fetch.current_epoch) {
            Ok(Some(limit)) => self.read(fetch, limit, ctx),
            Ok(None) => {
                let batches = Bytes::new();
                drop(fetch.reply.send(Ok(Fetched { batches, ends })));
            }
            Err(error) => drop(fetch.reply.send(Err(error))),
        }
    }
}

impl Handler<Damaged> for FollowerActor {
    type Result = ();

    /// The log is opened anew, which sees what is noted of it and fetches it again.
    fn handle(&mut self, damaged: Damaged, ctx: &mut Context<Self>) {
        // What an earlier life read may be mended.
        if self.state.is_some() && damaged.incarnation == self.incarnation {
            self.start.files.outstanding.note_damage(damaged.offset);
            self.state = None;
            self.open(ctx);
        }
    }
}
