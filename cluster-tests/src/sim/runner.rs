//! Runs seeds side by side, shows how far it is, and makes a failure small.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use callboard_common::Clock;

use super::hub::Coverage;
use super::plan::{END, Fault, Plan, SECOND};
use super::world::{Outcome, RECORDS_MIN, Show, World};

/// Faults that a seed must have had to count.
const FAULTS_MIN: u64 = 3;

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What must hold and does not.
    pub violation: String,
    /// The faults that are enough for it.
    pub faults: Vec<Fault>,
    /// The last of what happened.
    pub recent: Vec<String>,
}

/// What many seeds came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Seeds that ran.
    pub seeds: u64,
    /// Seeds with enough records and faults.
    pub counted: u64,
    /// What happened in all of them.
    pub coverage: Coverage,
    /// Faults by RELIABILITY's rows.
    pub faults: BTreeMap<&'static str, u64>,
    /// Seeds that failed.
    pub failures: Vec<Failure>,
    /// How long it took.
    pub took: Duration,
}

/// Runs a plan; a panic of a core is a violation.
#[must_use]
pub fn run(plan: Plan, show: Show) -> Outcome {
    let run = AssertUnwindSafe(|| World::new(plan).run(show));
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Outcome {
            violation: Some(format!("I30: a core panics: {}", text.unwrap_or_default())),
            coverage: Coverage::default(),
            trace: 0,
            recent: Vec::new(),
        }
    })
}

/// Leaves out faults as long as the plan fails without them (delta debugging, Zeller 2002).
#[must_use]
pub fn shrink(plan: &Plan, budget: Duration) -> Plan {
    let clock = Clock::machine();
    let began = clock.now().monotonic;
    let elapsed = || clock.now().monotonic.since(began);
    // Another violation is another bug.
    let kind = |o: &Outcome| Some(o.violation.as_ref()?.split(':').next()?.to_owned());
    let wanted = kind(&run(plan.clone(), Show::Nothing));
    let mut small = plan.clone();
    let mut size = small.faults.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut smaller = false;
        while at < small.faults.len() && elapsed() < budget {
            let mut candidate = small.clone();
            let end = (at + size).min(candidate.faults.len());
            drop(candidate.faults.drain(at..end));
            if kind(&run(candidate.clone(), Show::Nothing)) == wanted {
                small = candidate;
                smaller = true;
            } else {
                at += size;
            }
        }
        if elapsed() >= budget || (size == 1 && !smaller) {
            return small;
        }
        size = (size / 2).max(1);
    }
}

fn explain(plan: &Plan, budget: Duration) -> Failure {
    let small = shrink(plan, budget);
    let outcome = run(small.clone(), Show::Last);
    Failure {
        seed: plan.seed,
        violation: outcome.violation.unwrap_or_default(),
        faults: small.faults,
        recent: outcome.recent,
    }
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// How many nodes; drawn if it is not given.
    pub nodes: Option<usize>,
    /// How many run side by side.
    pub threads: usize,
    /// Stop after so many failures.
    pub failures_max: usize,
    /// How long a failure is made smaller.
    pub shrink_for: Duration,
    /// Stop after so long.
    pub time_max: Option<Duration>,
}

/// Runs seeds; `progress` is told how many have run and how many have failed.
///
/// # Panics
///
/// Panics if a thread cannot be started.
pub fn run_many(order: Order, progress: impl Fn(u64, u64) + Sync) -> Report {
    let (next, clock) = (AtomicU64::new(0), Clock::machine());
    let began = clock.now().monotonic;
    let elapsed = || clock.now().monotonic.since(began);
    let report = Mutex::new(Report::default());
    let late = || order.time_max.is_some_and(|max| elapsed() > max);
    std::thread::scope(|scope| {
        for _ in 0..order.threads.max(1) {
            let _thread = scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= order.seeds || late() {
                        return;
                    }
                    let plan = Plan::draw(order.from + number, order.nodes);
                    let outcome = run(plan.clone(), Show::Nothing);
                    let failure = outcome
                        .violation
                        .is_some()
                        .then(|| explain(&plan, order.shrink_for));
                    let mut report = report.lock().expect("no thread panics with it");
                    report.take(&plan, &outcome, failure);
                    progress(report.seeds, report.failures.len() as u64);
                    if report.failures.len() >= order.failures_max {
                        return next.store(u64::MAX / 2, Relaxed);
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().expect("no thread panics with it");
    report.took = elapsed();
    report.failures.sort_by_key(|f| f.seed);
    report
}

impl Report {
    fn take(&mut self, plan: &Plan, outcome: &Outcome, failure: Option<Failure>) {
        self.seeds += 1;
        let c = outcome.coverage;
        self.counted += u64::from(c.acknowledged >= RECORDS_MIN && c.faults >= FAULTS_MIN);
        let sum = &mut self.coverage;
        for (sum, of) in [
            (&mut sum.acknowledged, c.acknowledged),
            (&mut sum.faults, c.faults),
            (&mut sum.elections, c.elections),
            (&mut sum.truncations, c.truncations),
            (&mut sum.isr_shrinks, c.isr_shrinks),
            (&mut sum.commits, c.commits),
            (&mut sum.recoveries, c.recoveries),
            (&mut sum.quorum_leaders, c.quorum_leaders),
            (&mut sum.images, c.images),
            (&mut sum.damages, c.damages),
            (&mut sum.events, c.events),
        ] {
            *sum += of;
        }
        for fault in &plan.faults {
            *self.faults.entry(fault.what.row()).or_default() += 1;
        }
        self.failures.extend(failure);
    }

    /// Simulated hours.
    #[must_use]
    pub fn hours(&self) -> f64 {
        self.seeds as f64 * (END / SECOND) as f64 / 3600.0
    }

    /// Whether everything that the seeds are to exercise was exercised.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        let c = &self.coverage;
        [
            c.elections,
            c.truncations,
            c.isr_shrinks,
            c.recoveries,
            c.commits,
        ]
        .iter()
        .all(|n| *n > 0)
    }
}
