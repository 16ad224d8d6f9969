//! Fetching from leaders: one lane to each node that leads something followed here. A partition is named on it only
//! when its position changes, so those that are idle cost nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use callboard_common::transport::stream::{FrameReader, write};
use callboard_common::{BrokerId, Uuid};
use parking_lot::Mutex;
use slog::{Logger, debug};
use tokio::sync::mpsc;

use super::Peers;
use super::link::Stream;
use super::protocol::{
    self, BODY_LIMIT_BYTES, FRAME_LIMIT_BYTES, PartitionPosition, Positions, REPLICATE,
};
use crate::controller::actor::Published;
use crate::follower::FollowerActor;
use crate::follower::actor::{Connected, Sent};
use crate::supervision;

/// Between two attempts to reach a leader.
const PAUSE: Duration = Duration::from_millis(20);
/// Most positions of one frame.
const BATCH: usize = 10_000;

type Key = (Uuid, i32);

enum Order {
    Attach(Key, Addr<FollowerActor>),
    Detach(Key),
    Position(PartitionPosition),
}

/// The lanes of a node to those that lead what it follows; clones share them.
#[derive(Clone, Debug)]
pub struct Fetchers {
    peers: Peers,
    published: Published,
    tasks: Arc<Mutex<BTreeMap<BrokerId, mpsc::UnboundedSender<Order>>>>,
    logger: Logger,
}

impl Fetchers {
    /// No lane yet.
    #[must_use]
    pub fn new(peers: Peers, published: Published, logger: Logger) -> Self {
        Self {
            peers,
            published,
            tasks: Arc::default(),
            logger,
        }
    }

    /// From now on what `leader` sends of this partition goes to `follower`, which is told when there is a lane.
    pub fn attach(&self, leader: BrokerId, key: Key, follower: Addr<FollowerActor>) {
        self.order(leader, Order::Attach(key, follower));
    }

    /// Nothing of this partition is wanted from `leader` any more.
    pub fn detach(&self, leader: BrokerId, key: Key) {
        self.order(leader, Order::Detach(key));
    }

    /// Tells `leader` how far a partition is.
    pub fn report(&self, leader: BrokerId, position: PartitionPosition) {
        self.order(leader, Order::Position(position));
    }

    fn order(&self, leader: BrokerId, order: Order) {
        let mut tasks = self.tasks.lock();
        let orders = tasks.entry(leader).or_insert_with(|| {
            // Bounded by what is followed: each partition has one position under way.
            let (orders, incoming) = mpsc::unbounded_channel();
            let task = Task {
                leader,
                peers: self.peers.clone(),
                published: self.published.clone(),
                followers: BTreeMap::new(),
                logger: self.logger.clone(),
            };
            let _alive: bool = self.peers.worker().run(move || {
                drop(actix_rt::spawn(task.run(incoming)));
            });
            orders
        });
        // The task ends with the node.
        drop(orders.send(order));
    }
}

struct Task {
    leader: BrokerId,
    peers: Peers,
    published: Published,
    followers: BTreeMap<Key, Addr<FollowerActor>>,
    logger: Logger,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            // Positions from before the lane are of no use: every follower tells its own again.
            if self.followers.is_empty() {
                match orders.recv().await {
                    Some(order) => self.note(order),
                    None => return,
                }
                continue;
            }
            if let Some(stream) = self.open().await {
                self.followers
                    .values()
                    .for_each(|f| supervision::tell(f, Connected));
                match self.lane(stream, &mut orders).await {
                    Ended::Broken(reason) => {
                        debug!(self.logger, "lane to a leader broke"; "leader" => %self.leader, "reason" => reason);
                    }
                    Ended::Stopped => return,
                }
            }
            while let Ok(order) = orders.try_recv() {
                self.note(order);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What changes while there is no lane.
    fn note(&mut self, order: Order) {
        match order {
            Order::Attach(key, follower) => drop(self.followers.insert(key, follower)),
            Order::Detach(key) => drop(self.followers.remove(&key)),
            Order::Position(_) => {}
        }
    }

    async fn open(&self) -> Option<Stream> {
        let image = self.published.image.load_full();
        let leader = image.brokers.get(&self.leader)?;
        let at = leader.endpoints.as_ref()?.peer.as_ref()?;
        self.peers.link(self.leader, at).open().await.ok()
    }

    async fn lane(&mut self, stream: Stream, orders: &mut mpsc::UnboundedReceiver<Order>) -> Ended {
        let Stream {
            mut send,
            receive,
            level,
        } = stream;
        // The frame that opens the lane, even if nothing is to be said yet.
        let mut next = Positions::default();
        let (parts, mut sent) = mpsc::channel(16);
        let reading = actix_rt::spawn(read(FrameReader::new(receive), parts));
        let _abort = AbortOnDrop(reading);
        loop {
            let frame = match protocol::frame(level, 0, REPLICATE, &next) {
                Ok(frame) => frame,
                Err(error) => return Ended::Broken(error.to_string()),
            };
            if let Err(error) = write(&mut send, frame).await {
                return Ended::Broken(error.to_string());
            }
            next = Positions::default();
            while next.positions.is_empty() && next.forgotten.is_empty() {
                tokio::select! {
                    biased;
                    frame = sent.recv() => match frame {
                        Some(Ok(frame)) => self.hand_out(frame),
                        Some(Err(reason)) => return Ended::Broken(reason),
                        None => return Ended::Broken("it was closed".into()),
                    },
                    order = orders.recv() => {
                        let Some(order) = order else { return Ended::Stopped };
                        self.take(order, &mut next);
                        while next.positions.len() < BATCH && let Ok(order) = orders.try_recv() {
                            self.take(order, &mut next);
                        }
                    }
                }
            }
        }
    }

    fn take(&mut self, order: Order, next: &mut Positions) {
        match order {
            Order::Attach(key, follower) => {
                supervision::tell(&follower, Connected);
                drop(self.followers.insert(key, follower));
                // It has opened its log anew, perhaps, and knows less than the leader has told.
                next.forget(key);
            }
            Order::Detach(key) => {
                drop(self.followers.remove(&key));
                next.forget(key);
            }
            Order::Position(position) => next.put(position),
        }
    }

    fn hand_out(&self, parts: protocol::Parts) {
        for part in parts.0 {
            match self.followers.get(&(part.topic_id, part.partition)) {
                Some(follower) => supervision::tell(follower, Sent(part)),
                None => {
                    debug!(self.logger, "a leader sends what is not followed"; "leader" => %self.leader)
                }
            }
        }
    }
}

enum Ended {
    Broken(String),
    Stopped,
}

struct AbortOnDrop(actix_rt::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads frames of parts, whole, so that waiting for something else loses none of them.
async fn read(mut reader: FrameReader, out: mpsc::Sender<Result<protocol::Parts, String>>) {
    loop {
        let frame = reader.frame(FRAME_LIMIT_BYTES, BODY_LIMIT_BYTES).await;
        let frame = frame.map_err(|e| e.to_string());
        let frame = frame.and_then(|(_, body, records)| {
            protocol::parts(&body, records).map_err(|e| e.to_string())
        });
        let ended = frame.is_err();
        if out.send(frame).await.is_err() || ended {
            return;
        }
    }
}
