//! A topic's settings, by Kafka's names; pure.
//!
//! A name that Kafka knows and Callboard does not support is refused as such, not swallowed.

use std::collections::BTreeMap;
use std::time::Duration;

/// Why a topic config is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicConfigError {
    /// The value is not one that the config takes.
    #[error("{name}={value:?} is invalid: {expected}")]
    Value {
        /// Kafka's name.
        name: String,
        /// What was given.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// Kafka has this config, Callboard does not support it (yet), or not with this value.
    #[error("{name}={value:?} is not supported: {why}")]
    Unsupported {
        /// Kafka's name.
        name: String,
        /// What was given.
        value: String,
        /// What is supported.
        why: &'static str,
    },
    /// Nobody has this config.
    #[error("there is no topic config {name:?}")]
    Unknown {
        /// What was given.
        name: String,
    },
}

/// Settings of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// `retention.ms`: how long records are kept; `None` is for ever. Default 7 days.
    pub retention: Option<Duration>,
    /// `retention.bytes`: how much of a partition is kept; `None` is all. Default all.
    pub retention_bytes: Option<u64>,
    /// `segment.bytes`: size at which a segment is closed. Default 1 GiB.
    pub segment_bytes: u32,
    /// `segment.ms`: age at which a segment is closed. Default 7 days.
    pub segment_age: Duration,
    /// `max.message.bytes`: largest batch. Default 1,048,588.
    pub max_message_bytes: u32,
    /// `flush.messages`: sync after so many records; 1, the default, syncs before every acknowledgement.
    pub flush_messages: u64,
    /// `flush.ms`: sync after so long; `None`, the default, leaves it to `flush.messages`.
    pub flush_interval: Option<Duration>,
    /// `message.timestamp.type`: whether the broker stamps records. Default no (`CreateTime`).
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`: how far a record's timestamp may lie behind. Default for ever.
    pub timestamp_before_max: Option<Duration>,
    /// `message.timestamp.after.max.ms`: how far it may lie ahead. Default 1 hour.
    pub timestamp_after_max: Duration,
    /// `index.interval.bytes`: bytes of log between entries of its index. Default 4096.
    pub index_interval_bytes: u32,
    /// `min.insync.replicas`: replicas that must be in sync for `acks=all`. Default 1.
    pub min_insync_replicas: u32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            retention: Some(Duration::from_hours(7 * 24)),
            retention_bytes: None,
            segment_bytes: 1 << 30,
            segment_age: Duration::from_hours(7 * 24),
            max_message_bytes: 1_048_588,
            flush_messages: 1,
            flush_interval: None,
            log_append_time: false,
            timestamp_before_max: None,
            timestamp_after_max: Duration::from_hours(1),
            index_interval_bytes: 4096,
            min_insync_replicas: 1,
        }
    }
}

/// Longest name and value: what is kept in the metadata is bounded.
const NAME_MAX_BYTES: usize = 64;
const VALUE_MAX_BYTES: usize = 64;
const FOREVER: &str = "a number of milliseconds, or -1 for ever";
const POSITIVE: &str = "a positive number";

fn number(
    name: &str,
    value: &str,
    from: i64,
    to: i64,
    expected: &'static str,
) -> Result<i64, TopicConfigError> {
    match value.parse::<i64>() {
        Ok(number) if (from..=to).contains(&number) => Ok(number),
        _ => Err(TopicConfigError::Value {
            name: name.into(),
            value: value.into(),
            expected,
        }),
    }
}

/// Milliseconds; `i64::MAX` and -1 mean for ever.
fn time(name: &str, value: &str, from: i64) -> Result<Option<Duration>, TopicConfigError> {
    let ms = number(name, value, from, i64::MAX, FOREVER)?;
    Ok((0..i64::MAX)
        .contains(&ms)
        .then(|| Duration::from_millis(ms.unsigned_abs())))
}

impl TopicConfig {
    /// Applies overrides by Kafka's names on top of `self`.
    ///
    /// # Errors
    ///
    /// [`TopicConfigError`] of the first override that is refused; `self` was consumed.
    pub fn with(mut self, overrides: &BTreeMap<String, String>) -> Result<Self, TopicConfigError> {
        for (name, value) in overrides {
            if name.len() > NAME_MAX_BYTES || value.len() > VALUE_MAX_BYTES {
                let short = |text: &str| text.chars().take(VALUE_MAX_BYTES).collect::<String>();
                return Err(invalid(&short(name), &short(value), "a short text"));
            }
            self.set(name, value)?;
        }
        Ok(self)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), TopicConfigError> {
        let bounded = |from, to, expected| number(name, value, from, to, expected);
        match name {
            "retention.ms" => self.retention = time(name, value, -1)?,
            "retention.bytes" => {
                let bytes = bounded(-1, i64::MAX, "a number of bytes, or -1 for all")?;
                self.retention_bytes = u64::try_from(bytes).ok();
            }
            "segment.bytes" => {
                let expected = "14 to 2147483647 bytes";
                self.segment_bytes = bounded(14, i64::from(i32::MAX), expected)? as u32;
            }
            "segment.ms" => self.segment_age = time(name, value, 1)?.unwrap_or(Duration::MAX),
            "max.message.bytes" => {
                self.max_message_bytes =
                    bounded(0, i64::from(i32::MAX), "0 to 2147483647 bytes")? as u32;
            }
            "flush.messages" => {
                self.flush_messages = bounded(1, i64::MAX, POSITIVE)?.unsigned_abs()
            }
            "flush.ms" => self.flush_interval = time(name, value, 0)?,
            "message.timestamp.type" => {
                self.log_append_time = match value {
                    "CreateTime" => false,
                    "LogAppendTime" => true,
                    _ => return Err(invalid(name, value, "CreateTime or LogAppendTime")),
                }
            }
            "message.timestamp.before.max.ms" => self.timestamp_before_max = time(name, value, 0)?,
            "message.timestamp.after.max.ms" => {
                self.timestamp_after_max = time(name, value, 0)?.unwrap_or(Duration::MAX);
            }
            "index.interval.bytes" => {
                self.index_interval_bytes =
                    bounded(0, i64::from(i32::MAX), "0 to 2147483647 bytes")? as u32;
            }
            "min.insync.replicas" => {
                self.min_insync_replicas = bounded(1, i64::from(i32::MAX), POSITIVE)? as u32;
            }
            _ => return Self::without_effect(name, value),
        }
        Ok(())
    }

    /// Configs of which only the value that changes nothing is accepted, and those that nobody knows.
    fn without_effect(name: &str, value: &str) -> Result<(), TopicConfigError> {
        let unsupported = |why| TopicConfigError::Unsupported {
            name: name.into(),
            value: value.into(),
            why,
        };
        match (name, value) {
            ("cleanup.policy", "delete") | ("compression.type", "producer") => Ok(()),
            (
                "preallocate" | "unclean.leader.election.enable" | "remote.storage.enable",
                "false",
            ) => Ok(()),
            ("cleanup.policy", "compact" | "compact,delete" | "delete,compact") => {
                Err(unsupported("compaction does not exist yet; only delete"))
            }
            ("cleanup.policy", _) => Err(invalid(name, value, "delete")),
            ("compression.type", "gzip" | "snappy" | "lz4" | "zstd" | "uncompressed") => Err(
                unsupported("batches are stored as the producer compressed them; only producer"),
            ),
            ("compression.type", _) => Err(invalid(name, value, "producer")),
            _ if KNOWN_TO_KAFKA.contains(&name) => {
                Err(unsupported("this config has no effect here"))
            }
            _ => Err(TopicConfigError::Unknown { name: name.into() }),
        }
    }

    /// Every config that has an effect, by Kafka's name, with its value here.
    #[must_use]
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let ms = |d: Option<Duration>, forever: i64| {
            d.map_or(forever, |d| {
                i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
            })
        };
        let bytes = |b: Option<u64>| b.map_or("-1".to_owned(), |b| b.to_string());
        vec![
            ("cleanup.policy", "delete".into()),
            ("compression.type", "producer".into()),
            ("flush.messages", self.flush_messages.to_string()),
            ("flush.ms", ms(self.flush_interval, i64::MAX).to_string()),
            (
                "index.interval.bytes",
                self.index_interval_bytes.to_string(),
            ),
            ("max.message.bytes", self.max_message_bytes.to_string()),
            (
                "message.timestamp.after.max.ms",
                ms(Some(self.timestamp_after_max), i64::MAX).to_string(),
            ),
            (
                "message.timestamp.before.max.ms",
                ms(self.timestamp_before_max, i64::MAX).to_string(),
            ),
            (
                "message.timestamp.type",
                if self.log_append_time {
                    "LogAppendTime"
                } else {
                    "CreateTime"
                }
                .into(),
            ),
            ("min.insync.replicas", self.min_insync_replicas.to_string()),
            ("preallocate", "false".into()),
            ("remote.storage.enable", "false".into()),
            ("retention.bytes", bytes(self.retention_bytes)),
            ("retention.ms", ms(self.retention, -1).to_string()),
            ("segment.bytes", self.segment_bytes.to_string()),
            (
                "segment.ms",
                ms(Some(self.segment_age), i64::MAX).to_string(),
            ),
            ("unclean.leader.election.enable", "false".into()),
        ]
    }
}

fn invalid(name: &str, value: &str, expected: &'static str) -> TopicConfigError {
    TopicConfigError::Value {
        name: name.into(),
        value: value.into(),
        expected,
    }
}

/// Whether Kafka has a topic config of this name that cannot be set here: it has its default, then.
#[must_use]
pub fn has_only_its_default(name: &str) -> bool {
    KNOWN_TO_KAFKA.contains(&name)
}

/// Topic configs of Kafka 4.4 that are not supported with any value that would change something.
const KNOWN_TO_KAFKA: [&str; 21] = [
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "follower.replication.throttled.replicas",
    "internal.segment.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "message.downconversion.enable",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "preallocate",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "segment.index.bytes",
    "segment.jitter.ms",
    "unclean.leader.election.enable",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<TopicConfig, TopicConfigError> {
        TopicConfig::default().with(
            &pairs
                .iter()
                .map(|(n, v)| ((*n).into(), (*v).into()))
                .collect(),
        )
    }

    #[test]
    fn kafkas_names_are_understood() {
        let config = with(&[
            ("retention.ms", "-1"),
            ("segment.bytes", "1024"),
            ("flush.messages", "9223372036854775807"),
        ]);
        let config = config.expect("valid");
        assert_eq!((config.retention, config.segment_bytes), (None, 1024));
        assert_eq!(config.flush_messages, i64::MAX as u64);
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        assert!(matches!(
            with(&[("retention.ms", "-2")]),
            Err(TopicConfigError::Value { .. })
        ));
        assert!(matches!(
            with(&[("segment.bytes", "1")]),
            Err(TopicConfigError::Value { .. })
        ));
        assert!(matches!(
            with(&[("cleanup.policy", "compact")]),
            Err(TopicConfigError::Unsupported { .. })
        ));
        assert!(matches!(
            with(&[("segment.jitter.ms", "5")]),
            Err(TopicConfigError::Unsupported { .. })
        ));
        assert!(matches!(
            with(&[("retension.ms", "5")]),
            Err(TopicConfigError::Unknown { .. })
        ));
    }

    #[test]
    fn a_description_is_a_config() {
        let config = with(&[
            ("retention.bytes", "5000"),
            ("message.timestamp.type", "LogAppendTime"),
        ])
        .expect("valid");
        let pairs = config
            .describe()
            .into_iter()
            .map(|(n, v)| (n.to_owned(), v))
            .collect();
        assert_eq!(TopicConfig::default().with(&pairs), Ok(config));
    }
}
