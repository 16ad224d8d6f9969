//! `callboard group`.

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_client::protocol::groups::MemberDescription;
use callboard_client::protocol::list_offsets::OffsetTarget;
use callboard_client::{
    Admin, Client, Consumer, ConsumerConfig, Offset, StartAt, Text, TopicName, TopicPartition,
};
use clap::Subcommand;
use serde_json::json;

use super::connect::Connect;
use super::output::{Failure, line, note, table};
use super::time::start_at;

/// How long the age of a record is waited for.
const AGE_TIMEOUT: Duration = Duration::from_secs(2);

/// List, describe, reset and delete consumer groups.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// List groups.
    List {
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Describe a group: how far it has come, and its members.
    Describe {
        /// Its name.
        group: String,
        /// JSON instead of tables.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Delete a group that has no members, with all it has committed.
    Delete {
        /// Its name.
        group: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Move a group that has no members to another place in a topic.
    Reset {
        /// Its name.
        group: String,
        /// The topic.
        #[arg(long)]
        topic: String,
        /// Where: beginning, end, an offset, a time, or how long ago (like -10m).
        #[arg(long, value_name = "WHERE", value_parser = start_at, allow_hyphen_values = true)]
        to: StartAt,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
}

pub(crate) async fn run(group: Group) -> Result<(), Failure> {
    match group {
        Group::List { json, connect } => {
            let client = connect.client().await?;
            let groups = client.admin().list_groups().await?;
            let row = |g: &callboard_client::protocol::groups::GroupListing| {
                vec![
                    g.group.to_string(),
                    g.state.to_string(),
                    g.protocol_type.to_string(),
                ]
            };
            if json {
                let one = |g: &callboard_client::protocol::groups::GroupListing| json!({"group": g.group.as_str(), "state": g.state.as_str(), "type": g.protocol_type.as_str()});
                line(serde_json::Value::from(
                    groups.iter().map(one).collect::<Vec<_>>(),
                ))?;
            } else {
                table(
                    &["group", "state", "type"],
                    &groups.iter().map(row).collect::<Vec<_>>(),
                )?;
            }
            client.close().await;
        }
        Group::Describe {
            group,
            json,
            connect,
        } => {
            let client = connect.client().await?;
            describe(&client, &group, json).await?;
            client.close().await;
        }
        Group::Delete { group, connect } => {
            let client = connect.client().await?;
            client.admin().delete_group(&group).await?;
            note(format!("group {group} deleted"));
            client.close().await;
        }
        Group::Reset {
            group,
            topic,
            to,
            json,
            connect,
        } => {
            let client = connect.client().await?;
            check_nobody_reads(&client.admin(), &group).await?;
            let offsets = places(&client.admin(), &topic, to).await?;
            client.admin().set_group_offsets(&group, &offsets).await?;
            print_offsets(&offsets, json)?;
            client.close().await;
        }
    }
    Ok(())
}

/// How far a group has come in one partition.
struct Progress {
    partition: TopicPartition,
    committed: Offset,
    /// `None` if nobody knows: the topic may have been deleted since.
    end: Option<Offset>,
    /// Age of the first record that was not committed; `None` without one, or if it does not come in time.
    lag_seconds: Option<f64>,
}

impl Progress {
    fn lag(&self) -> Option<i64> {
        self.end.map(|end| (end - self.committed).max(0))
    }
}

async fn progress(client: &Client, group: &str) -> Result<Vec<Progress>, Failure> {
    let admin = client.admin();
    let mut all = Vec::new();
    for (partition, committed) in admin.group_offsets(group).await? {
        let end = admin.offset(&partition, OffsetTarget::Latest).await;
        let mut progress = Progress {
            partition,
            committed,
            end: end.ok().flatten(),
            lag_seconds: None,
        };
        if progress.lag().is_some_and(|lag| lag > 0) {
            progress.lag_seconds = age(client, &progress.partition, committed).await;
        }
        all.push(progress);
    }
    Ok(all)
}

/// How old the record at an offset is, in seconds.
async fn age(client: &Client, partition: &TopicPartition, offset: Offset) -> Option<f64> {
    let config = ConsumerConfig {
        fetch_bytes: 1,
        ..ConsumerConfig::default()
    };
    let from = [(partition.clone(), StartAt::Offset(offset))];
    let mut consumer = Consumer::assign(client, config, from);
    let record = tokio::time::timeout(AGE_TIMEOUT, consumer.recv())
        .await
        .ok()?
        .ok()?;
    let now = callboard_common::Clock::machine().now().wall.0;
    Some((now - record.timestamp).max(0) as f64 / 1000.0)
}

async fn describe(client: &Client, name: &str, json: bool) -> Result<(), Failure> {
    let group = client.admin().describe_group(name).await?;
    let progress = progress(client, name).await?;
    if group.state == "Dead" && progress.is_empty() {
        return Err(Failure::new(format!(
            "there is no group {name}; `callboard group list` shows those that are"
        )));
    }
    if json {
        let offset = |p: &Progress| {
            json!({"topic": p.partition.topic.as_str(), "partition": p.partition.partition,
                "committed": p.committed.get(), "end": p.end.map(Offset::get), "lag": p.lag(),
                "lag_seconds": p.lag_seconds})
        };
        let member = |m: &MemberDescription| {
            json!({"member": m.member.as_str(), "instance": m.instance.as_ref().map(Text::as_str),
                "client": m.client_id.as_str(), "host": m.client_host.as_str()})
        };
        return line(
            json!({"group": name, "state": group.state.as_str(), "generation": group.generation,
            "protocol": group.protocol.as_str(), "offsets": progress.iter().map(offset).collect::<Vec<_>>(),
            "members": group.members.iter().map(member).collect::<Vec<_>>()}),
        );
    }
    line(format!(
        "{name}: {}, generation {}, {}",
        group.state, group.generation, group.protocol
    ))?;
    let offset = |p: &Progress| {
        let shown = |value: Option<i64>| value.map_or("-".to_owned(), |v| v.to_string());
        vec![
            p.partition.topic.to_string(),
            p.partition.partition.to_string(),
            p.committed.to_string(),
            shown(p.end.map(Offset::get)),
            shown(p.lag()),
            p.lag_seconds.map_or("-".to_owned(), |s| format!("{s:.1}")),
        ]
    };
    table(
        &[
            "topic",
            "partition",
            "committed",
            "end",
            "lag",
            "lag seconds",
        ],
        &progress.iter().map(offset).collect::<Vec<_>>(),
    )?;
    let member = |m: &MemberDescription| {
        vec![
            m.member.to_string(),
            m.client_id.to_string(),
            m.client_host.to_string(),
        ]
    };
    table(
        &["member", "client", "host"],
        &group.members.iter().map(member).collect::<Vec<_>>(),
    )
}

/// Members would go on where they are and commit over it.
async fn check_nobody_reads(admin: &Admin, group: &str) -> Result<(), Failure> {
    let members = admin.describe_group(group).await?.members.len();
    if members == 0 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "group {group} has {members} members; stop them first"
    )))
}

