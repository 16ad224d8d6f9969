//! `callboard produce`: lines to records.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use callboard_client::{
    Acks, Client, Compression, PendingDelivery, Producer, ProducerConfig, Record,
};
use callboard_common::config::{ByteSize, Span};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;

use super::connect::Connect;
use super::output::{Failure, note};

/// Lines that were read and not yet sent.
const LINES_AHEAD: usize = 10_000;
/// Deliveries that are waited for together.
const DELIVERIES_AHEAD: usize = 100_000;

/// Which acknowledgement to wait for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum AcksArgument {
    /// All in-sync replicas.
    All,
    /// The leader.
    Leader,
}

/// Append lines of standard input or of files to a topic.
#[derive(Debug, Args)]
pub(crate) struct ProduceArguments {
    /// The topic.
    topic: String,
    /// Files with lines; standard input without any.
    files: Vec<PathBuf>,
    /// What stands between key and value in a line; lines without it have no key.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// A header of every record, as NAME=VALUE; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// The partition; the key decides without it.
    #[arg(long)]
    partition: Option<i32>,
    /// Records a second at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, default_value = "none")]
    compression: Compression,
    /// Size at which a batch leaves.
    #[arg(long, default_value = "64KiB")]
    batch_size: ByteSize,
    /// Age at which a batch leaves.
    #[arg(long, default_value = "5ms")]
    linger: Span,
    /// Which acknowledgement to wait for.
    #[arg(long, default_value = "all")]
    acks: AcksArgument,
    #[command(flatten)]
    connect: Connect,
}

impl ProduceArguments {
    fn config(&self) -> ProducerConfig {
        ProducerConfig {
            acks: match self.acks {
                AcksArgument::All => Acks::All,
                AcksArgument::Leader => Acks::Leader,
            },
            compression: self.compression,
            batch_size_bytes: usize::try_from(self.batch_size.0).unwrap_or(usize::MAX),
            linger: self.linger.0,
            ..ProducerConfig::default()
        }
    }

    /// A partition that is not there is an error now, not after the delivery timeout.
    async fn check_partition(&self, client: &Client) -> Result<(), Failure> {
        let Some(partition) = self.partition else {
            return Ok(());
        };
        let described = match client.admin().describe_topics(&[&self.topic]).await {
            // It is created by the first record.
            Err(callboard_client::Error::UnknownTopic(_)) => return Ok(()),
            other => other?,
        };
        let count = described.first().map_or(0, |t| t.partitions.len());
        if usize::try_from(partition).is_ok_and(|p| p < count) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "topic {} has partitions 0 to {}",
            self.topic,
            count.saturating_sub(1)
        )))
    }

    fn headers(&self) -> Result<Vec<(String, String)>, Failure> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                Failure::usage(format!("--header {text:?}: wanted is NAME=VALUE"))
            })?;
            Ok((name.to_owned(), value.to_owned()))
        };
        self.headers.iter().map(pair).collect()
    }

    fn record(&self, mut line: Vec<u8>, headers: &[(String, String)]) -> Record {
        let mut record = Record::to(&self.topic);
        let separator = self.key_separator.as_deref().filter(|s| !s.is_empty());
        if let Some(at) =
            separator.and_then(|s| line.windows(s.len()).position(|w| w == s.as_bytes()))
        {
            let value = line.split_off(at + separator.map_or(0, str::len));
            line.truncate(at);
            record = record.key(std::mem::replace(&mut line, value));
        }
        for (name, value) in headers {
            record = record.header(name, value.clone());
        }
        if let Some(partition) = self.partition {
            record = record.partition(partition);
        }
        record.value(line)
    }
}

