//! Runs many seeds, each in a process of its own, side by side.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use callboard_common::Clock;
use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::check::Judgement;

/// The program that runs one seed: an example, because `cargo run` is to know which program is meant.
pub const PROGRAM: &str = "callboard-actors";
/// The exit code of that program which says that nothing was run.
pub const NOT_RUN: i32 = 2;
/// Written below a seed's directory.
const SAID: &str = "said.log";
const SUMMARY: &str = "summary.json";
/// A seed that takes so long hangs: nothing in virtual time waits for real time.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What one seed came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// Whether it passed, failed, or too little happened to say.
    pub judgement: Judgement,
    /// What is wrong.
    pub findings: Vec<String>,
    /// What went wrong, in its time.
    pub faults: Vec<String>,
    /// Records that were acknowledged.
    pub acknowledged: usize,
    /// The longest wait for an acknowledgement while a majority was there, in ms.
    pub longest_gap_ms: u64,
    /// Batches that were compared between replicas.
    pub compared: usize,
    /// A digest of all that nodes said: two runs of a seed have the same.
    pub digest: u64,
    /// What happened, by kind.
    pub counts: BTreeMap<String, u64>,
}

impl Summary {
    fn of(seed: u64, outcome: &Outcome) -> Self {
        let verdict = &outcome.verdict;
        let finding = |(anomaly, found): (_, &crate::check::Found)| {
            format!("{anomaly}: {}", found.examples.join("; "))
        };
        Self {
            seed,
            judgement: verdict.judgement,
            findings: verdict.findings.iter().map(finding).collect(),
            faults: outcome.faults.iter().map(ToString::to_string).collect(),
            acknowledged: verdict.acknowledged,
            longest_gap_ms: verdict.longest_gap_ms,
            compared: outcome.compared,
            digest: outcome.digest,
            counts: outcome
                .counts
                .iter()
                .map(|(k, n)| ((*k).to_owned(), *n))
                .collect(),
        }
    }

    fn broken(seed: u64, why: String) -> Self {
        Self {
            seed,
            judgement: Judgement::Failed,
            findings: vec![why],
            faults: Vec::new(),
            acknowledged: 0,
            longest_gap_ms: 0,
            compared: 0,
            digest: 0,
            counts: BTreeMap::new(),
        }
    }

    /// Whether something is wrong.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.judgement == Judgement::Failed
    }
}

/// Runs one seed in this process, which is to be one for it alone; what happened goes below `dir`.
///
/// # Errors
///
/// What writing there failed with.
pub fn run_here(seed: u64, shows_all: bool, dir: &Path) -> io::Result<Summary> {
    fs::create_dir_all(dir)?;
    let outcome = super::run(seed, shows_all, dir);
    let summary = Summary::of(seed, &outcome);
    fs::write(dir.join(SAID), outcome.said.join("\n"))?;
    fs::write(dir.join(SUMMARY), serde_json::to_vec(&summary)?)?;
    Ok(summary)
}

/// Where the program for one seed is, if it was built.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    // Tests lie one directory deeper.
    let dirs = own.ancestors().skip(1).take(2);
    let mut places = dirs.map(|dir| dir.join("examples").join(PROGRAM));
    places.find(|place| place.exists())
}

