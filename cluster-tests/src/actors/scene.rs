//! The hosts of a simulation, and what is done to them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use callboard_broker::storage::disk::{Disk as _, SimulatedDisk, read_whole};
use callboard_common::TopicPartition;
use slog::Level;
use turmoil::Sim;

use super::faults::What;
use super::host::{Certificates, Command, DATA, Host, NODES, address};
use super::network::{HostNetwork, Weather};
use super::said::Said;
use super::{DISK_TIME, LIMIT};
use crate::chaos::{PARTITIONS, topic};
use crate::check::{Anomaly, Findings, replicas};
use crate::sim::random::Random;

/// The host of the clients.
pub(super) const CLIENTS: &str = "clients";
/// A node that has ended is started again after this, as by systemd.
const RESTART: Duration = Duration::from_secs(1);
/// How long the nodes may take to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(40);
/// What a leader says that was told to panic.
const ON_PURPOSE: &str = "asked to panic";
/// A file of a data directory is no larger.
const FILE_MAX: u64 = 1 << 30;

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Panics are noted by the thread that they happen on.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload_as_str().unwrap_or_default();
            let place = panic.location().map(ToString::to_string);
            let text = format!("{text} at {}", place.unwrap_or_default());
            if !text.contains(ON_PURPOSE) {
                before(panic);
            }
            PANICS.with_borrow_mut(|all| all.push(text));
        }));
    });
}

fn name(node: u8) -> String {
    format!("n{node}")
}

