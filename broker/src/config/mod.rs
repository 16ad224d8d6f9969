//! Settings of a node: each with unit, default, range and Kafka's name.
//!
//! Files and environment use these names in sections (`[log] segment_bytes`, `CALLBOARD__LOG__SEGMENT_BYTES`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use callboard_common::config::{ByteSize, ConfigError, Span};
use callboard_common::kafka::Text;
use callboard_common::{BrokerId, FeatureLevel};
use serde::{Deserialize, Serialize};

mod describe;
mod sections;

pub use describe::{ConfigDoc, NodeSetting, TOPIC_CONFIGS};
pub use sections::{
    ClusterSection, GroupSection, LimitSection, ListenerSection, LogSection, LoggingSection,
    NodeSection, SecuritySection, TopicSection,
};

use crate::api::{Advertised, ApiConfig, Authorizer};
use crate::controller::Endpoint;
use crate::coordinator::GroupConfig;
use crate::net::admission::Limits;
use crate::topic_config::TopicConfig;

/// All settings of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// The node itself.
    pub node: NodeSection,
    /// Where it listens.
    pub listeners: ListenerSection,
    /// Defaults of topics.
    pub log: LogSection,
    /// Topics and partitions.
    pub topics: TopicSection,
    /// The cluster that it belongs to.
    pub cluster: ClusterSection,
    /// Consumer groups.
    pub groups: GroupSection,
    /// Limits of what clients may ask.
    pub limits: LimitSection,
    /// Who may do what.
    pub security: SecuritySection,
    /// The log of the process.
    pub logging: LoggingSection,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        let (topic, groups, limits) = (
            TopicConfig::default(),
            GroupConfig::default(),
            Limits::default(),
        );
        Self {
            node: NodeSection {
                id: 1,
                data: "./callboard-data".into(),
                workers: 0,
                sync_threads: 4,
                background_threads: 4,
                open_files: 1000,
            },
            listeners: default_listeners(),
            log: LogSection {
                retention: topic.retention.map_or(Span::FOREVER, Span),
                retention_bytes: ByteSize(topic.retention_bytes.unwrap_or(0)),
                segment_bytes: ByteSize(topic.segment_bytes.into()),
                segment_age: Span(topic.segment_age),
                max_message_bytes: ByteSize(topic.max_message_bytes.into()),
                flush_messages: topic.flush_messages,
                flush_interval: topic.flush_interval.map_or(Span::FOREVER, Span),
            },
            topics: TopicSection {
                auto_create: true,
                auto_create_max: 10,
                partitions: 1,
                offsets_partitions: 50,
                max_partitions: 20_000,
            },
            cluster: ClusterSection::default(),
            groups: GroupSection {
                session_timeout_min: Span(groups.session_timeout_min),
                session_timeout_max: Span(groups.session_timeout_max),
                max_size: groups.max_size,
                initial_rebalance_delay: Span(groups.initial_rebalance_delay),
                offset_metadata_max: ByteSize(groups.offset_metadata_max_bytes as u64),
                offsets_retention: Span(groups.offsets_retention),
                rewrite: ByteSize(64 << 20),
            },
            limits: LimitSection {
                request_max: ByteSize(limits.request_max_bytes.into()),
                in_flight_max: ByteSize(limits.in_flight_max_bytes.into()),
                requests_per_connection: limits.requests_per_connection,
                connections: limits.connections,
                connections_per_ip: limits.connections_per_ip,
                idle_timeout: Span(limits.idle_timeout),
                frame_timeout: Span(limits.frame_timeout),
                write_timeout: Span(limits.write_timeout),
                fetch_max: ByteSize(55 << 20),
                fetch_max_wait: Span(Duration::from_mins(1)),
                names_per_request: 10_000,
            },
            security: SecuritySection::default(),
            logging: LoggingSection::default(),
        }
    }
}

fn default_listeners() -> ListenerSection {
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    ListenerSection {
        kafka: loopback(9092),
        advertised_kafka: String::new(),
        kafka_tls: String::new(),
        advertised_kafka_tls: String::new(),
        quic: loopback(9192),
        advertised_quic: String::new(),
        http: loopback(9292),
        peer: loopback(9392),
        advertised_peer: String::new(),
        certificate: String::new(),
        key: String::new(),
        ca: String::new(),
    }
}

