//! The replicas that a node keeps: started, ended and deleted as the metadata says.

use std::path::Path;

use callboard_broker::controller::MetadataImage;
use callboard_broker::replicas::directories::Directory;
use callboard_broker::replicas::{Effect as ReplicasEffect, Effects as ReplicasEffects, Role};
use callboard_broker::storage::LogFiles;
use callboard_common::{Offset, TopicPartition};

use super::{DATA, Running};
use crate::sim::context::Files;
use crate::sim::event::OfNode;
use crate::sim::hub::Hub;
use crate::sim::leading::Leading;
use crate::sim::plan::SECOND;
use crate::sim::replica::Replica;
use crate::sim::truth::Truth;

impl Running {
    /// Starts and ends what the metadata wants started and ended here.
    pub(super) fn follow(&mut self, hub: &mut Hub) {
        let image = self.image.clone();
        let me = image.brokers.get(&self.me);
        let Some(me) = me.filter(|b| b.incarnation == self.incarnation) else {
            return;
        };
        self.registered = true;
        let broker_epoch = me.epoch;
        let mut effects = ReplicasEffects::new();
        self.replicas.follow(&image, &mut effects);
        for effect in effects {
            match effect {
                ReplicasEffect::Start { partition, role } => {
                    self.begin(hub, &partition, role, broker_epoch);
                }
                ReplicasEffect::Stop { partition } => self.end(hub, &partition),
                ReplicasEffect::Delete { partition, .. } => {
                    self.end(hub, &partition);
                    self.delete(hub, &partition);
                }
                ReplicasEffect::Configure { .. } => {}
                ReplicasEffect::Update { partition, image } => {
                    let alive = self.replicas.alive().clone();
                    let at = self.now_of(&partition);
                    self.with(hub, at, |replica, cx| replica.update(cx, image, alive));
                }
            }
        }
    }

    pub(super) fn begin(
        &mut self,
        hub: &mut Hub,
        key: &TopicPartition,
        role: Role,
        broker_epoch: i64,
    ) {
        let dir = Path::new(DATA).join(key.to_string());
        let directory = self.directory(key);
        let prepared = directory.prepare(role.topic_id).map(drop);
        let synced = || {
            self.disk
                .sync_dir(Path::new(DATA))
                .map_err(|e| e.to_string())
        };
        if let Err(error) = prepared.and_then(|()| synced()) {
            // Its directory cannot be used: the partition is offline here.
            self.later(hub, 2 * SECOND, OfNode::Prepare(key.clone()));
            return hub.remember(&format!("node {}: {key}: {error}", self.node + 1));
        }
        let outstanding = self.outstanding.entry(key.clone()).or_default().clone();
        let files = LogFiles {
            partition: key.clone(),
            dir,
            open: self.open.clone(),
            checkpoints: self.checkpoints.clone(),
            outstanding,
        };
        // Lives are counted over all duties, so that nothing of an earlier one is heard.
        let before = self.partitions.remove(key);
        let files = Files {
            key: key.clone(),
            topic_id: role.topic_id,
            files,
            config: self.config.clone(),
            incarnation: before.map_or(0, |r| r.files.incarnation) + 1,
        };
        let replica = Replica::new(files, role.clone(), self.me);
        drop(self.partitions.insert(key.clone(), replica));
        let (at, alive) = (self.now_of(key), self.replicas.alive().clone());
        self.with(hub, at, |replica, cx| {
            replica.start(cx, role, broker_epoch, alive);
        });
    }

    pub(super) fn prepare_again(&mut self, hub: &mut Hub, key: &TopicPartition) {
        let broker_epoch = self.image.brokers.get(&self.me).map_or(-1, |b| b.epoch);
        let role = self.replicas.role(key).cloned();
        let idle = |r: &Replica| r.log().is_none();
        let is_idle = self.partitions.get(key).is_none_or(idle);
        if let Some(role) = role.filter(|_| is_idle) {
            self.begin(hub, key, role, broker_epoch);
        }
    }

    fn directory(&self, key: &TopicPartition) -> Directory {
        Directory {
            partition: key.clone(),
            dir: Path::new(DATA).join(key.to_string()),
            open: self.open.clone(),
            checkpoints: self.checkpoints.clone(),
        }
    }

