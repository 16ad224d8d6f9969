//! How a node comes into its cluster: it forms one, joins one, or comes back to one; and how it leaves in order.
//!
//! The first time, all listed voters must be there and empty; then the one with the lowest number forms a quorum of
//! itself and takes the others in as they ask. A data directory that once waited to be taken in never forms a quorum, and
//! one that is lost comes back under another number in Raft.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::Duration;

use actix::Addr;
use callboard_common::BrokerId;
use slog::{Logger, info, warn};
use tokio::sync::{oneshot, watch};

use super::Shared;
use super::builder::StartError;
use super::log_sizes::Teller;
use super::prepare::{PeerSockets, Starting};
use super::renewal;
use crate::controller::actor::{ChangeQuorum, Died, HandOver, Published, propose};
use crate::controller::{
    self, Command, ControllerActor, Endpoint, Member, Outcome, Proposal, QuorumChange, Refusal,
    log_file,
};
use crate::net::peer::{self, PeerDoor, Refusals};
use crate::peer::link::Lane;
use crate::peer::pace::Pace;
use crate::peer::protocol::{PeerRequest, PeerResponse};
use crate::peer::tripwire::{self, Broken};
use crate::peer::{Link, Peers};
use crate::storage::StorageError;
use crate::storage::disk::replace_whole;
use crate::supervision;

/// The mark of a data directory that was taken into a quorum, or waits for it.
pub(super) const JOINS: &str = "metadata.joins";
/// The mark of an empty data directory that forms a quorum of its own, whatever voters are listed.
pub(super) const FORMS: &str = "metadata.forms";
/// Between two attempts to form or to join.
const PAUSE: Duration = Duration::from_millis(100);
/// A voter that does not take this node in for so long is left out for now.
const JOIN_PATIENCE: Duration = Duration::from_secs(1);
/// What is waited for is told this often.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How long a node that stops waits for others to take its place.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// After that clients learn where to go before the doors close.
const LEAVE_GRACE: Duration = Duration::from_millis(200);

/// The controller, what it shows, and whether the node stops.
type Parts<'a> = (
    &'a Addr<ControllerActor>,
    &'a Published,
    &'a watch::Receiver<bool>,
);

/// A node's part in a cluster.
#[derive(Clone, Debug)]
pub(super) struct Membership {
    pub(super) peers: Peers,
    /// Where other nodes find this one.
    pub(super) own: Endpoint,
    voters: BTreeMap<BrokerId, Endpoint>,
    /// Bytes in a second for replicas that are not in sync.
    catch_up_rate: Option<u64>,
    logger: Logger,
}

impl Starting {
    /// Opens the endpoint for other nodes, if there are to be any.
    pub(super) async fn open_peers(
        &mut self,
    ) -> Result<Option<(Membership, quinn::Endpoint, Option<TcpListener>)>, StartError> {
        let Some(PeerSockets {
            identity,
            quic,
            tripwire,
        }) = self.peer.take()
        else {
            return Ok(None);
        };
        let bound = quic.local_addr().map_err(StartError::Threads)?;
        let worker = self.shared.runtime.peers().clone();
        let (opened, opening) = oneshot::channel();
        let of = identity.clone();
        // Its sockets belong to the runtime of that worker.
        let _alive: bool = worker.run(move || drop(opened.send(of.open(quic))));
        let stopped = |_| StartError::Metadata;
        let endpoint = opening.await.map_err(stopped)?.map_err(StartError::Peers)?;
        let logger = self.shared.logger.clone();
        let membership = Membership {
            peers: Peers::new(endpoint.clone(), identity, worker, logger.clone()),
            own: self.config.advertised_peer(bound)?.into(),
            voters: self.config.voters()?,
            catch_up_rate: Some(self.config.cluster.catch_up_rate.0).filter(|rate| *rate > 0),
            logger,
        };
        Ok(Some((membership, endpoint, tripwire)))
    }

