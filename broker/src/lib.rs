//! The Callboard node as a library.
#![warn(missing_docs)]

pub mod storage;
pub mod topic_config;
