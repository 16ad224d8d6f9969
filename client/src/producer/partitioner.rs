//! Which partition a record goes to; pure.

use std::sync::atomic::{AtomicU64, Ordering};

/// Kafka's murmur2 of a key, as Java's default partitioner computes it.
#[must_use]
pub fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ key.len() as u32;
    let (chunks, rest) = key.as_chunks::<4>();
    for chunk in chunks {
        let mut k = u32::from_le_bytes(*chunk).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (i, byte) in rest.iter().enumerate().rev() {
        h ^= u32::from(*byte) << (8 * i);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ h >> 15
}

/// Records with a key go where Java's client sends them; those without stay on one partition for about a batch and
/// then move on (KIP-794).
#[derive(Debug, Default)]
pub(crate) struct Partitioner {
    keyless_bytes: AtomicU64,
}

impl Partitioner {
    pub(crate) fn partition(
        &self,
        key: Option<&[u8]>,
        size_bytes: usize,
        batch_bytes: usize,
        count: usize,
    ) -> i32 {
        let count = count.max(1) as u64;
        let partition = match key {
            Some(key) => u64::from(murmur2(key) & 0x7fff_ffff) % count,
            None => {
                let before = self
                    .keyless_bytes
                    .fetch_add(size_bytes as u64, Ordering::Relaxed);
                before / batch_bytes.max(1) as u64 % count
            }
        };
        i32::try_from(partition).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of Kafka's `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_javas() {
        for (key, hash) in [
            ("21", -973_932_308i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn keyless_records_move_on_after_a_batch() {
        let partitioner = Partitioner::default();
        let partitions: Vec<_> = (0..6)
            .map(|_| partitioner.partition(None, 50, 100, 3))
            .collect();
        assert_eq!(partitions, [0, 0, 1, 1, 2, 2]);
        let keyed = partitioner.partition(Some(b"key"), 1, 1, 7);
        assert_eq!(partitioner.partition(Some(b"key"), 999, 1, 7), keyed);
    }
}
