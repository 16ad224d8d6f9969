//! The four codecs of Kafka's batches, decompressed as a stream under a hard limit.

use std::io::{self, Read, Write};

use bytes::Bytes;

/// How the records of a batch are compressed.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, raw or in Xerial framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// RFC 8878.
    Zstd,
}

/// Why records could not be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The content is larger than the limit; nothing of it is kept.
    #[error("the records take more than {limit_bytes} bytes when decompressed")]
    TooLarge {
        /// The limit that was in force.
        limit_bytes: usize,
    },
    /// The bytes are not of this codec.
    #[error("the compressed records are malformed: {0}")]
    Malformed(String),
}

/// Snappy's Java framing: this, two version numbers, then blocks with their length in front.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
/// The Java client's block size.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// zstd windows of more than 8 MiB are refused.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

impl Compression {
    /// Every codec, by Kafka's number.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec that a batch's attributes name; `None` for numbers 5 to 7.
    #[must_use]
    pub fn from_attributes(attributes: i16) -> Option<Self> {
        Self::ALL.get(usize::from(attributes as u16 & 7)).copied()
    }

    /// Kafka's number, the lowest three bits of the attributes.
    #[must_use]
    pub fn number(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Kafka's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Compresses the records of a batch.
    ///
    /// # Panics
    ///
    /// Never: the codecs write to memory, which takes all.
    #[must_use]
    pub fn compress(self, records: Vec<u8>) -> Bytes {
        const MEMORY: &str = "writing to memory does not fail";
        match self {
            Self::None => records.into(),
            Self::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&records).expect(MEMORY);
                encoder.finish().expect(MEMORY).into()
            }
            Self::Snappy => xerial_compress(&records).into(),
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(&records).expect(MEMORY);
                encoder.finish().expect(MEMORY).into()
            }
            Self::Zstd => zstd::bulk::compress(&records, zstd::DEFAULT_COMPRESSION_LEVEL)
                .expect(MEMORY)
                .into(),
        }
    }

    /// Decompresses the records of a batch, at most `limit_bytes` of them.
    ///
    /// # Errors
    ///
    /// [`DecompressError`]; memory beyond the limit was not used.
    pub fn decompress(self, bytes: &Bytes, limit_bytes: usize) -> Result<Bytes, DecompressError> {
        match self {
            Self::None if bytes.len() > limit_bytes => {
                Err(DecompressError::TooLarge { limit_bytes })
            }
            Self::None => Ok(bytes.clone()),
            Self::Gzip => drain(flate2::read::MultiGzDecoder::new(&bytes[..]), limit_bytes),
            Self::Snappy => snappy_decompress(bytes, limit_bytes),
            Self::Lz4 => drain(lz4_flex::frame::FrameDecoder::new(&bytes[..]), limit_bytes),
            Self::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(&bytes[..]).map_err(malformed)?;
                decoder
                    .window_log_max(ZSTD_WINDOW_LOG_MAX)
                    .map_err(malformed)?;
                drain(decoder, limit_bytes)
            }
        }
    }
}

impl std::str::FromStr for Compression {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|c| c.name() == name)
            .ok_or_else(|| {
                format!("unknown compression {name:?}; one of none, gzip, snappy, lz4, zstd")
            })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn malformed(error: impl ToString) -> DecompressError {
    DecompressError::Malformed(error.to_string())
}

/// Reads a stream to its end or to the limit.
fn drain(reader: impl Read, limit_bytes: usize) -> Result<Bytes, DecompressError> {
    let mut out = Vec::new();
    // One byte more than allowed tells an exact fit from an excess.
    let read: io::Result<usize> = reader.take(limit_bytes as u64 + 1).read_to_end(&mut out);
    read.map_err(malformed)?;
    if out.len() > limit_bytes {
        return Err(DecompressError::TooLarge { limit_bytes });
    }
    Ok(out.into())
}

fn xerial_compress(records: &[u8]) -> Vec<u8> {
    let mut out = XERIAL_MAGIC.to_vec();
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    for block in records.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = snap::raw::Encoder::new()
            .compress_vec(block)
            .expect("a block is far below snappy's limit");
        out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    out
}

fn snappy_decompress(bytes: &Bytes, limit_bytes: usize) -> Result<Bytes, DecompressError> {
    let mut out = Vec::new();
    if !bytes.starts_with(XERIAL_MAGIC) {
        snappy_block(bytes, limit_bytes, &mut out)?;
        return Ok(out.into());
    }
    let mut rest = bytes
        .get(XERIAL_HEADER_BYTES..)
        .ok_or_else(|| malformed("the framing is cut short"))?;
    while !rest.is_empty() {
        let (size, after) = rest
            .split_first_chunk()
            .ok_or_else(|| malformed("a block's length is cut short"))?;
        let size = u32::from_be_bytes(*size) as usize;
        let block = after
            .get(..size)
            .ok_or_else(|| malformed("a block is cut short"))?;
        rest = &after[size..];
        snappy_block(block, limit_bytes, &mut out)?;
    }
    Ok(out.into())
}

fn snappy_block(
    block: &[u8],
    limit_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecompressError> {
    let size = snap::raw::decompress_len(block).map_err(malformed)?;
    // The claimed size is held against the limit before memory is taken; 22 bytes decompress to at most 64 per 3.
    if out.len() + size > limit_bytes {
        return Err(DecompressError::TooLarge { limit_bytes });
    }
    let start = out.len();
    out.resize(start + size, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(malformed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_returns_what_went_in() {
        let records: Vec<u8> = (0..100_000u32)
            .flat_map(|i| (i / 7).to_le_bytes())
            .collect();
        for codec in Compression::ALL {
            let compressed = codec.compress(records.clone());
            assert_eq!(
                codec.decompress(&compressed, records.len()),
                Ok(records.clone().into()),
                "{codec:?}"
            );
            let too_small = codec.decompress(&compressed, records.len() - 1);
            assert_eq!(
                too_small,
                Err(DecompressError::TooLarge {
                    limit_bytes: records.len() - 1
                }),
                "{codec:?}"
            );
        }
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let compressed = snap::raw::Encoder::new()
            .compress_vec(b"hello hello hello")
            .expect("small");
        assert_eq!(
            Compression::Snappy.decompress(&compressed.into(), 100),
            Ok(Bytes::from_static(b"hello hello hello"))
        );
    }

    /// A bomb ends at the limit: 64 MiB of zeros in a few kilobytes.
    #[test]
    fn a_bomb_ends_at_the_limit() {
        let zeros = vec![0; 64 << 20];
        for codec in [Compression::Gzip, Compression::Zstd, Compression::Lz4] {
            let bomb = codec.compress(zeros.clone());
            assert_eq!(
                codec.decompress(&bomb, 1 << 20),
                Err(DecompressError::TooLarge {
                    limit_bytes: 1 << 20
                })
            );
        }
        let claims_4_gib = Bytes::from_static(b"\xff\xff\xff\xff\x0f\0");
        assert!(matches!(
            Compression::Snappy.decompress(&claims_4_gib, 1 << 20),
            Err(DecompressError::TooLarge { .. })
        ));
    }

    #[test]
    fn garbage_is_malformed() {
        for codec in [
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ] {
            let garbage = Bytes::from_static(b"\x01\x02\x03 this is not compressed");
            assert!(
                matches!(
                    codec.decompress(&garbage, 1 << 20),
                    Err(DecompressError::Malformed(_))
                ),
                "{codec:?}"
            );
        }
    }
}
