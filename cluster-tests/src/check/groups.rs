//! A13, A16, A17, A18: a group delivers everything, its offsets go forward, and a partition has one owner.

use std::collections::BTreeMap;

use super::versions::Versions;
use super::{Anomaly, Findings};
use crate::history::{Assign, Commit, Committed, History, Nanos, Outcome, Span};

/// What concerns one partition of one group.
#[derive(Default)]
struct Of<'a> {
    commits: Vec<&'a Commit>,
    answers: Vec<&'a Committed>,
    assigns: Vec<&'a Assign>,
    revokes: Vec<(u32, Span)>,
    /// Offsets that any member received.
    delivered: Vec<i64>,
}

type ByGroup<'a> = BTreeMap<(u32, u32), Of<'a>>;

fn by_group(history: &History) -> ByGroup<'_> {
    let mut groups = ByGroup::new();
    for commit in history
        .commits
        .iter()
        .filter(|c| c.outcome != Outcome::Fail)
    {
        groups
            .entry((commit.group, commit.key))
            .or_default()
            .commits
            .push(commit);
    }
    for answer in &history.committed {
        groups
            .entry((answer.group, answer.key))
            .or_default()
            .answers
            .push(answer);
    }
    for assign in &history.assigns {
        let Some(group) = assign.group else { continue };
        groups
            .entry((group, assign.key))
            .or_default()
            .assigns
            .push(assign);
    }
    for revoke in &history.revokes {
        let of = groups.entry((revoke.group, revoke.key)).or_default();
        of.revokes.push((revoke.process, revoke.span));
    }
    for poll in &history.polls {
        let Some(group) = poll.group else { continue };
        let records = &history.received[poll.records.clone()];
        let of = groups.entry((group, poll.key)).or_default();
        of.delivered.extend(records.iter().map(|r| r.offset));
    }
    groups
}

pub(super) fn check(history: &History, versions: &Versions, findings: &mut Findings) {
    for ((group, key), mut of) in by_group(history) {
        let name = format!(
            "group {} of {}",
            history.groups.text(group),
            history.keys.text(key)
        );
        of.commits.sort_by_key(|c| c.span.invoke);
        regress(&name, &of, findings);
        answers(&name, &of, findings);
        starts(&name, &of, findings);
        left_out(&name, key, &mut of, versions, findings);
        owners(&name, &of, findings);
    }
}

/// The newest operation that was over at a moment, of those that are put in by when they were over.
struct Newest<'a> {
    by_complete: Vec<&'a Commit>,
    /// At each place, the highest of a measure among those up to it.
    highest: Vec<i64>,
}

impl<'a> Newest<'a> {
    fn of(commits: &[&'a Commit], measure: impl Fn(&Commit) -> i64) -> Self {
        let ok = commits.iter().copied().filter(|c| c.outcome == Outcome::Ok);
        let mut by_complete: Vec<&Commit> = ok.collect();
        by_complete.sort_by_key(|c| c.span.complete);
        let mut highest = Vec::with_capacity(by_complete.len());
        let mut most = i64::MIN;
        for commit in &by_complete {
            most = most.max(measure(commit));
            highest.push(most);
        }
        Self {
            by_complete,
            highest,
        }
    }

    fn before(&self, moment: Nanos) -> Option<i64> {
        let until = self
            .by_complete
            .partition_point(|c| c.span.complete < moment);
        (until > 0).then(|| self.highest[until - 1])
    }
}

impl Of<'_> {
    /// When somebody moved the group on purpose, first; what comes after it may go back.
    fn first_reset(&self) -> Nanos {
        let resets = self.commits.iter().filter(|c| c.reset);
        resets.map(|c| c.span.invoke).min().unwrap_or(Nanos::MAX)
    }
}

fn regress(name: &str, of: &Of<'_>, findings: &mut Findings) {
    let offsets = Newest::of(&of.commits, |c| c.offset);
    let epochs = Newest::of(&of.commits, |c| i64::from(c.epoch));
    let first_reset = of.first_reset();
    for commit in of
        .commits
        .iter()
        .filter(|c| c.outcome == Outcome::Ok && !c.reset)
    {
        let earlier = offsets.before(commit.span.invoke);
        if let Some(earlier) =
            earlier.filter(|e| *e > commit.offset && commit.span.complete < first_reset)
        {
            findings.note(Anomaly::CommitRegress, || {
                format!(
                    "{name}: {} was committed after {earlier} by process {}",
                    commit.offset, commit.process
                )
            });
            continue;
        }
        let newer = epochs.before(commit.span.invoke);
        if let Some(newer) = newer.filter(|e| *e > i64::from(commit.epoch) && commit.epoch >= 0) {
            findings.note(Anomaly::CommitRegress, || {
                format!(
                    "{name}: process {} committed under epoch {} after epoch {newer} had",
                    commit.process, commit.epoch
                )
            });
        }
    }
}

