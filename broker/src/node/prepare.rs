//! What must be there before anything starts: the directory and its lock, certificates, sockets, threads.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callboard_common::runtime::{Runtime, RuntimeConfig};
use callboard_common::transport::network::{Network, Socket};
use callboard_common::transport::peer::PeerIdentity;
use callboard_common::transport::tls::Identity;
use callboard_common::{BrokerId, Uuid};
use slog::o;

use super::Shared;
use super::builder::{Medium, NodeBuilder, Simulation, StartError};
use super::clean_mark::CleanMark;
use super::cluster::FORMS;
use crate::config::BrokerConfig;
use crate::directory::Directory;
use crate::metrics::Metrics;
use crate::storage::StorageError;
use crate::storage::checkpoint::Checkpoints;
use crate::storage::disk::{Disk, RealDisk, replace_whole};
use crate::storage::meta_properties::MetaProperties;
use crate::storage::open_files::OpenFiles;

const LOCK: &str = ".lock";
/// What [`replace_whole`] writes before a file of a first start has its name.
const UNFINISHED: [&str; 2] = ["meta.tmp", "metadata.tmp"];
/// Files of the directory that `cluster.certificates` names.
pub const CA_FILE: &str = "ca.pem";
/// See [`CA_FILE`].
pub const NODE_FILE: &str = "node.pem";
/// See [`CA_FILE`].
pub const NODE_KEY_FILE: &str = "node-key.pem";

/// A node whose directory and sockets are ready.
pub(super) struct Starting {
    pub(super) config: BrokerConfig,
    pub(super) shared: Shared,
    pub(super) meta: MetaProperties,
    /// Whether the last run stopped in order.
    pub(super) clean_mark: CleanMark,
    pub(super) identity: Identity,
    /// `None` if it is simulated.
    pub(super) tcp: Option<TcpSockets>,
    pub(super) quic: Vec<Socket>,
    /// Certificate and sockets for other nodes, if it is not alone.
    pub(super) peer: Option<PeerSockets>,
    /// Where those are bound.
    pub(super) peer_address: Option<SocketAddr>,
    pub(super) lock: Option<fs::File>,
}

/// What the doors need that are not QUIC's.
pub(super) struct TcpSockets {
    pub(super) kafka: TcpListener,
    pub(super) kafka_tls: Option<TcpListener>,
    pub(super) http: TcpListener,
}

impl TcpSockets {
    fn bind(config: &BrokerConfig) -> Result<Self, StartError> {
        let kafka_tls = config.kafka_tls()?.map(|a| bind("kafka_tls", a));
        Ok(Self {
            kafka: bind("kafka", config.listeners.kafka)?,
            kafka_tls: kafka_tls.transpose()?,
            http: bind("http", config.listeners.http)?,
        })
    }
}

/// What the door for other nodes needs.
pub(super) struct PeerSockets {
    pub(super) identity: PeerIdentity,
    pub(super) quic: Socket,
    /// `None` if it is simulated.
    pub(super) tripwire: Option<TcpListener>,
}

/// The lock on a data directory; held while the file is open.
pub(super) fn lock(dir: &Path) -> Result<fs::File, StartError> {
    let path = dir.join(LOCK);
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(|error| StartError::File { path, error })?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| StartError::InUse(dir.to_owned()))?;
    Ok(file)
}

/// As [`lock`], for who writes there in its owner's place: what another user writes, the owner could not read.
pub(super) fn lock_as_owner(dir: &Path) -> Result<fs::File, StartError> {
    let owner = fs::metadata(dir).map_err(StorageError::io("looking at", dir))?;
    let owner = owner.uid();
    if owner != rustix::process::geteuid().as_raw() {
        let dir = dir.to_owned();
        return Err(StartError::Owner { dir, owner });
    }
    lock(dir)
}