    /// Who the controller is: one that is alone, one that forms a quorum, or one that waits to be taken into one.
    pub(super) async fn identity_in(
        &self,
        membership: Option<&Membership>,
    ) -> Result<controller::Identity, StartError> {
        let (disk, dir) = (self.shared.open.disk().clone(), &self.shared.dir);
        let mark = dir.join(JOINS);
        let names = disk.list(dir).map_err(StorageError::io("listing", dir))?;
        let is_there = |name: &str| names.iter().any(|n| n == name);
        let joins = if is_there(JOINS) {
            true
        } else if is_there(FORMS) {
            false
        } else if let Some(membership) = membership
            && !membership.voters.is_empty()
            && !log_file::has_content(&*disk, dir)
        {
            membership.must_join(self.shared.broker).await
        } else {
            false
        };
        if joins && !is_there(JOINS) {
            replace_whole(&*disk, &mark, b"").map_err(StorageError::io("writing", &mark))?;
        }
        Ok(controller::Identity {
            broker: self.shared.broker,
            directory: self.meta.directory_id,
            joins,
        })
    }
}

impl Membership {
    fn link(&self, broker: BrokerId, at: &Endpoint) -> Link {
        self.peers.link(broker, at)
    }

    /// Whether this empty node waits to be taken in, instead of forming the quorum. Waits for all listed voters.
    async fn must_join(&self, me: BrokerId) -> bool {
        if self.voters.keys().next() != Some(&me) {
            return true;
        }
        let mut missing: BTreeSet<BrokerId> =
            self.voters.keys().copied().filter(|b| *b != me).collect();
        let mut told = None;
        while !missing.is_empty() {
            for broker in missing.clone() {
                let link = self.link(broker, &self.voters[&broker]);
                match link.ask(Lane::Control, PeerRequest::Probe).await {
                    Ok(PeerResponse::Probed { formed: true, .. }) => {
                        info!(self.logger, "the cluster is there already"; "peer" => %broker);
                        return true;
                    }
                    Ok(PeerResponse::Probed { .. }) => {
                        let _was: bool = missing.remove(&broker);
                    }
                    Ok(_) | Err(_) => {}
                }
            }
            let due = told.is_none_or(|at: tokio::time::Instant| at.elapsed() >= TELL_EVERY);
            if !missing.is_empty() && due {
                told = Some(tokio::time::Instant::now());
                let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
                info!(self.logger, "waits for all voters to form the cluster"; "missing" => names.join(", "));
            }
            tokio::time::sleep(PAUSE).await;
        }
        info!(
            self.logger,
            "all voters are there and empty: forms the cluster"
        );
        false
    }

    fn member(&self, identity: controller::Identity) -> Member {
        Member {
            broker: identity.broker,
            directory: identity.directory,
            peer: self.own.clone(),
        }
    }