/// Three nodes and the clients.
pub(super) struct Scene<'a> {
    /// turmoil's part of it.
    pub(super) sim: Sim<'a>,
    hosts: Vec<Host>,
    weather: Arc<Mutex<Weather>>,
    /// Nodes that are down until their fault is over.
    down: [bool; NODES as usize],
    /// When nodes that ended by themselves are started again.
    restart_at: [Option<Duration>; NODES as usize],
    said: Said,
    /// What happened, by kind.
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Scene<'_> {
    /// Hosts with empty disks; their nodes start with the first step.
    pub(super) fn new(
        seed: u64,
        (said, least): (Said, Level),
        certificates: &Certificates,
    ) -> Self {
        hear_panics();
        PANICS.with_borrow_mut(Vec::clear);
        let mut random = Random::new(seed, "network");
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(LIMIT)
            .min_message_latency(Duration::ZERO)
            .max_message_latency(Duration::from_millis(random.between(2, 30)))
            .udp_capacity(1 << 16)
            .enable_random_order()
            .build();
        let weather: Arc<Mutex<Weather>> = Arc::default();
        let mut hosts = Vec::new();
        for number in 1..=NODES {
            let host = Host::new(
                number,
                seed,
                weather.clone(),
                certificates,
                (said.clone(), least),
            );
            hosts.push(host.clone());
            assert_eq!(sim.lookup(name(number)), address(number));
            sim.host(name(number), move || {
                let life = host.clone().live();
                async {
                    life.await;
                    Ok(())
                }
            });
        }
        Self {
            sim,
            hosts,
            weather,
            down: [false; NODES as usize],
            restart_at: [None; NODES as usize],
            said,
            counts: BTreeMap::new(),
        }
    }

    /// The network as the clients have it.
    pub(super) fn clients_network(&self, seed: u64) -> Arc<HostNetwork> {
        let random = Random::new(seed, "network of clients");
        Arc::new(HostNetwork::new(
            self.sim.lookup(CLIENTS),
            random,
            self.weather.clone(),
        ))
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn host(&self, node: u8) -> &Host {
        &self.hosts[usize::from(node) - 1]
    }

    fn others(node: u8) -> Vec<String> {
        let nodes = (1..=NODES).filter(|n| *n != node).map(name);
        nodes.chain([CLIENTS.to_owned()]).collect()
    }

    /// Begins a fault.
    pub(super) fn break_it(&mut self, what: What) {
        self.count(what.row());
        self.said
            .note(self.sim.elapsed(), format!("FAULT {what:?}"));
        match what {
            What::Kill(node) => self.kill(node, false),
            What::KillAll => (1..=NODES).for_each(|n| self.kill(n, false)),
            What::PowerLoss(node) => self.kill(node, true),
            What::PowerLossAll => (1..=NODES).for_each(|n| self.kill(n, true)),
            What::Stop(node) => {
                self.down[usize::from(node) - 1] = true;
                self.host(node).order(Command::Stop);
            }
            What::Panic(node) => {
                for partition in 0..PARTITIONS as i32 {
                    let partition = TopicPartition::new(topic(), partition);
                    self.host(node).order(Command::Panic(partition));
                }
            }
            What::Isolate(node) => {
                for other in Self::others(node) {
                    self.sim.partition(name(node), other);
                }
            }
            What::Deaf(node) => {
                for other in Self::others(node) {
                    self.sim.partition_oneway(other, name(node));
                }
            }
            What::Mute(node) => {
                for other in Self::others(node) {
                    self.sim.partition_oneway(name(node), other);
                }
            }
            What::Hold(node) => {
                for other in Self::others(node) {
                    self.sim.hold(name(node), other);
                }
            }
            What::Weather(weather) => self.set_weather(weather),
            What::FailSyncs(node, count) => self.host(node).disk.fail_syncs(count),
            What::Full(node) => {
                let disk = &self.host(node).disk;
                disk.set_capacity(disk.used_bytes());
            }
            What::SlowDisk(node, ms) => {
                let _before = self.host(node).disk_time.replace(ms * 1_000);
            }
        }
    }

    /// Ends a fault.
    pub(super) fn heal(&mut self, what: What) {
        self.said
            .note(self.sim.elapsed(), format!("healed {what:?}"));
        match what {
            What::Kill(node) | What::PowerLoss(node) => self.start(node),
            // One that is still stopping is started when it has.
            What::Stop(node) => self.down[usize::from(node) - 1] = false,
            What::KillAll | What::PowerLossAll => (1..=NODES).for_each(|n| self.start(n)),
            What::Isolate(node) | What::Deaf(node) | What::Mute(node) => {
                for other in Self::others(node) {
                    self.sim.repair(name(node), other);
                }
            }
            What::Hold(node) => {
                for other in Self::others(node) {
                    self.sim.release(name(node), other);
                }
            }
            What::Weather(_) => self.set_weather(Weather::default()),
            What::Full(node) => self.host(node).disk.set_capacity(u64::MAX),
            What::SlowDisk(node, _) => {
                let _before = self.host(node).disk_time.replace(DISK_TIME);
            }
            What::FailSyncs(node, _) => self.host(node).disk.fail_syncs(0),
            What::Panic(_) => {}
        }
    }

    fn set_weather(&self, weather: Weather) {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// What falls with the node writes nothing more.
    fn kill(&mut self, node: u8, loses_power: bool) {
        self.down[usize::from(node) - 1] = true;
        let disk = self.host(node).disk.clone();
        if loses_power {
            disk.power_off_after(disk.operations());
        }
        self.sim.crash(name(node));
        if loses_power {
            disk.crash();
        }
    }

    fn start(&mut self, node: u8) {
        self.down[usize::from(node) - 1] = false;
        self.count("starts");
        self.sim.bounce(name(node));
    }

    /// Starts nodes again that have ended by themselves.
    pub(super) fn keep_up(&mut self) {
        let now = self.sim.elapsed();
        for node in 1..=NODES {
            let index = usize::from(node) - 1;
            if self.down[index] || self.sim.is_host_running(name(node)) {
                self.restart_at[index] = None;
                continue;
            }
            let at = *self.restart_at[index].get_or_insert(now + RESTART);
            if now >= at {
                self.count("started again");
                self.start(node);
            }
        }
    }

    /// Stops all nodes in order.
    ///
    /// # Errors
    ///
    /// Says which does not stop.
    pub(super) fn stop_all(&mut self) -> Result<(), String> {
        for node in 1..=NODES {
            if !self.sim.is_host_running(name(node)) {
                return Err(format!("node {node} does not run in the end"));
            }
            self.host(node).order(Command::Stop);
            let until = self.sim.elapsed() + STOP_LIMIT;
            while self.sim.is_host_running(name(node)) {
                if self.sim.elapsed() >= until {
                    return Err(format!("node {node} does not stop"));
                }
                let _finished = self.sim.step().map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    /// Panics that nobody asked for; those that were asked for are counted.
    pub(super) fn panics(&mut self) -> Vec<String> {
        let asked: u64 = self.hosts.iter().map(Host::panics).sum();
        let _none = self.counts.insert("leaders panicked", asked);
        let all = PANICS.with_borrow_mut(std::mem::take);
        all.into_iter()
            .filter(|text| !text.contains(ON_PURPOSE))
            .collect()
    }

    /// Compares what the disks hold below the high watermark; how many batches there were.
    ///
    /// # Panics
    ///
    /// Panics if a temporary file cannot be written.
    pub(super) fn compare(&self, dir: &Path, findings: &mut Findings) -> usize {
        let copy = |host: &Host| {
            let to = dir.join(host.number.to_string());
            copy_out(&host.disk, Path::new(DATA), &to);
            to
        };
        let dirs: Vec<PathBuf> = self.hosts.iter().map(copy).collect();
        match replicas::compare(&dirs, findings) {
            Ok(compared) if compared.batches > 0 => return compared.batches,
            Ok(_) => findings.note(Anomaly::ReplicaBytes, || {
                "nothing can be compared".to_owned()
            }),
            Err(error) => findings.note(Anomaly::ReplicaBytes, || error.to_string()),
        }
        0
    }
}

/// Copies a directory of a simulated disk to a real one.
fn copy_out(disk: &SimulatedDisk, from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for name in disk.list(from).unwrap_or_default() {
        let (from, to) = (from.join(&name), to.join(&name));
        match read_whole(disk, &from, FILE_MAX) {
            Ok(bytes) => std::fs::write(&to, bytes).expect("a file"),
            Err(_) => copy_out(disk, &from, &to),
        }
    }
}
