//! The simulator's second layer: three whole nodes, with their actors, their supervision and QUIC, and real clients, in one
//! thread and in turmoil's virtual time.
//!
//! The first layer (`sim`) runs the cores with shells of its own, which is fast and sees inside. This one runs the shells that
//! nodes have: it finds wake-ups that are lost, answers that hang, mailboxes that wait for each other, what is answered before it is
//! synced. Disks are simulated, and so is the time that they take; the network delays, loses, doubles, damages and cuts. The
//! clients are those of the chaos suite; what they were told is judged by the same checkers, and so are the replicas in the end.

pub mod faults;
pub mod host;
pub mod network;
mod operator;
pub mod runner;
pub mod said;
mod scene;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use callboard_client::protocol::topics::NewTopic;
use callboard_client::{Client, ClientConfig, Trust};
use callboard_common::kafka::Text;
use callboard_common::transport::network::Network;
use futures::FutureExt as _;
use futures::future::{LocalBoxFuture, join_all};
use slog::Level;

use crate::chaos::{PARTITIONS, Shared, TOPIC, Workload, own};
use crate::check::{self, Anomaly, Findings, Verdict};
use crate::history::recorder::Recorder;
use crate::history::{About, History, Span};
use crate::sim::random::Random;
use faults::Fault;
use network::OfHost;
use said::Said;
use scene::Scene;

/// How long a disk takes at most for one thing, in microseconds, while nothing is wrong with it.
pub(crate) const DISK_TIME: u64 = 3_000;
/// When faults begin, and when the last one may.
const BREAKS: (Duration, Duration) = (Duration::from_secs(7), Duration::from_secs(32));
/// When producers stop.
const OVER: Duration = Duration::from_secs(50);
/// Until then all must be read and all nodes have stopped.
const LIMIT: Duration = Duration::from_secs(180);
/// A partition waits for an acknowledgement no longer than this while a majority is there: less than the clients' patience with
/// one answer, so that one that never comes is found.
const GAP_MAX_MS: u64 = 9_000;
/// The same where replicas are few.
const FEW_GAP_MAX_MS: u64 = 25_000;
/// Shorter than usual, and longer than any wait that is right.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const ACKNOWLEDGED_MIN: u64 = 20;
/// Until a majority that is there again has a leader.
const GRACE: Duration = Duration::from_secs(5);
/// Between two records of a producer.
const PACE: Duration = Duration::from_millis(25);
const GROUP: &str = "own";

/// Seeds from here on have a topic that acknowledges before it syncs. It loses nothing as long as one machine of three loses its
/// power, once (KIP-966).
const LATE_FROM: u64 = 1_000_000;

/// How many replicas there are.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// In the beginning.
    factor: i16,
    /// Whether the operator takes some away.
    shrinks: bool,
    /// Whether the topic acknowledges before it syncs.
    syncs_late: bool,
}

impl Load {
    fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed, "load");
        Self {
            factor: *random.pick(&[3, 3, 3, 2, 1]),
            shrinks: random.percent(50),
            syncs_late: seed >= LATE_FROM,
        }
    }

    /// Whether there are always three replicas, of which two are to be in sync.
    fn is_full(self) -> bool {
        self.factor == 3 && !self.shrinks
    }

    /// With fewer than three replicas one that is down is one too many.
    fn gap_max_ms(self) -> u64 {
        match self.is_full() {
            true => GAP_MAX_MS,
            false => FEW_GAP_MAX_MS,
        }
    }
}

