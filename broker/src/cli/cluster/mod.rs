//! `callboard cluster`: the nodes, who votes on the metadata, where partitions are. What is done to the data directory of
//! a node that is stopped is in [`quorum`].

mod features;
mod quorum;

use std::time::Duration;

use callboard_client::protocol::cluster::{
    DescribedCluster, DescribedQuorum, Destination, NodeChange, NodeDescription, NodeStanding,
    PartitionCounts, PartitionMove, QuorumMember,
};
use callboard_client::{Admin, BrokerId, ErrorCode, TopicName, TopicPartition};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::connect::Connect;
use super::output::{Failure, joined, line, note, numbers, table};

/// How often is looked while something is waited for.
const PAUSE: Duration = Duration::from_millis(300);

/// Look after the nodes of a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show the nodes and whether all partitions are led and in sync.
    Status(Show),
    /// Show who follows and votes on the metadata, and how far each is.
    Members(Show),
    /// Let a node vote on the metadata.
    Promote(Node),
    /// Let a node vote no more; it follows on.
    Demote(Node),
    /// Empty a node: its partitions move to others and it gets no new ones. Waits until that is done.
    Drain(Drain),
    /// Let a node take partitions again.
    Undrain(Node),
    /// Take a node out of the cluster for good. It must be empty.
    Remove(Remove),
    /// Move partitions of a topic to other nodes, or change how many replicas they have.
    Reassign(Reassign),
    /// Show partitions that move.
    Moves(Show),
    /// Let the preferred replicas lead.
    Elect(Elect),
    /// Show which feature level the cluster is at and what its nodes speak.
    Features(Show),
    /// When all nodes run a newer release: let them use what it knows. There is no way back.
    Upgrade(features::Upgrade),
    /// Make the data directory of a first node form a cluster of its own at its next start, without waiting for the
    /// listed voters.
    Init(quorum::Init),
    /// When most voters are lost for good: make what is left of the metadata a quorum of one. Commits that only the lost
    /// voters had are lost.
    Recover(quorum::Recover),
}

/// What only shows something.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// A node.
#[derive(Debug, Args)]
pub(crate) struct Node {
    /// Its number.
    node: i32,
    #[command(flatten)]
    connect: Connect,
}

/// See [`Cluster::Drain`].
#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Its number.
    node: i32,
    /// Begin only.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    connect: Connect,
}

/// See [`Cluster::Remove`].
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Its number.
    node: i32,
    /// Empty it first.
    #[arg(long)]
    drain: bool,
    #[command(flatten)]
    connect: Connect,
}

/// See [`Cluster::Reassign`].
#[derive(Debug, Args)]
pub(crate) struct Reassign {
    /// The topic.
    topic: String,
    /// Only this partition; may be given several times.
    #[arg(long = "partition", value_name = "NUMBER")]
    partitions: Vec<i32>,
    #[command(flatten)]
    to: To,
    /// Begin only.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Where to.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    /// To these nodes, the preferred leader first.
    #[arg(long, value_name = "NODE,...", value_delimiter = ',')]
    to: Option<Vec<i32>>,
    /// To so many nodes, which the cluster chooses; those that keep it stay.
    #[arg(long, value_name = "COUNT")]
    replicas: Option<u16>,
    /// Back to where it was before the move that is under way.
    #[arg(long)]
    cancel: bool,
}

