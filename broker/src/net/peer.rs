//! The door for other nodes: mutual TLS, so only nodes of this cluster come in. It serves the quorum's messages and the
//! followers of what is led here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use callboard_common::transport::peer::level_of;
use callboard_common::transport::stream::{FrameReader, write};
use callboard_common::wire::frame::{Frame, split};
use callboard_common::{
    BrokerId, Clock, FeatureLevel, LeaderEpoch, Monotonic, Offset, TopicPartition, Uuid,
};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use slog::{debug, info, warn};
use tokio::sync::{mpsc, oneshot, watch};

use crate::controller::ControllerActor;
use crate::controller::actor::{
    DescribeQuorum, LogSizesTold, ProposedByPeer, Published, RaftArrived,
};
use crate::directory::LeaderRef;
use crate::leader::Ends;
use crate::leader::actor::{Replicate, Replicated};
use crate::node::Shared;
use crate::peer::Peers;
use crate::peer::pace::Pace;
use crate::peer::protocol::{
    self, ASK, BODY_LIMIT_BYTES, CODE_REFUSED, FRAME_LIMIT_BYTES, Part, PartitionPosition, Parts,
    PeerRequest, PeerResponse, Positions, REPLICATE, What,
};
use crate::supervision;

/// About how much one partition sends at a time (`replica.fetch.max.bytes`).
const PART_MAX_BYTES: u32 = 1 << 20;
/// Most parts of one frame, and about how much.
const FRAME_PARTS: usize = 1000;
const FRAME_BYTES: usize = 8 << 20;
/// Parts that wait to be written.
const PARTS_QUEUED: usize = 64;
/// A high watermark that nothing carries is told after this.
const HIGH_WATERMARK_PAUSE: Duration = Duration::from_millis(100);
/// A partition that is not led is looked at again after this.
const LEADER_PAUSE: Duration = Duration::from_millis(500);
/// Partitions of one lane.
const PARTITIONS_MAX: usize = 200_000;
const CODE_STOPPED: u32 = 0;
/// A node that is refused again and again is told of this often.
const REFUSAL_TOLD_EVERY: Duration = Duration::from_secs(10);

/// What other nodes are served with.
#[derive(Clone, Debug)]
pub struct PeerDoor {
    /// What all actors of the node share.
    pub shared: Shared,
    /// How fast replicas are fed that are not in sync.
    pub pace: Pace,
    /// The data directory.
    pub directory_id: Uuid,
    /// Who this node is to the others.
    pub peers: Peers,
    /// The controller.
    pub controller: Addr<ControllerActor>,
    /// The metadata.
    pub published: Published,
    /// Who was refused lately.
    pub refusals: Refusals,
}

/// Serves other nodes until `stop` turns true; runs on the peers' worker.
pub fn serve(endpoint: Endpoint, door: PeerDoor, mut stop: watch::Receiver<bool>) {
    let worker = door.peers.worker().clone();
    let _alive: bool = worker.run(move || {
        drop(actix_rt::spawn(async move {
            loop {
                let incoming = tokio::select! {
                    incoming = endpoint.accept() => incoming,
                    _ = stop.wait_for(|stop| *stop) => break,
                };
                let Some(incoming) = incoming else { break };
                drop(actix_rt::spawn(connection(incoming, door.clone())));
            }
            endpoint.close(VarInt::from_u32(CODE_STOPPED), b"the node stops");
        }));
    });
}

async fn connection(incoming: Incoming, door: PeerDoor) {
    let from = incoming.remote_address();
    let logger = door.shared.logger.clone();
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => {
            return info!(logger, "handshake with another node failed"; "peer" => %from, "error" => %error);
        }
    };
    let Some(caller) = door.peers.identity().caller(&connection) else {
        warn!(logger, "refused: its certificate is not another node's of this cluster"; "peer" => %from);
        return connection.close(
            VarInt::from_u32(CODE_REFUSED),
            b"not a node of this cluster",
        );
    };
    let Some(level) = level_of(&connection) else {
        return;
    };
    let caller = Caller {
        broker: caller,
        level,
    };
    // The level may be raised later, and at a start it may not be known yet.
    let mut versions = door.published.version.subscribe();
    loop {
        let _seen = *versions.borrow_and_update();
        let needed = door.published.image.load().level.0;
        if level < needed {
            return refuse(&door, caller, needed, &connection);
        }
        let accepted = tokio::select! {
            accepted = connection.accept_bi() => accepted,
            changed = versions.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok((send, receive)) = accepted else {
            return;
        };
        let (door, connection) = (door.clone(), connection.clone());
        drop(actix_rt::spawn(async move {
            if let Err(reason) = lane(&door, caller, send, receive).await {
                debug!(door.shared.logger, "lane of another node ended"; "peer" => %caller.broker, "reason" => %reason);
                close_if_malformed(&connection, &reason);
            }
        }));
    }
}

