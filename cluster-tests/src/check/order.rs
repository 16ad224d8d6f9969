//! A6, A7, A8, A9: records come in the order of the log, none left out, and the log's order is that of the world.

use super::versions::Versions;
use super::{Anomaly, Findings};
use crate::history::{History, Nanos, Outcome, Poll, Send};

pub(super) fn check(history: &History, versions: &Versions, findings: &mut Findings) {
    polls(history, versions, findings);
    sends(history, findings);
    real_time(history, findings);
}

/// A reader of one partition: all below an offset is behind it.
#[derive(Clone, Copy)]
struct Reader {
    key: u32,
    position: i64,
    /// The place of the next offset that holds a record.
    rank: usize,
}

impl Reader {
    fn at(versions: &Versions, key: u32, position: i64) -> Self {
        let rank = versions.rank(key, position);
        Self {
            key,
            position,
            rank,
        }
    }

    /// What is wrong with reading `offset` now, if anything; it goes on from there.
    fn read(&mut self, versions: &Versions, offset: i64) -> Option<String> {
        let before = *self;
        let next = versions.at(before.key, before.rank);
        *self = match next == Some(offset) {
            true => Self {
                position: offset + 1,
                rank: before.rank + 1,
                ..before
            },
            false => Self::at(versions, before.key, offset + 1),
        };
        if offset < before.position {
            return Some(format!(
                "goes back to offset {offset} from {}",
                before.position
            ));
        }
        let left_out = next.filter(|n| *n < offset && *n >= versions.start(before.key))?;
        Some(format!(
            "goes on from {} to offset {offset} and leaves {left_out} out",
            before.position
        ))
    }
}

fn polls(history: &History, versions: &Versions, findings: &mut Findings) {
    /// A poll, or where an assignment begins.
    type Step<'a> = Result<&'a Poll, i64>;
    let mut order: Vec<(u32, u32, usize, Step<'_>)> = Vec::with_capacity(history.polls.len());
    order.extend(
        history
            .polls
            .iter()
            .map(|p| (p.process, p.key, p.line, Ok(p))),
    );
    order.extend(
        history
            .assigns
            .iter()
            .map(|a| (a.process, a.key, a.line, Err(a.offset))),
    );
    order.sort_unstable_by_key(|(process, key, line, _)| (*process, *key, *line));
    let mut of = None;
    let mut reader: Option<Reader> = None;
    for (process, key, _, step) in order {
        if of != Some((process, key)) {
            (of, reader) = (Some((process, key)), None);
        }
        let poll = match step {
            Ok(poll) => poll,
            Err(offset) => {
                // It begins anew, where it says if it knows.
                reader = (offset >= 0).then(|| Reader::at(versions, key, offset));
                continue;
            }
        };
        let mut anomaly = Anomaly::ExternalPoll;
        for record in &history.received[poll.records.clone()] {
            let now = reader.get_or_insert_with(|| Reader::at(versions, key, record.offset));
            if let Some(wrong) = now.read(versions, record.offset) {
                findings.note(anomaly, || {
                    format!("process {process} {wrong} in {}", history.keys.text(key))
                });
            }
            anomaly = Anomaly::InternalPoll;
        }
    }
    drains(history, findings);
}

/// The final reading goes forward; what it leaves out is lost, which others say.
fn drains(history: &History, findings: &mut Findings) {
    for drain in &history.drains {
        for pair in history.received[drain.records.clone()].windows(2) {
            let (last, next) = (pair[0].offset, pair[1].offset);
            if next <= last {
                findings.note(Anomaly::InternalPoll, || {
                    let key = history.keys.text(drain.key);
                    format!("the final reading goes back from offset {last} to {next} in {key}")
                });
            }
        }
    }
}

fn acknowledged(history: &History) -> impl Iterator<Item = &Send> {
    history
        .sends
        .iter()
        .filter(|s| s.outcome == Outcome::Ok && s.offset >= 0)
}

/// A producer's acknowledged records have rising offsets, in the order in which it sent them.
fn sends(history: &History, findings: &mut Findings) {
    let mut order: Vec<(u32, u32, Nanos, i64)> = acknowledged(history)
        .map(|s| (s.process, s.key, s.span.invoke, s.offset))
        .collect();
    // Sends of one moment are in the order of the file.
    order.sort_by_key(|(process, key, invoke, _)| (*process, *key, *invoke));
    for pair in order.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if (a.0, a.1) == (b.0, b.1) && a.2 < b.2 && b.3 < a.3 {
            findings.note(Anomaly::NonmonotonicSend, || {
                format!(
                    "process {} was given offset {} of {} and then {}",
                    a.0,
                    a.3,
                    history.keys.text(a.1),
                    b.3
                )
            });
        }
    }
}

/// Of another producer: sent after that one was acknowledged, but before it in the log.
fn real_time(history: &History, findings: &mut Findings) {
    let mut order: Vec<&Send> = acknowledged(history).collect();
    order.sort_unstable_by_key(|s| (s.key, s.offset));
    let mut first_complete: Option<&Send> = None;
    for send in order.into_iter().rev() {
        if let Some(later) = first_complete.filter(|l| l.key == send.key) {
            if later.span.is_before(send.span) && later.process != send.process {
                findings.note(Anomaly::RealTimeOrder, || {
                    let key = history.keys.text(send.key);
                    format!(
                        "offset {} of {key} was sent after offset {} was acknowledged",
                        send.offset, later.offset
                    )
                });
            }
            if later.span.complete <= send.span.complete {
                continue;
            }
        }
        first_complete = Some(send);
    }
}
