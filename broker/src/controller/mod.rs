//! Metadata of the cluster: brokers, topics, leader epochs, producer ids, agreed on by Raft.
//!
//! [`state`] holds raft-rs' `RawNode`; [`image`] is what the committed commands add up to, with the rules of one
//! [`partition`], the choice of its replicas in [`placement`] and what moves by itself in [`balancer`]; [`survey`] asks nodes what they speak; [`log_file`]
//! keeps entries, votes and images on disk; [`actor`] is the shell. With one voter a command is committed once it is synced here.
//!
//! Invariants:
//! - a command takes effect when it is committed, in one order, and its preconditions are checked then;
//! - nothing is answered before it is synced.
//!
//! Sources: Ongaro, "Consensus: bridging theory and practice" (2014); raft-rs; KIP-500.

pub mod actor;
mod appended;
mod applying;
mod balancer;
mod brokers;
mod contact;
mod features;
pub mod image;
pub mod kafka_metadata;
mod liveness;
mod log_bytes;
pub mod log_file;
mod old_image;
pub mod partition;
pub mod placement;
mod published;
mod quorum;
mod quorum_storage;
pub mod raft_wire;
pub mod records;
pub mod recovery;
mod state;
pub mod survey;
mod talking;

pub use actor::ControllerActor;
pub use appended::Appended;
pub use balancer::Policy;
pub use image::{MetadataImage, TopicImage};
pub use partition::PartitionImage;
pub use published::READ_LEASE;
pub use quorum::{MemberView, QuorumView};
pub use records::{Command, Endpoint, Endpoints, Member, Outcome, Refusal};
pub use state::{
    Controller, Effect, Effects, Identity, Input, Led, Persisted, Proposal, QuorumChange,
    RestoreError, SavedImage, TICK, Ticket, raft_id,
};