/// Closes the connection of a node that does not speak what the cluster is at. It will come again and again: its operator is told
/// why by its own log, ours now and then.
fn refuse(door: &PeerDoor, caller: Caller, needed: FeatureLevel, connection: &Connection) {
    if door.refusals.is_due(caller.broker, &door.shared.clock) {
        warn!(door.shared.logger, "refused: it does not speak what the cluster is at"; "peer" => %caller.broker,
            "speaks" => %caller.level, "feature_level" => %needed);
    }
    let reason = format!(
        "the cluster is at feature level {needed}: start a newer release, or raise cluster.max_feature_level"
    );
    connection.close(VarInt::from_u32(CODE_REFUSED), reason.as_bytes());
}

/// When nodes were refused last, so that it is not told each time.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<BTreeMap<BrokerId, Monotonic>>>);

impl Refusals {
    fn is_due(&self, broker: BrokerId, clock: &Clock) -> bool {
        let now = clock.now().monotonic;
        let mut told = self.0.lock();
        let is_due = told
            .get(&broker)
            .is_none_or(|at| now.since(*at) >= REFUSAL_TOLD_EVERY);
        if is_due {
            let _before = told.insert(broker, now);
        }
        is_due
    }
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
struct Caller {
    broker: BrokerId,
    /// What both nodes speak.
    level: FeatureLevel,
}

/// Why a lane ends.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it was closed")]
    Closed,
    #[error("{0}")]
    Malformed(String),
}

fn close_if_malformed(connection: &Connection, reason: &Ended) {
    if let Ended::Malformed(reason) = reason {
        connection.close(VarInt::from_u32(CODE_REFUSED), reason.as_bytes());
    }
}

type Read = (u64, u16, bytes::Bytes, bytes::Bytes);

async fn read(reader: &mut FrameReader, level: FeatureLevel) -> Result<Read, Ended> {
    let length = reader
        .length(FRAME_LIMIT_BYTES)
        .await
        .map_err(|_| Ended::Closed)?;
    reader.arrive(length).await.map_err(|_| Ended::Closed)?;
    let malformed = |e: &dyn std::fmt::Display| Ended::Malformed(e.to_string());
    let (header, body, records) =
        split(reader.take(length), BODY_LIMIT_BYTES).map_err(|e| malformed(&e))?;
    if header.version != level.0 {
        return Err(Ended::Malformed(format!(
            "version {} was not agreed on",
            header.version
        )));
    }
    Ok((header.id, header.api, body, records))
}

async fn lane(
    door: &PeerDoor,
    caller: Caller,
    send: SendStream,
    receive: RecvStream,
) -> Result<(), Ended> {
    let mut reader = FrameReader::new(receive);
    let (id, api, body, _) = read(&mut reader, caller.level).await?;
    match api {
        ASK => control(door, caller, (id, body), reader, send).await,
        REPLICATE => replicate(door, caller, &body, reader, send).await,
        other => Err(Ended::Malformed(format!("request {other} is not known"))),
    }
}

fn malformed(error: impl std::fmt::Display) -> Ended {
    Ended::Malformed(error.to_string())
}

