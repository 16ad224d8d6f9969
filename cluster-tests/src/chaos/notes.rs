//! A client's part of the history, whichever library it uses.

use std::sync::Arc;

use super::{PARTITIONS, Shared, key};
use crate::history::line::{Kind, Line};
use crate::history::{Nanos, Outcome, Span};

/// Notes what one client asked and was told.
pub(super) struct Notes {
    pub shared: Arc<Shared>,
    process: u32,
    /// The group that it works for.
    group: Option<String>,
}

/// The `number`th record of a producer: its value, and the partition that it goes to.
pub(super) fn record(process: u32, number: u64) -> (u64, i32) {
    let partition = (number % u64::from(PARTITIONS)) as i32;
    (u64::from(process) << 40 | number, partition)
}

impl Notes {
    pub(super) fn new(shared: Arc<Shared>, process: u32, group: Option<&str>) -> Self {
        Self {
            shared,
            process,
            group: group.map(str::to_owned),
        }
    }

    /// From `invoke` until now.
    pub(super) fn since(&self, invoke: Nanos) -> Span {
        let complete = self.shared.recorder.now();
        Span { invoke, complete }
    }

    pub(super) fn note(&self, f: Kind, partition: i32, span: Span, more: Line<'_>) {
        let name = key(partition);
        self.shared.recorder.record(&Line {
            f,
            process: self.process,
            invoke: span.invoke,
            complete: span.complete,
            key: Some(&name),
            ..more
        });
    }

    /// A record was given an offset, or given up: then it may still be written.
    pub(super) fn sent(
        &self,
        (value, partition): (u64, i32),
        invoke: Nanos,
        told: Result<i64, String>,
    ) {
        let sent = Line {
            value: Some(value),
            outcome: match told {
                Ok(_) => Outcome::Ok,
                Err(_) => Outcome::Info,
            },
            offset: told.as_ref().ok().copied(),
            what: told.err(),
            ..Line::default()
        };
        self.note(Kind::Send, partition, self.since(invoke), sent);
    }

    pub(super) fn polled(&self, partition: i32, span: Span, records: Vec<(i64, Option<u64>)>) {
        let polled = Line {
            group: self.group.as_deref(),
            records,
            ..Line::default()
        };
        self.note(Kind::Poll, partition, span, polled);
    }

    /// Partitions were assigned or revoked just now.
    pub(super) fn owns(&self, f: Kind, partitions: impl Iterator<Item = i32>) {
        let now = self.since(self.shared.recorder.now());
        for partition in partitions {
            let owned = Line {
                group: self.group.as_deref(),
                ..Line::default()
            };
            self.note(f, partition, now, owned);
        }
    }

    pub(super) fn committed(
        &self,
        span: Span,
        outcome: Outcome,
        positions: impl Iterator<Item = (i32, i64)>,
    ) {
        for (partition, offset) in positions {
            let committed = Line {
                outcome,
                group: self.group.as_deref(),
                offset: Some(offset),
                ..Line::default()
            };
            self.note(Kind::Commit, partition, span, committed);
        }
    }
}
