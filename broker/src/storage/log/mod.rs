//! The log of one partition: segments in a row, appended at the end, deleted from the front.
//!
//! Everything here is called by one owner at a time. Appending writes to the page cache; durability comes
//! through [`Log::sync_request`] and [`Log::synced`].

mod replicating;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callboard_common::record::Batch;
use callboard_common::record::producers::ProducerTable;
use callboard_common::{LeaderEpoch, Offset, Timestamp, TopicPartition};
use parking_lot::Mutex;

use super::checkpoint::{Checkpoints, Marks};
use super::leader_epochs::LeaderEpochs;
use super::open_files::OpenFiles;
use super::read::{ReadPlan, Start, TimePlan, TimeSegment};
use super::retention::{self, SegmentSummary};
use super::segment::{Segment, SegmentFiles};
use super::sync::{Outstanding, Running, SyncRequest};
use super::{Disk, StorageError, producer_snapshot, recovery};
use crate::planted::{self, Bug};
use crate::topic_config::TopicConfig;

/// The mark of a log that recovery has cut.
pub(super) const DOUBT: &str = "in-doubt";
/// So much log above the recovery point makes a checkpoint due.
pub const CHECKPOINT_BYTES: u64 = 64 << 20;

/// Where a partition's log is and what it is opened with.
#[derive(Clone, Debug)]
pub struct LogFiles {
    /// The partition.
    pub partition: TopicPartition,
    /// Its directory.
    pub dir: PathBuf,
    /// Files and disk.
    pub open: Arc<OpenFiles>,
    /// The data directory's checkpoints.
    pub checkpoints: Checkpoints,
    /// What runs on the pools for it.
    pub outstanding: Outstanding,
}

impl LogFiles {
    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        self.open.disk()
    }
}

/// Bytes that were taken out of a log because they are not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Where they are kept.
    pub path: PathBuf,
    /// How many they are.
    pub size_bytes: u64,
    /// The offset at which the log ends instead.
    pub log_end: Offset,
    /// What was wrong with the first of them.
    pub reason: String,
}

/// A log that was opened, and what was found.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub log: Log,
    /// The producers, from snapshot and log.
    pub producers: ProducerTable,
    /// What was cut off its end.
    pub quarantined: Vec<Quarantined>,
    /// Damage below the recovery point: reads that reach it fail, the rest is served.
    pub damaged: Vec<StorageError>,
}

/// Segments, marks and leader epochs of one partition.
#[derive(Debug)]
pub struct Log {
    pub(super) files: LogFiles,
    dir: Arc<PathBuf>,
    pub(super) config: TopicConfig,
    /// By offset, never empty; the last one is appended to.
    pub(super) segments: Vec<Segment>,
    pub(super) marks: Marks,
    synced_end: Offset,
    names_unsynced: bool,
    /// Whether recovery cut off what may have been synced; see [`Log::is_in_doubt`].
    pub(super) in_doubt: bool,
    bytes_since_checkpoint: u64,
    pub(super) epochs: LeaderEpochs,
    /// Whether reigns are known that the file does not have.
    epochs_unwritten: bool,
    /// Segments that are no part of it any more and whose files are still there.
    leaving: Leaving,
}

type Leaving = Arc<Mutex<Vec<Arc<SegmentFiles>>>>;

impl Log {
    /// Opens the log, creates it if it is not there, repairs its end. Blocks, so it belongs on a pool.
    ///
    /// Waits for what an earlier life has running. After a failed sync all above the synced end is dropped, whatever the page cache
    /// shows, and the log goes on in a new segment.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the files are as whole as before.
    pub fn open(files: LogFiles, config: TopicConfig) -> Result<Opened, StorageError> {
        recovery::open(files, config)
    }

