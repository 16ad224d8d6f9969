//! A deterministic simulator: the node's pure cores over its real storage, on simulated disks, network and time.
//!
//! One seed decides everything: [`plan`] draws cluster, load and faults, [`world`] runs them, [`truth`] watches what
//! must hold after every event, [`runner`] runs many seeds and shrinks those that fail. What the actors' shells do, `node`
//! and its replicas do in virtual time; the shells themselves are tested by the linked cluster and by processes.
//!
//! Sources: FoundationDB's simulation; TigerBeetle's VOPR (faults, then everything heals and must become live).

pub mod client;
pub mod committer;
pub mod context;
pub mod durable;
pub mod event;
pub mod following;
pub mod groups;
pub mod hub;
pub mod leading;
pub mod member;
pub mod node;
pub mod plan;
pub mod random;
pub mod replica;
pub mod runner;
pub mod syncing;
pub mod truth;
mod view;
pub mod world;
