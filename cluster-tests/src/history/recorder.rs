//! Writes a history while it happens; many threads may.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Mutex;

use callboard_common::{Clock, Monotonic};

use super::line::Line;
use super::{About, Nanos};

/// A file that operations are written to, each as soon as its outcome is known.
#[derive(Debug)]
pub struct Recorder {
    file: Mutex<BufWriter<File>>,
    clock: Clock,
    began: Monotonic,
}

impl Recorder {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// What creating or writing it failed with.
    pub fn create(path: &Path, about: &About) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{}", serde_json::to_string(about)?)?;
        let clock = Clock::machine();
        let began = clock.now().monotonic;
        Ok(Self {
            file: Mutex::new(file),
            clock,
            began,
        })
    }

    /// The time of the history.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.clock.now().monotonic.since(self.began).as_nanos() as Nanos
    }

    /// Writes an operation.
    ///
    /// # Panics
    ///
    /// Panics if the file takes no more: a history with holes proves nothing.
    pub fn record(&self, line: &Line<'_>) {
        let text = serde_json::to_string(line).expect("numbers and texts");
        let mut file = self.file.lock().expect("no writer panics");
        writeln!(file, "{text}").expect("the history is written");
    }

    /// Writes what is still in memory.
    ///
    /// # Panics
    ///
    /// As [`Recorder::record`].
    pub fn finish(&self) {
        let mut file = self.file.lock().expect("no writer panics");
        file.flush().expect("the history is written");
    }
}
