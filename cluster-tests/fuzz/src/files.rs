//! Everything that is read from disk, Kafka's metadata when it is taken over, and what a client proves itself with.

#![no_main]

use bytes::Bytes;
use callboard_broker::controller::kafka_metadata::KafkaMetadata;
use callboard_broker::controller::log_file;
use callboard_broker::coordinator::records::GroupRecord;
use callboard_broker::security::image::SecurityImage;
use callboard_broker::security::sasl::{Sasl, Step};
use callboard_broker::storage::leader_epochs::LeaderEpochs;
use callboard_broker::storage::{checkpoint, offset_index, producer_snapshot, time_index};
use callboard_common::record::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [which, rest @ ..] = data else { return };
    match which % 8 {
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
        5 => drop(KafkaMetadata::default().read(Bytes::copy_from_slice(rest))),
        6 => {
            let mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
            let mut sasl = Sasl::new([7; 32]);
            let _choice = sasl.choose(mechanisms[usize::from(which / 8) % 3]);
            for token in rest.split(|b| *b == 0xff).take(3) {
                // The work of a wrong password is not what is looked for here.
                if let Some(Step::Failed(_)) | None = sasl.token(&SecurityImage::default(), token, "nonce") {
                    assert_eq!(sasl.principal(), None);
                }
            }
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
