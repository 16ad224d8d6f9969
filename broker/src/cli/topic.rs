//! `callboard topic`.

use std::collections::BTreeMap;

use callboard_client::Text;
use callboard_client::protocol::topics::{
    NewTopic, PartitionDescription, PartitionEnds, TopicDescription,
};
use clap::Subcommand;
use serde_json::json;

use super::connect::Connect;
use super::output::{Failure, joined, line, note, numbers, table};

/// What nobody knows right now.
const UNKNOWN: &str = "?";

/// Create, list, describe, grow and delete topics.
#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// Create a topic.
    Create {
        /// Its name.
        name: String,
        /// How many partitions; the node decides if this is not given.
        #[arg(long)]
        partitions: Option<i32>,
        /// How many nodes keep each of them; the node decides if this is not given.
        #[arg(long, value_name = "N")]
        replication_factor: Option<i16>,
        /// A setting by Kafka's name, like retention.ms=3600000; may be given several times.
        #[arg(long = "config", value_name = "NAME=VALUE")]
        configs: Vec<String>,
        /// Check only.
        #[arg(long)]
        validate_only: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// List topics.
    List {
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Describe a topic: its settings and its partitions.
    Describe {
        /// Its name.
        name: String,
        /// JSON instead of tables.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Add partitions to a topic; keys go to other partitions from then on.
    Grow {
        /// Its name.
        name: String,
        /// How many partitions it has then.
        #[arg(long)]
        partitions: i32,
        #[command(flatten)]
        connect: Connect,
    },
    /// Delete a topic with all its records.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        connect: Connect,
    },
}

pub(crate) async fn run(topic: Topic) -> Result<(), Failure> {
    match topic {
        Topic::Create {
            name,
            partitions,
            replication_factor,
            configs,
            validate_only,
            connect,
        } => {
            let configs = pairs(&configs)?.into_iter();
            let topic = NewTopic {
                partitions,
                replication_factor,
                configs: configs.map(|(n, v)| (n.into(), Some(v.into()))).collect(),
                ..NewTopic::named(name.as_str())
            };
            let client = connect.client().await?;
            let created = client
                .admin()
                .create_topic_with(topic, validate_only)
                .await?;
            let did = if validate_only {
                "could be created"
            } else {
                "created"
            };
            note(format!(
                "topic {name} {did} with {} partitions",
                created.partitions
            ));
            client.close().await;
        }
        Topic::List { json, connect } => {
            let client = connect.client().await?;
            let topics = client.admin().describe_topics(&[]).await?;
            list(&topics, json)?;
            client.close().await;
        }
        Topic::Describe {
            name,
            json,
            connect,
        } => {
            let client = connect.client().await?;
            for topic in client.admin().describe_topics(&[&name]).await? {
                describe(&topic, json)?;
            }
            client.close().await;
        }
        Topic::Grow {
            name,
            partitions,
            connect,
        } => {
            let client = connect.client().await?;
            client.admin().create_partitions(&name, partitions).await?;
            note(format!("topic {name} has {partitions} partitions"));
            client.close().await;
        }
        Topic::Delete { name, connect } => {
            let client = connect.client().await?;
            client.admin().delete_topic(&name).await?;
            note(format!("topic {name} deleted"));
            client.close().await;
        }
    }
    Ok(())
}

fn pairs(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--config {text:?}: wanted is NAME=VALUE")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    texts.iter().map(pair).collect()
}

fn name(topic: &TopicDescription) -> String {
    topic.name.as_ref().map(Text::to_string).unwrap_or_default()
}

fn list(topics: &[TopicDescription], json: bool) -> Result<(), Failure> {
    // What a partition without a leader holds is not known, so neither is the sum.
    let records = |t: &TopicDescription| -> Option<i64> {
        let of = |p: &PartitionDescription| p.ends.map(|e| e.high_watermark - e.log_start);
        t.partitions.iter().map(of).sum()
    };
    if json {
        let one = |t: &TopicDescription| {
            json!({"topic": name(t), "id": t.id.to_string(), "partitions": t.partitions.len(),
                "records": records(t), "internal": t.is_internal})
        };
        return line(serde_json::Value::from(
            topics.iter().map(one).collect::<Vec<_>>(),
        ));
    }
    let row = |t: &TopicDescription| {
        vec![
            name(t),
            t.partitions.len().to_string(),
            records(t).map_or_else(|| UNKNOWN.to_owned(), |r| r.to_string()),
            t.id.to_string(),
        ]
    };
    table(
        &["topic", "partitions", "records", "id"],
        &topics.iter().map(row).collect::<Vec<_>>(),
    )
}

fn describe(topic: &TopicDescription, json: bool) -> Result<(), Failure> {
    if json {
        let partition = |(number, p): (usize, &PartitionDescription)| {
            json!({"partition": number, "leader": p.leader.map(|l| l.0), "replicas": numbers(&p.replicas),
                "isr": numbers(&p.isr), "leader_epoch": p.ends.map(|e| e.epoch.0),
                "log_start": p.ends.map(|e| e.log_start.get()), "high_watermark": p.ends.map(|e| e.high_watermark.get())})
        };
        let configs: BTreeMap<&str, &str> = topic
            .configs
            .iter()
            .map(|(n, v, _)| (n.as_str(), v.as_str()))
            .collect();
        return line(
            json!({"topic": name(topic), "id": topic.id.to_string(), "internal": topic.is_internal,
            "configs": configs, "partitions": topic.partitions.iter().enumerate().map(partition).collect::<Vec<_>>()}),
        );
    }
    let setting = |(n, v, is_default): &(Text, Text, bool)| {
        vec![
            n.to_string(),
            v.to_string(),
            if *is_default { "default" } else { "topic" }.to_owned(),
        ]
    };
    line(format!("{} {}", name(topic), topic.id))?;
    table(
        &["setting", "value", "source"],
        &topic.configs.iter().map(setting).collect::<Vec<_>>(),
    )?;
    let partition = |(number, p): (usize, &PartitionDescription)| {
        let known = |of: fn(&PartitionEnds) -> String| {
            p.ends.as_ref().map_or_else(|| UNKNOWN.to_owned(), of)
        };
        vec![
            number.to_string(),
            p.leader
                .map_or_else(|| "none".to_owned(), |l| l.to_string()),
            joined(&p.replicas),
            joined(&p.isr),
            known(|e| e.epoch.to_string()),
            known(|e| e.log_start.to_string()),
            known(|e| e.high_watermark.to_string()),
        ]
    };
    let rows: Vec<_> = topic.partitions.iter().enumerate().map(partition).collect();
    let columns = [
        "partition",
        "leader",
        "replicas",
        "in sync",
        "leader epoch",
        "log start",
        "high watermark",
    ];
    table(&columns, &rows)
}
