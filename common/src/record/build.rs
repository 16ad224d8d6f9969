//! Makes batches: for the client's producer, for the broker's own topics, for tests.

use bytes::{BufMut, Bytes, BytesMut};

use super::batch::{CHECKSUM_FROM, LENGTH_PREFIX_BYTES, checksum};
use super::{Batch, BatchHeader, Compression, HEADER_BYTES, Header, varint};

/// Collects records into one batch.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    producer: (i64, i16, i32),
    records: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            producer: (-1, -1, -1),
            records: Vec::new(),
            count: 0,
            base_timestamp: -1,
            max_timestamp: -1,
        }
    }

    /// Marks the batch as an idempotent producer's: its id, epoch and the first record's sequence number.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Appends a record; its offset counts up from the batch's.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) {
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let delta = timestamp - self.base_timestamp;
        let out = &mut self.records;
        let size = record_size(delta, self.count, key, value, headers);
        varint::write(out, size as i64);
        out.push(0);
        varint::write(out, delta);
        varint::write(out, self.count.into());
        write_blob(out, key);
        write_blob(out, value);
        varint::write(out, headers.len() as i64);
        for header in headers {
            write_blob(out, Some(header.key.as_bytes()));
            write_blob(out, header.value.as_deref());
        }
        self.count += 1;
    }

    /// How many records there are.
    #[must_use]
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Size of the batch so far, before compression.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The most that a record adds to a batch, before compression.
    #[must_use]
    pub fn record_size_bound(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> usize {
        // Length, timestamp and offset at their longest.
        5 + record_size(i64::MAX, i32::MAX, key, value, headers)
    }

    /// Closes the batch: compresses, fills the header, computes the checksum. The base offset is 0.
    ///
    /// # Panics
    ///
    /// Panics if there is no record or the batch exceeds 2 GiB; callers bound batches far below.
    #[must_use]
    pub fn build(self) -> Batch {
        assert!(self.count > 0, "a batch holds a record");
        let body = self.compression.compress(self.records);
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let mut header = BatchHeader {
            base_offset: 0,
            batch_length: i32::try_from(HEADER_BYTES - LENGTH_PREFIX_BYTES + body.len())
                .expect("bounded by callers"),
            leader_epoch: -1,
            magic: 2,
            checksum: 0,
            attributes: self.compression.number(),
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: self.count,
        };
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + body.len());
        bytes.put_slice(&header.write());
        bytes.put_slice(&body);
        header.checksum = checksum(&bytes[CHECKSUM_FROM..]);
        bytes[..HEADER_BYTES].copy_from_slice(&header.write());
        let bytes: Bytes = bytes.freeze();
        Batch::parse(bytes).expect("a batch that was just built is valid")
    }
}

fn blob_size(blob: Option<&[u8]>) -> usize {
    blob.map_or(1, |b| varint::length(b.len() as i64) + b.len())
}

fn record_size(
    delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header],
) -> usize {
    let header = |h: &Header| blob_size(Some(h.key.as_bytes())) + blob_size(h.value.as_deref());
    1 + varint::length(delta)
        + varint::length(offset_delta.into())
        + blob_size(key)
        + blob_size(value)
        + varint::length(headers.len() as i64)
        + headers.iter().map(header).sum::<usize>()
}

fn write_blob(out: &mut Vec<u8>, blob: Option<&[u8]>) {
    match blob {
        Some(blob) => {
            varint::write(out, blob.len() as i64);
            out.extend_from_slice(blob);
        }
        None => varint::write(out, -1),
    }
}
