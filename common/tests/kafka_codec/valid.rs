//! Random bytes that a schema allows, in the form that encoders write.

use bytes::{BufMut, Bytes};

use crate::schema::{Field, Kind, Message, Versions};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

struct Writer<'a> {
    message: &'a Message,
    version: i16,
    flexible: bool,
    random: Random,
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Writer<'_> {
    fn length(&self, out: &mut Vec<u8>, wide: bool, length: Option<usize>) {
        match (self.flexible, wide) {
            (true, _) => varint(out, length.map_or(0, |l| l as u64 + 1)),
            (false, true) => out.put_i32(length.map_or(-1, |l| l as i32)),
            (false, false) => out.put_i16(length.map_or(-1, |l| l as i16)),
        }
    }

    fn value(&mut self, out: &mut Vec<u8>, kind: &Kind, null: bool) {
        let draw = self.random.next();
        match kind {
            Kind::Bool => out.push((draw & 1) as u8),
            Kind::Int8 => out.push(draw as u8),
            Kind::Int16 | Kind::Uint16 => out.put_u16(draw as u16),
            Kind::Int32 => out.put_u32(draw as u32),
            Kind::Int64 => out.put_u64(draw),
            Kind::Float64 => out.put_f64(draw as f64),
            Kind::Uuid => out.put_u128(u128::from(draw) << 64 | 1),
            Kind::Text | Kind::Bytes if null => self.length(out, *kind == Kind::Bytes, None),
            Kind::Text => {
                let text: String = (0..draw % 12)
                    .map(|i| char::from(b'a' + (draw >> i) as u8 % 26))
                    .collect();
                self.length(out, false, Some(text.len()));
                out.extend_from_slice(text.as_bytes());
            }
            Kind::Bytes => {
                // Now and then more than what the encoder copies.
                let length = if draw.is_multiple_of(5) {
                    3000
                } else {
                    (draw % 40) as usize
                };
                self.length(out, true, Some(length));
                out.extend((0..length).map(|i| (draw >> (i % 60)) as u8));
            }
            Kind::Array(_) if null => self.length(out, true, None),
            Kind::Array(element) => {
                let length = (draw % 4) as usize;
                self.length(out, true, Some(length));
                for _ in 0..length {
                    self.value(out, element, false);
                }
            }
            Kind::Struct(name) => self.structure(out, name),
        }
    }

    fn field(&mut self, out: &mut Vec<u8>, field: &Field) {
        let null = field.nullable.contains(self.version) && self.random.below(3) == 0;
        // A struct that may be null says whether it is there.
        if matches!(field.kind, Kind::Struct(_)) && field.nullable != Versions::NONE {
            out.put_i8(if null { -1 } else { 1 });
            if null {
                return;
            }
        }
        self.value(out, &field.kind, null);
    }

    fn structure(&mut self, out: &mut Vec<u8>, name: &str) {
        let fields = &self
            .message
            .structs
            .iter()
            .find(|s| s.name == name)
            .expect("declared")
            .fields;
        let version = self.version;
        let is_tagged = |f: &Field| f.tag.is_some_and(|(_, v)| v.contains(version));
        for field in fields
            .iter()
            .filter(|f| f.versions.contains(version) && !is_tagged(f))
        {
            self.field(out, field);
        }
        if !self.flexible {
            return;
        }
        let mut tagged: Vec<&Field> = fields
            .iter()
            .filter(|f| f.versions.contains(version) && is_tagged(f))
            .collect();
        tagged.sort_by_key(|f| f.tag.map(|(tag, _)| tag));
        let mut written = Vec::new();
        let mut count = 0;
        for field in tagged
            .into_iter()
            .filter(|_| self.random.below(2) == 0)
            .collect::<Vec<_>>()
        {
            let mut content = Vec::new();
            self.value(&mut content, &field.kind, false);
            // Encoders leave defaults out: zeros, empty strings and arrays.
            if content.iter().all(|b| matches!(b, 0 | 1)) || content.iter().all(|b| *b == 0xff) {
                continue;
            }
            count += 1;
            varint(&mut written, field.tag.expect("filtered").0.into());
            varint(&mut written, content.len() as u64);
            written.extend(content);
        }
        varint(out, count);
        out.extend(written);
    }
}

/// Bytes of `message` in `version`; the seed decides them.
pub(crate) fn bytes(message: &Message, version: i16, seed: u64) -> Bytes {
    let flexible = message.flexible.contains(version);
    let mut writer = Writer {
        message,
        version,
        flexible,
        random: Random(seed ^ version as u64),
    };
    let mut out = Vec::new();
    writer.structure(&mut out, &message.name);
    out.into()
}

/// The same bytes with some of them changed.
pub(crate) fn noise(bytes: &Bytes, seed: u64) -> Bytes {
    let mut random = Random(seed);
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len() as u64) as usize;
        out[at] = random.next() as u8;
    }
    out.into()
}
