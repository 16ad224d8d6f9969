//! Writes Kafka's primitive types into chunks, large byte strings without copying.

use bytes::{BufMut, Bytes, BytesMut};

use super::Text;
use crate::ids::Uuid;

/// Byte strings from this size on become a chunk of their own instead of being copied.
const SHARED_FROM_BYTES: usize = 1024;

/// Why a message cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string, byte string or array is longer than its length field can say.
    #[error("a length of {0} does not fit its field")]
    TooLong(usize),
}

/// The chunks of a message in the making.
#[derive(Debug, Default)]
pub struct Encoder {
    done: Vec<Bytes>,
    open: BytesMut,
    length: usize,
}

impl Encoder {
    /// An empty message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes written so far.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length + self.open.len()
    }

    /// The chunks in order; together they are the message.
    #[must_use]
    pub fn into_chunks(mut self) -> Vec<Bytes> {
        self.close_chunk();
        self.done
    }

    /// The message in one buffer, copied if it has several chunks.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        let mut chunks = self.into_chunks();
        match chunks.len() {
            0 => Bytes::new(),
            1 => chunks.remove(0),
            _ => chunks.concat().into(),
        }
    }

    fn close_chunk(&mut self) {
        if !self.open.is_empty() {
            let chunk = self.open.split().freeze();
            self.length += chunk.len();
            self.done.push(chunk);
        }
    }

    /// Appends bytes that have no length in front.
    pub fn raw(&mut self, bytes: &Bytes) {
        if bytes.len() >= SHARED_FROM_BYTES {
            self.close_chunk();
            self.length += bytes.len();
            self.done.push(bytes.clone());
        } else {
            self.open.put_slice(bytes);
        }
    }

    /// Writes an INT8.
    pub fn i8(&mut self, value: i8) {
        self.open.put_i8(value);
    }

    /// Writes an INT16.
    pub fn i16(&mut self, value: i16) {
        self.open.put_i16(value);
    }

    /// Writes a UINT16.
    pub fn u16(&mut self, value: u16) {
        self.open.put_u16(value);
    }

    /// Writes an INT32.
    pub fn i32(&mut self, value: i32) {
        self.open.put_i32(value);
    }

    /// Writes an INT64.
    pub fn i64(&mut self, value: i64) {
        self.open.put_i64(value);
    }

    /// Writes a FLOAT64.
    pub fn f64(&mut self, value: f64) {
        self.open.put_f64(value);
    }

    /// Writes a BOOLEAN.
    pub fn boolean(&mut self, value: bool) {
        self.open.put_u8(value.into());
    }

    /// Writes a UUID.
    pub fn uuid(&mut self, value: &Uuid) {
        self.open.put_slice(&value.0);
    }

    /// Writes an UNSIGNED_VARINT.
    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.open.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.open.put_u8(value as u8);
    }

    fn size(
        &mut self,
        flexible: bool,
        wide: bool,
        length: Option<usize>,
    ) -> Result<(), EncodeError> {
        let size = length.unwrap_or(0);
        let too_long = |_| EncodeError::TooLong(size);
        match (flexible, length) {
            (true, None) => self.unsigned_varint(0),
            (true, Some(size)) => {
                let size = i32::try_from(size).map_err(too_long)?;
                self.unsigned_varint(size as u32 + 1);
            }
            (false, None) if wide => self.i32(-1),
            (false, None) => self.i16(-1),
            (false, Some(size)) if wide => self.i32(i32::try_from(size).map_err(too_long)?),
            (false, Some(size)) => self.i16(i16::try_from(size).map_err(too_long)?),
        }
        Ok(())
    }

    /// Writes a STRING or COMPACT_STRING.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] if its length does not fit.
    pub fn text(&mut self, flexible: bool, text: Option<&Text>) -> Result<(), EncodeError> {
        self.size(flexible, false, text.map(|t| t.len()))?;
        self.open.put_slice(text.map_or(&[], |t| t.as_bytes()));
        Ok(())
    }

    /// Writes BYTES, COMPACT_BYTES or records.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] if its length does not fit.
    pub fn byte_string(
        &mut self,
        flexible: bool,
        bytes: Option<&Bytes>,
    ) -> Result<(), EncodeError> {
        self.size(flexible, true, bytes.map(Bytes::len))?;
        if let Some(bytes) = bytes {
            self.raw(bytes);
        }
        Ok(())
    }

    /// Writes the count in front of an array's elements.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] if the count does not fit.
    pub fn array_length(
        &mut self,
        flexible: bool,
        length: Option<usize>,
    ) -> Result<(), EncodeError> {
        self.size(flexible, true, length)
    }
}

/// The tagged fields of one struct in the making, added by increasing tag.
#[derive(Debug, Default)]
pub struct TaggedFields(Vec<(u32, Bytes)>);

impl TaggedFields {
    /// Adds the field that `write` writes.
    ///
    /// # Errors
    ///
    /// What `write` returns.
    pub fn add(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut Encoder) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut encoder = Encoder::new();
        write(&mut encoder)?;
        self.0.push((tag, encoder.into_bytes()));
        Ok(())
    }

    /// Writes the fields with their count, tags and sizes.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] if a size does not fit.
    pub fn write(self, e: &mut Encoder) -> Result<(), EncodeError> {
        let number = |n: usize| u32::try_from(n).map_err(|_| EncodeError::TooLong(n));
        e.unsigned_varint(number(self.0.len())?);
        for (tag, field) in self.0 {
            e.unsigned_varint(tag);
            e.unsigned_varint(number(field.len())?);
            e.raw(&field);
        }
        Ok(())
    }
}