/// See [`Cluster::Elect`].
#[derive(Debug, Args)]
pub(crate) struct Elect {
    /// Only partitions of this topic.
    topic: Option<String>,
    /// Only this partition; may be given several times.
    #[arg(long = "partition", value_name = "NUMBER", requires = "topic")]
    partitions: Vec<i32>,
    /// Let any replica lead that is alive where no other can. Acknowledged records that it lacks are lost.
    #[arg(long, requires = "accept_loss", requires = "topic")]
    unclean: bool,
    /// Says that you know what --unclean does.
    #[arg(long, requires = "unclean")]
    accept_loss: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn run(cluster: Cluster) -> Result<(), Failure> {
    match cluster {
        Cluster::Init(init) => return quorum::init(&init),
        Cluster::Recover(recover) => return quorum::recover(&recover),
        Cluster::Status(show) => {
            let client = show.connect.client().await?;
            let described = client.admin().describe_cluster().await?;
            status(&described, show.json)?;
            client.close().await;
        }
        Cluster::Members(show) => {
            let client = show.connect.client().await?;
            members(&client.admin().describe_quorum().await?, show.json)?;
            client.close().await;
        }
        Cluster::Promote(node) => {
            change(node, NodeChange::Promote, "votes on the metadata").await?
        }
        Cluster::Demote(node) => change(node, NodeChange::Demote, "votes no more").await?,
        Cluster::Undrain(node) => change(node, NodeChange::Undrain, "takes partitions").await?,
        Cluster::Drain(drain) => {
            let client = drain.connect.client().await?;
            let broker = BrokerId(drain.node);
            client
                .admin()
                .change_node(broker, NodeChange::Drain)
                .await?;
            if drain.no_wait {
                note(format!(
                    "node {broker} is being emptied: see callboard cluster status"
                ));
            } else {
                until_empty(&client.admin(), broker).await?;
                note(format!("node {broker} is empty"));
            }
            client.close().await;
        }
        Cluster::Remove(remove) => {
            let client = remove.connect.client().await?;
            let (admin, broker) = (client.admin(), BrokerId(remove.node));
            if remove.drain {
                admin.change_node(broker, NodeChange::Drain).await?;
                until_empty(&admin, broker).await?;
            }
            admin.change_node(broker, NodeChange::Remove).await?;
            note(format!(
                "node {broker} is out of the cluster: stop it and keep it stopped"
            ));
            client.close().await;
        }
        Cluster::Reassign(reassign) => reassigned(reassign).await?,
        Cluster::Moves(show) => moves(&show).await?,
        Cluster::Elect(elect) => elected(&elect).await?,
        Cluster::Features(show) => features::show(show).await?,
        Cluster::Upgrade(upgrade) => features::upgrade(upgrade).await?,
    }
    Ok(())
}

async fn change(node: Node, to: NodeChange, done: &str) -> Result<(), Failure> {
    let client = node.connect.client().await?;
    client.admin().change_node(BrokerId(node.node), to).await?;
    note(format!("node {} {done}", node.node));
    client.close().await;
    Ok(())
}

fn standing(node: &NodeDescription) -> &'static str {
    match (node.standing, node.draining) {
        (NodeStanding::Alive, false) => "alive",
        (NodeStanding::Alive, true) if node.keeps == 0 => "drained",
        (NodeStanding::Alive, true) => "draining",
        (NodeStanding::Silent, _) => "silent",
        (NodeStanding::Stopped, _) => "stopped",
    }
}

/// What is wrong with the partitions, or that nothing is.
fn verdict(counts: &PartitionCounts) -> String {
    let wrong = [
        (counts.without_leader, "without a leader"),
        (counts.under_min_isr, "below min.insync.replicas"),
        (
            counts.under_replicated,
            "with replicas that are not in sync",
        ),
        (counts.moving, "on the move"),
    ];
    let wrong = wrong.iter().filter(|(count, _)| *count > 0);
    let wrong: Vec<String> = wrong
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    match wrong.as_slice() {
        [] => format!("{} partitions, all led and in sync", counts.all),
        wrong => format!("{} partitions: {}", counts.all, wrong.join(", ")),
    }
}

