//! One node: its controller, its replicas, its way into the cluster. What the actors' shells do, done in virtual time.

mod coming;
mod deciding;
mod keeping;
mod serving;
mod writing;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use callboard_broker::controller::actor::Published;
use callboard_broker::controller::log_file::MetadataLog;
use callboard_broker::controller::{
    Command, Controller, Effect, Effects, Endpoint, Identity, Input, Member, MetadataImage,
    Outcome, Policy, Proposal, Refusal, TICK, Ticket,
};
use callboard_broker::leader::Ends;
use callboard_broker::replicas::Replicas;
use callboard_broker::storage::Disk;
use callboard_broker::storage::checkpoint::Checkpoints;
use callboard_broker::storage::disk::SimulatedDisk;
use callboard_broker::storage::open_files::OpenFiles;
use callboard_broker::storage::sync::Outstanding;
use callboard_broker::topic_config::TopicConfig;
use callboard_common::{BrokerId, TopicPartition, Uuid};

use crate::sim::context::{Ask, Cx};
use crate::sim::event::{Event, Lane, Message, OfNode, OfPartition, Place};
use crate::sim::hub::Hub;
use crate::sim::plan::{MS, Micros, SECOND};
use crate::sim::replica::Replica;

/// The data directory.
pub const DATA: &str = "/data";
/// Kept free for metadata: less than a node keeps, because zeros take the simulator's time.
const RESERVE_BYTES: usize = 64 << 10;
/// Between two attempts to come in.
const COME_PAUSE: u64 = 100 * MS;
/// A question to another node is given up after this.
const ANSWER_PATIENCE: u64 = 3 * SECOND;
/// A feed that has no leader looks again after this.
const LEADER_PAUSE: u64 = 500 * MS;

/// Why the controller was asked.
#[derive(Debug)]
enum Purpose {
    /// Another node asked.
    Peer(usize, u64),
    /// To come in.
    Come,
    /// For an in-sync set, in a life of the partition's actor and as of a version.
    Isr(TopicPartition, u64, (Uuid, i32)),
    /// For a reign.
    Reign(TopicPartition, u64),
    /// Because a log is damaged.
    Lost(TopicPartition, u64),
    /// Nobody waits.
    Nobody,
}

/// A partition of another node that follows one here.
#[derive(Debug)]
struct Feed {
    lane: Lane,
    position: callboard_broker::peer::protocol::PartitionPosition,
    /// The high watermark that it knows.
    told: i64,
    waits: bool,
    /// The life of the leader's actor that it was fed by last.
    fed_in: u64,
    /// Whether that one could read nothing for it.
    failed: bool,
    timer: bool,
}

impl Feed {
    /// Whether there is at most a high watermark to tell. Who was not heard is asked for again, even if there is nothing for
    /// it.
    fn is_idle(&self, ends: Ends) -> bool {
        let has_all = ends.epoch == Some(self.position.epoch) && ends.log_end <= self.position.end;
        has_all && !self.failed
    }
}

/// What a node keeps while its process lives.
#[derive(Debug)]
pub struct Running {
    /// Counts the starts.
    pub life: u64,
    node: usize,
    me: BrokerId,
    identity: Identity,
    incarnation: Uuid,
    disk: Arc<dyn Disk>,
    open: Arc<OpenFiles>,
    checkpoints: Checkpoints,
    controller: Option<Controller>,
    effects: Effects,
    mailbox: VecDeque<Input>,
    metadata_log: Option<MetadataLog>,
    writes: VecDeque<Effect>,
    writing: Option<Effect>,
    waiting: BTreeMap<Ticket, Purpose>,
    next_ticket: u64,
    /// Questions to other nodes: the ticket of what was forwarded, or nothing for one of its own way in.
    asked: BTreeMap<u64, Option<Ticket>>,
    next_question: u64,
    comes: bool,
    /// When it heard of another voter last, or its controller began.
    heard_of_quorum: Micros,
    leads_quorum: bool,
    registered: bool,
    /// The committed metadata.
    pub image: Arc<MetadataImage>,
    image_changed: bool,
    published: Published,
    replicas: Replicas,
    partitions: BTreeMap<TopicPartition, Replica>,
    outstanding: BTreeMap<TopicPartition, Outstanding>,
    feeds: BTreeMap<(TopicPartition, usize), Feed>,
    config: TopicConfig,
    image_every: u64,
    /// How wrong the wall clock is.
    pub skew_ms: i64,
    voters: usize,
}

/// Where a node is found; nobody looks there.
fn endpoint(node: usize) -> Endpoint {
    Endpoint {
        host: format!("node-{}", node + 1),
        port: 1,
    }
}

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its index.
    pub node: usize,
    /// Counts its starts.
    pub life: u64,
    /// Its data directory's identifier.
    pub directory: Uuid,
    /// Whether it waits to be taken in.
    pub joins: bool,
    /// Its disk.
    pub disk: SimulatedDisk,
    /// How wrong its wall clock is.
    pub skew_ms: i64,
}

