//! Three nodes on hosts and disks of their own.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::clocks::Clocks;
use super::disks::CrashDisk;
use super::faults::Row;
use super::{PARTITIONS, TOPIC};
use crate::cluster::{Cluster, wait_until};
use crate::hosts::Hosts;
use crate::sim::random::Random;

const PATIENCE: Duration = Duration::from_secs(90);
/// How many nodes there are.
pub const NODES: u8 = 3;

/// A running cluster, and the means to break it.
#[derive(Debug)]
pub struct Scene {
    hosts: Hosts,
    /// The nodes.
    pub cluster: Cluster,
    disks: Vec<CrashDisk>,
    /// The nodes' clocks, in a run that sets them.
    pub clocks: Clocks,
    rotten: Option<usize>,
}

impl Scene {
    /// Mounts the disks, starts the nodes and creates the topic.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the machine does not let a disk be mounted; what creating a directory failed with.
    ///
    /// # Panics
    ///
    /// Panics if a node does not start.
    pub fn start_all(hosts: Hosts, seed: u64, row: Row) -> io::Result<Self> {
        let clocks = Clocks::of(row, hosts.dir(), NODES)?;
        let mut disks = Vec::new();
        for node in 1..=NODES {
            let at = hosts.dir().join(format!("node-{node}"));
            fs::create_dir_all(&at)?;
            let seed = seed.wrapping_mul(31) + u64::from(node);
            let not_here = |e| {
                let said = format!("this machine mounts no disk of ours: {e}");
                io::Error::new(io::ErrorKind::Unsupported, said)
            };
            disks.push(CrashDisk::mount(&at, seed).map_err(not_here)?);
        }
        let settings = ["topics.offsets_partitions=4"];
        let cluster = Cluster::start_behind(&hosts, NODES, &settings, clocks.commands());
        let scene = Self {
            hosts,
            cluster,
            disks,
            clocks,
            rotten: None,
        };
        let count = PARTITIONS.to_string();
        let create = [
            "topic",
            "create",
            TOPIC,
            "--partitions",
            &count,
            "--config",
            "min.insync.replicas=2",
            // Clocks that are wrong neither delete records nor refuse them.
            "--config",
            "retention.ms=-1",
            "--config",
            "message.timestamp.after.max.ms=9223372036854775807",
        ];
        drop(scene.cluster.nodes[0].expect(&create, b""));
        scene.wait_in_sync();
        Ok(scene)
    }

