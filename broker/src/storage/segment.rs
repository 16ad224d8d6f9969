//! One segment of a log: a `.log` file of batches with its two indexes.
//!
//! The newest segment keeps its indexes in memory and writes them out at checkpoints; older ones are looked up
//! in their files.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use callboard_common::record::{Batch, HEADER_BYTES};
use callboard_common::{LeaderEpoch, Offset, Timestamp};

use super::disk::{File, is_full, read_whole};
use super::offset_index::{self, IndexEntry};
use super::open_files::{OpenFiles, Place};
use super::time_index::{self, TimeEntry};
use super::{ReadMode, StorageError};

/// An index of a segment of the largest size and densest interval.
const INDEX_LIMIT_BYTES: u64 = 1 << 30;

/// The files of one segment; they are opened as needed.
#[derive(Debug)]
pub struct SegmentFiles {
    dir: Arc<PathBuf>,
    base: Offset,
    open: Arc<OpenFiles>,
    log: Place,
    index: Place,
}

impl SegmentFiles {
    /// Names the files of the segment that begins at `base`.
    #[must_use]
    pub fn new(dir: Arc<PathBuf>, base: Offset, open: Arc<OpenFiles>) -> Arc<Self> {
        Arc::new(Self {
            dir,
            base,
            open,
            log: Place::default(),
            index: Place::default(),
        })
    }

    /// The offset the segment begins at.
    #[must_use]
    pub fn base(&self) -> Offset {
        self.base
    }

    /// The file with this ending.
    #[must_use]
    pub fn path(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{:020}.{ending}", self.base.get()))
    }

    /// The open `.log` file, created if it is not there.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn log(&self) -> Result<Arc<dyn File>, StorageError> {
        self.open_log(true)
    }

    /// The open `.log` file for a reader: what was removed meanwhile stays removed.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn log_to_read(&self) -> Result<Arc<dyn File>, StorageError> {
        self.open_log(false)
    }

    fn open_log(&self, create: bool) -> Result<Arc<dyn File>, StorageError> {
        let path = || self.path("log");
        let opened = self.open.file_at(&self.log, path, create);
        opened.map_err(|e| StorageError::io("opening", &path())(e))
    }

    /// Where to begin in the `.log` for an offset, by the index file: an entry or the segment's first batch. The
    /// outer `None` means that this would wait for the disk.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn floor(
        &self,
        offset: Offset,
        mode: ReadMode,
    ) -> Result<Option<Option<IndexEntry>>, StorageError> {
        let relative = relative(self.base, offset);
        let search = || -> io::Result<Option<Option<IndexEntry>>> {
            let opened = self.open.file_at(&self.index, || self.path("index"), false);
            let file = match opened {
                Ok(file) => file,
                // Without an index the scan begins at the segment's first batch.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(None)),
                Err(error) => return Err(error),
            };
            let (mut low, mut high) = (0, file.size()? / offset_index::ENTRY_BYTES as u64);
            let mut floor = None;
            while low < high {
                let middle = low + (high - low) / 2;
                let mut bytes = [0; offset_index::ENTRY_BYTES];
                match mode.read(
                    &*file,
                    &mut bytes,
                    middle * offset_index::ENTRY_BYTES as u64,
                )? {
                    None => return Ok(None),
                    Some(_) => {
                        let entry = IndexEntry::from_bytes(&bytes);
                        if entry.relative_offset <= relative {
                            floor = Some(entry);
                            low = middle + 1;
                        } else {
                            high = middle;
                        }
                    }
                }
            }
            Ok(Some(floor))
        };
        search().map_err(|e| StorageError::io("reading", &self.path("index"))(e))
    }

    /// The entries of the index file that are in order.
    #[must_use]
    pub fn read_index(&self, segment_size: u64) -> Vec<IndexEntry> {
        let bytes = read_whole(&**self.open.disk(), &self.path("index"), INDEX_LIMIT_BYTES)
            .unwrap_or_default();
        offset_index::parse(&bytes, segment_size)
    }

    /// The entries of the time index file that are in order.
    #[must_use]
    pub fn read_time_index(&self) -> Vec<TimeEntry> {
        let bytes = read_whole(
            &**self.open.disk(),
            &self.path("timeindex"),
            INDEX_LIMIT_BYTES,
        )
        .unwrap_or_default();
        time_index::parse(&bytes)
    }

    /// Removes the files; names that are gone already do not matter.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn remove(&self) -> Result<(), StorageError> {
        for ending in ["log", "index", "timeindex"] {
            let path = self.path(ending);
            self.open.forget(&path);
            self.open
                .disk()
                .remove(&path)
                .map_err(StorageError::io("removing", &path))?;
        }
        Ok(())
    }
}

