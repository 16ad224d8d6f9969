//! Controllers that talk to each other over a network that a test holds, on disks that forget nothing.

use std::collections::BTreeSet;

use super::*;
use crate::controller::image::Standing;
use crate::controller::{Endpoint, Endpoints, READ_LEASE};
use callboard_common::{Monotonic, Timestamp};
use std::time::Duration;

fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

fn endpoint() -> Endpoint {
    Endpoint {
        host: "localhost".into(),
        port: 1,
    }
}

fn identity(broker: i32, joins: bool) -> Identity {
    Identity {
        broker: BrokerId(broker),
        directory: Uuid([broker as u8; 16]),
        joins,
    }
}

fn member(broker: i32) -> Member {
    Member {
        broker: BrokerId(broker),
        directory: identity(broker, false).directory,
        peer: endpoint(),
    }
}

#[derive(Default)]
struct Disk {
    saved: Option<SavedImage>,
    writes: Vec<Persisted>,
}

struct Machine {
    me: Identity,
    disk: Disk,
    controller: Option<Controller>,
    answers: BTreeMap<Ticket, Result<Outcome, Refusal>>,
    shown: u64,
}

/// A cluster in one thread.
#[derive(Default)]
struct Cluster {
    machines: BTreeMap<i32, Machine>,
    cut: BTreeSet<i32>,
    /// Who has a disk from some time ago.
    rolled_back: BTreeSet<i32>,
    /// Who hears the others and is not heard.
    mute: BTreeSet<i32>,
    now: u64,
    tickets: u64,
    forwarded: Vec<(i32, Ticket, Member, Proposal)>,
    /// What is to be done, in order.
    queue: VecDeque<(i32, Effect)>,
    /// How long a sync takes, in ms.
    sync_ms: u64,
    /// Syncs that have begun: when they end, whose they are, and their number.
    syncing: VecDeque<(u64, i32, u64)>,
}

impl Cluster {
    fn now(&self) -> Now {
        Now {
            monotonic: Monotonic(Duration::from_millis(self.now)),
            wall: Timestamp(0),
        }
    }

    fn start(&mut self, broker: i32, joins: bool) {
        let machine = self.machines.entry(broker).or_insert_with(|| Machine {
            me: identity(broker, joins),
            disk: Disk::default(),
            controller: None,
            answers: BTreeMap::new(),
            shown: 0,
        });
        let mut out = Effects::new();
        let saved = machine.disk.saved.clone();
        let now = Now {
            monotonic: Monotonic(Duration::from_millis(self.now)),
            wall: Timestamp(0),
        };
        let restored = Controller::restore(
            &logger(),
            machine.me,
            now,
            saved,
            &machine.disk.writes,
            &mut out,
        );
        machine.controller = Some(restored.expect("restored"));
        self.perform(broker, out);
    }

    fn step(&mut self, broker: i32, input: Input) {
        let now = self.now();
        let Some(machine) = self.machines.get_mut(&broker) else {
            return;
        };
        let Some(controller) = &mut machine.controller else {
            return;
        };
        let mut out = Effects::new();
        controller.step(now, input, &mut out);
        assert_eq!(controller.contradictions(), 0, "of node {broker}");
        self.perform(broker, out);
    }

    fn perform(&mut self, broker: i32, out: Effects) {
        let is_idle = self.queue.is_empty();
        self.queue
            .extend(out.into_iter().map(|effect| (broker, effect)));
        // Whoever is at it already does these too, after those before them.
        while is_idle && let Some((broker, effect)) = self.queue.front().cloned() {
            self.perform_one(broker, effect);
            let _done = self.queue.pop_front();
        }
    }

