//! The nodes of the cluster and who votes on its metadata.

use std::time::Duration;

use callboard_common::kafka::Text;
use callboard_common::protocol::Response;
use callboard_common::protocol::cluster::{
    ChangeNode, ChangedNode, DescribedCluster, DescribedQuorum, NodeChange, NodeDescription,
    NodeStanding, PartitionCounts, QuorumMember,
};
use callboard_common::{BrokerId, ErrorCode};
use tokio::sync::oneshot;

use super::topics::{Refused, refused};
use super::{Api, Caller, Operation, Resource, or_timeout};
use crate::controller::actor::{ChangeQuorum, DescribeQuorum};
use crate::controller::image::{BrokerImage, Standing};
use crate::controller::partition::Electorate;
use crate::controller::{
    Command, Endpoint, MemberView, MetadataImage, PartitionImage, QuorumChange, Refusal,
};
use crate::supervision;

/// So long the quorum is asked again while it is busy with another change.
const QUORUM_PATIENCE: Duration = Duration::from_secs(10);
const QUORUM_PAUSE: Duration = Duration::from_millis(100);

fn counts(image: &MetadataImage) -> PartitionCounts {
    let mut counts = PartitionCounts::default();
    let unfenced = image.unfenced();
    for topic in image.topics.values() {
        for p in &topic.partitions {
            let min_isr = Electorate::of(p, &unfenced, topic.min_isr()).min_isr;
            counts.all += 1;
            counts.without_leader += u32::from(p.leader.is_none());
            counts.under_replicated += u32::from(p.isr.len() < p.replicas.len());
            counts.under_min_isr += u32::from(p.isr.len() < min_isr);
            counts.moving += u32::from(p.target.is_some());
        }
    }
    counts
}

fn text(endpoint: &Endpoint) -> Text {
    format!("{}:{}", endpoint.host, endpoint.port).into()
}

fn node(image: &MetadataImage, id: BrokerId, broker: &BrokerImage) -> NodeDescription {
    let endpoints = broker.endpoints.as_ref();
    let count = |what: &dyn Fn(&PartitionImage) -> bool| {
        u32::try_from(image.partitions().filter(|p| what(p)).count()).unwrap_or(u32::MAX)
    };
    let mut members = image.members.iter();
    let votes = members.any(|(raft_id, m)| m.broker == id && image.voters.contains(raft_id));
    NodeDescription {
        id,
        standing: match broker.standing {
            Standing::Alive => NodeStanding::Alive,
            Standing::Silent => NodeStanding::Silent,
            Standing::Stopped => NodeStanding::Stopped,
        },
        draining: image.draining.contains(&id),
        epoch: broker.epoch,
        rack: broker.rack.as_deref().map(Text::from),
        kafka: endpoints.map(|e| text(&e.kafka)),
        quic: endpoints.map(|e| text(&e.quic)),
        peer: endpoints.and_then(|e| e.peer.as_ref()).map(text),
        votes,
        leads: count(&|p| p.leader == Some(id)),
        keeps: count(&|p| p.replicas.contains(&id)),
        in_sync: count(&|p| p.isr.contains(&id)),
    }
}

pub(super) fn describe(api: &Api, caller: &Caller) -> Response {
    if !api.allows(caller, Operation::Describe, Resource::Cluster) {
        return Response::Refused(ErrorCode::ClusterAuthorizationFailed);
    }
    let image = api.image();
    let nodes = image.brokers.iter();
    Response::DescribeCluster(DescribedCluster {
        error: ErrorCode::None,
        cluster_id: api.shared().cluster_id.as_str().into(),
        controller: api.0.published.led.borrow().leader,
        nodes: nodes.map(|(id, b)| node(&image, *id, b)).collect(),
        partitions: counts(&image),
    })
}

pub(super) async fn quorum(api: &Api, caller: &Caller) -> Response {
    if !api.allows(caller, Operation::Describe, Resource::Cluster) {
        return Response::Refused(ErrorCode::ClusterAuthorizationFailed);
    }
    let (relay, (reply, view)) = (true, oneshot::channel());
    supervision::tell(&api.0.controller, DescribeQuorum { relay, reply });
    let Ok(view) = view.await else {
        return Response::Refused(ErrorCode::NotController);
    };
    let member = |m: MemberView| QuorumMember {
        broker: m.member.broker,
        directory: m.member.directory,
        peer: text(&m.member.peer),
        votes: m.votes,
        matched: m.matched,
        silent_ms: m.silent_ms,
    };
    let error = if view.leads {
        ErrorCode::None
    } else {
        ErrorCode::LeaderNotAvailable
    };
    Response::DescribeQuorum(DescribedQuorum {
        error,
        leader: view.leader,
        term: view.term,
        committed: view.committed,
        members: view.members.into_iter().map(member).collect(),
        told_at_ms: api.shared().clock.now().wall.0,
    })
}

