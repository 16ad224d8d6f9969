//! A25: while a quorum is there and something waits, acknowledgements come.

use super::{Anomaly, Findings};
use crate::history::{History, Nanos, Outcome, Span};

const MS: Nanos = 1_000_000;

/// The times in which nothing can be expected: faults without a quorum, and what it takes to come back from them.
fn excused(history: &History) -> Vec<Span> {
    let grace = history.about.gap_max_ms * MS;
    let stops = history.faults.iter().filter(|f| !f.leaves_quorum);
    let mut times: Vec<Span> = stops
        .map(|f| Span {
            invoke: f.span.invoke,
            complete: f.span.complete + grace,
        })
        .collect();
    times.sort_unstable();
    times
}

/// How much of a time is not excused.
fn counted(from: Nanos, to: Nanos, excused: &[Span]) -> Nanos {
    let (mut at, mut sum) = (from, 0);
    for time in excused
        .iter()
        .filter(|t| t.complete > from && t.invoke < to)
    {
        sum += time.invoke.saturating_sub(at);
        at = at.max(time.complete);
    }
    sum + to.saturating_sub(at)
}

/// Judges the longest gap of each partition, and answers the longest of all, in ms.
pub(super) fn check(history: &History, findings: &mut Findings) -> u64 {
    let excused = excused(history);
    let end = history
        .sends
        .iter()
        .map(|s| s.span.complete)
        .max()
        .unwrap_or(0);
    let mut asked: Vec<(u32, Nanos)> = history
        .sends
        .iter()
        .map(|s| (s.key, s.span.invoke))
        .collect();
    asked.sort_unstable();
    let ok = history.sends.iter().filter(|s| s.outcome == Outcome::Ok);
    let mut told: Vec<(u32, Nanos)> = ok.map(|s| (s.key, s.span.complete)).collect();
    // A partition that is never acknowledged again has its end in the end of all.
    told.extend((0..history.keys.len() as u32).map(|key| (key, end)));
    told.sort_unstable();
    let mut answered: Vec<(u32, Nanos)> = history
        .sends
        .iter()
        .map(|s| (s.key, s.span.complete))
        .collect();
    answered.sort_unstable();
    let until = |times: &[(u32, Nanos)], key: u32, at: Nanos| {
        times.partition_point(|t| *t <= (key, at)) - times.partition_point(|t| t.0 < key)
    };
    let (mut longest, mut last) = (0, None);
    for (key, at) in told {
        let before = last.filter(|(k, _)| *k == key).map_or(0, |(_, at)| at);
        // Waiting goes on where something was in flight, and else begins with the next send.
        let next = asked.get(asked.partition_point(|a| *a <= (key, before)));
        let waits = match until(&asked, key, before) > until(&answered, key, before) {
            true => Some(before),
            false => next.filter(|(k, _)| *k == key).map(|(_, waits)| *waits),
        };
        if let Some(waits) = waits.filter(|waits| *waits < at) {
            let gap = counted(waits, at, &excused);
            longest = longest.max(gap);
            if history.about.gap_max_ms > 0 && gap > history.about.gap_max_ms * MS {
                findings.note(Anomaly::Stalled, || {
                    let key = history.keys.text(key);
                    format!(
                        "nothing of {key} was acknowledged for {} ms, from {} ms on",
                        gap / MS,
                        waits / MS
                    )
                });
            }
        }
        last = Some((key, at));
    }
    longest / MS
}
