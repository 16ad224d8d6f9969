//! A disk that loses what was not synced, under a real process: the simulator's disk as a FUSE file system.
//!
//! One model of a disk for both, so that what one proves the other tries. The kernel keeps no cache over a start: pages
//! are dropped when a file is opened, names are asked for each time.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use callboard_broker::storage::Disk as _;
use callboard_broker::storage::disk::{File, SimulatedDisk};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, SessionACL, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

/// Where the mounted directory is on the simulated disk.
const ROOT: &str = "/data";
const BLOCK_BYTES: u32 = 4096;
/// Free blocks, as programs that ask see them.
const FREE_BLOCKS: u64 = 1 << 24;

/// Numbers of paths. A number is never given again, so that what is kept of one that is gone finds nothing.
#[derive(Debug)]
struct Numbers {
    paths: BTreeMap<u64, PathBuf>,
    numbers: BTreeMap<PathBuf, u64>,
    files: BTreeMap<u64, Arc<dyn File>>,
    next: u64,
}

impl Numbers {
    fn new() -> Self {
        let root = PathBuf::from(ROOT);
        Self {
            paths: [(INodeNo::ROOT.0, root.clone())].into(),
            numbers: [(root, INodeNo::ROOT.0)].into(),
            files: BTreeMap::new(),
            next: INodeNo::ROOT.0 + 1,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn number(&mut self, path: &Path) -> u64 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = self.fresh();
        let _none = self.paths.insert(number, path.to_owned());
        let _none = self.numbers.insert(path.to_owned(), number);
        number
    }

    fn path(&self, inode: INodeNo) -> io::Result<PathBuf> {
        let path = self.paths.get(&inode.0).cloned();
        path.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The names at and below a path are no more.
    fn forget(&mut self, path: &Path) {
        let gone: Vec<PathBuf> = self
            .numbers
            .keys()
            .filter(|p| p.starts_with(path))
            .cloned()
            .collect();
        for path in gone {
            let number = self.numbers.remove(&path);
            let _path = number.and_then(|n| self.paths.remove(&n));
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        self.forget(to);
        let moved: Vec<(PathBuf, u64)> = self
            .numbers
            .iter()
            .filter(|(p, _)| p.starts_with(from))
            .map(|(p, n)| (p.clone(), *n))
            .collect();
        for (path, number) in moved {
            let rest = path.strip_prefix(from).unwrap_or(Path::new(""));
            let now = match rest.as_os_str().is_empty() {
                true => to.to_owned(),
                false => to.join(rest),
            };
            let _was = self.numbers.remove(&path);
            let _none = self.numbers.insert(now.clone(), number);
            let _was = self.paths.insert(number, now);
        }
    }

    fn open(&mut self, file: Arc<dyn File>) -> FileHandle {
        let handle = self.fresh();
        let _none = self.files.insert(handle, file);
        FileHandle(handle)
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<dyn File>> {
        let file = self.files.get(&handle.0).cloned();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// What a mounted disk and who breaks it share.
#[derive(Debug)]
struct Shared {
    disk: SimulatedDisk,
    numbers: Mutex<Numbers>,
    /// How long a sync takes, ms.
    lag_ms: AtomicU64,
}

#[derive(Debug)]
struct Mounted(Arc<Shared>);

/// A disk that is mounted as long as this lives.
#[derive(Debug)]
pub struct CrashDisk {
    shared: Arc<Shared>,
    _session: BackgroundSession,
}

impl CrashDisk {
    /// Mounts an empty disk over a directory.
    ///
    /// # Errors
    ///
    /// What the operating system says: it takes root and `/dev/fuse`.
    pub fn mount(at: &Path, seed: u64) -> io::Result<Self> {
        let disk = SimulatedDisk::new(seed);
        disk.create_dir(Path::new(ROOT))?;
        let shared = Arc::new(Shared {
            disk,
            numbers: Mutex::new(Numbers::new()),
            lag_ms: AtomicU64::new(0),
        });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("callboard-disk".into())];
        config.acl = SessionACL::All;
        config.n_threads = Some(4);
        let session = fuser::spawn_mount(Mounted(shared.clone()), at, &config)?;
        Ok(Self {
            shared,
            _session: session,
        })
    }

    /// The disk, to be broken.
    #[must_use]
    pub fn disk(&self) -> &SimulatedDisk {
        &self.shared.disk
    }

    /// The power goes and comes back; nobody has a file open then.
    pub fn crash(&self) {
        let mut numbers = self.shared.numbers.lock();
        self.shared.disk.crash();
        // What names stand for now is asked anew; numbers go on.
        let next = numbers.next;
        *numbers = Numbers::new();
        numbers.next = next;
    }

    /// From now on a sync takes so long.
    pub fn lag(&self, ms: u64) {
        self.shared.lag_ms.store(ms, Ordering::Relaxed);
    }

    /// The segments of partitions, as paths on the disk, with their sizes.
    #[must_use]
    pub fn segments(&self) -> Vec<(PathBuf, u64)> {
        let disk = self.disk();
        let root = Path::new(ROOT);
        let mut found = Vec::new();
        for dir in disk.list(root).unwrap_or_default() {
            let dir = root.join(dir);
            for name in disk.list(&dir).unwrap_or_default() {
                let path = dir.join(&name);
                let size = disk.open(&path).and_then(|f| f.size());
                if name.ends_with(".log")
                    && let Ok(size) = size
                {
                    found.push((path, size));
                }
            }
        }
        found
    }
}

/// What the kernel is told.
fn errno(error: &io::Error) -> Errno {
    let known = [
        (io::ErrorKind::NotFound, Errno::ENOENT),
        (io::ErrorKind::StorageFull, Errno::ENOSPC),
        (io::ErrorKind::DirectoryNotEmpty, Errno::ENOTEMPTY),
    ];
    let found = known.into_iter().find(|(kind, _)| *kind == error.kind());
    found.map_or(Errno::EIO, |(_, errno)| errno)
}

impl Mounted {
    fn attributes(&self, number: u64, path: &Path) -> io::Result<FileAttr> {
        let disk = &self.0.disk;
        let (kind, size, perm) = match disk.list(path) {
            Ok(_) => (FileType::Directory, 0, 0o755),
            Err(_) => (FileType::RegularFile, disk.open(path)?.size()?, 0o600),
        };
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.0.numbers.lock().path(parent)?.join(name))
    }

    fn entry(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let path = self.child(parent, name)?;
        let found = self.attributes(0, &path)?;
        let number = self.0.numbers.lock().number(&path);
        Ok(FileAttr {
            ino: INodeNo(number),
            ..found
        })
    }

    /// Of an open file: also of one whose name is gone.
    fn open_attributes(&self, inode: INodeNo, handle: Option<FileHandle>) -> io::Result<FileAttr> {
        let numbers = self.0.numbers.lock();
        let (path, file) = (
            numbers.path(inode),
            handle.and_then(|h| numbers.file(h).ok()),
        );
        drop(numbers);
        let found = path.and_then(|p| self.attributes(inode.0, &p));
        match (found, file) {
            (Err(_), Some(file)) => {
                let any = self.attributes(inode.0, Path::new(ROOT))?;
                let size = file.size()?;
                Ok(FileAttr {
                    kind: FileType::RegularFile,
                    size,
                    nlink: 0,
                    ..any
                })
            }
            (found, _) => found,
        }
    }

    fn sync(&self, handle: FileHandle) -> io::Result<()> {
        self.wait();
        let file = self.0.numbers.lock().file(handle)?;
        file.sync()
    }

    fn wait(&self) {
        let ms = self.0.lag_ms.load(Ordering::Relaxed);
        if ms > 0 {
            std::thread::sleep(Duration::from_millis(ms));
        }
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, dir: bool) -> io::Result<()> {
        let path = self.child(parent, name)?;
        let disk = &self.0.disk;
        match dir {
            true if !disk.list(&path)?.is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            true => disk.remove_dir(&path)?,
            false => disk.remove(&path)?,
        }
        self.0.numbers.lock().forget(&path);
        Ok(())
    }

    fn list(&self, inode: INodeNo) -> io::Result<Vec<(u64, FileType, String)>> {
        let path = self.0.numbers.lock().path(inode)?;
        let mut entries = vec![
            (inode.0, FileType::Directory, ".".to_owned()),
            (inode.0, FileType::Directory, "..".to_owned()),
        ];
        for name in self.0.disk.list(&path)? {
            let child = path.join(&name);
            let kind = match self.0.disk.list(&child) {
                Ok(_) => FileType::Directory,
                Err(_) => FileType::RegularFile,
            };
            let number = self.0.numbers.lock().number(&child);
            entries.push((number, kind, name));
        }
        Ok(entries)
    }
}

/// Answers with what came of it.
macro_rules! answer {
    ($reply:ident, $result:expr, $ok:expr) => {
        match $result {
            Ok(value) => $ok(value),
            Err(error) => $reply.error(errno(&error)),
        }
    };
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.entry(parent, name), |attr: FileAttr| {
            reply.entry(&Duration::ZERO, &attr, Generation(0));
        });
    }

    fn getattr(&self, _: &Request, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        answer!(
            reply,
            self.open_attributes(inode, handle),
            |attr: FileAttr| {
                reply.attr(&Duration::ZERO, &attr);
            }
        );
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = || {
            if let Some(size) = size {
                let numbers = self.0.numbers.lock();
                let file = match handle {
                    Some(handle) => numbers.file(handle)?,
                    None => self.0.disk.open(&numbers.path(inode)?)?,
                };
                drop(numbers);
                file.resize(size)?;
            }
            self.open_attributes(inode, handle)
        };
        answer!(reply, change(), |attr: FileAttr| reply
            .attr(&Duration::ZERO, &attr));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let make = || {
            self.0.disk.create_dir(&self.child(parent, name)?)?;
            self.entry(parent, name)
        };
        answer!(reply, make(), |attr: FileAttr| {
            reply.entry(&Duration::ZERO, &attr, Generation(0));
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove(parent, name, false), |()| reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove(parent, name, true), |()| reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        as_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let rename = || {
            let (from, to) = (self.child(parent, name)?, self.child(to, as_name)?);
            self.0.disk.rename(&from, &to)?;
            self.0.numbers.lock().rename(&from, &to);
            Ok::<(), io::Error>(())
        };
        answer!(reply, rename(), |()| reply.ok());
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let open = || {
            let mut numbers = self.0.numbers.lock();
            let file = self.0.disk.open(&numbers.path(inode)?)?;
            Ok::<FileHandle, io::Error>(numbers.open(file))
        };
        answer!(reply, open(), |handle| reply
            .opened(handle, FopenFlags::empty()));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let create = || {
            let file = self.0.disk.create(&self.child(parent, name)?)?;
            let attr = self.entry(parent, name)?;
            Ok::<_, io::Error>((attr, self.0.numbers.lock().open(file)))
        };
        answer!(reply, create(), |(attr, handle)| {
            reply.created(
                &Duration::ZERO,
                &attr,
                Generation(0),
                handle,
                FopenFlags::empty(),
            );
        });
    }

    fn read(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        at: u64,
        size: u32,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || {
            let file = self.0.numbers.lock().file(handle)?;
            let mut buffer = vec![0; size as usize];
            let read = file.read_at(&mut buffer, at)?;
            buffer.truncate(read);
            Ok::<Vec<u8>, io::Error>(buffer)
        };
        answer!(reply, read(), |bytes: Vec<u8>| reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        at: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = || {
            let file = self.0.numbers.lock().file(handle)?;
            file.write_at(&[data], at)
        };
        answer!(reply, write(), |()| reply.written(data.len() as u32));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        drop(self.0.numbers.lock().files.remove(&handle.0));
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync(handle), |()| reply.ok());
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let sync = || {
            self.wait();
            let path = self.0.numbers.lock().path(inode)?;
            self.0.disk.sync_dir(&path)
        };
        answer!(reply, sync(), |()| reply.ok());
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        from: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.list(inode) {
            Ok(entries) => {
                let rest = entries.into_iter().enumerate().skip(from as usize);
                for (at, (number, kind, name)) in rest {
                    if reply.add(INodeNo(number), at as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(
            FREE_BLOCKS,
            FREE_BLOCKS,
            FREE_BLOCKS,
            1 << 20,
            1 << 20,
            BLOCK_BYTES,
            255,
            BLOCK_BYTES,
        );
    }
}