    fn perform_one(&mut self, broker: i32, effect: Effect) {
        let machine = self.machines.get_mut(&broker).expect("it is there");
        match effect {
            Effect::Persist(number, write) => {
                machine.disk.writes.push(write);
                match self.sync_ms {
                    0 => self.step(broker, Input::Persisted(number)),
                    ms => self.syncing.push_back((self.now + ms, broker, number)),
                }
            }
            Effect::Answer(ticket, index, answer) => {
                assert!(index <= machine.shown, "answered before it is shown");
                let before = machine.answers.insert(ticket, answer);
                assert!(before.is_none(), "answered twice");
            }
            Effect::Snapshot(saved, rest) => {
                machine.disk.saved = Some(*saved);
                machine.disk.writes = vec![rest];
            }
            Effect::Send(to, message) => {
                let to = to.broker.0;
                let is_cut = self.cut.contains(&to) || self.cut.contains(&broker);
                if !is_cut && !self.mute.contains(&broker) {
                    self.step(to, Input::Message(member(broker), message));
                }
            }
            Effect::Forward(ticket, to, proposal) => {
                self.forwarded.push((broker, ticket, to, proposal));
            }
            Effect::Publish(image) => machine.shown = image.applied,
            Effect::Led(_) => {}
            Effect::TooNew(index) => panic!("entry {index} is of another release"),
            Effect::Outdated => {
                assert!(self.rolled_back.contains(&broker), "{broker} has all");
                machine.controller = None;
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.now += 50;
            while let Some((at, broker, number)) = self.syncing.front().copied()
                && at <= self.now
            {
                let _ended = self.syncing.pop_front();
                self.step(broker, Input::Persisted(number));
            }
            for broker in self.machines.keys().copied().collect::<Vec<_>>() {
                self.step(broker, Input::Tick);
            }
        }
    }

    fn kill(&mut self, broker: i32) {
        self.machines
            .get_mut(&broker)
            .expect("it is there")
            .controller = None;
    }

    fn snapshot_always(&mut self, broker: i32) {
        let machine = self.machines.get_mut(&broker).expect("it is there");
        machine
            .controller
            .as_mut()
            .expect("it runs")
            .snapshot_every(1);
    }

    fn image(&self, broker: i32) -> &MetadataImage {
        let controller = self.machines[&broker].controller.as_ref();
        controller.expect("it runs").image()
    }

    fn leader(&self) -> Option<i32> {
        let leads = |(b, m): (&i32, &Machine)| {
            m.controller
                .as_ref()
                .is_some_and(|c| c.led().here)
                .then_some(*b)
        };
        let cut = |b: &i32| !self.cut.contains(b);
        self.machines.iter().filter_map(leads).find(cut)
    }

    fn ask(&mut self, broker: i32, make: impl FnOnce(Ticket) -> Input) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.step(broker, make(ticket));
        ticket
    }

    fn answer(&self, broker: i32, ticket: Ticket) -> Option<&Result<Outcome, Refusal>> {
        self.machines[&broker].answers.get(&ticket)
    }

    fn propose(&mut self, broker: i32, command: Command) -> Ticket {
        self.ask(broker, |ticket| {
            Input::Propose(ticket, Proposal::Command(command))
        })
    }

    fn change(&mut self, change: QuorumChange) -> Result<Outcome, Refusal> {
        let leader = self.leader().expect("somebody leads");
        let ticket = self.ask(leader, |ticket| {
            Input::Propose(ticket, Proposal::Quorum(change))
        });
        self.pass(200);
        self.answer(leader, ticket).expect("answered").clone()
    }

    /// One that votes alone and is known as a member.
    fn of_one() -> Self {
        let mut cluster = Self::default();
        cluster.start(1, false);
        let own = Command::SetMember {
            raft_id: identity(1, false).raft_id(),
            member: member(1),
        };
        let _done = cluster.propose(1, own);
        cluster
    }

    /// Three voters, as a cluster forms itself: one that is alone takes the others in.
    fn of_three() -> Self {
        let mut cluster = Self::of_one();
        for broker in [2, 3] {
            cluster.start(broker, true);
            let id = identity(broker, true).raft_id();
            cluster
                .change(QuorumChange::Learn(id, member(broker)))
                .expect("taken in");
            cluster
                .change(QuorumChange::Promote(id))
                .expect("caught up");
        }
        for broker in [1, 2, 3] {
            assert_eq!(cluster.image(broker).voters.len(), 3, "{broker}");
            let _done = cluster.propose(1, register(broker));
        }
        cluster.pass(200);
        cluster
    }
}

