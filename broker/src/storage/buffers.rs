//! Large buffers for reads, used again.
//!
//! Fresh memory of this size comes from the kernel, which zeroes it page by page at the first touch: that costs as
//! much as the read itself. What was read is given back when the last answer that shares it is written.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller ones are not worth keeping.
const SMALLEST_BYTES: usize = 64 << 10;
const LARGEST_BYTES: usize = 4 << 20;
/// So much is kept, all together.
const KEPT_MAX_BYTES: usize = 8 << 20;

#[derive(Debug)]
struct Kept {
    by_size: BTreeMap<usize, Vec<Vec<u8>>>,
    bytes: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept {
    by_size: BTreeMap::new(),
    bytes: 0,
});

/// Bytes to read into; what they hold before is arbitrary.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    length: usize,
}

impl Buffer {
    pub(super) fn new(length: usize) -> Self {
        let size = length.next_power_of_two();
        if !(SMALLEST_BYTES..=LARGEST_BYTES).contains(&size) {
            return Self {
                bytes: vec![0; length],
                length,
            };
        }
        let mut kept = KEPT.lock();
        let found = kept.by_size.get_mut(&size).and_then(Vec::pop);
        if found.is_some() {
            kept.bytes -= size;
        }
        drop(kept);
        let bytes = found.unwrap_or_else(|| vec![0; size]);
        Self { bytes, length }
    }

    /// Forgets what lies behind.
    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Shares the bytes; the last who has them gives the buffer back.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let size = self.bytes.len();
        if !size.is_power_of_two() || !(SMALLEST_BYTES..=LARGEST_BYTES).contains(&size) {
            return;
        }
        let mut kept = KEPT.lock();
        if kept.bytes + size <= KEPT_MAX_BYTES {
            kept.bytes += size;
            kept.by_size
                .entry(size)
                .or_default()
                .push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_shows_its_length_and_nothing_behind_it() {
        let mut buffer = Buffer::new(100_000);
        assert_eq!(buffer.len(), 100_000);
        buffer.fill(7);
        buffer.truncate(3);
        let shared = buffer.freeze();
        assert_eq!(&shared[..], [7; 3]);
        drop(shared);
        assert_eq!(
            Buffer::new(70_000).len(),
            70_000,
            "as long as it was asked for"
        );
        assert_eq!(Buffer::new(10).len(), 10);
    }
}
