//! The Callboard node as a library.
#![warn(missing_docs)]

pub mod leader;
pub mod metrics;
pub mod storage;
pub mod supervision;
pub mod topic_config;
