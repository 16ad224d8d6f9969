//! What goes wrong in a simulation, and when: drawn from its seed. The rows are those of `docs/TESTING.md`.

use std::fmt;
use std::time::Duration;

use super::network::Weather;
use crate::sim::random::Random;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// kill -9; it is started again at the end.
    Kill(u8),
    /// All of them.
    KillAll,
    /// It is stopped in order and started again at the end.
    Stop(u8),
    /// The leaders of all partitions there panic, one after the other.
    Panic(u8),
    /// The power of one goes: what was not synced is lost, in part.
    PowerLoss(u8),
    /// The power of all goes.
    PowerLossAll,
    /// Neither nodes nor clients hear of it, and it hears of none.
    Isolate(u8),
    /// It hears nobody.
    Deaf(u8),
    /// Nobody hears it.
    Mute(u8),
    /// What it sends and is sent comes when it is over.
    Hold(u8),
    /// What happens to datagrams.
    Weather(Weather),
    /// So many syncs fail.
    FailSyncs(u8, u32),
    /// Its disk is full.
    Full(u8),
    /// Its disk takes so many milliseconds.
    SlowDisk(u8, u64),
}

impl What {
    /// Its row.
    #[must_use]
    pub fn row(self) -> &'static str {
        match self {
            Self::Kill(_) => "K1",
            Self::KillAll => "K2",
            Self::Stop(_) => "K4",
            Self::Panic(_) => "K5",
            Self::Isolate(_) | Self::Deaf(_) | Self::Mute(_) => "N1",
            Self::Hold(_) => "N3",
            Self::Weather(_) => "N4",
            Self::PowerLoss(_) => "D1",
            Self::PowerLossAll => "D2",
            Self::FailSyncs(..) => "D5",
            Self::Full(_) => "D6",
            Self::SlowDisk(..) => "D7",
        }
    }

    /// Whether a majority goes on meanwhile.
    #[must_use]
    pub fn leaves_quorum(self) -> bool {
        !matches!(self, Self::KillAll | Self::PowerLossAll)
    }
}

/// A fault in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it begins.
    pub at: Duration,
    /// When it is over.
    pub until: Duration,
    /// What happens.
    pub what: What,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8.3} s to {:>8.3} s  {:<3} {:?}",
            self.at.as_secs_f64(),
            self.until.as_secs_f64(),
            self.what.row(),
            self.what
        )
    }
}

/// Draws the faults between two moments, one after the other.
#[must_use]
pub fn draw(seed: u64, (from, to): (Duration, Duration)) -> Vec<Fault> {
    let mut random = Random::new(seed, "faults");
    let mut faults = Vec::new();
    let mut at = from;
    while at < to {
        let what = draw_one(&mut random);
        let until = at + Duration::from_millis(random.between(300, 4_000));
        faults.push(Fault { at, until, what });
        // Sometimes the next one comes before the cluster has got over this one.
        at = until + Duration::from_millis(random.between(200, 5_000));
    }
    faults
}

/// So many nodes lose their power, one at a time; where more would, only processes end.
pub fn limit_power_losses(plan: &mut [Fault], mut most: usize) {
    for fault in plan {
        if let What::PowerLoss(node) = fault.what {
            match most.checked_sub(1) {
                Some(left) => most = left,
                None => fault.what = What::Kill(node),
            }
        } else if fault.what == What::PowerLossAll {
            fault.what = What::KillAll;
        }
    }
}

fn draw_one(r: &mut Random) -> What {
    let node = r.between(1, 3) as u8;
    match r.below(20) {
        0..3 => What::Kill(node),
        3 => What::KillAll,
        4..6 => What::Stop(node),
        6..9 => What::Panic(node),
        9..11 => What::PowerLoss(node),
        11 => What::PowerLossAll,
        12 => What::Isolate(node),
        13 => *r.pick(&[What::Deaf(node), What::Mute(node)]),
        14 => What::Hold(node),
        15 => What::Weather(Weather {
            lost: r.below(20),
            doubled: r.below(20),
            damaged: r.below(3),
        }),
        16..18 => What::FailSyncs(node, r.between(1, 3) as u32),
        18 => What::Full(node),
        _ => What::SlowDisk(node, r.between(20, 600)),
    }
}
