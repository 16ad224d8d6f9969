//! The Callboard node as a library.

pub mod api;
pub mod config;
pub mod controller;
pub mod coordinator;
pub mod directory;
pub mod follower;
pub mod leader;
pub mod metrics;
pub mod net;
pub mod node;
pub mod peer;
pub mod planted;
pub mod replicas;
pub mod security;
pub mod status;
pub mod storage;
pub mod supervision;
pub mod topic_config;

pub use config::BrokerConfig;
pub use node::{Node, NodeBuilder, OUTDATED_REASON, StartError};
