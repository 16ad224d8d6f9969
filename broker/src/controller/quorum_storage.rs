//! What raft-rs reads: entries in memory, and the newest image for members that are too far behind.

use std::sync::Arc;

use parking_lot::Mutex;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::storage::MemStorage;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::raft_wire::{Quorum, RaftSnapshot};
use super::records::encode;
use super::state::SavedImage;

/// Entries and the newest saved image.
#[derive(Clone, Default)]
pub(super) struct QuorumStorage {
    memory: MemStorage,
    saved: Arc<Mutex<Option<SavedImage>>>,
}

impl QuorumStorage {
    /// Begins with a saved image, or with nothing and this quorum.
    pub(super) fn new(saved: Option<SavedImage>, quorum: &Quorum) -> raft::Result<Self> {
        let storage = Self::default();
        match saved.filter(|s| s.image.applied > 0) {
            Some(saved) => storage.replace(saved)?,
            None => storage.set_quorum(quorum.into()),
        }
        Ok(storage)
    }

    /// Replaces everything up to the image's last command, and what follows too.
    pub(super) fn replace(&self, saved: SavedImage) -> raft::Result<()> {
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (saved.image.applied, saved.term);
        *metadata.mut_conf_state() = (&saved.quorum).into();
        self.memory.wl().apply_snapshot(snapshot)?;
        *self.saved.lock() = Some(saved);
        Ok(())
    }

    /// Lets entries go that an image has.
    pub(super) fn compact(&self, saved: SavedImage) -> raft::Result<()> {
        let index = saved.image.applied;
        *self.saved.lock() = Some(saved);
        self.memory.wl().compact(index)
    }

    pub(super) fn append(&self, entries: &[Entry]) -> raft::Result<()> {
        self.memory.wl().append(entries)
    }

    pub(super) fn set_hard_state(&self, state: HardState) {
        self.memory.wl().set_hardstate(state);
    }

    pub(super) fn set_quorum(&self, state: ConfState) {
        self.memory.wl().set_conf_state(state);
    }
}

impl Storage for QuorumStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        self.memory.initial_state()
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        self.memory.entries(low, high, max_size, context)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.memory.term(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        self.memory.first_index()
    }

    fn last_index(&self) -> raft::Result<u64> {
        self.memory.last_index()
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let saved = self.saved.lock().clone();
        let newest = saved.filter(|s| s.image.applied >= request_index);
        let Some(saved) = newest else {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        };
        let snapshot = RaftSnapshot {
            index: saved.image.applied,
            term: saved.term,
            quorum: saved.quorum,
            image: encode(&*saved.image),
        };
        Ok(snapshot.into_raft())
    }
}
