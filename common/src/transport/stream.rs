//! Frames on a QUIC stream.

use std::io;

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream};

use crate::wire::frame::{Frame, Header, LENGTH_BYTES, check_length, split};

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The lane ended between two frames.
    #[error("the lane was closed")]
    Closed,
    /// The lane ended or broke within a frame.
    #[error("the lane broke: {0}")]
    Broken(#[from] quinn::ReadError),
    /// The lane ended within a frame.
    #[error("the lane ended within a frame")]
    CutShort,
    /// A frame is malformed.
    #[error("{0}")]
    Frame(#[from] crate::wire::frame::FrameError),
}

/// The receiving half of a lane, with what was read beyond the last frame.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
}

impl FrameReader {
    /// Nothing was read yet.
    #[must_use]
    pub fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// Waits for the length of the next frame and checks it.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was read is kept.
    pub async fn length(&mut self, limit_bytes: u32) -> Result<usize, ReadError> {
        self.fill(LENGTH_BYTES).await?;
        let length = [
            self.buffer[0],
            self.buffer[1],
            self.buffer[2],
            self.buffer[3],
        ];
        Ok(check_length(u32::from_be_bytes(length), limit_bytes)?)
    }

    /// Reads until `size` bytes of the frame are there; memory grows with what arrives.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was read is kept.
    pub async fn arrive(&mut self, size: usize) -> Result<(), ReadError> {
        self.fill(LENGTH_BYTES + size).await
    }

    /// Takes the frame of this length, which has arrived.
    ///
    /// # Panics
    ///
    /// Panics if it has not arrived.
    pub fn take(&mut self, length: usize) -> Bytes {
        let mut frame = self.buffer.split_to(LENGTH_BYTES + length).freeze();
        frame.split_off(LENGTH_BYTES)
    }

    /// The next frame, taken apart: header, body, records.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was read is kept.
    pub async fn frame(
        &mut self,
        limit_bytes: u32,
        body_limit_bytes: usize,
    ) -> Result<(Header, Bytes, Bytes), ReadError> {
        let length = self.length(limit_bytes).await?;
        self.arrive(length).await?;
        Ok(split(self.take(length), body_limit_bytes)?)
    }

    async fn fill(&mut self, size: usize) -> Result<(), ReadError> {
        while self.buffer.len() < size {
            match self.stream.read_chunk(usize::MAX, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None if self.buffer.is_empty() => return Err(ReadError::Closed),
                None => return Err(ReadError::CutShort),
            }
        }
        Ok(())
    }
}

/// Writes a frame; records are not copied.
///
/// # Errors
///
/// What QUIC says; the lane is then of no more use.
pub async fn write(stream: &mut SendStream, frame: Frame) -> io::Result<()> {
    let mut chunks = frame.into_chunks();
    stream
        .write_all_chunks(&mut chunks)
        .await
        .map_err(io::Error::other)
}
