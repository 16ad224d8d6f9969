//! `callboard config`.

use callboard_client::protocol::configs::{
    ConfigChange, ConfigEntry, ConfigOp, ConfigResource, ConfigSource,
};
use clap::{Args, Subcommand};
use serde_json::json;

use super::connect::Connect;
use super::output::{Failure, line, note, table};

/// Show and change settings of topics; show those of nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show settings: value, where it comes from and what it is for.
    Get {
        #[command(flatten)]
        of: Of,
        /// Only this setting; its value alone is printed.
        name: Option<String>,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Change settings of a topic: NAME=VALUE sets, NAME= goes back to the default.
    Set {
        #[command(flatten)]
        of: Of,
        /// The changes; all of them are made or none.
        #[arg(required = true, value_name = "NAME=VALUE")]
        changes: Vec<String>,
        /// Check only.
        #[arg(long)]
        validate_only: bool,
        #[command(flatten)]
        connect: Connect,
    },
}

/// What is configured.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Of {
    /// Settings of this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Settings of the node with this number.
    #[arg(long)]
    node: Option<i32>,
}

impl Of {
    fn resource(&self) -> ConfigResource {
        match (&self.topic, self.node) {
            (Some(topic), _) => ConfigResource::Topic(topic.as_str().into()),
            (None, node) => ConfigResource::Broker(node.unwrap_or_default().to_string().into()),
        }
    }
}

pub(crate) async fn run(config: Config) -> Result<(), Failure> {
    match config {
        Config::Get {
            of,
            name,
            json,
            connect,
        } => {
            let client = connect.client().await?;
            let configs = client.admin().describe_configs(of.resource()).await?;
            client.close().await;
            show(&configs, name.as_deref(), json)
        }
        Config::Set {
            of,
            changes,
            validate_only,
            connect,
        } => {
            let changes = changes
                .iter()
                .map(|c| change(c))
                .collect::<Result<Vec<_>, _>>()?;
            let (count, client) = (changes.len(), connect.client().await?);
            client
                .admin()
                .alter_configs(of.resource(), changes, validate_only)
                .await?;
            client.close().await;
            let did = if validate_only {
                "could be changed"
            } else {
                "changed"
            };
            note(format!("{count} settings {did}"));
            Ok(())
        }
    }
}

fn change(text: &str) -> Result<ConfigChange, Failure> {
    let wanted = || {
        Failure::usage(format!(
            "{text:?}: wanted is NAME=VALUE, or NAME= for the default"
        ))
    };
    let (name, value) = text
        .split_once('=')
        .filter(|(n, _)| !n.is_empty())
        .ok_or_else(wanted)?;
    Ok(match value {
        "" => ConfigChange {
            name: name.into(),
            op: ConfigOp::Delete,
            value: None,
        },
        value => ConfigChange {
            name: name.into(),
            op: ConfigOp::Set,
            value: Some(value.into()),
        },
    })
}

fn source(source: ConfigSource) -> &'static str {
    match source {
        ConfigSource::Topic => "topic",
        ConfigSource::StaticBroker => "node",
        ConfigSource::Default => "default",
    }
}

fn show(configs: &[ConfigEntry], name: Option<&str>, json: bool) -> Result<(), Failure> {
    let value = |c: &ConfigEntry| {
        c.value
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let object = |c: &ConfigEntry| {
        json!({"name": c.name.as_str(), "value": c.value.as_deref(), "source": source(c.source),
            "read_only": c.read_only, "documentation": c.documentation.as_deref()})
    };
    if let Some(name) = name {
        let missing = || {
            Failure::new(format!(
                "there is no setting {name:?}; without a name all are shown"
            ))
        };
        let config = configs
            .iter()
            .find(|c| *c.name == *name)
            .ok_or_else(missing)?;
        return if json {
            line(object(config))
        } else {
            line(value(config))
        };
    }
    if json {
        return line(serde_json::Value::from(
            configs.iter().map(object).collect::<Vec<_>>(),
        ));
    }
    let row = |c: &ConfigEntry| {
        let documentation = c.documentation.as_ref().map(ToString::to_string);
        vec![
            c.name.to_string(),
            value(c),
            source(c.source).to_owned(),
            documentation.unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = configs.iter().map(row).collect();
    table(&["setting", "value", "source", "what it is for"], &rows)
}
