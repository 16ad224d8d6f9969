//! Requests and answers to frames and back: the one place that sets bincode up.
//!
//! A body is bounded, holds no recursive types and no records; those follow it as they are.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};
use bytes::Bytes;

use super::frame::{Frame, Header};
use crate::protocol::{Request, Response};

/// The version of every request and answer. 2: readers may be sent to another replica (KIP-392).
pub const VERSION: u16 = 2;
/// Largest body: names, numbers and small blobs.
pub const BODY_LIMIT_BYTES: usize = 8 << 20;

type Config = Configuration<LittleEndian, Varint, Limit<BODY_LIMIT_BYTES>>;
const CONFIG: Config = bincode::config::standard().with_limit::<BODY_LIMIT_BYTES>();

/// Why a frame is not the request or answer that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The body is malformed.
    #[error("the body is malformed: {0}")]
    Body(String),
    /// Body or records are longer or shorter than they say.
    #[error("{0}")]
    Length(&'static str),
    /// The header says another request than the body.
    #[error("header and body name different requests")]
    Mismatch,
}

fn decode<T: Decode<()>>(body: &[u8]) -> Result<T, CodecError> {
    let (value, read) =
        bincode::decode_from_slice(body, CONFIG).map_err(|e| CodecError::Body(e.to_string()))?;
    if read == body.len() {
        Ok(value)
    } else {
        Err(CodecError::Length("bytes follow the body"))
    }
}

fn encode<T: Encode>(value: &T) -> Result<Bytes, CodecError> {
    let body =
        bincode::encode_to_vec(value, CONFIG).map_err(|e| CodecError::Body(e.to_string()))?;
    if body.len() > BODY_LIMIT_BYTES {
        return Err(CodecError::Length("the body is too large"));
    }
    Ok(body.into())
}

fn attach<'a>(
    attachments: impl IntoIterator<Item = &'a mut crate::protocol::Attachment>,
    mut rest: Bytes,
) -> Result<(), CodecError> {
    for attachment in attachments {
        if !attachment.take_from(&mut rest) {
            return Err(CodecError::Length("records are cut short"));
        }
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(CodecError::Length("bytes follow the records"))
    }
}

/// The frame of a request.
///
/// # Errors
///
/// [`CodecError::Length`] if its body is too large.
pub fn request_frame(id: u64, mut request: Request) -> Result<Frame, CodecError> {
    let records = request
        .attachments()
        .into_iter()
        .map(|a| a.bytes().clone())
        .collect();
    let header = Header {
        id,
        api: request.number(),
        version: VERSION,
    };
    Ok(Frame {
        header,
        body: encode(&request)?,
        records,
    })
}

/// The request in a frame.
///
/// # Errors
///
/// [`CodecError`] says what is malformed.
pub fn request(header: Header, body: &[u8], records: Bytes) -> Result<Request, CodecError> {
    let mut request: Request = decode(body)?;
    attach(request.attachments(), records)?;
    if request.number() == header.api {
        Ok(request)
    } else {
        Err(CodecError::Mismatch)
    }
}

/// The frame of an answer.
///
/// # Errors
///
/// [`CodecError::Length`] if its body is too large.
pub fn response_frame(header: Header, mut response: Response) -> Result<Frame, CodecError> {
    let records = response
        .attachments()
        .into_iter()
        .map(|a| a.bytes().clone())
        .collect();
    Ok(Frame {
        header,
        body: encode(&response)?,
        records,
    })
}

/// The answer in a frame.
///
/// # Errors
///
/// [`CodecError`] says what is malformed.
pub fn response(body: &[u8], records: Bytes) -> Result<Response, CodecError> {
    let mut response: Response = decode(body)?;
    attach(response.attachments(), records)?;
    Ok(response)
}
