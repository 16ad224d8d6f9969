//! A disk that fails: loses what was not synced, tears writes by sector, forgets names, refuses syncs, fills up.
//!
//! Each file has the content that programs see and the content that the medium has. A sync copies one to the
//! other; [`SimulatedDisk::crash`] keeps or drops each dirty sector and each unsynced name by the seed. A sync
//! that fails marks the sectors clean without copying them: programs go on seeing bytes that the medium does
//! not have, as Linux shows them (RELIABILITY, section 0).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::memory::{copy_in, copy_out};
use super::name::{Name, Names};
use super::{Disk, File};

const SECTOR_BYTES: u64 = 512;

#[derive(Clone, Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    medium: Vec<u8>,
    dirty: BTreeSet<u64>,
    /// Whether the two may differ; a sync that failed says so for ever.
    differs: bool,
    lied: bool,
}

#[derive(Debug)]
struct World {
    random: u64,
    names: Names,
    durable_names: Names,
    dirs: BTreeSet<Name>,
    durable_dirs: BTreeSet<Name>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    capacity_bytes: u64,
    failing_syncs: u32,
    failing_writes: u32,
    /// Operations that change the disk, counted; and after how many of them the power goes.
    operations: u64,
    power_until: u64,
    syncs: u64,
}

/// A disk with faults that a seed decides; clones share it.
#[derive(Clone, Debug)]
pub struct SimulatedDisk(Arc<Mutex<World>>);

#[derive(Debug)]
struct SimulatedFile {
    world: Arc<Mutex<World>>,
    inode: u64,
}

fn eio() -> io::Error {
    io::Error::other("input/output error (simulated)")
}

impl Inode {
    /// What is seen from `from` to `to` is not on the medium yet.
    fn soil(&mut self, from: u64, to: u64) {
        self.differs = true;
        if from < to {
            self.dirty
                .extend(from / SECTOR_BYTES..=(to - 1) / SECTOR_BYTES);
        }
    }
}

impl World {
    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.draw() & 1 == 0
    }

    /// Counts an operation that changes the disk.
    fn change(&mut self) -> io::Result<()> {
        if self.operations >= self.power_until {
            return Err(io::Error::other("the power is off (simulated)"));
        }
        self.operations += 1;
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        let inodes: BTreeSet<&u64> = self.names.iter().map(|(_, inode)| inode).collect();
        let sizes = inodes.iter().map(|i| self.inodes[i].seen.len() as u64);
        sizes.sum()
    }

    fn room(&self) -> u64 {
        match self.capacity_bytes {
            u64::MAX => u64::MAX,
            capacity => capacity.saturating_sub(self.used_bytes()),
        }
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes
            .get_mut(&number)
            .expect("open files have an inode")
    }

    fn tear(&mut self, number: u64) {
        if !self.inode(number).differs {
            return;
        }
        let mut inode = self.inodes.remove(&number).expect("inodes are only added");
        let dirty = std::mem::take(&mut inode.dirty);
        // A size that grew is kept as far as sectors made it; a size that shrank is kept or not.
        if inode.seen.len() < inode.medium.len() && self.coin() {
            inode.medium.truncate(inode.seen.len());
        }
        for sector in dirty {
            let from = (sector * SECTOR_BYTES) as usize;
            let to = (from + SECTOR_BYTES as usize).min(inode.seen.len());
            if from < to && self.coin() {
                copy_in(&mut inode.medium, &[&inode.seen[from..to]], from as u64);
            }
        }
        inode.seen.clone_from(&inode.medium);
        (inode.differs, inode.lied) = (false, false);
        drop(self.inodes.insert(number, inode));
    }
}

