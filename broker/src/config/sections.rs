//! The sections of a node's settings: each field with unit, default, range and Kafka's name.

use std::net::SocketAddr;
use std::path::PathBuf;

use callboard_common::FeatureLevel;
use callboard_common::config::{ByteSize, Span};
use serde::{Deserialize, Serialize};

/// The node itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// Its number, 0 and up (`node.id`). Default 1.
    pub id: i32,
    /// Where its data is (`log.dirs`, one of them). Default `./callboard-data`.
    pub data: PathBuf,
    /// Threads on which partitions and connections live; 0, the default, is one for every two cores.
    pub workers: usize,
    /// Threads that sync logs. Default 4.
    pub sync_threads: usize,
    /// Threads that read and recover (`num.recovery.threads.per.data.dir`). Default 4.
    pub background_threads: usize,
    /// Log files that are kept open while they are not written. Default 1000.
    pub open_files: usize,
}

/// Where the node listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerSection {
    /// Kafka clients, TCP (`listeners`). Default `127.0.0.1:9092`; port 0 takes a free one.
    pub kafka: SocketAddr,
    /// Where Kafka clients are told to connect, `host:port` (`advertised.listeners`); empty, the default, is the
    /// address above.
    pub advertised_kafka: String,
    /// Kafka clients with TLS, `address:port`; empty, the default, opens no such door.
    pub kafka_tls: String,
    /// Where Kafka clients with TLS are told to connect; empty, the default, is the address above.
    pub advertised_kafka_tls: String,
    /// Callboard's own clients, QUIC over UDP. Default `127.0.0.1:9192`.
    pub quic: SocketAddr,
    /// Where Callboard's clients are told to connect; empty, the default, is the address above.
    pub advertised_quic: String,
    /// Health and metrics, HTTP. Default `127.0.0.1:9292`.
    pub http: SocketAddr,
    /// Other nodes, QUIC over UDP, and TCP on the same port; opened if `cluster.certificates` is set. Default
    /// `127.0.0.1:9392`.
    pub peer: SocketAddr,
    /// Where other nodes are told to connect; empty, the default, is the address above.
    pub advertised_peer: String,
    /// The node's certificate, PEM; empty, the default, makes a development certificate in the data directory.
    pub certificate: String,
    /// The certificate's key, PEM, PKCS #8.
    pub key: String,
    /// The CA that clients are to trust, PEM.
    pub ca: String,
}

/// Defaults of topics; each topic may choose its own by Kafka's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// `retention.ms`. Default 7 days.
    pub retention: Span,
    /// `retention.bytes`; 0, the default, keeps all.
    pub retention_bytes: ByteSize,
    /// `segment.bytes`, 14 bytes to 2 GiB. Default 1 GiB.
    pub segment_bytes: ByteSize,
    /// `segment.ms`. Default 7 days.
    pub segment_age: Span,
    /// `max.message.bytes`. Default 1,048,588.
    pub max_message_bytes: ByteSize,
    /// `flush.messages`; 1, the default, syncs before every acknowledgement.
    pub flush_messages: u64,
    /// `flush.ms`. Default forever: `flush_messages` decides.
    pub flush_interval: Span,
}

/// Topics and partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSection {
    /// `auto.create.topics.enable`. Default true.
    pub auto_create: bool,
    /// Most topics that one request creates that way. Default 10.
    pub auto_create_max: usize,
    /// `num.partitions`. Default 1.
    pub partitions: i32,
    /// `offsets.topic.num.partitions`; it is fixed when the topic is created. Default 50.
    pub offsets_partitions: i32,
    /// Most partitions of the node. Default 20,000.
    pub max_partitions: usize,
}

/// The cluster that the node belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSection {
    /// Directory with `ca.pem`, `node.pem` and `node-key.pem`, made by `callboard cert`; empty, the default, means that
    /// the node is alone.
    pub certificates: String,
    /// The nodes that form the cluster and vote on its metadata, each as `id@host:port` of its peer door; the same on
    /// all of them. A node that is not among them joins through them and does not vote
    /// (`controller.quorum.bootstrap.servers`).
    pub voters: Vec<String>,
    /// Where the node stands, for the placement of replicas (`broker.rack`).
    pub rack: String,
    /// Whether a consumer that says in which rack it stands is sent to a replica there (`replica.selector.class`, KIP-392).
    /// Default true.
    pub follower_fetch: bool,
    /// Replicas of a new topic (`default.replication.factor`); 0, the default, is three, or as many as there are nodes.
    pub replication_factor: usize,
    /// Whether partitions and leaderships spread over the nodes by themselves (`auto.leader.rebalance.enable`). Default
    /// true.
    pub balance: bool,
    /// Most partitions that move at the same time without being asked. Default 10.
    pub moves_at_once: usize,
    /// So long somebody else leads a partition before its preferred replica leads it again
    /// (`leader.imbalance.check.interval.seconds`). Default 30 s.
    pub leader_patience: Span,
    /// Nodes whose logs differ by less than this, or by less than a fifth of what they keep on average, are not evened out.
    /// Default 1 GiB.
    pub balance_bytes: ByteSize,
    /// So long they differ by more before replicas move for it. Default 5 min.
    pub balance_patience: Span,
    /// Bytes in a second that this node sends to replicas that are not in sync, all together
    /// (`leader.replication.throttled.rate`); 0, the default, is as fast as it goes.
    pub catch_up_rate: ByteSize,
    /// The highest feature level that the node speaks with others, to hold a new release back
    /// (`inter.broker.protocol.version` of earlier Kafkas); 0, the default, is the newest that it knows.
    pub max_feature_level: u16,
}

