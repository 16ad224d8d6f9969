//! A bounded cache of open files: ten thousand partitions must not need thirty thousand descriptors.
//!
//! Whoever has written to a file keeps its `Arc` until it is synced: the file then stays open although the
//! cache has let go of it, and the descriptor that sees the sync's error is the one that wrote.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::disk::{Disk, File};

/// A file that the cache holds open.
#[derive(Debug)]
struct Entry {
    file: Arc<dyn File>,
    /// Whether it was used since it stood first in the queue, or came.
    is_hot: AtomicBool,
}

/// Where somebody remembers a file of the cache, so that it need not be looked up by its path each time.
#[derive(Debug, Default)]
pub struct Place(Mutex<Weak<Entry>>);

#[derive(Debug, Default)]
struct Cache {
    files: BTreeMap<PathBuf, (Arc<Entry>, u64)>,
    /// Who goes first if nobody was used meanwhile.
    queue: BTreeMap<u64, PathBuf>,
    number: u64,
}

impl Cache {
    fn put(&mut self, path: &Path, entry: Arc<Entry>) {
        self.number += 1;
        drop(self.queue.insert(self.number, path.to_owned()));
        let placed = (entry, self.number);
        drop(self.files.insert(path.to_owned(), placed));
    }

    fn take(&mut self, path: &Path) -> Option<Arc<Entry>> {
        let (entry, number) = self.files.remove(path)?;
        drop(self.queue.remove(&number));
        Some(entry)
    }

    /// Lets go of one that was not used since it stood first last.
    fn let_one_go(&mut self) {
        while let Some((_, path)) = self.queue.pop_first()
            && let Some((entry, _)) = self.files.remove(&path)
            && entry.is_hot.swap(false, Relaxed)
        {
            self.put(&path, entry);
        }
    }
}

/// Files that were used lately, at most `capacity` of them (second chance: Corbató, 1968).
#[derive(Debug)]
pub struct OpenFiles {
    disk: Arc<dyn Disk>,
    capacity: usize,
    cache: Mutex<Cache>,
}

impl OpenFiles {
    /// An empty cache over `disk`.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, capacity: usize) -> Self {
        Self {
            disk,
            capacity: capacity.max(1),
            cache: Mutex::default(),
        }
    }

    /// The disk behind the cache.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The open file at `path`; `create` creates it if it is not there.
    ///
    /// # Errors
    ///
    /// As [`Disk::open`] and [`Disk::create`].
    pub fn file(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        Ok(self.entry(path, create)?.file.clone())
    }

    /// As [`OpenFiles::file`], of a file that has a place; it is asked for its path only if the cache does not hold it.
    ///
    /// # Errors
    ///
    /// As [`OpenFiles::file`].
    pub fn file_at(
        &self,
        place: &Place,
        path: impl FnOnce() -> PathBuf,
        create: bool,
    ) -> io::Result<Arc<dyn File>> {
        let mut remembered = place.0.lock();
        if let Some(entry) = remembered.upgrade() {
            entry.is_hot.store(true, Relaxed);
            return Ok(entry.file.clone());
        }
        let entry = self.entry(&path(), create)?;
        *remembered = Arc::downgrade(&entry);
        Ok(entry.file.clone())
    }

    fn entry(&self, path: &Path, create: bool) -> io::Result<Arc<Entry>> {
        let mut cache = self.cache.lock();
        if let Some((entry, _)) = cache.files.get(path) {
            entry.is_hot.store(true, Relaxed);
            return Ok(entry.clone());
        }
        let file = match create {
            true => self.disk.create(path)?,
            false => self.disk.open(path)?,
        };
        if cache.files.len() >= self.capacity {
            cache.let_one_go();
        }
        let entry = Arc::new(Entry {
            file,
            is_hot: AtomicBool::new(false),
        });
        cache.put(path, entry.clone());
        Ok(entry)
    }

    /// Lets go of a file that is removed or renamed.
    pub fn forget(&self, path: &Path) {
        drop(self.cache.lock().take(path));
    }

    /// Lets go of all files below a directory.
    pub fn forget_below(&self, dir: &Path) {
        let mut cache = self.cache.lock();
        // Paths are in the order of their components: what lies below a directory stands together.
        let from = (Bound::Included(dir), Bound::Unbounded);
        let below = cache.files.range::<Path, _>(from);
        let below = below.take_while(|(path, _)| path.starts_with(dir));
        let below: Vec<PathBuf> = below.map(|(path, _)| path.clone()).collect();
        for path in below {
            drop(cache.take(&path));
        }
    }

    /// How many files the cache holds open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.lock().files.len()
    }

    /// Whether the cache holds no file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::MemoryDisk;
    use super::*;

    #[test]
    fn a_file_that_was_not_used_goes_before_one_that_was() {
        let disk = MemoryDisk::default();
        disk.create_dir(Path::new("/d")).expect("created");
        let open = OpenFiles::new(Arc::new(disk), 2);
        for name in ["/d/a", "/d/b", "/d/a", "/d/c"] {
            drop(open.file(Path::new(name), true).expect("opened"));
        }
        let cache = open.cache.lock();
        let names: Vec<_> = cache.files.keys().map(|p| p.to_str().unwrap()).collect();
        assert_eq!(names, ["/d/a", "/d/c"]);
        assert_eq!(cache.queue.len(), 2);
    }

    #[test]
    fn who_remembers_a_file_uses_it_and_finds_it_again_when_it_was_let_go() {
        let disk = MemoryDisk::default();
        disk.create_dir(Path::new("/d")).expect("created");
        let open = OpenFiles::new(Arc::new(disk), 2);
        let place = Place::default();
        let a = |create| open.file_at(&place, || "/d/a".into(), create);
        assert!(a(false).is_err(), "it is not there");
        let first = a(true).expect("created");
        first.write_at(&[b"x"], 0).expect("written");
        drop(open.file(Path::new("/d/b"), true).expect("opened"));
        let again = open.file_at(&place, || panic!("it is remembered"), false);
        assert_eq!(again.expect("opened").size().ok(), Some(1));
        drop(open.file(Path::new("/d/c"), true).expect("opened"));
        assert_eq!(open.len(), 2);
        let again = open.file_at(&place, || panic!("it was used"), false);
        drop(again.expect("it was let stay"));
        open.forget(Path::new("/d/a"));
        drop(first);
        assert_eq!(a(false).expect("opened").size().ok(), Some(1));
    }

    #[test]
    fn what_lies_below_a_directory_is_let_go_and_its_neighbours_are_not() {
        let disk = MemoryDisk::default();
        for dir in ["/t-1", "/t-1/x", "/t-10", "/t-2"] {
            disk.create_dir(Path::new(dir)).expect("created");
        }
        let open = OpenFiles::new(Arc::new(disk), 10);
        for name in ["/t-1/a", "/t-1/x/b", "/t-10/c", "/t-2/d", "/t-1.log"] {
            drop(open.file(Path::new(name), true).expect("opened"));
        }
        open.forget_below(Path::new("/t-1"));
        let cache = open.cache.lock();
        let names: Vec<_> = cache.files.keys().map(|p| p.to_str().unwrap()).collect();
        assert_eq!(names, ["/t-1.log", "/t-10/c", "/t-2/d"]);
        assert_eq!(cache.queue.len(), 3);
    }
}
