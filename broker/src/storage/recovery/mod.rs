//! Opens a log after whatever happened to it.
//!
//! Below the recovery point everything was synced, so a bad batch there is damage: it is reported, its bytes stay
//! where they are, reads that reach it fail and the rest is served. Above it unsynced sectors may have reached
//! the disk in any order, so the first bad batch ends the log: what follows goes to quarantine.
//!
//! Indexes and producers are rebuilt on the way, from the newest snapshot that the log reaches.

mod finishing;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use callboard_common::record::Batch;
use callboard_common::record::producers::ProducerTable;
use callboard_common::{LeaderEpoch, Offset};

use crate::planted::{self, Bug};
use crate::storage::checkpoint::Marks;
use crate::storage::disk::{File, read_whole};
use crate::storage::leader_epochs::LeaderEpochs;
use crate::storage::log::{self, Log, LogFiles, Opened, Quarantined};
use crate::storage::read::{Found, Window, described_by};
use crate::storage::segment::{Segment, SegmentFiles};
use crate::storage::time_index::TimeEntry;
use crate::storage::{StorageError, producer_snapshot};
use crate::topic_config::TopicConfig;

/// A snapshot of a hundred thousand producers takes five megabytes.
const SNAPSHOT_LIMIT_BYTES: u64 = 1 << 30;

pub(in crate::storage) struct Recovery {
    pub(in crate::storage) files: LogFiles,
    pub(in crate::storage) dir: Arc<PathBuf>,
    pub(in crate::storage) config: TopicConfig,
    pub(in crate::storage) marks: Marks,
    pub(in crate::storage) cut_at: Option<Offset>,
    pub(in crate::storage) segments: Vec<Segment>,
    pub(in crate::storage) producers: ProducerTable,
    /// Batches below this offset are in the snapshot.
    pub(in crate::storage) producers_from: Offset,
    pub(in crate::storage) quarantined: Vec<Quarantined>,
    pub(in crate::storage) damaged: Vec<StorageError>,
    pub(in crate::storage) names_changed: bool,
    /// Whether the log was cut, by this recovery or one before, and may lack what was synced.
    pub(in crate::storage) in_doubt: bool,
    /// The reigns as their file has them; none if it cannot be read.
    pub(in crate::storage) epochs_in_file: LeaderEpochs,
    /// Where the batches that were read changed their leader epoch.
    pub(in crate::storage) reigns: Vec<(LeaderEpoch, Offset)>,
    /// Files that were read, and where in them stands what is not known to be durable.
    pub(in crate::storage) scanned: Vec<(PathBuf, Arc<dyn File>, Range<u64>)>,
}

/// See [`Log::open`].
pub(in crate::storage) fn open(
    files: LogFiles,
    config: TopicConfig,
) -> Result<Opened, StorageError> {
    let dir = Arc::new(files.dir.clone());
    let mut marks = files.checkpoints.marks(&files.partition);
    // What was deleted from the front had been synced.
    marks.recovery_point = marks.recovery_point.max(marks.log_start);
    let cut_at = files.outstanding.settled();
    if let Some(cut) = cut_at {
        let end = cut.max(marks.log_start);
        let lowered = files.checkpoints.lower(&files.partition, end);
        lowered.map_err(StorageError::io("writing the checkpoints of", &dir))?;
        marks.recovery_point = marks.recovery_point.min(end);
    }
    let mut recovery = Recovery {
        files,
        dir,
        config,
        marks,
        cut_at,
        segments: Vec::new(),
        producers: ProducerTable::default(),
        producers_from: Offset::ZERO,
        quarantined: Vec::new(),
        damaged: Vec::new(),
        names_changed: false,
        in_doubt: false,
        epochs_in_file: LeaderEpochs::default(),
        reigns: Vec::new(),
        scanned: Vec::new(),
    };
    let mut bases = recovery.bases()?;
    let (disk, dir) = (&**recovery.files.disk(), &recovery.files.dir);
    let epochs = LeaderEpochs::read(disk, dir);
    // Records that were about to be deleted are there again: the file has forgotten their reigns, the batches say them.
    if epochs.first_start() <= Some(recovery.marks.log_start) {
        recovery.epochs_in_file = epochs;
    }
    recovery.load_snapshot()?;
    recovery.remove_deleted(&mut bases)?;
    recovery.scan_all(&bases)?;
    recovery.finish()
}

