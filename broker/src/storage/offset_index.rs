//! `.index`: which batch to begin at for an offset. Entries of eight bytes: the last offset of a batch less the
//! segment's base, and the batch's position in the segment. A cache: what is missing is found by scanning.

/// Size of an entry.
pub const ENTRY_BYTES: usize = 8;

/// One entry: `relative_offset` is the last offset of the batch that begins at `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Offset less the segment's base.
    pub relative_offset: u32,
    /// Byte in the segment.
    pub position: u32,
}

impl IndexEntry {
    /// As it stands in the file.
    #[must_use]
    pub fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.relative_offset.to_be_bytes());
        bytes[4..].copy_from_slice(&self.position.to_be_bytes());
        bytes
    }

    /// From the file.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h] = *bytes;
        Self {
            relative_offset: u32::from_be_bytes([a, b, c, d]),
            position: u32::from_be_bytes([e, f, g, h]),
        }
    }
}

/// Reads the entries of a file, as far as they rise and stay below the segment's size: the rest is no index.
#[must_use]
pub fn parse(bytes: &[u8], segment_size: u64) -> Vec<IndexEntry> {
    let mut entries: Vec<IndexEntry> = Vec::with_capacity(bytes.len() / ENTRY_BYTES);
    for chunk in bytes.as_chunks::<ENTRY_BYTES>().0 {
        let entry = IndexEntry::from_bytes(chunk);
        let rises = entries.last().is_none_or(|last| {
            entry.relative_offset > last.relative_offset && entry.position > last.position
        });
        if !rises || u64::from(entry.position) >= segment_size {
            break;
        }
        entries.push(entry);
    }
    entries
}

/// Where to begin for a relative offset: the last entry that is not beyond it; without one, at the segment's
/// first batch.
#[must_use]
pub fn floor(entries: &[IndexEntry], relative_offset: u32) -> Option<IndexEntry> {
    let after = entries.partition_point(|e| e.relative_offset <= relative_offset);
    after.checked_sub(1).map(|i| entries[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_entry_below_and_stops_at_disorder() {
        let entries =
            [(9, 100), (19, 300), (29, 900)].map(|(relative_offset, position)| IndexEntry {
                relative_offset,
                position,
            });
        assert_eq!(floor(&entries, 8), None);
        assert_eq!(floor(&entries, 9), Some(entries[0]));
        assert_eq!(floor(&entries, 28), Some(entries[1]));
        assert_eq!(floor(&entries, 1000), Some(entries[2]));
        let mut bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_bytes()).collect();
        assert_eq!(parse(&bytes, 1000), entries);
        assert_eq!(parse(&bytes, 900), entries[..2]);
        bytes.extend([0; 16]);
        bytes.push(1);
        assert_eq!(parse(&bytes, 1000), entries);
    }
}