impl Default for ClusterSection {
    fn default() -> Self {
        let policy = crate::controller::Policy::default();
        Self {
            certificates: String::new(),
            voters: Vec::new(),
            rack: String::new(),
            follower_fetch: true,
            replication_factor: 0,
            balance: policy.balances,
            moves_at_once: policy.moves_at_once,
            leader_patience: Span(policy.leader_patience),
            balance_bytes: ByteSize(policy.tolerated_bytes),
            balance_patience: Span(policy.bytes_patience),
            catch_up_rate: ByteSize(0),
            max_feature_level: 0,
        }
    }
}

/// Consumer groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSection {
    /// `group.min.session.timeout.ms`. Default 6 s.
    pub session_timeout_min: Span,
    /// `group.max.session.timeout.ms`. Default 30 min.
    pub session_timeout_max: Span,
    /// `group.max.size`. Default 1000.
    pub max_size: usize,
    /// `group.initial.rebalance.delay.ms`. Default 0, as in Kafka's example configuration.
    pub initial_rebalance_delay: Span,
    /// `offset.metadata.max.bytes`. Default 4096.
    pub offset_metadata_max: ByteSize,
    /// `offsets.retention.minutes`. Default 7 days.
    pub offsets_retention: Span,
    /// Size at which an offsets partition is written anew. Default 64 MiB.
    pub rewrite: ByteSize,
}

/// Limits of what clients may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSection {
    /// `socket.request.max.bytes`. Default 100 MiB.
    pub request_max: ByteSize,
    /// Bytes of requests in flight, all connections together. Default 256 MiB.
    pub in_flight_max: ByteSize,
    /// Requests in flight on one connection. Default 64.
    pub requests_per_connection: usize,
    /// `max.connections`. Default 10,000.
    pub connections: usize,
    /// `max.connections.per.ip`. Default 10,000.
    pub connections_per_ip: usize,
    /// `connections.max.idle.ms`. Default 10 min.
    pub idle_timeout: Span,
    /// Time in which a request that has begun must be whole. Default 30 s.
    pub frame_timeout: Span,
    /// Time in which a client must take its answer, and as much again for each MiB of it. Default 1 min.
    pub write_timeout: Span,
    /// `fetch.max.bytes`. Default 55 MiB.
    pub fetch_max: ByteSize,
    /// Longest wait of a fetch. Default 1 min.
    pub fetch_max_wait: Span,
    /// Most topics or groups that one request names. Default 10,000.
    pub names_per_request: usize,
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecuritySection {
    /// Whether clients must prove who they are: SASL on the Kafka doors, a password on the QUIC door, basic
    /// authentication for metrics. If there is no user yet, the node makes `admin` and writes its password into
    /// `admin.password` in the data directory. Default false.
    pub authenticate: bool,
    /// The CA, PEM file, whose certificates clients may show instead: at the QUIC door and at the Kafka door with TLS, the common
    /// name is the user (`ssl.truststore.location`, `ssl.client.auth=requested`). Empty, the default, asks for none.
    pub client_ca: String,
    /// Whether only what an ACL allows may be done (`authorizer.class.name`). Default false.
    pub authorize: bool,
    /// Who may do everything (`super.users`). Default `User:admin`.
    pub super_users: Vec<String>,
}

/// The log of the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggingSection {
    /// `terminal` or `json`. Default `terminal`.
    pub format: callboard_common::logging::Format,
    /// `critical`, `error`, `warning`, `info`, `debug` or `trace`. Default `info`.
    pub level: String,
}

impl ClusterSection {
    /// The highest feature level that the node speaks.
    #[must_use]
    pub fn newest_level(&self) -> FeatureLevel {
        match self.max_feature_level {
            0 => FeatureLevel::NEWEST,
            level => FeatureLevel(level),
        }
    }

    /// What moves by itself.
    #[must_use]
    pub fn policy(&self) -> crate::controller::Policy {
        crate::controller::Policy {
            balances: self.balance,
            moves_at_once: self.moves_at_once,
            leader_patience: self.leader_patience.0,
            tolerated_bytes: self.balance_bytes.0,
            bytes_patience: self.balance_patience.0,
        }
    }
}

impl Default for SecuritySection {
    fn default() -> Self {
        Self {
            authenticate: false,
            client_ca: String::new(),
            authorize: false,
            super_users: vec!["User:admin".into()],
        }
    }
}

impl Default for LoggingSection {
    fn default() -> Self {
        Self {
            format: callboard_common::logging::Format::Terminal,
            level: "info".into(),
        }
    }
}

impl ClusterSection {
    /// How many replicas a new topic has, if there are as many nodes.
    pub(super) fn factor(&self) -> usize {
        match self.replication_factor {
            0 => crate::api::DEFAULT_FACTOR,
            factor => factor,
        }
    }
}
