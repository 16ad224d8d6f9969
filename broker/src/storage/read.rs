//! Reads batches from a segment: on the worker if the bytes are in memory, else on the pool.
//!
//! Every batch's checksum is verified on the way, so damage is found here at the latest and never served. An
//! index that lies costs a scan; damage in the middle costs only the reads that reach it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use callboard_common::Offset;
use callboard_common::record::{Batch, BatchError, BatchHeader, HEADER_BYTES, Record};
use callboard_common::runtime::Pool;

use super::StorageError;
use super::buffers::Buffer;
use super::disk::File;
use super::offset_index::IndexEntry;
use super::segment::SegmentFiles;
use super::time_index::TimeEntry;

/// No request is larger, so no batch is.
pub(super) const MAX_BATCH_BYTES: usize = 100 << 20;
/// What is read beyond what was asked for, to begin at an index entry.
const SLOP_BYTES: u64 = 8 << 10;
pub(super) const CHUNK_BYTES: u64 = 1 << 20;

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// On a worker: answers "would wait" instead of waiting.
    Now,
    /// On a pool.
    Blocking,
}

/// More than this is read on the pool: checking it takes longer than others on a worker should wait.
const READ_HERE_MAX_BYTES: u32 = 4 << 20;

/// Reads at once if it is little and in memory, else on the pool, and tells `done` what was found.
pub fn start(
    plan: ReadPlan,
    pool: &Pool,
    done: impl FnOnce(Result<Bytes, StorageError>) + Send + 'static,
) {
    let now = match plan.max_bytes <= READ_HERE_MAX_BYTES {
        true => plan.run(ReadMode::Now),
        false => Ok(None),
    };
    match now {
        Ok(Some(bytes)) => done(Ok(bytes)),
        Err(error) => done(Err(error)),
        Ok(None) => {
            pool.run(move || done(plan.run(ReadMode::Blocking).map(Option::unwrap_or_default)));
        }
    }
}

impl ReadMode {
    /// Reads as the mode says; `None` is "would wait".
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn read(self, file: &dyn File, buffer: &mut [u8], at: u64) -> io::Result<Option<usize>> {
        match self {
            Self::Now => file.read_now_at(buffer, at),
            Self::Blocking => file.read_at(buffer, at).map(Some),
        }
    }
}

/// What stands at a position of a segment.
#[derive(Debug)]
pub(super) enum Found {
    Batch(Batch),
    End,
    Bad(BatchError),
    WouldWait,
}

