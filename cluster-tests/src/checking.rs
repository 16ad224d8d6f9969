//! `check`, `generate` and `replicas`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use callboard_cluster_tests::check::{
    self, Findings, Judgement, Verdict, page, replicas as offline,
};
use callboard_cluster_tests::history::generate::{self as model, Size};
use callboard_cluster_tests::history::{About, History};
use serde_json::json;

#[derive(clap::Args)]
pub(crate) struct Check {
    /// The history
    history: PathBuf,
    /// Write the verdict as a page with a timeline
    #[arg(long)]
    html: Option<PathBuf>,
    /// One JSON object, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct Generate {
    /// Where to write it
    history: PathBuf,
    /// How many records are sent
    #[arg(long, default_value_t = 100_000)]
    sends: u64,
    /// To how many partitions
    #[arg(long, default_value_t = 24)]
    keys: u32,
    /// By how many producers
    #[arg(long, default_value_t = 8)]
    producers: u32,
    /// What decides everything
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(clap::Args)]
pub(crate) struct Replicas {
    /// Data directories, two or more
    #[arg(required = true, num_args = 2..)]
    dirs: Vec<PathBuf>,
    /// One JSON object, for scripts
    #[arg(long)]
    json: bool,
}

fn findings_json(findings: &Findings) -> Vec<serde_json::Value> {
    let one = |(a, f): (check::Anomaly, &check::Found)| json!({"row": a.row(), "anomaly": format!("{a:?}"), "count": f.count, "examples": f.examples});
    findings.iter().map(one).collect()
}

#[expect(clippy::print_stdout, reason = "it is what is asked for")]
pub(crate) fn show_findings(findings: &Findings, indent: &str) {
    for (anomaly, found) in findings.iter() {
        println!("{indent}{anomaly}, {} times:", found.count);
        let examples = found.examples.iter();
        examples.for_each(|e| println!("{indent}  {e}"));
    }
}

#[expect(clippy::print_stderr, reason = "it is an error message")]
fn failed(what: &std::path::Path, error: &io::Error) -> ExitCode {
    eprintln!("{}: {error}", what.display());
    ExitCode::from(2)
}

/// What a script sees of a judgement.
pub(crate) fn code(judgement: Judgement) -> ExitCode {
    match judgement {
        Judgement::Passed => ExitCode::SUCCESS,
        Judgement::Failed => ExitCode::from(1),
        Judgement::Void => ExitCode::from(3),
    }
}

#[expect(clippy::print_stdout, reason = "it is what is asked for")]
fn show(check: &Check, verdict: &Verdict) {
    let said = match verdict.judgement {
        Judgement::Void => "void: too little happened during the faults",
        told @ (Judgement::Passed | Judgement::Failed) => told.word(),
    };
    if check.json {
        let anomalies = findings_json(&verdict.findings);
        let all = json!({
            "judgement": said, "acknowledged": verdict.acknowledged, "acknowledged_in_faults": verdict.acknowledged_in_faults,
            "received": verdict.received, "longest_gap_ms": verdict.longest_gap_ms, "anomalies": anomalies,
        });
        return println!("{all}");
    }
    show_findings(&verdict.findings, "");
    println!(
        "{said}: {} records acknowledged, {} of them during faults that left a quorum, {} received; the longest wait is {} ms",
        verdict.acknowledged,
        verdict.acknowledged_in_faults,
        verdict.received,
        verdict.longest_gap_ms
    );
}

pub(crate) fn check(check: &Check) -> ExitCode {
    let read = File::open(&check.history)
        .and_then(|f| History::read(BufReader::with_capacity(1 << 20, f)));
    let history = match read {
        Ok(history) => history,
        Err(error) => return failed(&check.history, &error),
    };
    let verdict = check::check(&history);
    if let Some(path) = &check.html
        && let Err(error) = std::fs::write(path, page::page(&history, &verdict))
    {
        return failed(path, &error);
    }
    show(check, &verdict);
    code(verdict.judgement)
}

pub(crate) fn generate(generate: &Generate) -> ExitCode {
    let size = Size {
        sends: generate.sends,
        keys: generate.keys,
        producers: generate.producers,
        unknown_percent: 1,
    };
    let write = || -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&generate.history)?);
        writeln!(file, "{}", serde_json::to_string(&About::default())?)?;
        let mut result = Ok(());
        model::generate(generate.seed, size, |line| {
            if result.is_ok() {
                let text = serde_json::to_string(line).map_err(io::Error::from);
                result = text.and_then(|text| writeln!(file, "{text}"));
            }
        });
        result.and_then(|()| file.flush())
    };
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&generate.history, &error),
    }
}

#[expect(clippy::print_stdout, reason = "it is what is asked for")]
pub(crate) fn replicas(replicas: &Replicas) -> ExitCode {
    let mut findings = Findings::default();
    let compared = match offline::compare(&replicas.dirs, &mut findings) {
        Ok(compared) => compared,
        Err(error) => return failed(&replicas.dirs[0], &error),
    };
    if replicas.json {
        let all = json!({"partitions": compared.partitions, "batches": compared.batches, "anomalies": findings_json(&findings)});
        println!("{all}");
    } else {
        show_findings(&findings, "");
        println!(
            "{} partitions with {} batches were compared",
            compared.partitions, compared.batches
        );
    }
    match (findings.is_empty(), compared.partitions) {
        (true, 0) => code(Judgement::Void),
        (true, _) => code(Judgement::Passed),
        (false, _) => code(Judgement::Failed),
    }
}
