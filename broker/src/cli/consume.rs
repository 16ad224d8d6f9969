//! `callboard consume`: records to lines.

use std::io::{self, Write};
use std::time::Duration;

use callboard_client::protocol::list_offsets::OffsetTarget;
use callboard_client::{
    Client, ConsumedRecord, Consumer, ConsumerConfig, Offset, OffsetReset, StartAt, TopicName,
    TopicPartition,
};
use clap::Args;
use serde_json::json;

use super::connect::Connect;
use super::output::Failure;
use super::time::{readable, start_at};
use super::told_to_stop;

/// Output is shown at the latest so long after it came.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// A group remembers at the latest so long after what was written.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Read a topic.
#[derive(Debug, Args)]
pub(crate) struct ConsumeArguments {
    /// The topic.
    topic: String,
    /// Read as a member of this group, which remembers how far it has come.
    #[arg(long)]
    group: Option<String>,
    /// Where to begin: beginning, end, an offset, a time, or how long ago (like -10m). A group that has come
    /// somewhere goes on there.
    #[arg(long, value_name = "WHERE", default_value = "beginning", value_parser = start_at, allow_hyphen_values = true)]
    from: StartAt,
    /// Only this partition.
    #[arg(long)]
    partition: Option<i32>,
    /// Where this reader stands: it is sent to a replica in that rack, if there is one in sync.
    #[arg(long)]
    rack: Option<String>,
    /// End after so many records.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Wait for more records at the end; this is the default with a group.
    #[arg(long, short)]
    follow: bool,
    /// One JSON object per record, with key, headers and position.
    #[arg(long)]
    json: bool,
    /// Print the key before the value, with this in between.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn run(arguments: ConsumeArguments) -> Result<(), Failure> {
    let client = arguments.connect.client().await?;
    let result = consume(&client, &arguments).await;
    client.close().await;
    result
}

async fn consume(client: &Client, arguments: &ConsumeArguments) -> Result<(), Failure> {
    if arguments.max == Some(0) {
        return Ok(());
    }
    match &arguments.group {
        Some(group) if arguments.partition.is_none() => {
            let reset = match arguments.from {
                StartAt::End => OffsetReset::Latest,
                StartAt::Beginning => OffsetReset::Earliest,
                StartAt::Offset(_) | StartAt::Timestamp(_) | StartAt::Reset => {
                    let wanted = "a group begins at the beginning or the end; move it with `callboard group reset`";
                    return Err(Failure::usage(wanted));
                }
            };
            let config = ConsumerConfig {
                offset_reset: reset,
                // Only what was written is committed.
                auto_commit: None,
                rack: arguments.rack.clone(),
                ..ConsumerConfig::group(group)
            };
            let consumer = Consumer::subscribe(client, config, [&arguments.topic]).await?;
            print(consumer, arguments, None).await
        }
        Some(_) => Err(Failure::usage(
            "a group shares all partitions: --partition goes without --group",
        )),
        None => {
            let (starts, ends) = partitions(client, arguments).await?;
            let config = ConsumerConfig {
                rack: arguments.rack.clone(),
                ..ConsumerConfig::default()
            };
            let consumer = Consumer::assign(client, config, starts);
            let ends = (!arguments.follow).then_some(ends);
            print(consumer, arguments, ends).await
        }
    }
}

type Ends = Vec<(TopicPartition, Offset)>;