fn register(broker: i32) -> Command {
    let endpoints = Endpoints {
        kafka: endpoint(),
        kafka_tls: endpoint(),
        quic: endpoint(),
        peer: Some(endpoint()),
    };
    Command::RegisterNode {
        broker: BrokerId(broker),
        directory: identity(broker, false).directory,
        incarnation: Uuid::ZERO,
        endpoints,
        rack: None,
    }
}

fn allocate() -> Command {
    Command::AllocateProducerIds {
        broker: BrokerId(1),
        count: 10,
    }
}

#[test]
fn a_command_is_answered_when_it_is_synced_and_survives() {
    let mut cluster = Cluster::default();
    cluster.start(1, false);
    let controller = cluster
        .machines
        .get_mut(&1)
        .expect("there")
        .controller
        .as_mut();
    let mut out = Effects::new();
    let controller = controller.expect("it runs");
    controller.step(
        Now::default(),
        Input::Propose(Ticket(900), Proposal::Command(allocate())),
        &mut out,
    );
    let answered = out.iter().any(|e| matches!(e, Effect::Answer(..)));
    assert!(!answered, "not before the sync: {out:?}");
    cluster.perform(1, out);
    assert_eq!(
        cluster.answer(1, Ticket(900)),
        Some(&Ok(Outcome::ProducerIds { first: 0 }))
    );
    for first in [10, 20, 30] {
        cluster.kill(1);
        cluster.start(1, false);
        let ticket = cluster.propose(1, allocate());
        assert_eq!(
            cluster.answer(1, ticket),
            Some(&Ok(Outcome::ProducerIds { first }))
        );
    }
}

#[test]
fn snapshots_replace_the_log() {
    let mut cluster = Cluster::default();
    cluster.start(1, false);
    for _ in 0..SNAPSHOT_EVERY_ENTRIES + 5 {
        let ticket = cluster.propose(1, allocate());
        assert!(cluster.answer(1, ticket).is_some());
    }
    let next = cluster.image(1).next_producer_id;
    let disk = &cluster.machines[&1].disk;
    assert!(
        disk.saved.is_some() && disk.writes.len() < 20,
        "{}",
        disk.writes.len()
    );
    cluster.kill(1);
    cluster.start(1, false);
    assert_eq!(cluster.image(1).next_producer_id, next);
    let ticket = cluster.propose(1, allocate());
    assert_eq!(
        cluster.answer(1, ticket),
        Some(&Ok(Outcome::ProducerIds { first: next }))
    );
}

#[test]
fn a_gap_is_not_bridged() {
    let mut cluster = Cluster::default();
    cluster.start(1, false);
    for _ in 0..5 {
        let _ticket = cluster.propose(1, allocate());
    }
    let mut writes = cluster.machines[&1].disk.writes.clone();
    let first = writes
        .iter()
        .position(|w| !w.entries.is_empty())
        .expect("there are entries");
    let _lost = writes.remove(first);
    let me = identity(1, false);
    let mut out = Effects::new();
    let result = Controller::restore(&logger(), me, Now::default(), None, &writes, &mut out);
    assert!(result.is_err());
}

#[test]
fn one_grows_to_three_and_survives_the_loss_of_its_leader() {
    let mut cluster = Cluster::of_three();
    let ticket = cluster.propose(1, allocate());
    assert_eq!(
        cluster.answer(1, ticket),
        Some(&Ok(Outcome::ProducerIds { first: 0 }))
    );
    cluster.kill(1);
    cluster.pass(2500);
    let leader = cluster.leader().expect("one of the two leads");
    assert_ne!(leader, 1);
    let ticket = cluster.propose(leader, allocate());
    assert_eq!(
        cluster.answer(leader, ticket),
        Some(&Ok(Outcome::ProducerIds { first: 10 }))
    );
    let standing = |cluster: &Cluster, of| cluster.image(leader).brokers[&BrokerId(of)].standing;
    assert_eq!(
        standing(&cluster, 1),
        Standing::Silent,
        "its session is over"
    );
    cluster.start(1, false);
    cluster.pass(1000);
    assert_eq!(cluster.image(1).next_producer_id, 20);
    assert_eq!(standing(&cluster, 1), Standing::Alive);
}

