//! Asking another node: one connection, lanes that do not wait for each other, answers in any order.
//!
//! A request that cannot be sent fails at once; one whose connection breaks fails without it being known whether it
//! was done. Nothing is sent twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_common::runtime::Worker;
use callboard_common::transport::peer::{PeerIdentity, level_of};
use callboard_common::transport::stream::{FrameReader, write};
use callboard_common::{BrokerId, FeatureLevel};
use parking_lot::Mutex;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use slog::{Logger, debug, warn};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::protocol::{
    self, ASK, BODY_LIMIT_BYTES, CODE_REFUSED, FRAME_LIMIT_BYTES, PeerRequest, PeerResponse,
};
use crate::controller;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After a failed attempt everything fails at once for so long.
const PAUSE: Duration = Duration::from_millis(50);
/// After being refused for so long.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Requests that wait for one node; what comes on top fails.
const QUEUE: usize = 4096;

/// Why another node did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It was not asked.
    #[error("node {0} cannot be reached")]
    Unreachable(BrokerId),
    /// It was asked, and may have done it.
    #[error("the connection to node {0} broke")]
    Broken(BrokerId),
    /// It was not asked: its release does not know what was to be asked.
    #[error("node {0} runs a release that does not know this yet")]
    Unknown(BrokerId),
}

/// Requests of one kind share a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Messages of the quorum, in order.
    Raft,
    /// Everything else.
    Control,
}

type Answer = oneshot::Sender<Result<PeerResponse, LinkError>>;
type Opened = oneshot::Sender<Result<Stream, LinkError>>;

/// A lane that was opened, and the level that both ends speak.
#[derive(Debug)]
pub struct Stream {
    /// To the other node.
    pub send: SendStream,
    /// From there.
    pub receive: RecvStream,
    /// What both speak.
    pub level: FeatureLevel,
}

enum Order {
    Ask(Lane, Box<PeerRequest>, Answer),
    Open(Opened),
}

/// A link to one node; clones share it.
#[derive(Clone, Debug)]
pub struct Link {
    broker: BrokerId,
    orders: mpsc::Sender<Order>,
}

impl Link {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the request may be done all the same.
    pub async fn ask(&self, lane: Lane, request: PeerRequest) -> Result<PeerResponse, LinkError> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Ask(lane, Box::new(request), answer))?;
        answered
            .await
            .unwrap_or(Err(LinkError::Broken(self.broker)))
    }

    /// Opens a lane of its own.
    ///
    /// # Errors
    ///
    /// [`LinkError::Unreachable`].
    pub async fn open(&self) -> Result<Stream, LinkError> {
        let (opened, opening) = oneshot::channel();
        self.order(Order::Open(opened))?;
        opening
            .await
            .unwrap_or(Err(LinkError::Unreachable(self.broker)))
    }

    fn order(&self, order: Order) -> Result<(), LinkError> {
        let full = |_| LinkError::Unreachable(self.broker);
        self.orders.try_send(order).map_err(full)
    }
}

struct Inner {
    endpoint: Endpoint,
    identity: PeerIdentity,
    worker: Worker,
    links: Mutex<BTreeMap<(BrokerId, String, u16), Link>>,
    logger: Logger,
}

/// The links of a node; clones share them.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").finish_non_exhaustive()
    }
}

impl Peers {
    /// Links that call from this endpoint, whose worker it is.
    #[must_use]
    pub fn new(endpoint: Endpoint, identity: PeerIdentity, worker: Worker, logger: Logger) -> Self {
        Self(Arc::new(Inner {
            endpoint,
            identity,
            worker,
            links: Mutex::default(),
            logger,
        }))
    }

    /// Who this node is to the others.
    #[must_use]
    pub fn identity(&self) -> &PeerIdentity {
        &self.0.identity
    }

    /// The worker on which everything about other nodes runs.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.0.worker
    }

    /// The link to a node at this place.
    #[must_use]
    pub fn link(&self, broker: BrokerId, at: &controller::Endpoint) -> Link {
        let key = (broker, at.host.clone(), at.port);
        let mut links = self.0.links.lock();
        if let Some(link) = links.get(&key) {
            return link.clone();
        }
        let (orders, incoming) = mpsc::channel(QUEUE);
        let link = Link { broker, orders };
        let task = Task {
            broker,
            name: self.0.identity.name_of(broker),
            at: (at.host.clone(), at.port),
            endpoint: self.0.endpoint.clone(),
            connection: None,
            lanes: BTreeMap::new(),
            not_before: None,
            refused: None,
            logger: self.0.logger.clone(),
        };
        let _alive: bool = self.0.worker.run(move || {
            drop(actix_rt::spawn(task.run(incoming)));
        });
        drop(links.insert(key, link.clone()));
        link
    }
}

type ToLane = mpsc::UnboundedSender<(Box<PeerRequest>, Answer)>;

