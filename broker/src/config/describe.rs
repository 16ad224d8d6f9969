//! Settings as DescribeConfigs shows them: Kafka's names, what they look like and what they are for.

use callboard_common::config::Span;
use callboard_common::protocol::configs::ConfigKind;

use super::BrokerConfig;

/// What there is to say about a topic's config.
#[derive(Clone, Copy, Debug)]
pub struct ConfigDoc {
    /// Kafka's name.
    pub name: &'static str,
    /// Kafka's name of the broker's default for it.
    pub broker_name: &'static str,
    /// What it looks like.
    pub kind: ConfigKind,
    /// What it is for.
    pub documentation: &'static str,
}

/// One of the node's own settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSetting {
    /// Kafka's name.
    pub name: &'static str,
    /// The value in force.
    pub value: String,
    /// The value that nobody chose.
    pub default: String,
    /// What it looks like.
    pub kind: ConfigKind,
    /// What it is for, and where it is set.
    pub documentation: &'static str,
}

const fn doc(
    name: &'static str,
    broker_name: &'static str,
    kind: ConfigKind,
    documentation: &'static str,
) -> ConfigDoc {
    ConfigDoc {
        name,
        broker_name,
        kind,
        documentation,
    }
}

/// Every topic config, sorted by name.
pub const TOPIC_CONFIGS: [ConfigDoc; 17] = [
    doc(
        "cleanup.policy",
        "log.cleanup.policy",
        ConfigKind::List,
        "What happens to old segments: delete is the only policy here.",
    ),
    doc(
        "compression.type",
        "compression.type",
        ConfigKind::String,
        "Batches are stored as the producer compressed them: producer is the only value here.",
    ),
    doc(
        "flush.messages",
        "log.flush.interval.messages",
        ConfigKind::Long,
        "Sync to disk after so many records; 1 syncs before every acknowledgement.",
    ),
    doc(
        "flush.ms",
        "log.flush.interval.ms",
        ConfigKind::Long,
        "Sync to disk after so many milliseconds, if flush.messages did not do it earlier.",
    ),
    doc(
        "index.interval.bytes",
        "log.index.interval.bytes",
        ConfigKind::Int,
        "Bytes of log between two entries of its index.",
    ),
    doc(
        "max.message.bytes",
        "message.max.bytes",
        ConfigKind::Int,
        "Largest batch that is accepted, as it is stored (after compression).",
    ),
    doc(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        ConfigKind::Long,
        "How far a record's timestamp may lie ahead of the broker's clock, in milliseconds.",
    ),
    doc(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        ConfigKind::Long,
        "How far a record's timestamp may lie behind the broker's clock, in milliseconds.",
    ),
    doc(
        "message.timestamp.type",
        "log.message.timestamp.type",
        ConfigKind::String,
        "Whether records keep the producer's time (CreateTime) or get the broker's (LogAppendTime).",
    ),
    doc(
        "min.insync.replicas",
        "min.insync.replicas",
        ConfigKind::Int,
        "How many replicas must be in sync for acks=all to be accepted.",
    ),
    doc(
        "preallocate",
        "log.preallocate",
        ConfigKind::Boolean,
        "Whether segments are allocated when they are created: always false here.",
    ),
    doc(
        "remote.storage.enable",
        "remote.log.storage.enable",
        ConfigKind::Boolean,
        "Whether old segments move to a remote store: always false here.",
    ),
    doc(
        "retention.bytes",
        "log.retention.bytes",
        ConfigKind::Long,
        "How many bytes of a partition are kept; -1 keeps all.",
    ),
    doc(
        "retention.ms",
        "log.retention.ms",
        ConfigKind::Long,
        "How long records are kept, in milliseconds; -1 keeps them for ever.",
    ),
    doc(
        "segment.bytes",
        "log.segment.bytes",
        ConfigKind::Int,
        "Size at which a segment is closed and a new one begun.",
    ),
    doc(
        "segment.ms",
        "log.roll.ms",
        ConfigKind::Long,
        "Age at which a segment is closed and a new one begun, in milliseconds.",
    ),
    doc(
        "unclean.leader.election.enable",
        "unclean.leader.election.enable",
        ConfigKind::Boolean,
        "Whether a replica that is not in sync may lead: always false here, it takes a command.",
    ),
];

fn ms(span: Span) -> String {
    i64::try_from(span.0.as_millis())
        .unwrap_or(i64::MAX)
        .to_string()
}

/// Name, kind, value and what it is for.
type Row = (&'static str, ConfigKind, String, &'static str);

impl BrokerConfig {
    /// The node's settings by Kafka's names, sorted, without the defaults of topics.
    #[must_use]
    pub fn settings(&self) -> Vec<NodeSetting> {
        let defaults = Self::default().rows();
        let setting =
            |((name, kind, value, documentation), (_, _, default, _)): (Row, Row)| NodeSetting {
                name,
                value,
                default,
                kind,
                documentation,
            };
        self.rows().into_iter().zip(defaults).map(setting).collect()
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = [self.rows_of_node(), self.rows_of_requests()].concat();
        rows.sort_by_key(|(name, ..)| *name);
        rows
    }