/// Who formed the cluster voted alone once. When it starts again it still knows that it does not any more.
#[test]
fn who_formed_the_cluster_does_not_elect_itself_later() {
    let mut cluster = Cluster::of_three();
    cluster.kill(1);
    cluster.pass(3000);
    let leader = cluster.leader().expect("the others elected one");
    let _done = cluster.propose(leader, allocate());
    let _cut: bool = cluster.cut.insert(1);
    cluster.start(1, false);
    cluster.pass(5000);
    assert_eq!(cluster.image(1).voters.len(), 3);
    let first = cluster.machines[&1].controller.as_ref().expect("it runs");
    assert!(!first.led().here, "it leads nobody");
    let _healed: bool = cluster.cut.remove(&1);
    cluster.pass(3000);
    assert_eq!(cluster.image(1).applied, cluster.image(leader).applied);
}

/// A tripwire tells that the leader is dead: nobody waits for silence.
#[test]
fn a_dead_leader_is_followed_at_once() {
    let mut cluster = Cluster::of_three();
    let epoch = cluster.image(2).brokers[&BrokerId(1)].epoch;
    cluster.kill(1);
    for broker in [2, 3] {
        cluster.step(broker, Input::Died(BrokerId(1), epoch));
    }
    cluster.pass(50);
    let leader = cluster.leader().expect("one of the two leads at once");
    cluster.pass(50);
    let standing = cluster.image(leader).brokers[&BrokerId(1)].standing;
    assert_eq!(standing, Standing::Silent, "fenced with the next tick");
}

/// Votes take two syncs, which may take longer than a tick: an election that was begun is let run.
#[test]
fn a_dead_leader_is_followed_however_slow_the_disks_are() {
    let mut cluster = Cluster::of_three();
    let epoch = cluster.image(2).brokers[&BrokerId(1)].epoch;
    cluster.kill(1);
    cluster.sync_ms = 120;
    for broker in [2, 3] {
        cluster.step(broker, Input::Died(BrokerId(1), epoch));
    }
    cluster.pass(500);
    assert!(cluster.leader().is_some(), "one of the two leads");
}

/// Nothing may be committed for long after a start.
#[test]
fn an_image_that_was_restored_is_shown() {
    let mut cluster = Cluster::of_three();
    cluster.snapshot_always(3);
    let _done = cluster.propose(1, allocate());
    cluster.pass(200);
    let applied = cluster.image(3).applied;
    cluster.kill(3);
    cluster.machines.get_mut(&3).expect("there").shown = 0;
    cluster.start(3, true);
    assert_eq!(cluster.machines[&3].shown, applied);
}

#[test]
fn proposals_that_an_image_or_another_reign_overtakes_are_answered() {
    for snapshots in [false, true] {
        let mut cluster = Cluster::of_three();
        let _was: bool = cluster.cut.insert(1);
        let lost: Vec<Ticket> = (0..5).map(|_| cluster.propose(1, allocate())).collect();
        cluster.pass(3000);
        let leader = cluster.leader().expect("the others elected one");
        if snapshots {
            cluster.snapshot_always(leader);
            for _ in 0..3 {
                let _done = cluster.propose(leader, allocate());
            }
        }
        cluster.cut.clear();
        cluster.pass(2000);
        for ticket in lost {
            let answer = cluster.answer(1, ticket);
            assert_eq!(answer, Some(&Err(Refusal::Stopped)), "{snapshots}");
        }
    }
}

