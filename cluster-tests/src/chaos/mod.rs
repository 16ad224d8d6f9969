//! Real nodes under real faults: processes on hosts and disks of their own, clients outside, a history and a verdict.
//!
//! A run warms up, does faults that the seed chooses until its time is over, heals, waits until all replicas are in sync,
//! reads everything, stops the nodes in order, compares their data directories and checks the history.

pub mod clocks;
pub mod disks;
pub mod faults;
pub mod limits;
mod notes;
pub(crate) mod own;
mod rdk;
pub mod scene;
pub mod value;

use std::fs;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use callboard_client::{ClientConfig, TopicName};
use clap::ValueEnum;

use crate::check::{self, Anomaly, Findings, Judgement, Verdict, page, replicas};
use crate::history::line::{Kind, Line};
use crate::history::recorder::Recorder;
use crate::history::{About, History, Span};
use crate::hosts::Hosts;
use crate::load::block_on;
use crate::sim::random::Random;
use faults::Row;
use scene::Scene;

/// The topic that is written to.
pub(crate) const TOPIC: &str = "orders";
/// Its partitions.
pub(crate) const PARTITIONS: u32 = 4;
/// How long clients work before anything goes wrong.
const WARM_UP: Duration = Duration::from_secs(3);
/// Between two records of a producer.
const PACE: Duration = Duration::from_millis(3);
/// How long they go on after everything has healed.
const COOL_DOWN: Duration = Duration::from_secs(3);
/// A partition waits for an acknowledgement no longer than this while a quorum is there.
const GAP_MAX_MS: u64 = 20_000;
/// Fewer acknowledgements during faults say nothing.
const ACKNOWLEDGED_MIN: u64 = 200;
const GROUPS: [&str; 2] = ["own", "librdkafka"];
const DRAINER: u32 = 900;

/// A row of the table of workloads in `docs/TESTING.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Workload {
    /// Plain sends with acks=all, one batch in flight, and readers of all partitions
    W1,
    /// Idempotent producers with five batches in flight
    W2,
    /// The same with groups whose members come and go
    W5,
    /// The same with topics that are created and deleted
    W7,
}

impl Workload {
    fn is_idempotent(self) -> bool {
        self != Self::W1
    }

    fn in_flight(self) -> usize {
        match self {
            Self::W1 => 1,
            Self::W2 | Self::W5 | Self::W7 => 5,
        }
    }
}

/// What all clients of a run share.
pub(crate) struct Shared {
    pub(crate) recorder: Recorder,
    pub(crate) client: ClientConfig,
    /// Kafka's bootstrap list.
    kafka: String,
    workload: Workload,
    /// Between two records of a producer of our own.
    pace: Duration,
    is_over: AtomicBool,
}

