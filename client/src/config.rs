//! Settings of clients, producers and consumers, with Kafka's names.

use std::time::Duration;

use callboard_common::record::Compression;
use callboard_common::transport::network::Network;
use callboard_common::transport::tls::{ClientCertificate, Trust};

/// How to reach a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Addresses of some nodes' QUIC doors, `host:port` with commas between them (`bootstrap.servers`).
    pub server: String,
    /// Whom to trust (`ssl.truststore.location`).
    pub trust: Trust,
    /// Who the client is, for nodes that ask (`sasl.jaas.config`). Default nobody.
    pub credentials: Option<Credentials>,
    /// The certificate that says who the client is, for nodes that let clients show one (`ssl.keystore.location`). Default
    /// none.
    pub certificate: Option<ClientCertificate>,
    /// Which network it is on. Default the machine's; another one is for tests.
    pub network: Network,
    /// How long a connection may take (`socket.connection.setup.timeout.ms`). Default 10 s.
    pub connect_timeout: Duration,
    /// How long an answer may take (`request.timeout.ms`). Default 30 s.
    pub request_timeout: Duration,
    /// Wait between tries (`retry.backoff.ms`). Default 100 ms.
    pub retry_backoff: Duration,
    /// How long administrative calls are tried again (`default.api.timeout.ms`). Default 60 s.
    pub api_timeout: Duration,
}

impl ClientConfig {
    /// The defaults for this server.
    #[must_use]
    pub fn new(server: impl ToString, trust: Trust) -> Self {
        Self {
            server: server.to_string(),
            trust,
            credentials: None,
            certificate: None,
            network: Network::default(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            retry_backoff: Duration::from_millis(100),
            api_timeout: Duration::from_secs(60),
        }
    }

    /// The addresses one by one.
    pub(crate) fn servers(&self) -> impl Iterator<Item = String> {
        self.server.split(',').map(|s| s.trim().to_owned())
    }
}

/// A user and its password. Debug output does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({:?})", self.user)
    }
}

/// When a record counts as delivered (`acks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// When the leader has it, as its topic asks for: by default synced (`acks=1`).
    Leader,
    /// When all in-sync replicas have it (`acks=all`).
    All,
}

/// How a producer batches and retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerConfig {
    /// When a record counts as delivered (`acks`). Default all.
    pub acks: Acks,
    /// Size at which a batch leaves (`batch.size`), before compression. Default 64 KiB.
    pub batch_size_bytes: usize,
    /// Age at which a batch leaves (`linger.ms`). Default 5 ms.
    pub linger: Duration,
    /// Codec of batches (`compression.type`). Default none.
    pub compression: Compression,
    /// Bytes of records that are not yet delivered; beyond it `enqueue` waits (`buffer.memory`). Default 32 MiB.
    pub buffer_bytes: usize,
    /// Largest record (`max.request.size`). Default 1 MiB.
    pub record_max_bytes: usize,
    /// How long a record is tried to be delivered (`delivery.timeout.ms`). Default 120 s.
    pub delivery_timeout: Duration,
    /// Batches per partition on their way at once (`max.in.flight.requests.per.connection`), 1 to 5. Default 5.
    pub max_in_flight: usize,
    /// Whether retries may not duplicate records (`enable.idempotence`). Default true.
    pub idempotent: bool,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            batch_size_bytes: 64 << 10,
            linger: Duration::from_millis(5),
            compression: Compression::None,
            buffer_bytes: 32 << 20,
            record_max_bytes: 1 << 20,
            delivery_timeout: Duration::from_secs(120),
            max_in_flight: 5,
            idempotent: true,
        }
    }
}

/// Where to begin without a committed offset, or with one that is out of range (`auto.offset.reset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    /// At the first record.
    Earliest,
    /// After the last record.
    Latest,
    /// Nowhere: it is an error.
    None,
}

/// How a consumer reads and works in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// The group (`group.id`); without one offsets are not committed.
    pub group: Option<String>,
    /// Id of a static member (`group.instance.id`).
    pub instance: Option<String>,
    /// Where to begin without an offset (`auto.offset.reset`). Default earliest; Kafka's is latest.
    pub offset_reset: OffsetReset,
    /// How often offsets of received records are committed (`auto.commit.interval.ms`); `None` leaves it to
    /// [`Consumer::commit`](crate::Consumer::commit). Default 5 s.
    pub auto_commit: Option<Duration>,
    /// A member that is silent so long is removed (`session.timeout.ms`). Default 45 s.
    pub session_timeout: Duration,
    /// How often a member says that it lives (`heartbeat.interval.ms`). Default 3 s.
    pub heartbeat: Duration,
    /// How long members may take to join again (`rebalance.timeout.ms`). Default 60 s.
    pub rebalance_timeout: Duration,
    /// Where the consumer stands (`client.rack`): it reads from a replica in that rack if there is one in sync (KIP-392).
    /// Default none: from leaders.
    pub rack: Option<String>,
    /// Bytes per partition and fetch (`max.partition.fetch.bytes`). Default 1 MiB.
    pub fetch_bytes: u32,
    /// How much is worth an answer (`fetch.min.bytes`). Default 1.
    pub fetch_min_bytes: u32,
    /// How long a fetch waits for that (`fetch.max.wait.ms`). Default 500 ms.
    pub fetch_wait: Duration,
    /// Fetched pieces that wait to be received, all partitions together. Default 16.
    pub buffered_fetches: usize,
    /// The most that one batch may take when decompressed. Default 64 MiB.
    pub decompress_limit_bytes: usize,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            group: None,
            instance: None,
            offset_reset: OffsetReset::Earliest,
            auto_commit: Some(Duration::from_secs(5)),
            session_timeout: Duration::from_secs(45),
            heartbeat: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(60),
            rack: None,
            fetch_bytes: 1 << 20,
            fetch_min_bytes: 1,
            fetch_wait: Duration::from_millis(500),
            buffered_fetches: 16,
            decompress_limit_bytes: 64 << 20,
        }
    }
}

impl ConsumerConfig {
    /// The defaults for a member of a group.
    #[must_use]
    pub fn group(group: impl Into<String>) -> Self {
        Self {
            group: Some(group.into()),
            ..Self::default()
        }
    }
}
