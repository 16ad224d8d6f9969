//! Zigzag variable-length numbers of the record format.

/// Reads a number and what follows it; `None` if it is cut short or longer than ten bytes.
pub(super) fn read(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        if i == 9 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some(((value >> 1) as i64 ^ -((value & 1) as i64), &bytes[i + 1..]));
        }
    }
    None
}

/// Reads a number that fits 32 bits.
pub(super) fn read_i32(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (value, rest) = read(bytes)?;
    Some((i32::try_from(value).ok()?, rest))
}

/// Appends a number.
pub(super) fn write(out: &mut Vec<u8>, value: i64) {
    let mut value = (value << 1 ^ value >> 63) as u64;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`write`] appends.
pub(super) fn length(value: i64) -> usize {
    let value = (value << 1 ^ value >> 63) as u64;
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for value in [
            0,
            1,
            -1,
            63,
            64,
            -64,
            -65,
            300,
            i64::from(i32::MAX),
            i64::MAX,
            i64::MIN,
        ] {
            let mut out = Vec::new();
            write(&mut out, value);
            assert_eq!(out.len(), length(value), "{value}");
            assert_eq!(read(&out), Some((value, &[][..])));
            assert_eq!(read(&out[..out.len() - 1]), None);
        }
        assert_eq!(read(&[0xff; 11]), None);
    }
}
