//! Metadata of the cluster: brokers, topics, leader epochs, producer ids, agreed on by Raft.
//!
//! [`state`] holds raft-rs' `RawNode`; [`image`] is what the committed commands add up to; [`log_file`] keeps
//! entries, votes and snapshots on disk; [`actor`] is the shell. With one voter a command is committed once it is
//! synced here; a cluster will replace the transport, not this design.
//!
//! Invariants:
//! - a command takes effect when it is committed, in one order, and its preconditions are checked then;
//! - nothing is answered before it is synced.
//!
//! Sources: Ongaro, "Consensus: bridging theory and practice" (2014); raft-rs; KIP-500.

pub mod actor;
pub mod image;
pub mod kafka_metadata;
pub mod log_file;
pub mod records;
mod state;

pub use actor::{ControllerActor, Propose};
pub use image::{MetadataImage, TopicImage};
pub use records::{Command, Outcome, Refusal};
pub use state::{Controller, Effect, Effects, Input, Persisted, RestoreError, Ticket};