/// What came of one seed.
#[derive(Debug)]
pub struct Outcome {
    /// What the checkers say.
    pub verdict: Verdict,
    /// What went wrong.
    pub faults: Vec<Fault>,
    /// What nodes said: all or the last of it.
    pub said: Vec<String>,
    /// A digest of all that nodes said.
    pub digest: u64,
    /// Batches that were compared between replicas.
    pub compared: usize,
    /// What happened on the way, by kind.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Runs one seed. The history and what is left on the disks go below `dir`.
///
/// # Panics
///
/// Panics if a file cannot be written there.
#[must_use]
pub fn run(seed: u64, shows_all: bool, dir: &Path) -> Outcome {
    let said = Said::new(shows_all);
    let least = if shows_all { Level::Debug } else { Level::Info };
    let path = dir.join("history.jsonl");
    let slot: Rc<OnceCell<Arc<Shared>>> = Rc::default();
    let load = Load::draw(seed);
    let about = About {
        workload: "W5 in virtual time".to_owned(),
        seed,
        idempotent: true,
        gap_max_ms: load.gap_max_ms(),
        acknowledged_min: ACKNOWLEDGED_MIN,
        ..About::default()
    };
    let certificates = host::Certificates::make(dir);
    let mut scene = Scene::new(seed, (said.clone(), least), &certificates);
    let client = ClientConfig {
        network: Network::simulated(Arc::new(OfHost(scene.clients_network(seed)))),
        request_timeout: REQUEST_TIMEOUT,
        connect_timeout: Duration::from_secs(3),
        ..ClientConfig::new(host::servers(), Trust::Ca(certificates.ca.clone()))
    };
    let (fill, at) = (slot.clone(), path.clone());
    scene.sim.client(scene::CLIENTS, async move {
        let recorder = Recorder::create(&at, &about)?;
        let shared = Arc::new(Shared::new(recorder, client, Workload::W5, PACE));
        let _first = fill.set(shared.clone());
        work(shared, seed, load).await;
        Ok(())
    });
    let mut plan = faults::draw(seed, BREAKS);
    if load.syncs_late {
        // Where two must have a record one may lose it, but not both.
        faults::limit_power_losses(&mut plan, usize::from(load.is_full()));
    }
    let mut findings = Findings::default();
    let played = play(&mut scene, &plan, &slot);
    if let Some(shared) = slot.get() {
        shared.recorder.finish();
    }
    for wrong in said.alarms() {
        findings.note(Anomaly::Panicked, || wrong);
    }
    for panic in scene.panics() {
        findings.note(Anomaly::Panicked, || panic);
    }
    let compared = match played {
        Ok(()) => scene.compare(dir, &mut findings),
        Err(error) => {
            findings.note(Anomaly::Stalled, || error);
            0
        }
    };
    let text = fs::read(&path).unwrap_or_default();
    let history = History::read(BufReader::new(&text[..])).unwrap_or_else(|error| {
        findings.note(Anomaly::Stalled, || format!("there is no history: {error}"));
        History::default()
    });
    if load.is_full() {
        find_late(&history, &plan, &mut findings);
    }
    let verdict = check::check_with(&history, findings);
    said.add(&text);
    let (said, digest) = said.end();
    Outcome {
        verdict,
        faults: plan,
        said,
        digest,
        compared,
        counts: scene.counts,
    }
}

/// Goes on until the clients are done and the nodes have stopped.
fn play(scene: &mut Scene<'_>, plan: &[Fault], slot: &OnceCell<Arc<Shared>>) -> Result<(), String> {
    let mut begun = 0;
    let mut current: Option<Fault> = None;
    loop {
        let now = scene.sim.elapsed();
        if let Some(fault) = current.filter(|f| now >= f.until) {
            scene.heal(fault.what);
            note(slot, &fault);
            current = None;
        }
        if let Some(fault) = plan.get(begun).filter(|f| now >= f.at && current.is_none()) {
            scene.break_it(fault.what);
            current = Some(*fault);
            begun += 1;
        }
        if let Some(shared) = slot.get().filter(|_| now >= OVER) {
            shared.end();
        }
        scene.keep_up();
        if scene.sim.step().map_err(|e| e.to_string())? {
            break;
        }
    }
    scene.stop_all()
}

fn note(slot: &OnceCell<Arc<Shared>>, fault: &Fault) {
    let Some(shared) = slot.get() else { return };
    let span = Span {
        invoke: fault.at.as_nanos() as u64,
        complete: fault.until.as_nanos() as u64,
    };
    let (row, what) = (fault.what.row(), format!("{:?}", fault.what));
    shared.note_fault(row, what, (span, !fault.what.leaves_quorum()));
}

/// Each producer's records are answered in time, not only some of somebody's.
fn find_late(history: &History, plan: &[Fault], findings: &mut Findings) {
    let ms = |d: Duration| d.as_nanos() as u64;
    let stops = |send: &crate::history::Send| {
        let mut nobody_was_there = plan.iter().filter(|f| !f.what.leaves_quorum());
        nobody_was_there
            .any(|f| send.span.invoke < ms(f.until + GRACE) && send.span.complete > ms(f.at))
    };
    for send in &history.sends {
        let took = send.span.complete.saturating_sub(send.span.invoke) / 1_000_000;
        if took > GAP_MAX_MS && !stops(send) {
            let (process, key) = (send.process, history.keys.text(send.key));
            findings.note(Anomaly::Stalled, || {
                format!("process {process} waited {took} ms for an answer, or for one before it, of {key}")
            });
        }
    }
}

/// What all clients do.
async fn work(shared: Arc<Shared>, seed: u64, load: Load) {
    create_topic(&shared, load).await;
    let mut clients: Vec<LocalBoxFuture<'_, ()>> = Vec::new();
    for process in 0..2 {
        clients.push(own::produce(shared.clone(), process).boxed_local());
    }
    clients.push(own::read(shared.clone(), 100).boxed_local());
    for member in 0..2 {
        clients.push(members(shared.clone(), seed, 200 + 100 * member).boxed_local());
    }
    clients.push(own::watch(shared.clone(), 800, vec![GROUP.to_owned()]).boxed_local());
    clients.push(own::administer(shared.clone(), 801).boxed_local());
    clients.push(operator::operate(shared.clone(), seed, load.shrinks).boxed_local());
    let _done: Vec<()> = join_all(clients).await;
    operator::make_whole(&shared).await;
    own::drain(shared, 900).await;
}

async fn create_topic(shared: &Shared, load: Load) {
    let min_isr = load.is_full().then_some("2");
    loop {
        let made = async {
            let client = Client::connect(shared.client.clone()).await?;
            // Before all nodes are there, there cannot be that many replicas.
            let flush = load.syncs_late.then_some("1000000");
            let setting = |name: &'static str, value: Option<&'static str>| {
                (Text::from_static(name), value.map(Text::from_static))
            };
            let topic = NewTopic {
                partitions: Some(PARTITIONS as i32),
                replication_factor: Some(load.factor),
                configs: vec![
                    setting("min.insync.replicas", min_isr),
                    setting("flush.messages", flush),
                ],
                ..NewTopic::named(TOPIC)
            };
            client.admin().create_topic_with(topic, false).await
        };
        if made.await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Members of a group, one after the other, each with a number of its own.
async fn members(shared: Arc<Shared>, seed: u64, first: u32) {
    let mut random = Random::new(seed + u64::from(first), "members");
    for process in first..first + 100 {
        if shared.is_over() {
            break;
        }
        let life = Duration::from_millis(random.between(4_000, 15_000));
        own::consume(shared.clone(), process, GROUP.to_owned(), life).await;
    }
}
