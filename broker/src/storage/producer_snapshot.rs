//! `.snapshot`: the idempotent producers of a partition at an offset, in Kafka's format 1.
//!
//! Version (2 bytes), CRC-32C of what follows (4), count (4), then per entry: id (8), epoch (2), last sequence
//! (4), last offset (8), offset delta (4), timestamp (8), coordinator epoch (4), first offset of the current
//! transaction (8, -1 for none). Kafka writes one entry per producer and, of several, takes the last. Here each of a
//! producer's last batches has one, oldest first: a log changes hands with its snapshot, and what a producer sends again
//! then must be recognised. What was appended after the snapshot is read from the log. A cache: with no snapshot all is.

use bytes::{Buf, BufMut};
use callboard_common::record::batch::{advance_sequence, checksum};
use callboard_common::record::producers::{ProducedBatch, ProducerTable};

const VERSION: i16 = 1;
const ENTRY_BYTES: usize = 46;
const NO_COORDINATOR_EPOCH: i32 = -1;
const NO_TRANSACTION: i64 = -1;

/// The file's content.
#[must_use]
pub fn encode(producers: &ProducerTable) -> Vec<u8> {
    let count: usize = producers.iter().map(|(_, p)| p.batches.len()).sum();
    let mut entries = Vec::with_capacity(4 + count * ENTRY_BYTES);
    entries.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
    let batches = producers
        .iter()
        .flat_map(|(id, p)| p.batches.iter().map(move |batch| (id, p.epoch, batch)));
    for (id, epoch, batch) in batches {
        entries.put_i64(id);
        entries.put_i16(epoch);
        entries.put_i32(batch.last_sequence);
        entries.put_i64(batch.last_offset);
        entries.put_i32(batch.offset_delta);
        entries.put_i64(batch.timestamp);
        entries.put_i32(NO_COORDINATOR_EPOCH);
        entries.put_i64(NO_TRANSACTION);
    }
    let mut out = Vec::with_capacity(6 + entries.len());
    out.put_i16(VERSION);
    out.put_u32(checksum(&entries));
    out.put_slice(&entries);
    out
}

/// Reads a file's content; `None` if it is of another version, damaged or cut short.
#[must_use]
pub fn decode(mut bytes: &[u8]) -> Option<ProducerTable> {
    let (version, claimed) = (bytes.try_get_i16().ok()?, bytes.try_get_u32().ok()?);
    if version != VERSION || checksum(bytes) != claimed {
        return None;
    }
    let count = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
    if bytes.len() != count.checked_mul(ENTRY_BYTES)? {
        return None;
    }
    let mut table = ProducerTable::default();
    for _ in 0..count {
        let (id, epoch) = (bytes.get_i64(), bytes.get_i16());
        let (last_sequence, last_offset) = (bytes.get_i32(), bytes.get_i64());
        let (offset_delta, timestamp) = (bytes.get_i32(), bytes.get_i64());
        bytes.advance(12);
        if offset_delta < 0 || last_sequence < 0 || last_offset < i64::from(offset_delta) {
            return None;
        }
        // The numbers wrap after `i32::MAX`; going back is going forward by the rest of the circle.
        let back = (i64::from(i32::MAX) + 1 - i64::from(offset_delta)) % (i64::from(i32::MAX) + 1);
        let first_sequence = advance_sequence(last_sequence, i32::try_from(back).ok()?);
        let batch = ProducedBatch {
            first_sequence,
            last_sequence,
            last_offset,
            offset_delta,
            timestamp,
        };
        table.restore(id, epoch, batch);
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use callboard_common::record::{BatchBuilder, Compression};

    #[test]
    fn snapshots_round_trip_and_damage_is_noticed() {
        let mut table = ProducerTable::default();
        for (id, sequence) in [(4, 10), (9, i32::MAX), (4, 13)] {
            let mut builder = BatchBuilder::new(Compression::None).producer(id, 2, sequence);
            (0..3).for_each(|_| builder.push(77, None, None, &[]));
            table.apply(builder.build().header());
        }
        let bytes = encode(&table);
        assert_eq!(bytes.len(), 10 + 3 * ENTRY_BYTES);
        assert_eq!(decode(&bytes), Some(table));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert_eq!(decode(&flipped), None, "flipped at {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}
