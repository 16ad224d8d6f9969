//! Faults as they come and go.

use callboard_broker::controller::Command;
use callboard_broker::storage::Disk;
use callboard_broker::storage::disk::{SimulatedDisk, read_whole};
use callboard_common::{BrokerId, Offset};

use super::{World, directory};
use crate::sim::event::{Event, Place};
use crate::sim::hub::Hub;
use crate::sim::plan::{Fault, MS, Micros, What};

/// Whether a byte of a segment is part of a batch's leader epoch.
fn is_leader_epoch(disk: &SimulatedDisk, path: &std::path::Path, at: u64) -> bool {
    let bytes = read_whole(disk, path, 1 << 30).unwrap_or_default();
    let (mut batch, at) = (0, at as usize);
    while let Some(length) = bytes.get(batch + 8..batch + 12) {
        let length = length.try_into().map_or(0, i32::from_be_bytes);
        let next = batch + 12 + length.max(1) as usize;
        if at < next {
            return (12..16).contains(&(at - batch));
        }
        batch = next;
    }
    false
}

impl World {
    pub(super) fn cut_off(
        &mut self,
        node: usize,
        cut: bool,
        (sends, hears): (bool, bool),
        clients: bool,
    ) {
        let me = Place::Node(node);
        let nodes = (0..self.machines.len()).map(Place::Node);
        let clients = (0..self.clients.len())
            .map(Place::Client)
            .filter(|_| clients);
        let others: Vec<Place> = nodes.chain(clients).filter(|p| *p != me).collect();
        for other in others {
            if sends {
                self.hub.cut(me, other, cut);
            }
            if hears {
                self.hub.cut(other, me, cut);
            }
        }
    }

    pub(super) fn hold_down(&mut self, fault: Fault, nodes: &[usize], power: bool, length: Micros) {
        for node in nodes {
            self.down(*node, power);
            self.machines[*node].held_down += 1;
        }
        self.ends_after(fault, length);
    }

    pub(super) fn ends_after(&mut self, fault: Fault, length: Micros) {
        self.hub.after(length, Event::FaultEnds(fault));
    }

    #[expect(clippy::too_many_lines, reason = "a row of cases, each a few lines")]
    pub(super) fn fault(&mut self, fault: Fault) {
        self.hub.coverage.faults += 1;
        let (node, all): (usize, Vec<usize>) = (fault.node, (0..self.machines.len()).collect());
        let next = Place::Node((node + 1) % self.machines.len());
        match fault.what {
            What::Kill(length) => self.hold_down(fault, &[node], false, length),
            What::KillAll(length) => self.hold_down(fault, &all, false, length),
            What::PowerLossAll(length) => self.hold_down(fault, &all, true, length),
            What::PowerLoss(operations, length) => {
                let disk = &self.machines[node].disk;
                disk.power_off_after(disk.operations() + operations);
                // The machine may be idle: then it goes a little later.
                self.ends_after(fault, length);
            }
            What::PowerLossInRemoval(operations) => {
                self.machines[node].goes_late = Some(operations);
            }
            What::Stop(length) => {
                if let Some(running) = &mut self.machines[node].running {
                    running.leave(&mut self.hub);
                }
                self.ends_after(fault, length);
            }
            What::Crash => {
                if let Some(running) = &mut self.machines[node].running {
                    running.crash_one(&mut self.hub);
                }
            }
            What::Pause(length) => {
                let until = self.hub.now + length;
                let paused = &mut self.machines[node].paused_until;
                *paused = (*paused).max(until);
                self.ends_after(fault, length);
            }
            What::Isolate(length) => {
                self.cut_off(node, true, (true, true), true);
                self.ends_after(fault, length);
            }
            What::Mute(length) => {
                self.cut_off(node, true, (true, false), false);
                self.ends_after(fault, length);
            }
            What::Deaf(length) => {
                self.cut_off(node, true, (false, true), false);
                self.ends_after(fault, length);
            }
            What::CutPair(length) => {
                self.hub.cut(Place::Node(node), next, true);
                self.hub.cut(next, Place::Node(node), true);
                self.ends_after(fault, length);
            }
            What::Slow(by, length) => {
                self.hub.slow_down(node, by);
                self.ends_after(fault, length);
            }
            What::Lossy(percent, length) => {
                self.hub.lossy = percent;
                self.ends_after(fault, length);
            }
            What::FailSync => self.machines[node].disk.fail_syncs(1),
            What::Full(left, length) => {
                let disk = &self.machines[node].disk;
                disk.set_capacity(disk.used_bytes() + left);
                self.ends_after(fault, length);
            }
            What::SlowDisk(by, length) => {
                let _before = self.hub.slow_disks.insert(node, by);
                self.ends_after(fault, length);
            }
            What::Rot => self.rot(node),
            What::Wipe(length) => {
                self.hold_down(fault, &[node], true, length);
                let machine = &mut self.machines[node];
                machine.disk = SimulatedDisk::new(self.hub.random.draw());
                machine.directory = directory(node, machine.starts);
                machine.joins = true;
            }
            What::Clock(by) => {
                let machine = &mut self.machines[node];
                machine.skew_ms = by;
                if let Some(running) = &mut machine.running {
                    running.skew_ms = by;
                }
            }
            What::Move | What::Elect | What::Recreate => self.administer(fault),
            What::DeleteRecords => {
                if let Some(running) = &mut self.machines[node].running {
                    running.delete_records(&mut self.hub);
                }
            }
        }
        self.notice_power(node);
    }

