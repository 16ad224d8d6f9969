//! What can go wrong with files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callboard_common::Offset;

use super::disk::is_full;

/// Why the storage could not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The disk is full; the log is as it was before.
    #[error("the disk is full: {path}")]
    Full {
        /// The file that did not fit.
        path: PathBuf,
    },
    /// The operating system failed; what it left is unknown, so the log must be opened anew.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Bytes that were synced are not what they were; they are kept, and served is only what is whole.
    #[error("the log {path} is damaged at byte {position} (offset {offset} or later)")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the damage begins.
        position: u64,
        /// The last offset known to be whole, plus one.
        offset: Offset,
    },
    /// A batch that is whole holds what cannot be decompressed or is too large when it is.
    #[error("the records at offset {offset} cannot be read: {reason}")]
    Content {
        /// The batch's first offset.
        offset: Offset,
        /// What is wrong.
        reason: String,
    },
    /// A file says something that contradicts the rest.
    #[error("{path}: {what}")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl StorageError {
    /// Wraps what the system said; a full disk becomes [`StorageError::Full`].
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            if is_full(&source) {
                Self::Full {
                    path: path.to_owned(),
                }
            } else {
                Self::Io {
                    doing,
                    path: path.to_owned(),
                    source: Arc::new(source),
                }
            }
        }
    }
}

/// A full disk stops what would free it for now, not the partition: `None`, and the next retention tries again.
pub(crate) fn unless_full<T>(result: Result<T, StorageError>) -> Result<Option<T>, StorageError> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(StorageError::Full { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
