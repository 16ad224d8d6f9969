//! Feature levels: one number for what nodes of a release can say to each other and for what stands in their metadata log
//! (Kafka's `metadata.version`, KIP-584, KIP-778).
//!
//! Two nodes speak the highest level that both know. The cluster as a whole is at the level that was set last: everybody
//! knows that one, and who does not is not let in. A release knows the levels of the one before it, so that nodes can be
//! replaced one by one, and the level is raised when all are.

use bincode::{Decode, Encode};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct FeatureLevel(pub u16);

impl FeatureLevel {
    /// What clusters of releases are at that did not know levels.
    pub const BEFORE_LEVELS: Self = Self(3);
    /// The lowest level that this release speaks.
    pub const LOWEST: Self = Self::BEFORE_LEVELS;
    /// From here on nodes tell the controller how large their logs are, and metadata logs name levels.
    pub const LOG_SIZES: Self = Self(4);
    /// From here on nodes say when they did not stop in order, and replicas that may lack something for that do not lead.
    pub const UNCLEAN_STARTS: Self = Self(5);
    /// The highest level that this release speaks; new clusters begin at it.
    pub const NEWEST: Self = Self::UNCLEAN_STARTS;

    /// The levels from this one down to the lowest that is spoken.
    pub fn down(self) -> impl Iterator<Item = Self> {
        (Self::LOWEST.0..=self.0).rev().map(Self)
    }
}

impl Default for FeatureLevel {
    fn default() -> Self {
        Self::BEFORE_LEVELS
    }
}

impl std::fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
