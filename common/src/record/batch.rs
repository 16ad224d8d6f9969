//! The parse point: bytes become a [`Batch`] whose checksum and structure are known to be right.
//!
//! Base offset and leader epoch stand outside of the checksum, so the leader sets them without touching
//! the rest. A batch that is not compressed has the framing of every record checked, without allocating;
//! compressed records stay opaque.

use bytes::Bytes;

use super::Compression;
use super::read::check_framing;
use crate::{LeaderEpoch, Offset};

/// Size of the header in front of the records.
pub const HEADER_BYTES: usize = 61;
/// Bytes in front of those that the length field counts.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// Where the bytes begin that the checksum covers.
pub const CHECKSUM_FROM: usize = 21;

const ATTRIBUTES_AT: usize = 21;
const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;

/// Why bytes are not a batch, or not one that a producer may send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("the batch is cut short: {have_bytes} of {want_bytes} bytes")]
    Truncated {
        /// Bytes that are there.
        have_bytes: usize,
        /// Bytes that the batch announces, at least its header.
        want_bytes: usize,
    },
    /// Bytes follow the one batch that is allowed.
    #[error("{0} bytes follow the batch; one batch per partition is allowed")]
    TrailingBytes(usize),
    /// The length field says less than a header.
    #[error("a batch length of {0} is impossible")]
    Length(i32),
    /// Format 0, 1 or unknown.
    #[error("record format {0} is not supported, only 2")]
    Magic(i8),
    /// The checksum does not match.
    #[error("the checksum is {actual:08x}, the batch says {claimed:08x}")]
    Checksum {
        /// What the bytes give.
        actual: u32,
        /// What the header says.
        claimed: u32,
    },
    /// Compression number 5 to 7.
    #[error("compression number {0} is unknown")]
    Codec(i16),
    /// Record count, offset deltas or record framing contradict each other.
    #[error("the records are malformed: {0}")]
    Records(&'static str),
    /// The content could not be decompressed.
    #[error(transparent)]
    Decompress(#[from] super::compression::DecompressError),
}

/// The fields of a batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in Kafka's record format")]
pub struct BatchHeader {
    pub base_offset: i64,
    pub batch_length: i32,
    pub leader_epoch: i32,
    pub magic: i8,
    pub checksum: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("the range has this length")
}

impl BatchHeader {
    /// Reads the fields; nothing is checked.
    #[must_use]
    pub fn read(bytes: &[u8; HEADER_BYTES]) -> Self {
        Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            batch_length: i32::from_be_bytes(field(bytes, 8)),
            leader_epoch: i32::from_be_bytes(field(bytes, 12)),
            magic: bytes[16] as i8,
            checksum: u32::from_be_bytes(field(bytes, 17)),
            attributes: i16::from_be_bytes(field(bytes, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        }
    }

    /// Writes the fields.
    #[must_use]
    pub fn write(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        out[16] = self.magic as u8;
        out[17..21].copy_from_slice(&self.checksum.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        out
    }

    /// Size of the whole batch in bytes, if the length field is possible.
    ///
    /// # Errors
    ///
    /// [`BatchError::Length`] if it is less than a header or more than 32 bits can say.
    pub fn size_bytes(&self) -> Result<usize, BatchError> {
        let length = usize::try_from(self.batch_length)
            .map_err(|_| BatchError::Length(self.batch_length))?;
        if length < HEADER_BYTES - LENGTH_PREFIX_BYTES
            || length > i32::MAX as usize - LENGTH_PREFIX_BYTES
        {
            return Err(BatchError::Length(self.batch_length));
        }
        Ok(length + LENGTH_PREFIX_BYTES)
    }

    /// Offset after the last record.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
            .saturating_add(1)
    }

    /// Sequence number of the last record; sequence numbers go on from 0 after `i32::MAX`.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        advance_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// Whether the broker stamped the records when it appended them.
    #[must_use]
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & TIMESTAMP_TYPE_BIT != 0
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds a transaction marker.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// The codec of the records.
    #[must_use]
    pub fn compression(&self) -> Option<Compression> {
        Compression::from_attributes(self.attributes)
    }
}

/// The sequence number `by` records after `sequence` (KIP-98: they wrap at `i32::MAX`).
#[must_use]
pub fn advance_sequence(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) % (i64::from(i32::MAX) + 1)) as i32
}

