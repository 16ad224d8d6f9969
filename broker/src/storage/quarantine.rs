//! Bytes that recovery takes out of a log are kept beside it, under a name that nothing else reads.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use callboard_common::Offset;

use super::StorageError;
use super::disk::{File, replace_whole};
use super::log::{DOUBT, Quarantined};
use super::recovery::Recovery;
use super::segment::SegmentFiles;

impl Recovery {
    pub(super) fn quarantine_tail(
        &mut self,
        files: &SegmentFiles,
        file: &Arc<dyn File>,
        from: u64,
        size: u64,
        log_end: Offset,
        reason: &str,
    ) -> Result<(), StorageError> {
        self.note_doubt(log_end)?;
        let path = self.quarantine_path(log_end)?;
        let copy = || -> io::Result<()> {
            let mut bytes = vec![0; (size - from) as usize];
            let read = file.read_at(&mut bytes, from)?;
            let kept = self.files.disk().create(&path)?;
            kept.write_at(&[&bytes[..read]], 0)?;
            kept.sync()
        };
        // After a failed sync the page cache is not to be believed: nothing is worth keeping.
        if self.cut_at.is_none() {
            copy().map_err(|error| {
                // The next attempt takes the same name: on a full disk there is never more than one.
                let _rest = self.files.disk().remove(&path);
                StorageError::io("keeping in quarantine", &path)(error)
            })?;
        }
        let log = files.path("log");
        file.resize(from)
            .map_err(StorageError::io("cutting", &log))?;
        self.names_changed = true;
        let reason = reason.to_owned();
        self.quarantined.push(Quarantined {
            path,
            size_bytes: size - from,
            log_end,
            reason,
        });
        Ok(())
    }

    pub(super) fn quarantine_segments(
        &mut self,
        bases: &[Offset],
        log_end: Offset,
        reason: &str,
    ) -> Result<(), StorageError> {
        for base in bases {
            let files = self.segment_files(*base);
            let log = files.path("log");
            let size_bytes = files
                .log()?
                .size()
                .map_err(StorageError::io("measuring", &log))?;
            self.files.open.forget(&log);
            if size_bytes > 0 {
                self.note_doubt(log_end)?;
            }
            if size_bytes > 0 && self.cut_at.is_none() {
                let path = self.quarantine_path(*base)?;
                self.files
                    .disk()
                    .rename(&log, &path)
                    .map_err(StorageError::io("moving to quarantine", &log))?;
                let reason = reason.to_owned();
                self.quarantined.push(Quarantined {
                    path,
                    size_bytes,
                    log_end,
                    reason,
                });
            }
            files.remove()?;
            self.names_changed = true;
        }
        Ok(())
    }

    /// Remembers that what is cut off now may have been synced, before it is cut off.
    fn note_doubt(&mut self, log_end: Offset) -> Result<(), StorageError> {
        // What a failed sync or another leader took away was known not to count.
        if self.cut_at.is_some_and(|cut| log_end >= cut) {
            return Ok(());
        }
        let path = self.files.dir.join(DOUBT);
        self.in_doubt = true;
        replace_whole(&**self.files.disk(), &path, b"").map_err(StorageError::io("writing", &path))
    }

    /// A name that no earlier quarantine has.
    pub(super) fn quarantine_path(&self, offset: Offset) -> Result<PathBuf, StorageError> {
        let dir = &self.files.dir;
        let names = self
            .files
            .disk()
            .list(dir)
            .map_err(StorageError::io("listing", dir))?;
        let name = |n: usize| format!("{:020}.quarantine-{n}", offset.get());
        let free = (0..)
            .map(name)
            .find(|n| !names.contains(n))
            .expect("numbers do not end");
        Ok(dir.join(free))
    }
}
