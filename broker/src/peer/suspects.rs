//! Nodes whose tripwire has broken, known before anybody has decided that they are dead.

use std::collections::BTreeMap;
use std::sync::Arc;

use callboard_common::BrokerId;
use parking_lot::Mutex;

use super::tripwire::{Sign, Wire};

#[derive(Debug, Default)]
struct Watched {
    wire: Option<Wire>,
    broke: bool,
}

/// What the tripwires say; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Suspects(Arc<Mutex<BTreeMap<BrokerId, Watched>>>);

impl Suspects {
    /// Something happened to the wire to a node.
    pub fn note(&self, broker: BrokerId, sign: Sign) {
        let mut all = self.0.lock();
        let watched = all.entry(broker).or_default();
        match sign {
            // If that one breaks too the kernel knows.
            Sign::Connected(wire) => {
                *watched = Watched {
                    wire: Some(wire),
                    broke: false,
                }
            }
            Sign::Broke => {
                *watched = Watched {
                    wire: None,
                    broke: true,
                }
            }
        }
    }

    /// Whether the wire to a node is broken, as the kernel knows by now.
    #[must_use]
    pub fn holds(&self, broker: BrokerId) -> bool {
        let all = self.0.lock();
        all.get(&broker)
            .is_some_and(|w| w.broke || w.wire.as_ref().is_some_and(Wire::is_broken))
    }
}
