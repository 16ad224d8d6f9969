//! `callboard cluster features` and `upgrade`: what the nodes speak, and raising the level of the cluster.

use callboard_client::protocol::cluster::DescribedFeatures;
use callboard_client::{BrokerId, FeatureLevel};
use clap::Args;
use serde_json::json;

use super::Show;
use crate::cli::connect::Connect;
use crate::cli::output::{Failure, line, note, table};

/// See [`super::Cluster::Upgrade`].
#[derive(Debug, Args)]
pub(crate) struct Upgrade {
    /// To this feature level instead of the highest that all nodes speak.
    #[arg(long, value_name = "NUMBER")]
    level: Option<u16>,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn show(show: Show) -> Result<(), Failure> {
    let client = show.connect.client().await?;
    let described = client.admin().describe_features().await?;
    client.close().await;
    print(&described, show.json)
}

fn print(described: &DescribedFeatures, json: bool) -> Result<(), Failure> {
    let (level, newest) = (described.level, described.newest);
    if json {
        let node = |(id, speaks): &(BrokerId, Option<FeatureLevel>)| json!({"node": id.0, "speaks": speaks.map(|l| l.0)});
        let nodes: Vec<_> = described.nodes.iter().map(node).collect();
        return line(
            json!({"feature_level": level.0, "lowest": described.lowest.0, "newest": newest.0, "nodes": nodes}),
        );
    }
    let row = |(id, speaks): &(BrokerId, Option<FeatureLevel>)| {
        let speaks = speaks.map_or_else(|| "does not answer".to_owned(), |l| l.to_string());
        vec![id.to_string(), speaks]
    };
    let rows: Vec<_> = described.nodes.iter().map(row).collect();
    table(&["node", "speaks"], &rows)?;
    line(format!("the cluster is at feature level {level}"))?;
    let all_newer = described
        .nodes
        .iter()
        .all(|(_, l)| l.is_some_and(|l| l > level));
    if all_newer {
        note("all nodes speak more: callboard cluster upgrade");
    }
    Ok(())
}

pub(super) async fn upgrade(upgrade: Upgrade) -> Result<(), Failure> {
    let client = upgrade.connect.client().await?;
    let level = upgrade.level.map(FeatureLevel);
    let updated = client
        .admin()
        .update_features(level, upgrade.dry_run)
        .await?;
    client.close().await;
    note(match upgrade.dry_run {
        true => format!("the cluster would be at feature level {updated}"),
        false => format!("the cluster is at feature level {updated}"),
    });
    Ok(())
}