    /// Makes sure that the quorum knows this node: taken in if it joins, a voter if it is listed as one, and found where
    /// it is.
    pub(super) async fn come_in(
        &self,
        identity: controller::Identity,
        controller: &Addr<ControllerActor>,
        published: &Published,
    ) {
        let (id, member) = (identity.raft_id(), self.member(identity));
        let mut told = tokio::time::Instant::now();
        let mut waits_for = None;
        loop {
            let image = published.image.load_full();
            let known = image.members.get(&id);
            if known == Some(&member) {
                break;
            }
            if identity.joins && known.is_none() {
                waits_for = self.ask_to_learn(id, &member).await;
            } else if image.applied > 0 || !identity.joins {
                let command = Command::SetMember {
                    raft_id: id,
                    member: member.clone(),
                };
                let _known = propose(controller, command).await;
            }
            if told.elapsed() >= TELL_EVERY {
                told = tokio::time::Instant::now();
                let reason = waits_for.as_ref().map(ToString::to_string);
                info!(self.logger, "waits to be taken into the cluster"; "reason" => reason);
            }
            tokio::time::sleep(PAUSE).await;
        }
        let votes = || published.image.load().voters.contains(&id);
        while identity.joins && self.voters.contains_key(&identity.broker) && !votes() {
            let (reply, changed) = oneshot::channel();
            let change = QuorumChange::Promote(id);
            supervision::tell(controller, ChangeQuorum { change, reply });
            if let Ok(Ok(_)) = changed.await {
                info!(self.logger, "votes on the metadata");
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks the listed voters to take this node in, as a follower of the metadata; why they do not. An older data directory of
    /// the same node goes first.
    async fn ask_to_learn(&self, id: u64, member: &Member) -> Option<Refusal> {
        let mut refused = None;
        for voter in self.others(member.broker) {
            let learn = QuorumChange::Learn(id, member.clone());
            // One that knows no leader either would look for one for longer.
            match tokio::time::timeout(JOIN_PATIENCE, self.ask_for(voter, learn)).await {
                Ok(Some(Ok(_))) => return None,
                Ok(Some(Err(Refusal::Replaces(old)))) => {
                    warn!(self.logger, "another data directory had this node's number: it goes"; "raft_id" => old);
                    let _next_time = self.ask_for(voter, QuorumChange::Remove(old)).await;
                    return None;
                }
                Ok(Some(Err(refusal))) => refused = Some(refusal),
                Ok(None) | Err(_) => {}
            }
        }
        refused
    }

    /// Asks the listed voters until a member is left out.
    pub(super) async fn have_left_out(&self, me: BrokerId, raft_id: u64) {
        let (mut told, mut reason) = (None, None);
        loop {
            for voter in self.others(me) {
                let asking = self.ask_for(voter, QuorumChange::Remove(raft_id));
                match tokio::time::timeout(JOIN_PATIENCE, asking).await {
                    Ok(Some(Ok(_))) => return,
                    Ok(Some(Err(refusal))) => reason = Some(refusal.to_string()),
                    Ok(None) | Err(_) => {}
                }
            }
            if told.is_none_or(|at: tokio::time::Instant| at.elapsed() >= TELL_EVERY) {
                told = Some(tokio::time::Instant::now());
                info!(self.logger, "waits until the quorum does without the member that this directory was"; "raft_id" => raft_id, "reason" => &reason);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The listed voters on other nodes, and where they are.
    fn others(&self, me: BrokerId) -> impl Iterator<Item = (BrokerId, &Endpoint)> {
        let others = self.voters.iter().filter(move |(b, _)| **b != me);
        others.map(|(broker, at)| (*broker, at))
    }

    /// Asks a voter, and through it who leads the quorum, for a change; `None` if nothing comes back.
    async fn ask_for(
        &self,
        (broker, at): (BrokerId, &Endpoint),
        change: QuorumChange,
    ) -> Option<Result<Outcome, Refusal>> {
        let request = PeerRequest::Propose {
            proposal: Proposal::Quorum(change),
            relay: true,
        };
        match self.link(broker, at).ask(Lane::Control, request).await {
            Ok(PeerResponse::Proposed { result, .. }) => Some(result),
            Ok(_) | Err(_) => None,
        }
    }

    /// Whether whoever leads the quorum, if that is a listed voter, does not know this member. It must know at least as much of the
    /// metadata: a new leader may not have applied yet that this member was taken in.
    pub(super) async fn is_left_out(&self, me: controller::Identity, applied: u64) -> bool {
        for (broker, at) in self.others(me.broker) {
            let link = self.link(broker, at);
            let asking = link.ask(Lane::Control, PeerRequest::Quorum);
            let Ok(Ok(PeerResponse::Quorum(view))) =
                tokio::time::timeout(JOIN_PATIENCE, asking).await
            else {
                continue;
            };
            let mut members = view.members.iter().map(|m| &m.member);
            let knows = view.leads && view.committed >= applied;
            if knows && members.all(|m| m.directory != me.directory) {
                return true;
            }
        }
        false
    }

    /// Opens the door for other nodes and holds their tripwires.
    pub(super) fn open_door(
        &self,
        shared: &Shared,
        identity: controller::Identity,
        (endpoint, tripwire): (quinn::Endpoint, Option<TcpListener>),
        (controller, published, stop): Parts<'_>,
    ) {
        let door = PeerDoor {
            shared: shared.clone(),
            pace: Pace::new(self.catch_up_rate, shared.clock.clone()),
            directory_id: identity.directory,
            peers: self.peers.clone(),
            controller: controller.clone(),
            published: published.clone(),
            refusals: Refusals::default(),
        };
        peer::serve(endpoint, door, stop.clone());
        let Some(tripwire) = tripwire else { return };
        let (stop, logger) = (stop.clone(), self.logger.clone());
        let watching = watch_others(
            shared.broker,
            controller.clone(),
            published.clone(),
            stop.clone(),
        );
        let (membership, published) = (self.clone(), published.clone());
        let looking = renewal::look_whether_left_out(
            membership,
            (identity, shared.incarnation),
            published,
            stop.clone(),
        );
        let _alive: bool = self.peers.worker().run(move || {
            drop(actix_rt::spawn(tripwire::hold(tripwire, stop, logger)));
            drop(actix_rt::spawn(watching));
            drop(actix_rt::spawn(looking));
        });
    }

    /// Tells the active controller from now on how large the logs are that are led here.
    pub(super) fn tell_log_sizes(&self, shared: &Shared, (controller, published, stop): Parts<'_>) {
        let (controller, peers) = (controller.clone(), self.peers.clone());
        let teller = Teller::new(shared.clone(), published.clone(), controller, peers);
        let stop = stop.clone();
        let _alive: bool = self.peers.worker().run(move || {
            drop(actix_rt::spawn(teller.run(stop)));
        });
    }
}

/// Holds a wire to every other node; tells the controller when one breaks because its process has ended.
async fn watch_others(
    me: BrokerId,
    controller: Addr<ControllerActor>,
    published: Published,
    mut stop: watch::Receiver<bool>,
) {
    let mut watched: BTreeMap<(BrokerId, String, u16), actix_rt::task::JoinHandle<()>> =
        BTreeMap::new();
    let mut versions = published.version.subscribe();
    loop {
        let image = published.image.load_full();
        let _seen = *versions.borrow_and_update();
        let mut wanted = BTreeSet::new();
        for (broker, node) in image.brokers.iter().filter(|(b, _)| **b != me) {
            let Some(at) = node.endpoints.as_ref().and_then(|e| e.peer.clone()) else {
                continue;
            };
            let key = (*broker, at.host.clone(), at.port);
            let _new: bool = wanted.insert(key.clone());
            let (controller, published) = (controller.clone(), published.clone());
            let _task = watched.entry(key).or_insert_with(|| {
                let broker = *broker;
                actix_rt::spawn(async move {
                    loop {
                        let tell = |sign| published.suspects.note(broker, sign);
                        let broken = tripwire::watch_over(&at.host, at.port, tell).await;
                        let image = published.image.load();
                        let epoch = image.brokers.get(&broker).map(|b| b.epoch);
                        if let (Broken::Dead, Some(epoch)) = (broken, epoch) {
                            supervision::tell(&controller, Died { broker, epoch });
                        }
                    }
                })
            });
        }
        watched.retain(|key, task| {
            let stays = wanted.contains(key);
            if !stays {
                task.abort();
            }
            stays
        });
        tokio::select! {
            changed = versions.changed() => if changed.is_err() { break },
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    watched.values().for_each(actix_rt::task::JoinHandle::abort);
}

/// Before the doors close: others lead what this node led, and the quorum if it led that.
pub(super) async fn leave(
    shared: &Shared,
    controller: &Addr<ControllerActor>,
    published: &Published,
) {
    let image = published.image.load_full();
    let Some(epoch) = shared.broker_epoch(&image) else {
        return;
    };
    if image.unfenced().len() < 2 {
        return;
    }
    let command = Command::FenceBroker {
        broker: shared.broker,
        epoch,
        stops: true,
    };
    let left = tokio::time::timeout(LEAVE_TIMEOUT, propose(controller, command)).await;
    match left {
        Ok(Ok(_)) => info!(shared.logger, "others lead what this node led"),
        Ok(Err(refusal)) => {
            warn!(shared.logger, "stops without handing over"; "reason" => %refusal);
        }
        Err(_) => warn!(shared.logger, "stops without handing over: nobody answered"),
    }
    supervision::tell(controller, HandOver);
    tokio::time::sleep(LEAVE_GRACE).await;
}
