//! One host: a disk that outlives its node, and the node, which is started again whenever it has ended.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callboard_broker::Node;
use callboard_broker::storage::disk::SimulatedDisk;
use callboard_common::runtime::Runtime;
use callboard_common::transport::authority::Authority;
use callboard_common::transport::network::Network;
use callboard_common::{BrokerId, TopicPartition};
use slog::Level;
use tokio::sync::mpsc;

use super::network::{HostNetwork, OfHost, Weather};
use super::said::Said;
use crate::sim::random::Random;

/// Where a node's data is on its disk.
pub const DATA: &str = "/data";
/// How many nodes there are.
pub const NODES: u8 = 3;
const PEER_PORT: u16 = 9392;
const QUIC_PORT: u16 = 9192;

/// The address that turmoil gives to the host of this number.
#[must_use]
pub fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, 0, number))
}

/// The QUIC doors of all nodes.
#[must_use]
pub fn servers() -> String {
    let door = |n| SocketAddr::new(address(n), QUIC_PORT).to_string();
    (1..=NODES).map(door).collect::<Vec<_>>().join(",")
}

/// Certificates of the nodes.
#[derive(Debug)]
pub struct Certificates {
    dir: PathBuf,
    /// The CA that clients trust.
    pub ca: String,
}

impl Certificates {
    /// Makes them below `dir`.
    ///
    /// # Panics
    ///
    /// Panics if they cannot be made or written.
    #[must_use]
    pub fn make(dir: &Path) -> Self {
        let dir = dir.join("certificates");
        let authority = Authority::create("simulated-cluster").expect("made");
        for number in 1..=NODES {
            let host = address(number).to_string();
            let made = authority.node(BrokerId(number.into()), &[host]);
            let made = made.expect("made");
            let dir = dir.join(number.to_string());
            std::fs::create_dir_all(&dir).expect("made");
            let files = [
                ("ca.pem", &made.ca_pem),
                ("node.pem", &made.certificate_pem),
                ("node-key.pem", &made.key_pem),
            ];
            for (name, text) in files {
                std::fs::write(dir.join(name), text).expect("written");
            }
        }
        Self {
            dir,
            ca: authority.ca_pem().to_owned(),
        }
    }

    fn of(&self, number: u8) -> PathBuf {
        self.dir.join(number.to_string())
    }
}

/// What a node is told.
#[derive(Clone, Debug)]
pub enum Command {
    /// Stop in order.
    Stop,
    /// The leader of a partition panics.
    Panic(TopicPartition),
}

/// A host. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Host {
    /// The number of its node.
    pub number: u8,
    /// Its disk.
    pub disk: SimulatedDisk,
    /// How long its disk takes for what a pool does: from 0 to so many microseconds.
    pub disk_time: Rc<RefCell<u64>>,
    certificates: PathBuf,
    panics: Rc<RefCell<u64>>,
    orders: Rc<RefCell<Option<mpsc::UnboundedSender<Command>>>>,
    network: OfHost,
    random: Rc<RefCell<Random>>,
    said: Said,
    least: Level,
}

impl Host {
    /// A host with an empty disk.
    #[must_use]
    pub fn new(
        number: u8,
        seed: u64,
        weather: Arc<Mutex<Weather>>,
        certificates: &Certificates,
        (said, least): (Said, Level),
    ) -> Self {
        let stream = |what: &str| Random::new(seed, &format!("{what} {number}"));
        let network = HostNetwork::new(address(number), stream("network"), weather);
        Self {
            number,
            certificates: certificates.of(number),
            disk: SimulatedDisk::new(stream("disk").draw()),
            disk_time: Rc::new(RefCell::new(super::DISK_TIME)),
            panics: Rc::default(),
            orders: Rc::default(),
            network: OfHost(Arc::new(network)),
            random: Rc::new(RefCell::new(stream("pace"))),
            said,
            least,
        }
    }

    /// Tells the node something, if it runs.
    pub fn order(&self, order: Command) {
        if let Some(orders) = &*self.orders.borrow() {
            // It may just have ended.
            let _told = orders.send(order);
        }
    }

    /// How many leaders have panicked here by order.
    #[must_use]
    pub fn panics(&self) -> u64 {
        *self.panics.borrow()
    }

    /// A life of the node, until it ends by itself or by order.
    pub async fn live(self) {
        let (orders, mut incoming) = mpsc::unbounded_channel();
        drop(self.orders.replace(Some(orders)));
        let node = match self.start().await {
            Ok(node) => node,
            Err(error) => {
                self.note(format!("does not start: {error}"));
                return;
            }
        };
        self.note("serves".to_owned());
        loop {
            let order = tokio::select! {
                order = incoming.recv() => order,
                why = node.failed() => {
                    self.note(format!("ends itself: {why}"));
                    return;
                }
            };
            match order {
                Some(Command::Panic(partition)) => {
                    *self.panics.borrow_mut() += u64::from(node.crash_leader(&partition));
                }
                Some(Command::Stop) | None => {
                    let unclean = node.stop().await;
                    self.note(format!("has stopped, {} logs not in order", unclean.len()));
                    return;
                }
            }
        }
    }

    fn note(&self, what: String) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        self.said.note(at, format!("node {} {what}", self.number));
    }

    async fn start(&self) -> Result<Node, callboard_broker::StartError> {
        let (random, time) = (self.random.clone(), self.disk_time.clone());
        let pace = move || {
            let most = *time.borrow();
            Duration::from_micros(random.borrow_mut().below(most))
        };
        let at = |port| SocketAddr::new(address(self.number), port);
        let voter = |v: u8| format!("{v}@{}:{PEER_PORT}", address(v));
        let builder = Node::builder()
            .disk(Arc::new(self.disk.clone()), Path::new(DATA))
            .configure(|c| {
                c.node.id = self.number.into();
                (c.listeners.quic, c.listeners.peer) = (at(QUIC_PORT), at(PEER_PORT));
                c.cluster.certificates = self.certificates.display().to_string();
                c.cluster.voters = (1..=NODES).map(voter).collect();
            });
        let network = Network::simulated(Arc::new(self.network.clone()));
        let builder = builder.simulated(Runtime::single_threaded(pace), network);
        builder.logger(self.said.logger(self.least)).start().await
    }
}