/// The CRC-32C of a batch's bytes from [`CHECKSUM_FROM`] on.
#[must_use]
pub fn checksum(covered: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, covered) as u32
}

/// One batch: the bytes as they came and their header, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Parses the one batch that `bytes` are, as a producer sends it.
    ///
    /// # Errors
    ///
    /// [`BatchError`] says what is wrong; nothing was allocated.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let (batch, rest) = Self::split(bytes)?;
        if !rest.is_empty() {
            return Err(BatchError::TrailingBytes(rest.len()));
        }
        batch.check_records()?;
        Ok(batch)
    }

    /// Takes the first batch off `bytes` and returns what follows; length, format and checksum are checked.
    ///
    /// # Errors
    ///
    /// [`BatchError`] says what is wrong.
    pub fn split(mut bytes: Bytes) -> Result<(Self, Bytes), BatchError> {
        let truncated = |want_bytes| BatchError::Truncated {
            have_bytes: bytes.len(),
            want_bytes,
        };
        let header = bytes.first_chunk().ok_or_else(|| truncated(HEADER_BYTES))?;
        let header = BatchHeader::read(header);
        if header.magic != 2 {
            return Err(BatchError::Magic(header.magic));
        }
        let size = header.size_bytes()?;
        if bytes.len() < size {
            return Err(truncated(size));
        }
        let rest = bytes.split_off(size);
        let actual = checksum(&bytes[CHECKSUM_FROM..]);
        if actual != header.checksum {
            return Err(BatchError::Checksum {
                actual,
                claimed: header.checksum,
            });
        }
        if header.record_count < 0 || header.last_offset_delta < 0 {
            return Err(BatchError::Records("a count is negative"));
        }
        if header.compression().is_none() {
            return Err(BatchError::Codec(header.attributes & 7));
        }
        Ok((Self { header, bytes }, rest))
    }

    fn check_records(&self) -> Result<(), BatchError> {
        if self.header.record_count < 1 {
            return Err(BatchError::Records("there is no record"));
        }
        if self.header.record_count - 1 != self.header.last_offset_delta {
            return Err(BatchError::Records(
                "the last offset does not fit the record count",
            ));
        }
        if self.header.compression() == Some(Compression::None) {
            check_framing(&self.bytes[HEADER_BYTES..], self.header.record_count)?;
        }
        Ok(())
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The bytes as they came.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The records as they came, compressed or not.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    /// Size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many offsets the batch takes.
    #[must_use]
    pub fn offset_count(&self) -> i64 {
        i64::from(self.header.last_offset_delta) + 1
    }

    /// The header with the place in the log that the leader gives the batch.
    #[must_use]
    pub fn placed(&self, base: Offset, epoch: LeaderEpoch) -> BatchHeader {
        BatchHeader {
            base_offset: base.get(),
            leader_epoch: epoch.0,
            ..self.header
        }
    }

    /// The batch as another producer's, or at another place in its sequence; the checksum is renewed.
    #[must_use]
    pub fn by_producer(&self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.resealed(BatchHeader {
            producer_id: id,
            producer_epoch: epoch,
            base_sequence,
            ..self.header
        })
    }

    /// The batch stamped by the broker: attributes and max timestamp change and with them the checksum.
    #[must_use]
    pub fn stamped(&self, append_time: i64) -> Self {
        let attributes = self.header.attributes | TIMESTAMP_TYPE_BIT;
        self.resealed(BatchHeader {
            attributes,
            max_timestamp: append_time,
            ..self.header
        })
    }

    fn resealed(&self, mut header: BatchHeader) -> Self {
        let mut bytes = self.bytes.to_vec();
        bytes[..HEADER_BYTES].copy_from_slice(&header.write());
        header.checksum = checksum(&bytes[CHECKSUM_FROM..]);
        bytes[..HEADER_BYTES].copy_from_slice(&header.write());
        Self {
            header,
            bytes: bytes.into(),
        }
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
