//! A1, A2, A4, A5: an offset has one value, a value one offset and one writer, and its bytes are those that were sent.

use super::versions::Versions;
use super::{Anomaly, Findings};
use crate::history::{History, Outcome, WRONG_BYTES};

pub(super) fn check(history: &History, versions: &Versions, findings: &mut Findings) {
    for pair in versions.known.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if (a.key, a.offset) == (b.key, b.offset) {
            findings.note(Anomaly::InconsistentOffset, || {
                let key = history.keys.text(a.key);
                format!(
                    "{key} held {} and {} at offset {}",
                    a.value, b.value, a.offset
                )
            });
        }
    }
    if history.about.idempotent {
        duplicates(history, versions, findings);
    }
    writers(history, findings);
}

fn duplicates(history: &History, versions: &Versions, findings: &mut Findings) {
    let mut places: Vec<(u32, u64, i64)> = versions
        .known
        .iter()
        .map(|v| (v.key, v.value, v.offset))
        .collect();
    places.sort_unstable();
    for pair in places.windows(2) {
        let ((key, value, first), (other, same, second)) = (pair[0], pair[1]);
        if (key, value) == (other, same) {
            findings.note(Anomaly::Duplicate, || {
                format!(
                    "{} holds {value} at the offsets {first} and {second}",
                    history.keys.text(key)
                )
            });
        }
    }
}

fn writers(history: &History, findings: &mut Findings) {
    let mut sent: Vec<(u64, u32, bool)> = history
        .sends
        .iter()
        .map(|s| (s.value, s.key, s.outcome == Outcome::Fail))
        .collect();
    sent.sort_unstable();
    let mut read: Vec<(u64, u32, i64)> = history
        .records()
        .map(|(key, r)| (r.value, key, r.offset))
        .collect();
    read.sort_unstable();
    read.dedup();
    let mut at = 0;
    for (value, key, offset) in read {
        let place = || format!("{} at offset {offset}", history.keys.text(key));
        if value == WRONG_BYTES {
            findings.note(Anomaly::WrongBytes, || {
                format!("{} is not what anybody wrote", place())
            });
            continue;
        }
        while sent.get(at).is_some_and(|s| (s.0, s.1) < (value, key)) {
            at += 1;
        }
        match sent.get(at).filter(|s| (s.0, s.1) == (value, key)) {
            None => findings.note(Anomaly::AbortedRead, || {
                format!("{value} was read from {} and nobody sent it", place())
            }),
            Some((_, _, true)) => findings.note(Anomaly::AbortedRead, || {
                format!(
                    "{value} was read from {} though it had been refused",
                    place()
                )
            }),
            Some(_) => {}
        }
    }
}
