//! The door to durability: "make this log durable up to here, tell me when".
//!
//! One sync is in flight per log and covers the end captured before it began; what is appended meanwhile shares
//! the next one (group commit). Several logs sync side by side.

use std::path::PathBuf;
use std::sync::Arc;

use callboard_common::Offset;
use callboard_common::runtime::Pool;

use super::{Disk, File, StorageError};

/// What to make durable, in this order: closed segments before the newest, then the directory's names.
#[derive(Debug)]
pub struct SyncRequest {
    pub(super) files: Vec<(PathBuf, Arc<dyn File>)>,
    pub(super) dir: Option<(PathBuf, Arc<dyn Disk>)>,
    /// Records below this offset are durable afterwards.
    pub end: Offset,
}

impl SyncRequest {
    /// Syncs. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says. Nothing is known then of what was not durable before: never try again.
    pub fn run(&self) -> Result<(), StorageError> {
        for (path, file) in &self.files {
            file.sync().map_err(StorageError::io("syncing", path))?;
        }
        if let Some((dir, disk)) = &self.dir {
            disk.sync_dir(dir)
                .map_err(StorageError::io("syncing", dir))?;
        }
        Ok(())
    }
}

/// Runs `request` on the sync pool and tells `done` how it went.
pub fn start(
    pool: &Pool,
    request: SyncRequest,
    done: impl FnOnce(SyncRequest, Result<(), StorageError>) + Send + 'static,
) {
    pool.run(move || {
        let result = request.run();
        done(request, result);
    });
}
