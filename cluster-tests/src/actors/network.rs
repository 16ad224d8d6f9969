//! A host's sockets in turmoil's network, as quinn wants them: with datagrams that are lost, come twice, or are damaged.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use callboard_common::transport::network::{SimulatedNetwork, SimulatedSocket};
use futures::FutureExt as _;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use turmoil::net::UdpSocket;

use crate::sim::random::Random;

/// Larger than any datagram.
const BUFFER_BYTES: usize = 16 << 10;

/// What happens to so many of a hundred datagrams on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// They are lost.
    pub lost: u64,
    /// They come twice.
    pub doubled: u64,
    /// A bit of them is flipped.
    pub damaged: u64,
}

/// What sends from one host.
#[derive(Debug)]
pub struct HostNetwork {
    address: IpAddr,
    random: Mutex<Random>,
    weather: Arc<Mutex<Weather>>,
}

impl HostNetwork {
    /// The sockets of the host with this address.
    #[must_use]
    pub fn new(address: IpAddr, random: Random, weather: Arc<Mutex<Weather>>) -> Self {
        Self {
            address,
            random: Mutex::new(random),
            weather,
        }
    }
}

/// The network itself is what all sockets of a host share.
#[derive(Clone, Debug)]
pub struct OfHost(pub Arc<HostNetwork>);

impl SimulatedNetwork for OfHost {
    fn bind(&self, address: SocketAddr) -> io::Result<SimulatedSocket> {
        let any = (Ipv4Addr::UNSPECIFIED, address.port());
        let bound = UdpSocket::bind(any).now_or_never();
        let bound = bound.ok_or_else(|| io::Error::other("turmoil waits to bind"))??;
        let mut seed = [0; 32];
        let mut random = lock(&self.0.random);
        for part in seed.chunks_mut(8) {
            part.copy_from_slice(&random.draw().to_le_bytes());
        }
        Ok(SimulatedSocket {
            socket: Arc::new(Socket {
                local: SocketAddr::new(self.0.address, bound.local_addr()?.port()),
                bound: Arc::new(bound),
                host: self.0.clone(),
                inbox: Arc::default(),
            }),
            seed,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Inbox {
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
    /// Whether something fills it.
    is_filled: bool,
}

struct Socket {
    local: SocketAddr,
    bound: Arc<UdpSocket>,
    host: Arc<HostNetwork>,
    inbox: Arc<Mutex<Inbox>>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.local).finish()
    }
}

/// There is always room for one more.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Receives for a socket until that is gone.
async fn fill(bound: Arc<UdpSocket>, inbox: Weak<Mutex<Inbox>>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok((length, from)) = bound.recv_from(&mut buffer).await {
        let Some(inbox) = inbox.upgrade() else { return };
        let mut inbox = lock(&inbox);
        inbox.datagrams.push_back((from, buffer[..length].to_vec()));
        if let Some(reader) = inbox.reader.take() {
            reader.wake();
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        for datagram in transmit.contents.chunks(size.max(1)) {
            let weather = *lock(&self.host.weather);
            let mut random = lock(&self.host.random);
            if random.percent(weather.lost) {
                continue;
            }
            let mut datagram = datagram.to_vec();
            if random.percent(weather.damaged) {
                let bit = random.below(datagram.len() as u64 * 8);
                datagram[(bit / 8) as usize] ^= 1 << (bit % 8);
            }
            let copies = 1 + usize::from(random.percent(weather.doubled));
            for _ in 0..copies {
                // A host that is not there takes nothing, and nobody says so.
                let _sent = self.bound.try_send_to(&datagram, transmit.destination);
            }
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "it is part of the network")]
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = lock(&self.inbox);
        if !std::mem::replace(&mut inbox.is_filled, true) {
            let filling = fill(self.bound.clone(), Arc::downgrade(&self.inbox));
            drop(tokio::task::spawn(filling));
        }
        let Some((from, datagram)) = inbox.datagrams.pop_front() else {
            inbox.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let length = datagram.len().min(buffers[0].len());
        buffers[0][..length].copy_from_slice(&datagram[..length]);
        meta[0] = RecvMeta {
            addr: from,
            len: length,
            stride: length,
            ecn: None,
            dst_ip: None,
        };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