    pub(super) fn assemble(
        files: LogFiles,
        config: TopicConfig,
        segments: Vec<Segment>,
        marks: Marks,
        (epochs, epochs_written): (LeaderEpochs, bool),
    ) -> Self {
        let dir = Arc::new(files.dir.clone());
        let synced_end = segments.last().expect("a log has a segment").end;
        Self {
            files,
            dir,
            config,
            segments,
            marks,
            synced_end,
            // An earlier process may have rolled and not synced: the first sync covers the names too.
            names_unsynced: true,
            in_doubt: false,
            bytes_since_checkpoint: 0,
            epochs,
            epochs_unwritten: !epochs_written,
            leaving: Leaving::default(),
        }
    }

    fn active(&self) -> &Segment {
        self.segments.last().expect("a log has a segment")
    }

    fn active_mut(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("a log has a segment")
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.files.partition
    }

    /// First offset that can be read.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.marks.log_start
    }

    /// Offset after the last record.
    #[must_use]
    pub fn log_end(&self) -> Offset {
        self.active().end
    }

    /// What was known to be committed when the log was last closed or checkpointed.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.marks.high_watermark
    }

    /// Everything below is durable.
    #[must_use]
    pub fn synced_end(&self) -> Offset {
        self.synced_end
    }

    /// Sum of the segments' sizes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.size_bytes).sum()
    }

    /// How many segments there are.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The reigns of the leaders.
    #[must_use]
    pub fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> &TopicConfig {
        &self.config
    }

    /// Changes the settings; they hold from the next append on.
    pub fn set_config(&mut self, config: TopicConfig) {
        self.config = config;
    }

    /// Begins a leader's reign at the log's end. The file has it with the next checkpoint: until then recovery reads it from
    /// the batches, and a reign without a batch ended nowhere.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        let end = self.log_end();
        self.epochs_unwritten |= self.epochs.begin(epoch, end);
    }

    fn write_epochs(&mut self) -> Result<(), StorageError> {
        if self.epochs_unwritten {
            let path = self.files.dir.join(super::leader_epochs::FILE_NAME);
            self.epochs
                .write(&**self.files.disk(), &self.files.dir)
                .map_err(StorageError::io("writing", &path))?;
            self.epochs_unwritten = false;
        }
        Ok(())
    }

    /// Appends a batch at the log's end; it is readable at once and durable after the next sync.
    ///
    /// # Errors
    ///
    /// [`StorageError::Full`]: the log is as before. After any other error it must be opened anew.
    pub fn append(
        &mut self,
        batch: &Batch,
        epoch: LeaderEpoch,
        now: Timestamp,
    ) -> Result<Offset, StorageError> {
        if self.must_roll(batch, now) {
            self.roll()?;
        }
        let base = self.log_end();
        let interval = self.config.index_interval_bytes;
        let active = self.active_mut();
        active.append(batch, base, epoch)?;
        let size = batch.size_bytes() as u64;
        active.note(
            base + batch.offset_count(),
            batch.header().max_timestamp,
            size,
            interval,
        );
        let _first = active.first_append.get_or_insert(now);
        self.bytes_since_checkpoint += size;
        Ok(base)
    }

    fn must_roll(&self, batch: &Batch, now: Timestamp) -> bool {
        let active = self.active();
        let size = active.size_bytes + batch.size_bytes() as u64;
        let too_large = size > u64::from(self.config.segment_bytes);
        let age = active
            .first_append
            .map_or(0, |first| now.0.saturating_sub(first.0));
        let too_old =
            u128::try_from(age).is_ok_and(|age| age > self.config.segment_age.as_millis());
        let too_many = active.end - active.base() + batch.offset_count() > i64::from(i32::MAX);
        // One whose successor a full disk refused is sealed already.
        active.size_bytes > 0 && (too_large || too_old || too_many || active.sealed)
    }

    /// Goes on in a new segment. The old one is synced with the next sync, before the new one.
    ///
    /// # Errors
    ///
    /// As [`Log::append`].
    pub fn roll(&mut self) -> Result<(), StorageError> {
        let base = self.log_end();
        if self.active().size_bytes == 0 {
            return Ok(());
        }
        self.active_mut().seal()?;
        let segment = Segment::new(SegmentFiles::new(
            self.dir.clone(),
            base,
            self.files.open.clone(),
        ));
        // The file is there before anything refers to it.
        drop(segment.files.log()?);
        self.segments.push(segment);
        self.names_unsynced = true;
        Ok(())
    }

    /// What to sync so that everything up to the log's end is durable; `None` if it is.
    #[must_use]
    pub fn sync_request(&mut self) -> Option<SyncRequest> {
        let unsynced = self.segments.iter().filter_map(|s| {
            let file = s.unsynced.clone()?;
            Some((s.files.path("log"), file))
        });
        let files: Vec<_> = unsynced.collect();
        let dir = self
            .names_unsynced
            .then(|| (self.files.dir.clone(), self.files.disk().clone()));
        if files.is_empty() && dir.is_none() {
            return None;
        }
        self.names_unsynced = false;
        Some(SyncRequest {
            files,
            dir,
            end: self.log_end(),
            synced_end: self.synced_end,
            running: self.files.outstanding.begin(),
        })
    }

    /// Notes that a sync up to `end` succeeded.
    pub fn synced(&mut self, end: Offset) {
        self.synced_end = self.synced_end.max(end);
        for segment in &mut self.segments {
            if segment.end <= end {
                segment.unsynced = None;
            }
        }
    }

    /// Plans a read of whole batches from the one that holds `from` on, below `limit`, of about `max_bytes`.
    ///
    /// # Panics
    ///
    /// Panics if `from` lies outside of the log.
    #[must_use]
    pub fn plan_read(
        &self,
        from: Offset,
        limit: Offset,
        max_bytes: u32,
        at_least_one: bool,
    ) -> ReadPlan {
        assert!(
            self.log_start() <= from && from < self.log_end(),
            "{from} lies outside of the log"
        );
        let i = self
            .segments
            .partition_point(|s| s.base() <= from)
            .saturating_sub(1);
        let segment = &self.segments[i];
        let next = self.segments.get(i + 1);
        ReadPlan {
            segment: segment.files.clone(),
            start: if next.is_none() {
                Start::Entry(segment.floor(from))
            } else {
                Start::Index
            },
            size_bytes: segment.size_bytes,
            from,
            limit: limit.min(next.map_or(limit, Segment::base)),
            max_bytes,
            at_least_one,
        }
    }

    /// Plans the search for the first record below `limit` that is not older than `timestamp`.
    #[must_use]
    pub fn plan_time_search(&self, timestamp: i64, limit: Offset) -> TimePlan {
        let candidate = |(i, s): (usize, &Segment)| {
            let next = self.segments.get(i + 1);
            s.max_timestamp
                .is_some_and(|(max, _)| max >= timestamp)
                .then(|| TimeSegment {
                    segment: s.files.clone(),
                    size_bytes: s.size_bytes,
                    entries: next.is_none().then(|| s.time_entries()),
                    limit: next.map_or(limit, Segment::base),
                })
        };
        let segments = self
            .segments
            .iter()
            .enumerate()
            .filter_map(candidate)
            .collect();
        TimePlan {
            segments,
            timestamp,
            from: self.log_start(),
            limit,
        }
    }

    /// The largest timestamp of the log.
    #[must_use]
    pub fn max_timestamp(&self) -> Option<i64> {
        self.segments
            .iter()
            .filter_map(|s| s.max_timestamp.map(|(t, _)| t))
            .max()
    }

    /// Moves the log's start up to `start`, which may be its end; segments below go with [`Log::retain`].
    pub fn advance_start(&mut self, start: Offset) {
        let start = start.min(self.log_end());
        if start > self.marks.log_start {
            self.marks.log_start = start;
            self.epochs.advance_start(start);
            self.files
                .checkpoints
                .set(&self.files.partition, self.marks);
        }
    }

    /// Takes the segments that are too old, too much or below the log's start out of the log and moves the
    /// start. Their files are removed with [`Removal::run`], after the start and what their batches say of producers are
    /// durable.
    ///
    /// # Errors
    ///
    /// As [`Log::append`], because the newest segment may have to be closed first.
    pub fn retain(
        &mut self,
        high_watermark: Offset,
        now: Timestamp,
        producers: &ProducerTable,
    ) -> Result<Option<Removal>, StorageError> {
        let summaries: Vec<_> = self
            .segments
            .iter()
            .map(|s| SegmentSummary {
                end: s.end,
                size_bytes: s.size_bytes,
                max_timestamp: s.max_timestamp.map(|(t, _)| t),
            })
            .collect();
        let mut count = retention::expired(&summaries, &self.config, self.log_start(), now.0);
        // What is not yet committed stays; so does what is not durable, because what is known of producers is noted as of
        // what is.
        let reach = high_watermark.min(self.synced_end);
        count = count.min(summaries.partition_point(|s| s.end <= reach));
        if count == self.segments.len() {
            self.roll()?;
            // An empty segment was not closed and stays the newest.
            count = count.min(self.segments.len() - 1);
        }
        // What a full disk did not let go the last time is tried again.
        if count == 0 && self.leaving.lock().is_empty() {
            return Ok(None);
        }
        let mut snapshot = self.checkpoint(high_watermark, producers)?;
        let removed = self.segments.drain(..count).map(|s| s.files);
        let mut leaving = self.leaving.lock();
        leaving.extend(removed);
        let segments = leaving.clone();
        drop(leaving);
        self.advance_start(self.segments[0].base());
        snapshot.marks = self.marks;
        Ok(Some(Removal {
            files: self.files.clone(),
            segments,
            leaving: self.leaving.clone(),
            snapshot,
        }))
    }

    /// Everything below is known to be durable, also to the next opening.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        self.marks.recovery_point
    }

    /// Whether so much was appended that a checkpoint should bring the recovery point up.
    #[must_use]
    pub fn checkpoint_due(&self) -> bool {
        self.bytes_since_checkpoint >= CHECKPOINT_BYTES
            && self.synced_end > self.marks.recovery_point
    }

    /// Brings the recovery point up to the synced end; returns what to write on a pool.
    ///
    /// # Errors
    ///
    /// As [`Log::append`].
    pub fn checkpoint(
        &mut self,
        high_watermark: Offset,
        producers: &ProducerTable,
    ) -> Result<Snapshot, StorageError> {
        self.write_epochs()?;
        self.active_mut().write_indexes()?;
        self.bytes_since_checkpoint = 0;
        self.marks.recovery_point = match planted::is(Bug::RecoveryPointTooHigh) {
            true => self.log_end(),
            false => self.synced_end,
        };
        self.marks.high_watermark = self.marks.high_watermark.max(high_watermark);
        // Recovery takes the newest one that is not beyond what is durable.
        let durable = producers.up_to(self.synced_end.get());
        Ok(Snapshot {
            files: self.files.clone(),
            offset: self.synced_end,
            bytes: producer_snapshot::encode(&durable),
            marks: self.marks,
            running: self.files.outstanding.begin(),
        })
    }

    /// Waits for what runs, makes all durable and brings the recovery point to the end. Blocks.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the next opening then finds out what is there. After a failed sync the log was cut to its
    /// synced end, as far as the disk still does that.
    pub fn close(
        mut self,
        high_watermark: Offset,
        producers: &ProducerTable,
    ) -> Result<(), StorageError> {
        if let Some(cut) = self.files.outstanding.settled() {
            let dir = self.files.dir.clone();
            let failed = io::Error::other(format!("a sync failed; the log is cut at {cut}"));
            return Err(self.cut(StorageError::io("syncing", &dir)(failed)));
        }
        if let Some(request) = self.sync_request() {
            if let Err(error) = request.run() {
                drop(request);
                return Err(self.cut(error));
            }
            self.synced(request.end);
        }
        self.checkpoint(high_watermark, producers)?.write()
    }

    /// Opens the log once more, which cuts it: the next process would believe the page cache.
    fn cut(self, error: StorageError) -> StorageError {
        match Self::open(self.files, self.config) {
            Ok(_cut) => error,
            Err(second) => second,
        }
    }
}

