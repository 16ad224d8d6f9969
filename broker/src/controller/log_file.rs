//! The metadata log on disk: `metadata.log` and `metadata.image` in the data directory.
//!
//! The log is a row of frames: length (4 bytes), CRC-32C (4), content. Every write is one frame and is synced
//! before the next is written, so only the last frame can be torn: it is cut off, its bytes are kept. A bad frame
//! that others follow is damage, and the node refuses to start on it.
//!
//! A reserve file makes sure that metadata can be written when the disk is full of data.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callboard_common::record::batch::checksum;

use super::image::MetadataImage;
use super::old_image::OldImage;
use super::raft_wire::Quorum;
use super::records::{bincode_config, encode};
use super::state::{Effect, Persisted, SavedImage};
use crate::planted::{self, Bug};
use crate::storage::disk::{self, Disk, File};
use crate::storage::{StorageError, disk::is_full};

const LOG: &str = "metadata.log";
const SNAPSHOT: &str = "metadata.image";
/// What images were called before partitions had replicas.
const OLD_SNAPSHOT: &str = "metadata.snapshot";
const RESERVE: &str = "metadata.reserve";
/// Where a torn end is kept.
const QUARANTINE: &str = "metadata.log.quarantine";
/// Kept free for metadata when the disk is full.
pub const RESERVE_BYTES: usize = 4 << 20;
/// Frames are as large as a write of Raft at most.
const FRAME_LIMIT_BYTES: usize = 64 << 20;
const LOG_LIMIT_BYTES: u64 = 1 << 30;

/// The open metadata log.
#[derive(Debug)]
pub struct MetadataLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Arc<dyn File>,
    end: u64,
    reserve_bytes: usize,
}

/// What was found on disk.
#[derive(Debug)]
pub struct Restored {
    /// The newest image.
    pub saved: Option<SavedImage>,
    /// The writes after it.
    pub writes: Vec<Persisted>,
    /// Bytes of a torn last write that were cut off and kept.
    pub torn_bytes: u64,
}

fn frame(content: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(content.len() + 8);
    frame.extend_from_slice(&(content.len() as u32).to_be_bytes());
    frame.extend_from_slice(&checksum(content).to_be_bytes());
    frame.extend_from_slice(content);
    frame
}

/// Takes a frame off the front: its content and what follows, or `None` if it is torn.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (claimed, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    let content = rest
        .get(..length)
        .filter(|_| length > 0 && length <= FRAME_LIMIT_BYTES)?;
    (checksum(content) == u32::from_be_bytes(*claimed)).then(|| (content, &rest[length..]))
}

/// Whether a data directory holds metadata: it belongs to a quorum, or voted.
#[must_use]
pub fn has_content(disk: &dyn Disk, dir: &Path) -> bool {
    let size = |name: &str| {
        disk.open(&dir.join(name))
            .and_then(|f| f.size())
            .unwrap_or(0)
    };
    [LOG, SNAPSHOT, OLD_SNAPSHOT]
        .iter()
        .any(|name| size(name) > 0)
}

/// Removes the metadata of a data directory, whose node is stopped.
///
/// # Errors
///
/// What the disk says.
pub fn forget(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    for name in [SNAPSHOT, OLD_SNAPSHOT, LOG] {
        let path = dir.join(name);
        disk.remove(&path)
            .map_err(StorageError::io("removing", &path))?;
    }
    disk.sync_dir(dir).map_err(StorageError::io("syncing", dir))
}

/// Reads frames; the second value is how many bytes are whole.
#[must_use]
pub fn parse(bytes: &[u8]) -> (Vec<Persisted>, usize) {
    let mut writes = Vec::new();
    let mut rest = bytes;
    while let Some((content, after)) = split_frame(rest) {
        let Ok((write, _)) = bincode::decode_from_slice(content, bincode_config()) else {
            break;
        };
        writes.push(write);
        rest = after;
    }
    (writes, bytes.len() - rest.len())
}