    /// How many there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        usize::from(NODES)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<usize> {
        (0..self.nodes()).collect()
    }

    /// The data directories.
    #[must_use]
    pub fn dirs(&self) -> Vec<PathBuf> {
        (1..=NODES).map(|n| self.cluster.data(n)).collect()
    }

    /// The data directories of nodes whose disks have not rotted.
    #[must_use]
    pub fn sound_dirs(&self) -> Vec<PathBuf> {
        let dirs = self.dirs().into_iter().enumerate();
        dirs.filter(|(n, _)| self.rotten != Some(*n))
            .map(|(_, dir)| dir)
            .collect()
    }

    /// A node's disk.
    #[must_use]
    pub fn disk(&self, node: usize) -> &CrashDisk {
        &self.disks[node]
    }

    /// A node: seven times of ten one that leads.
    pub fn victim(&self, random: &mut Random) -> usize {
        let any = random.below(self.nodes() as u64) as usize;
        if !random.percent(70) {
            return any;
        }
        let partition = random.below(u64::from(PARTITIONS)) as usize;
        let leader = self.cluster.topic(0, TOPIC)["partitions"][partition]["leader"].as_u64();
        leader.map_or(any, |l| l as usize - 1)
    }

    /// The node whose disk rots: always the same.
    pub fn rotten(&mut self, random: &mut Random) -> usize {
        let any = random.below(self.nodes() as u64) as usize;
        *self.rotten.get_or_insert(any)
    }

    /// Who leads the quorum.
    ///
    /// # Panics
    ///
    /// Panics if nobody does for long.
    #[must_use]
    pub fn quorum_leader(&self) -> usize {
        let controller = || self.cluster.status(0)["controller"].clone();
        wait_until(PATIENCE, controller, |c| c.is_u64());
        controller().as_u64().map_or(0, |c| c as usize - 1)
    }

    /// Kills nodes within milliseconds.
    pub fn kill(&mut self, nodes: &[usize]) {
        nodes
            .iter()
            .for_each(|n| self.cluster.nodes[*n].signal("KILL"));
        nodes.iter().for_each(|n| self.cluster.nodes[*n].kill());
    }

    /// The power of nodes goes and comes back, while they do not run.
    pub fn power_loss(&mut self, nodes: &[usize]) {
        self.kill(nodes);
        nodes.iter().for_each(|n| self.disks[*n].crash());
    }

    /// A command of a node that must work in the end, as while others come and go it may be refused.
    ///
    /// # Panics
    ///
    /// Panics if it does not work in time.
    pub fn insist(&self, node: usize, command: &[&str]) {
        let run = || {
            let ran = self.cluster.nodes[node].run(command, b"");
            match ran.status.success() {
                true => serde_json::Value::Null,
                false => String::from_utf8_lossy(&ran.stderr).into(),
            }
        };
        wait_until(PATIENCE, run, serde_json::Value::is_null);
    }

    /// Starts nodes again, side by side, and waits until they are ready.
    ///
    /// # Panics
    ///
    /// Panics if one does not start.
    pub fn start(&mut self, nodes: &[usize]) {
        thread::scope(|scope| {
            for (n, node) in self.cluster.nodes.iter_mut().enumerate() {
                if nodes.contains(&n) {
                    let _started = scope.spawn(|| node.restart());
                }
            }
        });
    }

    /// Stops a node in order.
    ///
    /// # Panics
    ///
    /// Panics if it does not end as it should.
    pub fn stop(&mut self, node: usize) {
        let code = self.cluster.nodes[node].terminate();
        assert_eq!(code, Some(0), "node {} stops in order", node + 1);
    }

    /// Sends a signal.
    pub fn signal(&self, node: usize, name: &str) {
        self.cluster.nodes[node].signal(name);
    }

    /// Something happens to a node's network: an action of `hosts.sh`, and towards whom, if not all.
    pub fn network(&self, how: &str, node: usize, others: &[usize]) {
        let numbers: Vec<String> = [node]
            .iter()
            .chain(others)
            .map(|n| (n + 1).to_string())
            .collect();
        let mut action = vec![how];
        action.extend(numbers.iter().map(String::as_str));
        self.hosts.run(&action);
    }

    /// A node's network gets worse, so much: an action of `hosts.sh`.
    pub fn weaken(&self, how: &str, node: usize, much: &str) {
        self.hosts.run(&[how, &(node + 1).to_string(), much]);
    }

    /// The network is whole.
    pub fn heal(&self) {
        self.hosts.run(&["heal"]);
    }

    /// A node's disk is empty, and the node does not run.
    ///
    /// # Panics
    ///
    /// Panics if something cannot be removed.
    pub fn wipe(&mut self, node: usize) {
        self.cluster.wipe(node);
    }

    /// A node's disk is again what it was a few seconds ago, and the node does not run.
    ///
    /// # Panics
    ///
    /// Panics if that cannot be done.
    pub fn put_back_what_was(&mut self, node: usize, ago: Duration) {
        let copy = self.cluster.back_up(node);
        thread::sleep(ago);
        self.cluster.put_back(node, &copy);
    }

    /// Waits until all replicas are in sync.
    ///
    /// # Panics
    ///
    /// Panics if they are not in time.
    pub fn wait_in_sync(&self) {
        self.cluster.wait_in_sync(0, TOPIC, self.nodes(), PATIENCE);
    }

    /// What all nodes have written to their logs.
    #[must_use]
    pub fn said(&self) -> Vec<String> {
        self.cluster
            .nodes
            .iter()
            .map(crate::process::NodeProcess::said)
            .collect()
    }
}
