//! Other nodes: links to them, what is said on them, and how it is noticed that one has died.
//!
//! A [`Link`] is one QUIC connection to one node, opened when it is needed, with lanes that do not wait for each other.
//! Everything about it runs on a worker of its own; what comes in is handed to actors.
//!
//! - [`protocol`]: requests between nodes, and the frames of replication;
//! - [`link`]: asking another node;
//! - [`fetcher`]: one lane to each leader, many partitions on it, nothing said of those that are idle;
//! - [`tripwire`]: a TCP connection that carries nothing, whose end tells that a process has ended;
//! - [`suspects`]: nodes whose wire has just broken;
//! - [`pace`]: how fast replicas are fed that are not in sync.

pub mod fetcher;
pub mod link;
pub mod pace;
pub mod protocol;
pub mod suspects;
pub mod tripwire;

pub use link::{Link, LinkError, Peers};
