//! Clusters of node processes on one machine, each node on a loopback address of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use callboard_client::{ClientConfig, Trust};
use callboard_common::Clock;
use tempfile::TempDir;

use crate::hosts::Hosts;
use crate::process::{NodeProcess, binary};

/// Nodes that form a cluster. Node `i` of the list has the number `i + 1`.
#[derive(Debug)]
pub struct Cluster {
    dir: TempDir,
    network: u8,
    /// Hosts of their own, if the nodes have some.
    hosts: Option<Hosts>,
    /// Commands that run the nodes.
    behind: Vec<Vec<String>>,
    /// Settings that all nodes have.
    settings: Vec<String>,
    /// The nodes.
    pub nodes: Vec<NodeProcess>,
}

/// Looks again and again until what is seen is what is wanted.
///
/// # Panics
///
/// Panics with what is seen if that takes longer than `patience`.
pub fn wait_until(
    patience: Duration,
    look: impl Fn() -> serde_json::Value,
    wanted: impl Fn(&serde_json::Value) -> bool,
) {
    let clock = Clock::machine();
    let began = clock.now().monotonic;
    loop {
        let seen = look();
        if wanted(&seen) {
            return;
        }
        let waited = clock.now().monotonic.since(began);
        assert!(waited < patience, "it does not become so: {seen}");
        thread::sleep(Duration::from_millis(200));
    }
}

impl Cluster {
    /// Starts a cluster and waits until all its nodes are ready.
    ///
    /// # Panics
    ///
    /// Panics with what a node said if it does not start.
    #[must_use]
    pub fn start(nodes: u8) -> Self {
        Self::start_with(nodes, &[])
    }

    /// The same with more settings, each as `name=value`.
    ///
    /// # Panics
    ///
    /// As [`Cluster::start`].
    #[must_use]
    pub fn start_with(nodes: u8, settings: &[&str]) -> Self {
        Self::prepare().fill(nodes, settings)
    }

    /// Starts a cluster on hosts of its own.
    ///
    /// # Panics
    ///
    /// As [`Cluster::start`].
    #[must_use]
    pub fn start_on(hosts: &Hosts, nodes: u8, settings: &[&str]) -> Self {
        Self::start_behind(hosts, nodes, settings, Vec::new())
    }

    /// As [`Cluster::start_on`], each node behind a command that ends in running it; the first node's is the first.
    ///
    /// # Panics
    ///
    /// As [`Cluster::start`].
    #[must_use]
    pub fn start_behind(
        hosts: &Hosts,
        nodes: u8,
        settings: &[&str],
        behind: Vec<Vec<String>>,
    ) -> Self {
        let mut cluster = Self::prepare();
        cluster.hosts = Some(hosts.clone());
        cluster.behind = behind;
        cluster.fill(nodes, settings)
    }

    fn fill(self, nodes: u8, settings: &[&str]) -> Self {
        let mut cluster = self;
        cluster.settings = settings.iter().map(ToString::to_string).collect();
        let voters: Vec<u8> = (1..=nodes).collect();
        cluster.nodes = thread::scope(|scope| {
            let starting: Vec<_> = (1..=nodes)
                .map(|n| {
                    scope.spawn({
                        let (cluster, voters) = (&cluster, &voters);
                        move || cluster.launch(n, voters)
                    })
                })
                .collect();
            let joined = starting.into_iter().map(|s| s.join().expect("it starts"));
            joined.collect()
        });
        cluster
    }

    /// Makes the authority only.
    ///
    /// # Panics
    ///
    /// Panics if it cannot be made.
    #[must_use]
    pub fn prepare() -> Self {
        static NETWORKS: AtomicU8 = AtomicU8::new(1);
        let dir = tempfile::tempdir().expect("a directory");
        let cluster = Self {
            dir,
            network: NETWORKS.fetch_add(1, Ordering::Relaxed),
            hosts: None,
            behind: Vec::new(),
            settings: Vec::new(),
            nodes: Vec::new(),
        };
        cluster.certify(&["init"]);
        cluster
    }