impl SimulatedDisk {
    /// An empty disk without faults so far.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            random: seed,
            names: Names::default(),
            durable_names: Names::default(),
            dirs: BTreeSet::new(),
            durable_dirs: BTreeSet::new(),
            inodes: BTreeMap::new(),
            next_inode: 0,
            capacity_bytes: u64::MAX,
            failing_syncs: 0,
            failing_writes: 0,
            operations: 0,
            power_until: u64::MAX,
            syncs: 0,
        })))
    }

    /// The power goes and comes back: unsynced sectors and names are kept or dropped at random.
    pub fn crash(&self) {
        let mut world = self.0.lock();
        world.power_until = u64::MAX;
        let (seen, durable) = (world.names.clone(), world.durable_names.clone());
        let names = seen.iter().chain(durable.iter()).map(|(name, _)| name);
        let names: BTreeSet<_> = names.cloned().collect();
        for name in names {
            let (new, old) = (seen.get(&name), durable.get(&name));
            let kept = if new == old || world.coin() { new } else { old };
            match kept {
                Some(inode) => world.durable_names.insert(name, inode),
                None => _ = world.durable_names.remove(&name),
            }
        }
        let all: Vec<u64> = world.inodes.keys().copied().collect();
        all.into_iter().for_each(|inode| world.tear(inode));
        world.names = world.durable_names.clone();
        // A directory whose entry was lost takes what was in it with it.
        world.dirs = world.durable_dirs.clone();
        let dirs = world.dirs.clone();
        world.names.retain_dirs(|dir| dirs.contains(dir));
        world.durable_names = world.names.clone();
    }

    /// The next `count` syncs of files fail.
    pub fn fail_syncs(&self, count: u32) {
        self.0.lock().failing_syncs = count;
    }

    /// The next `count` writes fail with an input/output error.
    pub fn fail_writes(&self, count: u32) {
        self.0.lock().failing_writes = count;
    }

    /// Limits the sum of all files' sizes.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity_bytes = bytes;
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.0.lock().used_bytes()
    }

    /// Operations so far that changed the disk.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Syncs of files so far that succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// Whether the power has gone.
    #[must_use]
    pub fn is_off(&self) -> bool {
        let world = self.0.lock();
        world.operations >= world.power_until
    }

    /// Every operation fails after `operations` of them, until [`SimulatedDisk::crash`].
    pub fn power_off_after(&self, operations: u64) {
        self.0.lock().power_until = operations;
    }

    /// Flips bits of a byte, on the medium too: the disk has rotted.
    ///
    /// # Panics
    ///
    /// Panics if there is no such file or byte.
    pub fn rot(&self, path: &Path, at: u64, mask: u8) {
        let mut world = self.0.lock();
        let number = world.names.get(&Name::from(path)).expect("it is there");
        let inode = world.inode(number);
        inode.seen[at as usize] ^= mask;
        if let Some(byte) = inode.medium.get_mut(at as usize) {
            *byte ^= mask;
        }
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let name = Name::from(path);
        let mut world = self.0.lock();
        if world.names.get(&name).is_none() {
            world.change()?;
            if !name.parent().is_some_and(|p| world.dirs.contains(p)) {
                return Err(io::ErrorKind::NotFound.into());
            }
            // A name takes space too.
            if world.room() == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let number = world.next_inode;
            world.next_inode += 1;
            drop(world.inodes.insert(number, Inode::default()));
            world.names.insert(name, number);
        }
        drop(world);
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let found = self.0.lock().names.get(&Name::from(path));
        let inode = found.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimulatedFile {
            world: self.0.clone(),
            inode,
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.change()?;
        let _gone = world.names.remove(&Name::from(path));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.change()?;
        let (from, to) = (Name::from(from), Name::from(to));
        if let Some(inode) = world.names.remove(&from) {
            world.names.insert(to, inode);
            return Ok(());
        }
        if !world.dirs.contains(&from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Directories are renamed with what is in them, at once and durably: no code relies on less.
        let moved = |(name, inode): (&Name, &u64)| (name.moved(&from, &to), *inode);
        let rename = |names: &Names| names.iter().map(moved).collect();
        (world.names, world.durable_names) = (rename(&world.names), rename(&world.durable_names));
        let rename = |dirs: &BTreeSet<Name>| dirs.iter().map(|d| d.moved(&from, &to)).collect();
        (world.dirs, world.durable_dirs) = (rename(&world.dirs), rename(&world.durable_dirs));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let dir = Name::from(dir);
        let world = self.0.lock();
        if !world.dirs.contains(&dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let files = world.names.inside(&dir);
        let files = files.into_iter().flat_map(BTreeMap::keys);
        let children = files.chain(dir.children(&world.dirs));
        let children = children.filter_map(Name::last);
        let mut names: Vec<_> = children.map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.change()?;
        let dir = Name::from(dir);
        world.dirs.extend(dir.ancestors());
        // The root is there before anything else.
        let roots = dir.ancestors().filter(|a| a.depth() <= 1);
        world.durable_dirs.extend(roots);
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.change()?;
        let dir = Name::from(dir);
        world.names.retain_dirs(|name| !name.is_within(&dir));
        world.dirs.retain(|name| !name.is_within(&dir));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.change()?;
        let dir = Name::from(dir);
        let World {
            names,
            durable_names,
            dirs,
            durable_dirs,
            ..
        } = &mut *world;
        durable_names.copy_dir(&dir, names);
        durable_dirs.retain(|name| !name.is_child_of(&dir));
        durable_dirs.extend(dir.children(dirs).cloned());
        Ok(())
    }
}

impl File for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.world.lock().inode(self.inode).seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        Ok(copy_out(
            &self.world.lock().inode(self.inode).seen,
            buffer,
            at,
        ))
    }

    fn read_now_at(&self, buffer: &mut [u8], at: u64) -> io::Result<Option<usize>> {
        self.read_at(buffer, at).map(Some)
    }

    fn write_at(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        let mut world = self.world.lock();
        world.change()?;
        if world.failing_writes > 0 {
            world.failing_writes -= 1;
            return Err(eio());
        }
        let length = parts.iter().map(|p| p.len() as u64).sum::<u64>();
        let room = world.room();
        let inode = world.inode(self.inode);
        let grows = (at + length).saturating_sub(inode.seen.len() as u64);
        // What lies between the old end and the first byte is zeros, and as new as the bytes are.
        let from = at.min(inode.seen.len() as u64);
        let fits = if grows <= room {
            length
        } else {
            length - (grows - room).min(length)
        };
        if fits == length {
            copy_in(&mut inode.seen, parts, at);
        } else {
            copy_in(&mut inode.seen, &[&parts.concat()[..fits as usize]], at);
        }
        inode.soil(from, at + fits);
        // As the real one, it writes what fits before it says that the rest does not.
        if fits < length {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        let mut world = self.world.lock();
        world.change()?;
        let inode = world.inode(self.inode);
        let before = inode.seen.len() as u64;
        if before != size {
            inode.soil(before, size);
        }
        inode.seen.resize(size as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world.lock();
        world.change()?;
        if world.failing_syncs > 0 {
            world.failing_syncs -= 1;
            let inode = world.inode(self.inode);
            inode.dirty.clear();
            inode.lied = true;
            return Err(eio());
        }
        world.syncs += 1;
        let inode = world.inode(self.inode);
        inode.differs = inode.lied;
        inode.medium.truncate(inode.seen.len());
        for sector in std::mem::take(&mut inode.dirty) {
            let from = (sector * SECTOR_BYTES) as usize;
            let to = (from + SECTOR_BYTES as usize).min(inode.seen.len());
            if from < to {
                copy_in(&mut inode.medium, &[&inode.seen[from..to]], from as u64);
            }
        }
        Ok(())
    }
}
