//! The log of one partition on disk, in Kafka's layout, and everything that files are needed for.
//!
//! Plain synchronous code behind the [`Disk`] trait: the node runs it on real files, tests on memory, the
//! simulator on a disk that loses what was not synced.
//!
//! Invariants:
//! - what a sync confirmed survives; what it did not is never acknowledged;
//! - a failed sync is never retried, and the page cache after it is never believed;
//! - damaged batches are neither served nor silently cut: they go to quarantine and are reported;
//! - indexes, time indexes and producer snapshots are caches: losing them costs time only.
//!
//! Sources: Kafka's log layout (KIP-405's description of it, `kafka.log`); KIP-101 (leader epochs);
//! DESIGN section 5; Rebello et al., "Can Applications Recover from fsync Failures?" (ATC 2020).

mod buffers;
pub mod checkpoint;
pub mod disk;
pub mod error;
pub mod leader_epochs;
pub mod log;
pub mod meta_properties;
pub mod offset_index;
pub mod open_files;
pub mod producer_snapshot;
mod quarantine;
pub mod read;
mod recovery;
pub mod retention;
pub mod segment;
pub mod sync;
pub mod time_index;

pub use disk::{Disk, File};
pub use error::StorageError;
pub use log::{Log, LogFiles, Opened};
pub use read::{ReadMode, ReadPlan, TimePlan};
