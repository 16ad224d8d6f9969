//! What node and client of Callboard share: vocabulary, record format, wire protocols, transport.
//!
//! | module | what |
//! |---|---|
//! | [`ids`], [`offset`], [`time`], [`error_code`] | the words: partitions, offsets, epochs, clocks, Kafka's errors |
//! | [`feature`] | what nodes of different releases can say to each other |
//! | [`record`] | batches in Kafka's format 2, codecs |
//! | [`kafka`] | Kafka's wire protocol, generated from schemas |
//!
//! There are no actors here, and nothing asynchronous outside of `transport`, `runtime` and [`time`].

#![warn(missing_docs)]

#[cfg(panic = "abort")]
compile_error!("supervision needs panics that unwind");

pub mod config;
pub mod crypto;
pub mod error_code;
pub mod feature;
pub mod ids;
pub mod kafka;
pub mod logging;
pub mod offset;
pub mod protocol;
pub mod record;
#[cfg(feature = "runtime")]
pub mod runtime;
pub mod time;
pub mod transport;
pub mod wire;

pub use error_code::ErrorCode;
pub use feature::FeatureLevel;
pub use ids::{BrokerId, ProducerId, TopicName, TopicPartition, Uuid};
pub use offset::{LeaderEpoch, Offset};
pub use time::{Clock, Monotonic, Now, Timestamp};
