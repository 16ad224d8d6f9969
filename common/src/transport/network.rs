//! Where datagrams go: to sockets of the machine, or into a network in the program, which nothing leaves.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};

use super::endpoint;

/// A network in the program.
pub trait SimulatedNetwork: fmt::Debug + Send + Sync {
    /// Binds a socket of the host that the caller runs on; port 0 is any that is free.
    ///
    /// # Errors
    ///
    /// Says that somebody has the address.
    fn bind(&self, address: SocketAddr) -> io::Result<SimulatedSocket>;
}

/// A socket of a network in the program.
#[derive(Clone, Debug)]
pub struct SimulatedSocket {
    /// The socket.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Decides what an endpoint on it draws at random.
    pub seed: [u8; 32],
}

/// Where a node or a client binds its sockets. The default is the machine.
#[derive(Clone, Debug, Default)]
pub struct Network(Option<Arc<dyn SimulatedNetwork>>);

/// Two are equal if they are the same network.
impl PartialEq for Network {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Eq for Network {}

/// A bound socket.
#[derive(Debug)]
pub enum Socket {
    /// Of the machine.
    Machine(UdpSocket),
    /// Of a network in the program.
    Simulated(SimulatedSocket),
}

impl Network {
    /// A network in the program.
    #[must_use]
    pub fn simulated(network: Arc<dyn SimulatedNetwork>) -> Self {
        Self(Some(network))
    }

    /// Binds a socket; with `shared`, others of this machine may bind the same address and the system spreads clients over
    /// them.
    ///
    /// # Errors
    ///
    /// What the operating system or the network says.
    pub fn bind(&self, address: SocketAddr, shared: bool) -> io::Result<Socket> {
        match &self.0 {
            None => endpoint::bind(address, shared).map(Socket::Machine),
            Some(network) => network.bind(address).map(Socket::Simulated),
        }
    }
}

impl Socket {
    /// Where it is bound.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Machine(socket) => socket.local_addr(),
            Self::Simulated(of) => of.socket.local_addr(),
        }
    }

    /// Puts an endpoint on it, which the caller's tokio runtime drives.
    pub(super) fn open(
        self,
        mut config: EndpointConfig,
        server: Option<ServerConfig>,
    ) -> io::Result<Endpoint> {
        let runtime = Arc::new(TokioRuntime);
        match self {
            Self::Machine(socket) => Endpoint::new(config, server, socket, runtime),
            Self::Simulated(SimulatedSocket { socket, seed }) => {
                let _same = config.rng_seed(Some(seed));
                Endpoint::new_with_abstract_socket(config, server, socket, runtime)
            }
        }
    }
}
