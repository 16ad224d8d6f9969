//! Frames: length (4 bytes), request id (8), request number (2), version (2), body length (4), body, records.
//!
//! Numbers are big-endian. The length counts what follows it.

use bytes::{BufMut, Bytes, BytesMut};

/// Size of what stands between the length and the body.
pub const HEADER_BYTES: usize = 16;
/// Size of the length.
pub const LENGTH_BYTES: usize = 4;

/// Which request a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client's number of the request, sent back with the answer.
    pub id: u64,
    /// Number of the request.
    pub api: u16,
    /// Version of the body.
    pub version: u16,
}

/// A frame to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which request it belongs to.
    pub header: Header,
    /// The bincode body.
    pub body: Bytes,
    /// Record bytes in the body's order.
    pub records: Vec<Bytes>,
}

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than allowed, or shorter than a header.
    #[error("a frame of {0} bytes is not possible")]
    Length(u32),
    /// The body is longer than the frame or its own limit.
    #[error("a body of {0} bytes is not possible")]
    Body(u32),
}

impl Frame {
    /// Its length on the wire.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let records: usize = self.records.iter().map(Bytes::len).sum();
        LENGTH_BYTES + HEADER_BYTES + self.body.len() + records
    }

    /// The frame in chunks; records are not copied.
    #[must_use]
    pub fn into_chunks(self) -> Vec<Bytes> {
        let length = self.bytes() - LENGTH_BYTES;
        let mut head = BytesMut::with_capacity(LENGTH_BYTES + HEADER_BYTES + self.body.len());
        head.put_u32(length as u32);
        head.put_u64(self.header.id);
        head.put_u16(self.header.api);
        head.put_u16(self.header.version);
        head.put_u32(self.body.len() as u32);
        head.put_slice(&self.body);
        let mut chunks = vec![head.freeze()];
        chunks.extend(self.records.into_iter().filter(|r| !r.is_empty()));
        chunks
    }
}

/// Checks a frame's length before anything of it is read.
///
/// # Errors
///
/// [`FrameError::Length`].
pub fn check_length(length: u32, limit_bytes: u32) -> Result<usize, FrameError> {
    if (length as usize) < HEADER_BYTES || length > limit_bytes {
        return Err(FrameError::Length(length));
    }
    Ok(length as usize)
}

/// Takes a frame without its length apart: header, body, records.
///
/// # Errors
///
/// [`FrameError`] if the lengths do not fit.
pub fn split(
    mut frame: Bytes,
    body_limit_bytes: usize,
) -> Result<(Header, Bytes, Bytes), FrameError> {
    let Some(h) = frame.first_chunk::<HEADER_BYTES>().copied() else {
        return Err(FrameError::Length(frame.len() as u32));
    };
    let header = Header {
        id: u64::from_be_bytes([h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]]),
        api: u16::from_be_bytes([h[8], h[9]]),
        version: u16::from_be_bytes([h[10], h[11]]),
    };
    let body_length = u32::from_be_bytes([h[12], h[13], h[14], h[15]]);
    let mut rest = frame.split_off(HEADER_BYTES);
    if body_length as usize > rest.len().min(body_limit_bytes) {
        return Err(FrameError::Body(body_length));
    }
    let records = rest.split_off(body_length as usize);
    Ok((header, rest, records))
}
