//! A23: metadata that was written is what is read, never something older than was known.
//!
//! Each name has one writer at a time. Brokers answer from an image that may lag, so that what one of them answers to one
//! process must not go back, and what is read in the end must be the newest; a reading in between may be old.

use std::collections::BTreeMap;

use super::{Anomaly, Findings};
use crate::history::{History, Outcome, Read, Write};

pub(super) fn check(history: &History, findings: &mut Findings) {
    let mut writes: BTreeMap<(u32, u64), &Write> = BTreeMap::new();
    // The ends of acknowledged writes, by name: the last to have been asked for before a moment.
    let mut done: BTreeMap<u32, Vec<&Write>> = BTreeMap::new();
    for write in &history.writes {
        let _same = writes.insert((write.key, write.value), write);
        if write.outcome == Outcome::Ok {
            done.entry(write.key).or_default().push(write);
        }
    }
    done.values_mut()
        .for_each(|w| w.sort_by_key(|w| w.span.invoke));
    let mut reads: Vec<&Read> = history.reads.iter().collect();
    reads.sort_by_key(|r| (r.process, r.broker, r.key, r.span.invoke));
    let mut last: Option<(&Read, &Write)> = None;
    for read in reads {
        let name = history.keys.text(read.key);
        let written = read.value.and_then(|v| writes.get(&(read.key, v)).copied());
        if let (Some(value), None) = (read.value, written) {
            findings.note(Anomaly::StaleMetadata, || {
                format!("{name} was read as {value}, which nobody wrote")
            });
        }
        if let Some(write) = written
            && (write.outcome == Outcome::Fail || read.span.is_before(write.span))
        {
            findings.note(Anomaly::StaleMetadata, || {
                format!("{name} was read as {}, which was not written", write.value)
            });
        }
        let overwritten = |newer: &Write| {
            newer.span.is_before(read.span) && written.is_none_or(|w| w.span.is_before(newer.span))
        };
        if read.last
            && let Some(newer) = done
                .get(&read.key)
                .and_then(|w| w.iter().rev().find(|w| overwritten(w)))
        {
            findings.note(Anomaly::StaleMetadata, || {
                format!(
                    "{name} is {:?} in the end, though {} was written last",
                    read.value, newer.value
                )
            });
        }
        let Some(write) = written else { continue };
        let same = last
            .filter(|(r, _)| (r.process, r.broker, r.key) == (read.process, read.broker, read.key));
        if let Some((_, before)) =
            same.filter(|(r, w)| r.span.is_before(read.span) && write.span.is_before(w.span))
        {
            findings.note(Anomaly::StaleMetadata, || {
                format!(
                    "broker {} answered {} for {name} after it had answered {}",
                    read.broker, write.value, before.value
                )
            });
        }
        last = Some((read, write));
    }
}
