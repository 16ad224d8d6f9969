//! A read that was let in, of a leader or a follower: on the worker or on the pool, then the answer.

use callboard_common::runtime::Pool;
use slog::{Logger, error};

use super::ends::Ends;
use super::error::FetchError;
use super::messages::{Fetched, Reply};
use crate::metrics::Metrics;
use crate::storage::{ReadPlan, StorageError, read};
use crate::supervision::Permit;

/// What is read, and for whom.
#[derive(Debug)]
pub(crate) struct Reading {
    /// What.
    pub(crate) plan: ReadPlan,
    /// The log's ends, for the answer.
    pub(crate) ends: Ends,
    /// Where the answer goes.
    pub(crate) reply: Reply<Fetched, FetchError>,
    /// The request's credits.
    pub(crate) permit: Permit,
}

impl Reading {
    /// Reads at once if it is little and in memory, else on the pool, and answers; `failed` hears first of what the disk says.
    pub(crate) fn start(
        self,
        pool: &Pool,
        (metrics, logger): (&Metrics, &Logger),
        failed: impl FnOnce(&StorageError) + Send + 'static,
    ) {
        let (metrics, logger) = (metrics.clone(), logger.clone());
        let (ends, reply, permit) = (self.ends, self.reply, self.permit);
        read::start(self.plan, pool, move |result| {
            let _credits = permit;
            let result = result
                .map(|batches| Fetched { batches, ends })
                .map_err(|error| {
                    let _count = metrics.damaged_reads.inc();
                    error!(logger, "log cannot be read"; "error" => %error);
                    failed(&error);
                    FetchError::Storage(error.to_string())
                });
            // Who asked may have gone away.
            drop(reply.send(result));
        });
    }
}