    /// The directory of the cluster's certificate authority.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("authority")
    }

    fn certify(&self, arguments: &[&str]) {
        let place = if arguments[0] == "init" {
            "--out"
        } else {
            "--authority"
        };
        let made = Command::new(binary())
            .arg("cert")
            .args(arguments)
            .arg(place)
            .arg(self.authority())
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{arguments:?}: {said}");
    }

    /// The address of a node, which no other cluster of this machine has.
    #[must_use]
    pub fn address(&self, node: u8, port: u16) -> SocketAddr {
        if self.hosts.is_some() {
            return SocketAddr::from(([10, 77, 77, node], port));
        }
        let pid = std::process::id();
        let (high, low) = ((pid >> 8) as u8 % 200 + 20, pid as u8);
        SocketAddr::from(([127, high, low, self.network.wrapping_mul(10) + node], port))
    }

    /// The data directory of a node.
    #[must_use]
    pub fn data(&self, node: u8) -> PathBuf {
        let dir = self.hosts.as_ref().map_or(self.dir.path(), Hosts::dir);
        dir.join(format!("node-{node}"))
    }

    /// Starts a node with these voters in a rack of its own, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// As [`Cluster::start`].
    #[must_use]
    pub fn launch(&self, node: u8, voters: &[u8]) -> NodeProcess {
        let peer = self.address(node, 9392).to_string();
        let mut more = self.arguments(node, voters);
        more.extend(["--peer".to_owned(), peer]);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let doors = [9092, 9192, 9292].map(|port| self.address(node, port));
        let mut wrap = self.hosts.as_ref().map_or(Vec::new(), |h| h.wrap(node));
        let behind = self.behind.get(usize::from(node) - 1);
        wrap.extend(behind.into_iter().flatten().cloned());
        NodeProcess::start_within(wrap, &self.data(node), doors, &more)
    }

    /// Starts a node on an empty directory that the others will not take in, waits until it says `until`, and ends it; what it said.
    ///
    /// # Panics
    ///
    /// Panics if it does not say it within `patience`.
    #[must_use]
    pub fn turned_away(
        &self,
        (node, voters): (u8, &[u8]),
        setting: &str,
        until: &str,
        patience: Duration,
    ) -> String {
        let log = self.dir.path().join(format!("turned-away-{node}"));
        let file = std::fs::File::create(&log).expect("a file");
        let mut child = Command::new(binary())
            .args(["start", "--set", setting, "--data"])
            .arg(self.dir.path().join(format!("data-of-{node}-turned-away")))
            .args(["--kafka", "127.0.0.1:0", "--quic", "127.0.0.1:0"])
            .args(["--http", "127.0.0.1:0", "--peer", "127.0.0.1:0"])
            .args(self.arguments(node, voters))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the binary runs");
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let clock = Clock::machine();
        let began = clock.now().monotonic;
        while !said().contains(until) && clock.now().monotonic.since(began) < patience {
            thread::sleep(Duration::from_millis(100));
        }
        child.kill().expect("it can be killed");
        let _status = child.wait().expect("it has ended");
        let said = said();
        assert!(said.contains(until), "it did not say {until:?}: {said}");
        said
    }

    /// The settings that a node with these voters is started with.
    fn arguments(&self, node: u8, voters: &[u8]) -> Vec<String> {
        let id = node.to_string();
        let certificates = self.authority().join(format!("node-{node}"));
        if !certificates.exists() {
            let host = self.address(node, 0).ip().to_string();
            self.certify(&["node", &id, "--host", &host]);
        }
        let voter = |v: &u8| format!("{v}@{}", self.address(*v, 9392));
        let voters: Vec<String> = voters.iter().map(voter).collect();
        let settings = [
            format!("node.id={id}"),
            format!("cluster.certificates={}", certificates.display()),
            format!("cluster.voters={}", voters.join(",")),
            format!("cluster.rack=rack-{id}"),
        ];
        let mut more = Vec::new();
        let settings = settings.into_iter().chain(self.settings.iter().cloned());
        settings.for_each(|s| more.extend(["--set".to_owned(), s]));
        more
    }

    /// Settings for a client that knows the nodes that are there.
    ///
    /// # Panics
    ///
    /// Panics if the authority is not there.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let ca = std::fs::read_to_string(self.authority().join("ca.pem")).expect("it was made");
        let servers: Vec<String> = self.nodes.iter().map(|n| n.quic.to_string()).collect();
        ClientConfig::new(servers.join(","), Trust::Ca(ca))
    }

    /// A topic as a node tells it.
    ///
    /// # Panics
    ///
    /// Panics if it does not tell it.
    #[must_use]
    pub fn topic(&self, at: usize, topic: &str) -> serde_json::Value {
        let out = self.nodes[at].expect(&["topic", "describe", topic, "--json"], b"");
        serde_json::from_slice(&out).expect("JSON")
    }

    /// The number of the node that leads partition 0 of a topic, asked of node `at` of the list.
    ///
    /// # Panics
    ///
    /// As [`Cluster::topic`], or if nobody leads it.
    #[must_use]
    pub fn leader(&self, at: usize, topic: &str) -> usize {
        let leader = self.topic(at, topic)["partitions"][0]["leader"].as_u64();
        leader.expect("somebody leads it") as usize
    }

    /// How the cluster is, as node `at` of the list tells it.
    ///
    /// # Panics
    ///
    /// Panics if it does not tell it.
    #[must_use]
    pub fn status(&self, at: usize) -> serde_json::Value {
        let out = self.nodes[at].expect(&["cluster", "status", "--json"], b"");
        serde_json::from_slice(&out).expect("JSON")
    }

    /// Waits until so many replicas of each partition of a topic are in sync.
    ///
    /// # Panics
    ///
    /// Panics with the topic's state if that takes longer than `patience`.
    pub fn wait_in_sync(&self, at: usize, topic: &str, replicas: usize, patience: Duration) {
        let in_sync = |p: &serde_json::Value| p["isr"].as_array().map_or(0, Vec::len);
        let all = |told: &serde_json::Value| {
            let partitions = told["partitions"].as_array().expect("a list");
            partitions.iter().all(|p| in_sync(p) == replicas)
        };
        wait_until(patience, || self.topic(at, topic), all);
    }

    /// Kills a node and forgets all that it had.
    ///
    /// # Panics
    ///
    /// Panics if it cannot be done.
    pub fn wipe(&mut self, at: usize) {
        self.nodes[at].kill();
        empty(self.nodes[at].data());
    }

    /// Copies a node's data directory while it runs, as a careless backup does; where the copy is.
    ///
    /// # Panics
    ///
    /// Panics if nothing is copied.
    #[must_use]
    pub fn back_up(&self, at: usize) -> PathBuf {
        let data = self.nodes[at].data().to_owned();
        let copy = data.with_extension("copy");
        let _none = std::fs::remove_dir_all(&copy);
        copy_all(&data, &copy);
        // One that is replaced meanwhile is not to be older than the log that follows it.
        let image = "metadata.image";
        let _none = std::fs::copy(data.join(image), copy.join(image));
        assert!(copy.join("meta.properties").exists(), "it is copied");
        copy
    }

    /// Kills a node, and its data directory is again what it was.
    ///
    /// # Panics
    ///
    /// Panics if the directory cannot be emptied.
    pub fn put_back(&mut self, at: usize, copy: &Path) {
        self.wipe(at);
        copy_all(copy, self.nodes[at].data());
    }
}

/// Copies what is in a directory; a file that is renamed or removed meanwhile is left out.
fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    let mut copy = Command::new("cp");
    let _same = copy.arg("-a").arg(from.join(".")).arg(to);
    let _left_out = copy.stderr(Stdio::null()).status();
}

/// Removes all that is in a directory, which may be a mount point.
fn empty(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("it is there") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => std::fs::remove_dir_all(path).expect("removed"),
            false => std::fs::remove_file(path).expect("removed"),
        }
    }
}
