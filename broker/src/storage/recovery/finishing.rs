//! The end of a recovery: what was found is made durable, and the reigns are those of what is there.

use std::io;
use std::ops::Range;

use callboard_common::Offset;

use super::Recovery;
use crate::planted::{self, Bug};
use crate::storage::disk::{File, replace_whole};
use crate::storage::leader_epochs::{self, LeaderEpochs};
use crate::storage::read::CHUNK_BYTES;
use crate::storage::{StorageError, log, producer_snapshot};

impl Recovery {
    /// Removes all segments if nothing can be read of them: all of it was deleted from the front and a crash has brought some of
    /// the files back, or the rest was cut off. In the latter case a log that begins inside of a batch gets that batch again,
    /// and there must be nothing that it does not continue.
    pub(super) fn drop_unreadable(&mut self) -> Result<(), StorageError> {
        let start = self.marks.log_start;
        let end = self.segments.last().map(|s| s.end);
        let is_cut_there = self.cut_at.is_some_and(|cut| cut <= start);
        let is_unreadable = end.is_some_and(|e| e < start || (e == start && is_cut_there));
        if !is_unreadable {
            return Ok(());
        }
        // What they say of producers stays.
        let path = log::snapshot_path(&self.files.dir, start);
        let producers = producer_snapshot::encode(&self.producers);
        replace_whole(&**self.files.disk(), &path, &producers)
            .map_err(StorageError::io("writing", &path))?;
        self.note_start()?;
        for segment in std::mem::take(&mut self.segments) {
            segment.files.remove()?;
        }
        self.names_changed = true;
        self.scanned.clear();
        Ok(())
    }

    /// The reigns of what is here, and whether the file has them. Below the recovery point it is right; above, the batches
    /// say it, because the file may lack some or know others that were cut.
    pub(super) fn epochs(&mut self, log_end: Offset) -> Result<(LeaderEpochs, bool), StorageError> {
        let (disk, dir) = (&**self.files.disk(), &self.files.dir);
        let in_file = std::mem::take(&mut self.epochs_in_file);
        let mut epochs = in_file.clone();
        if !planted::is(Bug::EpochsNotCut) {
            // A reign that begins at the recovery point has no record that is known to be durable: the batches say it.
            epochs.truncate(self.marks.recovery_point.min(log_end));
        }
        let was_cut = epochs != in_file;
        for (epoch, start) in std::mem::take(&mut self.reigns) {
            // A segment far below may have been read only because its index was lost.
            let is_known = start < self.marks.recovery_point && epochs.latest() >= Some(epoch);
            if !is_known {
                let _new: bool = epochs.begin(epoch, start);
            }
        }
        if was_cut && self.cut_at.is_some() {
            // What is cut must not be taken for the truth after what is appended next.
            let path = dir.join(leader_epochs::FILE_NAME);
            epochs
                .write(disk, dir)
                .map_err(StorageError::io("writing", &path))?;
            return Ok((epochs, true));
        }
        let is_written = epochs == in_file;
        Ok((epochs, is_written))
    }

    /// A snapshot of records that are gone would be taken for true as soon as others have their offsets.
    pub(super) fn remove_snapshots_beyond(&mut self, log_end: Offset) -> Result<(), StorageError> {
        let disk = self.files.disk().clone();
        let snapshots = log::snapshots(&*disk, &self.files.dir)?;
        for (_, path) in snapshots.range(log_end + 1..) {
            disk.remove(path)
                .map_err(StorageError::io("removing", path))?;
            self.names_changed = true;
        }
        Ok(())
    }

    /// After the process was killed the page cache may hold what no sync has covered: now one does. A sync of that process
    /// may have failed, and then memory has what the disk has not, and another sync of the same bytes would say that all is
    /// well: they are written anew.
    pub(super) fn sync_scanned(&self, log_end: Offset) -> Result<(), StorageError> {
        if log_end > self.marks.recovery_point || self.names_changed {
            for (path, file, unsure) in &self.scanned {
                write_again(&**file, unsure.clone()).map_err(StorageError::io("writing", path))?;
                file.sync().map_err(StorageError::io("syncing", path))?;
            }
        }
        if self.names_changed || log_end > self.marks.recovery_point {
            let dir = &self.files.dir;
            self.files
                .disk()
                .sync_dir(dir)
                .map_err(StorageError::io("syncing", dir))?;
        }
        Ok(())
    }
}

/// Writes what stands there, as it is.
fn write_again(file: &dyn File, range: Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    let mut buffer = vec![0; CHUNK_BYTES.min(range.end - range.start) as usize];
    while at < range.end {
        let length = (buffer.len() as u64).min(range.end - at) as usize;
        let read = file.read_at(&mut buffer[..length], at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_at(&[&buffer[..read]], at)?;
        at += read as u64;
    }
    Ok(())
}
