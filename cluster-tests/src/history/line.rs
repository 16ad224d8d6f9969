//! The file: a line of JSON per operation, the first one [`About`] the run. `docs/TESTING.md` shows one of each.

use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

use super::{
    About, Assign, Commit, Committed, Drain, FORMAT, Fault, History, Nanos, Outcome, Poll, Read,
    Received, Revoke, Send, Span, VERSION, WRONG_BYTES, Watermarks, Write,
};

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is a column of the history")]
pub enum Kind {
    #[default]
    Send,
    Poll,
    Drain,
    Assign,
    Revoke,
    Commit,
    Committed,
    Watermarks,
    Write,
    Read,
    Fault,
}

/// One operation. Which fields belong to which kind, `docs/TESTING.md` says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each is a field of a column")]
pub struct Line<'a> {
    pub f: Kind,
    #[serde(skip_serializing_if = "is_zero")]
    pub process: u32,
    pub invoke: Nanos,
    pub complete: Nanos,
    #[serde(rename = "type", skip_serializing_if = "is_ok")]
    pub outcome: Outcome,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<i64>,
    /// Offset and value of each; no value where the bytes are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<(i64, Option<u64>)>,
    #[serde(skip_serializing_if = "is_false")]
    pub reset: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub last: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<i32>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub row: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub stops: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_ok(outcome: &Outcome) -> bool {
    *outcome == Outcome::Ok
}

fn needed<T>(value: Option<T>, name: &str, kind: Kind) -> Result<T, String> {
    value.ok_or_else(|| format!("a {kind:?} needs `{name}`"))
}

impl History {
    fn take(&mut self, records: &[(i64, Option<u64>)]) -> std::ops::Range<usize> {
        let from = self.received.len();
        let received = |&(offset, value): &(i64, Option<u64>)| Received {
            offset,
            value: value.unwrap_or(WRONG_BYTES),
        };
        self.received.extend(records.iter().map(received));
        from..self.received.len()
    }

    /// Takes an operation in, the `number`th of its file.
    ///
    /// # Errors
    ///
    /// Says which field is missing; the history is as it was.
    #[expect(clippy::too_many_lines, reason = "a table: one arm per kind")]
    pub fn push(&mut self, line: &Line<'_>, number: usize) -> Result<(), String> {
        let (kind, process, outcome) = (line.f, line.process, line.outcome);
        let span = Span {
            invoke: line.invoke,
            complete: line.complete,
        };
        if span.complete < span.invoke {
            return Err("it is answered before it is asked".to_owned());
        }
        if kind == Kind::Fault {
            self.faults.push(Fault {
                row: needed(line.row, "row", kind)?.to_owned(),
                what: line.what.clone().unwrap_or_default(),
                span,
                leaves_quorum: !line.stops,
            });
            return Ok(());
        }
        let name = needed(line.key, "key", kind)?;
        let group = line.group.map(|g| self.groups.number(g));
        let key = self.keys.number(name);
        let (offset, epoch) = (line.offset.unwrap_or(-1), line.epoch.unwrap_or(-1));
        match kind {
            Kind::Send => self.sends.push(Send {
                key,
                process,
                value: needed(line.value, "value", kind)?,
                offset,
                span,
                outcome,
            }),
            Kind::Poll => {
                let records = self.take(&line.records);
                self.polls.push(Poll {
                    key,
                    process,
                    group,
                    span,
                    records,
                    line: number,
                });
            }
            Kind::Drain => {
                let start = needed(line.start, "start", kind)?;
                let end = needed(line.high, "high", kind)?;
                let records = self.take(&line.records);
                self.drains.push(Drain {
                    key,
                    start,
                    end,
                    records,
                });
            }
            Kind::Assign => self.assigns.push(Assign {
                key,
                process,
                group,
                epoch,
                offset,
                span,
                line: number,
            }),
            Kind::Revoke => self.revokes.push(Revoke {
                key,
                process,
                group: needed(group, "group", kind)?,
                span,
            }),
            Kind::Commit => self.commits.push(Commit {
                key,
                process,
                group: needed(group, "group", kind)?,
                epoch,
                offset: needed(line.offset, "offset", kind)?,
                span,
                outcome,
                reset: line.reset,
            }),
            Kind::Committed => self.committed.push(Committed {
                key,
                group: needed(group, "group", kind)?,
                offset: needed(line.offset, "offset", kind)?,
                span,
            }),
            Kind::Watermarks => self.watermarks.push(Watermarks {
                key,
                process,
                start: line.start.unwrap_or(-1),
                high: line.high.unwrap_or(-1),
                stable: line.stable.unwrap_or(-1),
                span,
            }),
            Kind::Write => self.writes.push(Write {
                key,
                value: needed(line.value, "value", kind)?,
                span,
                outcome,
            }),
            Kind::Read => self.reads.push(Read {
                key,
                process,
                broker: line.broker.unwrap_or(-1),
                value: line.value,
                span,
                last: line.last,
            }),
            Kind::Fault => unreachable!("a fault has no key"),
        }
        Ok(())
    }

    /// Reads a file of them.
    ///
    /// # Errors
    ///
    /// The first line that is none, by its number; or what reading failed with.
    pub fn read(mut file: impl BufRead) -> io::Result<Self> {
        let wrong = |number: usize, why: String| {
            let text = format!("line {number} of the history: {why}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let mut text = String::new();
        let _bytes = file.read_line(&mut text)?;
        let about: About = serde_json::from_str(&text).map_err(|e| wrong(1, e.to_string()))?;
        if about.format != FORMAT || about.version != VERSION {
            let found = format!("{} {}", about.format, about.version);
            return Err(wrong(1, format!("{found} is not {FORMAT} {VERSION}")));
        }
        let mut history = Self {
            about,
            ..Self::default()
        };
        for number in 2_usize.. {
            text.clear();
            if file.read_line(&mut text)? == 0 {
                break;
            }
            let line: Line<'_> =
                serde_json::from_str(&text).map_err(|e| wrong(number, e.to_string()))?;
            history.push(&line, number).map_err(|e| wrong(number, e))?;
        }
        Ok(history)
    }
}
