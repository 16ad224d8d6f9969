//! A whole simulated cluster: nodes on disks, clients, faults that come and go, and what must be true in the end.

mod faults;
mod judging;

use std::collections::{BTreeMap, VecDeque};

use callboard_broker::controller::Command;
use callboard_broker::storage::disk::SimulatedDisk;
use callboard_common::kafka::Text;
use callboard_common::{BrokerId, TopicName, TopicPartition, Uuid};

use crate::sim::client::{Client, Consumer, Producer};
use crate::sim::committer::Committer;
use crate::sim::event::{Event, OfClient, OfNode, OfPartition, Place};
use crate::sim::hub::{Coverage, Hub};
use crate::sim::member::Member;
use crate::sim::node::{Running, Start};
use crate::sim::plan::{END, Fault, HEALED, MS, Micros, Plan, SECOND, What};
use judging::OpenLog;

/// Producers, then consumers, then those who commit, then the members of a group.
const PRODUCERS: usize = 2;
const CONSUMERS: usize = 1;
const COMMITTERS: usize = 2;
const MEMBERS: usize = 3;
/// More events than this in a minute are a storm.
const EVENTS_MAX: u64 = 400_000;
/// So many acknowledged records make a seed count.
pub const RECORDS_MIN: u64 = 500;

/// One machine: its disk outlives the processes on it.
#[derive(Debug)]
struct Machine {
    disk: SimulatedDisk,
    directory: Uuid,
    joins: bool,
    starts: u64,
    skew_ms: i64,
    running: Option<Running>,
    /// If not zero, its process hangs until then.
    paused_until: Micros,
    /// What has arrived meanwhile, in order.
    held: VecDeque<Event>,
    /// Counts what keeps it down.
    held_down: u32,
    /// With so many more operations its power goes, once something of a log is removed or noted.
    goes_late: Option<u64>,
}

/// How a run of a seed ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What must hold and does not.
    pub violation: Option<String>,
    /// What happened.
    pub coverage: Coverage,
    /// Hash of all that happened.
    pub trace: u64,
    /// The last of what happened, if it was remembered.
    pub recent: Vec<String>,
}

/// What of a run is remembered, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Nothing.
    Nothing,
    /// The last events.
    Last,
    /// All.
    All,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    hub: Hub,
    machines: Vec<Machine>,
    clients: Vec<Client>,
    topic: TopicName,
    /// The topics that must be there, with their partitions.
    topics: Vec<(TopicName, i32)>,
    topics_made: u8,
    /// When it is looked again whether the topic is there.
    topic_due: Micros,
}

fn directory(node: usize, count: u64) -> Uuid {
    let mut id = [0; 16];
    (id[0], id[7]) = (node as u8 + 1, count as u8 + 1);
    id[15] = 1;
    Uuid(id)
}

