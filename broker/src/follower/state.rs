//! The pure core of a partition's follower.

use std::collections::VecDeque;

use bytes::Bytes;
use callboard_common::record::producers::ProducerTable;
use callboard_common::record::{Batch, BatchHeader};
use callboard_common::{LeaderEpoch, Offset};

use crate::leader::{Ends, FetchError, same_reign};
use crate::peer::protocol::{Part, What};
use crate::planted::{self, Bug};

/// How far a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The end of its log.
    pub end: Offset,
    /// How much of it is durable.
    pub synced: Offset,
}

/// What happens to a follower.
#[derive(Clone, Debug)]
pub enum Input {
    /// There is a lane to the leader.
    Connected,
    /// The leader sends something.
    Sent(Part),
    /// Everything below is durable.
    Synced(Offset),
    /// It is time to try again.
    Retry,
    /// It is time to let go again what a full disk kept.
    RemoveAgain,
}

/// What must happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append the batch, which continues the log.
    Append(Batch),
    /// Make the log durable up to its end; if a sync is in flight, another one follows it.
    Sync,
    /// Tell the leader how far this log is.
    Report(Position),
    /// The leader's log ends in this epoch at this offset: cut where the two differ.
    CutAt(LeaderEpoch, Offset),
    /// The leader has nothing below this offset any more: begin there anew, with the producers of this snapshot. If it is
    /// none, say [`Input::Retry`] in a while.
    RestartAt(Offset, Bytes),
    /// The leader's first record is this one: what lies below may go. If a full disk keeps it, say [`Input::RemoveAgain`] in a while.
    AdvanceStart(Offset),
    /// Say [`Input::Retry`] in a while.
    Wait,
}

/// Effects in order; the shell reuses the buffer.
pub type Effects = VecDeque<Effect>;

/// What a follower knows of its log.
#[derive(Debug)]
pub struct Follower {
    epoch: LeaderEpoch,
    position: Position,
    high_watermark: Offset,
    /// Below it lies all that the leader or those before it have committed, whether it is here or not.
    told: Option<Offset>,
    log_start: Offset,
    /// Where the leader's log begins.
    leader_start: Offset,
    producers: ProducerTable,
}

impl Follower {
    /// A follower of the leader of this reign, over a log that is durable up to `end`.
    #[must_use]
    pub fn new(
        epoch: LeaderEpoch,
        (log_start, high_watermark, end): (Offset, Offset, Offset),
        producers: ProducerTable,
    ) -> Self {
        Self {
            epoch,
            position: Position { end, synced: end },
            high_watermark: high_watermark.min(end),
            told: None,
            log_start,
            leader_start: log_start,
            producers,
        }
    }

