//! What a seed decides before anything runs: the cluster, its load, and which faults come when.

use std::fmt;

use super::random::Random;

/// Microseconds of virtual time.
pub type Micros = u64;

/// A millisecond.
pub const MS: Micros = 1_000;
/// A second.
pub const SECOND: Micros = 1_000_000;
/// No fault begins after this.
pub const FAULTS_UNTIL: Micros = 40 * SECOND;
/// Everything is healed by then, and producers write for so long.
pub const HEALED: Micros = 45 * SECOND;
/// The end, by which everything must be as it should.
pub const END: Micros = 60 * SECOND;

/// A fault, and when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: Micros,
    /// To which node.
    pub node: usize,
    /// What.
    pub what: What,
}

/// What goes wrong. Names in brackets are those of RELIABILITY's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The process ends (K1); its page cache stays.
    Kill(Micros),
    /// All processes end at once (K2).
    KillAll(Micros),
    /// The node stops in order (K4).
    Stop(Micros),
    /// A partition's actor panics (K5).
    Crash,
    /// The process hangs (S1).
    Pause(Micros),
    /// It is cut off from everybody (N1).
    Isolate(Micros),
    /// Nothing of what it sends to the other nodes arrives (N1).
    Mute(Micros),
    /// Nothing of what the other nodes send arrives (N1).
    Deaf(Micros),
    /// The way to the next node is cut, both ways (N1).
    CutPair(Micros),
    /// Its packets take long (N3): microseconds more, and for how long.
    Slow(Micros, Micros),
    /// So many of a hundred messages of the quorum are lost or doubled (N4).
    Lossy(u64, Micros),
    /// The power goes after so many more operations of its disk (D1).
    PowerLoss(u64, Micros),
    /// The power goes everywhere (D2).
    PowerLossAll(Micros),
    /// The power goes with so many more operations of the disk, once something of a log is noted or removed (D1).
    PowerLossInRemoval(u64),
    /// The next sync fails (D5).
    FailSync,
    /// So many more bytes, and the disk is full (D6).
    Full(u64, Micros),
    /// Syncs take longer (D7).
    SlowDisk(Micros, Micros),
    /// A byte of a log changes (D8).
    Rot,
    /// The disk is another one, and empty (D9).
    Wipe(Micros),
    /// The wall clock jumps by milliseconds (C1).
    Clock(i64),
    /// A partition gets other replicas (W7).
    Move,
    /// Preferred leaders are elected (W7).
    Elect,
    /// Records are deleted from the front (W7).
    DeleteRecords,
    /// A topic is deleted and created again under its name (W7).
    Recreate,
}

impl What {
    /// Its row of RELIABILITY's table.
    #[must_use]
    pub fn row(self) -> &'static str {
        match self {
            Self::Kill(_) => "K1",
            Self::KillAll(_) => "K2",
            Self::Stop(_) => "K4",
            Self::Crash => "K5",
            Self::Pause(_) => "S1",
            Self::Isolate(_) | Self::Mute(_) | Self::Deaf(_) | Self::CutPair(_) => "N1",
            Self::Slow(..) => "N3",
            Self::Lossy(..) => "N4",
            Self::PowerLoss(..) | Self::PowerLossInRemoval(_) => "D1",
            Self::PowerLossAll(_) => "D2",
            Self::FailSync => "D5",
            Self::Full(..) => "D6",
            Self::SlowDisk(..) => "D7",
            Self::Rot => "D8",
            Self::Wipe(_) => "D9",
            Self::Clock(_) => "C1",
            Self::Move | Self::Elect | Self::DeleteRecords | Self::Recreate => "W7",
        }
    }

    /// Whether it may destroy what was synced: only one node of a cluster has such faults.
    fn destroys(self) -> bool {
        matches!(self, Self::Rot | Self::Wipe(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, node) = (self.at as f64 / SECOND as f64, self.node + 1);
        write!(
            f,
            "{at:>8.3} s  node {node}  {:<3} {:?}",
            self.what.row(),
            self.what
        )
    }
}

