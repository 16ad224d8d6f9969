//! One node: declares the whole supervision tree, starts it in order, stops it in reverse.
//!
//! ```text
//! node                      a controller that gives up ends the node
//! ├── controller            permanent, built from the metadata log; on a worker of its own
//! ├── replicas (per worker) permanent, never gives up
//! │   ├── leader orders-0       permanent, 5 in 60 s -> that partition goes offline
//! │   └── coordinator 7         permanent, 5 in 60 s -> that shard goes offline
//! ├── watchdog              a worker stuck for 30 s is reported; the process ends
//! └── doors                 kafka, quic, http; started last, stopped first
//! ```

mod adoption;
mod builder;
mod clean_mark;
mod cluster;
mod doors;
mod features;
mod log_sizes;
pub mod offline;
mod prepare;
mod readiness;
mod registration;
mod renewal;
mod strays;

pub use adoption::AdoptError;
pub use builder::{NodeBuilder, StartError};
use clean_mark::CleanMark;
use prepare::Starting;
pub use prepare::{CA_FILE, NODE_FILE, NODE_KEY_FILE};
pub use renewal::OUTDATED_REASON;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use callboard_common::runtime::{Runtime, Worker};
use callboard_common::transport::network::Socket;
use callboard_common::transport::tls::{Fingerprint, Identity, TlsError};
use callboard_common::{BrokerId, Clock, TopicPartition, Uuid};
use parking_lot::Mutex;
use slog::{Logger, error, info, warn};
use tokio::sync::{oneshot, watch};

use crate::config::BrokerConfig;
use crate::controller::actor::{ControllerStart, Published};
use crate::controller::{self, ControllerActor};
use crate::directory::Directory;
use crate::leader::actor::Crash;
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::peer::fetcher::Fetchers;
use crate::replicas::actor::CloseAll;
use crate::replicas::{ReplicasActor, ReplicasStart};
use crate::storage::StorageError;
use crate::storage::checkpoint::Checkpoints;
use crate::storage::open_files::OpenFiles;
use crate::supervision::{self, Child, Exit, Restart, RestartLimit, Watchdog};

/// How often the checkpoints are written while the node runs.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
const WATCHDOG_INTERVAL: Duration = Duration::from_secs(1);
const WATCHDOG_PATIENCE: Duration = Duration::from_secs(30);

/// What all actors of a node share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The node's number.
    pub broker: BrokerId,
    /// This start.
    pub incarnation: Uuid,
    /// The cluster's identifier.
    pub cluster_id: String,
    /// The data directory.
    pub dir: PathBuf,
    /// Files.
    pub open: Arc<OpenFiles>,
    /// Checkpoints of the data directory.
    pub checkpoints: Checkpoints,
    /// Where the actors are.
    pub directory: Directory,
    /// Threads.
    pub runtime: Runtime,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
    /// The log.
    pub logger: Logger,
}

impl Shared {
    /// The broker epoch of this start, if it is the one that is registered.
    #[must_use]
    pub fn broker_epoch(&self, image: &controller::MetadataImage) -> Option<i64> {
        let registered = image.brokers.get(&self.broker);
        let this_start = registered.filter(|b| b.incarnation == self.incarnation);
        this_start.map(|b| b.epoch)
    }

