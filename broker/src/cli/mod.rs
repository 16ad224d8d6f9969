//! The command line: one file per subcommand.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted. What a program reads goes to standard
//! output, everything else to standard error.

mod acl;
mod adopt;
mod bench;
mod cert;
mod cluster;
mod complete;
mod config;
mod connect;
mod consume;
mod group;
mod log_dump;
mod output;
mod produce;
mod quota;
mod start;
mod time;
mod topic;
mod user;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::Failure;

/// An event broker: Apache Kafka's log and clients in one durable binary.
#[derive(Debug, Parser)]
#[command(
    name = "callboard",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node.
    Start(start::Start),
    /// Make the certificates of a cluster's nodes.
    #[command(subcommand)]
    Cert(cert::Cert),
    /// Look after the nodes of a cluster.
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Create, list, describe, grow and delete topics.
    #[command(subcommand)]
    Topic(topic::Topic),
    /// Append lines of standard input or of files to a topic.
    Produce(produce::ProduceArguments),
    /// Read a topic.
    Consume(consume::ConsumeArguments),
    /// List, describe, reset and delete consumer groups.
    #[command(subcommand)]
    Group(group::Group),
    /// Show and change settings of topics; show those of nodes.
    #[command(subcommand)]
    Config(config::Config),
    /// Add, list and delete users.
    #[command(subcommand)]
    User(user::User),
    /// Say who may do what.
    #[command(subcommand)]
    Acl(acl::AclCommand),
    /// Say how much clients may do.
    #[command(subcommand)]
    Quota(quota::Quota),
    /// Put load on a node, over either door, and measure it.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Take over a copy of a data directory that Apache Kafka wrote.
    Adopt(adopt::Adopt),
    /// Look into log files.
    #[command(subcommand)]
    Log(log_dump::Log),
    /// Print completions for a shell.
    Completions(complete::Completions),
}

/// Runs the command line to its exit code.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Start(start) => start::run(&start),
        Command::Cert(cert) => cert::run(&cert),
        Command::Log(log) => log_dump::run(&log),
        Command::Completions(completions) => complete::run(&completions),
        Command::Cluster(cluster) => on_runtime(cluster::run(cluster)),
        Command::Topic(topic) => on_runtime(topic::run(topic)),
        Command::Produce(produce) => on_runtime(produce::run(produce)),
        // It handles interrupts itself, because it leaves its group in order.
        Command::Consume(consume) => block_on(consume::run(consume)),
        Command::Group(group) => on_runtime(group::run(group)),
        Command::Adopt(adopt) => on_runtime(adopt::run(adopt)),
        Command::Bench(bench) => on_runtime(bench::run(bench)),
        Command::Config(config) => on_runtime(config::run(config)),
        Command::User(user) => on_runtime(user::run(user)),
        Command::Acl(acl) => on_runtime(acl::run(acl)),
        Command::Quota(quota) => on_runtime(quota::run(quota)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Waits for an interrupt or a request to terminate.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Runs a client command; an interrupt ends it.
fn on_runtime(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    block_on(async {
        tokio::select! {
            result = command => result,
            () = told_to_stop() => Err(Failure::interrupted()),
        }
    })
}

fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|e| Failure::new(format!("no runtime: {e}")))?
        .block_on(command)
}
