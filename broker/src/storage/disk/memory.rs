//! Files in memory: for nodes inside of tests. Nothing is lost while the disk lives.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::{Disk, File};

#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<PathBuf, Arc<MemoryFile>>,
    dirs: BTreeSet<PathBuf>,
}

/// A disk in memory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Tree>>);

#[derive(Debug, Default)]
struct MemoryFile(RwLock<Vec<u8>>);

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// Copies what a buffer can take from `at` on.
pub(super) fn copy_out(content: &[u8], buffer: &mut [u8], at: u64) -> usize {
    let from = usize::try_from(at).unwrap_or(usize::MAX).min(content.len());
    let length = buffer.len().min(content.len() - from);
    buffer[..length].copy_from_slice(&content[from..from + length]);
    length
}

/// Copies the parts to `at`, extending the content as needed.
pub(super) fn copy_in(content: &mut Vec<u8>, parts: &[&[u8]], at: u64) {
    let mut at = at as usize;
    let end = at + parts.iter().map(|p| p.len()).sum::<usize>();
    if content.len() < end {
        content.resize(end, 0);
    }
    for part in parts {
        content[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
}

/// The names directly below `dir`.
fn children<'a>(dir: &Path, paths: impl Iterator<Item = &'a PathBuf>) -> Vec<String> {
    let mut names: Vec<String> = paths
        .filter(|p| p.parent() == Some(dir))
        .filter_map(|p| p.file_name()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// The same path with the directory `from` in front replaced by `to`.
fn moved(path: &Path, from: &Path, to: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(from).ok()?;
    Some(if below.as_os_str().is_empty() {
        to.to_owned()
    } else {
        to.join(below)
    })
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut tree = self.0.lock();
        if !path.parent().is_some_and(|p| tree.dirs.contains(p)) {
            return Err(not_found());
        }
        Ok(tree.files.entry(path.to_owned()).or_default().clone())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self
            .0
            .lock()
            .files
            .get(path)
            .cloned()
            .ok_or_else(not_found)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        drop(self.0.lock().files.remove(path));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.0.lock();
        if !tree.files.contains_key(from) && !tree.dirs.contains(from) {
            return Err(not_found());
        }
        let files = std::mem::take(&mut tree.files);
        // What has the new name goes first, so that what gets it replaces it.
        let (mut kept, mut renamed) = (BTreeMap::new(), BTreeMap::new());
        for (path, file) in files {
            match moved(&path, from, to) {
                Some(path) => drop(renamed.insert(path, file)),
                None => drop(kept.insert(path, file)),
            }
        }
        kept.extend(renamed);
        tree.files = kept;
        tree.dirs = tree
            .dirs
            .iter()
            .map(|d| moved(d, from, to).unwrap_or_else(|| d.clone()))
            .collect();
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let tree = self.0.lock();
        if !tree.dirs.contains(dir) {
            return Err(not_found());
        }
        Ok(children(dir, tree.files.keys().chain(&tree.dirs)))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0
            .lock()
            .dirs
            .extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut tree = self.0.lock();
        tree.files.retain(|path, _| !path.starts_with(dir));
        tree.dirs.retain(|path| !path.starts_with(dir));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl File for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.read().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        Ok(copy_out(&self.0.read(), buffer, at))
    }

    fn read_now_at(&self, buffer: &mut [u8], at: u64) -> io::Result<Option<usize>> {
        self.read_at(buffer, at).map(Some)
    }

    fn write_at(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        copy_in(&mut self.0.write(), parts, at);
        Ok(())
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        self.0.write().resize(size as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
