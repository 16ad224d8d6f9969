//! What nodes write to their logs, with virtual time before it.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slog::{Drain, KV as _, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, o};

/// So many of the last lines are kept.
const KEPT: usize = 400;

/// The lines of all nodes; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Said(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    last: VecDeque<String>,
    keeps_all: bool,
    hasher: DefaultHasher,
}

impl Said {
    /// Keeps all lines if `all`, else the last ones.
    #[must_use]
    pub fn new(all: bool) -> Self {
        let lines = Lines {
            keeps_all: all,
            ..Lines::default()
        };
        Self(Arc::new(Mutex::new(lines)))
    }

    /// Adds a line.
    pub fn note(&self, at: Duration, line: impl fmt::Display) {
        let text = format!("{:>9.3} {line}", at.as_secs_f64());
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.hash(&mut lines.hasher);
        if !lines.keeps_all && lines.last.len() >= KEPT {
            drop(lines.last.pop_front());
        }
        lines.last.push_back(text);
    }

    /// What is kept, and a digest of all there was.
    #[must_use]
    pub fn end(&self) -> (Vec<String>, u64) {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (
            lines.last.iter().cloned().collect(),
            lines.hasher.clone().finish(),
        )
    }

    /// A logger for one node.
    pub fn logger(&self, least: Level) -> Logger {
        let into = Into {
            said: self.clone(),
            least,
        };
        Logger::root(into, o!())
    }
}

struct Into {
    said: Said,
    least: Level,
}

impl Drain for Into {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if !record.level().is_at_least(self.least) {
            return Ok(());
        }
        let mut line = Line(String::new());
        // Whose line it is comes first.
        let written = values.serialize(record, &mut line);
        let _fits = write!(line.0, "{} {}", record.level().as_short_str(), record.msg());
        let written = written.and_then(|()| record.kv().serialize(record, &mut line));
        if written.is_ok() {
            let at = turmoil::sim_elapsed().unwrap_or_default();
            self.said.note(at, line.0);
        }
        Ok(())
    }
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        if key == "broker" {
            write!(self.0, "node {value} ")?;
        } else {
            write!(self.0, " {key}={value}")?;
        }
        Ok(())
    }
}
