//! A log as one of several: what a leader placed is appended, what it has not is cut.

use callboard_common::record::producers::ProducerTable;
use callboard_common::record::{Batch, BatchHeader};
use callboard_common::{LeaderEpoch, Offset, Timestamp};

use super::{DOUBT, Log, Opened, snapshot_path, snapshots};
use crate::planted::{self, Bug};
use crate::storage::checkpoint::Marks;
use crate::storage::disk::replace_whole;
use crate::storage::leader_epochs::LeaderEpochs;
use crate::storage::segment::{Segment, SegmentFiles};
use crate::storage::{StorageError, producer_snapshot};

impl Log {
    /// Appends a batch that another node's leader placed; it is readable at once and durable after the next sync.
    ///
    /// # Errors
    ///
    /// [`StorageError::Contradiction`] if it does not continue the log, else as [`Log::append`].
    pub fn append_placed(&mut self, batch: &Batch, now: Timestamp) -> Result<(), StorageError> {
        let header = *batch.header();
        if self.begins_inside(&header) {
            self.begin_at(Offset::new(header.base_offset))?;
        }
        let end = self.log_end();
        if header.base_offset != end.get() {
            return Err(StorageError::Contradiction {
                path: self.files.dir.clone(),
                what: format!("offset {} does not follow {end}", header.base_offset),
            });
        }
        let epoch = LeaderEpoch(header.leader_epoch);
        let _base = self.append(batch, epoch, now)?;
        // The file is written with the next checkpoint; recovery reads the rest from the batches.
        self.epochs_unwritten |= self.epochs.begin(epoch, end);
        Ok(())
    }

    /// Whether the log is empty and would begin inside of this batch: records were deleted up to there.
    fn begins_inside(&self, header: &BatchHeader) -> bool {
        let start = self.log_start().get();
        let is_empty = self.size_bytes() == 0 && self.log_end().get() == start;
        is_empty && header.base_offset < start && header.next_offset() > start
    }

    /// An empty log is to hold the batch that its start lies in.
    fn begin_at(&mut self, base: Offset) -> Result<(), StorageError> {
        for segment in self.segments.drain(..) {
            segment.files.remove()?;
        }
        let files = SegmentFiles::new(self.dir.clone(), base, self.files.open.clone());
        drop(files.log()?);
        self.segments.push(Segment::new(files));
        self.names_unsynced = true;
        Ok(())
    }

    /// Where this log and another end to differ, if the other's last record was written in `epoch` and ends at `end`
    /// (KIP-101, KIP-279): the largest epoch of this log that is not above it, and where it ended here.
    #[must_use]
    pub fn divergence(&self, epoch: LeaderEpoch, end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let (known, known_end) = match self.epochs.end_of(epoch, self.log_end()) {
            Some(found) => found,
            // All that is here was written later.
            None if end > self.log_start() => (LeaderEpoch(-1), self.log_start()),
            // What was written in that reign was deleted here, and the two may agree up to where this log begins.
            None => (epoch, self.log_start()),
        };
        let differs = known != epoch || known_end < end;
        (differs && !planted::is(Bug::DivergenceUnnoticed)).then_some((known, known_end))
    }

    /// Where this log is to be cut if its leader's largest epoch that is not above this log's last is `epoch`, and ends
    /// there at `leader_end` (KIP-279).
    #[must_use]
    pub fn cut_point(&self, epoch: LeaderEpoch, leader_end: Offset) -> Offset {
        if planted::is(Bug::TruncateToHighWatermark) {
            return self.high_watermark().max(self.log_start());
        }
        let own_end = self.epochs.end_of(epoch, self.log_end());
        let own_end = own_end.map_or(self.log_start(), |(_, end)| end);
        own_end.min(leader_end).max(self.log_start())
    }

    /// Whether recovery has cut off bytes that were not whole: most likely they were torn by a power loss and never synced,
    /// but bytes that were synced may have rotted. The log must not lead those that may have more, until it was compared
    /// with one of them. It is remembered on disk.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Another replica has no more than this one, or this one has all that was committed. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn settle_doubt(&mut self) -> Result<(), StorageError> {
        if std::mem::take(&mut self.in_doubt) {
            let path = self.files.dir.join(DOUBT);
            let disk = self.files.disk();
            let removed = disk
                .remove(&path)
                .and_then(|()| disk.sync_dir(&self.files.dir));
            removed.map_err(StorageError::io("removing", &path))?;
        }
        Ok(())
    }

    /// The reign in which the last record was written.
    #[must_use]
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        let end = self.log_end();
        if planted::is(Bug::EpochsNotCut) {
            return self.epochs.latest();
        }
        (end > self.log_start()).then(|| self.epochs.at(Offset::new(end.get() - 1)))?
    }

    /// Drops everything from `end` on, which is kept in quarantine, and opens the log again. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Log::open`].
    pub fn truncate(self, end: Offset) -> Result<Opened, StorageError> {
        self.files.outstanding.cut(end);
        Self::open(self.files, self.config)
    }

    /// Drops everything and goes on at `start`, because the leader has nothing below any more; these are the producers as
    /// of there. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Log::open`].
    pub fn restart_at(
        self,
        start: Offset,
        producers: &ProducerTable,
    ) -> Result<Opened, StorageError> {
        let marks = Marks {
            recovery_point: start,
            log_start: start,
            high_watermark: start,
        };
        let (disk, dir) = (&**self.files.disk(), &self.files.dir);
        let writing = || StorageError::io("writing", dir);
        // In an order in which a loss of power leaves the old log or the new one: until the new start is noted, reigns are
        // read from the batches, and the new producers lie beyond the old log.
        LeaderEpochs::default()
            .write(disk, dir)
            .map_err(writing())?;
        let newest = snapshot_path(dir, start);
        replace_whole(disk, &newest, &producer_snapshot::encode(producers)).map_err(writing())?;
        let mut others = snapshots(disk, dir)?;
        let _newest = others.remove(&start);
        for path in others.into_values() {
            disk.remove(&path)
                .map_err(StorageError::io("removing", &path))?;
        }
        let checkpoints = self.files.checkpoints.clone();
        checkpoints.set(&self.files.partition, marks);
        checkpoints.write().map_err(StorageError::io(
            "writing the checkpoints of",
            &self.files.dir,
        ))?;
        for segment in &self.segments {
            segment.files.remove()?;
        }
        Self::open(self.files, self.config)
    }
}