/// Whether a whole frame stands anywhere in the bytes after a bad one.
fn holds_a_frame(bytes: &[u8]) -> bool {
    (1..bytes.len()).any(|at| split_frame(&bytes[at..]).is_some())
}

impl MetadataLog {
    /// Opens or creates the log of a data directory, with so much kept free for it. Blocks.
    ///
    /// # Errors
    ///
    /// [`StorageError::Contradiction`] if it is damaged before its end.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        reserve_bytes: usize,
    ) -> Result<(Self, Restored), StorageError> {
        let path = dir.join(LOG);
        let saved = Self::read_snapshot(&*disk, dir)?;
        let file = disk
            .create(&path)
            .map_err(StorageError::io("opening", &path))?;
        let size = file.size().map_err(StorageError::io("measuring", &path))?;
        let bytes = disk::read_whole(&*disk, &path, LOG_LIMIT_BYTES)
            .map_err(StorageError::io("reading", &path))?;
        let (writes, whole) = parse(&bytes);
        if holds_a_frame(&bytes[whole..]) {
            let what =
                format!("it is damaged at byte {whole}; restore the data directory from a copy");
            return Err(StorageError::Contradiction { path, what });
        }
        let torn_bytes = size - whole as u64;
        if torn_bytes > 0 {
            let _kept = Self::replace(&*disk, dir, QUARANTINE, &bytes[whole..])?;
            file.resize(whole as u64)
                .map_err(StorageError::io("cutting", &path))?;
        }
        // A sync of an earlier process may have failed and left in memory what the disk has not: what was read is written
        // anew, because a sync of the same bytes would say that all is well.
        let file = match whole {
            0 => file,
            whole => {
                let path = Self::replace(&*disk, dir, LOG, &bytes[..whole])?;
                disk.open(&path)
                    .map_err(StorageError::io("opening", &path))?
            }
        };
        file.sync().map_err(StorageError::io("syncing", &path))?;
        let log = Self {
            disk,
            dir: dir.to_owned(),
            file,
            end: whole as u64,
            reserve_bytes,
        };
        log.refill_reserve();
        log.disk
            .sync_dir(dir)
            .map_err(StorageError::io("syncing", dir))?;
        Ok((
            log,
            Restored {
                saved,
                writes,
                torn_bytes,
            },
        ))
    }

    fn read_snapshot(disk: &dyn Disk, dir: &Path) -> Result<Option<SavedImage>, StorageError> {
        if let Some(content) = Self::read_framed(disk, &dir.join(SNAPSHOT))? {
            let decoded = bincode::decode_from_slice(&content, bincode_config());
            let damaged = |_| Self::damaged(dir.join(SNAPSHOT));
            return decoded.map(|(saved, _)| Some(saved)).map_err(damaged);
        }
        let path = dir.join(OLD_SNAPSHOT);
        let Some(content) = Self::read_framed(disk, &path)? else {
            return Ok(None);
        };
        // The oldest lack the part about users; an empty one is zeros.
        let padded = [&*content, &[0; 3]].concat();
        let decoded = bincode::decode_from_slice::<(u64, OldImage), _>(&padded, bincode_config());
        let ((term, image), _) = decoded.map_err(|_| Self::damaged(path))?;
        Ok(Some(SavedImage {
            term,
            quorum: Quorum::default(),
            image: Arc::new(MetadataImage::from(image)),
        }))
    }

    /// It is replaced as a whole, so it cannot be torn.
    fn damaged(path: PathBuf) -> StorageError {
        StorageError::Contradiction {
            path,
            what: "the image is damaged".into(),
        }
    }

    /// The one frame of a file, if there is such a file.
    fn read_framed(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
        let bytes = match disk::read_whole(disk, path, LOG_LIMIT_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("reading", path)(error)),
        };
        let content = split_frame(&bytes).filter(|(_, rest)| rest.is_empty());
        let content = content.ok_or_else(|| Self::damaged(path.to_owned()))?.0;
        Ok(Some(content.to_vec()))
    }

    /// Appends a write and syncs it. Blocks.
    ///
    /// # Errors
    ///
    /// [`StorageError`]: the write is not in the log, or nothing is known of it after a failed sync. Metadata
    /// must not go on then.
    pub fn persist(&mut self, write: &Persisted) -> Result<(), StorageError> {
        if *write == Persisted::default() {
            return Ok(());
        }
        let content = encode(write);
        let frame = frame(&content);
        let path = self.dir.join(LOG);
        let write = || self.file.write_at(&[&frame], self.end);
        if let Err(error) = Self::with_reserve(&*self.disk, &self.dir, write) {
            self.file
                .resize(self.end)
                .map_err(StorageError::io("cutting", &path))?;
            return Err(StorageError::io("writing", &path)(error));
        }
        if !planted::is(Bug::MetadataNotSynced)
            && let Err(error) = self.file.sync()
        {
            // Nothing is known of the write: it must not stand before those that follow.
            self.file
                .resize(self.end)
                .map_err(StorageError::io("cutting", &path))?;
            return Err(StorageError::io("syncing", &path)(error));
        }
        self.end += frame.len() as u64;
        Ok(())
    }

    /// Writes what the controller wants written, which nothing but its images and writes is; with the number of a write. Blocks.
    pub fn write(&mut self, effect: Effect) -> (Option<u64>, Result<(), StorageError>) {
        match effect {
            Effect::Persist(number, write) => (Some(number), self.persist(&write)),
            Effect::Snapshot(saved, rest) => (None, self.snapshot(&saved, &rest)),
            Effect::Answer(..)
            | Effect::Publish(_)
            | Effect::Led(_)
            | Effect::Send(..)
            | Effect::Forward(..)
            | Effect::TooNew(_)
            | Effect::Outdated => (None, Ok(())),
        }
    }

    /// Writes something, on a full disk with what the reserve gives.
    fn with_reserve<T>(
        disk: &dyn Disk,
        dir: &Path,
        write: impl Fn() -> io::Result<T>,
    ) -> io::Result<T> {
        match write() {
            Err(error) if is_full(&error) && disk.remove(&dir.join(RESERVE)).is_ok() => write(),
            written => written,
        }
    }

    /// Replaces a file, on a full disk with what the reserve gives.
    fn replace(
        disk: &dyn Disk,
        dir: &Path,
        name: &str,
        content: &[u8],
    ) -> Result<PathBuf, StorageError> {
        let path = dir.join(name);
        let replaced = Self::with_reserve(disk, dir, || disk::replace_whole(disk, &path, content));
        replaced.map_err(StorageError::io("writing", &path))?;
        Ok(path)
    }

    /// Replaces log and snapshot by a newer image. Blocks.
    ///
    /// # Errors
    ///
    /// [`StorageError`]: the old snapshot and log are still there.
    pub fn snapshot(&mut self, saved: &SavedImage, rest: &Persisted) -> Result<(), StorageError> {
        let (disk, dir) = (&*self.disk, &self.dir);
        let _path = Self::replace(disk, dir, SNAPSHOT, &frame(&encode(saved)))?;
        // A crash here leaves a log that the snapshot has overtaken, which restoring understands.
        let frame = frame(&encode(rest));
        let path = Self::replace(disk, dir, LOG, &frame)?;
        self.file = self
            .disk
            .open(&path)
            .map_err(StorageError::io("opening", &path))?;
        self.end = frame.len() as u64;
        self.refill_reserve();
        Ok(())
    }

    /// Fills the reserve if there is space: without it the node works, only closer to the edge.
    fn refill_reserve(&self) {
        let path = self.dir.join(RESERVE);
        let fill = || -> io::Result<()> {
            let file = self.disk.create(&path)?;
            let size = file.size()?;
            if size < self.reserve_bytes as u64 {
                file.write_at(&[&vec![0; self.reserve_bytes - size as usize]], size)?;
            }
            Ok(())
        };
        if fill().is_err() {
            let _kept_small = self.disk.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::SimulatedDisk;

    const DIR: &str = "/data";

    fn disk() -> SimulatedDisk {
        let disk = SimulatedDisk::new(5);
        disk.create_dir(Path::new(DIR)).expect("created");
        disk
    }

    fn open(disk: &SimulatedDisk) -> Result<(MetadataLog, Restored), StorageError> {
        MetadataLog::open(Arc::new(disk.clone()), Path::new(DIR), RESERVE_BYTES)
    }

    fn write(n: u8) -> Persisted {
        Persisted {
            hard_state: None,
            entries: vec![vec![n; 200]],
        }
    }

    #[test]
    fn writes_survive_and_a_torn_one_is_cut() {
        let disk = disk();
        let (mut log, _) = open(&disk).expect("opens");
        (0..5).for_each(|n| log.persist(&write(n)).expect("written"));
        let whole = log.end;
        for cut in 1..200 {
            let file = disk.open(&Path::new(DIR).join(LOG)).expect("there");
            file.write_at(&[&frame(&vec![1; 300])[..cut as usize]], whole)
                .expect("written");
            let (log, restored) = open(&disk).expect("opens");
            assert_eq!(
                (restored.writes.len(), restored.torn_bytes, log.end),
                (5, cut, whole)
            );
        }
    }

    #[test]
    fn damage_in_the_middle_is_not_cut_off() {
        let disk = disk();
        let (mut log, _) = open(&disk).expect("opens");
        (0..5).for_each(|n| log.persist(&write(n)).expect("written"));
        disk.rot(&Path::new(DIR).join(LOG), 300, 1);
        assert!(matches!(
            open(&disk),
            Err(StorageError::Contradiction { .. })
        ));
    }

    #[test]
    fn metadata_is_written_although_the_disk_is_full() {
        let disk = disk();
        let (mut log, _) = open(&disk).expect("opens");
        disk.set_capacity(disk.used_bytes());
        (0..100).for_each(|n| {
            log.persist(&write(n))
                .expect("the reserve is there for this")
        });
        disk.set_capacity(u64::MAX);
        drop(log);
        assert_eq!(open(&disk).expect("opens").1.writes.len(), 100);
        assert!(
            disk.used_bytes() > RESERVE_BYTES as u64,
            "the reserve is filled again"
        );
    }

    #[test]
    fn an_image_is_written_although_the_disk_is_full() {
        let disk = disk();
        let (mut log, _) = open(&disk).expect("opens");
        disk.set_capacity(disk.used_bytes());
        let saved = SavedImage {
            term: 3,
            quorum: Quorum::default(),
            image: Arc::default(),
        };
        for n in 0..20 {
            let written = log.snapshot(&saved, &write(n));
            written.expect("the reserve is there for this too");
        }
        assert_eq!(open(&disk).expect("opens").1.writes, [write(19)]);
        for n in 0..20 {
            // The disk is as full again; only the reserve is there.
            disk.set_capacity(u64::MAX);
            let (mut log, _) = open(&disk).expect("opens");
            disk.set_capacity(disk.used_bytes());
            log.persist(&write(n)).expect("written");
            drop(log);
            drop(open(&disk).expect("it opens with the reserve"));
        }
    }

    #[test]
    fn a_snapshot_replaces_the_log() {
        let disk = disk();
        let (mut log, _) = open(&disk).expect("opens");
        (0..5).for_each(|n| log.persist(&write(n)).expect("written"));
        let image = MetadataImage {
            applied: 5,
            next_producer_id: 9,
            ..MetadataImage::default()
        };
        let saved = SavedImage {
            term: 3,
            quorum: Quorum::default(),
            image: Arc::new(image),
        };
        let rest = Persisted {
            hard_state: Some(vec![7]),
            entries: vec![vec![8]],
        };
        log.snapshot(&saved, &rest).expect("written");
        log.persist(&write(9)).expect("written");
        disk.crash();
        let (_, restored) = open(&disk).expect("opens");
        assert_eq!(restored.saved, Some(saved));
        assert_eq!(restored.writes, [rest, write(9)]);
        disk.rot(&Path::new(DIR).join(SNAPSHOT), 9, 1);
        assert!(open(&disk).is_err());
    }
}