    /// What is known to be committed.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Whether all that was committed is durable here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.told.is_some_and(|told| self.position.synced >= told)
    }

    /// What readers of this replica are told (KIP-392): it shows what it knows to be committed.
    #[must_use]
    pub fn ends(&self) -> Ends {
        Ends {
            epoch: Some(self.epoch),
            in_doubt: None,
            log_start: self.log_start,
            high_watermark: self.high_watermark.max(self.log_start),
            log_end: self.position.end,
            reign_start: Offset::ZERO,
        }
    }

    /// Up to where may be read from an offset on; `None` is nothing yet.
    ///
    /// # Errors
    ///
    /// [`FetchError`] as of a leader, except that it says nothing of what is committed elsewhere: who is out of range here asks
    /// the leader.
    pub fn readable(
        &self,
        from: i64,
        current_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<Offset>, FetchError> {
        same_reign(current_epoch, self.epoch)?;
        self.ends().readable(from)
    }

    /// The idempotent producers.
    #[must_use]
    pub fn producers(&self) -> &ProducerTable {
        &self.producers
    }

    /// Advances by one input and puts what must happen next into `out`, in order.
    pub fn step(&mut self, input: Input, out: &mut Effects) {
        match input {
            Input::Connected | Input::Retry => out.push_back(Effect::Report(self.position)),
            Input::RemoveAgain => out.push_back(Effect::AdvanceStart(self.log_start)),
            Input::Sent(part) => self.sent(part, out),
            Input::Synced(end) => {
                self.position.synced = self.position.synced.max(end);
                out.push_back(Effect::Report(self.position));
                self.advance_start(out);
            }
        }
    }

    fn sent(&mut self, part: Part, out: &mut Effects) {
        if part.epoch != self.epoch && !planted::is(Bug::SkippedEpochCheck) {
            return;
        }
        match part.what {
            What::Records(records) => self.records(records.into_bytes(), out),
            What::HighWatermark => {}
            What::Diverged(epoch, end) => return out.push_back(Effect::CutAt(epoch, end)),
            What::TooOld(start, producers) if start > self.position.end => {
                return out.push_back(Effect::RestartAt(start, producers.into_bytes()));
            }
            // It will be told what is true by its own metadata.
            What::TooOld(..) | What::NotLeader => return out.push_back(Effect::Wait),
        }
        let bound = part.high_watermark.max(part.reign_start);
        self.told = self.told.max(Some(bound));
        let known = part.high_watermark.min(self.position.end);
        self.high_watermark = self.high_watermark.max(known);
        self.leader_start = self.leader_start.max(part.log_start);
        self.advance_start(out);
    }

    /// What was deleted from the front was durable before: recovery relies on it.
    fn advance_start(&mut self, out: &mut Effects) {
        let durable = self.high_watermark.min(self.position.synced);
        let start = self.leader_start.min(durable);
        if start > self.log_start {
            self.log_start = start;
            out.push_back(Effect::AdvanceStart(start));
        }
    }

    /// Whether a batch continues the log. An empty one may begin inside of a batch, if records were deleted up to there.
    fn continues(&self, header: &BatchHeader) -> bool {
        let end = self.position.end.get();
        let is_empty = self.position.end == self.log_start;
        let straddles = header.base_offset < end && header.next_offset() > end;
        header.base_offset == end || (is_empty && straddles)
    }

    fn records(&mut self, mut bytes: Bytes, out: &mut Effects) {
        let before = self.position.end;
        while !bytes.is_empty() {
            // Damaged on its way, or at the leader: it is asked for again.
            let Ok((batch, rest)) = Batch::split(bytes) else {
                break;
            };
            bytes = rest;
            let header = *batch.header();
            if !self.continues(&header) {
                continue;
            }
            if header.leader_epoch > self.epoch.0 && !planted::is(Bug::SkippedEpochCheck) {
                break;
            }
            self.producers.apply(&header);
            self.position.end = Offset::new(header.next_offset());
            out.push_back(Effect::Append(batch));
        }
        if self.position.end > before {
            out.push_back(Effect::Sync);
            // The next records may come while these are synced.
            out.push_back(Effect::Report(self.position));
        } else {
            out.push_back(Effect::Wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use callboard_common::Uuid;
    use callboard_common::record::{BatchBuilder, Compression};

    const EPOCH: LeaderEpoch = LeaderEpoch(3);

    fn placed(base: i64, count: i32, epoch: i32) -> Bytes {
        let mut builder = BatchBuilder::new(Compression::None);
        (0..count).for_each(|_| builder.push(5, None, Some(b"v"), &[]));
        let batch = builder.build();
        let header = batch.placed(Offset::new(base), LeaderEpoch(epoch)).write();
        [&header[..], &batch.bytes()[header.len()..]]
            .concat()
            .into()
    }

    fn part(what: What) -> Part {
        Part {
            topic_id: Uuid::ZERO,
            partition: 0,
            epoch: EPOCH,
            high_watermark: Offset::new(4),
            log_start: Offset::ZERO,
            reign_start: Offset::ZERO,
            what,
        }
    }

    fn follower() -> Follower {
        Follower::new(
            EPOCH,
            (Offset::ZERO, Offset::new(1), Offset::new(2)),
            ProducerTable::default(),
        )
    }

    fn step(follower: &mut Follower, input: Input) -> Vec<Effect> {
        let mut out = Effects::new();
        follower.step(input, &mut out);
        out.into()
    }

    #[test]
    fn what_continues_the_log_is_appended_and_reported_twice() {
        let mut f = follower();
        let records = [placed(2, 3, 3), placed(5, 1, 3)].concat();
        let effects = step(
            &mut f,
            Input::Sent(part(What::Records(Bytes::from(records).into()))),
        );
        let [
            Effect::Append(_),
            Effect::Append(_),
            Effect::Sync,
            Effect::Report(position),
        ] = effects[..]
        else {
            panic!("{effects:?}");
        };
        assert_eq!((position.end.get(), position.synced.get()), (6, 2));
        assert_eq!(f.high_watermark(), Offset::new(4));
        let effects = step(&mut f, Input::Synced(Offset::new(6)));
        assert!(matches!(effects[..], [Effect::Report(p)] if p.synced.get() == 6));
    }

    /// A new leader does not know at once what those before it have committed.
    #[test]
    fn who_lacks_what_earlier_reigns_may_have_committed_is_not_whole() {
        let mut f = follower();
        assert!(!f.is_whole(), "it has heard nothing");
        let told = |reign_start| Part {
            high_watermark: Offset::ZERO,
            reign_start: Offset::new(reign_start),
            ..part(What::HighWatermark)
        };
        assert_eq!(step(&mut f, Input::Sent(told(3))), []);
        assert!(!f.is_whole());
        let mut f = follower();
        assert_eq!(step(&mut f, Input::Sent(told(2))), []);
        assert!(f.is_whole());
    }

    #[test]
    fn nothing_is_deleted_before_it_is_durable() {
        let mut f = follower();
        let deleted = Part {
            log_start: Offset::new(4),
            ..part(What::Records(placed(2, 3, 3).into()))
        };
        let effects = step(&mut f, Input::Sent(deleted));
        let starts = |at| Effect::AdvanceStart(Offset::new(at));
        assert!(
            effects.contains(&starts(2)),
            "no more is durable: {effects:?}"
        );
        let effects = step(&mut f, Input::Synced(Offset::new(5)));
        assert!(effects.contains(&starts(4)), "{effects:?}");
        assert_eq!(step(&mut f, Input::RemoveAgain), [starts(4)]);
    }

    #[test]
    fn what_does_not_continue_the_log_is_not_appended() {
        for records in [placed(3, 1, 3), placed(0, 1, 3), placed(2, 1, 4)] {
            let effects = step(
                &mut follower(),
                Input::Sent(part(What::Records(records.into()))),
            );
            assert_eq!(effects, [Effect::Wait]);
        }
        let mut damaged = placed(2, 1, 3).to_vec();
        *damaged.last_mut().expect("there are bytes") ^= 1;
        let sent = part(What::Records(Bytes::from(damaged).into()));
        assert_eq!(step(&mut follower(), Input::Sent(sent)), [Effect::Wait]);
    }

    /// KIP-392: a follower may show less than its leader, never more.
    #[test]
    fn kip_392_readers_see_what_is_known_to_be_committed() {
        let mut f = follower();
        let records = Part {
            high_watermark: Offset::new(3),
            ..part(What::Records(placed(2, 3, 3).into()))
        };
        let _effects = step(&mut f, Input::Sent(records));
        let limit = |from, epoch| f.readable(from, epoch);
        assert_eq!(limit(0, None), Ok(Some(Offset::new(3))));
        assert_eq!(limit(2, Some(EPOCH)), Ok(Some(Offset::new(3))));
        assert_eq!(limit(3, None), Ok(None), "it is here and not committed");
        assert_eq!(limit(5, None), Ok(None));
        for from in [-1, 6] {
            assert!(matches!(
                limit(from, None),
                Err(FetchError::OutOfRange { .. })
            ));
        }
        let fenced = limit(0, Some(LeaderEpoch(2)));
        assert!(matches!(fenced, Err(FetchError::Fenced { .. })));
        let unknown = limit(0, Some(LeaderEpoch(4)));
        assert!(matches!(unknown, Err(FetchError::UnknownEpoch { .. })));
    }

    /// KIP-320: what an older reign's leader sends is not taken.
    #[test]
    fn kip_320_another_reign_is_not_listened_to() {
        let mut f = follower();
        let old = Part {
            epoch: LeaderEpoch(2),
            ..part(What::Records(placed(2, 1, 2).into()))
        };
        assert_eq!(step(&mut f, Input::Sent(old)), []);
        let cut = part(What::Diverged(LeaderEpoch(1), Offset::new(1)));
        assert_eq!(
            step(&mut f, Input::Sent(cut)),
            [Effect::CutAt(LeaderEpoch(1), Offset::new(1))]
        );
    }
}
