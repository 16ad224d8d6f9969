//! Names and numbers that identify things: brokers, topics, partitions, producers, groups.
//!
//! Invariant: a [`TopicName`] holds only characters that Kafka allows, so it is safe as part of a file name.

use std::fmt;
use std::sync::Arc;

use bincode::{BorrowDecode, Decode, Encode};

/// A 128-bit identifier as Kafka prints it: 22 characters of URL-safe base64.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Uuid(pub [u8; 16]);

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Uuid {
    /// The identifier of nothing, all zeros.
    pub const ZERO: Self = Self([0; 16]);

    /// Draws a random identifier that does not begin with `-`, so that it is never taken for an option.
    #[must_use]
    pub fn random() -> Self {
        loop {
            let id = Self(*uuid::Uuid::new_v4().as_bytes());
            if id != Self::ZERO && id.0[0] >> 2 != 62 {
                return id;
            }
        }
    }

    /// Whether this is the identifier of nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// Parses Kafka's form, the inverse of `Display`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 22 {
            return None;
        }
        let mut bits = 0u128;
        for (i, c) in text.iter().enumerate() {
            let value = BASE64.iter().position(|b| b == c)? as u128;
            // 22 characters carry 132 bits; the last four are padding and must be zero.
            if i == 21 {
                if value & 0xf != 0 {
                    return None;
                }
                bits = bits << 2 | value >> 4;
            } else {
                bits = bits << 6 | value;
            }
        }
        Some(Self(bits.to_be_bytes()))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        for i in 0..21 {
            let index = (bits >> (122 - 6 * i)) & 0x3f;
            write!(f, "{}", char::from(BASE64[index as usize]))?;
        }
        write!(f, "{}", char::from(BASE64[((bits & 3) << 4) as usize]))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Number of a node in its cluster, 0 and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct BrokerId(pub i32);

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number that the controller gives to an idempotent producer, 0 and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ProducerId(pub i64);

/// Why a topic name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// The name is empty, `.` or `..`.
    #[error("the name is empty, \".\" or \"..\"")]
    Reserved,
    /// The name is longer than Kafka's 249 characters.
    #[error("the name has {length} characters, 249 are allowed")]
    TooLong {
        /// Length of the refused name in bytes.
        length: usize,
    },
    /// A character other than ASCII letters, digits, `.`, `_` and `-`.
    #[error("the name holds {character:?}; allowed are ASCII letters, digits, '.', '_' and '-'")]
    Character {
        /// The first character that is not allowed.
        character: char,
    },
}

/// A topic's name, checked against Kafka's rules; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// The longest name, in characters.
    pub const MAX_LENGTH: usize = 249;

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`TopicNameError`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        if matches!(name, "" | "." | "..") {
            return Err(TopicNameError::Reserved);
        }
        if name.len() > Self::MAX_LENGTH {
            return Err(TopicNameError::TooLong { length: name.len() });
        }
        match name
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
        {
            Some(character) => Err(TopicNameError::Character { character }),
            None => Ok(Self(name.into())),
        }
    }

    /// The topic that holds committed offsets.
    #[must_use]
    pub fn consumer_offsets() -> Self {
        Self("__consumer_offsets".into())
    }

    /// Whether the broker owns this topic: clients read it, but neither write nor delete it.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        matches!(
            &*self.0,
            "__consumer_offsets"
                | "__transaction_state"
                | "__cluster_metadata"
                | "__share_group_state"
        )
    }

    /// The name as Kafka's metrics see it: `.` and `_` collide there.
    #[must_use]
    pub fn metric_name(&self) -> String {
        self.0.replace('.', "_")
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Encode for TopicName {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        e: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.0.encode(e)
    }
}

impl<C> Decode<C> for TopicName {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        d: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let name = String::decode(d)?;
        Self::new(&name).map_err(|e| bincode::error::DecodeError::OtherString(e.to_string()))
    }
}

impl<'de, C> BorrowDecode<'de, C> for TopicName {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
        d: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Self::decode(d)
    }
}

/// One partition of one topic, printed as Kafka names its directory: `orders-0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number, 0 and up.
    pub partition: i32,
}

impl TopicPartition {
    /// Names partition `partition` of `topic`.
    #[must_use]
    pub fn new(topic: TopicName, partition: i32) -> Self {
        Self { topic, partition }
    }

    /// Parses a directory name; `None` if it is none.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (topic, partition) = name.rsplit_once('-')?;
        let number: i32 = partition.parse().ok()?;
        // Kafka writes no sign and no leading zeros.
        if number < 0 || partition != number.to_string() {
            return None;
        }
        Some(Self {
            topic: TopicName::new(topic).ok()?,
            partition: number,
        })
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_prints_as_kafka_does_and_parses_back() {
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        let id = Uuid(*b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff");
        assert_eq!(id.to_string(), "ABEiM0RVZneImaq7zN3u_w");
        assert_eq!(Uuid::parse("ABEiM0RVZneImaq7zN3u_w"), Some(id));
        assert_eq!(
            Uuid::parse("ABEiM0RVZneImaq7zN3u_x"),
            None,
            "padding bits are zero"
        );
        assert_eq!(Uuid::parse("short"), None);
    }

    #[test]
    fn topic_names_never_form_a_path() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../../etc/passwd",
            "a\0b",
            "\u{430}",
            "a b",
            &"x".repeat(250),
        ] {
            assert!(TopicName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "orders.v1_x-2", &"x".repeat(249)] {
            assert!(TopicName::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn directory_names_parse_back() {
        let partition = TopicPartition::parse("a-b-12").expect("a partition");
        assert_eq!((partition.topic.as_str(), partition.partition), ("a-b", 12));
        for bad in ["a-", "a-01", "a", "-1", "a-x", "a-99999999999"] {
            assert_eq!(TopicPartition::parse(bad), None, "{bad}");
        }
    }
}