    /// Bytes of the log files of partitions that are kept here; those that are not there yet, or gone already, are left
    /// out. `None` if the disk could not be asked.
    pub async fn log_bytes(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Option<Vec<(TopicPartition, u64)>> {
        let (disk, dir) = (self.open.disk().clone(), self.dir.clone());
        let measure = move || {
            let size = |partition: TopicPartition| {
                let dir = dir.join(partition.to_string());
                let names = disk.list(&dir).ok()?;
                let logs = names.iter().filter(|n| n.ends_with(".log"));
                // A segment that retention has removed meanwhile counts nothing.
                let bytes = |name| match disk.open(&dir.join(name)).and_then(|f| f.size()) {
                    Ok(bytes) => Some(bytes),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(0),
                    Err(_) => None,
                };
                Some((partition, logs.map(bytes).sum::<Option<u64>>()?))
            };
            partitions.into_iter().filter_map(size).collect()
        };
        self.runtime.background().ask(measure).await
    }
}

/// Everything that a node stops with.
struct Running {
    shared: Shared,
    controller: Addr<ControllerActor>,
    published: Published,
    replicas: Vec<Addr<ReplicasActor>>,
    stop: watch::Sender<bool>,
    http: Option<std::thread::JoinHandle<()>>,
    _watchdog: Option<Watchdog>,
    _lock: Option<fs::File>,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    kafka: SocketAddr,
    kafka_tls: Option<SocketAddr>,
    quic: SocketAddr,
    http: SocketAddr,
    peer: Option<SocketAddr>,
}

/// A node that runs; it stops in order with [`Node::stop`], and at once when it is dropped.
pub struct Node {
    addresses: Addresses,
    identity: Identity,
    clock: Clock,
    fatal: watch::Receiver<Option<String>>,
    directory: Directory,
    first_user: Option<(String, String)>,
    running: Mutex<Option<Running>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Starting {
    /// Starts the tree in order.
    pub(super) async fn start(self) -> Result<Node, StartError> {
        let runtime = self.shared.runtime.clone();
        let started = self.start_tree().await;
        if started.is_err() {
            runtime.stop();
        }
        started
    }

    async fn start_tree(mut self) -> Result<Node, StartError> {
        let shared = self.shared.clone();
        let (fatal, fatal_seen) = watch::channel(None);
        let (stop, stopping) = watch::channel(false);
        let peers = self.open_peers().await?;
        let membership = peers.as_ref().map(|(membership, ..)| membership.clone());
        let published = Published::new(membership.is_some());
        self.renew(membership.as_ref()).await?;
        let identity = self.identity_in(membership.as_ref()).await?;
        let own = membership
            .as_ref()
            .map(|m| (m.peers.clone(), m.own.clone()));
        let forms = self.forms(identity);
        let who = (identity, self.config.cluster.policy());
        let controller = start_controller(&shared, who, own, &published, fatal.clone());
        if forms {
            self.begin_at_newest(&controller).await;
        }
        if let Some((membership, endpoint, tripwire)) = peers {
            let parts = (&controller, &published, &stopping);
            membership.open_door(&shared, identity, (endpoint, tripwire), parts);
            let coming = membership.come_in(identity, &controller, &published);
            unless_fatal(coming, fatal_seen.clone()).await?;
        }
        let addresses = self.addresses()?;
        let command = self.registration(&addresses, membership.as_ref())?;
        self.register(&controller, &command, &published, fatal_seen.clone())
            .await?;
        self.make_first_user(&controller, &published).await?;
        let first_user = self.first_user();
        clear_away(&shared, &published, membership.is_some())?;
        let fetchers = membership
            .as_ref()
            .map(|m| Fetchers::new(m.peers.clone(), published.clone(), shared.logger.clone()));
        let replicas = start_replicas(
            &shared,
            &controller,
            &published,
            fetchers.as_ref(),
            &self.config,
        )?;
        readiness::wait_until_led(&shared, &published).await;
        if let Some(membership) = &membership {
            membership.tell_log_sizes(&shared, (&controller, &published, &stopping));
        }
        start_checkpoints(&shared, stopping.clone());
        let watchdog = start_watchdog(&shared, fatal, self.tcp.is_some())?;
        let identity = self.identity.clone();
        let lock = self.lock.take();
        let http = self.open_doors(addresses, controller.clone(), published.clone(), stopping)?;
        let running = Running {
            controller,
            published,
            replicas,
            stop,
            http,
            _watchdog: watchdog,
            _lock: lock,
            shared: shared.clone(),
        };
        Ok(Node {
            addresses,
            identity,
            clock: shared.clock,
            fatal: fatal_seen,
            directory: shared.directory,
            first_user,
            running: Mutex::new(Some(running)),
        })
    }

    /// The addresses that were bound.
    fn addresses(&self) -> Result<Addresses, StartError> {
        let listeners = &self.config.listeners;
        let of = |listener: Option<&TcpListener>| {
            let bound = listener.map(TcpListener::local_addr).transpose();
            bound.map_err(StartError::Threads)
        };
        let (tcp, quic) = (self.tcp.as_ref(), self.quic.first());
        let quic = quic.map(Socket::local_addr).transpose();
        Ok(Addresses {
            kafka: of(tcp.map(|t| &t.kafka))?.unwrap_or(listeners.kafka),
            kafka_tls: of(tcp.and_then(|t| t.kafka_tls.as_ref()))?,
            quic: quic.map_err(StartError::Threads)?.unwrap_or(listeners.quic),
            http: of(tcp.map(|t| &t.http))?.unwrap_or(listeners.http),
            peer: self.peer_address,
        })
    }
}

fn child(
    shared: &Shared,
    name: &str,
    limit: RestartLimit,
    on_exit: Box<dyn FnOnce(Exit) + Send>,
) -> Child {
    let metrics = shared.metrics.clone();
    Child {
        name: name.to_owned(),
        restart: Restart::Permanent,
        limit,
        clock: shared.clock.clone(),
        logger: shared.logger.clone(),
        on_restart: Box::new(move || {
            let _count = metrics.restarts.inc();
        }),
        on_exit,
    }
}

fn start_controller(
    shared: &Shared,
    (identity, policy): (controller::Identity, controller::Policy),
    peers: Option<(Peers, controller::Endpoint)>,
    published: &Published,
    fatal: watch::Sender<Option<String>>,
) -> Addr<ControllerActor> {
    let start = ControllerStart {
        disk: shared.open.disk().clone(),
        dir: shared.dir.clone(),
        identity,
        policy,
        peers,
        runtime: shared.runtime.clone(),
        clock: shared.clock.clone(),
        published: published.clone(),
        logger: shared.logger.clone(),
    };
    renewal::watch_for_it(shared, published, fatal.clone());
    let on_exit = Box::new(move |exit| {
        if let Exit::GaveUp(error) = exit {
            let _before = fatal.send_replace(Some(format!("the controller gave up: {error}")));
        }
    });
    let child = child(shared, "controller", RestartLimit::default(), on_exit);
    supervision::start(shared.runtime.control(), child, move |_| {
        ControllerActor::new(start.clone())
    })
}

/// Waits for what needs the controller, as long as that lives.
async fn unless_fatal(
    work: impl Future<Output = ()>,
    mut fatal: watch::Receiver<Option<String>>,
) -> Result<(), StartError> {
    tokio::select! {
        () = work => Ok(()),
        ended = renewal::ended(&mut fatal) => Err(ended),
    }
}

/// Before logs are opened: the mark that all are closed goes, and what a crash left of deleted topics; what others decided
/// meanwhile not to keep here is set aside.
fn clear_away(
    shared: &Shared,
    published: &Published,
    is_in_a_cluster: bool,
) -> Result<(), StorageError> {
    CleanMark::remove(&**shared.open.disk(), &shared.dir).map_err(StorageError::io(
        "removing the mark of a clean stop in",
        &shared.dir,
    ))?;
    let names = shared.open.disk().list(&shared.dir).unwrap_or_default();
    remove_deleted(shared, &names);
    if is_in_a_cluster {
        strays::set_aside(shared, &names, &published.image.load());
    }
    Ok(())
}

fn remove_deleted(shared: &Shared, names: &[String]) {
    for name in names.iter().filter(|n| n.ends_with("-delete")) {
        let dir = shared.dir.join(name);
        if let Err(error) = shared.open.disk().remove_dir(&dir) {
            warn!(shared.logger, "deleted topic's log was not removed"; "path" => %dir.display(), "error" => %error);
        }
    }
}

fn start_replicas(
    shared: &Shared,
    controller: &Addr<ControllerActor>,
    published: &Published,
    fetchers: Option<&Fetchers>,
    config: &BrokerConfig,
) -> Result<Vec<Addr<ReplicasActor>>, StartError> {
    let (topic_defaults, groups) = (config.topic_defaults()?, config.groups()?);
    if topic_defaults.flush_messages > 1 {
        warn!(shared.logger, "records are acknowledged before they are on disk: a loss of power loses them"; "log.flush_messages" => topic_defaults.flush_messages);
    }
    let start = |worker: &Worker| {
        let start = ReplicasStart {
            shared: shared.clone(),
            worker: worker.clone(),
            controller: controller.clone(),
            published: published.clone(),
            fetchers: fetchers.cloned(),
            topic_defaults: topic_defaults.clone(),
            groups: groups.clone(),
            group_rewrite_bytes: config.groups.rewrite.0,
        };
        let child = child(
            shared,
            "replicas",
            RestartLimit::unlimited(),
            Box::new(|_| {}),
        );
        supervision::start(worker, child, move |_| ReplicasActor::new(start.clone()))
    };
    Ok(shared.runtime.workers().iter().map(start).collect())
}

/// Writes the checkpoints now and then.
fn start_checkpoints(shared: &Shared, mut stop: watch::Receiver<bool>) {
    let task_of = shared.clone();
    let _alive: bool = shared.runtime.control().run(move || {
        drop(actix_rt::spawn(async move {
            loop {
                tokio::select! {
                    () = task_of.clock.sleep(CHECKPOINT_INTERVAL) => {}
                    _ = stop.wait_for(|stop| *stop) => return,
                }
                let checkpoints = task_of.checkpoints.clone();
                if let Some(Err(error)) = task_of
                    .runtime
                    .background()
                    .ask(move || checkpoints.write())
                    .await
                {
                    warn!(task_of.logger, "checkpoints are not written"; "error" => %error);
                }
            }
        }));
    });
}

fn start_watchdog(
    shared: &Shared,
    fatal: watch::Sender<Option<String>>,
    is_real: bool,
) -> Result<Option<Watchdog>, StartError> {
    // In virtual time nothing takes long.
    if !is_real {
        return Ok(None);
    }
    let mut workers = shared.runtime.workers().to_vec();
    workers.push(shared.runtime.control().clone());
    workers.push(shared.runtime.peers().clone());
    let logger = shared.logger.clone();
    let on_stuck = move |worker| {
        error!(logger, "a worker is stuck"; "worker" => worker);
        let _before = fatal.send_replace(Some(format!("worker {worker} is stuck")));
    };
    let started = Watchdog::start(workers, WATCHDOG_INTERVAL, WATCHDOG_PATIENCE, on_stuck);
    started.map(Some).map_err(StartError::Threads)
}

impl Node {
    /// A node with the default settings, on `./callboard-data`.
    #[must_use]
    pub fn builder() -> NodeBuilder {
        NodeBuilder::new()
    }

