//! The Callboard node as a library.

pub mod controller;
pub mod leader;
pub mod metrics;
pub mod storage;
pub mod supervision;
pub mod topic_config;
