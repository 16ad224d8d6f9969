//! Record batches: as they are, and with the checksum and the codec set right so that what is inside is reached.

#![no_main]

use bytes::Bytes;
use callboard_common::record::batch::{CHECKSUM_FROM, checksum};
use callboard_common::record::{Batch, HEADER_BYTES};
use libfuzzer_sys::fuzz_target;

const LIMIT_BYTES: usize = 1 << 20;

fn look_inside(bytes: Bytes) {
    if let Ok(batch) = Batch::parse(bytes)
        && let Ok(records) = batch.records(LIMIT_BYTES)
    {
        assert!(records.len() as i64 <= batch.offset_count());
    }
}

fuzz_target!(|data: &[u8]| {
    look_inside(Bytes::copy_from_slice(data));
    if data.len() < HEADER_BYTES {
        return;
    }
    let mut bytes = data.to_vec();
    let length = (bytes.len() - 12) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = 2;
    let sum = checksum(&bytes[CHECKSUM_FROM..]);
    bytes[17..21].copy_from_slice(&sum.to_be_bytes());
    look_inside(bytes.into());
});
