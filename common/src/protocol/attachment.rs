//! Byte strings that travel after a bincode body instead of inside it, so that they are never copied.

use bincode::{BorrowDecode, Decode, Encode};
use bytes::Bytes;

/// Record bytes of a request or response. In the body stands only their length; the bytes follow the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    bytes: Bytes,
    /// Set between decoding the body and taking the bytes.
    expected: u32,
}

impl Attachment {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes, taken out.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Takes the announced bytes off the front of `rest`; whether there were enough.
    #[must_use]
    pub fn take_from(&mut self, rest: &mut Bytes) -> bool {
        let length = self.expected as usize;
        if length > rest.len() {
            return false;
        }
        self.bytes = rest.split_to(length);
        self.expected = 0;
        true
    }
}

impl From<Bytes> for Attachment {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, expected: 0 }
    }
}

impl Encode for Attachment {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        e: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        let too_long = |_| bincode::error::EncodeError::Other("records of more than 4 GiB");
        u32::try_from(self.bytes.len()).map_err(too_long)?.encode(e)
    }
}

impl<C> Decode<C> for Attachment {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        d: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Ok(Self {
            bytes: Bytes::new(),
            expected: u32::decode(d)?,
        })
    }
}

impl<'de, C> BorrowDecode<'de, C> for Attachment {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
        d: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Self::decode(d)
    }
}