impl Shared {
    /// For clients of our own only.
    pub(crate) fn new(
        recorder: Recorder,
        client: ClientConfig,
        workload: Workload,
        pace: Duration,
    ) -> Self {
        Self {
            recorder,
            client,
            kafka: String::new(),
            workload,
            pace,
            is_over: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Notes a fault of a row and when it was there.
    pub(crate) fn note_fault(&self, row: &str, what: String, (span, stops): (Span, bool)) {
        self.recorder.record(&Line {
            f: Kind::Fault,
            invoke: span.invoke,
            complete: span.complete,
            row: Some(row),
            what: Some(what),
            stops,
            ..Line::default()
        });
    }

    /// Clients finish what they have begun and end.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn key(partition: i32) -> String {
    format!("{TOPIC}-{partition}")
}

pub(crate) fn topic() -> TopicName {
    TopicName::new(TOPIC).expect("a valid name")
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// What clients do.
    pub workload: Workload,
    /// What goes wrong.
    pub fault: Row,
    /// What decides the rest.
    pub seed: u64,
    /// How long faults go on.
    pub window: Duration,
}

impl Order {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{:?}-{:?}-{}", self.workload, self.fault, self.seed)
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// How many faults there were.
    pub faults: usize,
    /// Batches that were compared between replicas.
    pub compared: usize,
    /// The page.
    pub page: PathBuf,
}

/// Runs on hosts of its own; this process is on the clients' host. What it writes goes below `out`.
///
/// # Errors
///
/// What the machine does not allow, or what writing failed with.
///
/// # Panics
///
/// Panics if a node does not start or stop as it should.
pub fn run(order: Order, hosts: Hosts, out: &Path) -> io::Result<Report> {
    let out = out.join(order.name());
    fs::create_dir_all(&out)?;
    let about = About {
        workload: format!("{:?} under {:?}", order.workload, order.fault),
        seed: order.seed,
        commit: option_env!("CALLBOARD_COMMIT")
            .unwrap_or_default()
            .to_owned(),
        idempotent: order.workload.is_idempotent(),
        gap_max_ms: GAP_MAX_MS,
        acknowledged_min: ACKNOWLEDGED_MIN,
        ..About::default()
    };
    let path = out.join("history.jsonl");
    let mut scene = Scene::start_all(hosts, order.seed, order.fault)?;
    let addresses: Vec<String> = scene
        .cluster
        .nodes
        .iter()
        .map(|n| n.kafka.to_string())
        .collect();
    let recorder = Recorder::create(&path, &about)?;
    let shared = Arc::new(Shared {
        kafka: addresses.join(","),
        ..Shared::new(recorder, scene.cluster.client(), order.workload, PACE)
    });
    let clients = start_clients(&shared, order.seed);
    thread::sleep(WARM_UP);
    break_it(order, &mut scene, &shared);
    scene.wait_in_sync();
    thread::sleep(COOL_DOWN);
    shared.end();
    for client in clients {
        client
            .join()
            .map_err(|_| io::Error::other("a client panicked"))?;
    }
    block_on(own::drain(shared.clone(), DRAINER));
    shared.recorder.finish();
    let mut findings = Findings::default();
    let compared = end(order.fault, &mut scene, &out, &mut findings)?;
    let history = History::read(BufReader::new(fs::File::open(&path)?))?;
    let verdict = check::check_with(&history, findings);
    if verdict.judgement == Judgement::Failed {
        for (node, dir) in scene.dirs().iter().enumerate() {
            keep(dir, &out.join(format!("data-{}", node + 1)))?;
        }
    }
    let page = out.join("verdict.html");
    fs::write(&page, page::page(&history, &verdict))?;
    Ok(Report {
        verdict,
        faults: history.faults.len(),
        compared,
        page,
    })
}

/// Copies a data directory, to be looked into.
fn keep(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => keep(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

/// Does faults until their time is over, each noted.
fn break_it(order: Order, scene: &mut Scene, shared: &Shared) {
    let mut random = Random::new(order.seed, "chaos");
    let until = shared.recorder.now() + order.window.as_nanos() as u64;
    let row = format!("{:?}", order.fault);
    loop {
        let invoke = shared.recorder.now();
        let what = faults::round(order.fault, scene, &mut random);
        let complete = shared.recorder.now();
        let span = Span { invoke, complete };
        shared.note_fault(&row, what, (span, !order.fault.leaves_quorum()));
        if shared.recorder.now() >= until {
            break;
        }
        thread::sleep(Duration::from_millis(random.between(1_500, 3_500)));
        // A fault that leaves a quorum does so only when the last one is over.
        scene.wait_in_sync();
    }
}

/// Stops the nodes in order, looks at what they said and compares what they have.
fn end(row: Row, scene: &mut Scene, out: &Path, findings: &mut Findings) -> io::Result<usize> {
    for node in scene.all() {
        scene.stop(node);
    }
    for (node, said) in scene.said().into_iter().enumerate() {
        let name = format!("node-{}.log", node + 1);
        if let Some(line) = said.lines().find(|l| l.contains("panicked at")) {
            findings.note(Anomaly::Panicked, || format!("{name}: {line}"));
        }
        // A disk that keeps what it said was durable is never outdated.
        let gave_up = said.lines().find(|l| l.contains("goes on as a new member"));
        if let Some(line) = gave_up.filter(|_| row != Row::D10) {
            findings.note(Anomaly::Panicked, || format!("{name}: {line}"));
        }
        fs::write(out.join(name), said)?;
    }
    let compared = replicas::compare(&scene.sound_dirs(), findings)?;
    match compared.partitions {
        0 => Err(io::Error::other("no partition could be compared")),
        _ => Ok(compared.batches),
    }
}

fn start_clients(shared: &Arc<Shared>, seed: u64) -> Vec<thread::JoinHandle<()>> {
    let mut clients = Vec::new();
    let groups = || GROUPS.iter().map(|g| (*g).to_owned()).collect();
    for process in 0..2 {
        clients.push(start(shared, move |s| block_on(own::produce(s, process))));
        clients.push(start(shared, move |s| {
            block_on(rdk::produce(s, 10 + process))
        }));
    }
    clients.push(start(shared, |s| block_on(own::read(s, 100))));
    if shared.workload == Workload::W5 {
        for member in 0..2 {
            clients.push(start(shared, move |s| {
                come_and_go(&s, seed, 200 + 100 * member, true)
            }));
            clients.push(start(shared, move |s| {
                come_and_go(&s, seed, 500 + 100 * member, false)
            }));
        }
        clients.push(start(shared, move |s| {
            block_on(own::watch(s, 800, groups()))
        }));
    }
    if shared.workload == Workload::W7 {
        clients.push(start(shared, |s| block_on(own::administer(s, 801))));
    }
    clients
}

fn start(
    shared: &Arc<Shared>,
    client: impl FnOnce(Arc<Shared>) + Send + 'static,
) -> thread::JoinHandle<()> {
    let shared = shared.clone();
    thread::spawn(move || client(shared))
}

/// Members of a group, one after the other, each with a number of its own.
fn come_and_go(shared: &Arc<Shared>, seed: u64, first: u32, own: bool) {
    let mut random = Random::new(seed + u64::from(first), "members");
    for process in first..first + 100 {
        if shared.is_over() {
            break;
        }
        let life = Duration::from_millis(random.between(3_000, 9_000));
        match own {
            true => block_on(own::consume(
                shared.clone(),
                process,
                GROUPS[0].to_owned(),
                life,
            )),
            false => rdk::consume(shared, process, GROUPS[1], life),
        }
    }
}