impl World {
    /// A cluster that is about to start for the first time.
    ///
    /// # Panics
    ///
    /// Never: the topic's name is valid.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let machines = (0..plan.nodes).map(|node| Machine {
            disk: SimulatedDisk::new(plan.seed.wrapping_mul(31) + node as u64),
            directory: directory(node, 0),
            joins: node > 0,
            starts: 0,
            skew_ms: 0,
            running: None,
            paused_until: 0,
            held: VecDeque::new(),
            held_down: 0,
            goes_late: None,
        });
        let machines: Vec<Machine> = machines.collect();
        let topic = TopicName::new("orders").expect("a valid name");
        let producers = (0..PRODUCERS).map(|c| Client::Producer(Producer::new(c, topic.clone())));
        let consumers = PRODUCERS..PRODUCERS + CONSUMERS;
        let consumers = consumers.map(|c| Client::Consumer(Consumer::new(c, topic.clone())));
        let mut clients: Vec<Client> = producers.chain(consumers).collect();
        if plan.groups {
            let of = TopicPartition::new(topic.clone(), 0);
            for number in 0..COMMITTERS {
                // The second asks how far the first is.
                let committer = (Text::from("alone"), number > 0);
                let committer = Committer::new(clients.len(), committer, of.clone());
                clients.push(Client::Committer(committer));
            }
            for _ in 0..MEMBERS {
                clients.push(Client::Member(Member::new(clients.len(), topic.clone())));
            }
        }
        let mut topics = vec![(topic.clone(), plan.partitions)];
        if plan.groups {
            topics.push((TopicName::consumer_offsets(), 1));
        }
        let mut hub = Hub::new(plan);
        for node in 0..machines.len() {
            hub.after(MS * node as u64, Event::Start(node));
        }
        for client in 0..clients.len() {
            hub.after(3 * SECOND, Event::Client(client, OfClient::Act));
        }
        for fault in hub.plan.faults.clone() {
            hub.after(fault.at, Event::Fault(fault));
        }
        hub.after(HEALED, Event::Heal);
        Self {
            hub,
            machines,
            clients,
            topic,
            topics,
            topics_made: 0,
            topic_due: 0,
        }
    }

    /// Runs to the end, or to what must not be.
    #[must_use]
    pub fn run(mut self, show: Show) -> Outcome {
        self.hub.verbose = show != Show::Nothing;
        if show == Show::All {
            self.hub.remembered = usize::MAX;
        }
        while self.hub.truth.violation().is_none()
            && let Some(event) = self.hub.next(END)
        {
            self.event(event);
            if self.hub.coverage.events > EVENTS_MAX {
                let now = self.hub.now;
                let storm = || {
                    format!(
                        "A25: {EVENTS_MAX} events until {now} us: something goes round in circles"
                    )
                };
                self.hub.truth.violate(storm);
            }
        }
        if self.hub.truth.violation().is_none() {
            self.judge();
        }
        Outcome {
            violation: self.hub.truth.violation().cloned(),
            coverage: self.hub.coverage,
            trace: self.hub.trace(),
            recent: self.hub.recent().cloned().collect(),
        }
    }

    fn event(&mut self, event: Event) {
        let node = match &event {
            Event::Deliver(_, Place::Node(node), _)
            | Event::OnLane(_, Place::Node(node), _)
            | Event::Node(node, ..) => Some(*node),
            Event::Deliver(..)
            | Event::OnLane(..)
            | Event::LaneBroken(_)
            | Event::OpenLane(..)
            | Event::Client(..)
            | Event::Fault(_)
            | Event::FaultEnds(_)
            | Event::Start(_)
            | Event::Heal => None,
        };
        if let Some(node) = node
            && self.machines[node].paused_until > 0
        {
            return self.machines[node].held.push_back(event);
        }
        self.happen(event);
        if let Some(node) = node {
            if let Some(running) = &self.machines[node].running
                && running.image.applied > self.hub.truth.metadata.applied
            {
                self.hub.truth.metadata = running.image.clone();
                self.hub.truth.moved = true;
            }
            self.notice_power(node);
            if std::mem::take(&mut self.hub.truth.moved) {
                (0..self.machines.len()).for_each(|n| self.judge_durable(n));
            }
            self.want_topics(node);
        }
    }

    fn happen(&mut self, event: Event) {
        let hub = &mut self.hub;
        match event {
            Event::Deliver(from, Place::Node(node), message) => {
                if let Some(running) = &mut self.machines[node].running {
                    running.message(hub, from, message);
                }
            }
            Event::Deliver(_, Place::Client(client), message) => {
                self.clients[client].message(hub, message);
            }
            Event::OnLane(lane, Place::Node(node), message) => {
                if hub.is_current(lane)
                    && let Some(running) = &mut self.machines[node].running
                {
                    running.on_lane(hub, lane, message);
                }
            }
            Event::OnLane(..) => {}
            Event::LaneBroken(lane) => {
                if hub.is_current(lane) {
                    hub.close_lane(lane.follower, lane.leader);
                    hub.after(20 * MS, Event::OpenLane(lane.follower, lane.leader));
                }
            }
            Event::OpenLane(follower, leader) => self.open_lane(follower, leader),
            Event::Node(node, life, what) => self.node_event(node, life, what),
            Event::Client(client, what) => self.clients[client].event(hub, what),
            Event::Fault(fault) => self.fault(fault),
            Event::FaultEnds(fault) => self.fault_ends(fault),
            Event::Start(node) => self.start(node),
            Event::Heal => self.heal(),
        }
    }

    fn node_event(&mut self, node: usize, life: u64, what: OfNode) {
        let machine = &mut self.machines[node];
        let Some(running) = &mut machine.running else {
            return;
        };
        let removes = matches!(what, OfNode::Partition(_, _, OfPartition::Background));
        if removes && let Some(operations) = machine.goes_late.take() {
            let goes = machine.disk.operations() + operations;
            machine.disk.power_off_after(goes);
            let what = What::PowerLoss(operations, SECOND);
            let at = self.hub.now;
            let ends = Event::FaultEnds(Fault { at, node, what });
            self.hub.after(SECOND, ends);
        }
        if running.life == life && !running.event(&mut self.hub, what) {
            self.down(node, false);
            self.hub.after(SECOND, Event::Start(node));
        }
    }

    fn open_lane(&mut self, follower: usize, leader: usize) {
        let up = |n: usize| self.machines[n].running.is_some();
        if !up(follower) || self.hub.lane(follower, leader).is_some() {
            return;
        }
        if up(leader) && self.hub.open_lane(follower, leader) {
            if let Some(running) = &mut self.machines[follower].running {
                running.connected(&mut self.hub, leader);
            }
            return;
        }
        let follows = self.machines[follower].running.as_ref();
        let leader_id = BrokerId(leader as i32 + 1);
        if follows.is_some_and(|r| !r.following(leader_id).is_empty()) {
            self.hub.after(100 * MS, Event::OpenLane(follower, leader));
        }
    }

    fn start(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if machine.running.is_some() || machine.held_down > 0 {
            return;
        }
        machine.starts += 1;
        let start = Start {
            node,
            life: machine.starts,
            directory: machine.directory,
            joins: machine.joins,
            disk: machine.disk.clone(),
            skew_ms: machine.skew_ms,
        };
        match Running::start(&mut self.hub, &start) {
            Ok(running) => machine.running = Some(running),
            Err(error) => {
                let line = format!("node {} cannot start: {error}", node + 1);
                self.hub.remember(&line);
                self.hub.after(SECOND, Event::Start(node));
            }
        }
        self.notice_power(node);
    }

    /// A process ends. With its power, if that goes, go the sectors that were not synced.
    fn down(&mut self, node: usize, power: bool) {
        if power {
            self.judge_durable(node);
        }
        let Some(running) = self.machines[node].running.take() else {
            return;
        };
        let open: Vec<OpenLog> = running.replicas().filter_map(OpenLog::of).collect();
        drop(running);
        if power {
            self.machines[node].disk.crash();
            self.judge_starts(node, &open);
        }
        self.machines[node].paused_until = 0;
        self.machines[node].held.clear();
        if self.hub.plan.groups && !power {
            for client in 0..self.clients.len() {
                let died = Event::Client(client, OfClient::Died(node));
                self.hub.after(MS, died);
            }
        }
        for other in (0..self.machines.len()).filter(|n| *n != node) {
            self.hub.close_lane(node, other);
            self.hub.close_lane(other, node);
            self.hub.after(100 * MS, Event::OpenLane(other, node));
            // The kernel says that a process has ended, not that a machine has.
            let reachable = self.hub.is_open(Place::Node(node), Place::Node(other));
            if let Some(running) = self.machines[other]
                .running
                .as_ref()
                .filter(|_| !power && reachable)
            {
                let died = OfNode::Died(BrokerId(node as i32 + 1));
                let wait = 500 + self.hub.random.below(3 * MS);
                self.hub.after(wait, Event::Node(other, running.life, died));
            }
        }
    }

    /// If the power of a node has gone, it is down.
    fn notice_power(&mut self, node: usize) {
        if self.machines[node].disk.is_off() {
            self.down(node, true);
            self.machines[node].disk.crash();
        }
    }

    /// Creates the topics when all nodes are there for the first time, and whenever one is not there.
    fn want_topics(&mut self, node: usize) {
        if self.hub.now < self.topic_due {
            return;
        }
        let Some(running) = &mut self.machines[node].running else {
            return;
        };
        let nodes = self.hub.plan.nodes;
        let enough = if self.topics_made == 0 {
            nodes
        } else {
            self.hub.plan.replicas
        };
        let is_missing = |(topic, _): &(TopicName, i32)| !running.image.topics.contains_key(topic);
        let missing = self.topics.iter().filter(|t| is_missing(t));
        let missing: Vec<(TopicName, i32)> = missing.cloned().collect();
        if missing.is_empty() || running.image.unfenced().len() < enough {
            return;
        }
        self.topic_due = self.hub.now + 2 * SECOND;
        for (name, partitions) in missing {
            self.topics_made += 1;
            let place = |p: i32| {
                let node = |n: usize| BrokerId(((p as usize + n) % nodes) as i32 + 1);
                (0..self.hub.plan.replicas).map(node).collect()
            };
            let min_isr = self.hub.plan.min_isr.to_string();
            let command = Command::PlaceTopic {
                name,
                id: Uuid([self.topics_made; 16]),
                replicas: (0..partitions).map(place).collect(),
                configs: BTreeMap::from([("min.insync.replicas".to_owned(), min_isr)]),
            };
            running.command(&mut self.hub, command);
        }
    }

    /// Nothing goes wrong any more, and what is down starts. A partition that has given up is started with its node.
    fn heal(&mut self) {
        self.hub.heal();
        for node in 0..self.machines.len() {
            let machine = &mut self.machines[node];
            machine.held_down = 0;
            machine.goes_late = None;
            machine.skew_ms = 0;
            machine.disk.set_capacity(u64::MAX);
            machine.disk.fail_syncs(0);
            let running = machine.running.as_mut();
            let gave_up = running.is_some_and(|r| {
                r.skew_ms = 0;
                r.replicas().any(crate::sim::replica::Replica::is_offline)
            });
            if gave_up {
                self.down(node, false);
            }
            self.hub.after(MS, Event::Start(node));
        }
        (0..self.machines.len()).for_each(|node| self.resume(node));
    }

    /// A process that hung goes on: what it has missed comes first, in its order.
    fn resume(&mut self, node: usize) {
        self.machines[node].paused_until = 0;
        for event in std::mem::take(&mut self.machines[node].held) {
            self.event(event);
        }
    }
}
