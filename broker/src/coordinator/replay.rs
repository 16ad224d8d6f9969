//! How a coordinator comes by its state: it reads its offsets partition from the beginning to the end; pure.

use bytes::Bytes;
use callboard_common::Offset;
use callboard_common::record::Batch;

use super::records::GroupRecord;
use crate::leader::Ends;
use crate::planted::{self, Bug};

/// Nothing of ours is larger when decompressed, whatever the topic holds.
const DECOMPRESS_LIMIT_BYTES: usize = 64 << 20;

/// Reads a partition, batch by batch.
#[derive(Debug, Default)]
pub struct Replay {
    next: Option<Offset>,
    /// What was read, in order.
    pub records: Vec<GroupRecord>,
    /// Records that are not understood.
    pub skipped: usize,
    /// Size of all batches.
    pub size_bytes: u64,
}

impl Replay {
    /// Whether the partition can be read to its end now. The log may hold more than its leader knows to be committed: what
    /// earlier reigns committed, and what an earlier life of the coordinator has sent. All of that counts.
    #[must_use]
    pub fn is_possible(ends: &Ends) -> bool {
        let whole = ends.high_watermark >= ends.log_end;
        ends.epoch.is_some() && (whole || planted::is(Bug::GroupsReplayedToHighWatermark))
    }

    /// Where it goes on.
    #[must_use]
    pub fn next(&self, ends: &Ends) -> Offset {
        self.next.unwrap_or(ends.log_start)
    }

    /// Takes what a leader with these ends has read from [`Replay::next`]; whether that was all: nothing follows.
    ///
    /// # Errors
    ///
    /// What cannot be read; the replay is of no use any more.
    pub fn take(&mut self, mut batches: Bytes, ends: &Ends) -> Result<bool, String> {
        let from = self.next(ends);
        if batches.is_empty() && from < ends.high_watermark {
            return Err(format!("nothing could be read at offset {from}"));
        }
        if batches.is_empty() {
            return Ok(Self::is_possible(ends));
        }
        while !batches.is_empty() {
            let (batch, rest) = Batch::split(batches).map_err(|e| e.to_string())?;
            batches = rest;
            self.size_bytes += batch.size_bytes() as u64;
            self.next = Some(Offset::new(batch.header().next_offset()));
            if batch.header().is_control() {
                continue;
            }
            let records = batch.records(DECOMPRESS_LIMIT_BYTES);
            for record in records.map_err(|e| e.to_string())? {
                match GroupRecord::decode(&record) {
                    Ok(Some(record)) => self.records.push(record),
                    Ok(None) | Err(_) => self.skipped += 1,
                }
            }
        }
        Ok(false)
    }
}