/// Reads lines on a thread of its own: a terminal or a slow pipe must not stop deliveries.
fn lines(files: Vec<PathBuf>) -> mpsc::Receiver<Result<Vec<u8>, String>> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    let read = move || {
        if files.is_empty() {
            return forward(io::stdin().lock(), &sender, "standard input");
        }
        for path in files {
            let name = path.display().to_string();
            match std::fs::File::open(&path) {
                Ok(file) => forward(BufReader::new(file), &sender, &name),
                // Nobody listens any more: the command has ended.
                Err(error) => drop(sender.blocking_send(Err(format!("{name}: {error}")))),
            }
        }
    };
    drop(std::thread::spawn(read));
    receiver
}

fn forward(mut reader: impl BufRead, sender: &mpsc::Sender<Result<Vec<u8>, String>>, name: &str) {
    loop {
        let mut line = Vec::new();
        let read = reader
            .read_until(b'\n', &mut line)
            .map_err(|e| format!("{name}: {e}"));
        let line = match read {
            Ok(0) => return,
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    let _newline = line.pop();
                }
                Ok(line)
            }
            Err(error) => Err(error),
        };
        let failed = line.is_err();
        if sender.blocking_send(line).is_err() || failed {
            return;
        }
    }
}

fn progress(files: &[PathBuf]) -> ProgressBar {
    let sizes: Option<u64> = files
        .iter()
        .map(|f| std::fs::metadata(f).ok().map(|m| m.len()))
        .sum();
    let bar = match sizes {
        Some(total) if total > 0 => ProgressBar::new(total).with_style(
            ProgressStyle::with_template(
                "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta} {msg}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
        ),
        _ => ProgressBar::no_length().with_style(
            ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        ),
    };
    // Typing and a moving bar would disturb each other.
    let by_hand = files.is_empty() && io::stdin().is_terminal();
    if by_hand || !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

pub(crate) async fn run(arguments: ProduceArguments) -> Result<(), Failure> {
    let headers = arguments.headers()?;
    for path in &arguments.files {
        // Before anything is sent.
        let opened = std::fs::File::open(path);
        drop(opened.map_err(|e| Failure::new(format!("{}: {e}", path.display())))?);
    }
    let client = arguments.connect.client().await?;
    arguments.check_partition(&client).await?;
    let producer = Producer::new(&client, arguments.config());
    let bar = progress(&arguments.files);
    let mut delivered = 0u64;
    let result = send(&arguments, &headers, &producer, &bar, &mut delivered).await;
    producer.close().await?;
    client.close().await;
    bar.finish_and_clear();
    if result.is_err() || io::stderr().is_terminal() {
        note(format!(
            "{delivered} records delivered to {}",
            arguments.topic
        ));
    }
    result
}

/// Sends all lines up to the first that cannot be sent, and waits for what was sent.
async fn send(
    arguments: &ProduceArguments,
    headers: &[(String, String)],
    producer: &Producer,
    bar: &ProgressBar,
    delivered: &mut u64,
) -> Result<(), Failure> {
    let mut lines = lines(arguments.files.clone());
    let mut pace = arguments
        .rate
        .map(|rate| tokio::time::interval(Duration::from_secs(1) / rate));
    let mut pending: VecDeque<PendingDelivery> = VecDeque::new();
    let mut result = Ok(());
    let mut number = 0u64;
    while let Some(line) = lines.recv().await {
        number += 1;
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                result = Err(Failure::new(error));
                break;
            }
        };
        if let Some(pace) = &mut pace {
            let _now = pace.tick().await;
        }
        bar.inc(line.len() as u64 + 1);
        match producer.enqueue(arguments.record(line, headers)).await {
            Ok(delivery) => pending.push_back(delivery),
            Err(error) => {
                result = Err(Failure::new(format!("line {number}: {error}")));
                break;
            }
        }
        if pending.len() >= DELIVERIES_AHEAD
            && let Some(oldest) = pending.pop_front()
        {
            let _delivery = oldest.await?;
            *delivered += 1;
            bar.set_message(format!("{delivered} delivered"));
        }
    }
    producer.flush().await?;
    for delivery in pending {
        let _delivery = delivery.await?;
        *delivered += 1;
    }
    result
}
