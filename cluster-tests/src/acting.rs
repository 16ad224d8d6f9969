//! `actors`.

use std::path::PathBuf;
use std::process::ExitCode;

use callboard_cluster_tests::actors::runner::{self, Order, PROGRAM, Report};

#[derive(clap::Args)]
pub(crate) struct Actors {
    /// How many seeds
    #[arg(long, default_value_t = 60)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many run side by side [default: the number of processors]
    #[arg(long)]
    threads: Option<usize>,
    /// Run each seed twice: both must go the same way
    #[arg(long)]
    twice: bool,
    /// Plant this bug in the nodes (needs the feature `planted`)
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
    /// Stop after so many failures
    #[arg(long, default_value_t = 10)]
    failures: usize,
    /// Where what failed is kept: the history, the disks, what the nodes said
    #[arg(long, value_name = "DIR", default_value = "target/actors")]
    out: PathBuf,
}

#[expect(clippy::print_stdout, reason = "it is what is asked for")]
fn show(report: &Report, order: &Order) {
    for failure in &report.failures {
        println!("seed {} FAILED", failure.seed);
        failure.findings.iter().for_each(|f| println!("  {f}"));
        failure.faults.iter().for_each(|f| println!("  {f}"));
        let (program, out) = (order.program.display(), order.out.display());
        println!(
            "  kept in {out}/{0}; all of it: {program} {0} --trace --out DIR",
            failure.seed
        );
    }
    let seconds = report.took.as_secs_f64().max(0.001);
    println!(
        "{} seeds, {} of them count, in {seconds:.0} s ({:.2} seeds/s), {} failed",
        report.seeds,
        report.counted,
        report.seeds as f64 / seconds,
        report.failures.len()
    );
    if !report.void.is_empty() {
        println!("too little happened in seeds {:?}: kept too", report.void);
    }
    println!(
        "{} records acknowledged, the longest wait {} ms (seed {}), {} batches compared between replicas",
        report.acknowledged, report.longest_gap.0, report.longest_gap.1, report.compared
    );
    let counts: Vec<String> = report
        .counts
        .iter()
        .map(|(k, n)| format!("{k} {n}"))
        .collect();
    println!("faults: {}", counts.join(", "));
}

#[expect(clippy::print_stderr, reason = "it is an error message")]
pub(crate) fn actors(actors: &Actors) -> ExitCode {
    let built = runner::build(&["-p", "callboard-cluster-tests"]);
    let Some(program) = runner::program().filter(|_| built) else {
        eprintln!(
            "the program for one seed is not there: cargo build -p callboard-cluster-tests --release --example {PROGRAM}"
        );
        return ExitCode::from(2);
    };
    let order = Order {
        program,
        from: actors.from,
        seeds: actors.seeds,
        threads: crate::threads(actors.threads),
        plant: actors.plant.clone(),
        failures_max: actors.failures,
        time_max: None,
        twice: actors.twice,
        out: actors.out.clone(),
    };
    let progress = crate::bar(actors.seeds);
    let report = runner::run_many(&order, |seeds, failed| {
        progress.set_position(seeds);
        progress.set_message(format!("{failed} failed"));
    });
    progress.finish_and_clear();
    show(&report, &order);
    if let Some(broken) = &report.broken {
        eprintln!("{broken}");
        return ExitCode::from(2);
    }
    match report.failures.is_empty() && report.counted * 10 >= report.seeds * 9 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