/// A cluster, its load and its faults.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What decided it.
    pub seed: u64,
    /// Nodes, all of them voters.
    pub nodes: usize,
    /// Replicas of a partition.
    pub replicas: usize,
    /// `min.insync.replicas`.
    pub min_isr: u32,
    /// Partitions of the topic.
    pub partitions: i32,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `index.interval.bytes`.
    pub index_interval: u32,
    /// Entries of the metadata log between two images.
    pub image_every: u64,
    /// In so many of a hundred cases a sync is followed by a checkpoint.
    pub checkpoints: u64,
    /// Between two times that a node writes its checkpoints.
    pub checkpoint_pause: Micros,
    /// A message takes at least so long, and at most so much longer.
    pub delay: (Micros, Micros),
    /// The same of a sync.
    pub sync: (Micros, Micros),
    /// Between two batches of a producer.
    pub pace: Micros,
    /// Longest value.
    pub value_bytes: u64,
    /// Whether groups commit, and readers look where reigns ended. What was found before there were any stays as it was.
    pub groups: bool,
    /// What goes wrong, in order.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// What a seed decides; `nodes` is drawn too if it is not given.
    #[must_use]
    pub fn draw(seed: u64, nodes: Option<usize>) -> Self {
        let mut r = Random::new(seed, "plan");
        let drawn = if r.percent(20) { 5 } else { 3 };
        let nodes = nodes.unwrap_or(drawn).max(1);
        let replicas = match r.below(10) {
            0 => 1,
            1 => 2,
            _ => 3,
        };
        let replicas = replicas.min(nodes);
        let min_isr = if replicas > 1 && r.percent(75) { 2 } else { 1 };
        let mut plan = Self {
            seed,
            nodes,
            replicas,
            min_isr,
            partitions: r.between(1, 3) as i32,
            segment_bytes: *r.pick(&[2_500, 6_000, 30_000]),
            index_interval: *r.pick(&[0, 200, 1_000]),
            image_every: *r.pick(&[20, 60, 1_000]),
            checkpoints: *r.pick(&[0, 2, 20]),
            checkpoint_pause: *Random::new(seed, "checkpoints").pick(&[
                200 * MS,
                SECOND,
                5 * SECOND,
            ]),
            delay: *r.pick(&[(100, 200), (200, 2_000), (500, 30_000)]),
            sync: *r.pick(&[(50, 200), (500, 3_000), (1_000, 40_000)]),
            pace: r.between(70, 160) * MS,
            value_bytes: *r.pick(&[16, 100, 300]),
            groups: Random::new(seed, "groups").percent(60),
            faults: Vec::new(),
        };
        plan.draw_faults();
        plan.draw_removals();
        plan
    }

    fn draw_faults(&mut self) {
        let mut r = Random::new(self.seed, "faults");
        // Each seed knows a random half of what can go wrong.
        let known: Vec<u64> = (0..23).filter(|_| r.percent(50)).collect();
        if known.is_empty() {
            return;
        }
        let victim = r.below(self.nodes as u64) as usize;
        let may_destroy = self.replicas > 2 && self.min_isr > 1;
        let mut at = 5 * SECOND;
        let calm = *r.pick(&[1_500, 3_000, 6_000]);
        let (mut failed_syncs, mut wiped) = (0, false);
        loop {
            at += r.between(200, 2 * calm) * MS;
            if at >= FAULTS_UNTIL {
                break;
            }
            let what = Self::draw_fault(*r.pick(&known), &mut r);
            let mut node = r.below(self.nodes as u64) as usize;
            if what.destroys() {
                if !may_destroy || wiped {
                    continue;
                }
                node = victim;
                wiped |= matches!(what, What::Wipe(_));
            }
            if what == What::FailSync {
                // More in a minute, and a partition is offline until its node starts again.
                failed_syncs += 1;
                if failed_syncs > 3 {
                    continue;
                }
            }
            self.faults.push(Fault { at, node, what });
        }
    }

    /// Removals, which are rare, are met by a loss of power more often than chance would have it.
    fn draw_removals(&mut self) {
        let mut r = Random::new(self.seed, "removals");
        if r.percent(70) {
            return;
        }
        for _ in 0..r.between(1, 3) {
            let at = r.between(8 * SECOND, FAULTS_UNTIL);
            let node = r.below(self.nodes as u64) as usize;
            let (deletes, goes) = (What::DeleteRecords, What::PowerLossInRemoval(r.below(12)));
            for (wait, what) in [(0, goes), (MS, deletes)] {
                let at = at + wait;
                self.faults.push(Fault { at, node, what });
            }
        }
        self.faults.sort_by_key(|f| f.at);
    }

    fn draw_fault(kind: u64, r: &mut Random) -> What {
        let down = r.between(50, 6_000) * MS;
        let cut = r.between(500, 12_000) * MS;
        match kind {
            0 | 1 => What::Kill(down),
            2 => What::KillAll(down),
            3 => What::Stop(down),
            4 => What::Crash,
            5 => What::Pause(cut),
            6 => What::Isolate(cut),
            7 => What::Mute(cut),
            8 => What::Deaf(cut),
            9 => What::CutPair(cut),
            10 => What::Slow(r.between(5, 200) * MS, cut),
            11 => What::Lossy(r.between(2, 40), cut),
            12 | 13 => What::PowerLoss(r.below(40), down),
            14 => What::PowerLossAll(down),
            15 => What::FailSync,
            16 => What::Full(r.between(0, 3_000), cut),
            17 => What::SlowDisk(r.between(50, 1_500) * MS, cut),
            18 => What::Rot,
            19 => What::Wipe(down),
            20 => What::Clock(*r.pick(&[3_600_000, -7_200_000, 31_536_000_000, -31_536_000_000])),
            21 => *r.pick(&[What::Move, What::Elect]),
            _ => *r.pick(&[What::DeleteRecords, What::DeleteRecords, What::Recreate]),
        }
    }
}
