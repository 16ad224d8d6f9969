//! When a node that starts may open its doors: what it leads is led.

use std::time::Duration;

use callboard_common::TopicPartition;
use slog::warn;

use super::Shared;
use crate::controller;
use crate::controller::actor::Published;

/// How long a start waits for the leaders.
const START_TIMEOUT: Duration = Duration::from_mins(10);

/// Waits until what metadata names is led, or is in doubt and waits for another node; a log that cannot be opened is not waited for longer than that.
pub(super) async fn wait_until_led(shared: &Shared, published: &Published) {
    let image = published.image.load_full();
    let mut changes = shared.directory.changes();
    let wanted: Vec<TopicPartition> = image
        .topics
        .iter()
        .flat_map(|(name, topic)| {
            let led_here =
                |(_, p): &(i32, &controller::PartitionImage)| p.leader == Some(shared.broker);
            topic
                .numbered()
                .filter(led_here)
                .map(|(n, _)| TopicPartition::new(name.clone(), n))
        })
        .collect();
    let all_led = async {
        for partition in wanted {
            let leader = loop {
                if let Some(leader) = shared.directory.leader(&partition) {
                    break leader;
                }
                let offline = shared.metrics.offline_partitions.get() > 0;
                if offline || changes.changed().await.is_err() {
                    return;
                }
            };
            let mut ends = leader.ends.clone();
            tokio::select! {
                _ = ends.wait_for(|e| e.epoch.or(e.in_doubt).is_some()) => {}
                _ = gone(shared, &partition) => {}
            }
        }
    };
    let timer = tokio::time::timeout(START_TIMEOUT, all_led);
    if timer.await.is_err() {
        warn!(
            shared.logger,
            "some partitions are not led yet; the rest is served"
        );
    }
}

/// Waits until the directory no longer knows a leader.
async fn gone(shared: &Shared, partition: &TopicPartition) {
    let mut changes = shared.directory.changes();
    while shared.directory.leader(partition).is_some() {
        if changes.changed().await.is_err() {
            return;
        }
    }
}