/// A producer snapshot and marks that are to be written.
#[derive(Debug)]
pub struct Snapshot {
    files: LogFiles,
    offset: Offset,
    bytes: Vec<u8>,
    marks: Marks,
    running: Running,
}

impl Snapshot {
    /// Writes the snapshot, removes older ones but the last, then notes the marks. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says; the marks are then as before.
    pub fn write(&self) -> Result<(), StorageError> {
        // Two of one offset would write the same file.
        let _turn = self.running.turn();
        let (disk, dir) = (self.files.disk(), &self.files.dir);
        let path = snapshot_path(dir, self.offset);
        super::disk::replace_whole(&**disk, &path, &self.bytes)
            .map_err(StorageError::io("writing", &path))?;
        let mut snapshots = snapshots(&**disk, dir)?;
        let _newest = snapshots.pop_last();
        let _second = snapshots.pop_last();
        for path in snapshots.into_values() {
            disk.remove(&path)
                .map_err(StorageError::io("removing", &path))?;
        }
        self.files
            .checkpoints
            .set(&self.files.partition, self.marks);
        Ok(())
    }
}

pub(in crate::storage) fn snapshot_path(dir: &Path, offset: Offset) -> PathBuf {
    dir.join(format!("{:020}.snapshot", offset.get()))
}