fn ranged<T: TryFrom<u64>>(name: &str, value: u64, from: u64, to: u64) -> Result<T, ConfigError> {
    let refuse = || ConfigError::Value(format!("{name} is {value}, allowed are {from} to {to}"));
    if (from..=to).contains(&value) {
        T::try_from(value).map_err(|_| refuse())
    } else {
        Err(refuse())
    }
}

/// `host:port` of an advertised address, or the bound one.
fn advertised(name: &str, text: &str, bound: SocketAddr) -> Result<Advertised, ConfigError> {
    if text.is_empty() {
        return Ok(Advertised {
            host: Text::from(bound.ip().to_string()),
            port: bound.port(),
        });
    }
    let parsed = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parsed {
        Some((host, port)) if !host.is_empty() => {
            // 0 stands for the port that was bound.
            let port = if port == 0 { bound.port() } else { port };
            Ok(Advertised {
                host: Text::from(host.trim_matches(['[', ']'])),
                port,
            })
        }
        _ => Err(ConfigError::Value(format!(
            "{name} is {text:?}, wanted is host:port"
        ))),
    }
}

impl BrokerConfig {
    /// Checks what types alone do not.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`] names the setting and its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let _topics = self.topic_defaults()?;
        let _limits = self.limits()?;
        let _groups = self.groups()?;
        let _api = self.api()?;
        let _level = self.level()?;
        let _kafka = self.advertised_kafka(self.listeners.kafka)?;
        let _quic = self.advertised_quic(self.listeners.quic)?;
        let _id: i32 = ranged(
            "node.id",
            u64::try_from(self.node.id).unwrap_or(u64::MAX),
            0,
            i32::MAX as u64,
        )?;
        let level = self.cluster.newest_level();
        if !(FeatureLevel::LOWEST..=FeatureLevel::NEWEST).contains(&level) {
            let (lowest, newest) = (FeatureLevel::LOWEST, FeatureLevel::NEWEST);
            let wanted = format!(
                "cluster.max_feature_level is {level}; this release speaks {lowest} to {newest}"
            );
            return Err(ConfigError::Value(wanted));
        }
        let _tls = self.kafka_tls()?;
        let _voters = self.voters()?;
        if let Some(odd) = self
            .security
            .super_users
            .iter()
            .find(|u| !u.starts_with("User:"))
        {
            let wanted =
                format!("security.super_users holds {odd:?}, wanted are names like User:admin");
            return Err(ConfigError::Value(wanted));
        }
        if self.security.authorize && !self.security.authenticate {
            let wanted =
                "security.authorize needs security.authenticate: without it nobody is anybody";
            return Err(ConfigError::Value(wanted.into()));
        }
        let files = [
            &self.listeners.certificate,
            &self.listeners.key,
            &self.listeners.ca,
        ];
        if files.iter().any(|f| f.is_empty()) && files.iter().any(|f| !f.is_empty()) {
            let wanted = "listeners.certificate, key and ca are given together or not at all";
            return Err(ConfigError::Value(wanted.into()));
        }
        Ok(())
    }

    /// Settings of topics that choose nothing else.
    ///
    /// # Errors
    ///
    /// As [`BrokerConfig::validate`].
    pub fn topic_defaults(&self) -> Result<TopicConfig, ConfigError> {
        let log = &self.log;
        let finite = |span: Span| (span != Span::FOREVER).then_some(span.0);
        let max = i32::MAX as u64;
        Ok(TopicConfig {
            retention: finite(log.retention),
            retention_bytes: (log.retention_bytes.0 > 0).then_some(log.retention_bytes.0),
            segment_bytes: ranged("log.segment_bytes", log.segment_bytes.0, 14, max)?,
            segment_age: log.segment_age.0,
            max_message_bytes: ranged("log.max_message_bytes", log.max_message_bytes.0, 1, max)?,
            flush_messages: ranged("log.flush_messages", log.flush_messages, 1, i64::MAX as u64)?,
            flush_interval: finite(log.flush_interval),
            ..TopicConfig::default()
        })
    }

    /// Limits of the doors.
    ///
    /// # Errors
    ///
    /// As [`BrokerConfig::validate`].
    pub fn limits(&self) -> Result<Limits, ConfigError> {
        let l = &self.limits;
        Ok(Limits {
            request_max_bytes: ranged(
                "limits.request_max",
                l.request_max.0,
                1024,
                i32::MAX as u64,
            )?,
            in_flight_max_bytes: ranged(
                "limits.in_flight_max",
                l.in_flight_max.0,
                l.request_max.0,
                i32::MAX as u64,
            )?,
            requests_per_connection: ranged(
                "limits.requests_per_connection",
                l.requests_per_connection as u64,
                1,
                10_000,
            )?,
            connections: ranged("limits.connections", l.connections as u64, 1, 1_000_000)?,
            connections_per_ip: ranged(
                "limits.connections_per_ip",
                l.connections_per_ip as u64,
                1,
                1_000_000,
            )?,
            idle_timeout: l.idle_timeout.0,
            frame_timeout: l.frame_timeout.0,
            write_timeout: l.write_timeout.0,
        })
    }

    /// Settings of groups.
    ///
    /// # Errors
    ///
    /// As [`BrokerConfig::validate`].
    pub fn groups(&self) -> Result<GroupConfig, ConfigError> {
        let g = &self.groups;
        if g.session_timeout_min > g.session_timeout_max {
            let wanted = "groups.session_timeout_min is longer than groups.session_timeout_max";
            return Err(ConfigError::Value(wanted.into()));
        }
        Ok(GroupConfig {
            session_timeout_min: g.session_timeout_min.0,
            session_timeout_max: g.session_timeout_max.0,
            max_size: ranged("groups.max_size", g.max_size as u64, 1, 1_000_000)?,
            initial_rebalance_delay: g.initial_rebalance_delay.0,
            offset_metadata_max_bytes: ranged(
                "groups.offset_metadata_max",
                g.offset_metadata_max.0,
                0,
                32_767,
            )?,
            offsets_retention: g.offsets_retention.0,
            ..GroupConfig::default()
        })
    }

    /// Limits of requests.
    ///
    /// # Errors
    ///
    /// As [`BrokerConfig::validate`].
    pub fn api(&self) -> Result<ApiConfig, ConfigError> {
        let (t, l) = (&self.topics, &self.limits);
        let count =
            |name, value: i32| ranged::<i32>(name, u64::try_from(value).unwrap_or(0), 1, 10_000);
        Ok(ApiConfig {
            auto_create_topics: t.auto_create,
            auto_create_max: t.auto_create_max,
            num_partitions: count("topics.partitions", t.partitions)?,
            replication_factor: match self.cluster.replication_factor {
                0 => None,
                factor => Some(ranged("cluster.replication_factor", factor as u64, 1, 100)?),
            },
            offsets_partitions: count("topics.offsets_partitions", t.offsets_partitions)?,
            max_topics_per_request: ranged(
                "limits.names_per_request",
                l.names_per_request as u64,
                1,
                200_000,
            )?,
            max_partitions: ranged(
                "topics.max_partitions",
                t.max_partitions as u64,
                1,
                1_000_000,
            )?,
            fetch_max_bytes: ranged("limits.fetch_max", l.fetch_max.0, 1024, i32::MAX as u64)?,
            fetch_max_wait: l.fetch_max_wait.0,
            follower_fetch: self.cluster.follower_fetch,
            newest_level: self.cluster.newest_level(),
            fetch_in_flight_max_bytes: ranged(
                "limits.in_flight_max",
                l.in_flight_max.0,
                l.fetch_max.0,
                i32::MAX as u64,
            )?,
            topic_defaults: self.topic_defaults()?,
            settings: self.settings(),
            authenticate: self.security.authenticate,
            authorizer: Authorizer::new(self.security.authorize, self.security.super_users.clone()),
        })
    }

    /// Level of the log.
    ///
    /// # Errors
    ///
    /// As [`BrokerConfig::validate`].
    pub fn level(&self) -> Result<slog::Level, ConfigError> {
        let refuse = || {
            let level = &self.logging.level;
            ConfigError::Value(format!(
                "logging.level is {level:?}, wanted is critical, error, warning, info, debug or trace"
            ))
        };
        self.logging.level.parse().map_err(|()| refuse())
    }

    /// Where Kafka clients are told to connect.
    ///
    /// # Errors
    ///
    /// As [`BrokerConfig::validate`].
    pub fn advertised_kafka(&self, bound: SocketAddr) -> Result<Advertised, ConfigError> {
        advertised(
            "listeners.advertised_kafka",
            &self.listeners.advertised_kafka,
            bound,
        )
    }

    /// Where Kafka clients connect with TLS, if they may.
    ///
    /// # Errors
    ///
    /// As [`BrokerConfig::validate`].
    pub fn kafka_tls(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let text = &self.listeners.kafka_tls;
        let refuse = |_| {
            let wanted = "wanted is address:port, or nothing for no TLS";
            ConfigError::Value(format!("listeners.kafka_tls is {text:?}, {wanted}"))
        };
        (!text.is_empty())
            .then(|| text.parse().map_err(refuse))
            .transpose()
    }

    /// Where Kafka clients with TLS are told to connect.
    ///
    /// # Errors
    ///
    /// As [`BrokerConfig::validate`].
    pub fn advertised_kafka_tls(&self, bound: SocketAddr) -> Result<Advertised, ConfigError> {
        let text = &self.listeners.advertised_kafka_tls;
        advertised("listeners.advertised_kafka_tls", text, bound)
    }

    /// The nodes that form the cluster, in order.
    ///
    /// # Errors
    ///
    /// As [`BrokerConfig::validate`].
    pub fn voters(&self) -> Result<BTreeMap<BrokerId, Endpoint>, ConfigError> {
        let parse = |text: &String| {
            let (id, place) = text.split_once('@')?;
            let (host, port) = place.rsplit_once(':')?;
            let endpoint = Endpoint {
                host: host.trim_matches(['[', ']']).to_owned(),
                port: port.parse().ok().filter(|p| *p != 0)?,
            };
            let id = id.parse().ok().filter(|id| *id >= 0)?;
            (!endpoint.host.is_empty()).then_some((BrokerId(id), endpoint))
        };
        let mut voters = BTreeMap::new();
        for text in &self.cluster.voters {
            let refuse =
                |why: &str| ConfigError::Value(format!("cluster.voters holds {text:?}, {why}"));
            let (id, endpoint) = parse(text).ok_or_else(|| refuse("wanted is id@host:port"))?;
            if voters.insert(id, endpoint).is_some() {
                return Err(refuse("and that node twice"));
            }
        }
        if !voters.is_empty() && self.cluster.certificates.is_empty() {
            let wanted = "cluster.voters needs cluster.certificates: nodes prove to each other who they are; \
                          make them with `callboard cert`";
            return Err(ConfigError::Value(wanted.into()));
        }
        Ok(voters)
    }

    /// Where other nodes are told to connect.
    ///
    /// # Errors
    ///
    /// As [`BrokerConfig::validate`].
    pub fn advertised_peer(&self, bound: SocketAddr) -> Result<Advertised, ConfigError> {
        advertised(
            "listeners.advertised_peer",
            &self.listeners.advertised_peer,
            bound,
        )
    }

    /// Where Callboard's clients are told to connect.
    ///
    /// # Errors
    ///
    /// As [`BrokerConfig::validate`].
    pub fn advertised_quic(&self, bound: SocketAddr) -> Result<Advertised, ConfigError> {
        advertised(
            "listeners.advertised_quic",
            &self.listeners.advertised_quic,
            bound,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_kafkas() {
        let config = BrokerConfig::default();
        config.validate().expect("valid");
        assert_eq!(config.topic_defaults(), Ok(TopicConfig::default()));
        assert_eq!(config.groups(), Ok(GroupConfig::default()));
        assert_eq!(config.limits(), Ok(Limits::default()));
    }

    #[test]
    fn values_out_of_range_are_named() {
        let mut config = BrokerConfig::default();
        config.log.segment_bytes = ByteSize(3);
        let error = config.validate().expect_err("too small").to_string();
        assert_eq!(
            error,
            "log.segment_bytes is 3, allowed are 14 to 2147483647"
        );
        let mut config = BrokerConfig::default();
        config.listeners.advertised_kafka = "nowhere".into();
        assert!(config.validate().is_err());
        config.listeners.advertised_kafka = "broker.example:0".into();
        let bound = SocketAddr::from(([0, 0, 0, 0], 4711));
        assert_eq!(
            config.advertised_kafka(bound),
            Ok(Advertised {
                host: "broker.example".into(),
                port: 4711
            })
        );
    }
}