    pub(super) fn fault_ends(&mut self, fault: Fault) {
        let node = fault.node;
        let next = Place::Node((node + 1) % self.machines.len());
        match fault.what {
            What::Kill(_) | What::Wipe(_) => self.let_up(&[node]),
            What::KillAll(_) | What::PowerLossAll(_) => {
                let all: Vec<usize> = (0..self.machines.len()).collect();
                self.let_up(&all);
            }
            What::PowerLoss(..) => {
                // It may be on still, because nothing was written.
                self.down(node, true);
                self.machines[node].disk.crash();
                self.hub.after(MS, Event::Start(node));
            }
            What::Stop(_) => {
                if let Some(running) = &mut self.machines[node].running {
                    running.close(&mut self.hub);
                }
                self.down(node, false);
                self.hub.after(200 * MS, Event::Start(node));
            }
            What::Isolate(_) => self.cut_off(node, false, (true, true), true),
            What::Mute(_) => self.cut_off(node, false, (true, false), false),
            What::Deaf(_) => self.cut_off(node, false, (false, true), false),
            What::CutPair(_) => {
                self.hub.cut(Place::Node(node), next, false);
                self.hub.cut(next, Place::Node(node), false);
            }
            What::Slow(..) => self.hub.slow_down(node, 0),
            What::Lossy(..) => self.hub.lossy = 0,
            What::Full(..) => self.machines[node].disk.set_capacity(u64::MAX),
            What::SlowDisk(..) => {
                let _was = self.hub.slow_disks.remove(&node);
            }
            What::Pause(_) if self.machines[node].paused_until <= self.hub.now => {
                self.resume(node);
            }
            What::Crash
            | What::PowerLossInRemoval(_)
            | What::Pause(_)
            | What::FailSync
            | What::Rot
            | What::Clock(_)
            | What::Move
            | What::Elect
            | What::DeleteRecords
            | What::Recreate => {}
        }
    }

    pub(super) fn let_up(&mut self, nodes: &[usize]) {
        for node in nodes {
            let held = &mut self.machines[*node].held_down;
            *held = held.saturating_sub(1);
            self.hub.after(MS, Event::Start(*node));
        }
    }

    /// A byte of a log that is there changes, on the medium too.
    pub(super) fn rot(&mut self, node: usize) {
        let machine = &self.machines[node];
        let Some(running) = &machine.running else {
            return;
        };
        let mut found = Vec::new();
        for replica in running.replicas() {
            let Some(log) = replica.log() else { continue };
            let dir = &replica.files.files.dir;
            for name in machine.disk.list(dir).unwrap_or_default() {
                let path = dir.join(&name);
                let size = machine.disk.open(&path).and_then(|f| f.size()).unwrap_or(0);
                // Of what is synced already: what is not may be torn anyway.
                let base = name.strip_suffix(".log").and_then(|n| n.parse().ok());
                if let Some(base) = base
                    && size > 0
                    && Offset::new(base) < log.synced_end()
                {
                    found.push((path, size));
                }
            }
        }
        if found.is_empty() {
            return;
        }
        let (path, size) = self.hub.random.pick(&found).clone();
        let mut at = self.hub.random.below(size);
        if is_leader_epoch(&machine.disk, &path, at) {
            // No checksum covers it, here as in Kafka.
            at += 4;
        }
        machine.disk.rot(&path, at, 1 << self.hub.random.below(8));
        let _first: bool = self.hub.rotten.insert(node);
        let line = format!("node {}: byte {at} of {} rots", node + 1, path.display());
        self.hub.remember(&line);
    }

    /// A command of an operator, to some node.
    pub(super) fn administer(&mut self, fault: Fault) {
        let topic = self.topic.clone();
        let (nodes, replicas) = (self.machines.len() as u64, self.hub.plan.replicas);
        let Some(running) = &mut self.machines[fault.node].running else {
            return;
        };
        let Some(id) = running.image.topics.get(&topic).map(|t| t.id) else {
            return;
        };
        let reassign = |hub: &mut Hub| {
            let first = hub.random.below(nodes);
            let node = |n: u64| BrokerId(((first + n) % nodes) as i32 + 1);
            Command::Reassign {
                topic_id: id,
                partition: hub.random.below(hub.plan.partitions as u64) as i32,
                replicas: Some((0..replicas as u64).map(node).collect()),
            }
        };
        let command = if fault.what == What::Elect {
            Command::Elect {
                partitions: None,
                unclean: false,
            }
        } else if fault.what == What::Recreate {
            Command::DeleteTopic { id }
        } else {
            reassign(&mut self.hub)
        };
        running.command(&mut self.hub, command);
    }
}