/// `offset` as an index counts it; what is out of its reach is as far as it reaches.
fn relative(base: Offset, offset: Offset) -> u32 {
    u32::try_from((offset - base).max(0)).unwrap_or(u32::MAX)
}

/// One segment, its size and what is known of its content.
#[derive(Debug)]
pub struct Segment {
    /// Its files.
    pub files: Arc<SegmentFiles>,
    /// Bytes of batches.
    pub size_bytes: u64,
    /// Offset after the last record.
    pub end: Offset,
    /// Largest timestamp and the offset after its batch; `None` without records.
    pub max_timestamp: Option<(i64, Offset)>,
    /// When the first batch was appended, as far as this process saw it.
    pub first_append: Option<Timestamp>,
    /// Held from the first write after a sync until the next: the descriptor that will see a sync's error.
    pub unsynced: Option<Arc<dyn File>>,
    /// Whether its indexes are in their files only, because it is not the newest.
    pub sealed: bool,
    /// Indexes in memory while the segment is the newest, and how much of them the files have.
    index: Vec<IndexEntry>,
    time_index: Vec<TimeEntry>,
    index_written: usize,
    time_index_written: usize,
    bytes_since_index: u64,
}

impl Segment {
    /// An empty segment.
    #[must_use]
    pub fn new(files: Arc<SegmentFiles>) -> Self {
        let end = files.base;
        Self {
            files,
            size_bytes: 0,
            end,
            max_timestamp: None,
            first_append: None,
            unsynced: None,
            sealed: false,
            index: Vec::new(),
            time_index: Vec::new(),
            index_written: 0,
            time_index_written: 0,
            bytes_since_index: 0,
        }
    }

    /// The offset the segment begins at.
    #[must_use]
    pub fn base(&self) -> Offset {
        self.files.base
    }

    /// How many entries its index has in memory.
    #[cfg(test)]
    pub(super) fn index_entries(&self) -> usize {
        self.index.len()
    }

    /// Takes over index entries that are known to be right, as far as the files have them.
    pub fn restore_indexes(&mut self, index: Vec<IndexEntry>, time_index: Vec<TimeEntry>) {
        self.index_written = index.len();
        self.time_index_written = time_index.len();
        if let Some(last) = time_index.last() {
            self.max_timestamp = Some((
                last.timestamp,
                self.base() + i64::from(last.relative_offset) + 1,
            ));
        }
        (self.index, self.time_index) = (index, time_index);
    }

    /// Entries of the index in memory.
    #[must_use]
    pub fn index(&self) -> &[IndexEntry] {
        &self.index
    }

    /// Entries of the time index in memory, with the newest maximum that has no entry yet.
    #[must_use]
    pub fn time_entries(&self) -> Vec<TimeEntry> {
        let mut entries = self.time_index.clone();
        entries.extend(self.pending_time_entry());
        entries
    }

    /// Where to begin for an offset, by the index in memory.
    #[must_use]
    pub fn floor(&self, offset: Offset) -> Option<IndexEntry> {
        offset_index::floor(&self.index, relative(self.base(), offset))
    }

