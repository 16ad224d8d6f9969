//! Headers of requests and responses (Kafka's RequestHeader 1 and 2, ResponseHeader 0 and 1).

use super::{ApiKey, DecodeError, Decoder, EncodeError, Encoder, TaggedFields, Text};

/// What stands in front of every request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The request's number, known or not.
    pub api_key: i16,
    /// The version of header and body.
    pub api_version: i16,
    /// The client's number of this request, sent back with the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Text>,
}

impl RequestHeader {
    /// Reads a header. The tagged fields of header version 2 follow only if the version is flexible.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says what is malformed.
    pub fn decode(d: &mut Decoder) -> Result<Self, DecodeError> {
        let (api_key, api_version, correlation_id) = (d.i16()?, d.i16()?, d.i32()?);
        // The client id keeps its old form in header version 2 too.
        let client_id = d.text(false)?;
        if ApiKey::from_number(api_key).is_some_and(|key| api_version >= key.flexible_from()) {
            d.tagged_fields(|_, _| Ok(false))?;
        }
        Ok(Self {
            api_key,
            api_version,
            correlation_id,
            client_id,
        })
    }

    /// Writes a header.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the client id is too long.
    pub fn encode(&self, e: &mut Encoder) -> Result<(), EncodeError> {
        e.i16(self.api_key);
        e.i16(self.api_version);
        e.i32(self.correlation_id);
        e.text(false, self.client_id.as_ref())?;
        if ApiKey::from_number(self.api_key)
            .is_some_and(|key| self.api_version >= key.flexible_from())
        {
            TaggedFields::default().write(e)?;
        }
        Ok(())
    }
}

/// Writes a response's header; ApiVersions never has tagged fields, so that any client can read it (KIP-511).
///
/// # Errors
///
/// Never in practice: no length depends on the input.
pub fn encode_response(
    e: &mut Encoder,
    key: ApiKey,
    version: i16,
    correlation_id: i32,
) -> Result<(), EncodeError> {
    e.i32(correlation_id);
    if key != ApiKey::ApiVersions && version >= key.flexible_from() {
        TaggedFields::default().write(e)?;
    }
    Ok(())
}