/// Builds it, if cargo started this program: it builds only what it was asked for. False if that failed.
#[must_use]
pub fn build(packages: &[&str]) -> bool {
    let Some(cargo) = std::env::var_os("CARGO") else {
        return true;
    };
    let mut command = Command::new(cargo);
    let _same = command.args(["build", "--quiet"]).args(packages);
    let _same = command.args(["--example", PROGRAM]);
    if !cfg!(debug_assertions) {
        let _same = command.arg("--release");
    }
    if cfg!(feature = "planted") {
        let _same = command.args(["--features", "planted"]);
    }
    command.status().is_ok_and(|status| status.success())
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Order {
    /// The program that runs one seed.
    pub program: PathBuf,
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// How many run side by side.
    pub threads: usize,
    /// The bug that is planted, by its name.
    pub plant: Option<String>,
    /// Stop after so many failures.
    pub failures_max: usize,
    /// Begin no more after this.
    pub time_max: Option<Duration>,
    /// Run each twice, which must say the same.
    pub twice: bool,
    /// Where what failed is kept.
    pub out: PathBuf,
}

/// What many seeds came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Those that failed, by seed.
    pub failures: Vec<Summary>,
    /// How many ran.
    pub seeds: u64,
    /// In how many enough happened.
    pub counted: u64,
    /// Those in which too little happened.
    pub void: Vec<u64>,
    /// Why no seed could be run.
    pub broken: Option<String>,
    /// Records that were acknowledged.
    pub acknowledged: usize,
    /// Batches that were compared between replicas.
    pub compared: usize,
    /// The longest wait for an acknowledgement while a majority was there, in ms, and the seed.
    pub longest_gap: (u64, u64),
    /// What happened, by kind.
    pub counts: BTreeMap<String, u64>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    fn add(&mut self, summary: Summary) {
        self.seeds += 1;
        self.acknowledged += summary.acknowledged;
        self.compared += summary.compared;
        self.longest_gap = self.longest_gap.max((summary.longest_gap_ms, summary.seed));
        for (kind, n) in &summary.counts {
            *self.counts.entry(kind.clone()).or_default() += n;
        }
        match summary.judgement {
            Judgement::Passed => self.counted += 1,
            Judgement::Void => self.void.push(summary.seed),
            Judgement::Failed => self.failures.push(summary),
        }
    }
}

/// Runs seeds; `tell` hears how many are done and how many failed.
///
/// # Panics
///
/// Panics if `tell` does.
pub fn run_many(order: &Order, tell: impl Fn(u64, usize) + Sync) -> Report {
    let clock = Clock::machine();
    let began = clock.now().monotonic;
    let next = AtomicU64::new(order.from);
    let report = Mutex::new(Report::default());
    thread::scope(|scope| {
        for _ in 0..order.threads {
            let _running = scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    let failed = report.lock().expect("no thread panics").failures.len();
                    let is_late = |max| clock.now().monotonic.since(began) >= max;
                    let is_over = seed >= order.from.saturating_add(order.seeds)
                        || order.time_max.is_some_and(is_late);
                    if is_over || failed >= order.failures_max {
                        break;
                    }
                    let summary = one(order, seed);
                    let mut report = report.lock().expect("no thread panics");
                    match summary {
                        Ok(summary) => report.add(summary),
                        Err(error) => {
                            report.broken = Some(error.to_string());
                            break;
                        }
                    }
                    tell(report.seeds, report.failures.len());
                }
            });
        }
    });
    let mut report = report.into_inner().expect("no thread panics");
    report.failures.sort_by_key(|s| s.seed);
    report.took = clock.now().monotonic.since(began);
    report
}

/// One seed, or twice the same. An error says that it could not be run at all.
fn one(order: &Order, seed: u64) -> io::Result<Summary> {
    let mut summary = start_and_wait(order, seed)?;
    if order.twice && !summary.has_failed() {
        let again = start_and_wait(order, seed)?;
        if again.digest != summary.digest {
            let why = format!("it went another way the second time: {:016x}", again.digest);
            summary = Summary::broken(seed, why);
        }
    }
    if summary.judgement == Judgement::Passed {
        // What passed is not looked at.
        drop(fs::remove_dir_all(order.out.join(seed.to_string())));
    }
    Ok(summary)
}

fn start_and_wait(order: &Order, seed: u64) -> io::Result<Summary> {
    let dir = order.out.join(seed.to_string());
    // What an earlier failure left would be compared too.
    drop(fs::remove_dir_all(&dir));
    let mut command = Command::new(&order.program);
    let _same = command.arg(seed.to_string()).arg("--out").arg(&dir);
    if let Some(bug) = &order.plant {
        let _same = command.arg("--plant").arg(bug);
    }
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let Some(status) = wait(&mut child)? else {
        let why = format!("it was ended after {} s", PATIENCE.as_secs());
        return Ok(Summary::broken(seed, why));
    };
    match fs::read(dir.join(SUMMARY)) {
        Ok(summary) => Ok(serde_json::from_slice(&summary)?),
        Err(_) if status.code() == Some(NOT_RUN) => {
            Err(io::Error::other("a seed cannot be run; see above"))
        }
        Err(_) => Ok(Summary::broken(
            seed,
            format!("it ended without a word: {status}"),
        )),
    }
}

/// How it ended; `None` if it had to be ended.
fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let clock = Clock::machine();
    let began = clock.now().monotonic;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if clock.now().monotonic.since(began) > PATIENCE {
            child.kill()?;
            let _gone = child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}
