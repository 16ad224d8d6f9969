//! The simulator's own rules: a seed decides everything, and what it watches is exercised.

use callboard_cluster_tests::actors::runner as actors;
use callboard_cluster_tests::sim::plan::Plan;
use callboard_cluster_tests::sim::runner::{self, Order};
use callboard_cluster_tests::sim::world::Show;

/// The same seed twice gives the same trace, another one another.
#[test]
fn a_seed_decides_everything() {
    let run = |seed| runner::run(Plan::draw(seed, None), Show::Nothing);
    let mut traces = std::collections::BTreeSet::new();
    for seed in 1..=4 {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.coverage, second.coverage, "seed {seed}");
        assert!(traces.insert(first.trace), "seed {seed} is another one's");
    }
}

/// Seeds that found something once, with what it was; see docs/TESTING.md.
#[test]
fn what_was_found_once_stays_mended() {
    for line in include_str!("../seeds.txt").lines() {
        let Some(seed) = line.split_whitespace().next().filter(|s| *s != "#") else {
            continue;
        };
        let seed = seed.parse().expect("a seed");
        let groups = line.contains("(with groups)");
        let plan = Plan {
            groups,
            ..Plan::draw(seed, None)
        };
        let outcome = runner::run(plan, Show::Last);
        assert_eq!(outcome.violation, None, "{line}: {:#?}", outcome.recent);
    }
}

/// A few seeds exercise elections, truncations, changes of the in-sync replicas and recoveries.
#[test]
fn a_few_seeds_cover_what_matters() {
    let order = Order {
        from: 1,
        seeds: 12,
        nodes: Some(3),
        threads: 2,
        failures_max: 1,
        shrink_for: std::time::Duration::ZERO,
        time_max: None,
    };
    let report = runner::run_many(order, |_, _| {});
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(report.is_covered(), "{:?}", report.coverage);
    assert!(report.counted * 10 >= report.seeds * 8, "{report:?}");
}

/// The second layer: whole nodes keep what they promise, and a seed goes the same way twice.
#[test]
fn whole_nodes_in_virtual_time() {
    let out = tempfile::tempdir().expect("a directory");
    assert!(actors::build(&["--workspace"]));
    let order = actors::Order {
        program: actors::program().expect("just built"),
        from: 1,
        seeds: 1,
        threads: 1,
        plant: None,
        failures_max: 1,
        time_max: None,
        twice: true,
        out: out.path().into(),
    };
    let report = actors::run_many(&order, |_, _| {});
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert_eq!(report.counted, 1, "enough happens in it");
}