/// The offsets of a place in every partition of a topic.
async fn places(
    admin: &Admin,
    topic: &str,
    to: StartAt,
) -> Result<BTreeMap<TopicPartition, Offset>, Failure> {
    let described = admin.describe_topics(&[topic]).await?;
    let name = TopicName::new(topic).map_err(Failure::usage)?;
    let mut offsets = BTreeMap::new();
    for (number, part) in (0..).zip(described.iter().flat_map(|t| &t.partitions)) {
        let partition = TopicPartition::new(name.clone(), number);
        let nobody = || Failure::new(format!("nobody leads {partition} right now"));
        let ends = part.ends.ok_or_else(nobody)?;
        let offset = match to {
            StartAt::Beginning | StartAt::Reset => ends.log_start,
            StartAt::End => ends.high_watermark,
            StartAt::Offset(offset) => offset.max(ends.log_start).min(ends.high_watermark),
            StartAt::Timestamp(t) => admin
                .offset(&partition, OffsetTarget::Timestamp(t))
                .await?
                .unwrap_or(ends.high_watermark),
        };
        let _none = offsets.insert(partition, offset);
    }
    Ok(offsets)
}

fn print_offsets(offsets: &BTreeMap<TopicPartition, Offset>, json: bool) -> Result<(), Failure> {
    if json {
        let one = |(p, o): (&TopicPartition, &Offset)| json!({"topic": p.topic.as_str(), "partition": p.partition, "committed": o.get()});
        return line(serde_json::Value::from(
            offsets.iter().map(one).collect::<Vec<_>>(),
        ));
    }
    let row = |(p, o): (&TopicPartition, &Offset)| {
        vec![p.topic.to_string(), p.partition.to_string(), o.to_string()]
    };
    table(
        &["topic", "partition", "committed"],
        &offsets.iter().map(row).collect::<Vec<_>>(),
    )
}
