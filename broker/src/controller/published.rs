//! Where the node reads what the quorum has agreed on, without asking it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use callboard_common::{BrokerId, Monotonic};
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
}

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
    pub fn show(&self, image: Arc<MetadataImage>) -> bool {
        let version = image.applied;
        let is_newer = version > self.image.load().applied;
        if is_newer {
            self.image.store(image);
            let _before = self.version.send_replace(version);
        }
        is_newer
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
        }
    }
}