/// A part of a segment's bytes that moves along it.
#[derive(Debug)]
pub(super) struct Window<'a> {
    file: &'a dyn File,
    mode: ReadMode,
    /// Bytes of the segment that count.
    size: u64,
    /// How much is read at once.
    chunk: u64,
    bytes: Bytes,
    at: u64,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a dyn File, mode: ReadMode, size: u64, chunk: u64) -> Self {
        Self {
            file,
            mode,
            size,
            chunk,
            bytes: Bytes::new(),
            at: 0,
        }
    }

    /// A window for scanning a whole segment on a pool.
    pub(super) fn scan(file: &'a dyn File, size: u64) -> Self {
        Self::new(file, ReadMode::Blocking, size, CHUNK_BYTES)
    }

    /// The bytes of the window from `position` on.
    fn inside(&self, position: u64) -> Bytes {
        match position.checked_sub(self.at) {
            Some(skip) if skip <= self.bytes.len() as u64 => self.bytes.slice(skip as usize..),
            _ => Bytes::new(),
        }
    }

    /// Moves the window so that it has at least `least` bytes from `position` on, or all there are.
    fn bytes_at(&mut self, position: u64, least: u64) -> io::Result<Option<Bytes>> {
        let there = self.size.saturating_sub(position);
        let inside = self.inside(position);
        if inside.len() as u64 >= least.min(there) {
            return Ok(Some(inside));
        }
        let mut buffer = Buffer::new(least.max(self.chunk).min(there) as usize);
        let Some(read) = self.mode.read(self.file, &mut buffer, position)? else {
            return Ok(None);
        };
        buffer.truncate(read);
        (self.bytes, self.at) = (buffer.freeze(), position);
        Ok(Some(self.bytes.clone()))
    }

    /// What stands at `position`.
    pub(super) fn batch_at(&mut self, position: u64) -> io::Result<Found> {
        if position >= self.size {
            return Ok(Found::End);
        }
        let Some(bytes) = self.bytes_at(position, HEADER_BYTES as u64)? else {
            return Ok(Found::WouldWait);
        };
        let Some(header) = bytes.first_chunk() else {
            return Ok(Found::Bad(BatchError::Truncated {
                have_bytes: bytes.len(),
                want_bytes: HEADER_BYTES,
            }));
        };
        let header = BatchHeader::read(header);
        let size = match header.size_bytes() {
            Ok(size) if size <= MAX_BATCH_BYTES => size,
            Ok(_) => return Ok(Found::Bad(BatchError::Length(header.batch_length))),
            Err(error) => return Ok(Found::Bad(error)),
        };
        let Some(bytes) = self.bytes_at(position, size as u64)? else {
            return Ok(Found::WouldWait);
        };
        let whole = bytes.slice(..size.min(bytes.len()));
        Ok(match Batch::split(whole) {
            Ok((batch, _)) if batch.header().base_offset < 0 => {
                Found::Bad(BatchError::Records("a negative offset"))
            }
            Ok((batch, _)) => Found::Batch(batch),
            Err(error) => Found::Bad(error),
        })
    }

    /// The first whole batch at or after `position`: where a log goes on after damage.
    pub(super) fn resync(
        &mut self,
        mut position: u64,
        at_least: Offset,
    ) -> io::Result<Option<(u64, Batch)>> {
        while position + HEADER_BYTES as u64 <= self.size {
            let Some(bytes) = self.bytes_at(position, HEADER_BYTES as u64)? else {
                return Err(io::ErrorKind::WouldBlock.into());
            };
            // Only places that look like a header are worth a checksum.
            let looks_right = |b: &[u8; HEADER_BYTES]| {
                let header = BatchHeader::read(b);
                header.magic == 2
                    && header.base_offset >= at_least.get()
                    && header
                        .size_bytes()
                        .is_ok_and(|s| s <= MAX_BATCH_BYTES && position + s as u64 <= self.size)
            };
            if bytes.first_chunk().is_some_and(looks_right)
                && let Found::Batch(batch) = self.batch_at(position)?
            {
                return Ok(Some((position, batch)));
            }
            position += 1;
        }
        Ok(None)
    }
}

/// Where in the segment a read begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    /// By the index in memory; `None` is the segment's first batch.
    Entry(Option<IndexEntry>),
    /// Where the index file says.
    Index,
}

/// A read that was decided and not yet done; it can go to another thread.
#[derive(Clone, Debug)]
pub struct ReadPlan {
    pub(super) segment: Arc<SegmentFiles>,
    pub(super) start: Start,
    pub(super) size_bytes: u64,
    pub(super) from: Offset,
    /// Batches that begin here or later are not read.
    pub(super) limit: Offset,
    /// Most bytes that it gives, but for a first batch that is larger.
    pub max_bytes: u32,
    /// Whether a first batch larger than `max_bytes` is read all the same.
    pub(super) at_least_one: bool,
}