/// Serves requests; answers leave as they are ready.
async fn control(
    door: &PeerDoor,
    caller: Caller,
    first: (u64, bytes::Bytes),
    mut reader: FrameReader,
    mut send: SendStream,
) -> Result<(), Ended> {
    let (answers, mut ready) = mpsc::unbounded_channel::<Frame>();
    let writing = async {
        while let Some(frame) = ready.recv().await {
            if write(&mut send, frame).await.is_err() {
                break;
            }
        }
        Err(Ended::Closed)
    };
    let reading = async {
        let (mut id, mut body) = first;
        loop {
            let request: PeerRequest = protocol::decode(&body).map_err(malformed)?;
            let answering = answer(door, caller.broker, request)?;
            let answers = answers.clone();
            drop(actix_rt::spawn(async move {
                // A controller that stops answers nothing.
                if let Some(response) = answering.await
                    && let Ok(frame) = protocol::frame(caller.level, id, ASK, &response)
                {
                    drop(answers.send(frame));
                }
            }));
            let (next, _, bytes, _) = read(&mut reader, caller.level).await?;
            (id, body) = (next, bytes);
        }
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

/// Begins to serve a request, in the order in which it came.
fn answer(
    door: &PeerDoor,
    caller: BrokerId,
    request: PeerRequest,
) -> Result<BoxFuture<'static, Option<PeerResponse>>, Ended> {
    Ok(match request {
        PeerRequest::Probe => ready(Some(PeerResponse::Probed {
            broker: door.shared.broker,
            directory: door.directory_id,
            formed: door.published.image.load().applied > 0,
        }))
        .boxed(),
        PeerRequest::Raft { from, messages } => {
            if from.broker != caller {
                return Err(Ended::Malformed("it speaks for another node".into()));
            }
            supervision::tell(&door.controller, RaftArrived { from, messages });
            ready(Some(PeerResponse::Taken)).boxed()
        }
        PeerRequest::Propose { proposal, relay } => {
            let (reply, answered) = oneshot::channel();
            let proposed = ProposedByPeer {
                proposal,
                relay,
                reply,
            };
            supervision::tell(&door.controller, proposed);
            let response = |(index, result)| PeerResponse::Proposed { index, result };
            async move { answered.await.ok().map(response) }.boxed()
        }
        PeerRequest::Quorum => {
            let (relay, (reply, answered)) = (false, oneshot::channel());
            supervision::tell(&door.controller, DescribeQuorum { relay, reply });
            async move { answered.await.ok().map(PeerResponse::Quorum) }.boxed()
        }
        PeerRequest::LogSizes(sizes) => {
            supervision::tell(&door.controller, LogSizesTold { sizes });
            ready(Some(PeerResponse::Taken)).boxed()
        }
    })
}

/// Serves one follower: its positions come in, what there is for it goes out.
async fn replicate(
    door: &PeerDoor,
    caller: Caller,
    first: &[u8],
    mut reader: FrameReader,
    mut send: SendStream,
) -> Result<(), Ended> {
    let (parts, mut ready) = mpsc::channel::<Part>(PARTS_QUEUED);
    let writing = async {
        while let Some(part) = ready.recv().await {
            let mut bytes = size(&part);
            let mut all = vec![part];
            while all.len() < FRAME_PARTS
                && bytes < FRAME_BYTES
                && let Ok(part) = ready.try_recv()
            {
                bytes += size(&part);
                all.push(part);
            }
            let frame = protocol::parts_frame(caller.level, Parts(all)).map_err(malformed)?;
            write(&mut send, frame).await.map_err(|_| Ended::Closed)?;
        }
        Err(Ended::Closed)
    };
    let reading = async {
        let mut fed: BTreeMap<(Uuid, i32), watch::Sender<PartitionPosition>> = BTreeMap::new();
        let mut positions: Positions = protocol::decode(first).map_err(malformed)?;
        loop {
            for key in std::mem::take(&mut positions.forgotten) {
                drop(fed.remove(&key));
            }
            for position in std::mem::take(&mut positions.positions) {
                let key = (position.topic_id, position.partition);
                if let Some(feed) = fed.get(&key) {
                    let _before = feed.send_replace(position);
                } else if fed.len() < PARTITIONS_MAX {
                    let (feed, wanted) = watch::channel(position);
                    drop(fed.insert(key, feed));
                    let feeding = Feed {
                        door: door.clone(),
                        caller: caller.broker,
                        wanted,
                        parts: parts.clone(),
                        told: Offset::ZERO,
                    };
                    drop(actix_rt::spawn(feeding.run()));
                }
            }
            let (_, _, body, _) = read(&mut reader, caller.level).await?;
            positions = protocol::decode(&body).map_err(malformed)?;
        }
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

fn size(part: &Part) -> usize {
    match &part.what {
        What::Records(attached) | What::TooOld(_, attached) => attached.bytes().len(),
        What::HighWatermark | What::Diverged(..) | What::NotLeader => 0,
    }
}

/// Feeds one partition to one follower.
struct Feed {
    door: PeerDoor,
    caller: BrokerId,
    wanted: watch::Receiver<PartitionPosition>,
    parts: mpsc::Sender<Part>,
    /// The high watermark that the follower knows.
    told: Offset,
}

/// What a feed does next.
enum Next {
    /// Something was sent: the follower says where it is then.
    Position,
    /// Ask the leader again.
    Again,
    /// The follower is gone.
    Gone,
}

impl Feed {
    async fn run(mut self) {
        loop {
            match self.once().await {
                Next::Position if self.wanted.changed().await.is_err() => return,
                Next::Position | Next::Again => {}
                Next::Gone => return,
            }
        }
    }

    async fn once(&mut self) -> Next {
        let position = *self.wanted.borrow_and_update();
        let mut changes = self.door.shared.directory.changes();
        let Some(mut leader) = self.leader(&position) else {
            return self.wait_for_leader(changes.changed()).await;
        };
        let ends = *leader.ends.borrow_and_update();
        // One that does not serve yet wants to know how far others are.
        let reign = ends.epoch.or(ends.in_doubt);
        let Some(epoch) = reign.filter(|epoch| *epoch >= position.epoch) else {
            return self.wait_for_leader(leader.ends.changed()).await;
        };
        if epoch > position.epoch {
            return self.send(&position, ends, What::NotLeader).await;
        }
        let (reply, answered) = oneshot::channel();
        let replicate = Replicate {
            replica: self.caller,
            broker_epoch: position.broker_epoch,
            epoch: position.epoch,
            end: position.end,
            synced: position.synced,
            last_epoch: position.last_epoch,
            max_bytes: PART_MAX_BYTES,
            reply,
        };
        supervision::tell(&leader.actor, replicate);
        match answered.await {
            Ok(Replicated::Records(read)) => match read.await {
                Ok(Ok(fetched)) => {
                    if !self.is_in_sync(&position) {
                        self.door.pace.wait_for(fetched.batches.len()).await;
                    }
                    self.send(
                        &position,
                        fetched.ends,
                        What::Records(fetched.batches.into()),
                    )
                    .await
                }
                Ok(Err(_)) | Err(_) => self.wait_for_leader(leader.ends.changed()).await,
            },
            Ok(Replicated::Nothing(ends)) => self.wait_for_more(&position, ends, leader).await,
            Ok(Replicated::Diverged(epoch, end)) => {
                self.send(&position, ends, What::Diverged(epoch, end)).await
            }
            Ok(Replicated::TooOld(start, producers)) => {
                let producers = producers.into();
                let what = What::TooOld(start, producers);
                self.send(&position, ends, what).await
            }
            Ok(Replicated::Fenced(current)) if current > position.epoch => {
                self.send(&position, ends, What::NotLeader).await
            }
            Ok(Replicated::Fenced(_)) | Err(_) => self.wait_for_leader(leader.ends.changed()).await,
        }
    }

    fn is_in_sync(&self, position: &PartitionPosition) -> bool {
        let image = self.door.published.image.load();
        let topic = image.topic_by_id(&position.topic_id);
        let partition = topic.and_then(|(_, t)| t.partition(position.partition));
        partition.is_some_and(|p| p.isr.contains(&self.caller))
    }

    fn leader(&self, position: &PartitionPosition) -> Option<LeaderRef> {
        let image = self.door.published.image.load();
        let (name, _) = image.topic_by_id(&position.topic_id)?;
        let partition = TopicPartition::new(name.clone(), position.partition);
        let leader = self.door.shared.directory.leader(&partition)?;
        (leader.topic_id == position.topic_id).then_some(leader)
    }

    async fn wait_for_leader<T>(&mut self, changed: impl Future<Output = T>) -> Next {
        tokio::select! {
            _ = changed => {}
            () = tokio::time::sleep(LEADER_PAUSE) => {}
            position = self.wanted.changed() => if position.is_err() { return Next::Gone },
        }
        Next::Again
    }

    /// There is nothing beyond the follower's end: waits for more, and tells the high watermark if that takes long.
    async fn wait_for_more(
        &mut self,
        position: &PartitionPosition,
        ends: Ends,
        mut leader: LeaderRef,
    ) -> Next {
        let committed = ends.high_watermark;
        let news = committed > self.told;
        tokio::select! {
            changed = self.wanted.changed() => match changed {
                Ok(()) => Next::Again,
                Err(_) => Next::Gone,
            },
            more = more(&mut leader, position.end, position.epoch, committed) => {
                if more { Next::Again } else { self.wait_for_leader(std::future::pending::<()>()).await }
            }
            () = tokio::time::sleep(HIGH_WATERMARK_PAUSE), if news => {
                match self.send(position, ends, What::HighWatermark).await {
                    // Nothing was sent that the follower answers.
                    Next::Position => Next::Again,
                    next @ (Next::Again | Next::Gone) => next,
                }
            }
        }
    }

    async fn send(&mut self, position: &PartitionPosition, committed: Ends, what: What) -> Next {
        // Nothing else moves the follower's.
        if matches!(what, What::Records(_) | What::HighWatermark) {
            self.told = committed.high_watermark;
        }
        let part = Part {
            topic_id: position.topic_id,
            partition: position.partition,
            epoch: position.epoch,
            high_watermark: committed.high_watermark,
            log_start: committed.log_start,
            reign_start: committed.reign_start,
            what,
        };
        match self.parts.send(part).await {
            Ok(()) => Next::Position,
            Err(_) => Next::Gone,
        }
    }
}

/// Waits until the leader has more than `end`, is in another reign, or has committed more; whether it is there.
async fn more(leader: &mut LeaderRef, end: Offset, epoch: LeaderEpoch, committed: Offset) -> bool {
    let news = leader.ends.wait_for(|ends| {
        ends.log_end > end || ends.epoch != Some(epoch) || ends.high_watermark > committed
    });
    news.await.is_ok()
}
