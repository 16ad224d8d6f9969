//! Clocks that are wrong: of the wall, by libfaketime, which a file tells how much; of the kind that never goes back, by a time
//! namespace that begins elsewhere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::faults::Row;

/// Where Debian's package `faketime` puts it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// How the nodes of a run tell the time.
#[derive(Debug)]
pub enum Clocks {
    /// As the machine.
    Right,
    /// By what these files say of the machine's.
    Wall(Vec<PathBuf>),
    /// So many seconds after the machine has started.
    Base(Vec<u64>),
}

impl Clocks {
    /// Those that a row needs; files go below `dir`.
    ///
    /// # Errors
    ///
    /// `Unsupported` if libfaketime is needed and is not there; what writing failed with.
    pub fn of(row: Row, dir: &Path, nodes: u8) -> io::Result<Self> {
        if row == Row::C2 {
            // One starts at the machine's, one a year later, one five years later.
            let bases = (0..u64::from(nodes)).map(|n| n * n * 40_000_000);
            return Ok(Self::Base(bases.collect()));
        } else if row != Row::C1 {
            return Ok(Self::Right);
        }
        if !Path::new(LIBRARY).exists() {
            let said = format!("{LIBRARY} is not there: apt install faketime");
            return Err(io::Error::new(io::ErrorKind::Unsupported, said));
        }
        let files = (1..=nodes).map(|n| dir.join(format!("clock-{n}")));
        let clocks = Self::Wall(files.collect());
        (0..usize::from(nodes)).try_for_each(|n| clocks.set(n, "+0"))?;
        Ok(clocks)
    }

    /// The commands that run the nodes, if there are to be any.
    pub(super) fn commands(&self) -> Vec<Vec<String>> {
        let words = |all: &[&str]| all.iter().map(|w| (*w).to_owned()).collect();
        match self {
            Self::Right => Vec::new(),
            Self::Wall(files) => {
                let command = |file: &PathBuf| {
                    let preload = format!("LD_PRELOAD={LIBRARY}");
                    let file = format!("FAKETIME_TIMESTAMP_FILE={}", file.display());
                    let mut all = vec!["env", &preload, &file, "FAKETIME_NO_CACHE=1"];
                    // The one has the name of older releases.
                    all.extend(["FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"]);
                    words(&all)
                };
                files.iter().map(command).collect()
            }
            Self::Base(seconds) => {
                let command = |s: &u64| words(&["unshare", "-T", "--monotonic", &s.to_string()]);
                seconds.iter().map(command).collect()
            }
        }
    }

    /// Sets a node's wall clock as far off as this says, like `+3600`.
    ///
    /// # Errors
    ///
    /// What writing failed with.
    pub fn set(&self, node: usize, offset: &str) -> io::Result<()> {
        match self {
            Self::Wall(files) => {
                // As a whole: a node may read it at any time.
                let new = files[node].with_extension("new");
                fs::write(&new, format!("{offset}\n"))?;
                fs::rename(&new, &files[node])
            }
            Self::Right | Self::Base(_) => Ok(()),
        }
    }
}
