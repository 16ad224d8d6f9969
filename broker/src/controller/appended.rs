//! Fields that later releases add at the end of what is saved.

use bincode::de::{BorrowDecoder, Decoder};
use bincode::error::DecodeError;
use bincode::{BorrowDecode, Decode, Encode};

/// A field at the end of an image that older releases did not write: it has its default then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode)]
pub struct Appended<T>(pub T);

/// What was read, or the default if the bytes have ended.
fn or_default<T: Default>(read: Result<T, DecodeError>) -> Result<Appended<T>, DecodeError> {
    match read {
        Err(DecodeError::UnexpectedEnd { .. }) => Ok(Appended::default()),
        read => read.map(Appended),
    }
}

impl<C, T: Decode<C> + Default> Decode<C> for Appended<T> {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        or_default(T::decode(decoder))
    }
}

impl<'a, C, T: BorrowDecode<'a, C> + Default> BorrowDecode<'a, C> for Appended<T> {
    fn borrow_decode<D: BorrowDecoder<'a, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        or_default(T::borrow_decode(decoder))
    }
}

impl<T> std::ops::Deref for Appended<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use crate::controller::MetadataImage;
    use crate::controller::records::bincode_config;

    /// Images of releases that did not know a field are read by those that do.
    #[test]
    fn fields_at_the_end_may_be_missing() {
        let image = MetadataImage::default();
        let whole = bincode::encode_to_vec(&image, bincode_config()).expect("it encodes");
        for missing in 0..=2 {
            let bytes = &whole[..whole.len() - missing];
            let decoded = bincode::decode_from_slice::<MetadataImage, _>(bytes, bincode_config());
            assert_eq!(decoded.expect("it decodes").0, image);
        }
    }
}
