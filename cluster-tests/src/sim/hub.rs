//! Time, the network and everything that is under way: what the nodes of a simulation share.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use callboard_common::{Monotonic, Now, Timestamp};

use super::event::{Event, Lane, Message, Place};
use super::plan::{MS, Micros, Plan};
use super::random::Random;
use super::truth::Truth;

/// A lane that was cut is noticed after so long at most.
const LANE_PATIENCE: Micros = 1_500 * MS;
/// Events that are shown when something was found.
const REMEMBERED: usize = 200;
/// The wall clock when a simulation begins.
const WALL_START_MS: i64 = 1_790_000_000_000;

#[derive(Debug)]
struct Item {
    at: Micros,
    number: u64,
    /// Items move often.
    event: Box<Event>,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What happened in a run, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Records that were acknowledged.
    pub acknowledged: u64,
    /// Commits of groups that were acknowledged.
    pub commits: u64,
    /// Faults that took effect.
    pub faults: u64,
    /// Leaders that began a reign.
    pub elections: u64,
    /// Logs that were cut because the leader's differs.
    pub truncations: u64,
    /// Changes of who is in sync that made it smaller.
    pub isr_shrinks: u64,
    /// Logs that were opened.
    pub recoveries: u64,
    /// Leaders of the metadata quorum.
    pub quorum_leaders: u64,
    /// Images that were written or sent.
    pub images: u64,
    /// Damage that was noticed.
    pub damages: u64,
    /// Events.
    pub events: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    /// The time since the beginning.
    pub now: Micros,
    /// What was decided before.
    pub plan: Plan,
    /// What must hold.
    pub truth: Truth,
    /// Nodes whose disks have rotted.
    pub rotten: BTreeSet<usize>,
    /// What happened.
    pub coverage: Coverage,
    /// For everything but faults and plans.
    pub random: Random,
    heap: BinaryHeap<Reverse<Item>>,
    number: u64,
    /// Cuts that last, by the way that they cut: nothing of it arrives meanwhile.
    cuts: BTreeMap<(Place, Place), u32>,
    /// Microseconds more for what a node sends.
    slow: BTreeMap<usize, Micros>,
    /// Microseconds more for its syncs.
    pub slow_disks: BTreeMap<usize, Micros>,
    /// So many of a hundred messages are lost or doubled.
    pub lossy: u64,
    lanes: BTreeMap<(usize, usize), OpenLane>,
    /// When what a client and a node said last arrives: a connection keeps the order.
    arrivals: BTreeMap<(Place, Place), Micros>,
    /// Hash of everything that happened.
    trace: u64,
    recent: VecDeque<String>,
    /// Whether to remember what happened.
    pub verbose: bool,
    /// How much of it.
    pub remembered: usize,
}

/// A lane of replication from a follower's node to a leader's.
#[derive(Clone, Copy, Debug, Default)]
struct OpenLane {
    number: u64,
    is_open: bool,
    /// When what was sent last arrives, there and back: nothing overtakes.
    arrivals: [Micros; 2],
}