impl ReadPlan {
    /// Reads whole batches from the one that holds the first offset on: file bytes, checked and untouched.
    /// `None` means that [`ReadMode::Now`] would have to wait.
    ///
    /// # Errors
    ///
    /// [`StorageError::Damaged`] if the batch that holds the first offset is not whole.
    pub fn run(&self, mode: ReadMode) -> Result<Option<Bytes>, StorageError> {
        let file = self.segment.log_to_read()?;
        let mut window = Window::new(
            &*file,
            mode,
            self.size_bytes,
            u64::from(self.max_bytes) + SLOP_BYTES,
        );
        match self.first(&mut window, mode) {
            Ok(Place::WouldWait) => Ok(None),
            Ok(Place::Nothing) => Ok(Some(Bytes::new())),
            Ok(Place::Batch(position, batch)) => Ok(Some(self.extend(&window, position, &batch))),
            Ok(Place::Damaged(position)) => Err(StorageError::Damaged {
                path: self.segment.path("log"),
                position,
                offset: self.from,
            }),
            Err(PlaceError::Storage(error)) => Err(error),
            Err(PlaceError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(PlaceError::Io(error)) => Err(StorageError::io(
                "reading",
                &self.segment.path("log"),
            )(error)),
        }
    }

    /// Finds the batch that holds the first offset.
    fn first(&self, window: &mut Window<'_>, mode: ReadMode) -> Result<Place, PlaceError> {
        let entry = match self.start {
            Start::Entry(entry) => entry,
            Start::Index => match self.segment.floor(self.from, mode)? {
                Some(entry) => entry,
                None => return Ok(Place::WouldWait),
            },
        };
        if let Some(entry) = entry {
            let end = self.segment.base() + i64::from(entry.relative_offset) + 1;
            match window.batch_at(u64::from(entry.position))? {
                Found::WouldWait => return Ok(Place::WouldWait),
                Found::Batch(batch) if batch.header().next_offset() == end.get() => {
                    return self.walk(
                        window,
                        u64::from(entry.position),
                        batch.header().base_offset,
                    );
                }
                // An index that lies is no index.
                Found::Batch(_) | Found::End | Found::Bad(_) => {}
            }
        }
        self.walk(window, 0, self.segment.base().get())
    }

    /// Goes from batch to batch, over damage if the log goes on behind it in time.
    fn walk(
        &self,
        window: &mut Window<'_>,
        mut position: u64,
        mut expected: i64,
    ) -> Result<Place, PlaceError> {
        loop {
            match window.batch_at(position)? {
                Found::WouldWait => return Ok(Place::WouldWait),
                // The offset is in the log, so what held it is gone.
                Found::End => return Ok(Place::Damaged(position)),
                Found::Batch(batch) if batch.header().base_offset == expected => {
                    if expected >= self.limit.get() {
                        return Ok(Place::Nothing);
                    }
                    expected = batch.header().next_offset();
                    if expected > self.from.get() {
                        return Ok(Place::Batch(position, batch));
                    }
                    position += batch.size_bytes() as u64;
                }
                // The base offset is not covered by the checksum: one that does not follow is damage too.
                Found::Batch(_) | Found::Bad(_) => {
                    match window.resync(position + 1, Offset::new(expected))? {
                        Some((next, batch)) if batch.header().base_offset <= self.from.get() => {
                            (position, expected) = (next, batch.header().base_offset);
                        }
                        _ => return Ok(Place::Damaged(position)),
                    }
                }
            }
        }
    }

    /// The first batch and those after it that are in the window, whole and within the limits.
    fn extend(&self, window: &Window<'_>, position: u64, first: &Batch) -> Bytes {
        if !self.at_least_one && first.size_bytes() > self.max_bytes as usize {
            return Bytes::new();
        }
        let bytes = window.inside(position);
        let mut end = first.size_bytes();
        let mut next_offset = first.header().next_offset();
        while let Some(header) = bytes[end..].first_chunk() {
            let header = BatchHeader::read(header);
            let Ok(size) = header.size_bytes() else { break };
            let fits = end + size <= (self.max_bytes as usize).min(bytes.len());
            // A batch that does not follow is left for a read that begins there.
            if !fits || header.base_offset >= self.limit.get() || header.base_offset != next_offset
            {
                break;
            }
            if Batch::split(bytes.slice(end..end + size)).is_err() {
                break;
            }
            end += size;
            next_offset = header.next_offset();
        }
        // A small answer does not hold on to a large buffer for as long as its reader likes.
        if end < window.bytes.len() / 2 {
            return Bytes::copy_from_slice(&bytes[..end]);
        }
        bytes.slice(..end)
    }
}

enum Place {
    Batch(u64, Batch),
    Nothing,
    Damaged(u64),
    WouldWait,
}

enum PlaceError {
    Io(io::Error),
    Storage(StorageError),
}

impl From<io::Error> for PlaceError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<StorageError> for PlaceError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// A search for the first record that is not older than a timestamp; it goes to a pool.
#[derive(Debug)]
pub struct TimePlan {
    pub(super) segments: Vec<TimeSegment>,
    pub(super) timestamp: i64,
    pub(super) from: Offset,
    pub(super) limit: Offset,
}

/// One segment of a [`TimePlan`] that has records as new as that.
#[derive(Debug)]
pub(super) struct TimeSegment {
    pub(super) segment: Arc<SegmentFiles>,
    pub(super) size_bytes: u64,
    /// Entries in memory, if it is the newest segment.
    pub(super) entries: Option<Vec<TimeEntry>>,
    pub(super) limit: Offset,
}

impl TimePlan {
    /// Finds the record: its offset and timestamp, at most `limit_bytes` decompressed per batch. Blocks.
    ///
    /// # Errors
    ///
    /// [`StorageError::Damaged`] if a batch that may hold it is not whole.
    pub fn run(&self, limit_bytes: usize) -> Result<Option<(Offset, i64)>, StorageError> {
        for segment in &self.segments {
            if let Some(found) = self.search(segment, limit_bytes)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn search(
        &self,
        s: &TimeSegment,
        limit_bytes: usize,
    ) -> Result<Option<(Offset, i64)>, StorageError> {
        let file = s.segment.log_to_read()?;
        let path = s.segment.path("log");
        let failed = || StorageError::io("reading", &path);
        let entries = s
            .entries
            .clone()
            .unwrap_or_else(|| s.segment.read_time_index());
        let mut window = Window::scan(&*file, s.size_bytes);
        let entry = super::time_index::floor(&entries, self.timestamp);
        let described = match entry {
            Some(entry) => described_by(&s.segment, &mut window, entry)?,
            None => None,
        };
        let mut position = described.map_or(0, |(position, _)| position);
        loop {
            let damaged = || StorageError::Damaged {
                path: path.clone(),
                position,
                offset: self.from,
            };
            let batch = match window.batch_at(position).map_err(failed())? {
                Found::Batch(batch) => batch,
                Found::End | Found::WouldWait => return Ok(None),
                Found::Bad(_) => return Err(damaged()),
            };
            let header = batch.header();
            if header.base_offset >= s.limit.min(self.limit).get() {
                return Ok(None);
            }
            if header.next_offset() > self.from.get() && header.max_timestamp >= self.timestamp {
                let records = batch
                    .records(limit_bytes)
                    .map_err(|e| StorageError::Content {
                        offset: Offset::checked(header.base_offset).unwrap_or_default(),
                        reason: e.to_string(),
                    })?;
                let fits = |r: &&Record| r.timestamp >= self.timestamp && r.offset >= self.from;
                if let Some(record) = records.iter().find(fits) {
                    return Ok(Some((record.offset, record.timestamp)));
                }
            }
            position += batch.size_bytes() as u64;
        }
    }
}

/// The batch that a time entry describes and its position, if there is one: else the entry is wrong. Blocks.
pub(super) fn described_by(
    segment: &SegmentFiles,
    window: &mut Window<'_>,
    entry: TimeEntry,
) -> Result<Option<(u64, Batch)>, StorageError> {
    let end = segment.base() + i64::from(entry.relative_offset) + 1;
    let last = Offset::new(end.get() - 1);
    let floor = segment.floor(last, ReadMode::Blocking)?.flatten();
    let mut position = floor.map_or(0, |e| u64::from(e.position));
    let path = segment.path("log");
    loop {
        match window
            .batch_at(position)
            .map_err(StorageError::io("reading", &path))?
        {
            Found::Batch(batch) if batch.header().next_offset() < end.get() => {
                position += batch.size_bytes() as u64
            }
            Found::Batch(batch) => {
                let header = batch.header();
                let is_right =
                    header.next_offset() == end.get() && header.max_timestamp == entry.timestamp;
                return Ok(is_right.then_some((position, batch)));
            }
            Found::End | Found::Bad(_) | Found::WouldWait => return Ok(None),
        }
    }
}
