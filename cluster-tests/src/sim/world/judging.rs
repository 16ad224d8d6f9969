//! What is judged from outside of all nodes, when power goes and in the end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callboard_broker::storage::Disk as _;
use callboard_broker::storage::checkpoint::Checkpoints;
use callboard_common::{BrokerId, Offset, TopicName, TopicPartition};

use super::World;
use crate::sim::client::Client;
use crate::sim::node::DATA;
use crate::sim::plan::{END, HEALED, SECOND};
use crate::sim::replica::Replica;

/// A log as it was when the power went.
pub(super) struct OpenLog {
    key: TopicPartition,
    dir: PathBuf,
    synced_end: Offset,
}

impl OpenLog {
    pub(super) fn of(replica: &Replica) -> Option<Self> {
        let files = &replica.files.files;
        Some(Self {
            key: files.partition.clone(),
            dir: files.dir.clone(),
            synced_end: replica.log()?.synced_end(),
        })
    }
}

impl World {
    /// I23: after the power has gone, what the disk has of a log begins where the disk says that it begins.
    pub(super) fn judge_starts(&mut self, node: usize, open: &[OpenLog]) {
        let disk = Arc::new(self.machines[node].disk.clone());
        let checkpoints = Checkpoints::open(disk.clone(), Path::new(DATA));
        for log in open {
            let noted = checkpoints.marks(&log.key).log_start;
            let names = disk.list(&log.dir).unwrap_or_default();
            let base = |n: &String| n.strip_suffix(".log")?.parse().ok().map(Offset::new);
            let first = names.iter().filter_map(base).min();
            if let Some(first) = first
                && noted < log.synced_end
                && first > noted
            {
                let key = &log.key;
                self.hub.truth.violate(|| {
                    let node = node + 1;
                    format!(
                        "I23: {key} begins at {first} on node {node}, and its disk says at {noted}"
                    )
                });
            }
        }
    }

    /// I10: what was committed is durable on every in-sync replica, at any time: its power may go.
    pub(super) fn judge_durable(&mut self, node: usize) {
        let Some(running) = &self.machines[node].running else {
            return;
        };
        let image = self.hub.truth.metadata.clone();
        if self.hub.rotten.contains(&node) {
            return;
        }
        let me = BrokerId(node as i32 + 1);
        for replica in running.replicas() {
            let (Some(log), key) = (replica.log(), &replica.files.key) else {
                continue;
            };
            let topic = image.topics.get(&key.topic);
            let topic = topic.filter(|t| t.id == replica.files.topic_id);
            let partition = topic.and_then(|t| t.partitions.get(key.partition as usize));
            let counts = partition.is_some_and(|p| p.isr.contains(&me));
            let committed = self.hub.truth.end(replica.files.topic_id, key.partition);
            if counts && log.synced_end().get() < committed {
                let synced = log.synced_end();
                self.hub.truth.violate(|| format!("I10: {committed} of {key} are committed, and {synced} are durable on node {node}, which is in sync", node = node + 1));
            }
        }
    }

    /// What must be true when everything has healed.
    pub(super) fn judge(&mut self) {
        let waiting: usize = self
            .clients
            .iter()
            .map(|c| match c {
                Client::Producer(p) => p.unacknowledged(),
                Client::Consumer(_) | Client::Committer(_) | Client::Member(_) => 0,
            })
            .sum();
        self.judge_groups();
        let (truth, rotten) = (&mut self.hub.truth, &self.hub.rotten);
        if waiting > 0 {
            truth.violate(|| {
                format!(
                    "A25: {waiting} batches are not acknowledged {} s after everything was healed",
                    (END - HEALED) / SECOND
                )
            });
        }
        let mut said = Vec::new();
        for (node, machine) in self.machines.iter().enumerate() {
            let Some(running) = &machine.running else {
                truth.violate(|| format!("A25: node {} does not run in the end", node + 1));
                continue;
            };
            let nodes: Vec<_> = running
                .image
                .brokers
                .iter()
                .map(|(b, i)| (b.0, i.epoch, i.standing))
                .collect();
            said.push(format!(
                "node {} in the end: entry {}, nodes {nodes:?}",
                node + 1,
                running.image.applied
            ));
            for (name, _) in &self.topics {
                let topic = running.image.topics.get(name);
                for (number, partition) in topic.into_iter().flat_map(|t| t.numbered()) {
                    if partition.isr.len() < partition.replicas.len() || partition.leader.is_none()
                    {
                        truth.violate(|| format!("A25: {name}-{number} is not whole in the end, as node {} sees it: {partition:?}", node + 1));
                    }
                }
            }
            running.compare(truth, rotten.contains(&node));
        }
        said.iter().for_each(|line| self.hub.remember(line));
        for (name, partitions) in self.topics.clone() {
            for number in 0..partitions {
                let partition = TopicPartition::new(name.clone(), number);
                self.judge_partition(&partition);
            }
        }
    }

    /// A25: groups hear how far they are when everything has healed, and members share all partitions.
    fn judge_groups(&mut self) {
        // A cluster whose only voter was wiped before others came is none.
        let image = &self.hub.truth.metadata;
        if !image.topics.contains_key(&TopicName::consumer_offsets()) {
            return;
        }
        let mut generations = BTreeSet::new();
        let (mut members, mut owned) = (0, Vec::new());
        for client in &self.clients {
            if let Client::Member(member) = client {
                members += 1;
                let (generation, partitions) = member.works().unwrap_or((-1, &[]));
                let _new = generations.insert(generation);
                owned.extend_from_slice(partitions);
            }
        }
        owned.sort_unstable();
        let all: Vec<i32> = (0..self.hub.plan.partitions).collect();
        if members > 0 && (generations.len() > 1 || owned != all) {
            self.hub.truth.violate(|| {
                format!("A25: members share {owned:?} in generations {generations:?} in the end")
            });
        }
        for client in &self.clients {
            let Client::Committer(committer) = client else {
                continue;
            };
            let told_at = committer.told_at;
            if told_at < HEALED + 5 * SECOND {
                self.hub.truth.violate(|| {
                    format!("A25: a group was told last at {told_at} us what it has committed")
                });
            }
        }
    }

    /// Whoever leads in the end has all that was committed.
    pub(super) fn judge_partition(&mut self, partition: &TopicPartition) {
        for machine in &mut self.machines {
            let Some(running) = &mut machine.running else {
                continue;
            };
            let Some((files, leading)) = running.leader_of(partition) else {
                continue;
            };
            let (id, end) = (files.topic_id, leading.leader.ends().high_watermark.get());
            let committed = self.hub.truth.end(id, partition.partition);
            if end < committed {
                self.hub.truth.violate(|| format!("I1: the leader of {partition} has committed {end} in the end, {committed} was"));
            }
        }
    }
}