fn answers(name: &str, of: &Of<'_>, findings: &mut Findings) {
    let offsets = Newest::of(&of.commits, |c| c.offset);
    let first_reset = of.first_reset();
    for answer in &of.answers {
        let Some(known) = offsets.before(answer.span.invoke) else {
            continue;
        };
        if answer.offset >= known || answer.span.complete >= first_reset {
            continue;
        }
        let anomaly = match answer.offset <= 0 {
            true => Anomaly::SpuriousZero,
            false => Anomaly::CommitRegress,
        };
        findings.note(anomaly, || {
            format!(
                "{name}: {} was answered after {known} had been committed",
                answer.offset
            )
        });
    }
}

/// A new owner begins at an offset that somebody committed and nobody surely committed over.
fn starts(name: &str, of: &Of<'_>, findings: &mut Findings) {
    let invokes = Newest::of(&of.commits, |c| c.span.invoke as i64);
    let mut by_offset: BTreeMap<i64, Vec<&Commit>> = BTreeMap::new();
    for commit in &of.commits {
        by_offset.entry(commit.offset).or_default().push(commit);
    }
    for assign in of.assigns.iter().filter(|a| a.offset >= 0) {
        // Nothing was surely committed yet: it begins where its settings say.
        let Some(newest) = invokes.before(assign.span.invoke) else {
            continue;
        };
        let may_be = |c: &&Commit| {
            let not_over = c.outcome == Outcome::Info || c.span.complete as i64 >= newest;
            c.span.invoke <= assign.span.complete && not_over
        };
        let commits = by_offset.get(&assign.offset);
        if !commits.is_some_and(|c| c.iter().any(may_be)) {
            findings.note(Anomaly::GroupGap, || {
                format!(
                    "{name}: process {} began at {} where nobody had committed",
                    assign.process, assign.offset
                )
            });
        }
    }
}

/// Everything below the last commit was delivered to somebody.
fn left_out(name: &str, key: u32, of: &mut Of<'_>, versions: &Versions, findings: &mut Findings) {
    // Who does not say where it began, began at the beginning.
    let first = of.assigns.iter().map(|a| a.offset.max(0)).min();
    let ok = of.commits.iter().filter(|c| c.outcome == Outcome::Ok);
    let (Some(first), Some(last)) = (first, ok.map(|c| c.offset).max()) else {
        return;
    };
    if of.first_reset() < Nanos::MAX {
        return;
    }
    of.delivered.sort_unstable();
    let mut delivered = of.delivered.iter().peekable();
    for version in versions
        .drained_of(key)
        .iter()
        .filter(|v| (first..last).contains(&v.offset))
    {
        while delivered.next_if(|d| **d < version.offset).is_some() {}
        if delivered.peek() != Some(&&version.offset) {
            findings.note(Anomaly::GroupGap, || {
                format!(
                    "{name}: offset {} was never delivered, though {last} is committed",
                    version.offset
                )
            });
        }
    }
}

/// A time in which a process owned the partition.
#[derive(Clone, Copy, Debug)]
struct Owned {
    process: u32,
    from: Nanos,
    to: Nanos,
}

fn owned(of: &Of<'_>) -> Vec<Owned> {
    let revoked = of
        .revokes
        .iter()
        .map(|(process, span)| (*process, span.invoke));
    let again = of.assigns.iter().map(|a| (a.process, a.span.invoke));
    let mut ends: Vec<(u32, Nanos)> = revoked.chain(again).collect();
    ends.sort_unstable();
    let end_of = |process: u32, from: Nanos| {
        let next = ends.partition_point(|end| *end <= (process, from));
        ends.get(next)
            .filter(|(p, _)| *p == process)
            .map(|(_, at)| *at)
    };
    let owned = |a: &&Assign| Owned {
        process: a.process,
        from: a.span.complete,
        to: end_of(a.process, a.span.complete).unwrap_or(Nanos::MAX),
    };
    let mut all: Vec<Owned> = of.assigns.iter().map(owned).collect();
    all.sort_by_key(|o| (o.from, o.process));
    all
}

fn owners(name: &str, of: &Of<'_>, findings: &mut Findings) {
    let mut by_process: BTreeMap<u32, Vec<&Commit>> = BTreeMap::new();
    for commit in of.commits.iter().filter(|c| c.outcome == Outcome::Ok) {
        by_process.entry(commit.process).or_default().push(commit);
    }
    let commits_in = |process: u32, from: Nanos, to: Nanos| {
        let commits = by_process.get(&process).map_or(&[][..], Vec::as_slice);
        let at = commits.partition_point(|c| c.span.invoke < from);
        commits.get(at).is_some_and(|c| c.span.complete <= to)
    };
    let mut active: Vec<Owned> = Vec::new();
    for next in owned(of) {
        active.retain(|o| o.to > next.from);
        for other in active.iter().filter(|o| o.process != next.process) {
            let (from, to) = (next.from, other.to.min(next.to));
            if commits_in(other.process, from, to) && commits_in(next.process, from, to) {
                findings.note(Anomaly::DoubleOwner, || {
                    format!(
                        "{name}: the processes {} and {} owned it and committed at the same time",
                        other.process, next.process
                    )
                });
            }
        }
        active.push(next);
    }
}
