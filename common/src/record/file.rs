//! Batches one after another, out of a log file or anything else that holds nothing but batches.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use bytes::Bytes;

use super::{Batch, BatchError, BatchHeader, HEADER_BYTES};

/// The `.log` files of a directory, in the order of their offsets.
///
/// # Errors
///
/// What reading the directory failed with.
pub fn segments(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "log") {
            files.push(path);
        }
    }
    // Names have twenty digits.
    files.sort();
    Ok(files)
}

/// Why there is no further batch.
#[derive(Debug)]
pub enum ReadError {
    /// The bytes end within a batch.
    Cut,
    /// They are no batch.
    Batch(BatchError),
    /// They cannot be read.
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the file ends within a batch"),
            Self::Batch(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// Reads batches in order, each with the position it begins at, and checks each; the first error is the last item.
#[derive(Debug)]
pub struct BatchReader<R> {
    from: R,
    position: u64,
    is_over: bool,
}

impl<R: Read> BatchReader<R> {
    /// From the first byte on; `from` should be buffered.
    pub fn new(from: R) -> Self {
        Self {
            from,
            position: 0,
            is_over: false,
        }
    }

    /// Where the next batch begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn read(&mut self) -> Result<Option<Batch>, ReadError> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        let mut head = self.from.by_ref().take(HEADER_BYTES as u64);
        if head.read_to_end(&mut bytes).map_err(ReadError::Io)? == 0 {
            return Ok(None);
        }
        let whole: &[u8; HEADER_BYTES] = bytes.as_slice().try_into().map_err(|_| ReadError::Cut)?;
        let size = BatchHeader::read(whole)
            .size_bytes()
            .map_err(ReadError::Batch)?;
        // Memory grows with what is there, not with what a damaged length says.
        let mut rest = self.from.by_ref().take((size - HEADER_BYTES) as u64);
        let _read: usize = rest.read_to_end(&mut bytes).map_err(ReadError::Io)?;
        let (batch, _none) = Batch::split(Bytes::from(bytes)).map_err(ReadError::Batch)?;
        Ok(Some(batch))
    }
}

impl<R: Read> Iterator for BatchReader<R> {
    type Item = Result<(u64, Batch), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let position = self.position;
        match self.read() {
            Ok(Some(batch)) => {
                self.position += batch.size_bytes() as u64;
                Some(Ok((position, batch)))
            }
            Ok(None) => None,
            Err(error) => {
                self.is_over = true;
                Some(Err(error))
            }
        }
    }
}
