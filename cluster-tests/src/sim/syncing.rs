//! One sync of a log under way, and the next one when it has ended: as leaders and followers do it.

use callboard_broker::storage::sync::SyncRequest;
use callboard_broker::storage::{Log, StorageError};
use callboard_common::Offset;

use super::context::{Cx, Files};
use super::event::OfPartition;

/// How far the syncs of an open log are.
#[derive(Debug, Default)]
pub struct Syncing {
    under_way: Option<SyncRequest>,
    is_wanted: bool,
}

impl Syncing {
    /// The log is to be durable up to its end: at once, or after the sync that is under way.
    pub fn want(&mut self, log: &mut Log, files: &Files, cx: &mut Cx<'_>) {
        self.is_wanted = true;
        if self.under_way.is_some() {
            return;
        }
        self.is_wanted = false;
        self.under_way = log.sync_request();
        if self.under_way.is_some() {
            let time = cx.hub.sync_time(cx.node);
            files.later(cx, time, OfPartition::Synced);
        }
    }

    /// The sync that is under way has ended: everything below the offset is durable. Nothing, if there was none.
    ///
    /// # Errors
    ///
    /// What the disk says; the log must be opened anew.
    pub fn ended(
        &mut self,
        log: &mut Log,
        files: &Files,
        cx: &mut Cx<'_>,
    ) -> Result<Option<Offset>, StorageError> {
        let Some(request) = self.under_way.take() else {
            return Ok(None);
        };
        request.run()?;
        let end = request.end;
        drop(request);
        log.synced(end);
        if self.is_wanted {
            self.want(log, files, cx);
        }
        Ok(Some(end))
    }

    /// Ends what is under way, because the next life waits for it. A failure is remembered by what the lives share.
    pub fn settle(&mut self) {
        if let Some(request) = self.under_way.take() {
            let _result = request.run();
        }
    }
}