/// Drives one link.
struct Task {
    broker: BrokerId,
    name: String,
    at: (String, u16),
    endpoint: Endpoint,
    connection: Option<Connection>,
    lanes: BTreeMap<Lane, ToLane>,
    not_before: Option<Instant>,
    /// What the other node gave as its reason to close a connection.
    refused: Option<Bytes>,
    logger: Logger,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Ask(lane, request, answer) => self.ask(lane, request, answer).await,
                Order::Open(opened) => {
                    let stream = self.stream().await;
                    drop(opened.send(stream));
                }
            }
        }
    }

    async fn ask(&mut self, lane: Lane, request: Box<PeerRequest>, answer: Answer) {
        let mut asked = (request, answer);
        let is_open = self
            .connection
            .as_ref()
            .is_some_and(|c| c.close_reason().is_none());
        if let Some(open) = self.lanes.get(&lane).filter(|_| is_open) {
            match open.send(asked) {
                Ok(()) => return,
                Err(mpsc::error::SendError(back)) => asked = back,
            }
        }
        match self.stream().await {
            Ok(stream) => {
                let (requests, incoming) = mpsc::unbounded_channel();
                drop(requests.send(asked));
                drop(actix_rt::spawn(run_lane(self.broker, stream, incoming)));
                let _old = self.lanes.insert(lane, requests);
            }
            Err(error) => drop(asked.1.send(Err(error))),
        }
    }

    async fn stream(&mut self) -> Result<Stream, LinkError> {
        let unreachable = LinkError::Unreachable(self.broker);
        let connection = self.connect().await.ok_or_else(|| unreachable.clone())?;
        let level = level_of(&connection).ok_or_else(|| unreachable.clone())?;
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, connection.open_bi()).await;
        let opened = opened.map_err(|_| unreachable.clone())?;
        let (send, receive) = opened.map_err(|_| unreachable)?;
        Ok(Stream {
            send,
            receive,
            level,
        })
    }

    /// The open connection, or a new one.
    async fn connect(&mut self) -> Option<Connection> {
        if let Some(connection) = self
            .connection
            .as_ref()
            .filter(|c| c.close_reason().is_none())
        {
            return Some(connection.clone());
        }
        self.note_refusal();
        self.lanes.clear();
        self.connection = None;
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let connecting = async {
            let address = self.resolve().await.ok_or("its name has no address")?;
            let connecting = self
                .endpoint
                .connect(address, &self.name)
                .map_err(|e| e.to_string())?;
            connecting.await.map_err(|e| e.to_string())
        };
        let connected: Result<Connection, String> =
            match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err("it does not answer".into()),
            };
        match connected {
            Ok(connection) => {
                debug!(self.logger, "connected to another node"; "peer" => %self.broker);
                self.not_before = None;
                self.connection = Some(connection.clone());
                Some(connection)
            }
            Err(error) => {
                debug!(self.logger, "another node is not reached"; "peer" => %self.broker, "error" => error);
                self.not_before = Some(Instant::now() + PAUSE);
                None
            }
        }
    }

    /// Says why the other node refused this one, unless it was said already.
    fn note_refusal(&mut self) {
        let closed = self.connection.as_ref().and_then(Connection::close_reason);
        if let Some(ConnectionError::ApplicationClosed(close)) = closed
            && close.error_code == VarInt::from_u32(CODE_REFUSED)
        {
            self.not_before = Some(Instant::now() + REFUSED_PAUSE);
            if self.refused.as_ref() == Some(&close.reason) {
                return;
            }
            let reason = String::from_utf8_lossy(&close.reason);
            warn!(self.logger, "another node refuses this one"; "peer" => %self.broker, "reason" => %reason);
            self.refused = Some(close.reason);
        }
    }

    async fn resolve(&self) -> Option<SocketAddr> {
        let (host, port) = &self.at;
        let local = self.endpoint.local_addr().ok()?;
        let mut found = tokio::net::lookup_host((host.as_str(), *port)).await.ok()?;
        found.find(|a| a.is_ipv4() == local.is_ipv4())
    }
}

/// Runs a lane until it breaks or nobody asks any more.
async fn run_lane(
    broker: BrokerId,
    stream: Stream,
    mut requests: mpsc::UnboundedReceiver<(Box<PeerRequest>, Answer)>,
) {
    let Stream {
        mut send,
        receive,
        level,
    } = stream;
    let waiting: Mutex<BTreeMap<u64, Answer>> = Mutex::default();
    let writing = async {
        let mut id = 0;
        while let Some((request, answer)) = requests.recv().await {
            id += 1;
            if request.level() > level {
                drop(answer.send(Err(LinkError::Unknown(broker))));
                continue;
            }
            let Ok(frame) = protocol::frame(level, id, ASK, &*request) else {
                drop(answer.send(Err(LinkError::Unreachable(broker))));
                continue;
            };
            let _none = waiting.lock().insert(id, answer);
            if write(&mut send, frame).await.is_err() {
                return;
            }
        }
        // What was asked is still answered.
        std::future::pending().await
    };
    let reading = async {
        let mut reader = FrameReader::new(receive);
        while let Some((id, response)) = read(&mut reader).await {
            let answer = waiting.lock().remove(&id);
            // Who asked may have gone away.
            drop(answer.map(|a| a.send(Ok(response))));
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
    requests.close();
    for (_, answer) in std::mem::take(&mut *waiting.lock()) {
        drop(answer.send(Err(LinkError::Broken(broker))));
    }
    while let Ok((_, answer)) = requests.try_recv() {
        drop(answer.send(Err(LinkError::Unreachable(broker))));
    }
}

async fn read(reader: &mut FrameReader) -> Option<(u64, PeerResponse)> {
    let frame = reader.frame(FRAME_LIMIT_BYTES, BODY_LIMIT_BYTES).await;
    let (header, body, _) = frame.ok()?;
    Some((header.id, protocol::decode(&body).ok()?))
}
