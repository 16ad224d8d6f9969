//! How the node is, for health and metrics.

use std::sync::Arc;

use callboard_common::kafka::Text;
use callboard_common::protocol::groups::ListGroups;
use callboard_common::protocol::offsets::{FetchGroupOffsets, FetchOffsets};
use callboard_common::protocol::{Request, Response, TopicRef};
use callboard_common::record::BatchHeader;
use callboard_common::{TopicName, TopicPartition};
use futures::FutureExt;
use tokio::sync::oneshot;

use crate::api::{Api, Became, Caller, Door};
use crate::controller::actor::Published;
use crate::leader::actor::Fetch;
use crate::metrics::{LagLabels, PartitionLabels};
use crate::net::http::{Check, Health, Refresh};
use crate::node::Shared;
use crate::security::Principal;
use crate::supervision::{self, Permit};

/// Most partitions and groups that are shown one by one: more would only fill the scraper's memory.
const MAX_SERIES: usize = 10_000;
/// Most reasons that a health answer lists.
const MAX_REASONS: usize = 10;

/// Whether everything is led here that metadata says is, and nothing is led by nobody.
#[must_use]
pub fn check(shared: Shared, published: Published) -> Check {
    Arc::new(move || {
        let image = published.image.load();
        let mut reasons = Vec::new();
        if published.is_cut_off(shared.clock.now().monotonic) {
            reasons.push("the quorum of the metadata is not heard of".to_owned());
        }
        for (name, topic) in &image.topics {
            let leaders = shared.directory.topic(name).unwrap_or_default();
            for (number, partition) in topic.numbered() {
                let led_here = || leaders.get(&number).is_some_and(|l| l.epoch().is_some());
                let led = match partition.leader {
                    Some(leader) => leader != shared.broker || led_here(),
                    // Whoever may lead it may be dead; a node that keeps none of it is well all the same.
                    None => !partition.replicas.contains(&shared.broker),
                };
                if !led && reasons.len() < MAX_REASONS {
                    reasons.push(format!("{name}-{number} has no leader"));
                }
            }
        }
        Health {
            live: true,
            ready: reasons.is_empty(),
            reasons,
        }
    })
}

fn caller() -> Caller {
    Caller {
        principal: Principal::Node,
        client_id: Text::from_static("metrics"),
        host: Text::default(),
        door: Door::Quic,
        permit: Permit::internal(),
        became: Became::default(),
    }
}

/// Brings log ends and group lags up to date.
#[must_use]
pub fn refresh(api: Api) -> Refresh {
    Arc::new(move || {
        let api = api.clone();
        async move {
            log_ends(&api);
            group_lags(&api).await;
        }
        .boxed()
    })
}

fn log_ends(api: &Api) {
    let metrics = &api.shared().metrics;
    metrics.log_start.clear();
    metrics.log_end.clear();
    let image = api.image();
    let mut shown = 0;
    for name in image.topics.keys() {
        for (number, leader) in api
            .shared()
            .directory
            .topic(name)
            .unwrap_or_default()
            .iter()
        {
            if shown == MAX_SERIES {
                return;
            }
            shown += 1;
            let ends = *leader.ends.borrow();
            let labels = PartitionLabels {
                topic: name.to_string(),
                partition: *number,
            };
            let _before = metrics
                .log_start
                .get_or_create(&labels)
                .set(ends.log_start.get());
            let _before = metrics
                .log_end
                .get_or_create(&labels)
                .set(ends.log_end.get());
        }
    }
}

async fn group_lags(api: &Api) {
    let metrics = &api.shared().metrics;
    let Response::ListGroups(listed) = api.start(caller(), Request::ListGroups(ListGroups)).await
    else {
        return;
    };
    let groups = listed.groups.into_iter().take(MAX_SERIES);
    let groups = groups
        .map(|g| FetchGroupOffsets {
            group: g.group,
            topics: None,
        })
        .collect();
    let fetch = Request::FetchOffsets(FetchOffsets {
        groups,
        by_id: false,
    });
    let Response::FetchOffsets(fetched) = api.start(caller(), fetch).await else {
        return;
    };
    metrics.lag_records.clear();
    metrics.lag_seconds.clear();
    let mut shown = 0;
    for group in fetched.groups {
        for (topic, offsets) in group.topics {
            let TopicRef::Name(name) = topic else {
                continue;
            };
            let Ok(topic) = TopicName::new(&name) else {
                continue;
            };
            for offset in offsets {
                let Some(committed) = offset.offset.filter(|_| shown < MAX_SERIES) else {
                    continue;
                };
                let partition = TopicPartition::new(topic.clone(), offset.partition);
                let Some(leader) = api.shared().directory.leader(&partition) else {
                    continue;
                };
                shown += 1;
                let end = leader.ends.borrow().high_watermark;
                let lag = (end - committed).max(0);
                let (group, topic) = (group.group.to_string(), topic.to_string());
                let labels = LagLabels {
                    group,
                    topic,
                    partition: offset.partition,
                };
                let _before = metrics.lag_records.get_or_create(&labels).set(lag);
                let seconds = if lag == 0 {
                    Some(0.0)
                } else {
                    age(api, &partition, committed.get()).await
                };
                if let Some(seconds) = seconds {
                    let _before = metrics.lag_seconds.get_or_create(&labels).set(seconds);
                }
            }
        }
    }
}

/// How old the batch at an offset is, in seconds.
async fn age(api: &Api, partition: &TopicPartition, from: i64) -> Option<f64> {
    let leader = api.shared().directory.leader(partition)?;
    let (reply, fetched) = oneshot::channel();
    let fetch = Fetch {
        from,
        max_bytes: 1,
        at_least_one: true,
        current_epoch: None,
        permit: Permit::internal(),
        reply,
    };
    supervision::tell(&leader.actor, fetch);
    let batches = fetched.await.ok()?.ok()?.batches;
    let header = BatchHeader::read(batches.first_chunk()?);
    let now = api.shared().clock.now().wall.0;
    Some((now - header.base_timestamp).max(0) as f64 / 1000.0)
}
