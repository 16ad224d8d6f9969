//! Every message in every version, made as its schema allows and then damaged: what the bytes alone would hardly ever reach. What
//! decodes encodes, and decodes to the same again; what was not damaged comes out as it went in.

#![no_main]

#[path = "../../../common/src/kafka/generate/schema.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is the generator's")]
mod schema;
#[path = "../../../common/tests/kafka_codec/valid.rs"]
#[allow(dead_code, reason = "it is the codec's test's")]
mod valid;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use callboard_common::every_kafka_message;
use callboard_common::kafka::{Message, messages as m};
use libfuzzer_sys::fuzz_target;

type RoundTrip = fn(&Bytes, i16) -> Option<Bytes>;

/// What `bytes` are encoded as after they were decoded, if they can be.
fn round_trip<M: Message + PartialEq + std::fmt::Debug>(bytes: &Bytes, version: i16) -> Option<Bytes> {
    let message = M::from_bytes(bytes.clone(), version).ok()?;
    let encoded = message.to_bytes(version).expect("what came in fits");
    // Bytes are compared, not messages: a float that is not a number is not equal to itself.
    let again = M::from_bytes(encoded.clone(), version).expect("it was encoded here");
    assert_eq!(again.to_bytes(version).as_ref(), Ok(&encoded));
    Some(encoded)
}

macro_rules! all {
    (; $($message:ident)*) => { vec![$((stringify!($message), round_trip::<m::$message> as RoundTrip)),*] };
}

/// Each message with its schema, by name.
fn messages() -> &'static [(schema::Message, RoundTrip)] {
    static ALL: OnceLock<Vec<(schema::Message, RoundTrip)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../common/src/kafka/schema");
        let mut schemas = BTreeMap::new();
        for entry in std::fs::read_dir(folder).expect("the schemas are there") {
            let text = std::fs::read_to_string(entry.expect("readable").path()).expect("text");
            for message in schema::parse(&text).expect("a schema") {
                drop(schemas.insert(message.name.clone(), message));
            }
        }
        let with_schema = |(name, round_trip): (&str, RoundTrip)| {
            (schemas.remove(name).expect("every message has a schema"), round_trip)
        };
        every_kafka_message!(all).into_iter().map(with_schema).collect()
    })
}

/// Sets, puts in, takes out or doubles bytes; what to do stands in `changes`, four bytes each.
fn damage(bytes: &mut Vec<u8>, changes: &[[u8; 4]]) {
    for &[what, high, low, value] in changes {
        if bytes.is_empty() {
            return;
        }
        let at = usize::from(u16::from_be_bytes([high, low])) % bytes.len();
        match what % 5 {
            0 => bytes[at] = value,
            1 => bytes[at] ^= 1 << (value % 8),
            2 => bytes.insert(at, value),
            3 => drop(bytes.drain(at..(at + usize::from(value)).min(bytes.len()))),
            _ => {
                let end = (at + usize::from(value % 32)).min(bytes.len());
                let doubled = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, doubled));
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let &[which, version, s0, s1, s2, s3, ref changes @ ..] = data else { return };
    let all = messages();
    let (message, round_trip) = &all[usize::from(which) % all.len()];
    let count = message.valid.to - message.valid.from + 1;
    let version = message.valid.from + i16::from(version) % count;
    let bytes = valid::bytes(message, version, u32::from_be_bytes([s0, s1, s2, s3]).into());
    let changes = changes.as_chunks::<4>().0;
    if changes.is_empty() {
        assert_eq!(round_trip(&bytes, version).as_ref(), Some(&bytes), "{}", message.name);
    }
    let mut damaged = bytes.to_vec();
    damage(&mut damaged, changes);
    let _decoded = round_trip(&damaged.into(), version);
});
