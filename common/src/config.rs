//! Layered configuration: defaults, a TOML file, `CALLBOARD__SECTION__KEY` in the environment, the command line.
//!
//! A key that nobody knows is an error that names its nearest neighbour; so is a value of the wrong kind.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What keys in the environment begin with.
pub const ENVIRONMENT_PREFIX: &str = "CALLBOARD__";
const SEPARATOR: &str = "__";

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or is no TOML.
    #[error("{0}")]
    File(String),
    /// Nobody knows this key.
    #[error("{source_name}: there is no setting {key:?}{}", nearest.as_ref().map(|n| format!(", did you mean {n:?}?")).unwrap_or_default())]
    UnknownKey {
        /// Where it stands.
        source_name: String,
        /// The key, with its section.
        key: String,
        /// The known key that is most like it.
        nearest: Option<String>,
    },
    /// A value is of the wrong kind or out of range.
    #[error("{0}")]
    Value(String),
}

/// A number of bytes; written as a number or with KiB, MiB, GiB, kB, MB, GB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const BYTE_UNITS: [(&str, u64); 8] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("b", 1),
];

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let unit = BYTE_UNITS.iter().find(|(unit, _)| lower.ends_with(unit));
        let (digits, factor) = unit.map_or((&lower[..], 1), |(unit, factor)| {
            (&lower[..lower.len() - unit.len()], *factor)
        });
        let number: u64 = digits
            .trim()
            .parse()
            .map_err(|_| format!("{text:?} is no number of bytes like 64MiB"))?;
        number
            .checked_mul(factor)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is too large"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A length of time; written like `500ms`, `30s`, `10m`, `7d`, or `forever`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// Longer than anything lasts.
    pub const FOREVER: Self = Self(Duration::MAX);
}

const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "forever" {
            return Ok(Self::FOREVER);
        }
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = TIME_UNITS
            .iter()
            .find(|(unit, _)| *unit == &text[digits.len()..]);
        let number = digits.trim().parse::<u64>().ok();
        match (number, unit) {
            (Some(number), Some((_, factor))) => {
                Ok(Self(Duration::from_millis(number.saturating_mul(*factor))))
            }
            _ => Err(format!(
                "{text:?} is no length of time like 500ms, 30s, 10m, 12h, 7d or forever"
            )),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::FOREVER {
            return f.write_str("forever");
        }
        let ms = self.0.as_millis();
        let whole = TIME_UNITS
            .iter()
            .find(|(_, factor)| ms > 0 && ms.is_multiple_of(u128::from(*factor)));
        let (unit, factor) = whole.copied().unwrap_or(("ms", 1));
        write!(f, "{}{unit}", ms / u128::from(factor))
    }
}

macro_rules! as_text {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged)]
                enum Either {
                    Number(u64),
                    Text(String),
                }
                let text = match Either::deserialize(d)? {
                    Either::Number(number) => number.to_string(),
                    Either::Text(text) => text,
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(ByteSize);
as_text!(Span);

/// Loads a configuration: `defaults`, then the file, then the environment, then `overrides` by dotted key.
///
/// In the environment and in `overrides` a list is written with commas.
///
/// # Errors
///
/// [`ConfigError`] names the key and where it stands.
pub fn load<T: Serialize + DeserializeOwned>(
    defaults: &T,
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &[(String, String)],
) -> Result<T, ConfigError> {
    let value_error = |e: config::ConfigError| ConfigError::Value(e.to_string());
    // By way of text: an empty list of a structure would be no setting at all.
    let text = toml::to_string(defaults).map_err(|e| ConfigError::Value(e.to_string()))?;
    let defaults = config::File::from_str(&text, config::FileFormat::Toml);
    let defaults = config::Config::builder().add_source(defaults);
    let defaults = defaults.build().map_err(value_error)?;
    let known = keys(&defaults.cache, "");
    let is_list = |key: &&String| defaults.get_array(key).is_ok();
    let lists: BTreeSet<String> = known.iter().filter(is_list).cloned().collect();
    let mut builder = config::Config::builder().add_source(defaults);
    if let Some(path) = file {
        let source = config::File::from(path).format(config::FileFormat::Toml);
        let parsed = config::Config::builder().add_source(source.clone()).build();
        let parsed = parsed.map_err(|e| ConfigError::File(e.to_string()))?;
        check(
            &keys(&parsed.cache, ""),
            &known,
            &path.display().to_string(),
        )?;
        builder = builder.add_source(source);
    }
    let mut given = BTreeMap::new();
    for (name, value) in environment {
        if let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) {
            let key = key.to_ascii_lowercase().replace(SEPARATOR, ".");
            check(
                std::slice::from_ref(&key),
                &known,
                &format!("environment variable {name}"),
            )?;
            drop(given.insert(key, value));
        }
    }
    for (key, value) in overrides {
        check(std::slice::from_ref(key), &known, "command line")?;
        drop(given.insert(key.clone(), value.clone()));
    }
    for (key, value) in given {
        let value = if lists.contains(&key) {
            list(&value)
        } else {
            value.into()
        };
        builder = builder.set_override(&key, value).map_err(value_error)?;
    }
    builder
        .build()
        .and_then(config::Config::try_deserialize)
        .map_err(value_error)
}

