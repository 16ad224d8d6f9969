//! Everything that is read from disk.

#![no_main]

use bytes::Bytes;
use callboard_broker::controller::log_file;
use callboard_broker::coordinator::records::GroupRecord;
use callboard_broker::storage::leader_epochs::LeaderEpochs;
use callboard_broker::storage::{checkpoint, offset_index, producer_snapshot, time_index};
use callboard_common::record::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [which, rest @ ..] = data else { return };
    match which % 6 {
        0 => {
            let entries = offset_index::parse(rest, u64::MAX);
            assert!(entries.is_sorted_by_key(|e| e.relative_offset));
        }
        1 => assert!(time_index::parse(rest).is_sorted_by_key(|e| e.timestamp)),
        2 => {
            if let Some(table) = producer_snapshot::decode(rest) {
                let again = producer_snapshot::decode(&producer_snapshot::encode(&table));
                assert_eq!(again, Some(table));
            }
        }
        3 => {
            if let Ok(text) = std::str::from_utf8(rest) {
                drop(checkpoint::parse(text));
                drop(LeaderEpochs::parse(text));
            }
        }
        4 => {
            let (_, whole) = log_file::parse(rest);
            assert!(whole <= rest.len());
        }
        _ => {
            let (key, value) = rest.split_at(rest.len() / 2);
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            let record = Record { key: Some(key), value: Some(value), ..Record::default() };
            if let Ok(Some(group)) = GroupRecord::decode(&record) {
                let (key, value) = group.encode();
                let again = Record { key: Some(key), value, ..Record::default() };
                assert_eq!(GroupRecord::decode(&again), Ok(Some(group)));
            }
        }
    }
});
