//! What nodes write to their logs, with virtual time before it.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use callboard_broker::OUTDATED_REASON;
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
    /// Lines that no run has in which disks keep what they said was durable.
    alarms: Vec<String>,
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
        if text.contains(OUTDATED_REASON) {
            lines.alarms.push(text.clone());
        }
        if !lines.keeps_all && lines.last.len() >= KEPT {
            drop(lines.last.pop_front());
        }
        lines.last.push_back(text);
    }

    /// What must not have been said.
    #[must_use]
    pub fn alarms(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.alarms.clone()
    }

    /// Adds to the digest what is no line.
    pub fn add(&self, bytes: &[u8]) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.hash(&mut lines.hasher);
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
        let mut of = Line::default();
        let mut line = Line::default();
        let whose = values.serialize(record, &mut of);
        let what = record.kv().serialize(record, &mut line);
        if whose.is_ok() && what.is_ok() {
            let (level, message) = (record.level().as_short_str(), record.msg());
            let at = turmoil::sim_elapsed().unwrap_or_default();
            let (node, of, line) = (of.node, of.rest, line.rest);
            self.said
                .note(at, format!("node {node} {level}{of} {message}{line}"));
        }
        Ok(())
    }
}

#[derive(Default)]
struct Line {
    node: String,
    rest: String,
}

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        match key {
            "broker" => write!(self.node, "{value}")?,
            _ => write!(self.rest, " {key}={value}")?,
        }
        Ok(())
    }
}
