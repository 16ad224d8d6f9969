//! A bounded cache of open files: ten thousand partitions must not need thirty thousand descriptors.
//!
//! Whoever has written to a file keeps its `Arc` until it is synced: the file then stays open although the
//! cache has let go of it, and the descriptor that sees the sync's error is the one that wrote.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, File};

#[derive(Debug, Default)]
struct Cache {
    files: BTreeMap<PathBuf, (Arc<dyn File>, u64)>,
    by_use: BTreeMap<u64, PathBuf>,
    uses: u64,
}

/// Files that were used lately, at most `capacity` of them.
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
        let mut cache = self.cache.lock();
        let cache = &mut *cache;
        cache.uses += 1;
        if let Some((file, used)) = cache.files.get_mut(path) {
            let path = cache.by_use.remove(used).unwrap_or_else(|| path.to_owned());
            *used = cache.uses;
            drop(cache.by_use.insert(cache.uses, path));
            return Ok(file.clone());
        }
        let file = if create {
            self.disk.create(path)?
        } else {
            self.disk.open(path)?
        };
        if cache.files.len() >= self.capacity
            && let Some((_, oldest)) = cache.by_use.pop_first()
        {
            drop(cache.files.remove(&oldest));
        }
        drop(
            cache
                .files
                .insert(path.to_owned(), (file.clone(), cache.uses)),
        );
        drop(cache.by_use.insert(cache.uses, path.to_owned()));
        Ok(file)
    }

    /// Lets go of a file that is removed or renamed.
    pub fn forget(&self, path: &Path) {
        let mut cache = self.cache.lock();
        if let Some((_, used)) = cache.files.remove(path) {
            drop(cache.by_use.remove(&used));
        }
    }

    /// Lets go of all files below a directory.
    pub fn forget_below(&self, dir: &Path) {
        let mut cache = self.cache.lock();
        // Paths are in the order of their components: what lies below a directory stands together.
        let from = (Bound::Included(dir), Bound::Unbounded);
        let below = cache.files.range::<Path, _>(from);
        let below = below.take_while(|(path, _)| path.starts_with(dir));
        let below: Vec<(PathBuf, u64)> = below
            .map(|(path, (_, used))| (path.clone(), *used))
            .collect();
        for (path, used) in below {
            drop(cache.files.remove(&path));
            drop(cache.by_use.remove(&used));
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
    fn the_file_that_was_not_used_for_longest_goes_first() {
        let disk = MemoryDisk::default();
        disk.create_dir(Path::new("/d")).expect("created");
        let open = OpenFiles::new(Arc::new(disk), 2);
        for name in ["/d/a", "/d/b", "/d/a", "/d/c"] {
            drop(open.file(Path::new(name), true).expect("opened"));
        }
        let cache = open.cache.lock();
        let names: Vec<_> = cache.files.keys().map(|p| p.to_str().unwrap()).collect();
        assert_eq!(names, ["/d/a", "/d/c"]);
        assert_eq!(cache.by_use.len(), 2);
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
        assert_eq!(cache.by_use.len(), 3);
    }
}