#[test]
fn a_leader_without_a_majority_answers_nothing() {
    let mut cluster = Cluster::of_three();
    let _was: bool = cluster.cut.insert(1);
    let lost = cluster.propose(1, allocate());
    cluster.pass(3000);
    assert_eq!(cluster.answer(1, lost), None, "nothing is known of it");
    let led = cluster.machines[&1]
        .controller
        .as_ref()
        .expect("it runs")
        .led();
    assert!(!led.here, "it gave the leadership up");
    let leader = cluster.leader().expect("the others elected one");
    let ticket = cluster.propose(leader, allocate());
    assert_eq!(
        cluster.answer(leader, ticket),
        Some(&Ok(Outcome::ProducerIds { first: 0 }))
    );
    cluster.cut.clear();
    cluster.pass(2000);
    assert_eq!(
        cluster.answer(1, lost),
        Some(&Err(Refusal::Stopped)),
        "another entry took its place"
    );
    assert_eq!(cluster.image(1).next_producer_id, 10);
}

#[test]
fn a_follower_forwards_and_answers_when_it_has_applied() {
    let mut cluster = Cluster::of_three();
    let ticket = cluster.propose(2, allocate());
    let (from, forwarded, to, proposal) = cluster.forwarded.pop().expect("forwarded");
    assert_eq!((from, forwarded, to.broker), (2, ticket, BrokerId(1)));
    let at_leader = cluster.ask(1, |ticket| Input::ProposeHere(ticket, proposal));
    let outcome = cluster.answer(1, at_leader).expect("committed").clone();
    let ahead = cluster.image(2).applied + 1;
    cluster.step(2, Input::Forwarded(ticket, ahead, outcome.clone()));
    assert_eq!(cluster.answer(2, ticket), None, "not yet applied here");
    let _next = cluster.propose(1, allocate());
    cluster.pass(200);
    assert_eq!(cluster.answer(2, ticket), Some(&outcome));
}

#[test]
fn voters_leave_and_a_wiped_one_does_not_vote_again() {
    let mut cluster = Cluster::of_three();
    let id = identity(3, true).raft_id();
    cluster
        .change(QuorumChange::Demote(id))
        .expect("two are left");
    assert_eq!(cluster.image(2).voters.len(), 2);
    cluster.change(QuorumChange::Remove(id)).expect("gone");
    assert!(!cluster.image(2).members.contains_key(&id));
    let last = QuorumChange::Remove(identity(2, true).raft_id());
    cluster.change(last).expect("one is left");
    let me = identity(1, false).raft_id();
    assert!(matches!(
        cluster.change(QuorumChange::Remove(me)),
        Err(Refusal::Quorum(_))
    ));
}

/// The vote of who goes would be the one that commits it, and nobody could lead until the dead one is back.
#[test]
fn nobody_leaves_whose_vote_is_needed() {
    let mut cluster = Cluster::of_three();
    cluster.cut.insert(3);
    cluster.pass(400);
    let id = |broker| identity(broker, true).raft_id();
    for change in [QuorumChange::Remove(id(2)), QuorumChange::Demote(id(2))] {
        let refused = cluster.change(change);
        assert!(
            matches!(refused, Err(Refusal::QuorumBusy(_))),
            "{refused:?}"
        );
    }
    cluster
        .change(QuorumChange::Demote(id(3)))
        .expect("it is dead");
    cluster
        .change(QuorumChange::Remove(id(2)))
        .expect("one is enough now");
    assert_eq!(
        cluster.image(1).voters,
        [identity(1, false).raft_id()].into()
    );
}

#[test]
fn a_node_that_is_cut_off_is_fenced_and_comes_back() {
    let mut cluster = Cluster::of_three();
    let _was: bool = cluster.cut.insert(3);
    cluster.pass(1500);
    let standing = |cluster: &Cluster| cluster.image(1).brokers[&BrokerId(3)].standing;
    assert_eq!(standing(&cluster), Standing::Silent);
    cluster.cut.clear();
    cluster.pass(2000);
    assert_eq!(standing(&cluster), Standing::Alive);
}