    /// Writes a batch at the end of the file.
    ///
    /// # Errors
    ///
    /// [`StorageError::Full`]: the file is as before. Any other error leaves it in an unknown state.
    pub fn append(
        &mut self,
        batch: &Batch,
        base: Offset,
        epoch: LeaderEpoch,
    ) -> Result<(), StorageError> {
        let file = match &self.unsynced {
            Some(file) => file.clone(),
            None => self.files.log()?,
        };
        let header = batch.placed(base, epoch).write();
        let written = file.write_at(&[&header, &batch.bytes()[HEADER_BYTES..]], self.size_bytes);
        // Also a failed write has touched the file.
        self.unsynced = Some(file.clone());
        if let Err(error) = written {
            let path = self.files.path("log");
            if is_full(&error) {
                file.resize(self.size_bytes)
                    .map_err(StorageError::io("cutting", &path))?;
            }
            return Err(StorageError::io("writing", &path)(error));
        }
        Ok(())
    }

    /// Notes a batch that stands at the end of the file.
    pub fn note(&mut self, end: Offset, max_timestamp: i64, size_bytes: u64, index_interval: u32) {
        let position = self.size_bytes;
        if self.bytes_since_index > u64::from(index_interval) {
            let relative_offset = relative(self.base(), end) - 1;
            self.index.push(IndexEntry {
                relative_offset,
                position: position as u32,
            });
            self.bytes_since_index = 0;
            self.time_index.extend(self.pending_time_entry());
        }
        if self
            .max_timestamp
            .is_none_or(|(largest, _)| max_timestamp > largest)
        {
            self.max_timestamp = Some((max_timestamp, end));
        }
        self.bytes_since_index += size_bytes;
        self.size_bytes += size_bytes;
        self.end = end;
    }

    /// Notes that the batch which follows begins at `offset`, behind bytes that cannot be read: who wants it must not begin
    /// before them.
    pub fn note_gap(&mut self, offset: Offset) {
        self.end = offset;
        let relative_offset = relative(self.base(), offset);
        let follows = |last: &IndexEntry| relative_offset > last.relative_offset;
        if self.index.last().is_none_or(follows) {
            let position = self.size_bytes as u32;
            self.index.push(IndexEntry {
                relative_offset,
                position,
            });
            self.bytes_since_index = 0;
        }
    }

    /// The entry for the largest timestamp, if the index lacks it.
    fn pending_time_entry(&self) -> Option<TimeEntry> {
        let (timestamp, end) = self.max_timestamp?;
        let entry = TimeEntry {
            timestamp,
            relative_offset: relative(self.base(), end) - 1,
        };
        let rises = |last: &TimeEntry| {
            timestamp > last.timestamp && entry.relative_offset > last.relative_offset
        };
        self.time_index.last().is_none_or(rises).then_some(entry)
    }

    /// Writes what the index files lack. Their sync does not matter: they are caches.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn write_indexes(&mut self) -> Result<(), StorageError> {
        // The files have them, and memory has none any more.
        if self.sealed {
            return Ok(());
        }
        self.time_index.extend(self.pending_time_entry());
        let index: Vec<u8> = self.index[self.index_written..]
            .iter()
            .flat_map(|e| e.to_bytes())
            .collect();
        let times: Vec<u8> = self.time_index[self.time_index_written..]
            .iter()
            .flat_map(|e| e.to_bytes())
            .collect();
        for (ending, bytes, at) in [
            (
                "index",
                index,
                self.index_written * offset_index::ENTRY_BYTES,
            ),
            (
                "timeindex",
                times,
                self.time_index_written * time_index::ENTRY_BYTES,
            ),
        ] {
            let path = self.files.path(ending);
            let write = || -> io::Result<()> {
                let file = self.files.open.file(&path, true)?;
                if file.size()? != at as u64 {
                    file.resize(at as u64)?;
                }
                if bytes.is_empty() {
                    Ok(())
                } else {
                    file.write_at(&[&bytes], at as u64)
                }
            };
            write().map_err(StorageError::io("writing", &path))?;
        }
        (self.index_written, self.time_index_written) = (self.index.len(), self.time_index.len());
        Ok(())
    }

    /// The segment is not the newest any more: its indexes go to their files and out of memory.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn seal(&mut self) -> Result<(), StorageError> {
        self.write_indexes()?;
        self.sealed = true;
        (self.index, self.time_index) = (Vec::new(), Vec::new());
        (self.index_written, self.time_index_written) = (0, 0);
        Ok(())
    }
}
