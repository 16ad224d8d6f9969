//! One seed of the simulator's second layer, in a process of its own: here all that a program draws at random comes from the
//! seed, and all clocks are those of the simulation. `callboard-cluster-tests actors` starts one of these for each seed.

use std::path::PathBuf;
use std::process::ExitCode;

use callboard_cluster_tests::actors::runner;
use clap::Parser;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

#[derive(Parser)]
#[command(
    about = "Runs one seed of whole nodes in virtual time",
    long_about = "Runs one seed of whole nodes in virtual time. `callboard-cluster-tests actors` runs many."
)]
struct Arguments {
    /// What decides everything
    seed: u64,
    /// Keep all that the nodes say, not only the last of it, and more of it
    #[arg(long)]
    trace: bool,
    /// Where the history, the disks and what the nodes say are kept
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Plant this bug (needs the feature `planted`)
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
}

/// Whether that could be done.
#[cfg(feature = "planted")]
fn plant(name: &str) -> bool {
    use callboard_broker::planted::{Bug, plant};

    let bug = Bug::ALL.into_iter().find(|b| format!("{b:?}") == name);
    plant(bug);
    bug.is_some()
}

#[cfg(not(feature = "planted"))]
fn plant(_name: &str) -> bool {
    false
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is what is asked for"
)]
fn main() -> ExitCode {
    let Arguments {
        seed,
        trace,
        out,
        plant: bug,
    } = Arguments::parse();
    if let Some(bug) = bug.filter(|bug| !plant(bug)) {
        eprintln!(
            "{bug} cannot be planted here: build with --features planted, and see broker/src/planted.rs"
        );
        return ExitCode::from(2);
    }
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    match runner::run_here(seed, trace, &out) {
        Ok(summary) => {
            println!("{summary:#?}");
            match summary.has_failed() {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            }
        }
        Err(error) => {
            eprintln!("{}: {error}", out.display());
            ExitCode::from(2)
        }
    }
}
