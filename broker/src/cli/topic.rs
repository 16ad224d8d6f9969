//! `callboard topic`.

use std::collections::BTreeMap;

use callboard_client::Text;
use callboard_client::protocol::topics::TopicDescription;
use clap::Subcommand;
use serde_json::json;

use super::connect::Connect;
use super::output::{Failure, line, note, table};

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
            configs,
            validate_only,
            connect,
        } => {
            let configs = pairs(&configs)?;
            let client = connect.client().await?;
            let created = client
                .admin()
                .create_topic_with(&name, partitions, &configs, validate_only)
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
    let records = |t: &TopicDescription| -> i64 {
        t.partitions
            .iter()
            .map(|p| p.high_watermark - p.log_start)
            .sum()
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
            records(t).to_string(),
            t.id.to_string(),
        ]
    };
    table(
        &["topic", "partitions", "records", "id"],
        &topics.iter().map(row).collect::<Vec<_>>(),
    )
}

fn describe(topic: &TopicDescription, json: bool) -> Result<(), Failure> {
    let epoch =
        |e: &Option<callboard_client::LeaderEpoch>| e.map_or("none".to_owned(), |e| e.to_string());
    if json {
        let partition = |(number, p): (
            usize,
            &callboard_client::protocol::topics::PartitionDescription,
        )| {
            json!({"partition": number, "leader_epoch": p.epoch.map(|e| e.0), "log_start": p.log_start.get(),
                "high_watermark": p.high_watermark.get()})
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
    let partition = |(number, p): (
        usize,
        &callboard_client::protocol::topics::PartitionDescription,
    )| {
        vec![
            number.to_string(),
            epoch(&p.epoch),
            p.log_start.to_string(),
            p.high_watermark.to_string(),
        ]
    };
    let rows: Vec<_> = topic.partitions.iter().enumerate().map(partition).collect();
    table(
        &["partition", "leader epoch", "log start", "high watermark"],
        &rows,
    )
}