impl Running {
    /// Starts a node over its disk.
    ///
    /// # Errors
    ///
    /// Why it cannot start.
    pub fn start(hub: &mut Hub, start: &Start) -> Result<Self, String> {
        let (node, plan) = (start.node, &hub.plan);
        let disk: Arc<dyn Disk> = Arc::new(start.disk.clone());
        disk.create_dir(Path::new(DATA))
            .map_err(|e| e.to_string())?;
        let me = BrokerId(node as i32 + 1);
        let config = TopicConfig {
            segment_bytes: plan.segment_bytes,
            index_interval_bytes: plan.index_interval,
            min_insync_replicas: plan.min_isr,
            timestamp_after_max: std::time::Duration::from_hours(24 * 3650),
            retention: None,
            ..TopicConfig::default()
        };
        let mut incarnation = [0; 16];
        incarnation[0] = node as u8 + 1;
        incarnation[8..].copy_from_slice(&start.life.to_be_bytes());
        let mut running = Self {
            life: start.life,
            node,
            me,
            identity: Identity {
                broker: me,
                directory: start.directory,
                joins: start.joins,
            },
            incarnation: Uuid(incarnation),
            open: Arc::new(OpenFiles::new(disk.clone(), 100)),
            checkpoints: Checkpoints::open(disk.clone(), Path::new(DATA)),
            disk,
            controller: None,
            effects: Effects::new(),
            mailbox: VecDeque::new(),
            metadata_log: None,
            writes: VecDeque::new(),
            writing: None,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            asked: BTreeMap::new(),
            next_question: 0,
            comes: false,
            heard_of_quorum: hub.now,
            leads_quorum: false,
            registered: false,
            image: Arc::default(),
            image_changed: false,
            published: Published::new(plan.nodes > 1),
            replicas: Replicas::new(me, 0, 1),
            partitions: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            feeds: BTreeMap::new(),
            config,
            image_every: plan.image_every,
            skew_ms: start.skew_ms,
            voters: plan.nodes,
        };
        running.open_controller(hub)?;
        running.later(hub, TICK.as_micros() as u64, OfNode::Tick);
        running.later(hub, MS, OfNode::Come);
        running.later(hub, hub.plan.checkpoint_pause, OfNode::Checkpoint);
        running.settle(hub);
        Ok(running)
    }

    fn later(&self, hub: &mut Hub, wait: u64, what: OfNode) {
        hub.after(wait, Event::Node(self.node, self.life, what));
    }

    fn open_controller(&mut self, hub: &mut Hub) -> Result<(), String> {
        self.effects.clear();
        self.writes.clear();
        self.writing = None;
        let opened = MetadataLog::open(self.disk.clone(), Path::new(DATA), RESERVE_BYTES);
        let (log, restored) = opened.map_err(|e| e.to_string())?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let now = hub.clock(self.skew_ms);
        let restored = Controller::restore(
            &logger,
            self.identity,
            now,
            restored.saved,
            &restored.writes,
            &mut self.effects,
        );
        let mut controller = restored.map_err(|e| e.to_string())?;
        controller.balance_by(Policy {
            leader_patience: std::time::Duration::from_secs(3),
            ..Policy::default()
        });
        controller.snapshot_every(self.image_every);
        self.controller = Some(controller);
        self.metadata_log = Some(log);
        Ok(())
    }

    fn member(&self) -> Member {
        Member {
            broker: self.me,
            directory: self.identity.directory,
            peer: endpoint(self.node),
        }
    }

