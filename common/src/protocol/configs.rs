//! Settings of topics and brokers, by Kafka's names.
//!
//! Sources: Kafka protocol guide; KIP-133, KIP-226 (sources and synonyms), KIP-339 (incremental changes), KIP-569
//! (types and documentation).

use bincode::{Decode, Encode};

use crate::ErrorCode;
use crate::kafka::Text;

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum ConfigResource {
    /// A topic, by name.
    Topic(Text),
    /// A broker by its number in decimal, or all of them by the empty string.
    Broker(Text),
    /// Something that has no settings here: Kafka's number of its kind, and its name.
    Other(i8, Text),
}

/// Asks for settings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribeConfigs {
    /// Of what, and which ones; `None` is all.
    pub resources: Vec<(ConfigResource, Option<Vec<Text>>)>,
    /// Whether to say what each value is made of.
    pub synonyms: bool,
    /// Whether to say what each setting is for.
    pub documentation: bool,
}

/// Answer to [`DescribeConfigs`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribedConfigs {
    /// By resource.
    pub resources: Vec<DescribedResource>,
}

/// The settings of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribedResource {
    /// What was asked for.
    pub resource: ConfigResource,
    /// Whether it is there.
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<Text>,
    /// Its settings, sorted by name.
    pub configs: Vec<ConfigEntry>,
}

/// Where a value comes from; the numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ConfigSource {
    /// The topic's own.
    Topic = 1,
    /// The broker's configuration file or environment.
    StaticBroker = 4,
    /// Nobody chose it.
    Default = 5,
}

/// What a value looks like; the numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ConfigKind {
    /// `true` or `false`.
    Boolean = 1,
    /// Any text.
    String = 2,
    /// A 32-bit number.
    Int = 3,
    /// A 64-bit number.
    Long = 5,
    /// Texts with commas between.
    List = 7,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ConfigEntry {
    /// Kafka's name.
    pub name: Text,
    /// The value in force; `None` if it is a secret.
    pub value: Option<Text>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// What it looks like.
    pub kind: ConfigKind,
    /// Whether it changes only with the configuration file and a restart.
    pub read_only: bool,
    /// Whether it is a secret.
    pub sensitive: bool,
    /// The values it is made of, the one in force first: name, value, source.
    pub synonyms: Vec<(Text, Option<Text>, ConfigSource)>,
    /// What it is for.
    pub documentation: Option<Text>,
}

/// What to do with a setting; the numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ConfigOp {
    /// Give it the value.
    Set = 0,
    /// Back to the default.
    Delete = 1,
    /// Add to a list.
    Append = 2,
    /// Take from a list.
    Subtract = 3,
}

/// A change of one setting.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ConfigChange {
    /// Kafka's name.
    pub name: Text,
    /// What to do.
    pub op: ConfigOp,
    /// With which value.
    pub value: Option<Text>,
}

/// Changes settings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AlterConfigs {
    /// The changes by resource; those of one resource are made together or not at all.
    pub resources: Vec<(ConfigResource, Vec<ConfigChange>)>,
    /// Whether settings that are not named go back to their defaults (Kafka's older AlterConfigs).
    pub replace: bool,
    /// Whether to check only.
    pub validate_only: bool,
}

/// Answer to [`AlterConfigs`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AlteredConfigs {
    /// By resource: whether the changes were made, and more about the error.
    pub resources: Vec<(ConfigResource, ErrorCode, Option<Text>)>,
}
