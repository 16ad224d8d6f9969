//! Callboard's client for Rust services: producers, consumers and admin over QUIC.
//!
//! Everything comes in two forms: plain async handles ([`Client`], [`Producer`], [`Consumer`], [`Admin`]) and actix
//! actors around them (`actors`, behind the feature of that name). Handles need a tokio runtime.
//!
//! Features: `actors` (default); `aws-lc` (default) or `ring` for cryptography.
//!
//! ```
//! # use callboard_broker::Node;
//! use callboard_client::{Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig, Record, Trust};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = Node::builder().in_memory().start().await?;
//! let trust = Trust::Ca(node.ca_pem().to_owned());
//! let client = Client::connect(ClientConfig::new(node.quic(), trust)).await?;
//! client.admin().create_topic("greetings", 3).await?;
//!
//! let producer = Producer::new(&client, ProducerConfig::default());
//! let delivery = producer.send(Record::to("greetings").key("alice").value("hello")).await?;
//! producer.close().await?;
//!
//! let mut consumer = Consumer::subscribe(&client, ConsumerConfig::group("readers"), ["greetings"]).await?;
//! let record = consumer.recv().await?;
//! assert_eq!(record.value.as_deref(), Some(&b"hello"[..]));
//! assert_eq!(record.offset, delivery.offset);
//! consumer.commit().await?;
//! consumer.close().await?;
//! # assert!(node.stop().await.is_empty());
//! # Ok(()) }
//! ```

#![warn(missing_docs)]

#[cfg(feature = "actors")]
pub mod actors;
mod admin;
mod client;
mod config;
mod connection;
mod consumer;
mod error;
mod interceptor;
mod metadata;
mod metrics;
mod producer;
mod profile;
mod routing;
mod spawn;

pub use admin::Admin;
pub use client::Client;
pub use config::{Acks, ClientConfig, ConsumerConfig, Credentials, OffsetReset, ProducerConfig};
pub use consumer::{ConsumedRecord, Consumer, RebalanceListener, StartAt};
pub use error::Error;
pub use interceptor::{ConsumerInterceptor, ProducerInterceptor};
pub use metrics::ClientMetrics;
pub use producer::{Delivery, PendingDelivery, Producer, Record};
pub use profile::Profile;

pub use callboard_common::kafka::Text;
pub use callboard_common::protocol;
pub use callboard_common::record::{Compression, Header};
pub use callboard_common::transport::tls::{ClientCertificate, Fingerprint, Trust};
pub use callboard_common::{
    BrokerId, ErrorCode, FeatureLevel, LeaderEpoch, Offset, TopicName, TopicPartition,
};
pub use producer::partitioner::murmur2;
