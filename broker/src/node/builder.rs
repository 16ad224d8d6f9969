//! Settings of a node, and why it may not start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use callboard_common::config::ConfigError;
use callboard_common::runtime::Runtime;
use callboard_common::transport::network::Network;
use callboard_common::transport::tls::TlsError;
use callboard_common::{BrokerId, Clock, FeatureLevel, Timestamp};
use slog::Logger;

use super::Node;
use super::prepare::Starting;
use super::renewal::OUTDATED_REASON;
use crate::config::BrokerConfig;
use crate::storage::StorageError;
use crate::storage::disk::{Disk, MemoryDisk};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// Another process uses the data directory.
    #[error(
        "the data directory {0} is in use by another process; stop it, or choose another with --data"
    )]
    InUse(PathBuf),
    /// The data directory is another user's.
    #[error(
        "the data directory {dir} belongs to the user with number {owner}, who could not read what is written there now; run this as that user"
    )]
    Owner {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The data directory holds something else.
    #[error(
        "{dir} holds files but no meta.properties, so it is not Callboard's: {found:?}; choose another with --data"
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// One of the files.
        found: String,
    },
    /// The data directory belongs to another node.
    #[error("{dir} belongs to node {found}, not {wanted}")]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: BrokerId,
        /// Who wants it.
        wanted: BrokerId,
    },
    /// The data directory belongs to another cluster.
    #[error("the data directory {dir} belongs to cluster {found}, the certificates to {wanted}")]
    OtherCluster {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Who wants it.
        wanted: String,
    },
    /// The cluster has moved on to what this node is told not to speak.
    #[error(
        "the cluster is at feature level {level} and cluster.max_feature_level is {newest}: raise that, or leave it away"
    )]
    FeatureLevel {
        /// The cluster's.
        level: FeatureLevel,
        /// The node's.
        newest: FeatureLevel,
    },
    /// An address cannot be bound.
    #[error(
        "the {door} door cannot be opened on {address}: {error}; choose another address with --{door}"
    )]
    Bind {
        /// Which door.
        door: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The door for other nodes cannot be opened.
    #[error("the peer door cannot be opened: {0}")]
    Peers(callboard_common::transport::endpoint::EndpointError),
    /// The metadata could not be changed.
    #[error("the first user could not be made: {0}")]
    FirstUser(String),
    /// A file that the settings name cannot be read.
    #[error("{path} cannot be read: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The operating system starts no more threads.
    #[error("threads cannot be started: {0}")]
    Threads(std::io::Error),
    /// The data directory is older than what the node has acknowledged. Started again, it goes on as a new member of the quorum.
    #[error("{OUTDATED_REASON}")]
    Outdated,
    /// The metadata could not be restored; the log says why.
    #[error("the metadata could not be restored; the log above says why")]
    Metadata,
}

/// Where the data is kept.
#[derive(Clone, Debug)]
pub(super) enum Medium {
    Real,
    Memory(MemoryDisk),
    Given(Arc<dyn Disk>),
}

/// Settings of a node that runs inside of a program.
#[derive(Clone, Debug)]
pub struct NodeBuilder {
    pub(super) config: BrokerConfig,
    pub(super) medium: Medium,
    pub(super) clock: Clock,
    pub(super) simulation: Option<Simulation>,
    pub(super) logger: Logger,
}

/// See [`NodeBuilder::simulated`].
#[derive(Clone, Debug)]
pub(super) struct Simulation {
    pub(super) runtime: Runtime,
    pub(super) network: Network,
}

impl NodeBuilder {
    pub(super) fn new() -> Self {
        Self {
            config: BrokerConfig::default(),
            medium: Medium::Real,
            clock: Clock::machine(),
            simulation: None,
            logger: callboard_common::logging::silent(),
        }
    }

    /// Keeps the data in this directory. Default `./callboard-data`.
    #[must_use]
    pub fn directory(mut self, dir: impl Into<PathBuf>) -> Self {
        self.config.node.data = dir.into();
        self.medium = Medium::Real;
        self
    }

    /// Keeps the data in memory; it is gone with the node.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.medium = Medium::Memory(MemoryDisk::default());
        self.config.node.data = "/callboard".into();
        // A program that embeds a node rarely has the standard ports free.
        self.ephemeral_ports()
    }

    /// Keeps the data in `dir` on this disk: for tests with a
    /// [`SimulatedDisk`](crate::storage::disk::SimulatedDisk).
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Self {
        self.config.node.data = dir.into();
        self.medium = Medium::Given(disk);
        self.ephemeral_ports()
    }

    /// Takes free ports on loopback.
    #[must_use]
    pub fn ephemeral_ports(mut self) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = &mut self.config.listeners;
        (listeners.kafka, listeners.quic, listeners.http) = (any, any, any);
        listeners.peer = any;
        self
    }

    /// Uses a clock that stands still until [`Node::advance`] moves it, beginning at this wall time in
    /// milliseconds since the Unix epoch.
    #[must_use]
    pub fn manual_clock(mut self, start_ms: i64) -> Self {
        self.clock = Clock::manual(Timestamp(start_ms));
        self
    }

    /// Runs the node on this runtime, a single-threaded one, and on this network, in the time of the caller's tokio runtime: for
    /// tests in virtual time. Its only doors are those of QUIC, nobody watches its workers, and only silence tells it that
    /// another node has died.
    #[must_use]
    pub fn simulated(mut self, runtime: Runtime, network: Network) -> Self {
        self.simulation = Some(Simulation { runtime, network });
        self
    }

    /// Uses these settings.
    #[must_use]
    pub fn config(mut self, config: BrokerConfig) -> Self {
        self.config = config;
        self
    }

    /// Changes the settings.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut BrokerConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Logs to this logger. Default nowhere.
    #[must_use]
    pub fn logger(mut self, logger: Logger) -> Self {
        self.logger = logger;
        self
    }

    /// Starts the node and waits until it serves. A tokio runtime must wait for it; the node
    /// has threads of its own.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing is left running.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: threads may be left running.
    pub async fn start(self) -> Result<Node, StartError> {
        Starting::prepare(self)?.start().await
    }
}
