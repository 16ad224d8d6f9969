//! Code generator of the Kafka messages, run by `build.rs` only.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "most kinds are treated alike"
)]

pub(crate) mod rust;
pub(crate) mod schema;