/// Whose directory it is; an empty one becomes ours.
fn meta(
    disk: &dyn Disk,
    dir: &Path,
    broker: BrokerId,
    cluster: Option<&PeerIdentity>,
) -> Result<MetaProperties, StartError> {
    if let Some(meta) = MetaProperties::read(disk, dir)? {
        if meta.node_id != broker {
            return Err(StartError::OtherNode {
                dir: dir.to_owned(),
                found: meta.node_id,
                wanted: broker,
            });
        }
        let wanted = cluster
            .map(|c| &c.cluster_id)
            .filter(|id| **id != meta.cluster_id);
        return match wanted {
            Some(wanted) => Err(StartError::OtherCluster {
                dir: dir.to_owned(),
                found: meta.cluster_id,
                wanted: wanted.clone(),
            }),
            None => Ok(meta),
        };
    }
    let names = disk.list(dir).map_err(StorageError::io("listing", dir))?;
    // A first start that was killed left a file unfinished.
    let ours = |name: &str| [LOCK, FORMS].contains(&name) || UNFINISHED.contains(&name);
    if let Some(found) = names.into_iter().find(|n| !ours(n)) {
        return Err(StartError::Foreign {
            dir: dir.to_owned(),
            found,
        });
    }
    let meta = MetaProperties {
        cluster_id: match cluster {
            Some(cluster) => cluster.cluster_id.clone(),
            None => Uuid::random().to_string(),
        },
        node_id: broker,
        directory_id: Uuid::random(),
    };
    meta.write(disk, dir)?;
    Ok(meta)
}

/// The certificates that the settings name, or a development certificate in the data directory.
fn identity(config: &BrokerConfig, disk: &dyn Disk, dir: &Path) -> Result<Identity, StartError> {
    let clients_pem = match config.security.client_ca.as_str() {
        "" => None,
        path => Some(read_file(path)?),
    };
    let identity = Identity {
        clients_pem,
        ..of_node(config, disk, dir)?
    };
    // Whatever is wrong with it is said before anything starts.
    let _usable = identity.server_config()?;
    Ok(identity)
}

fn read_file(path: impl Into<PathBuf>) -> Result<String, StartError> {
    let path = path.into();
    fs::read_to_string(&path).map_err(|error| StartError::File { path, error })
}

fn of_node(config: &BrokerConfig, disk: &dyn Disk, dir: &Path) -> Result<Identity, StartError> {
    let l = &config.listeners;
    if !l.certificate.is_empty() {
        return Ok(Identity {
            ca_pem: read_file(&l.ca)?,
            certificate_pem: read_file(&l.certificate)?,
            key_pem: read_file(&l.key)?,
            clients_pem: None,
        });
    }
    let names = [
        "development-ca.pem",
        "development-certificate.pem",
        "development-key.pem",
    ];
    let read = |name: &str| {
        let bytes = crate::storage::disk::read_whole(disk, &dir.join(name), 1 << 20).ok()?;
        String::from_utf8(bytes).ok()
    };
    if let [Some(ca_pem), Some(certificate_pem), Some(key_pem)] = names.map(read) {
        return Ok(Identity {
            ca_pem,
            certificate_pem,
            key_pem,
            clients_pem: None,
        });
    }
    let identity = Identity::development()?;
    for (name, pem) in names.iter().zip([
        &identity.ca_pem,
        &identity.certificate_pem,
        &identity.key_pem,
    ]) {
        let path = dir.join(name);
        replace_whole(disk, &path, pem.as_bytes()).map_err(StorageError::io("writing", &path))?;
    }
    Ok(identity)
}

/// The certificate for other nodes, if there is one.
fn peer_identity(config: &BrokerConfig) -> Result<Option<PeerIdentity>, StartError> {
    if config.cluster.certificates.is_empty() {
        return Ok(None);
    }
    let dir = Path::new(&config.cluster.certificates);
    let read = |name: &str| read_file(dir.join(name));
    let identity = PeerIdentity::new(Identity {
        ca_pem: read(CA_FILE)?,
        certificate_pem: read(NODE_FILE)?,
        key_pem: read(NODE_KEY_FILE)?,
        clients_pem: None,
    })?;
    let wanted = BrokerId(config.node.id);
    if identity.broker != wanted {
        return Err(StartError::OtherNode {
            dir: dir.to_owned(),
            found: identity.broker,
            wanted,
        });
    }
    Ok(Some(PeerIdentity {
        newest: config.cluster.newest_level(),
        ..identity
    }))
}