fn status(described: &DescribedCluster, json: bool) -> Result<(), Failure> {
    let counts = &described.partitions;
    if json {
        let node = |n: &NodeDescription| {
            json!({"node": n.id.0, "state": standing(n), "draining": n.draining, "epoch": n.epoch, "votes": n.votes,
                "rack": n.rack.as_deref(), "kafka": n.kafka.as_deref(), "quic": n.quic.as_deref(),
                "peer": n.peer.as_deref(), "leads": n.leads, "keeps": n.keeps, "in_sync": n.in_sync})
        };
        let nodes: Vec<_> = described.nodes.iter().map(node).collect();
        return line(
            json!({"cluster": described.cluster_id.as_str(), "controller": described.controller.map(|c| c.0),
            "nodes": nodes, "partitions": {"all": counts.all, "without_leader": counts.without_leader,
            "under_min_isr": counts.under_min_isr, "under_replicated": counts.under_replicated,
            "moving": counts.moving}}),
        );
    }
    line(format!("cluster {}", described.cluster_id))?;
    let row = |n: &NodeDescription| {
        let votes = match (described.controller == Some(n.id), n.votes) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "no",
        };
        let or_none = |text: &Option<callboard_client::Text>| {
            text.as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string)
        };
        vec![
            n.id.to_string(),
            standing(n).to_owned(),
            votes.to_owned(),
            n.leads.to_string(),
            n.keeps.to_string(),
            n.in_sync.to_string(),
            or_none(&n.rack),
            or_none(&n.kafka),
            or_none(&n.peer),
        ]
    };
    let columns = [
        "node", "state", "quorum", "leads", "keeps", "in sync", "rack", "kafka", "peer",
    ];
    table(
        &columns,
        &described.nodes.iter().map(row).collect::<Vec<_>>(),
    )?;
    line(verdict(counts))
}

fn members(described: &DescribedQuorum, json: bool) -> Result<(), Failure> {
    let lag = |m: &QuorumMember| m.matched.map(|m| described.committed.saturating_sub(m));
    if json {
        let member = |m: &QuorumMember| {
            json!({"node": m.broker.0, "directory": m.directory.to_string(), "peer": m.peer.as_str(), "votes": m.votes,
                "matched": m.matched, "lag": lag(m), "silent_ms": m.silent_ms})
        };
        let members: Vec<_> = described.members.iter().map(member).collect();
        return line(
            json!({"leader": described.leader.map(|l| l.0), "term": described.term, "committed": described.committed,
            "members": members}),
        );
    }
    let or_unknown = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |v| v.to_string());
    let row = |m: &QuorumMember| {
        let role = match (described.leader == Some(m.broker), m.votes) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        vec![
            m.broker.to_string(),
            role.to_owned(),
            or_unknown(lag(m)),
            or_unknown(m.silent_ms),
            m.peer.to_string(),
            m.directory.to_string(),
        ]
    };
    let columns = [
        "node",
        "role",
        "lag",
        "heard of ms ago",
        "peer",
        "directory",
    ];
    table(
        &columns,
        &described.members.iter().map(row).collect::<Vec<_>>(),
    )?;
    let (term, committed) = (described.term, described.committed);
    line(format!("term {term}, {committed} entries committed"))
}