/// The producer snapshots of a partition by their offset.
pub(super) fn snapshots(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<BTreeMap<Offset, PathBuf>, StorageError> {
    let names = disk.list(dir).map_err(StorageError::io("listing", dir))?;
    let offset = |name: &str| offset_of(name, "snapshot");
    Ok(names
        .iter()
        .filter_map(|n| Some((offset(n)?, dir.join(n))))
        .collect())
}

/// The offset in a file name of twenty digits and this ending.
pub(super) fn offset_of(name: &str, ending: &str) -> Option<Offset> {
    let digits = name.strip_suffix(ending)?.strip_suffix('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Offset::checked(digits.parse().ok()?)
}

/// Segments that left their log.
#[derive(Debug)]
pub struct Removal {
    files: LogFiles,
    /// What the snapshot and the start allow to go. More may have left since, which its own removal takes.
    segments: Vec<Arc<SegmentFiles>>,
    leaving: Leaving,
    snapshot: Snapshot,
}

impl Removal {
    /// How many segments there are.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Makes the log's new start and its producers durable, then removes the files. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says; what was not removed is removed with the next one, or at the next opening.
    pub fn run(self) -> Result<(), StorageError> {
        let Self {
            files,
            segments,
            leaving,
            snapshot,
        } = self;
        if planted::is(Bug::RemovedBeforeStart) {
            remove_all(&segments, &leaving)?;
        }
        // It is kept to the end: who opens the log waits until nothing is removed from it any more.
        snapshot.write()?;
        let written = files.checkpoints.write();
        written.map_err(StorageError::io("writing the checkpoints of", &files.dir))?;
        remove_all(&segments, &leaving)
    }
}

/// Each is forgotten when its files are gone; the log waits for no file meanwhile.
fn remove_all(segments: &[Arc<SegmentFiles>], leaving: &Leaving) -> Result<(), StorageError> {
    for segment in segments {
        segment.remove()?;
        leaving.lock().retain(|left| !Arc::ptr_eq(left, segment));
    }
    Ok(())
}

#[cfg(test)]
mod replicating_tests;
#[cfg(test)]
mod tests;
