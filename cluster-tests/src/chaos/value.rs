//! Values that say which they are and whether they are whole.

use callboard_common::record::batch::checksum;

use crate::sim::random::Random;

const HEAD_BYTES: usize = 12;
/// Longest padding.
const PAD_MAX: u64 = 1_000;

/// The bytes of a value.
#[must_use]
pub fn encode(value: u64) -> Vec<u8> {
    let mut random = Random::new(value, "pad");
    let mut bytes = value.to_be_bytes().to_vec();
    bytes.extend([0; 4]);
    let length = HEAD_BYTES + random.below(PAD_MAX) as usize;
    while bytes.len() < length {
        bytes.extend(random.draw().to_be_bytes());
    }
    bytes.truncate(length);
    let sum = checksum(&bytes);
    bytes[8..HEAD_BYTES].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Which value these bytes are; `None` if they are none.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    (encode(number) == bytes).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_again_and_any_other_byte_is_noticed() {
        for value in [0, 1, 7 << 40 | 12, u64::MAX] {
            let bytes = encode(value);
            assert_eq!(decode(&bytes), Some(value));
            for at in (0..bytes.len()).step_by(7) {
                let mut other = bytes.clone();
                other[at] ^= 1;
                assert_eq!(decode(&other), None, "{at}");
            }
            assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        }
    }
}
