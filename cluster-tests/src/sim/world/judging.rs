//! What is judged from outside of all nodes, when power goes and in the end.

use callboard_common::{BrokerId, TopicPartition};

use super::World;
use crate::sim::client::Client;
use crate::sim::plan::{END, HEALED, SECOND};

impl World {
    /// I10: what was committed is durable on every in-sync replica, also on one whose power goes now.
    pub(super) fn judge_durable(&mut self, node: usize) {
        let (Some(running), image) = (&self.machines[node].running, self.newest.clone()) else {
            return;
        };
        if self.machines[node].rotten {
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
                Client::Consumer(_) => 0,
            })
            .sum();
        let truth = &mut self.hub.truth;
        if waiting > 0 {
            truth.violate(|| {
                format!(
                    "A25: {waiting} batches are not acknowledged {} s after everything was healed",
                    (END - HEALED) / SECOND
                )
            });
        }
        let partitions = self.hub.plan.partitions;
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
            let Some(topic) = running.image.topics.get(&self.topic) else {
                continue;
            };
            for (number, partition) in topic.numbered() {
                if partition.isr.len() < partition.replicas.len() || partition.leader.is_none() {
                    truth.violate(|| format!("A25: {}-{number} is not whole in the end, as node {} sees it: {partition:?}", self.topic, node + 1));
                }
            }
            running.compare(truth, machine.rotten);
        }
        said.iter().for_each(|line| self.hub.remember(line));
        for number in 0..partitions {
            let partition = TopicPartition::new(self.topic.clone(), number);
            self.judge_partition(&partition);
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
