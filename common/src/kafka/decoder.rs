//! Reads Kafka's primitive types from a frame, within bounds.

use bytes::{Buf, Bytes};

use super::Text;
use crate::ids::Uuid;

/// The most array elements of one message, all arrays together.
pub const MAX_ELEMENTS: usize = 200_000;

/// The most tagged fields of one struct, as Kafka 4.4's clients allow.
const MAX_TAGGED_FIELDS: u32 = 10_000;

/// Why bytes are not the message they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field reaches beyond the end of the message.
    #[error("the message ends within a field")]
    Truncated,
    /// Bytes follow the last field.
    #[error("{0} bytes follow the last field")]
    TrailingBytes(usize),
    /// A length is negative where only null (-1) may be.
    #[error("a length of {0} is negative")]
    NegativeLength(i64),
    /// A field that may not be null is.
    #[error("a field that may not be null is null")]
    UnexpectedNull,
    /// An array announces more elements than the message can hold or the limit allows.
    #[error("an array announces {0} elements, more than the message can hold or may have")]
    TooManyElements(u64),
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A variable-length number is longer than its type or padded.
    #[error("a variable-length number is too long")]
    Varint,
    /// A tagged field appears twice or out of order, or its size is not what it holds.
    #[error("tagged fields are out of order or of a wrong size")]
    TaggedFields,
}

/// A position in the bytes of one message.
#[derive(Clone, Debug)]
pub struct Decoder {
    rest: Bytes,
    /// Array elements that may still come.
    elements: usize,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $type:ty, $read:ident) => {
        $(#[$doc])*
        ///
        /// # Errors
        ///
        /// [`DecodeError::Truncated`] if the message ends before it does.
        pub fn $name(&mut self) -> Result<$type, DecodeError> {
            if self.rest.len() < size_of::<$type>() {
                return Err(DecodeError::Truncated);
            }
            Ok(self.rest.$read())
        }
    };
}

