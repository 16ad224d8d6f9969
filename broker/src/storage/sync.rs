//! The door to durability: "make this log durable up to here, tell me when".
//!
//! One sync is in flight per log and covers the end captured before it began; what is appended meanwhile shares
//! the next one (group commit). Several logs sync side by side.

use std::path::PathBuf;
use std::sync::Arc;

use callboard_common::Offset;
use callboard_common::runtime::Pool;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{Disk, File, StorageError};
use crate::planted::{self, Bug};

/// What a partition has running on the pools, over all lives of its leader; clones share it.
///
/// A closing or a new life waits for what the last one began. A failed sync is remembered here, whoever hears of
/// it: Linux tells the error once, and a second sync of the same file would say that all is well.
#[derive(Clone, Debug, Default)]
pub struct Outstanding(Arc<(Mutex<Work>, Condvar)>, Arc<Mutex<()>>);

#[derive(Debug, Default)]
struct Work {
    running: usize,
    cut_at: Option<Offset>,
    /// Where a read found the log damaged.
    damaged_at: Option<Offset>,
}

impl Outstanding {
    /// Notes work that runs until the guard is dropped.
    #[must_use]
    pub(super) fn begin(&self) -> Running {
        self.0.0.lock().running += 1;
        Running(self.clone())
    }

    /// Notes that nothing from `synced_end` on is known to be durable.
    pub fn sync_failed(&self, synced_end: Offset) {
        let mut work = self.0.0.lock();
        work.cut_at = Some(work.cut_at.map_or(synced_end, |cut| cut.min(synced_end)));
    }

    /// Notes that nothing from `end` on is to be kept.
    pub(super) fn cut(&self, end: Offset) {
        self.sync_failed(end);
    }

    /// Waits until nothing runs; answers where the log is to be cut if a sync failed. Blocks.
    #[must_use]
    pub fn settled(&self) -> Option<Offset> {
        let mut work = self.0.0.lock();
        self.0.1.wait_while(&mut work, |work| work.running > 0);
        work.cut_at
    }

    /// Notes that the log was cut, if it was to be. Damage that is still in it stays noted.
    pub(super) fn was_cut(&self) {
        let mut work = self.0.0.lock();
        if let Some(cut) = work.cut_at.take() {
            work.damaged_at = work.damaged_at.filter(|at| *at < cut);
        }
    }

    /// Notes that what is at this offset and above cannot be trusted.
    pub fn note_damage(&self, offset: Offset) {
        let mut work = self.0.0.lock();
        work.damaged_at = Some(work.damaged_at.map_or(offset, |at| at.min(offset)));
    }

    /// Where a read found damage that was not cut off since.
    #[must_use]
    pub fn damage(&self) -> Option<Offset> {
        self.0.0.lock().damaged_at
    }
}

/// Work that runs; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Running(Outstanding);

impl Running {
    /// Waits until nobody else of this partition writes a snapshot.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.1.lock()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (work, settled) = &*(self.0).0;
        work.lock().running -= 1;
        let _woken = settled.notify_all();
    }
}

/// What to make durable, in this order: closed segments before the newest, then the directory's names.
#[derive(Debug)]
pub struct SyncRequest {
    pub(super) files: Vec<(PathBuf, Arc<dyn File>)>,
    pub(super) dir: Option<(PathBuf, Arc<dyn Disk>)>,
    /// What was durable before.
    pub(super) synced_end: Offset,
    pub(super) running: Running,
    /// Records below this offset are durable afterwards.
    pub end: Offset,
}

impl SyncRequest {
    /// Syncs. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says. Nothing is known then of what was not durable before: never try again. The partition
    /// remembers it, and its log is cut when it is opened the next time.
    pub fn run(&self) -> Result<(), StorageError> {
        let mut synced = self.sync();
        if planted::is(Bug::RetriedSync) {
            synced = synced.or_else(|_| self.sync());
        }
        if synced.is_err() {
            self.running.0.sync_failed(self.synced_end);
        }
        synced
    }

    fn sync(&self) -> Result<(), StorageError> {
        for (path, file) in &self.files {
            file.sync().map_err(StorageError::io("syncing", path))?;
        }
        if let Some((dir, disk)) = &self.dir
            && !planted::is(Bug::DirectoryNotSynced)
        {
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
    if planted::is(Bug::SyncNotAwaited) {
        return done(request, Ok(()));
    }
    pool.run(move || {
        let result = request.run();
        done(request, result);
    });
}