pub(super) async fn change_node(api: &Api, caller: &Caller, change: ChangeNode) -> Response {
    let changed = match api.allows(caller, Operation::Alter, Resource::Cluster) {
        true => changed(api, change.broker, change.change).await,
        false => Err(ErrorCode::ClusterAuthorizationFailed.into()),
    };
    let (error, message) = match changed {
        Ok(()) => (ErrorCode::None, None),
        Err(refused) => (refused.error, Some(refused.message.into())),
    };
    Response::ChangeNode(ChangedNode { error, message })
}

async fn changed(api: &Api, broker: BrokerId, change: NodeChange) -> Result<(), Refused> {
    match change {
        NodeChange::Promote => change_quorum(api, broker, QuorumChange::Promote).await,
        NodeChange::Demote => change_quorum(api, broker, QuorumChange::Demote).await,
        NodeChange::Drain | NodeChange::Undrain => {
            let drains = change == NodeChange::Drain;
            if drains {
                check_room(&api.image(), broker)?;
            }
            let _done = api.propose(Command::DrainBroker { broker, drains }).await?;
            Ok(())
        }
        NodeChange::Remove => remove(api, broker).await,
    }
}

/// Whether the other nodes can take what a node keeps.
fn check_room(image: &MetadataImage, broker: BrokerId) -> Result<(), Refused> {
    let takes = |id: &BrokerId| *id != broker && image.takes_partitions(*id);
    let others = image.brokers.keys().filter(|id| takes(id)).count();
    let needed = image.topics.iter().flat_map(|(name, topic)| {
        let kept = topic.numbered().map(|(_, p)| p);
        let kept = kept.filter(|p| p.replicas.contains(&broker));
        // The broker's own topics have as many replicas as there are nodes, at least one.
        kept.map(|p| match name.is_internal() {
            true => 1,
            false => p.goal().len(),
        })
    });
    match needed.max().filter(|needed| *needed > others) {
        None => Ok(()),
        Some(needed) => Err(refused(
            ErrorCode::InvalidReplicationFactor,
            format!(
                "node {broker} keeps partitions with {needed} replicas and {others} other nodes take partitions: \
                 start another node, or lower the number of replicas (callboard cluster reassign TOPIC --replicas N)"
            ),
        )),
    }
}

/// A node leaves for good: first what it keeps must be elsewhere, then it has no vote any more, then it is forgotten.
async fn remove(api: &Api, broker: BrokerId) -> Result<(), Refused> {
    let image = api.image();
    if !image.brokers.contains_key(&broker) {
        // One that follows the metadata and has never come to serve anything.
        return match raft_id(&image, broker) {
            Some(_) => change_quorum(api, broker, QuorumChange::Remove).await,
            None => Err(Refusal::UnknownBroker.into()),
        };
    }
    if image.partitions().any(|p| p.replicas.contains(&broker)) {
        return Err(Refusal::InUse(broker).into());
    }
    // Nothing new comes to it meanwhile.
    let drains = true;
    let _drained = api.propose(Command::DrainBroker { broker, drains }).await?;
    if raft_id(&image, broker).is_some() {
        change_quorum(api, broker, QuorumChange::Remove).await?;
    }
    let _done = api.propose(Command::UnregisterBroker { broker }).await?;
    Ok(())
}

fn raft_id(image: &MetadataImage, broker: BrokerId) -> Option<u64> {
    let mut members = image.members.iter();
    members.find(|(_, m)| m.broker == broker).map(|(id, _)| *id)
}

/// Changes the quorum, waiting for changes that are under way and for a leader that hands over first.
async fn change_quorum(
    api: &Api,
    broker: BrokerId,
    change: impl Fn(u64) -> QuorumChange,
) -> Result<(), Refused> {
    let image = api.image();
    let none = || {
        refused(
            ErrorCode::BrokerIdNotRegistered,
            "it does not follow the metadata",
        )
    };
    let id = raft_id(&image, broker).ok_or_else(none)?;
    let clock = api.shared().clock.clone();
    let mut last = Refusal::NoQuorum;
    let asking = async {
        loop {
            let (reply, changed) = oneshot::channel();
            let change = change(id);
            supervision::tell(&api.0.controller, ChangeQuorum { change, reply });
            match changed.await.unwrap_or(Err(Refusal::Stopped)) {
                Err(refusal @ (Refusal::QuorumBusy(_) | Refusal::NoQuorum)) => last = refusal,
                other => break other,
            }
            clock.sleep(QUORUM_PAUSE).await;
        }
    };
    match or_timeout(asking, clock.sleep(QUORUM_PATIENCE)).await {
        Some(Ok(_)) => Ok(()),
        Some(Err(refusal)) => Err(refusal.into()),
        None => Err(last.into()),
    }
}
