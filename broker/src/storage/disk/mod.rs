//! The one door to files.
//!
//! What is assumed of a disk: a write may reach it at any time or never until a sync of that file returns; a
//! new, renamed or removed name may not survive until its directory is synced; a 512-byte sector is written
//! whole or not at all; after a failed sync anything may be true of the bytes that it covered.

mod memory;
mod name;
mod real;
mod simulated;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use memory::MemoryDisk;
pub use real::RealDisk;
pub use simulated::SimulatedDisk;

/// A place with directories and files.
pub trait Disk: Debug + Send + Sync {
    /// Opens a regular file for reading and writing, and creates it if it is not there. Links are not followed.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a regular file that is there. Links are not followed.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not there, `InvalidInput` if it is no regular file, or what the system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Removes a file; one that is not there is removed already.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file or directory another name, in place of what has that name.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not there, or what the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates a directory and those above it.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it; one that is not there is removed already.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// What the operating system says; the names may or may not survive then.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file; closed when the last clone of its `Arc` goes.
pub trait File: Debug + Send + Sync {
    /// Size in bytes.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn size(&self) -> io::Result<u64>;

    /// Reads up to a buffer; fewer bytes only at the end of the file.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// As [`File::read_at`], but answers `None` instead of waiting for the disk.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn read_now_at(&self, buffer: &mut [u8], at: u64) -> io::Result<Option<usize>>;

    /// Writes the parts one after another.
    ///
    /// # Errors
    ///
    /// What the operating system says; any prefix may have been written.
    fn write_at(&self, parts: &[&[u8]], at: u64) -> io::Result<()>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn resize(&self, size: u64) -> io::Result<()>;

    /// Makes content and size durable. After an error nothing is known of what was not durable before: never
    /// call it again for the same bytes.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn sync(&self) -> io::Result<()>;
}

/// Whether an error says that the disk is full.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Reads a whole file of at most `limit_bytes`.
///
/// # Errors
///
/// As [`Disk::open`] and [`File::read_at`]; `InvalidData` if the file is larger.
pub fn read_whole(disk: &dyn Disk, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let size = file.size()?;
    if size > limit_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{size} bytes, at most {limit_bytes} expected"),
        ));
    }
    let mut bytes = vec![0; size as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Replaces a file as a whole: after a crash it has the old content or the new.
///
/// # Errors
///
/// What the operating system says; the old content is then still there.
pub fn replace_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(disk, path, bytes)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("")))
}

/// As [`replace_whole`]; which of the two it has is certain only once its directory is synced.
///
/// # Errors
///
/// As [`replace_whole`].
pub fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    // Rests of an earlier attempt go first; a reused inode could keep a longer tail.
    disk.remove(&temporary)?;
    let write = || -> io::Result<()> {
        let file = disk.create(&temporary)?;
        file.write_at(&[bytes], 0)?;
        file.sync()?;
        disk.rename(&temporary, path)
    };
    // What a full disk has refused takes no space there.
    write().inspect_err(|_| drop(disk.remove(&temporary)))
}

#[cfg(test)]
mod tests;