    /// Where Kafka clients connect.
    #[must_use]
    pub fn kafka(&self) -> SocketAddr {
        self.addresses.kafka
    }

    /// Where Kafka clients connect with TLS, if they may.
    #[must_use]
    pub fn kafka_tls(&self) -> Option<SocketAddr> {
        self.addresses.kafka_tls
    }

    /// Where Callboard's clients connect.
    #[must_use]
    pub fn quic(&self) -> SocketAddr {
        self.addresses.quic
    }

    /// Where other nodes connect, if they may.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.addresses.peer
    }

    /// The user that the node made because it asks who everybody is, and its password; `None` if it does not ask or
    /// the password's file is gone.
    #[must_use]
    pub fn first_user(&self) -> Option<(String, String)> {
        self.first_user.clone()
    }

    /// Where health and metrics are.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.addresses.http
    }

    /// The CA that clients of the QUIC door must trust, in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.identity.ca_pem
    }

    /// The fingerprint of the QUIC door's certificate.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the certificate is none, which starting would have noticed.
    pub fn fingerprint(&self) -> Result<Fingerprint, TlsError> {
        self.identity.fingerprint()
    }

    /// Moves the clock of a node that was built with [`NodeBuilder::manual_clock`].
    ///
    /// # Panics
    ///
    /// Panics if the node runs on the machine's clock.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Makes the leader of a partition panic: for tests of supervision. Whether there is one.
    pub fn crash_leader(&self, partition: &TopicPartition) -> bool {
        let leader = self.directory.leader(partition);
        leader.is_some_and(|leader| {
            supervision::tell(&leader.actor, Crash);
            true
        })
    }

    /// Waits until the node can no longer serve; says why.
    pub async fn failed(&self) -> String {
        let mut fatal = self.fatal.clone();
        let reason = fatal
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The node was stopped in order.
            None => futures::future::pending().await,
        }
    }

    /// Stops in order: doors first, then the logs, closed and synced. Returns the partitions that could not be
    /// closed so; the next start recovers them.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the node may be left half stopped.
    pub async fn stop(self) -> Vec<TopicPartition> {
        let Some(running) = self.running.lock().take() else {
            return Vec::new();
        };
        cluster::leave(&running.shared, &running.controller, &running.published).await;
        let _before = running.stop.send_replace(true);
        let (mut unclean, mut all_answer) = (Vec::new(), true);
        for replicas in &running.replicas {
            let (reply, closed) = oneshot::channel();
            supervision::tell(replicas, CloseAll { reply });
            match closed.await {
                Ok(not_closed) => unclean.extend(not_closed),
                Err(_) => all_answer = false,
            }
        }
        let shared = running.shared.clone();
        let finish = move || {
            let written = shared.checkpoints.write();
            if let Err(error) = &written {
                warn!(shared.logger, "checkpoints are not written"; "error" => %error);
            }
            written
        };
        let written = running.shared.runtime.background().ask(finish).await;
        if all_answer && unclean.is_empty() && matches!(written, Some(Ok(()))) {
            mark_clean(&running);
        }
        info!(running.shared.logger, "stopped"; "unclean" => unclean.len());
        end(running);
        unclean
    }
}

fn mark_clean(running: &Running) {
    let shared = &running.shared;
    let Some(epoch) = shared.broker_epoch(&running.published.image.load()) else {
        return;
    };
    if let Err(error) = CleanMark::write(&**shared.open.disk(), &shared.dir, epoch) {
        warn!(shared.logger, "the mark of a clean stop is not written"; "error" => %error);
    }
}

/// Ends the threads; what was not closed is recovered by the next start.
fn end(running: Running) {
    let _before = running.stop.send_replace(true);
    running.shared.runtime.stop();
    drop(running.http.map(std::thread::JoinHandle::join));
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = self.running.lock().take() {
            end(running);
        }
    }
}
