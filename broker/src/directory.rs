//! Where the actors are: partitions to leaders, offsets partitions to coordinators.
//!
//! Read without locks by every request; written by `replicas` and `coordinator` when roles start and stop.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Actor, Addr};
use arc_swap::ArcSwap;
use callboard_common::{LeaderEpoch, TopicName, TopicPartition, Uuid};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::coordinator::CoordinatorActor;
use crate::follower::FollowerActor;
use crate::leader::{Ends, LeaderActor};

/// How to reach who keeps one partition here.
#[derive(Debug)]
pub struct ReplicaRef<A: Actor> {
    /// The actor; the same address for all its lives.
    pub actor: Addr<A>,
    /// Its ends, for who waits for more.
    pub ends: watch::Receiver<Ends>,
    /// The topic's identifier.
    pub topic_id: Uuid,
}

/// How to reach the leader of one partition.
pub type LeaderRef = ReplicaRef<LeaderActor>;
/// How to reach a follower of one partition, which serves readers in its rack (KIP-392).
pub type FollowerRef = ReplicaRef<FollowerActor>;

impl<A: Actor> Clone for ReplicaRef<A> {
    fn clone(&self) -> Self {
        Self {
            actor: self.actor.clone(),
            ends: self.ends.clone(),
            topic_id: self.topic_id,
        }
    }
}

/// Who keeps a partition here.
#[derive(Clone, Debug)]
pub enum Replica {
    /// Its leader.
    Leader(LeaderRef),
    /// A follower.
    Follower(FollowerRef),
}

impl Replica {
    /// Its ends, for who waits for more.
    #[must_use]
    pub fn ends(&self) -> &watch::Receiver<Ends> {
        match self {
            Self::Leader(leader) => &leader.ends,
            Self::Follower(follower) => &follower.ends,
        }
    }
}

impl<A: Actor> ReplicaRef<A> {
    /// The reign that it leads or follows; `None` while there is none.
    #[must_use]
    pub fn epoch(&self) -> Option<LeaderEpoch> {
        self.ends.borrow().epoch
    }
}

type Replicas<A> = BTreeMap<TopicName, Arc<BTreeMap<i32, ReplicaRef<A>>>>;
type Leaders = Replicas<LeaderActor>;
type Followers = Replicas<FollowerActor>;
type Coordinators = BTreeMap<i32, Addr<CoordinatorActor>>;

/// The directory of one node; clones share it.
#[derive(Clone, Debug)]
pub struct Directory {
    leaders: Arc<ArcSwap<Leaders>>,
    followers: Arc<ArcSwap<Followers>>,
    coordinators: Arc<ArcSwap<Coordinators>>,
    writing: Arc<Mutex<()>>,
    changes: watch::Sender<u64>,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            leaders: Arc::default(),
            followers: Arc::default(),
            coordinators: Arc::default(),
            writing: Arc::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Directory {
    /// The leader of a partition, if it is here.
    #[must_use]
    pub fn leader(&self, partition: &TopicPartition) -> Option<LeaderRef> {
        find(&self.leaders.load(), partition)
    }

    /// The follower of a partition, if one is here.
    #[must_use]
    pub fn follower(&self, partition: &TopicPartition) -> Option<FollowerRef> {
        find(&self.followers.load(), partition)
    }

    /// All leaders that are here.
    #[must_use]
    pub fn leaders(&self) -> BTreeMap<TopicPartition, LeaderRef> {
        let leaders = self.leaders.load();
        let all = leaders.iter().flat_map(|(topic, partitions)| {
            let of = move |(n, leader): (&i32, &LeaderRef)| {
                (TopicPartition::new(topic.clone(), *n), leader.clone())
            };
            partitions.iter().map(of)
        });
        all.collect()
    }

    /// The leaders of a topic that are here, by partition.
    #[must_use]
    pub fn topic(&self, topic: &TopicName) -> Option<Arc<BTreeMap<i32, LeaderRef>>> {
        self.leaders.load().get(topic).cloned()
    }

    /// The coordinator of an offsets partition, if it is here.
    #[must_use]
    pub fn coordinator(&self, partition: i32) -> Option<Addr<CoordinatorActor>> {
        self.coordinators.load().get(&partition).cloned()
    }

    /// All coordinators that are here.
    #[must_use]
    pub fn coordinators(&self) -> Vec<Addr<CoordinatorActor>> {
        self.coordinators.load().values().cloned().collect()
    }

    /// Wakes when leaders or coordinators come or go.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Shows replicas that were started and hides those that were stopped. Whoever waits for a change is woken by each call,
    /// and each copies the maps of its topics: many at once cost little more than one.
    pub fn update(&self, changed: BTreeMap<TopicPartition, Option<Replica>>) {
        if changed.is_empty() {
            return;
        }
        let _one_at_a_time = self.writing.lock();
        let mut leaders = Leaders::clone(&self.leaders.load());
        let mut followers = Followers::clone(&self.followers.load());
        for (partition, replica) in changed {
            let (leader, follower) = match replica {
                Some(Replica::Leader(leader)) => (Some(leader), None),
                Some(Replica::Follower(follower)) => (None, Some(follower)),
                None => (None, None),
            };
            set(&mut leaders, &partition, leader);
            set(&mut followers, &partition, follower);
        }
        self.leaders.store(Arc::new(leaders));
        self.followers.store(Arc::new(followers));
        self.changes.send_modify(|version| *version += 1);
    }

    /// Shows a coordinator that was started, or hides one that was stopped.
    pub fn set_coordinator(&self, partition: i32, actor: Option<Addr<CoordinatorActor>>) {
        let _one_at_a_time = self.writing.lock();
        let mut coordinators = Coordinators::clone(&self.coordinators.load());
        match actor {
            Some(actor) => drop(coordinators.insert(partition, actor)),
            None => drop(coordinators.remove(&partition)),
        }
        self.coordinators.store(Arc::new(coordinators));
        self.changes.send_modify(|version| *version += 1);
    }
}

fn find<A: Actor>(replicas: &Replicas<A>, partition: &TopicPartition) -> Option<ReplicaRef<A>> {
    let of_topic = replicas.get(&partition.topic)?;
    of_topic.get(&partition.partition).cloned()
}

fn set<A: Actor>(replicas: &mut Replicas<A>, of: &TopicPartition, replica: Option<ReplicaRef<A>>) {
    let TopicPartition { topic, partition } = of;
    if let Some(replica) = replica {
        let of_topic = replicas.entry(topic.clone()).or_default();
        drop(Arc::make_mut(of_topic).insert(*partition, replica));
    } else if let Some(of_topic) = replicas.get_mut(topic) {
        drop(Arc::make_mut(of_topic).remove(partition));
        if of_topic.is_empty() {
            drop(replicas.remove(topic));
        }
    }
}