    fn cx<'a>(&self, hub: &'a mut Hub) -> Cx<'a> {
        Cx {
            hub,
            node: self.node,
            life: self.life,
            skew_ms: self.skew_ms,
            asks: Vec::new(),
            background: Vec::new(),
        }
    }

    fn answered(
        &mut self,
        hub: &mut Hub,
        ticket: Ticket,
        index: u64,
        result: Result<Outcome, Refusal>,
    ) {
        let Some(purpose) = self.waiting.remove(&ticket) else {
            return;
        };
        match purpose {
            Purpose::Peer(node, id) => {
                let message = Message::Proposed { id, index, result };
                hub.send(Place::Node(self.node), Place::Node(node), message);
            }
            Purpose::Come => self.comes = false,
            Purpose::Isr(partition, incarnation, (topic_id, version)) => {
                if result.is_ok() {
                    hub.truth.alters((topic_id, &partition), version);
                } else {
                    self.with(hub, (partition, incarnation), |replica, cx| {
                        replica.act(cx, |leading, files, cx| {
                            let refused = callboard_broker::leader::Input::IsrRefused(version);
                            leading.step(files, cx, refused)
                        });
                    });
                }
            }
            Purpose::Reign(partition, incarnation) => {
                let epoch = match result {
                    Ok(Outcome::LeaderEpoch(epoch)) => Some(epoch),
                    Ok(_) | Err(_) => None,
                };
                self.with(hub, (partition, incarnation), |replica, cx| {
                    replica.reign(cx, epoch)
                });
            }
            Purpose::Lost(partition, incarnation) => {
                self.with(hub, (partition, incarnation), |replica, cx| {
                    replica.lost(cx, result.is_ok())
                });
            }
            Purpose::Nobody => {}
        }
    }

    /// Does something with a replica in a life of its actor; then what follows from it.
    fn with(
        &mut self,
        hub: &mut Hub,
        (partition, incarnation): (TopicPartition, u64),
        act: impl FnOnce(&mut Replica, &mut Cx<'_>),
    ) {
        if self.with_quietly(hub, (&partition, incarnation), act) {
            self.feed_waiting(hub, &partition);
        }
    }

    /// As [`Running::with`], but who waits is not fed; whether that life is still the partition's.
    fn with_quietly(
        &mut self,
        hub: &mut Hub,
        (partition, incarnation): (&TopicPartition, u64),
        act: impl FnOnce(&mut Replica, &mut Cx<'_>),
    ) -> bool {
        let mut cx = self.cx(hub);
        let found = self.partitions.get_mut(partition);
        let Some(replica) = found.filter(|r| r.files.incarnation == incarnation) else {
            return false;
        };
        act(replica, &mut cx);
        let asks = std::mem::take(&mut cx.asks);
        self.ask_controller(hub, asks);
        true
    }

    /// The life of a partition's actor that is now.
    fn now_of(&self, partition: &TopicPartition) -> (TopicPartition, u64) {
        let replica = self.partitions.get(partition);
        (
            partition.clone(),
            replica.map_or(0, |r| r.files.incarnation),
        )
    }

    fn ask_controller(&mut self, hub: &mut Hub, asks: Vec<Ask>) {
        for ask in asks {
            let key = match &ask {
                Ask::ChangeIsr(key, ..)
                | Ask::Lose(key)
                | Ask::StepAside(key)
                | Ask::LoseThenCut(key)
                | Ask::NewEpoch(key) => key.clone(),
            };
            let Some(replica) = self.partitions.get(&key) else {
                continue;
            };
            let (topic_id, incarnation) = (replica.files.topic_id, replica.files.incarnation);
            let partition = key.partition;
            let lose = Command::LoseReplica {
                topic_id,
                partition,
                broker: self.me,
            };
            let (purpose, command) = match ask {
                Ask::ChangeIsr(_, epoch, change) => {
                    let of = (topic_id, change.version);
                    let command = Command::AlterIsr {
                        topic_id,
                        partition,
                        leader: self.me,
                        epoch,
                        version: change.version,
                        isr: change.isr,
                    };
                    (Purpose::Isr(key, incarnation, of), command)
                }
                Ask::Lose(_) => (Purpose::Nobody, lose),
                Ask::StepAside(_) => {
                    let command = Command::StepAside {
                        topic_id,
                        partition,
                        broker: self.me,
                    };
                    (Purpose::Nobody, command)
                }
                Ask::LoseThenCut(_) => (Purpose::Lost(key, incarnation), lose),
                Ask::NewEpoch(_) => {
                    let command = Command::NextLeaderEpoch {
                        partition: key.clone(),
                        topic_id,
                        broker: self.me,
                    };
                    (Purpose::Reign(key, incarnation), command)
                }
            };
            self.propose(hub, purpose, Proposal::Command(command));
        }
    }

    /// Something happens to the node. Whether it goes on: one whose metadata cannot be read any more ends.
    pub fn event(&mut self, hub: &mut Hub, what: OfNode) -> bool {
        match what {
            OfNode::Tick => {
                self.later(hub, TICK.as_micros() as u64, OfNode::Tick);
                self.step(hub, Input::Tick);
            }
            OfNode::Written => self.written(hub),
            OfNode::Come => self.come(hub),
            OfNode::Unanswered(id) => self.heard(hub, id, 0, Err(Refusal::Stopped)),
            OfNode::Died(broker) => {
                if let Some(epoch) = self.image.brokers.get(&broker).map(|b| b.epoch) {
                    self.step(hub, Input::Died(broker, epoch));
                    self.step(hub, Input::Tick);
                }
            }
            OfNode::RestartController => {
                if self.controller.is_none() {
                    if self.open_controller(hub).is_err() {
                        return false;
                    }
                    self.settle(hub);
                    for input in std::mem::take(&mut self.mailbox) {
                        self.step(hub, input);
                    }
                }
            }
            OfNode::Checkpoint => {
                self.later(hub, hub.plan.checkpoint_pause, OfNode::Checkpoint);
                self.write_checkpoints(hub);
            }
            OfNode::Prepare(partition) => self.prepare_again(hub, &partition),
            OfNode::Partition(partition, _, OfPartition::Feed(follower)) => {
                self.feed_later(hub, &partition, follower);
            }
            OfNode::Partition(partition, incarnation, what) => {
                self.with(hub, (partition, incarnation), |replica, cx| {
                    replica.event(cx, what);
                });
            }
        }
        true
    }
}
