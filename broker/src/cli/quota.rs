//! `callboard quota`.

use callboard_client::Text;
use callboard_client::protocol::security::QuotaEntity;
use clap::{Args, Subcommand};
use serde_json::json;

use super::connect::Connect;
use super::output::{Failure, line, note, table};

/// Say how much clients may do.
#[derive(Debug, Subcommand)]
pub(crate) enum Quota {
    /// Set quotas; 0 removes one.
    Set {
        #[command(flatten)]
        of: Of,
        /// Bytes per second of produce requests.
        #[arg(long, value_name = "BYTES")]
        producer_byte_rate: Option<f64>,
        /// Bytes per second of fetched records.
        #[arg(long, value_name = "BYTES")]
        consumer_byte_rate: Option<f64>,
        /// Percent of one worker's time.
        #[arg(long, value_name = "PERCENT")]
        request_percentage: Option<f64>,
        #[command(flatten)]
        connect: Connect,
    },
    /// List quotas.
    List {
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
}

/// Whose.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Of {
    /// This user, or * for each that has no quota of its own.
    #[arg(long)]
    user: Option<String>,
    /// This client id, or * for each that has no quota of its own.
    #[arg(long)]
    client_id: Option<String>,
}

impl Of {
    fn entity(&self) -> QuotaEntity {
        let name = |text: &String| (text != "*").then(|| Text::from(text.as_str()));
        let client = self
            .client_id
            .as_ref()
            .map(|c| ("client-id".into(), name(c)));
        let user = self.user.as_ref().map(|u| ("user".into(), name(u)));
        client.into_iter().chain(user).collect()
    }
}

pub(crate) async fn run(quota: Quota) -> Result<(), Failure> {
    match quota {
        Quota::Set {
            of,
            producer_byte_rate,
            consumer_byte_rate,
            request_percentage,
            connect,
        } => {
            let given = [
                ("producer_byte_rate", producer_byte_rate),
                ("consumer_byte_rate", consumer_byte_rate),
                ("request_percentage", request_percentage),
            ];
            let change = |(name, value): (&'static str, Option<f64>)| {
                let value = value?;
                Some((Text::from_static(name), (value != 0.0).then_some(value)))
            };
            let changes: Vec<_> = given.into_iter().filter_map(change).collect();
            if changes.is_empty() {
                return Err(Failure::usage(
                    "no quota is given: --producer-byte-rate, --consumer-byte-rate or --request-percentage",
                ));
            }
            let client = connect.client().await?;
            client.admin().alter_quotas(of.entity(), changes).await?;
            client.close().await;
            note("quotas changed");
            Ok(())
        }
        Quota::List { json, connect } => {
            let client = connect.client().await?;
            let quotas = client.admin().quotas().await?;
            client.close().await;
            show(&quotas, json)
        }
    }
}

fn show(quotas: &[(QuotaEntity, Vec<(Text, f64)>)], json: bool) -> Result<(), Failure> {
    let name = |entity: &QuotaEntity, kind: &str| {
        let part = entity.iter().find(|(k, _)| &**k == kind)?;
        Some(part.1.as_ref().map_or("*".to_owned(), ToString::to_string))
    };
    if json {
        let one = |(entity, values): &(QuotaEntity, Vec<(Text, f64)>)| {
            let values: serde_json::Map<_, _> = values
                .iter()
                .map(|(n, v)| (n.to_string(), json!(v)))
                .collect();
            json!({"user": name(entity, "user"), "client_id": name(entity, "client-id"), "quotas": values})
        };
        return line(serde_json::Value::from(
            quotas.iter().map(one).collect::<Vec<_>>(),
        ));
    }
    let rows = quotas.iter().flat_map(|(entity, values)| {
        values.iter().map(move |(quota, value)| {
            let shown = |kind| name(entity, kind).unwrap_or_else(|| "-".to_owned());
            vec![
                shown("user"),
                shown("client-id"),
                quota.to_string(),
                value.to_string(),
            ]
        })
    });
    table(
        &["user", "client id", "quota", "value"],
        &rows.collect::<Vec<_>>(),
    )
}