impl Recovery {
    /// The offsets at which segments begin, in order.
    fn bases(&mut self) -> Result<Vec<Offset>, StorageError> {
        let (disk, dir) = (self.files.disk().clone(), self.files.dir.clone());
        self.files.open.forget_below(&dir);
        let names = match disk.list(&dir) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                disk.create_dir(&dir)
                    .map_err(StorageError::io("creating", &dir))?;
                let above = dir.parent().unwrap_or(&dir);
                disk.sync_dir(above)
                    .map_err(StorageError::io("syncing", above))?;
                Vec::new()
            }
            Err(error) => return Err(StorageError::io("listing", &dir)(error)),
        };
        self.in_doubt = names.iter().any(|n| n == log::DOUBT);
        let bases: BTreeSet<Offset> = names
            .iter()
            .filter_map(|n| log::offset_of(n, "log"))
            .collect();
        Ok(bases.into_iter().collect())
    }

    /// Removes segments that lie wholly below the log's start, except those that say of producers what no snapshot does.
    fn remove_deleted(&self, bases: &mut Vec<Offset>) -> Result<(), StorageError> {
        // A segment ends where the next one begins.
        let unneeded = self.marks.log_start.min(self.producers_from);
        let goes = |bases: &[Offset]| bases.get(1).is_some_and(|next| *next <= unneeded);
        if goes(bases) {
            self.note_start()?;
        }
        while goes(bases) {
            self.segment_files(bases.remove(0)).remove()?;
        }
        Ok(())
    }

    /// Makes the log's start durable, before what lies below it goes.
    fn note_start(&self) -> Result<(), StorageError> {
        if planted::is(Bug::RemovedBeforeStart) {
            return Ok(());
        }
        let written = self.files.checkpoints.write();
        written.map_err(StorageError::io(
            "writing the checkpoints of",
            &self.files.dir,
        ))
    }

    pub(in crate::storage) fn segment_files(&self, base: Offset) -> Arc<SegmentFiles> {
        SegmentFiles::new(self.dir.clone(), base, self.files.open.clone())
    }

    /// Takes the newest producer snapshot that cannot be ahead of the log.
    fn load_snapshot(&mut self) -> Result<(), StorageError> {
        let disk = self.files.disk().clone();
        let reach = self.cut_at.unwrap_or(Offset::new(i64::MAX));
        for (offset, path) in log::snapshots(&*disk, &self.files.dir)?.into_iter().rev() {
            // A snapshot above the recovery point may describe records that are gone.
            if offset > self.marks.recovery_point.min(reach) {
                continue;
            }
            let bytes = read_whole(&*disk, &path, SNAPSHOT_LIMIT_BYTES).unwrap_or_default();
            if let Some(producers) = producer_snapshot::decode(&bytes) {
                (self.producers, self.producers_from) = (producers, offset);
                return Ok(());
            }
        }
        Ok(())
    }

    fn scan_all(&mut self, bases: &[Offset]) -> Result<(), StorageError> {
        let durable = self.marks.recovery_point.max(self.marks.log_start);
        if durable > Offset::ZERO && bases.first().is_some_and(|first| *first > durable) {
            // The log went on from `durable` in a segment that is gone: it held nothing that was durable, and
            // what follows reached the disk out of order.
            let reason = "the segment before it did not reach the disk";
            return self.quarantine_segments(bases, durable, reason);
        }
        for (i, base) in bases.iter().enumerate() {
            let next = bases.get(i + 1).copied();
            let expected = self.segments.last().map_or(*base, |s| s.end);
            let durable = expected.max(self.marks.recovery_point);
            if *base != expected && (*base > durable || expected == durable) {
                // The log ended before this segment: it is part of what reached the disk out of order.
                return self.quarantine_segments(
                    &bases[i..],
                    durable,
                    "the segment does not continue the log",
                );
            }
            if *base != expected {
                self.note_missing(expected);
            }
            let files = self.segment_files(*base);
            let trusted = next.filter(|n| *n <= self.known());
            match trusted {
                Some(end) => self.trust(files, end)?,
                None => {
                    if self.scan(files, next)? {
                        let end = self.segments.last().map_or(*base, |s| s.end);
                        let end = end.max(self.marks.log_start);
                        return self.quarantine_segments(
                            &bases[i + 1..],
                            end,
                            "it follows the end of the log",
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a closed segment as it is; its indexes are rebuilt only if they are not there or lie.
    fn trust(&mut self, files: Arc<SegmentFiles>, end: Offset) -> Result<(), StorageError> {
        let path = files.path("log");
        let file = files.log()?;
        let size = file.size().map_err(StorageError::io("measuring", &path))?;
        let has_index = size <= u64::from(self.config.index_interval_bytes) * 2
            || !files.read_index(size).is_empty();
        let max_timestamp = match files.read_time_index().last() {
            Some(entry) if has_index => {
                largest_timestamp(&files, &mut Window::scan(&*file, size), *entry, end)?
            }
            _ => None,
        };
        let Some(max_timestamp) = max_timestamp else {
            let _ended: bool = self.scan(files, Some(end))?;
            return Ok(());
        };
        let mut segment = Segment::new(files);
        (segment.size_bytes, segment.end) = (size, end);
        segment.max_timestamp = Some(max_timestamp);
        segment.sealed = true;
        self.segments.push(segment);
        Ok(())
    }

    /// Reads a segment batch by batch, from where its index is needed on; answers whether the log ends in it.
    fn scan(
        &mut self,
        files: Arc<SegmentFiles>,
        next: Option<Offset>,
    ) -> Result<bool, StorageError> {
        let path = files.path("log");
        let file = files.log()?;
        let size = file.size().map_err(StorageError::io("measuring", &path))?;
        let mut segment = Segment::new(files.clone());
        let read_error = || StorageError::io("reading", &path);
        let mut window = Window::scan(&*file, size);
        let (mut ended, mut unsure_from) = (false, None);
        let mut position = self
            .skip_known(&mut segment, &mut window, size)
            .map_err(read_error())?;
        // What stands behind the last offset of a closed segment is a rest that no sync has cut off.
        while next != Some(segment.end) {
            let reason = match window.batch_at(position).map_err(read_error())? {
                Found::End | Found::WouldWait => break,
                Found::Batch(batch) => match self.judge(&batch, &segment, next) {
                    Verdict::Continues => {
                        let end = Offset::new(batch.header().next_offset());
                        if end > self.marks.recovery_point && unsure_from.is_none() {
                            unsure_from = Some(position);
                        }
                        position += batch.size_bytes() as u64;
                        self.take(&batch, &mut segment);
                        continue;
                    }
                    Verdict::BelongsToNext => break,
                    Verdict::Cut => "it was not synced when a sync failed".to_owned(),
                    Verdict::OutOfPlace => {
                        format!("offset {} does not follow", batch.header().base_offset)
                    }
                },
                Found::Bad(error) => error.to_string(),
            };
            let is_damage = segment.end < self.marks.recovery_point
                && !self
                    .is_unsynced_first(&segment, &mut window, position)
                    .map_err(read_error())?;
            if (is_damage && !planted::is(Bug::DamageCutAsTail)) || planted::is(Bug::TornEndSkipped)
            {
                match self
                    .skip_damage(&mut segment, &mut window, position, next)
                    .map_err(read_error())?
                {
                    Some(next_position) => position = next_position,
                    None => break,
                }
            } else {
                ended = true;
                let end = segment.end.max(self.marks.log_start);
                self.quarantine_tail(&files, &file, position, size, end, &reason)?;
                break;
            }
        }
        if next.is_some() && !ended {
            segment.seal()?;
        }
        let unsure = unsure_from.unwrap_or(position)..position;
        self.scanned.push((path, file, unsure));
        self.segments.push(segment);
        Ok(ended)
    }

    /// Whether a bad batch is the log's first and reaches from below the log's start to beyond it, where nothing is known to be
    /// durable: the log was begun there (`Log::begin_at`), and no sync has covered it. The recovery point is no end of a batch then.
    fn is_unsynced_first(
        &self,
        segment: &Segment,
        window: &mut Window<'_>,
        position: u64,
    ) -> io::Result<bool> {
        let start = self.marks.log_start;
        let is_first = position == 0 && self.segments.is_empty() && segment.base() < start;
        if !is_first || self.marks.recovery_point > start {
            return Ok(false);
        }
        // A whole batch that begins at or below the start shows that the bad one ended there: it was synced, then.
        let next = window.resync(1, segment.end)?;
        Ok(next.is_none_or(|(_, batch)| batch.header().base_offset > start.get()))
    }

    /// Restores index entries below the point from which batches must be read; returns that position.
    fn skip_known(
        &self,
        segment: &mut Segment,
        window: &mut Window<'_>,
        size: u64,
    ) -> io::Result<u64> {
        let known = self.known();
        let base = segment.base();
        if known <= base {
            return Ok(0);
        }
        let mut index = segment.files.read_index(size);
        let limit = u32::try_from(known - base).unwrap_or(u32::MAX);
        index.truncate(index.partition_point(|e| e.relative_offset < limit));
        let Some(last) = index.last().copied() else {
            return Ok(0);
        };
        // The entry must point at the batch that it describes, else the index is no index of this segment.
        let end = base + i64::from(last.relative_offset) + 1;
        match window.batch_at(u64::from(last.position))? {
            Found::Batch(batch) if batch.header().next_offset() == end.get() => {
                let mut times = segment.files.read_time_index();
                times.truncate(times.partition_point(|e| e.relative_offset < last.relative_offset));
                // Where the newest time entry is wrong or missing, the largest timestamp is found by reading.
                let known_end = Offset::new(batch.header().base_offset);
                let Some(newest) = times.last().copied() else {
                    return Ok(0);
                };
                let largest = largest_timestamp(&segment.files, window, newest, known_end)
                    .map_err(io::Error::other)?;
                if largest.is_none_or(|(timestamp, _)| timestamp != newest.timestamp) {
                    return Ok(0);
                }

                let first_offset = Offset::new(batch.header().base_offset);
                let _described = index.pop();
                segment.restore_indexes(index, times);
                (segment.size_bytes, segment.end) = (u64::from(last.position), first_offset);
                Ok(u64::from(last.position))
            }
            Found::Batch(_) | Found::End | Found::Bad(_) | Found::WouldWait => Ok(0),
        }
    }

    /// Below this offset nothing has to be read: it was synced, and producers and reigns are known.
    fn known(&self) -> Offset {
        match self.epochs_in_file.latest() {
            None => Offset::ZERO,
            Some(_) => self.marks.recovery_point.min(self.producers_from),
        }
    }

    fn judge(&self, batch: &Batch, segment: &Segment, next: Option<Offset>) -> Verdict {
        let base = batch.header().base_offset;
        if next.is_some_and(|n| base >= n.get()) {
            Verdict::BelongsToNext
        } else if base != segment.end.get() {
            Verdict::OutOfPlace
        } else if self.cut_at.is_some_and(|cut| base >= cut.get()) {
            Verdict::Cut
        } else {
            Verdict::Continues
        }
    }

    fn take(&mut self, batch: &Batch, segment: &mut Segment) {
        let header = batch.header();
        if header.base_offset >= self.producers_from.get() && !planted::is(Bug::ProducersNotRebuilt)
        {
            self.producers.apply(header);
        }
        let epoch = LeaderEpoch(header.leader_epoch);
        if self.reigns.last().is_none_or(|(last, _)| *last < epoch) && epoch.0 >= 0 {
            self.reigns.push((epoch, Offset::new(header.base_offset)));
        }
        let size = batch.size_bytes() as u64;
        let interval = self.config.index_interval_bytes;
        segment.note(
            Offset::new(header.next_offset()),
            header.max_timestamp,
            size,
            interval,
        );
    }

    /// Finds where the log goes on after damage that is not its end; `None` if it is damaged to its end.
    fn skip_damage(
        &mut self,
        segment: &mut Segment,
        window: &mut Window<'_>,
        at: u64,
        next: Option<Offset>,
    ) -> io::Result<Option<u64>> {
        let (lost_from, path) = (segment.end, segment.files.path("log"));
        let goes_on = window.resync(at + 1, segment.end)?;
        let ends = [self.cut_at, next];
        let is_cut = |base: i64| ends.into_iter().flatten().any(|end| base >= end.get());
        let goes_on = goes_on.filter(|(_, batch)| !is_cut(batch.header().base_offset));
        match &goes_on {
            Some((position, batch)) => {
                segment.size_bytes = *position;
                segment.note_gap(Offset::new(batch.header().base_offset));
            }
            None => {
                // What was synced is lost up to the recovery point at least; nothing is given those offsets again.
                segment.end = next.map_or(self.marks.recovery_point, |n| {
                    n.min(self.marks.recovery_point)
                });
            }
        }
        // A batch that begins below the log's start may hold records that are not.
        if segment.end > self.marks.log_start {
            self.damaged.push(StorageError::Damaged {
                path,
                position: at,
                offset: lost_from.max(self.marks.log_start),
            });
        }
        Ok(goes_on.map(|(position, _)| position))
    }

    /// Bytes that were synced are not there any more.
    fn note_missing(&mut self, offset: Offset) {
        if offset < self.marks.log_start {
            return;
        }
        let path = self.files.dir.clone();
        self.damaged.push(StorageError::Damaged {
            path,
            position: 0,
            offset,
        });
    }

    /// Makes what was found the truth: names and newest bytes are synced, marks are set.
    fn finish(mut self) -> Result<Opened, StorageError> {
        self.drop_unreadable()?;
        if self.segments.is_empty() {
            // What was durable above the start is missed then, and not taken for deleted.
            let start = self.marks.log_start;
            let base = self.cut_at.map_or(start, |cut| cut.max(start));
            self.segments.push(Segment::new(self.segment_files(base)));
            // Or a later segment could be there after a crash without this one.
            self.names_changed = true;
        }
        let last = self.segments.last_mut().expect("just made sure");
        let path = last.files.path("log");
        let size = last
            .files
            .log()?
            .size()
            .map_err(StorageError::io("measuring", &path))?;
        let log_end = last.end.max(self.marks.recovery_point);
        // After damage to the end or a failed sync, nothing more is written to that file.
        let end_found = last.end;
        let leave = last.sealed
            || size != last.size_bytes
            || log_end != last.end
            || (self.cut_at.is_some() && size > 0);
        if leave {
            last.seal()?;
            last.size_bytes = size;
            let segment = Segment::new(self.segment_files(log_end));
            drop(segment.files.log()?);
            self.segments.push(segment);
            self.names_changed = true;
        }
        if end_found < self.marks.recovery_point {
            self.note_missing(end_found.max(self.marks.log_start));
        }
        self.remove_snapshots_beyond(log_end)?;
        self.sync_scanned(log_end)?;
        let epochs = self.epochs(log_end)?;
        // Last: if anything before it failed, the next opening cuts again.
        self.files.outstanding.was_cut();
        self.marks.log_start = self
            .marks
            .log_start
            .max(self.segments[0].base())
            .min(log_end);
        self.marks.high_watermark = self.marks.high_watermark.min(log_end);
        let mut log = Log::assemble(self.files, self.config, self.segments, self.marks, epochs);
        log.in_doubt = self.in_doubt;
        Ok(Opened {
            log,
            producers: self.producers,
            quarantined: self.quarantined,
            damaged: self.damaged,
        })
    }
}

/// The largest timestamp of a segment below `end` and the offset after its batch, from its newest time entry on;
/// `None` if the entry is wrong or a batch after it is not whole.
fn largest_timestamp(
    files: &SegmentFiles,
    window: &mut Window<'_>,
    entry: TimeEntry,
    end: Offset,
) -> Result<Option<(i64, Offset)>, StorageError> {
    let Some((mut position, first)) = described_by(files, window, entry)? else {
        return Ok(None);
    };
    let path = files.path("log");
    let mut expected = first.header().base_offset;
    let mut largest = (entry.timestamp, Offset::new(first.header().next_offset()));
    while expected < end.get() {
        let Found::Batch(batch) = window
            .batch_at(position)
            .map_err(StorageError::io("reading", &path))?
        else {
            return Ok(None);
        };
        let header = batch.header();
        if header.base_offset != expected {
            return Ok(None);
        }
        expected = header.next_offset();
        position += batch.size_bytes() as u64;
        if header.max_timestamp > largest.0 {
            largest = (header.max_timestamp, Offset::new(expected));
        }
    }
    Ok(Some(largest))
}

enum Verdict {
    Continues,
    BelongsToNext,
    Cut,
    OutOfPlace,
}
