//! `planted`.

use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Planted {
    /// Only these, by name
    names: Vec<String>,
    /// How long each is looked for, in seconds
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
}

#[cfg(feature = "planted")]
mod looking {
    use std::time::Duration;

    use callboard_broker::planted::{Bug, plant};
    use callboard_cluster_tests::actors::runner as actors;
    use callboard_cluster_tests::sim::runner::{self, Order};

    use super::Planted;

    /// What found a bug, after how many seeds and seconds.
    pub(super) struct Found {
        pub(super) what: Option<String>,
        pub(super) seeds: u64,
        pub(super) took: Duration,
    }

    /// Looks for a bug with the layer that runs the code it is in.
    pub(super) fn look(bug: Bug, planted: &Planted) -> Found {
        match bug.is_of_actors() {
            true => with_actors(bug, planted),
            false => with_cores(bug, planted),
        }
    }

    fn with_cores(bug: Bug, planted: &Planted) -> Found {
        plant(Some(bug));
        let order = Order {
            from: planted.from,
            seeds: u64::MAX / 4,
            nodes: None,
            threads: crate::threads(None),
            failures_max: 1,
            shrink_for: Duration::from_secs(2),
            time_max: Some(Duration::from_secs(planted.seconds)),
        };
        let report = runner::run_many(order, |_, _| {});
        plant(None);
        let what = report.failures.first().map(|f| {
            let faults: Vec<&str> = f.faults.iter().map(|f| f.what.row()).collect();
            format!("{:.90} ({})", f.violation, faults.join(" "))
        });
        Found {
            what,
            seeds: report.seeds,
            took: report.took,
        }
    }

    fn with_actors(bug: Bug, planted: &Planted) -> Found {
        let built = actors::build(&["-p", "callboard-cluster-tests"]);
        let out = std::env::temp_dir().join(format!("callboard-planted-{}", std::process::id()));
        let order = actors::Order {
            program: actors::program().filter(|_| built).unwrap_or_default(),
            from: planted.from,
            seeds: u64::MAX / 4,
            threads: crate::threads(None),
            plant: Some(format!("{bug:?}")),
            failures_max: 1,
            time_max: Some(Duration::from_secs(planted.seconds)),
            twice: false,
            out: out.clone(),
        };
        let report = actors::run_many(&order, |_, _| {});
        drop(std::fs::remove_dir_all(out));
        if let Some(broken) = &report.broken {
            eprintln!("no seed was run: {broken}");
        }
        let what = report
            .failures
            .first()
            .map(|f| format!("{:.90}", f.findings.first().map_or("", String::as_str)));
        Found {
            what,
            seeds: report.seeds,
            took: report.took,
        }
    }
}

#[cfg(feature = "planted")]
#[expect(clippy::print_stdout, reason = "it is what is asked for")]
pub(crate) fn plant(planted: &Planted) -> ExitCode {
    use callboard_broker::planted::Bug;

    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = 0;
    println!("| bug | found by | seeds | seconds |\n|---|---|---|---|");
    for bug in Bug::ALL {
        let name = format!("{bug:?}");
        if !planted.names.is_empty() && !planted.names.contains(&name) {
            continue;
        }
        let found = looking::look(bug, planted);
        missed += usize::from(found.what.is_none());
        let (what, seeds) = (found.what.unwrap_or("NOT FOUND".into()), found.seeds);
        println!(
            "| {name} | {what} | {seeds} | {:.1} |",
            found.took.as_secs_f64()
        );
    }
    match missed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

#[cfg(not(feature = "planted"))]
#[expect(clippy::print_stderr, reason = "it is an error message")]
pub(crate) fn plant(_planted: &Planted) -> ExitCode {
    eprintln!(
        "bugs can only be planted in a build with them: cargo run -p callboard-cluster-tests --release --features planted --bin callboard-cluster-tests -- planted"
    );
    ExitCode::FAILURE
}
