use super::super::{BatchBuilder, Header};
use super::*;
use crate::kafka::Text;

fn batch(compression: Compression) -> Batch {
    let mut builder = BatchBuilder::new(compression).producer(7, 1, 40);
    let header = |v: Option<&'static [u8]>| Header {
        key: Text::from_static("h"),
        value: v.map(Bytes::from_static),
    };
    builder.push(
        1000,
        Some(b"key"),
        Some(b"value"),
        &[header(Some(b"1")), header(None)],
    );
    builder.push(1500, None, None, &[]);
    builder.push(900, Some(b""), Some(&[9; 300]), &[]);
    builder.build()
}

fn reseal(bytes: &mut [u8]) {
    let sum = checksum(&bytes[CHECKSUM_FROM..]);
    bytes[17..21].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn records_come_out_as_they_went_in_with_every_codec() {
    for codec in Compression::ALL {
        let batch = batch(codec);
        let records = batch.records(1 << 20).expect("valid");
        assert_eq!(
            records.iter().map(|r| r.offset.get()).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!(
            records.iter().map(|r| r.timestamp).collect::<Vec<_>>(),
            [1000, 1500, 900]
        );
        assert_eq!(records[0].headers.len(), 2, "names may repeat");
        assert_eq!(
            (records[1].key.as_ref(), records[1].value.as_ref()),
            (None, None)
        );
        assert_eq!(records[2].key.as_deref(), Some(&b""[..]));
        assert_eq!(batch.header().max_timestamp, 1500);
    }
}

#[test]
fn every_cut_and_every_flipped_byte_is_noticed() {
    let bytes = batch(Compression::None).bytes().clone();
    for cut in 0..bytes.len() {
        assert!(Batch::parse(bytes.slice(..cut)).is_err(), "cut at {cut}");
    }
    // Base offset and leader epoch stand outside of the checksum; the leader sets them.
    for at in (8..12).chain(16..bytes.len()) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1;
        assert!(Batch::parse(flipped.into()).is_err(), "flipped at {at}");
    }
}

#[test]
fn counts_that_contradict_each_other_are_refused() {
    let good = batch(Compression::None).bytes().to_vec();
    for (at, value) in [(23, 5i32), (57, 2), (57, 4), (57, -1), (57, i32::MAX)] {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&value.to_be_bytes());
        reseal(&mut bad);
        assert!(
            matches!(Batch::parse(bad.into()), Err(BatchError::Records(_))),
            "{at} {value}"
        );
    }
    let mut two = good.clone();
    two.extend_from_slice(&good);
    assert_eq!(
        Batch::parse(two.into()),
        Err(BatchError::TrailingBytes(good.len()))
    );
    let mut old = good;
    old[16] = 1;
    assert_eq!(Batch::parse(old.into()), Err(BatchError::Magic(1)));
}

#[test]
fn stamping_keeps_the_records_and_renews_the_checksum() {
    let stamped = batch(Compression::Lz4).stamped(5000);
    let again = Batch::parse(stamped.bytes().clone()).expect("valid");
    assert!(again.header().is_log_append_time());
    assert!(
        again
            .records(1 << 20)
            .expect("valid")
            .iter()
            .all(|r| r.timestamp == 5000)
    );
}

#[test]
fn sequence_numbers_wrap_after_the_last() {
    assert_eq!(advance_sequence(i32::MAX, 1), 0);
    assert_eq!(advance_sequence(i32::MAX - 1, 3), 1);
    assert_eq!(advance_sequence(5, 3), 8);
}
