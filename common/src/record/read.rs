//! Reads the records inside of a batch.

use bytes::Bytes;

use super::{Batch, BatchError, Header, Record, varint};
use crate::Offset;
use crate::kafka::Text;

/// Most headers of one record that are read.
const MAX_HEADERS: usize = 100_000;

fn malformed(what: &'static str) -> BatchError {
    BatchError::Records(what)
}

/// Parts of a record as positions in the records' bytes; nothing is copied.
struct Raw<'a> {
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    header_count: i32,
    headers: &'a [u8],
}

fn blob(bytes: &[u8]) -> Result<(Option<&[u8]>, &[u8]), BatchError> {
    let (length, rest) =
        varint::read_i32(bytes).ok_or_else(|| malformed("a length is cut short"))?;
    match usize::try_from(length) {
        Ok(length) if length <= rest.len() => Ok((Some(&rest[..length]), &rest[length..])),
        Err(_) if length == -1 => Ok((None, rest)),
        _ => Err(malformed(
            "a key, value or header is longer than its record",
        )),
    }
}

/// A header's name and value, and what follows it.
type RawHeader<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

/// Takes one header off the front.
fn header(bytes: &[u8]) -> Result<RawHeader<'_>, BatchError> {
    let (key, rest) = blob(bytes)?;
    let (value, rest) = blob(rest)?;
    Ok((
        key.ok_or_else(|| malformed("a header has no name"))?,
        value,
        rest,
    ))
}

/// Takes one record off the front.
fn split(bytes: &[u8]) -> Result<(Raw<'_>, &[u8]), BatchError> {
    let (length, rest) =
        varint::read_i32(bytes).ok_or_else(|| malformed("a record's length is cut short"))?;
    let length = usize::try_from(length).map_err(|_| malformed("a record's length is negative"))?;
    if length > rest.len() || length == 0 {
        return Err(malformed("a record is cut short"));
    }
    let (record, after) = rest.split_at(length);
    let cut = || malformed("a record is shorter than its fields");
    let (timestamp_delta, record) = varint::read(&record[1..]).ok_or_else(cut)?;
    let (offset_delta, record) = varint::read_i32(record).ok_or_else(cut)?;
    let (key, record) = blob(record)?;
    let (value, record) = blob(record)?;
    let (header_count, headers) = varint::read_i32(record).ok_or_else(cut)?;
    Ok((
        Raw {
            timestamp_delta,
            offset_delta,
            key,
            value,
            header_count,
            headers,
        },
        after,
    ))
}

/// Checks the framing of every record without allocating.
pub(super) fn check_framing(mut bytes: &[u8], count: i32) -> Result<(), BatchError> {
    for i in 0..count {
        let (record, rest) = split(bytes)?;
        if record.offset_delta != i {
            return Err(malformed("offsets do not count up from 0"));
        }
        let mut headers = record.headers;
        // Each header takes two bytes at least, so a lying count ends with the bytes.
        for _ in 0..record.header_count {
            headers = header(headers)?.2;
        }
        if record.header_count < 0 || !headers.is_empty() {
            return Err(malformed("the headers do not fill the record"));
        }
        bytes = rest;
    }
    if bytes.is_empty() {
        Ok(())
    } else {
        Err(malformed("bytes follow the last record"))
    }
}

impl Batch {
    /// The records of this batch, in order, at most `limit_bytes` of them when decompressed.
    ///
    /// # Errors
    ///
    /// [`BatchError`] if the content is malformed or larger than the limit.
    pub fn records(&self, limit_bytes: usize) -> Result<Vec<Record>, BatchError> {
        let codec = self
            .header()
            .compression()
            .ok_or(BatchError::Codec(self.header().attributes & 7))?;
        let bytes = codec.decompress(&self.body(), limit_bytes)?;
        let mut rest = &bytes[..];
        // A record takes seven bytes at least.
        let expected = usize::try_from(self.header().record_count).unwrap_or(0);
        let mut records = Vec::with_capacity(expected.min(bytes.len() / 7 + 1));
        for _ in 0..expected {
            let (raw, after) = split(rest)?;
            rest = after;
            records.push(self.record(&bytes, &raw)?);
        }
        Ok(records)
    }

    fn record(&self, bytes: &Bytes, raw: &Raw<'_>) -> Result<Record, BatchError> {
        let count = usize::try_from(raw.header_count)
            .map_err(|_| malformed("a header count is negative"))?;
        if count > MAX_HEADERS || count > raw.headers.len() {
            return Err(malformed("there are more headers than the record can hold"));
        }
        let mut headers = Vec::with_capacity(count);
        let mut rest = raw.headers;
        for _ in 0..count {
            let (key, value, after) = header(rest)?;
            rest = after;
            let key = Text::from_utf8(bytes.slice_ref(key))
                .ok_or_else(|| malformed("a header's name is not UTF-8"))?;
            headers.push(Header {
                key,
                value: value.map(|v| bytes.slice_ref(v)),
            });
        }
        let h = self.header();
        let offset = Offset::checked(h.base_offset.saturating_add(i64::from(raw.offset_delta)))
            .ok_or_else(|| malformed("an offset is negative"))?;
        let created = h.base_timestamp.saturating_add(raw.timestamp_delta);
        Ok(Record {
            offset,
            timestamp: if h.is_log_append_time() {
                h.max_timestamp
            } else {
                created
            },
            key: raw.key.map(|k| bytes.slice_ref(k)),
            value: raw.value.map(|v| bytes.slice_ref(v)),
            headers,
        })
    }
}