/// What serves reads asks for this: who is cut off stops before its answers are older than a lease.
#[test]
fn contact_ends_when_the_quorum_is_not_heard_of() {
    let mut cluster = Cluster::of_three();
    cluster.pass(3000);
    let leader = cluster.leader().expect("somebody leads");
    let silence = |cluster: &Cluster, node: i32| {
        let now = cluster.now().monotonic;
        let controller = cluster.machines[&node].controller.as_ref();
        now.since(controller.expect("it runs").contact())
    };
    let short = Duration::from_millis(500);
    assert!((1..=3).all(|node| silence(&cluster, node) < short));
    let _was: bool = cluster.cut.insert(leader);
    cluster.pass(5000);
    for node in 1..=3 {
        let silence = silence(&cluster, node);
        assert_eq!(
            silence > Duration::from_secs(3),
            node == leader,
            "{node}: {silence:?}"
        );
    }
}

/// Two of three voters are lost for good: what the third has becomes the metadata of a quorum of one, and others join it.
#[test]
fn what_is_left_of_a_lost_quorum_goes_on_alone() {
    let mut cluster = Cluster::of_three();
    let leader = cluster.leader().expect("somebody leads");
    let ticket = cluster.propose(leader, allocate());
    cluster.pass(1000);
    assert!(matches!(cluster.answer(leader, ticket), Some(Ok(_))));
    let left = (1..=3).find(|n| *n != leader).expect("three");
    let before = cluster.image(left).clone();
    (1..=3).for_each(|node| cluster.kill(node));
    let machine = cluster.machines.get_mut(&left).expect("it was there");
    let restored = crate::controller::log_file::Restored {
        saved: machine.disk.saved.take(),
        writes: std::mem::take(&mut machine.disk.writes),
        torn_bytes: 0,
    };
    let remains = crate::controller::recovery::remains(restored).expect("whole");
    assert_eq!(remains.voters.len(), 3);
    let alone = crate::controller::recovery::alone(remains, &machine.me.directory);
    let (saved, rest) = alone.expect("a member");
    machine.disk = Disk {
        saved: Some(saved),
        writes: vec![rest],
    };
    machine.me.joins = false;
    cluster.start(left, false);
    cluster.pass(1000);
    assert_eq!(cluster.leader(), Some(left));
    let image = cluster.image(left);
    assert_eq!(image.next_producer_id, before.next_producer_id);
    assert_eq!(image.voters.len(), 1);
    let ticket = cluster.propose(left, allocate());
    cluster.pass(1000);
    assert!(matches!(cluster.answer(left, ticket), Some(Ok(_))));
}

/// Answers are lost until the follower has an image beyond what its leader knows of it: it is sent again what is in the image.
#[test]
fn entries_that_an_image_has_are_sent_again() {
    let mut cluster = Cluster::of_three();
    let leader = cluster.leader().expect("somebody leads");
    let slow = leader % 3 + 1;
    cluster.snapshot_always(slow);
    let _new: bool = cluster.mute.insert(slow);
    for _ in 0..3 {
        let _ticket = cluster.propose(leader, allocate());
    }
    let applied = |cluster: &Cluster, broker| cluster.image(broker).applied;
    assert_eq!(applied(&cluster, slow), applied(&cluster, leader));
    cluster.mute.clear();
    cluster.step(leader, Input::Unreachable(identity(slow, false).raft_id()));
    let _ticket = cluster.propose(leader, allocate());
    cluster.pass(1000);
    assert_eq!(applied(&cluster, slow), applied(&cluster, leader));
}

