//! `.timeindex`: the largest timestamp up to an offset. Entries of twelve bytes: a timestamp, and the last offset
//! of the batch that holds it less the segment's base. A cache, as the offset index is.

/// Size of an entry.
pub const ENTRY_BYTES: usize = 12;

/// One entry: no record up to `relative_offset` has a larger timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// Offset less the segment's base.
    pub relative_offset: u32,
}

impl TimeEntry {
    /// As it stands in the file.
    #[must_use]
    pub fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&self.relative_offset.to_be_bytes());
        bytes
    }

    /// From the file.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
        Self {
            timestamp: i64::from_be_bytes([a, b, c, d, e, f, g, h]),
            relative_offset: u32::from_be_bytes([i, j, k, l]),
        }
    }
}

/// Reads the entries of a file, as far as they rise: the rest is no index.
#[must_use]
pub fn parse(bytes: &[u8]) -> Vec<TimeEntry> {
    let mut entries: Vec<TimeEntry> = Vec::with_capacity(bytes.len() / ENTRY_BYTES);
    for chunk in bytes.as_chunks::<ENTRY_BYTES>().0 {
        let entry = TimeEntry::from_bytes(chunk);
        let rises = entries.last().is_none_or(|last| {
            entry.timestamp > last.timestamp && entry.relative_offset > last.relative_offset
        });
        if !rises {
            break;
        }
        entries.push(entry);
    }
    entries
}

/// The last entry that is older than `timestamp`: what is not older comes after it.
#[must_use]
pub fn floor(entries: &[TimeEntry], timestamp: i64) -> Option<TimeEntry> {
    let after = entries.partition_point(|e| e.timestamp < timestamp);
    after.checked_sub(1).map(|i| entries[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_where_to_begin() {
        let entries = [(1000, 4), (2000, 9)].map(|(timestamp, relative_offset)| TimeEntry {
            timestamp,
            relative_offset,
        });
        assert_eq!(floor(&entries, 1000), None);
        assert_eq!(floor(&entries, 1001), Some(entries[0]));
        assert_eq!(floor(&entries, 5000), Some(entries[1]));
        let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_bytes()).collect();
        assert_eq!(parse(&bytes), entries);
        assert_eq!(parse(&[&bytes[..], &[0; 12]].concat()), entries);
    }
}
