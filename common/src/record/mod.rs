//! Records and the batches that hold them, in Kafka's format 2.
//!
//! A batch travels through the broker as the bytes the producer made; only its header is looked at.
//! [`Batch`] is that header, parsed and checked; its records are read only where a rule needs them.
//!
//! Sources: KIP-98 (format 2); KIP-32 (timestamps); KIP-82 (headers).

pub mod batch;
pub mod build;
pub mod compression;
pub mod file;
pub mod producers;
pub mod read;
mod varint;

pub use batch::{Batch, BatchError, BatchHeader, HEADER_BYTES};
pub use build::BatchBuilder;
pub use compression::Compression;

use bytes::Bytes;

/// One record's header: a name and a value, which may be null. Names may repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The name.
    pub key: crate::kafka::Text,
    /// The value.
    pub value: Option<Bytes>,
}

/// One record as a consumer sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Position in the partition.
    pub offset: crate::Offset,
    /// Milliseconds since the Unix epoch: when it was created or appended, as its batch says.
    pub timestamp: i64,
    /// Decides the partition.
    pub key: Option<Bytes>,
    /// The content.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Vec<Header>,
}
