//! A node tells the active controller how large the logs are that it leads, for the balance of what nodes keep.
//!
//! Logs are measured when their ends have changed, twice a minute at most, and told then; all of them when somebody else leads
//! the quorum. Partitions on which nothing happens cost nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actix::Addr;
use callboard_common::{Monotonic, Offset, TopicPartition, Uuid};
use tokio::sync::watch;

use super::Shared;
use crate::controller::actor::{LogSizesTold, Published};
use crate::controller::{ControllerActor, Led};
use crate::peer::link::Lane;
use crate::peer::protocol::{LogSizes, PeerRequest};
use crate::peer::{LinkError, Peers};
use crate::supervision;

/// Between two looks at the logs.
const EVERY: Duration = Duration::from_secs(5);
/// A log that is written to is measured this often.
const MEASURED_EVERY: Duration = Duration::from_secs(30);
/// After so many looks all are measured anew: what a full disk kept from being removed may be gone by now.
const LOOKS: u32 = 120;

/// A log as it was when it was measured.
#[derive(Clone, Copy, Debug)]
struct Measured {
    topic_id: Uuid,
    ends: (Offset, Offset),
    bytes: u64,
    at: Monotonic,
}

/// What is measured and told.
pub(super) struct Teller {
    shared: Shared,
    published: Published,
    controller: Addr<ControllerActor>,
    peers: Peers,
    measured: BTreeMap<TopicPartition, Measured>,
    /// Who was told all, if it still leads.
    told: Option<Led>,
    looks: u32,
}

impl Teller {
    pub(super) fn new(
        shared: Shared,
        published: Published,
        controller: Addr<ControllerActor>,
        peers: Peers,
    ) -> Self {
        Self {
            shared,
            published,
            controller,
            peers,
            measured: BTreeMap::new(),
            told: None,
            looks: 0,
        }
    }

    /// Tells until the node stops; on the worker of its peers.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let clock = self.shared.clock.clone();
        loop {
            tokio::select! {
                () = clock.sleep(EVERY) => self.once().await,
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn once(&mut self) {
        let changed = self.measure().await;
        let led = *self.published.led.borrow();
        let all = self.told != Some(led);
        let told = self
            .measured
            .iter()
            .filter(|(p, _)| all || changed.contains(p));
        let told = told.map(|(p, m)| (m.topic_id, p.partition, m.bytes));
        let logs: Vec<_> = told.collect();
        let is_told = logs.is_empty() || self.tell(led, LogSizes { logs }).await;
        self.told = is_told.then_some(led);
    }

    /// Measures what has changed, and says which that is.
    async fn measure(&mut self) -> BTreeSet<TopicPartition> {
        self.looks += 1;
        if self.looks.is_multiple_of(LOOKS) {
            self.measured.clear();
        }
        let now = self.shared.clock.now().monotonic;
        let led = self.shared.directory.leaders();
        self.measured.retain(|p, _| led.contains_key(p));
        let mut due = BTreeMap::new();
        for (partition, leader) in led {
            let ends = *leader.ends.borrow();
            let as_of = (ends.log_start, ends.log_end);
            let known = self.measured.get(&partition);
            let is_known = known.is_some_and(|m| {
                let is_fresh = m.ends == as_of || now.since(m.at) < MEASURED_EVERY;
                m.topic_id == leader.topic_id && is_fresh
            });
            if ends.epoch.is_some() && !is_known {
                let _none = due.insert(partition, (leader.topic_id, as_of));
            }
        }
        let named = due.keys().cloned().collect();
        let mut changed = BTreeSet::new();
        for (partition, bytes) in self.shared.log_bytes(named).await.unwrap_or_default() {
            let Some((topic_id, ends)) = due.remove(&partition) else {
                continue;
            };
            let measured = Measured {
                topic_id,
                ends,
                bytes,
                at: now,
            };
            let _before = self.measured.insert(partition.clone(), measured);
            let _new: bool = changed.insert(partition);
        }
        changed
    }

    /// Whether who leads the quorum was told, or does not want to know.
    async fn tell(&self, led: Led, sizes: LogSizes) -> bool {
        if led.here {
            supervision::tell(&self.controller, LogSizesTold { sizes });
            return true;
        }
        let image = self.published.image.load_full();
        let leader = led.leader.and_then(|broker| {
            let mut members = image.members.values();
            members.find(|m| m.broker == broker).cloned()
        });
        let Some(leader) = leader else { return false };
        let link = self.peers.link(leader.broker, &leader.peer);
        let asked = link.ask(Lane::Control, PeerRequest::LogSizes(sizes)).await;
        !matches!(asked, Err(LinkError::Unreachable(_) | LinkError::Broken(_)))
    }
}
