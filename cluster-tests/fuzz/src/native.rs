//! Frames of Callboard's own protocol, as a server and as a client reads them.

#![no_main]

use bytes::Bytes;
use callboard_common::wire::codec::{self, BODY_LIMIT_BYTES};
use callboard_common::wire::frame::{LENGTH_BYTES, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok((header, body, records)) = split(Bytes::copy_from_slice(data), BODY_LIMIT_BYTES) else { return };
    drop(codec::response(&body, records.clone()));
    let Ok(request) = codec::request(header, &body, records) else { return };
    let frame = codec::request_frame(header.id, request.clone()).expect("what came in fits");
    let bytes: Bytes = frame.into_chunks().concat().into();
    let (again, body, records) = split(bytes.slice(LENGTH_BYTES..), BODY_LIMIT_BYTES).expect("just written");
    assert_eq!(codec::request(again, &body, records), Ok(request));
});