impl Hub {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self {
            now: 0,
            truth: Truth::default(),
            rotten: BTreeSet::new(),
            coverage: Coverage::default(),
            random: Random::new(plan.seed, "events"),
            plan,
            heap: BinaryHeap::new(),
            number: 0,
            cuts: BTreeMap::new(),
            slow: BTreeMap::new(),
            slow_disks: BTreeMap::new(),
            lossy: 0,
            lanes: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            trace: 0,
            recent: VecDeque::new(),
            verbose: false,
            remembered: REMEMBERED,
        }
    }

    /// The time as a node's clocks show it.
    #[must_use]
    pub fn clock(&self, skew_ms: i64) -> Now {
        Now {
            monotonic: Monotonic(Duration::from_micros(self.now)),
            wall: Timestamp(WALL_START_MS + (self.now / MS) as i64 + skew_ms),
        }
    }

    /// Something will happen.
    pub fn after(&mut self, delay: Micros, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: Micros, event: Event) {
        self.number += 1;
        self.heap.push(Reverse(Item {
            at,
            number: self.number,
            event: Box::new(event),
        }));
    }

    /// What happens next, before `end`; time is there then.
    pub fn next(&mut self, end: Micros) -> Option<Event> {
        let Reverse(item) = self.heap.pop()?;
        if item.at > end {
            return None;
        }
        self.now = item.at;
        self.coverage.events += 1;
        self.note_trace(item.at ^ item.event.kind() << 48);
        if self.verbose {
            let line = item.event.to_string();
            self.remember(&line);
        }
        Some(*item.event)
    }

    /// Makes something part of what two runs of a seed must have in common.
    fn note_trace(&mut self, what: u64) {
        self.trace = (self.trace ^ what)
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(17);
    }

    /// Hash of everything that happened so far.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// Keeps a line of what happened, to be shown if something is wrong.
    pub fn remember(&mut self, line: &str) {
        if !self.verbose {
            return;
        }
        if self.recent.len() >= self.remembered {
            let _oldest = self.recent.pop_front();
        }
        let now = self.now as f64 / 1e6;
        self.recent.push_back(format!("{now:>11.6} {line}"));
    }

    /// The last of what happened.
    pub fn recent(&self) -> impl Iterator<Item = &String> {
        self.recent.iter()
    }

    /// Cuts a way, or heals one cut of it.
    pub fn cut(&mut self, from: Place, to: Place, cut: bool) {
        let cuts = self.cuts.entry((from, to)).or_default();
        *cuts = match cut {
            true => *cuts + 1,
            false => cuts.saturating_sub(1),
        };
    }

    /// Whether what `from` sends arrives at `to`.
    #[must_use]
    pub fn is_open(&self, from: Place, to: Place) -> bool {
        self.cuts.get(&(from, to)).is_none_or(|cuts| *cuts == 0)
    }

    /// What a node sends takes so much longer from now on.
    pub fn slow_down(&mut self, node: usize, by: Micros) {
        let _before = self.slow.insert(node, by);
    }

    /// Everything arrives from now on, at once.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.slow.clear();
        self.slow_disks.clear();
        self.lossy = 0;
    }

    fn delay(&mut self, from: Place) -> Micros {
        let (least, more) = self.plan.delay;
        let slow = match from {
            Place::Node(node) => self.slow.get(&node).copied().unwrap_or(0),
            Place::Client(_) => 0,
        };
        least + self.random.below(more) + slow
    }

    /// How long a sync takes on a node's disk.
    pub fn sync_time(&mut self, node: usize) -> Micros {
        let (least, more) = self.plan.sync;
        let slow = self.slow_disks.get(&node).copied().unwrap_or(0);
        least + self.random.below(more) + slow
    }

    /// Sends a message that may be lost, and doubled if it is of the quorum.
    pub fn send(&mut self, from: Place, to: Place, message: Message) {
        if !self.is_open(from, to) {
            return;
        }
        let of_quorum = matches!(message, Message::Raft(..));
        if of_quorum && self.lossy > 0 {
            if self.random.percent(self.lossy) {
                return;
            }
            if self.random.percent(self.lossy / 2) {
                let delay = self.delay(from) * 3;
                let message = message.clone();
                self.after(delay, Event::Deliver(from, to, message));
            }
        }
        let mut at = self.now + self.delay(from);
        if matches!(from, Place::Client(_)) || matches!(to, Place::Client(_)) {
            let last = self.arrivals.entry((from, to)).or_default();
            at = at.max(*last + 1);
            *last = at;
        }
        self.at(at, Event::Deliver(from, to, message));
    }

    /// The lane of a follower's node to a leader's, if it is open.
    #[must_use]
    pub fn lane(&self, follower: usize, leader: usize) -> Option<Lane> {
        let lane = self.lanes.get(&(follower, leader)).filter(|l| l.is_open)?;
        Some(Lane {
            follower,
            leader,
            number: lane.number,
        })
    }

    /// Opens a lane, if packets go both ways.
    pub fn open_lane(&mut self, follower: usize, leader: usize) -> bool {
        let (a, b) = (Place::Node(follower), Place::Node(leader));
        if !self.is_open(a, b) || !self.is_open(b, a) {
            return false;
        }
        let lane = self.lanes.entry((follower, leader)).or_default();
        lane.number += 1;
        lane.is_open = true;
        true
    }

    /// Whether this is still the lane between the two.
    #[must_use]
    pub fn is_current(&self, lane: Lane) -> bool {
        self.lane(lane.follower, lane.leader) == Some(lane)
    }

    /// A lane ends; both sides have heard of it.
    pub fn close_lane(&mut self, follower: usize, leader: usize) {
        if let Some(lane) = self.lanes.get_mut(&(follower, leader)) {
            lane.is_open = false;
        }
    }

    /// Sends on a lane: in order, and if packets do not arrive the lane breaks after a while.
    pub fn send_on(&mut self, lane: Lane, forward: bool, message: Message) {
        let (a, b) = (Place::Node(lane.follower), Place::Node(lane.leader));
        let (from, to) = if forward { (a, b) } else { (b, a) };
        if !self.is_current(lane) {
            return;
        }
        if !self.is_open(from, to) {
            let patience = LANE_PATIENCE / 4 + self.random.below(LANE_PATIENCE);
            return self.after(patience, Event::LaneBroken(lane));
        }
        // What is lost is sent again by the transport, and what is sent later waits for it.
        let lost = self.lossy > 0 && self.random.percent(self.lossy);
        let delay = self.delay(from) + if lost { 30 * MS } else { 0 };
        let Some(open) = self.lanes.get_mut(&(lane.follower, lane.leader)) else {
            return;
        };
        let arrival = (self.now + delay).max(open.arrivals[usize::from(forward)] + 1);
        open.arrivals[usize::from(forward)] = arrival;
        self.at(arrival, Event::OnLane(lane, to, message));
    }
}