impl Decoder {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self {
            rest: bytes,
            elements: MAX_ELEMENTS,
        }
    }

    /// Bytes that were not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The bytes that were not read yet.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        self.rest
    }

    /// Confirms that all was read.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TrailingBytes`] if not.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes(self.rest.len()))
        }
    }

    number!(/** Reads an INT8. */ i8, i8, get_i8);
    number!(/** Reads an INT16. */ i16, i16, get_i16);
    number!(/** Reads a UINT16. */ u16, u16, get_u16);
    number!(/** Reads an INT32. */ i32, i32, get_i32);
    number!(/** Reads an INT64. */ i64, i64, get_i64);
    number!(/** Reads a FLOAT64. */ f64, f64, get_f64);

    /// Reads a BOOLEAN; any byte but 0 is true, as in Kafka.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] if the message ends before it does.
    pub fn boolean(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    /// Reads a UUID.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] if the message ends before it does.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        let mut id = Uuid::ZERO;
        self.rest
            .try_copy_to_slice(&mut id.0)
            .map_err(|_| DecodeError::Truncated)?;
        Ok(id)
    }

    /// Reads an UNSIGNED_VARINT of at most 32 bits.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Varint`] if it is longer than five bytes, over 32 bits or padded with zeros.
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u64;
        for i in 0..5 {
            let byte = self.i8()? as u8;
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                if i > 0 && byte == 0 {
                    return Err(DecodeError::Varint);
                }
                return u32::try_from(value).map_err(|_| DecodeError::Varint);
            }
        }
        Err(DecodeError::Varint)
    }

    /// Reads a length; `None` is null.
    fn length(&mut self, flexible: bool, wide: bool) -> Result<Option<usize>, DecodeError> {
        let length = match (flexible, wide) {
            (true, _) => i64::from(self.unsigned_varint()?) - 1,
            (false, true) => i64::from(self.i32()?),
            (false, false) => i64::from(self.i16()?),
        };
        match length {
            -1 => Ok(None),
            0.. => Ok(Some(
                usize::try_from(length).map_err(|_| DecodeError::NegativeLength(length))?,
            )),
            _ => Err(DecodeError::NegativeLength(length)),
        }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.rest.split_to(length))
    }

    /// Reads a STRING or COMPACT_STRING; `None` is null.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the length or the encoding is wrong.
    pub fn text(&mut self, flexible: bool) -> Result<Option<Text>, DecodeError> {
        let Some(length) = self.length(flexible, false)? else {
            return Ok(None);
        };
        Text::from_utf8(self.take(length)?)
            .map(Some)
            .ok_or(DecodeError::NotUtf8)
    }

    /// Reads BYTES, COMPACT_BYTES or records; `None` is null.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the length is wrong.
    pub fn byte_string(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        let Some(length) = self.length(flexible, true)? else {
            return Ok(None);
        };
        self.take(length).map(Some)
    }

    /// Reads an ARRAY or COMPACT_ARRAY whose elements take at least `min_size` bytes; `None` is null.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooManyElements`] before anything is allocated, or what `element` returns.
    pub fn array<T>(
        &mut self,
        flexible: bool,
        min_size: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(length) = self.length(flexible, true)? else {
            return Ok(None);
        };
        if length > self.elements || length.saturating_mul(min_size) > self.rest.len() {
            return Err(DecodeError::TooManyElements(length as u64));
        }
        self.elements -= length;
        let mut out = Vec::with_capacity(length);
        for _ in 0..length {
            out.push(element(self)?);
        }
        Ok(Some(out))
    }

    /// Reads the tagged fields of a struct; `known` reads the ones it knows and answers whether it did.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TaggedFields`] if tags do not increase or a known field does not fill its size.
    pub fn tagged_fields(
        &mut self,
        mut known: impl FnMut(u32, &mut Self) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.unsigned_varint()?;
        if count > MAX_TAGGED_FIELDS {
            return Err(DecodeError::TooManyElements(count.into()));
        }
        let mut previous = None;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            if previous.is_some_and(|p| tag <= p) {
                return Err(DecodeError::TaggedFields);
            }
            previous = Some(tag);
            let mut field = Self {
                rest: self.take(size)?,
                elements: self.elements,
            };
            if known(tag, &mut field)? {
                if field.remaining() != 0 {
                    return Err(DecodeError::TaggedFields);
                }
                self.elements = field.elements;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(bytes: &'static [u8]) -> Decoder {
        Decoder::new(Bytes::from_static(bytes))
    }

    #[test]
    fn an_array_is_refused_before_it_is_allocated() {
        let result = decoder(b"\x7f\xff\xff\xff\0").array(false, 1, Decoder::i8);
        assert_eq!(result, Err(DecodeError::TooManyElements(0x7fff_ffff)));
        let result = decoder(b"\xff\xff\xff\xff\x0f\0").array(true, 1, Decoder::i8);
        assert_eq!(result, Err(DecodeError::TooManyElements(0xffff_fffe)));
    }

    #[test]
    fn varints_are_neither_padded_nor_overlong() {
        assert_eq!(decoder(b"\xac\x02").unsigned_varint(), Ok(300));
        assert_eq!(
            decoder(b"\x80\x00").unsigned_varint(),
            Err(DecodeError::Varint)
        );
        assert_eq!(
            decoder(b"\xff\xff\xff\xff\x7f").unsigned_varint(),
            Err(DecodeError::Varint)
        );
        assert_eq!(
            decoder(b"\x80\x80\x80\x80\x80\x01").unsigned_varint(),
            Err(DecodeError::Varint)
        );
        assert_eq!(
            decoder(b"\x80").unsigned_varint(),
            Err(DecodeError::Truncated)
        );
    }

    #[test]
    fn strings_share_the_buffer_and_are_checked() {
        let bytes = Bytes::from_static(b"\0\x02hi");
        let text = Decoder::new(bytes.clone())
            .text(false)
            .expect("valid")
            .expect("not null");
        assert_eq!(text.as_str().as_ptr(), bytes[2..].as_ptr());
        assert_eq!(
            decoder(b"\0\x02\xff\xff").text(false),
            Err(DecodeError::NotUtf8)
        );
        assert_eq!(
            decoder(b"\0\x09hi").text(false),
            Err(DecodeError::Truncated)
        );
        assert_eq!(
            decoder(b"\xff\xfe").text(false),
            Err(DecodeError::NegativeLength(-2))
        );
    }
}
