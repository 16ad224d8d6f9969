//! The proof, to be run by hand: simulated clusters by seed, and checkers of histories and of replicas.

mod acting;
mod breaking;
mod checking;
mod planting;

use std::process::ExitCode;

use callboard_cluster_tests::sim::plan::Plan;
use callboard_cluster_tests::sim::runner::{self, Order, Report};
use callboard_cluster_tests::sim::world::Show;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Parser)]
#[command(
    about = "Proves that a Callboard cluster keeps what it promises",
    version
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs simulated clusters: everything that happens in one is decided by its seed
    Sim(Sim),
    /// Runs whole nodes, with their actors and QUIC, in one thread and virtual time
    Actors(acting::Actors),
    /// Plants bugs one by one and sees how soon the simulator finds them (needs the feature `planted`)
    Planted(planting::Planted),
    /// Runs real nodes on hosts and disks of their own, breaks them, and checks what clients were told
    Chaos(breaking::Chaos),
    /// Checks a history: says what in it no correct broker can have answered
    Check(checking::Check),
    /// Writes a random history that is legal, to try a checker with
    Generate(checking::Generate),
    /// Compares the data directories of nodes that do not run: below the high watermark they are the same, byte by byte
    Replicas(checking::Replicas),
}

#[derive(clap::Args)]
struct Sim {
    /// How many seeds
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many nodes a cluster has [default: 3 or 5, as the seed says]
    #[arg(long)]
    nodes: Option<usize>,
    /// How many run side by side [default: the number of processors]
    #[arg(long)]
    threads: Option<usize>,
    /// Show what one seed does, event by event, instead of running many
    #[arg(long)]
    trace: bool,
    /// With --trace: leave out the faults that are not needed for the failure
    #[arg(long)]
    shrink: bool,
    /// How long a failure is made smaller, in seconds
    #[arg(long, default_value_t = 20)]
    shrink_seconds: u64,
    /// Stop after so many failures
    #[arg(long, default_value_t = 10)]
    failures: usize,
}

fn threads(given: Option<usize>) -> usize {
    given.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = "{bar:32} {pos}/{len} seeds, {per_sec}, {msg}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

#[expect(clippy::print_stdout, reason = "it is what is asked for")]
fn show(report: &Report) {
    for failure in &report.failures {
        println!("seed {} FAILED: {}", failure.seed, failure.violation);
        println!("  enough for it are {} faults:", failure.faults.len());
        failure.faults.iter().for_each(|f| println!("  {f}"));
        println!("  the last of what happened:");
        failure
            .recent
            .iter()
            .for_each(|line| println!("    {line}"));
    }
    let c = &report.coverage;
    let seconds = report.took.as_secs_f64().max(0.001);
    println!(
        "{} seeds, {} of them count, {:.1} simulated hours in {seconds:.0} s ({:.1} seeds/s), {} failed",
        report.seeds,
        report.counted,
        report.hours(),
        report.seeds as f64 / seconds,
        report.failures.len()
    );
    println!(
        "{} records acknowledged, {} commits of groups, {} reigns, {} leaders of the quorum, {} truncations, {} ISR shrinks, {} logs opened, {} images, {} times damage, {} events",
        c.acknowledged,
        c.commits,
        c.elections,
        c.quorum_leaders,
        c.truncations,
        c.isr_shrinks,
        c.recoveries,
        c.images,
        c.damages,
        c.events
    );
    let faults: Vec<String> = report
        .faults
        .iter()
        .map(|(row, n)| format!("{row} {n}"))
        .collect();
    println!("faults: {}", faults.join(", "));
}

#[expect(clippy::print_stdout, reason = "it is what is asked for")]
fn trace(sim: &Sim) -> ExitCode {
    let mut plan = Plan::draw(sim.from, sim.nodes);
    if sim.shrink {
        plan = runner::shrink(&plan, std::time::Duration::from_secs(60));
    }
    println!("{plan:#?}");
    let outcome = runner::run(plan, Show::All);
    outcome.recent.iter().for_each(|line| println!("{line}"));
    println!("{:?}, trace {:016x}", outcome.coverage, outcome.trace);
    match outcome.violation {
        Some(violation) => {
            println!("FAILED: {violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn simulate(sim: &Sim) -> ExitCode {
    // A core that panics is reported as what it broke.
    std::panic::set_hook(Box::new(|_| {}));
    if sim.trace {
        return trace(sim);
    }
    let progress = bar(sim.seeds);
    let order = Order {
        from: sim.from,
        seeds: sim.seeds,
        nodes: sim.nodes,
        threads: threads(sim.threads),
        failures_max: sim.failures,
        shrink_for: std::time::Duration::from_secs(sim.shrink_seconds),
        time_max: None,
    };
    let report = runner::run_many(order, |seeds, failed| {
        progress.set_position(seeds);
        progress.set_message(format!("{failed} failed"));
    });
    progress.finish_and_clear();
    show(&report);
    match report.failures.is_empty() && report.is_covered() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Sim(sim) => simulate(&sim),
        Command::Actors(actors) => acting::actors(&actors),
        Command::Planted(planted) => planting::plant(&planted),
        Command::Chaos(chaos) => breaking::chaos(&chaos),
        Command::Check(check) => checking::check(&check),
        Command::Generate(generate) => checking::generate(&generate),
        Command::Replicas(replicas) => checking::replicas(&replicas),
    }
}
