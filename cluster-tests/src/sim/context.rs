//! What a partition's parts may use of its node, and what they ask of it.

use callboard_broker::leader::IsrChange;
use callboard_broker::storage::log::{Removal, Snapshot};
use callboard_broker::storage::{LogFiles, StorageError};
use callboard_broker::topic_config::TopicConfig;
use callboard_common::{LeaderEpoch, Monotonic, Now, TopicPartition, Uuid};

use super::event::{Event, OfNode, OfPartition};
use super::hub::Hub;
use super::plan::Micros;

/// What an actor of a partition asks the controller for.
#[derive(Debug)]
pub enum Ask {
    /// Other in-sync replicas, in a reign.
    ChangeIsr(TopicPartition, LeaderEpoch, IsrChange),
    /// Not to count this replica.
    Lose(TopicPartition),
    /// It has no space, or does not know whether it is whole.
    StepAside(TopicPartition),
    /// The same, and to say whether others are whole.
    LoseThenCut(TopicPartition),
    /// Another reign.
    NewEpoch(TopicPartition),
}

/// What a step of a node's part may use.
#[derive(Debug)]
pub struct Cx<'a> {
    /// What all share.
    pub hub: &'a mut Hub,
    /// The node.
    pub node: usize,
    /// Its life.
    pub life: u64,
    /// How wrong its wall clock is.
    pub skew_ms: i64,
    /// What is asked of the controller.
    pub asks: Vec<Ask>,
    /// What runs beside the partition.
    pub background: Vec<Background>,
}

impl Cx<'_> {
    /// The time as the node's clocks show it.
    #[must_use]
    pub fn now(&self) -> Now {
        self.hub.clock(self.skew_ms)
    }
}

/// What runs beside an actor, on a pool.
#[derive(Debug)]
pub enum Background {
    /// Removes old segments.
    Removal(Removal),
    /// Writes a snapshot of the producers and the recovery point.
    Snapshot(Snapshot),
}

impl Background {
    /// Runs it to its end.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn run(self) -> Result<(), StorageError> {
        match self {
            Self::Removal(removal) => removal.run(),
            Self::Snapshot(snapshot) => snapshot.write(),
        }
    }
}

/// Where a replica's log is, and whose it is.
#[derive(Clone, Debug)]
pub struct Files {
    /// The partition.
    pub key: TopicPartition,
    /// The topic.
    pub topic_id: Uuid,
    /// The log's files.
    pub files: LogFiles,
    /// The topic's settings.
    pub config: TopicConfig,
    /// Counts the lives of its actor.
    pub incarnation: u64,
}

impl Files {
    /// Something happens to the actor in a while, if it still lives then.
    pub fn later(&self, cx: &mut Cx<'_>, wait: Micros, what: OfPartition) {
        let event = OfNode::Partition(self.key.clone(), self.incarnation, what);
        cx.hub.after(wait, Event::Node(cx.node, cx.life, event));
    }

    /// Arms a core's deadline, unless it is armed already.
    pub fn arm(
        &self,
        cx: &mut Cx<'_>,
        armed: &mut Option<Monotonic>,
        deadline: Monotonic,
        what: OfPartition,
    ) {
        if armed.replace(deadline) != Some(deadline) {
            let wait = (deadline.0.as_micros() as u64).saturating_sub(cx.hub.now);
            self.later(cx, wait, what);
        }
    }

    /// Something begins to run beside the actor.
    pub fn background(&self, cx: &mut Cx<'_>, what: Option<Background>) {
        if let Some(what) = what {
            cx.background.push(what);
            let time = cx.hub.sync_time(cx.node);
            self.later(cx, time, OfPartition::Background);
        }
    }
}
