//! QUIC endpoints with the settings of docs/ARCHITECTURE.md: large socket buffers, bounded windows, an MTU that
//! does not set off quinn's traps.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};

use super::network::{Network, Socket as Bound};
use super::tls::{ClientCertificate, Identity, TlsError, Trust};
use crate::crypto::{sha256, stateless_reset_key};

/// Wanted size of UDP socket buffers; the system may give less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Beyond 6,550 bytes quinn's segmentation offload exceeds what the kernel sends at once.
pub(super) const MTU_UPPER_BOUND: u16 = 6500;
/// Streams that a client may have open at once: its lanes.
const MAX_LANES: u32 = 256;
/// Memory promised to one client.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const LANE_WINDOW_BYTES: u32 = 4 << 20;
const SEND_WINDOW_BYTES: u64 = 16 << 20;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why an endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The socket cannot be bound.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The certificates cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
}

fn transport(is_client: bool) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let mut mtu = quinn::MtuDiscoveryConfig::default();
    let _same = mtu.upper_bound(MTU_UPPER_BOUND);
    let _same = transport
        .stream_receive_window(VarInt::from_u32(LANE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(if is_client { 0 } else { MAX_LANES }))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu))
        .max_idle_timeout(Some(
            VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32).into(),
        ));
    if is_client {
        let _same = transport.keep_alive_interval(Some(IDLE_TIMEOUT / 3));
    }
    Arc::new(transport)
}

/// `secret` makes stateless resets that a later start of the same node can send too: a client of a node that was
/// killed learns at once that its connection is gone, instead of by silence.
pub(super) fn endpoint_config(secret: Option<&str>) -> EndpointConfig {
    let mut config = match secret {
        Some(secret) => {
            let digest = sha256(secret.as_bytes());
            let (reset_key, id_key) = digest.split_at(24);
            let mut config = EndpointConfig::new(stateless_reset_key(reset_key));
            // A later start must also recognise the ids that this one gave out.
            let id_key = id_key
                .iter()
                .fold(0u64, |key, byte| key << 8 | u64::from(*byte));
            let _same = config
                .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
            config
        }
        None => EndpointConfig::default(),
    };
    // Without it the larger MTU is never used.
    if let Err(error) = config.max_udp_payload_size(MTU_UPPER_BOUND) {
        log::warn!("the UDP payload size is not accepted: {error}");
    }
    config
}

/// Binds a UDP socket; with `shared`, others may bind the same address and the system spreads clients over them.
///
/// # Errors
///
/// What the operating system says.
pub(super) fn bind(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_reuse_port(shared)?;
    // The system caps these at its own limits.
    let _best_effort = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _best_effort = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Opens a server on a bound socket; call it on the runtime that is to drive it.
///
/// # Errors
///
/// [`EndpointError`] if the certificates or the socket cannot be used.
pub fn server(socket: Bound, identity: &Identity) -> Result<Endpoint, EndpointError> {
    let tls = identity.server_config()?;
    let crypto =
        QuicServerConfig::try_from(tls).map_err(|e| TlsError::Certificate(e.to_string()))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let _same = config.transport_config(transport(false));
    let of = endpoint_config(Some(&identity.key_pem));
    Ok(socket.open(of, Some(config))?)
}

/// Opens a client; call it on the runtime that is to drive it.
///
/// # Errors
///
/// [`EndpointError`] if the trust, the client's certificate or a socket cannot be used.
pub fn client(
    network: &Network,
    trust: &Trust,
    shown: Option<&ClientCertificate>,
    to: SocketAddr,
) -> Result<Endpoint, EndpointError> {
    let any: SocketAddr = if to.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let tls = trust.client_config(shown)?;
    let crypto =
        QuicClientConfig::try_from(tls).map_err(|e| TlsError::Certificate(e.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let _same = config.transport_config(transport(true));
    let mut endpoint = network
        .bind(any, false)?
        .open(endpoint_config(None), None)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}
