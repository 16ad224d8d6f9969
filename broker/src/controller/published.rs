//! Where the node reads what the quorum has agreed on, without asking it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use callboard_common::{BrokerId, Monotonic};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::image::MetadataImage;
use super::state::Led;
use crate::peer::suspects::Suspects;
use crate::planted::{self, Bug};

/// Where the committed metadata is shown.
#[derive(Clone, Debug)]
pub struct Published {
    /// The newest image: requests read it without locks.
    pub image: Arc<ArcSwap<MetadataImage>>,
    /// Its index, for who wants to be woken.
    pub version: watch::Sender<u64>,
    /// Who leads the quorum.
    pub led: watch::Sender<Led>,
    /// When the quorum was last known to be there, in milliseconds; see [`Published::is_cut_off`].
    contact_ms: Arc<AtomicU64>,
    /// Whether there are others who could take this node's place.
    has_peers: bool,
    /// Nodes whose tripwire broke.
    pub suspects: Suspects,
    /// Whether the data directory is older than what the node has acknowledged.
    pub outdated: watch::Sender<bool>,
    /// Nodes that were alive when this one saw it, and since when they are not; see [`Published::departed`]. A node that starts sees
    /// once more what was decided since its image, and takes that for news: it tells of a few nodes too many for a while.
    departed: Arc<Mutex<BTreeMap<BrokerId, Monotonic>>>,
}

/// As long as Kafka shows a node that has died, because it waits for it (`broker.session.timeout.ms`).
const DEPARTED: Duration = Duration::from_secs(9);
/// So long a node serves what it leads and coordinates without hearing of the quorum. It is longer than others wait before
/// they take its place, and bounds how old an answer can be.
const LEASE: Duration = Duration::from_secs(3);
/// Nobody takes its place earlier than this after its last contact. It is half a session: a leader of the quorum that is cut off
/// together with this node answers for up to a second more, and its successor begins no earlier than half a second after.
pub const READ_LEASE: Duration = Duration::from_millis(500);

impl Published {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(has_peers: bool) -> Self {
        Self {
            has_peers,
            ..Self::default()
        }
    }

    /// Whether this node has not heard of the quorum for longer than its lease: others may have its place.
    #[must_use]
    pub fn is_cut_off(&self, now: Monotonic) -> bool {
        self.has_outlived(LEASE, now)
    }

    /// Whether others may have this node's place by now, if it is cut off. What would be wrong if it were old, such as what a
    /// group has committed, is not answered then.
    #[must_use]
    pub fn may_be_replaced(&self, now: Monotonic) -> bool {
        self.has_outlived(READ_LEASE, now)
    }

    fn has_outlived(&self, lease: Duration, now: Monotonic) -> bool {
        let contact = Monotonic(Duration::from_millis(self.contact_ms.load(Relaxed)));
        self.has_peers && now.since(contact) > lease && !planted::is(Bug::StaleLeaderServes)
    }

    /// Nodes that count as alive and whose tripwire has broken: the metadata is about to say that they are dead, or their
    /// wires are held again. It asks the kernel once for every node.
    #[must_use]
    pub fn suspected(&self) -> BTreeSet<BrokerId> {
        let image = self.image.load();
        let alive = image.alive().map(|(id, _)| id);
        alive.filter(|id| self.suspects.holds(*id)).collect()
    }

    /// Shows a newer image; an older one, of a controller that has just started again, is not shown: nobody acts on what
    /// was before what it has acted on already. Whether it is shown.
    pub fn show(&self, image: Arc<MetadataImage>, now: Monotonic) -> bool {
        let version = image.applied;
        let before = self.image.load();
        let is_newer = version > before.applied;
        if is_newer {
            self.note_departures((&before, &image), now);
            self.image.store(image);
            let _before = self.version.send_replace(version);
        }
        is_newer
    }

    fn note_departures(&self, (before, after): (&MetadataImage, &MetadataImage), now: Monotonic) {
        let (were, are) = (before.unfenced(), after.unfenced());
        if were == are {
            return;
        }
        let mut departed = self.departed.lock();
        departed.extend(were.difference(&are).map(|id| (*id, now)));
        departed.retain(|id, since| !are.contains(id) && now.since(*since) < DEPARTED);
    }

    /// Nodes that are not alive and were until a moment ago, whether they died or stopped in order. Clients are told where they
    /// were: one of librdkafka forgets a node that is not told at once, before it has given what it had for it to the new
    /// leader, and finds that out a second later.
    #[must_use]
    pub fn departed(&self, now: Monotonic) -> BTreeSet<BrokerId> {
        let departed = self.departed.lock();
        let recent = departed
            .iter()
            .filter(|(_, since)| now.since(**since) < DEPARTED);
        recent.map(|(id, _)| *id).collect()
    }

    /// The quorum was heard of.
    pub fn note_contact(&self, at: Monotonic) {
        self.contact_ms.store(at.0.as_millis() as u64, Relaxed);
    }
}

impl Default for Published {
    fn default() -> Self {
        Self {
            image: Arc::default(),
            version: watch::Sender::new(0),
            led: watch::Sender::default(),
            contact_ms: Arc::default(),
            has_peers: false,
            suspects: Suspects::default(),
            outdated: watch::Sender::new(false),
            departed: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use callboard_common::Uuid;

    use super::super::Command;
    use super::*;

    /// Who died a moment ago is told of as Kafka would, who came back or died long ago is not, nor who never lived as far as this
    /// node knows.
    #[test]
    fn a_node_that_has_just_died_is_remembered_for_a_while() {
        let published = Published::new(true);
        let mut image = MetadataImage::default();
        let at = |ms| Monotonic(Duration::from_millis(ms));
        let mut index = 0;
        let mut apply = |command, ms| {
            index += 1;
            image.apply(index, command).expect("applied");
            assert!(published.show(Arc::new(image.clone()), at(ms)));
            let epoch = |b| image.brokers.get(&b).map_or(-1, |b| b.epoch);
            (epoch(BrokerId(1)), epoch(BrokerId(2)))
        };
        let register = |broker, life| Command::RegisterBroker {
            broker: BrokerId(broker),
            directory: Uuid([broker as u8; 16]),
            incarnation: Uuid([life; 16]),
        };
        let fence = |broker, epoch| Command::FenceBroker {
            broker: BrokerId(broker),
            epoch,
            stops: false,
        };
        let _epochs = apply(register(1, 1), 0);
        let (first, second) = apply(register(2, 2), 0);
        assert!(published.departed(at(0)).is_empty());
        let _epochs = apply(fence(1, first), 1_000);
        let _epochs = apply(fence(2, second), 9_000);
        let both = BTreeSet::from([BrokerId(1), BrokerId(2)]);
        assert_eq!(published.departed(at(9_000)), both);
        assert_eq!(
            published.departed(at(10_001)),
            BTreeSet::from([BrokerId(2)])
        );
        let _epochs = apply(register(2, 3), 10_002);
        assert!(published.departed(at(10_002)).is_empty());
        let late = Published::new(true);
        assert!(late.show(published.image.load_full(), at(10_003)));
        assert!(late.departed(at(10_003)).is_empty());
    }
}
