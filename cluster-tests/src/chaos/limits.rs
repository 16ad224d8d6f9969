//! A process gets less of the machine for a while: a control group (version 1) of its own.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// A control group with one process in it. When this is dropped the process is in the root group, without a limit.
#[derive(Debug)]
pub struct Limit {
    group: PathBuf,
    /// The hosts of a run see nothing of the machine's mounts: a mount of its own.
    root: TempDir,
    pid: u32,
}

impl Limit {
    /// So much of one core, in hundredths.
    ///
    /// # Errors
    ///
    /// What the machine does not allow.
    pub fn cpu(pid: u32, percent: u32) -> io::Result<Self> {
        let quota = (percent * 1_000).to_string();
        let settings = [
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", &*quota),
        ];
        Self::set("cpu", pid, &settings)
    }

    /// So much memory from now on; what it has already counts where it was.
    ///
    /// # Errors
    ///
    /// What the machine does not allow.
    pub fn memory(pid: u32, bytes: u64) -> io::Result<Self> {
        let bytes = bytes.to_string();
        Self::set("memory", pid, &[("memory.limit_in_bytes", &*bytes)])
    }

    fn set(controller: &str, pid: u32, settings: &[(&str, &str)]) -> io::Result<Self> {
        let root = tempfile::tempdir()?;
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "cgroup", "-o", controller, "none"]);
        let mounted = mounted.arg(root.path()).status()?;
        if !mounted.success() {
            let said = format!("the controller {controller} cannot be mounted");
            return Err(io::Error::new(io::ErrorKind::Unsupported, said));
        }
        let limit = Self {
            group: root.path().join(format!("callboard-{pid}")),
            root,
            pid,
        };
        fs::create_dir(&limit.group)?;
        for (name, value) in settings {
            fs::write(limit.group.join(name), value)?;
        }
        fs::write(limit.group.join("cgroup.procs"), pid.to_string())?;
        Ok(limit)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // A process that has ended is in no group.
        let all = self.root.path();
        let _moved = fs::write(all.join("cgroup.procs"), self.pid.to_string());
        drop(fs::remove_dir(&self.group));
        drop(Command::new("umount").arg(all).status());
    }
}