/// Which partitions to read from where, and where those that have records end now.
async fn partitions(
    client: &Client,
    arguments: &ConsumeArguments,
) -> Result<(Vec<(TopicPartition, StartAt)>, Ends), Failure> {
    let admin = client.admin();
    let described = admin.describe_topics(&[&arguments.topic]).await?;
    let count = described.first().map_or(0, |t| t.partitions.len());
    let topic = TopicName::new(&arguments.topic).map_err(Failure::usage)?;
    let numbers = (0..count).filter_map(|n| i32::try_from(n).ok());
    let numbers: Vec<i32> = numbers
        .filter(|n| arguments.partition.is_none_or(|p| p == *n))
        .collect();
    if numbers.is_empty() {
        return Err(Failure::new(format!(
            "topic {topic} has partitions 0 to {}",
            count.saturating_sub(1)
        )));
    }
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for number in numbers {
        let partition = TopicPartition::new(topic.clone(), number);
        let offset = async |target| {
            Ok::<_, Failure>(admin.offset(&partition, target).await?.unwrap_or_default())
        };
        let (earliest, latest) = (
            offset(OffsetTarget::Earliest).await?,
            offset(OffsetTarget::Latest).await?,
        );
        let start = match arguments.from {
            StartAt::Offset(offset) if (earliest..=latest).contains(&offset) => offset,
            StartAt::Offset(offset) if arguments.partition.is_some() || count == 1 => {
                return Err(Failure::new(format!(
                    "offset {offset} is out of range: {partition} begins at {earliest} and ends at {latest}"
                )));
            }
            // One number for several partitions: the shorter ones begin at their end.
            StartAt::Offset(offset) => offset.clamp(earliest, latest),
            StartAt::Beginning | StartAt::Reset => earliest,
            StartAt::End => latest,
            StartAt::Timestamp(t) => admin
                .offset(&partition, OffsetTarget::Timestamp(t))
                .await?
                .unwrap_or(latest),
        };
        if start < latest {
            ends.push((partition.clone(), latest));
        }
        starts.push((partition, StartAt::Offset(start)));
    }
    Ok((starts, ends))
}

/// Prints records until there are enough, the ends are reached, or somebody interrupts.
async fn print(
    mut consumer: Consumer,
    arguments: &ConsumeArguments,
    mut ends: Option<Ends>,
) -> Result<(), Failure> {
    let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let mut printed = 0;
    let mut unwritten = false;
    let stop = told_to_stop();
    tokio::pin!(stop);
    let mut committing = tokio::time::interval(COMMIT_EVERY);
    committing.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let result = loop {
        if ends.as_ref().is_some_and(Vec::is_empty)
            || arguments.max.is_some_and(|max| printed >= max)
        {
            break Ok(());
        }
        let received = tokio::select! {
            biased;
            // The group is left in order and remembers what was printed.
            () = &mut stop => break Err(Failure::interrupted()),
            _ = committing.tick(), if arguments.group.is_some() => {
                if let Err(error) = remember(&mut out, &mut consumer, arguments).await {
                    break Err(error);
                }
                continue;
            }
            received = consumer.recv() => received,
            () = tokio::time::sleep(FLUSH_AFTER), if !out.buffer().is_empty() => match out.flush() {
                Ok(()) => continue,
                Err(error) => break Err(error.into()),
            },
        };
        let record = match received {
            Ok(record) => record,
            Err(error) => break Err(error.into()),
        };
        if let Err(error) = print_one(&mut out, &record, arguments) {
            unwritten = true;
            break Err(error.into());
        }
        printed += 1;
        if let Some(ends) = &mut ends {
            ends.retain(|(partition, end)| {
                *partition != record.partition || record.offset + 1 < *end
            });
        }
    };
    let remembered = if unwritten {
        Ok(())
    } else {
        remember(&mut out, &mut consumer, arguments).await
    };
    consumer.close().await?;
    // What ended it says more than that the rest could not be written either.
    result.and(remembered)
}

/// Writes out what was printed, then commits it: nothing is committed that was not written.
async fn remember(
    out: &mut impl Write,
    consumer: &mut Consumer,
    arguments: &ConsumeArguments,
) -> Result<(), Failure> {
    out.flush()?;
    if arguments.group.is_some() {
        consumer.commit().await?;
    }
    Ok(())
}

fn print_one(
    out: &mut impl Write,
    record: &ConsumedRecord,
    arguments: &ConsumeArguments,
) -> io::Result<()> {
    if arguments.json {
        let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
        let header =
            |h: &callboard_client::Header| json!([h.key.as_str(), h.value.as_ref().map(text)]);
        let object = json!({
            "topic": record.partition.topic.as_str(),
            "partition": record.partition.partition,
            "offset": record.offset.get(),
            "timestamp": record.timestamp,
            "time": readable(record.timestamp),
            "key": record.key.as_ref().map(text),
            "value": record.value.as_ref().map(text),
            "headers": record.headers.iter().map(header).collect::<Vec<_>>(),
        });
        return writeln!(out, "{object}");
    }
    if let Some(separator) = &arguments.key_separator {
        out.write_all(record.key.as_deref().unwrap_or_default())?;
        out.write_all(separator.as_bytes())?;
    }
    out.write_all(record.value.as_deref().unwrap_or_default())?;
    out.write_all(b"\n")
}
