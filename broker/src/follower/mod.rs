//! Follower of one partition: takes what its leader sends, makes it durable, says how far it is.
//!
//! Data flows one way, as in [`leader`](crate::leader): a message becomes an [`Input`], [`Follower::step`] answers with
//! [`Effect`]s, the actor performs them on the [`Log`](crate::storage::Log).
//!
//! Invariants:
//! - nothing is appended that does not continue the log, or comes from another reign than the one followed;
//! - what is reported as durable was synced;
//! - the log is cut only where the leader's epochs say that it differs (KIP-101, KIP-279), never by the high watermark.

pub mod actor;
mod reading;
mod state;

pub use actor::{FollowerActor, FollowerStart};
pub use state::{Effect, Effects, Follower, Input, Position};

#[cfg(test)]
mod scenes_tests;