/// Both sockets for other nodes, on one port.
fn bind_peer(
    network: &Network,
    identity: PeerIdentity,
    address: SocketAddr,
) -> Result<PeerSockets, StartError> {
    let failed = |error| StartError::Bind {
        door: "peer",
        address,
        error,
    };
    let quic = network.bind(address, false).map_err(failed)?;
    let tripwire = match &quic {
        Socket::Machine(quic) => Some(bind("peer", quic.local_addr().map_err(failed)?)?),
        Socket::Simulated(_) => None,
    };
    Ok(PeerSockets {
        identity,
        quic,
        tripwire,
    })
}

fn bind(door: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).and_then(|l| l.set_nonblocking(true).map(|()| l));
    bound.map_err(|error| StartError::Bind {
        door,
        address,
        error,
    })
}

/// One socket per worker on the same address.
fn bind_quic(
    network: &Network,
    address: SocketAddr,
    workers: usize,
) -> Result<Vec<Socket>, StartError> {
    let failed = |error| StartError::Bind {
        door: "quic",
        address,
        error,
    };
    // A probe without sharing tells whether somebody else has the address.
    let probe = network.bind(address, false).map_err(failed)?;
    let address = probe.local_addr().map_err(failed)?;
    drop(probe);
    (0..workers)
        .map(|_| network.bind(address, true).map_err(failed))
        .collect()
}

fn disk_of(medium: &Medium) -> Arc<dyn Disk> {
    match medium {
        Medium::Real => Arc::new(RealDisk),
        Medium::Memory(disk) => Arc::new(disk.clone()),
        Medium::Given(disk) => disk.clone(),
    }
}

/// How many workers serve partitions.
fn workers(config: &BrokerConfig) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if config.node.workers == 0 {
        // The other half is for syncs and the kernel (measured: ARCHITECTURE).
        cores.div_ceil(2)
    } else {
        config.node.workers
    }
}

impl Starting {
    pub(super) fn prepare(builder: NodeBuilder) -> Result<Self, StartError> {
        let NodeBuilder {
            config,
            medium,
            clock,
            simulation,
            logger,
        } = builder;
        config.validate()?;
        let dir = config.node.data.clone();
        let broker = BrokerId(config.node.id);
        let disk = disk_of(&medium);
        disk.create_dir(&dir)
            .map_err(StorageError::io("creating", &dir))?;
        let lock = matches!(medium, Medium::Real)
            .then(|| lock(&dir))
            .transpose()?;
        let peer_identity = peer_identity(&config)?;
        let meta = meta(&*disk, &dir, broker, peer_identity.as_ref())?;
        let clean_mark = CleanMark::read(&*disk, &dir);
        let identity = match &peer_identity {
            Some(peer) if config.listeners.certificate.is_empty() => peer.identity.clone(),
            Some(_) | None => identity(&config, &*disk, &dir)?,
        };
        let is_real = simulation.is_none();
        let tcp = is_real.then(|| TcpSockets::bind(&config)).transpose()?;
        let network = simulation.as_ref().map(|s| s.network.clone());
        let network = network.unwrap_or_default();
        let workers = simulation.as_ref().map_or(workers(&config), |_| 1);
        let quic = bind_quic(&network, config.listeners.quic, workers)?;
        let peer = peer_identity
            .map(|identity| bind_peer(&network, identity, config.listeners.peer))
            .transpose()?;
        let runtime = match simulation {
            Some(Simulation { runtime, .. }) => runtime,
            None => Runtime::start(RuntimeConfig {
                workers,
                sync_threads: config.node.sync_threads,
                background_threads: config.node.background_threads,
                peers: peer.is_some(),
            })
            .map_err(StartError::Threads)?,
        };
        let shared = Shared {
            broker,
            incarnation: Uuid::random(),
            cluster_id: meta.cluster_id.clone(),
            open: Arc::new(OpenFiles::new(disk.clone(), config.node.open_files)),
            checkpoints: Checkpoints::open(disk, &dir),
            directory: Directory::default(),
            runtime,
            clock,
            metrics: Metrics::default(),
            logger: logger.new(o!("broker" => broker.0)),
            dir,
        };
        Ok(Self {
            config,
            shared,
            meta,
            clean_mark,
            identity,
            tcp,
            quic,
            peer_address: peer.as_ref().and_then(|p| p.quic.local_addr().ok()),
            peer,
            lock,
        })
    }
}
