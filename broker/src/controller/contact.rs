//! When a member last knew all that the quorum had decided, and the quorum knew of the member; pure.

use std::time::Duration;

use callboard_common::Monotonic;

use super::liveness::SESSION;

/// Time passes in smaller steps than this, or the process hangs.
const HANG: Duration = Duration::from_millis(300);

/// See the module. To hear of the quorum is not enough: who was cut off hears of it again before it hears what was decided
/// meanwhile, perhaps that others have its place; and a process that hung reads what was sent long ago. So a member stamps its
/// answers with its time, its leader sends the stamp back with what is committed, and what counts is the stamp: nobody judges
/// a member earlier than a session after it.
#[derive(Debug)]
pub(super) struct Contact {
    now: Monotonic,
    heard: Knowledge,
    /// The same while it leads the quorum itself: others may have written what its own disk has not, and what is committed so
    /// is not applied here.
    led: Knowledge,
    /// When it went on after it had hung.
    woke: Option<Monotonic>,
}

/// Until when all that was decided is known here.
#[derive(Debug)]
struct Knowledge {
    last: Monotonic,
    /// A time, and what was committed then, which is not all applied here yet. The first of those counts: while more is committed
    /// all the time, later ones would never be reached.
    told: Option<(Monotonic, u64)>,
}

impl Knowledge {
    fn new(last: Monotonic) -> Self {
        Self { last, told: None }
    }

    fn tell(&mut self, at: Monotonic, committed: u64) {
        let _first = self.told.get_or_insert((at, committed));
    }

    fn renew(&mut self, applied: u64) {
        if let Some((at, _)) = self.told.take_if(|(_, committed)| *committed <= applied) {
            self.last = self.last.max(at);
        }
    }
}

impl Contact {
    /// A member that starts now, and knows nothing of what was decided: what its process did in an earlier life goes on.
    pub(super) fn new(now: Monotonic) -> Self {
        let never = Monotonic::default();
        Self {
            now,
            heard: Knowledge::new(never),
            led: Knowledge::new(never),
            woke: None,
        }
    }

    /// It is later now.
    pub(super) fn pass(&mut self, now: Monotonic) {
        if now.since(self.now) > HANG {
            self.woke = Some(now);
        }
        self.now = now;
    }

    /// It leads the quorum itself, where entries up to `committed` are committed: it would step down if a majority were silent
    /// (check-quorum), unless it has just hung.
    pub(super) fn lead(&mut self, committed: u64) {
        if self.woke.is_none_or(|woke| self.now.since(woke) > SESSION) {
            self.led.tell(self.now, committed);
        }
    }

    /// With what an answer is stamped, in milliseconds.
    pub(super) fn stamp(&self) -> u64 {
        self.now.0.as_millis() as u64
    }

    /// The leader of the quorum has an answer that was stamped so, and says that entries up to `committed` are committed.
    pub(super) fn tell(&mut self, stamp: u64, committed: u64) {
        let at = Monotonic(Duration::from_millis(stamp));
        // A stamp of an earlier life, or somebody's invention.
        if at <= self.now {
            self.heard.tell(at, committed);
        }
    }

    /// Entries up to `applied` are known here.
    pub(super) fn renew(&mut self, applied: u64) {
        self.heard.renew(applied);
        self.led.renew(applied);
    }

    /// Until then nothing was decided that is not known here.
    pub(super) fn last(&self) -> Monotonic {
        self.heard.last
    }

    /// The same of a member that leads the quorum.
    pub(super) fn led(&self) -> Monotonic {
        self.led.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hears_of_the_quorum_has_contact_when_it_knows_what_was_decided() {
        let at = |ms| Monotonic(Duration::from_millis(ms));
        let mut contact = Contact::new(at(0));
        contact.pass(at(1000));
        contact.tell(100, 7);
        contact.renew(6);
        assert_eq!(contact.last(), at(0));
        contact.tell(200, 9);
        contact.renew(7);
        assert_eq!(contact.last(), at(100), "the first that was told counts");
        contact.tell(300, 9);
        contact.renew(9);
        assert_eq!(contact.last(), at(300));
        contact.tell(5000, 9);
        contact.renew(9);
        assert_eq!(contact.last(), at(300), "that time has not come");
    }

    #[test]
    fn who_leads_the_quorum_may_know_less_than_what_others_have_written() {
        let at = |ms| Monotonic(Duration::from_millis(ms));
        let mut contact = Contact::new(at(0));
        for (now, committed, applied, led) in [
            (100, 7, 7, 100),
            (200, 8, 7, 100),
            (300, 9, 7, 100),
            (400, 9, 8, 200),
            (500, 9, 9, 500),
            (600, 9, 9, 600),
        ] {
            contact.pass(at(now));
            contact.lead(committed);
            contact.renew(applied);
            assert_eq!(contact.led(), at(led), "at {now} ms");
        }
    }
}
