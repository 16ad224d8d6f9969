//! What is done to the data directory of a node that is stopped: letting it form a cluster, and what is left when most
//! voters are lost.

use std::path::Path;
use std::sync::Arc;

use super::builder::StartError;
use super::cluster::{FORMS, JOINS};
use super::prepare::lock_as_owner;
use crate::controller::log_file::{self, MetadataLog, RESERVE_BYTES};
use crate::controller::recovery::{self, Remains};
use crate::storage::StorageError;
use crate::storage::disk::{Disk, RealDisk, replace_whole};
use crate::storage::meta_properties::MetaProperties;

/// Lets a node form a cluster of its own at its next start, whatever voters are listed. The directory is created.
///
/// # Errors
///
/// [`StartError`] if a node runs on it, it belongs to a cluster already or to another user; it has not changed then.
pub fn form(dir: &Path) -> Result<(), StartError> {
    RealDisk
        .create_dir(dir)
        .map_err(StorageError::io("creating", dir))?;
    let _lock = lock_as_owner(dir)?;
    if log_file::has_content(&RealDisk, dir) {
        let what = "it belongs to a cluster already".to_owned();
        let path = dir.to_owned();
        return Err(StorageError::Contradiction { path, what }.into());
    }
    // It may have waited to be taken in.
    let waits = dir.join(JOINS);
    RealDisk
        .remove(&waits)
        .map_err(StorageError::io("removing", &waits))?;
    let mark = dir.join(FORMS);
    Ok(replace_whole(&RealDisk, &mark, b"").map_err(StorageError::io("writing", &mark))?)
}

fn open(dir: &Path) -> Result<(MetadataLog, MetaProperties, Remains), StartError> {
    let path = dir.to_owned();
    let contradiction = |what: String| StorageError::Contradiction {
        path: path.clone(),
        what,
    };
    let meta = MetaProperties::read(&RealDisk, dir)?;
    let meta = meta.ok_or_else(|| contradiction("it is no data directory of a node".into()))?;
    let (log, restored) = MetadataLog::open(Arc::new(RealDisk), dir, RESERVE_BYTES)?;
    let remains = recovery::remains(restored).map_err(|e| contradiction(e.to_string()))?;
    Ok((log, meta, remains))
}

/// What a data directory knows of its quorum.
///
/// # Errors
///
/// [`StartError`] if a node runs on it, or it cannot be read.
pub fn inspect(dir: &Path) -> Result<Remains, StartError> {
    let _lock = lock_as_owner(dir)?;
    open(dir).map(|(.., remains)| remains)
}

/// Makes what this directory knows the metadata of a quorum of one.
///
/// # Errors
///
/// [`StartError`] if a node runs on it, or it was no member; it has not changed then.
pub fn recover(dir: &Path) -> Result<Remains, StartError> {
    let _lock = lock_as_owner(dir)?;
    let (mut log, meta, remains) = open(dir)?;
    let (path, told) = (dir.to_owned(), remains.clone());
    let alone = recovery::alone(remains, &meta.directory_id);
    let (saved, rest) = alone.map_err(|e| StorageError::Contradiction {
        path,
        what: e.to_string(),
    })?;
    log.snapshot(&saved, &rest)?;
    RealDisk
        .remove(&dir.join(JOINS))
        .map_err(StorageError::io("removing", &dir.join(JOINS)))?;
    Ok(told)
}

/// Makes a node forget the metadata and wait to be taken in again; the records that it keeps stay.
///
/// # Errors
///
/// [`StartError`] if a node runs on it.
pub fn rejoin(dir: &Path) -> Result<(), StartError> {
    let _lock = lock_as_owner(dir)?;
    let mark = dir.join(JOINS);
    replace_whole(&RealDisk, &mark, b"").map_err(StorageError::io("writing", &mark))?;
    Ok(log_file::forget(&RealDisk, dir)?)
}
