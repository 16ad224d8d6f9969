//! An operator who moves, elects and asks while others write: what replicas are started and stopped for.

use std::sync::Arc;
use std::time::Duration;

use callboard_client::protocol::cluster::Destination;
use callboard_client::{BrokerId, Client, TopicPartition};

use crate::chaos::{PARTITIONS, Shared, topic};
use crate::sim::random::Random;

/// What one order may take; then another one is given.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives orders until the load is over, and then has every partition on all nodes again.
pub(super) async fn operate(shared: Arc<Shared>, seed: u64, shrinks: bool) {
    let mut random = Random::new(seed, "operator");
    while !shared.is_over() {
        tokio::time::sleep(Duration::from_millis(random.between(500, 4_000))).await;
        let order = order(&shared, &mut random, shrinks);
        // Refused, cut off or done: the cluster is to be whole whatever comes of it.
        let _done = tokio::time::timeout(PATIENCE, order).await;
    }
    for partition in 0..PARTITIONS as i32 {
        let to = Destination::Factor(3);
        let _done = tokio::time::timeout(PATIENCE, reassign(&shared, partition, to)).await;
    }
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