/// The members of a list that is written with commas between them.
fn list(text: &str) -> config::Value {
    let members = text.split(',').map(str::trim).filter(|m| !m.is_empty());
    members.map(config::Value::from).collect::<Vec<_>>().into()
}

/// All dotted keys below a value.
#[expect(
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "everything but a table is a leaf; the order is made right here"
)]
fn keys(value: &config::Value, prefix: &str) -> Vec<String> {
    match &value.kind {
        config::ValueKind::Table(table) => {
            let names: BTreeMap<&String, &config::Value> = table.iter().collect();
            let below = |(name, value): (&String, &config::Value)| {
                keys(
                    value,
                    &if prefix.is_empty() {
                        name.clone()
                    } else {
                        format!("{prefix}.{name}")
                    },
                )
            };
            names.into_iter().flat_map(below).collect()
        }
        _ => vec![prefix.to_owned()],
    }
}

fn check(given: &[String], known: &[String], source_name: &str) -> Result<(), ConfigError> {
    let Some(key) = given.iter().find(|key| !known.contains(key)) else {
        return Ok(());
    };
    let likeness = |k: &&String| (strsim::jaro_winkler(k, key) * 1000.0) as u32;
    let nearest = known
        .iter()
        .max_by_key(likeness)
        .filter(|k| likeness(k) > 750)
        .cloned();
    Err(ConfigError::UnknownKey {
        source_name: source_name.to_owned(),
        key: key.clone(),
        nearest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        log: Log,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Log {
        segment_bytes: ByteSize,
        retention: Span,
        name: String,
        users: Vec<String>,
    }

    fn defaults() -> Settings {
        Settings {
            log: Log {
                segment_bytes: ByteSize(1 << 30),
                retention: Span(Duration::from_hours(168)),
                name: "x".into(),
                users: Vec::new(),
            },
        }
    }

    fn environment(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn later_layers_win() {
        let pairs = [
            ("CALLBOARD__LOG__SEGMENT_BYTES", "64MiB"),
            ("CALLBOARD__LOG__NAME", "1e3"),
            ("CALLBOARD__LOG__USERS", "User:a, User:b"),
            ("HOME", "/"),
        ];
        let overrides = [("log.retention".to_owned(), "500ms".to_owned())];
        let loaded = load(&defaults(), None, environment(&pairs), &overrides).expect("valid");
        let expected = Log {
            segment_bytes: ByteSize(64 << 20),
            retention: Span(Duration::from_millis(500)),
            name: "1e3".into(),
            users: vec!["User:a".into(), "User:b".into()],
        };
        assert_eq!(loaded.log, expected);
    }

    #[test]
    fn a_wrong_key_names_its_neighbour() {
        let pairs = [("CALLBOARD__LOG__SEGMENT_BYTE", "1")];
        let error = load(&defaults(), None, environment(&pairs), &[]).expect_err("unknown");
        assert!(
            error
                .to_string()
                .contains("did you mean \"log.segment_bytes\"?"),
            "{error}"
        );
        let overrides = [("log.segment_byte".to_owned(), "1".to_owned())];
        let error = load(&defaults(), None, environment(&[]), &overrides).expect_err("unknown");
        assert!(
            error
                .to_string()
                .contains("did you mean \"log.segment_bytes\"?"),
            "{error}"
        );
        let pairs = [("CALLBOARD__LOG__RETENTION", "soon")];
        let error = load(&defaults(), None, environment(&pairs), &[]).expect_err("wrong");
        assert!(error.to_string().contains("soon"), "{error}");
    }

    #[test]
    fn sizes_and_spans_print_as_they_are_written() {
        for text in ["64MiB", "1GiB", "1000", "0"] {
            assert_eq!(text.parse::<ByteSize>().expect("valid").to_string(), text);
        }
        assert_eq!("2kb".parse(), Ok(ByteSize(2000)));
        for text in ["500ms", "30s", "10m", "7d", "forever", "0ms"] {
            assert_eq!(text.parse::<Span>().expect("valid").to_string(), text);
        }
        for bad in ["", "10", "5 weeks", "-1s", "s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }
}