    pub(super) fn end(&mut self, hub: &mut Hub, key: &TopicPartition) {
        let at = self.now_of(key);
        self.with(hub, at, |replica, cx| replica.close(cx));
    }

    pub(super) fn delete(&mut self, hub: &mut Hub, key: &TopicPartition) {
        let removed = self.partitions.remove(key);
        drop(self.outstanding.remove(key));
        let Some(replica) = removed else { return };
        // Those who follow another topic of this name already wait for it.
        let gone = replica.files.topic_id;
        self.feeds
            .retain(|(p, _), feed| p != key || feed.position.topic_id != gone);
        for ((_, _), feed) in self.feeds.iter_mut().filter(|((p, _), _)| p == key) {
            (feed.fed_in, feed.failed) = (0, false);
        }
        let deleted = self.directory(key).delete(replica.files.topic_id);
        if let Err(error) = deleted {
            hub.remember(&format!(
                "node {}: {key} is not removed: {error}",
                self.node + 1
            ));
        }
    }

    /// A partition's actor panics.
    pub fn crash_one(&mut self, hub: &mut Hub) {
        let all: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
        if all.is_empty() {
            return;
        }
        let partition = hub.random.pick(&all).clone();
        let at = self.now_of(&partition);
        self.with(hub, at, |replica, cx| replica.crash(cx));
    }

    /// Somebody deletes records of a partition that is led here.
    pub fn delete_records(&mut self, hub: &mut Hub) {
        let mut led = Vec::new();
        for (partition, replica) in &mut self.partitions {
            // What a coordinator keeps is its own.
            if !partition.topic.is_internal() && replica.leading().is_some() {
                led.push(partition.clone());
            }
        }
        if led.is_empty() {
            return;
        }
        let partition = hub.random.pick(&led).clone();
        let end = self.committed(&partition);
        let before = match hub.random.percent(50) {
            true => end,
            false => hub.random.below(end as u64 + 1) as i64,
        };
        let at = self.now_of(&partition);
        self.with(hub, at, |replica, cx| {
            replica.act(cx, |leading, files, cx| {
                leading.delete_records(files, cx, before.max(leading.log.log_start().get()))
            });
        });
    }

    /// Closes all logs.
    pub fn close(&mut self, hub: &mut Hub) {
        let all: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
        all.iter().for_each(|p| self.end(hub, p));
        self.write_checkpoints(hub);
    }

    /// Writes what is known of its logs, as it does every few seconds and when it stops.
    pub(super) fn write_checkpoints(&mut self, hub: &mut Hub) {
        if let Err(error) = self.checkpoints.write() {
            let node = self.node + 1;
            hub.remember(&format!(
                "node {node}: checkpoints are not written: {error}"
            ));
        }
    }

    /// Its replicas.
    pub fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.partitions.values()
    }

    /// The replica of a partition that leads, if one does here.
    pub fn leader_of(&mut self, partition: &TopicPartition) -> Option<(&Files, &mut Leading)> {
        self.partitions.get_mut(partition)?.leading()
    }

    /// Compares what the logs hold with what was committed.
    pub fn compare(&self, truth: &mut Truth, rotten: bool) {
        for replica in self.partitions.values() {
            let Some(log) = replica.log() else { continue };
            let (id, key) = (replica.files.topic_id, &replica.files.key);
            let end = Offset::new(truth.end(id, key.partition));
            let to = end.min(log.log_end());
            let compared = truth.compare(self.node, (id, key), log, log.log_start(), to);
            if compared.is_err() && !rotten {
                let node = self.node + 1;
                truth.violate(|| {
                    format!("I4: node {node} cannot read {key} after everything was healed")
                });
            }
        }
    }
}

/// How many partitions have fewer in-sync replicas than before.
pub(super) fn shrinks(before: &MetadataImage, after: &MetadataImage) -> u64 {
    let mut count = 0;
    for (name, topic) in &after.topics {
        let Some(was) = before.topics.get(name).filter(|was| was.id == topic.id) else {
            continue;
        };
        for (was, is) in was.partitions.iter().zip(&topic.partitions) {
            count += u64::from(is.isr.len() < was.isr.len());
        }
    }
    count
}