/// Others of its process act on what an earlier life knew.
#[test]
fn a_controller_that_starts_again_does_not_know_what_was_decided_meanwhile() {
    let mut cluster = Cluster::of_three();
    cluster.pass(3000);
    let node = cluster.leader().expect("somebody leads") % 3 + 1;
    let silence = |cluster: &Cluster| {
        let controller = cluster.machines[&node].controller.as_ref();
        let contact = controller.expect("it runs").contact();
        cluster.now().monotonic.since(contact)
    };
    let _new: bool = cluster.cut.insert(node);
    cluster.pass(1000);
    cluster.kill(node);
    cluster.start(node, false);
    cluster.pass(50);
    assert!(silence(&cluster) > READ_LEASE);
    cluster.cut.clear();
    cluster.pass(2000);
    assert!(silence(&cluster) < READ_LEASE);
}

/// Its vote is its own, so it leads at once: others must not hear of that before it is durable, or it could lead twice in a term.
#[test]
fn one_that_votes_alone_says_nothing_before_its_vote_is_durable() {
    let mut cluster = Cluster::of_one();
    cluster.start(2, true);
    let id = identity(2, true).raft_id();
    cluster
        .change(QuorumChange::Learn(id, member(2)))
        .expect("taken in");
    cluster.kill(1);
    cluster.sync_ms = 1000;
    let term = |cluster: &Cluster| {
        let controller = cluster.machines[&2].controller.as_ref();
        controller.expect("it runs").led().term
    };
    let before = term(&cluster);
    cluster.start(1, false);
    cluster.pass(500);
    assert_eq!(term(&cluster), before);
    cluster.pass(3000);
    assert!(term(&cluster) > before);
}

/// A heartbeat that commits more than anybody has.
fn lie(from: i32, to: i32, term: u64) -> Box<RaftMessage> {
    Box::new(RaftMessage {
        kind: raft::eraftpb::MessageType::MsgHeartbeat as u8,
        from: identity(from, false).raft_id(),
        to: identity(to, false).raft_id(),
        term,
        commit: u64::MAX,
        ..RaftMessage::default()
    })
}

/// D10: a copy of a voter's disk from some time ago is put back, and it has forgotten what the others count on.
#[test]
fn a_disk_that_lacks_what_was_acknowledged_is_found_out_by_a_heartbeat() {
    let mut cluster = Cluster::of_three();
    let leader = cluster.leader().expect("somebody leads");
    let (saved, writes) = {
        let disk = &cluster.machines[&3].disk;
        (disk.saved.clone(), disk.writes.clone())
    };
    assert_ne!(leader, 3);
    let _counted_on = cluster.propose(leader, allocate());
    cluster.pass(200);
    cluster.kill(3);
    cluster.machines.get_mut(&3).expect("there").disk = Disk { saved, writes };
    let _new = cluster.rolled_back.insert(3);
    cluster.start(3, true);
    cluster.pass(150);
    assert!(
        cluster.machines[&3].controller.is_none(),
        "it takes no part"
    );
    // The others go on without it, and take it in under another number.
    let decided = cluster.propose(leader, allocate());
    cluster.pass(200);
    assert!(cluster.answer(leader, decided).is_some_and(Result::is_ok));
}

#[test]
fn a_member_is_not_talked_out_of_its_place() {
    let mut cluster = Cluster::of_three();
    let leader = cluster.leader().expect("somebody leads");
    assert_ne!(leader, 3, "who leads would not lie");
    let term = |cluster: &Cluster| {
        let controller = cluster.machines[&2].controller.as_ref();
        controller.expect("it runs").led().term
    };
    for _ in 0..20 {
        let now = term(&cluster);
        // Somebody else leads in this term, and in none does who has no vote.
        cluster.step(2, Input::Message(member(3), lie(3, 2, now)));
        cluster.step(2, Input::Message(member(9), lie(9, 2, now + 1)));
        // Who leads knows what it has.
        cluster.step(leader, Input::Message(member(3), lie(3, leader, now + 1)));
    }
    assert!(cluster.machines[&2].controller.is_some());
    let decided = cluster.propose(leader, allocate());
    cluster.pass(200);
    assert!(cluster.answer(leader, decided).is_some_and(Result::is_ok));
}