/// A bar that shows how much is done of what there was at first.
fn bar(total: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {elapsed}");
    let bar = ProgressBar::new(total).with_message(what);
    match style {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// Looks how much is left until nothing is, and shows it.
async fn until_none(left: impl AsyncFn() -> Result<u64, Failure>) -> Result<(), Failure> {
    let total = left().await?;
    let bar = bar(total, "partitions moved");
    loop {
        let left = left().await?;
        bar.set_position(total.saturating_sub(left));
        if left == 0 {
            bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until a node keeps nothing any more.
async fn until_empty(admin: &Admin, broker: BrokerId) -> Result<(), Failure> {
    until_none(async || {
        let described = admin.describe_cluster().await?;
        let node = described.nodes.iter().find(|n| n.id == broker);
        let left = node.map_or(0, |n| u64::from(n.keeps));
        let takes = |n: &NodeDescription| standing(n) == "alive";
        match left > 0 && !described.nodes.iter().any(takes) {
            true => Err(Failure::new("no other node takes its partitions")),
            false => Ok(left),
        }
    })
    .await
}

/// Partitions of a topic: those that are named, or all.
async fn partitions_of(
    admin: &Admin,
    name: &str,
    named: &[i32],
) -> Result<Vec<TopicPartition>, Failure> {
    let topic = TopicName::new(name).map_err(Failure::usage)?;
    let described = admin.describe_topics(&[name]).await?;
    let count = described.first().map_or(0, |t| t.partitions.len());
    let numbers: Vec<i32> = match named {
        [] => (0..).take(count).collect(),
        named => named.to_vec(),
    };
    let of = |n| TopicPartition::new(topic.clone(), n);
    Ok(numbers.into_iter().map(of).collect())
}

async fn reassigned(reassign: Reassign) -> Result<(), Failure> {
    let client = reassign.connect.client().await?;
    let (admin, topic) = (client.admin(), reassign.topic.as_str());
    let partitions = partitions_of(&admin, topic, &reassign.partitions).await?;
    let to = || match (&reassign.to.to, reassign.to.replicas) {
        (Some(nodes), _) => Destination::Nodes(nodes.iter().copied().map(BrokerId).collect()),
        (None, Some(count)) => Destination::Factor(count),
        (None, None) => Destination::Back,
    };
    let moves = partitions.iter().map(|p| (p.clone(), to()));
    let mut begun = 0;
    for (partition, result) in partitions
        .iter()
        .zip(admin.reassign(moves.collect()).await?)
    {
        match result {
            Ok(()) => begun += 1,
            Err(error) => note(format!("{partition}: {error}")),
        }
    }
    if !reassign.no_wait {
        until_none(async || {
            let moves = admin.list_reassignments().await?;
            Ok(moves.iter().filter(|m| *m.topic == *topic).count() as u64)
        })
        .await?;
    }
    client.close().await;
    if begun < partitions.len() {
        return Err(Failure::new(format!(
            "{} of {} partitions were not moved",
            partitions.len() - begun,
            partitions.len()
        )));
    }
    note(format!("{begun} partitions of {topic} moved"));
    Ok(())
}

async fn moves(show: &Show) -> Result<(), Failure> {
    let client = show.connect.client().await?;
    let moves = client.admin().list_reassignments().await?;
    client.close().await;
    if show.json {
        let one = |m: &PartitionMove| {
            json!({"topic": m.topic.as_str(), "partition": m.partition, "replicas": numbers(&m.replicas),
                "adding": numbers(&m.adding), "removing": numbers(&m.removing)})
        };
        return line(serde_json::Value::from(
            moves.iter().map(one).collect::<Vec<_>>(),
        ));
    }
    let row = |m: &PartitionMove| {
        vec![
            m.topic.to_string(),
            m.partition.to_string(),
            joined(&m.replicas),
            joined(&m.adding),
            joined(&m.removing),
        ]
    };
    let columns = ["topic", "partition", "replicas", "adding", "removing"];
    table(&columns, &moves.iter().map(row).collect::<Vec<_>>())
}

async fn elected(elect: &Elect) -> Result<(), Failure> {
    let client = elect.connect.client().await?;
    let admin = client.admin();
    let named = match &elect.topic {
        None => None,
        Some(name) => Some(partitions_of(&admin, name, &elect.partitions).await?),
    };
    let answers = admin.elect_leaders(named.as_deref(), elect.unclean).await?;
    client.close().await;
    let (mut elected, mut failed) = (0, 0);
    for (topic, partition, error) in answers {
        if error == ErrorCode::None {
            elected += 1;
        } else if error != ErrorCode::ElectionNotNeeded {
            failed += 1;
            note(format!("{topic}-{partition}: {}", error.message()));
        }
    }
    note(format!("{elected} partitions have another leader"));
    match failed {
        0 => Ok(()),
        failed => Err(Failure::new(format!(
            "{failed} partitions have none that was elected"
        ))),
    }
}
