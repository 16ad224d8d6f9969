//! `leader-epoch-checkpoint`: at which offset each leader's reign began (KIP-101).
//!
//! Kafka's text: version 0, the number of lines, then `epoch start-offset` each.

use std::io;
use std::path::Path;

use callboard_common::{LeaderEpoch, Offset};

use super::disk::{Disk, read_whole, replace_whole};

/// The file's name.
pub const FILE_NAME: &str = "leader-epoch-checkpoint";
const LIMIT_BYTES: u64 = 16 << 20;

/// The reigns of one partition, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs(Vec<(LeaderEpoch, Offset)>);

impl LeaderEpochs {
    /// Reads the file of a partition's directory; one that is missing or malformed counts as empty.
    #[must_use]
    pub fn read(disk: &dyn Disk, dir: &Path) -> Self {
        let bytes = read_whole(disk, &dir.join(FILE_NAME), LIMIT_BYTES).unwrap_or_default();
        std::str::from_utf8(&bytes)
            .ok()
            .and_then(Self::parse)
            .unwrap_or_default()
    }

    /// Parses the file's text; `None` if it is malformed or not in order.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (version, count): (i32, usize) =
            (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
        let mut epochs = Vec::new();
        for line in lines {
            let (epoch, start) = line.split_once(' ')?;
            epochs.push((
                LeaderEpoch(epoch.parse().ok()?),
                Offset::checked(start.parse().ok()?)?,
            ));
        }
        let in_order = epochs.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        (version == 0 && count == epochs.len() && in_order).then_some(Self(epochs))
    }

    /// Replaces the file. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says; the file keeps its old content.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let mut text = format!("0\n{}\n", self.0.len());
        for (epoch, start) in &self.0 {
            text.push_str(&format!("{epoch} {start}\n"));
        }
        replace_whole(disk, &dir.join(FILE_NAME), text.as_bytes())
    }

    /// Notes that `epoch` begins at `start`; answers whether that is new.
    pub fn begin(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        let before = self.0.len();
        // A reign that wrote nothing leaves no trace, also if it was later than this one: a follower that led in vain takes
        // the records of earlier reigns.
        while self
            .0
            .last()
            .is_some_and(|(e, s)| *s >= start && *e != epoch)
        {
            let _empty = self.0.pop();
        }
        if self.0.last().is_some_and(|(last, _)| *last >= epoch) {
            return self.0.len() != before;
        }
        self.0.push((epoch, start));
        true
    }

    /// Forgets what lies at or above `end`.
    pub fn truncate(&mut self, end: Offset) {
        self.0.retain(|(_, start)| *start < end);
    }

    /// Forgets reigns that ended at or below `start`.
    pub fn advance_start(&mut self, start: Offset) {
        while self.0.len() > 1 && self.0[1].1 <= start {
            let _old = self.0.remove(0);
        }
        if let Some((_, first)) = self.0.first_mut() {
            *first = (*first).max(start);
        }
    }

    /// The newest reign.
    #[must_use]
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.0.last().map(|(epoch, _)| *epoch)
    }

    /// Where the oldest reign that is known began.
    #[must_use]
    pub fn first_start(&self) -> Option<Offset> {
        self.0.first().map(|(_, start)| *start)
    }

    /// Where the newest reign began.
    #[must_use]
    pub fn latest_start(&self) -> Option<Offset> {
        self.0.last().map(|(_, start)| *start)
    }

    /// The reign in which the record at `offset` was written.
    #[must_use]
    pub fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.0
            .iter()
            .rev()
            .find(|(_, start)| *start <= offset)
            .map(|(epoch, _)| *epoch)
    }

    /// The largest epoch up to `epoch` and where it ended; `log_end` for the current one (KIP-279).
    #[must_use]
    pub fn end_of(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let i = self.0.iter().rposition(|(e, _)| *e <= epoch)?;
        let end = self.0.get(i + 1).map_or(log_end, |(_, start)| *start);
        Some((self.0[i].0, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs() -> LeaderEpochs {
        LeaderEpochs::parse("0\n3\n0 0\n2 10\n5 20\n").expect("valid")
    }

    #[test]
    fn ends_and_owners_are_found() {
        let epochs = epochs();
        let offset = Offset::new;
        assert_eq!(
            epochs.end_of(LeaderEpoch(3), offset(25)),
            Some((LeaderEpoch(2), offset(20)))
        );
        assert_eq!(
            epochs.end_of(LeaderEpoch(9), offset(25)),
            Some((LeaderEpoch(5), offset(25)))
        );
        assert_eq!(epochs.at(offset(19)), Some(LeaderEpoch(2)));
        assert_eq!(epochs.latest(), Some(LeaderEpoch(5)));
    }

    #[test]
    fn cuts_at_both_ends() {
        let mut front = epochs();
        front.advance_start(Offset::new(12));
        assert_eq!(
            front,
            LeaderEpochs::parse("0\n2\n2 12\n5 20\n").expect("valid")
        );
        let mut back = epochs();
        back.truncate(Offset::new(20));
        assert_eq!(back.latest(), Some(LeaderEpoch(2)));
        assert!(back.begin(LeaderEpoch(7), Offset::new(15)));
        assert!(!back.begin(LeaderEpoch(7), Offset::new(16)));
        let mut vain = LeaderEpochs::parse("0\n2\n0 0\n3 5\n").expect("valid");
        assert!(vain.begin(LeaderEpoch(0), Offset::new(5)));
        assert_eq!(vain.latest(), Some(LeaderEpoch(0)));
    }

    #[test]
    fn disorder_is_malformed() {
        for bad in ["", "0\n1\n", "0\n2\n5 0\n2 10\n", "1\n0\n", "0\n1\n-1 -1\n"] {
            assert_eq!(LeaderEpochs::parse(bad), None, "{bad:?}");
        }
    }
}
