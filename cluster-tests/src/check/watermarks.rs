//! A19: what a client is told of a partition's ends never goes back.

use super::{Anomaly, Findings};
use crate::history::{History, Watermarks};

type Mark = (&'static str, fn(&Watermarks) -> i64);

const MARKS: [Mark; 3] = [
    ("log start offset", |w| w.start),
    ("high watermark", |w| w.high),
    ("last stable offset", |w| w.stable),
];

pub(super) fn check(history: &History, findings: &mut Findings) {
    let mut by_invoke: Vec<&Watermarks> = history.watermarks.iter().collect();
    by_invoke.sort_by_key(|w| (w.process, w.key, w.span.invoke));
    let mut by_complete = by_invoke.clone();
    by_complete.sort_by_key(|w| (w.process, w.key, w.span.complete));
    for (name, mark) in MARKS {
        let mut over = by_complete.iter().peekable();
        let mut highest: Option<(u32, u32, i64)> = None;
        for told in &by_invoke {
            let before = |w: &&&Watermarks| {
                (w.process, w.key, w.span.complete) < (told.process, told.key, told.span.invoke)
            };
            while let Some(earlier) = over.next_if(before) {
                let same = highest.filter(|(p, k, _)| (*p, *k) == (earlier.process, earlier.key));
                let most = same.map_or(mark(earlier), |(_, _, most)| most.max(mark(earlier)));
                highest = Some((earlier.process, earlier.key, most));
            }
            let known = highest.filter(|(p, k, _)| (*p, *k) == (told.process, told.key));
            if let Some((_, _, known)) =
                known.filter(|(_, _, known)| mark(told) >= 0 && mark(told) < *known)
            {
                findings.note(Anomaly::WatermarkRegress, || {
                    let key = history.keys.text(told.key);
                    format!(
                        "process {} was told that the {name} of {key} is {}, after {known}",
                        told.process,
                        mark(told)
                    )
                });
            }
        }
    }
}
