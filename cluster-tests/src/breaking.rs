//! `chaos`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use callboard_cluster_tests::chaos::faults::Row;
use callboard_cluster_tests::chaos::scene::NODES;
use callboard_cluster_tests::chaos::{self, Order, Report, Workload};
use callboard_cluster_tests::hosts::Hosts;
use clap::ValueEnum;

use crate::checking;

/// The exit code that says that this machine does not allow it.
const NOT_HERE: u8 = 4;

#[derive(clap::Args)]
pub(crate) struct Chaos {
    /// What clients do
    #[arg(long, default_value = "W2")]
    workload: Workload,
    /// What goes wrong, one run each [default: those of the gate]
    #[arg(long)]
    fault: Vec<Row>,
    /// What decides when and where it goes wrong
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long it goes wrong in each run
    #[arg(long, default_value_t = 0.4)]
    minutes: f64,
    /// Where histories and verdicts go
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
}

#[expect(clippy::print_stdout, reason = "it is what is asked for")]
fn show(order: &Order, report: &Report) {
    let v = &report.verdict;
    let said = v.judgement.word();
    println!(
        "{:<12} {said:<7} {:>3} faults, {:>6} records acknowledged, {:>6} of them in faults, {:>6} received, longest wait {:>6} ms, {:>6} batches compared, {}",
        order.name(),
        report.faults,
        v.acknowledged,
        v.acknowledged_in_faults,
        v.received,
        v.longest_gap_ms,
        report.compared,
        report.page.display()
    );
    checking::show_findings(&v.findings, "  ");
}

/// Runs one cell on hosts that are there.
#[expect(clippy::print_stderr, reason = "it is an error message")]
fn one(chaos: &Chaos, fault: Row, hosts: Hosts) -> ExitCode {
    let order = Order {
        workload: chaos.workload,
        fault,
        seed: chaos.seed,
        window: Duration::from_secs_f64(chaos.minutes * 60.0),
    };
    match chaos::run(order, hosts, &chaos.out) {
        Ok(report) => {
            show(&order, &report);
            checking::code(report.verdict.judgement)
        }
        Err(error) => {
            eprintln!("{}: {error}", order.name());
            match error.kind() == std::io::ErrorKind::Unsupported {
                true => ExitCode::from(NOT_HERE),
                false => ExitCode::from(2),
            }
        }
    }
}

/// Each cell has hosts of its own, and a process of its own on them.
#[expect(clippy::print_stderr, reason = "it is an error message")]
pub(crate) fn chaos(chaos: &Chaos) -> ExitCode {
    let rows = match chaos.fault.is_empty() {
        true => Row::SHORT.to_vec(),
        false => chaos.fault.clone(),
    };
    let mut worst = 0;
    for row in rows {
        let name = row
            .to_possible_value()
            .map_or(String::new(), |v| v.get_name().to_owned());
        let (seed, minutes) = (chaos.seed.to_string(), chaos.minutes.to_string());
        let (workload, out) = (
            format!("{:?}", chaos.workload),
            chaos.out.display().to_string(),
        );
        let again = [
            "chaos",
            "--workload",
            &workload,
            "--fault",
            &name,
            "--seed",
            &seed,
            "--minutes",
            &minutes,
            "--out",
            &out,
        ];
        match Hosts::of_program(NODES, &again) {
            Ok(hosts) => return one(chaos, row, hosts),
            Err(Ok(NOT_HERE)) => return ExitCode::from(NOT_HERE),
            Err(Ok(code)) => worst = worst.max(code),
            Err(Err(why)) => {
                eprintln!("{why}");
                return ExitCode::from(NOT_HERE);
            }
        }
    }
    ExitCode::from(worst)
}
