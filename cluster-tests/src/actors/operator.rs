//! An operator who moves, elects and asks while others write: what replicas are started and stopped for.

use std::sync::Arc;
use std::time::Duration;

use callboard_client::protocol::cluster::Destination;
use callboard_client::{BrokerId, Client, TopicPartition};

use crate::chaos::{PARTITIONS, Shared, TOPIC, topic};
use crate::sim::random::Random;

/// What one order may take; then another one is given.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives orders until the load is over.
pub(super) async fn operate(shared: Arc<Shared>, seed: u64, shrinks: bool) {
    let mut random = Random::new(seed, "operator");
    while !shared.is_over() {
        tokio::time::sleep(Duration::from_millis(random.between(500, 4_000))).await;
        let order = order(&shared, &mut random, shrinks);
        // Refused, cut off or done: the cluster is to be whole whatever comes of it.
        let _done = tokio::time::timeout(PATIENCE, order).await;
    }
}

/// Has every partition on all nodes again and waits until all of them are in sync, however long that takes.
pub(super) async fn make_whole(shared: &Shared) {
    loop {
        match tokio::time::timeout(PATIENCE, replicas(shared)).await {
            Ok(Some((_, in_sync))) if in_sync.iter().all(|n| *n == 3) => return,
            Ok(Some((all, _))) => {
                for (partition, _) in all.iter().enumerate().filter(|(_, n)| **n != 3) {
                    let moving = reassign(shared, partition as i32, Destination::Factor(3));
                    let _asked = tokio::time::timeout(PATIENCE, moving).await;
                }
            }
            Ok(None) | Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// How many replicas each partition has, and how many of them are in sync.
async fn replicas(shared: &Shared) -> Option<(Vec<usize>, Vec<usize>)> {
    let client = Client::connect(shared.client.clone()).await.ok()?;
    let described = client.admin().describe_topics(&[TOPIC]).await.ok()?;
    let partitions = &described.first()?.partitions;
    let all = partitions.iter().map(|p| p.replicas.len()).collect();
    Some((all, partitions.iter().map(|p| p.isr.len()).collect()))
}

async fn order(shared: &Shared, random: &mut Random, shrinks: bool) -> Option<()> {
    let partition = random.below(PARTITIONS.into()) as i32;
    let mut nodes: Vec<BrokerId> = (1..=3).map(BrokerId).collect();
    nodes.rotate_left(random.below(3) as usize);
    match random.below(6) {
        0 if shrinks => reassign(shared, partition, Destination::Factor(2)).await,
        0 | 1 => reassign(shared, partition, Destination::Factor(3)).await,
        2 => reassign(shared, partition, Destination::Nodes(nodes)).await,
        3 => reassign(shared, partition, Destination::Back).await,
        4 => {
            let client = Client::connect(shared.client.clone()).await.ok()?;
            let _elected = client.admin().elect_leaders(None, false).await.ok()?;
            Some(())
        }
        _ => {
            let client = Client::connect(shared.client.clone()).await.ok()?;
            let _logs = client.admin().describe_logs().await.ok()?;
            Some(())
        }
    }
}

async fn reassign(shared: &Shared, partition: i32, to: Destination) -> Option<()> {
    let client = Client::connect(shared.client.clone()).await.ok()?;
    let moved = (TopicPartition::new(topic(), partition), to);
    let _each = client.admin().reassign(vec![moved]).await.ok()?;
    Some(())
}
