//! A connection's bytes: header, then the body of whatever request it names, in its version.

#![no_main]

use bytes::Bytes;
use callboard_common::kafka::header::RequestHeader;
use callboard_common::kafka::{ApiKey, Decoder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::new(Bytes::copy_from_slice(data));
    let Ok(header) = RequestHeader::decode(&mut decoder) else { return };
    let Some(key) = ApiKey::from_number(header.api_key) else { return };
    if !key.serves(header.api_version) {
        return;
    }
    let _whole = key.reads(decoder.into_rest(), header.api_version);
});
