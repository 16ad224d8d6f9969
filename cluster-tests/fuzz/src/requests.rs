//! Every message in every version: what decodes encodes, and decodes to the same again.

#![no_main]

use bytes::Bytes;
use callboard_common::every_kafka_message;
use callboard_common::kafka::{Message, messages as m};
use libfuzzer_sys::fuzz_target;

fn round_trip<M: Message + PartialEq + std::fmt::Debug>(bytes: &Bytes, choice: u8) {
    let valid = M::VALID;
    let count = valid.end() - valid.start() + 1;
    let version = valid.start() + i16::from(choice) % count;
    let Ok(message) = M::from_bytes(bytes.clone(), version) else { return };
    let encoded = message.to_bytes(version).expect("what came in fits");
    // Bytes are compared, not messages: a float that is not a number is not equal to itself.
    let again = M::from_bytes(encoded.clone(), version).expect("it was encoded here");
    assert_eq!(again.to_bytes(version), Ok(encoded));
}

macro_rules! choose {
    ($which:ident $bytes:ident $version:ident; $($message:ident)*) => {{
        let all: &[fn(&Bytes, u8)] = &[$(round_trip::<m::$message>),*];
        all[usize::from($which) % all.len()](&$bytes, $version);
    }};
}

fuzz_target!(|data: &[u8]| {
    let &[which, version, ref rest @ ..] = data else { return };
    let bytes = Bytes::copy_from_slice(rest);
    every_kafka_message!(choose which bytes version);
});