    /// What the node is and who may use it.
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn rows_of_node(&self) -> Vec<Row> {
        use ConfigKind::{Int, List, String as Text};
        let (node, doors, security) = (&self.node, &self.listeners, &self.security);
        let tls = match doors.kafka_tls.as_str() {
            "" => String::new(),
            tls => format!(",SSL://{tls}"),
        };
        let authorizer = if security.authorize { "callboard" } else { "" };
        vec![
            (
                "advertised.listeners",
                Text,
                doors.advertised_kafka.clone(),
                "Where Kafka clients are told to connect; empty is the listener itself (listeners.advertised_kafka).",
            ),
            (
                "authorizer.class.name",
                Text,
                authorizer.into(),
                "Whether only what an ACL allows may be done (security.authorize).",
            ),
            (
                "broker.id",
                Int,
                node.id.to_string(),
                "The node's number (node.id).",
            ),
            (
                "broker.rack",
                Text,
                self.cluster.rack.clone(),
                "Where the node stands, for placement and for consumers nearby (cluster.rack).",
            ),
            (
                "default.replication.factor",
                Int,
                self.cluster.factor().to_string(),
                "How many replicas a new topic has if nobody says (cluster.replication_factor).",
            ),
            (
                "listeners",
                List,
                format!("PLAINTEXT://{}{tls}", doors.kafka),
                "Where Kafka clients connect (listeners.kafka and listeners.kafka_tls).",
            ),
            (
                "log.dirs",
                List,
                node.data.display().to_string(),
                "Where the data is (node.data).",
            ),
            (
                "node.id",
                Int,
                node.id.to_string(),
                "The node's number (node.id).",
            ),
            (
                "replica.selector.class",
                Text,
                if self.cluster.follower_fetch {
                    "org.apache.kafka.common.replica.RackAwareReplicaSelector".into()
                } else {
                    String::new()
                },
                "Which replica a consumer that says where it stands reads from (cluster.follower_fetch).",
            ),
            (
                "sasl.enabled.mechanisms",
                List,
                if security.authenticate {
                    crate::security::sasl::MECHANISMS.join(",")
                } else {
                    String::new()
                },
                "How clients may prove who they are (security.authenticate).",
            ),
            (
                "ssl.client.auth",
                Text,
                match security.client_ca.is_empty() {
                    true => "none".into(),
                    false => "requested".into(),
                },
                "Whether clients may show a certificate (security.client_ca).",
            ),
            (
                "super.users",
                Text,
                security.super_users.join(";"),
                "Who may do everything (security.super_users).",
            ),
        ]
    }

    /// What requests may ask for.
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn rows_of_requests(&self) -> Vec<Row> {
        use ConfigKind::{Boolean, Int, Long};
        let (topics, groups, limits) = (&self.topics, &self.groups, &self.limits);
        vec![
            (
                "auto.create.topics.enable",
                Boolean,
                topics.auto_create.to_string(),
                "Whether topics are created when a client asks for them (topics.auto_create).",
            ),
            (
                "connections.max.idle.ms",
                Long,
                ms(limits.idle_timeout),
                "A connection without a request is closed after this (limits.idle_timeout).",
            ),
            (
                "fetch.max.bytes",
                Int,
                limits.fetch_max.0.to_string(),
                "Most bytes that one fetch returns (limits.fetch_max).",
            ),
            (
                "group.initial.rebalance.delay.ms",
                Int,
                ms(groups.initial_rebalance_delay),
                "How long a new group waits for more members (groups.initial_rebalance_delay).",
            ),
            (
                "group.max.session.timeout.ms",
                Int,
                ms(groups.session_timeout_max),
                "Longest session timeout of a member (groups.session_timeout_max).",
            ),
            (
                "group.max.size",
                Int,
                groups.max_size.to_string(),
                "Most members of a group (groups.max_size).",
            ),
            (
                "group.min.session.timeout.ms",
                Int,
                ms(groups.session_timeout_min),
                "Shortest session timeout of a member (groups.session_timeout_min).",
            ),
            (
                "max.connections",
                Int,
                limits.connections.to_string(),
                "Most open connections (limits.connections).",
            ),
            (
                "max.connections.per.ip",
                Int,
                limits.connections_per_ip.to_string(),
                "Most open connections from one address (limits.connections_per_ip).",
            ),
            (
                "num.partitions",
                Int,
                topics.partitions.to_string(),
                "How many partitions a new topic has if nobody says (topics.partitions).",
            ),
            (
                "offset.metadata.max.bytes",
                Int,
                groups.offset_metadata_max.0.to_string(),
                "Longest note of an offset commit (groups.offset_metadata_max).",
            ),
            (
                "offsets.retention.minutes",
                Int,
                (groups.offsets_retention.0.as_secs() / 60).to_string(),
                "How long offsets of a group without members are kept (groups.offsets_retention).",
            ),
            (
                "offsets.topic.num.partitions",
                Int,
                topics.offsets_partitions.to_string(),
                "Partitions of the offsets topic, fixed when it is created (topics.offsets_partitions).",
            ),
            (
                "socket.request.max.bytes",
                Int,
                limits.request_max.0.to_string(),
                "Largest request (limits.request_max).",
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic_config::TopicConfig;

    #[test]
    fn all_that_can_be_set_is_described_and_sorted() {
        let described: Vec<&str> = TopicConfig::default()
            .describe()
            .iter()
            .map(|(n, _)| *n)
            .collect();
        let documented: Vec<&str> = TOPIC_CONFIGS.iter().map(|d| d.name).collect();
        assert_eq!(described, documented);
        assert!(documented.is_sorted());
        let settings = BrokerConfig::default().settings();
        assert!(settings.is_sorted_by_key(|s| s.name));
        assert!(settings.iter().all(|s| s.value == s.default));
    }
}
