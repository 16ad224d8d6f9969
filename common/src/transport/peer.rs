//! Node to node: QUIC with mutual TLS. A certificate of the cluster's CA names its node and its cluster, and nothing
//! else enters.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, TransportConfig, VarInt};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;

use super::endpoint::{EndpointError, MTU_UPPER_BOUND, endpoint_config};
use super::network::Socket;
use super::tls::{Identity, TlsError, certificates, key, roots};
use crate::crypto::tls_provider;
use crate::{BrokerId, FeatureLevel};

const DOMAIN: &str = "callboard";
/// Lanes that a node may have open at once.
const MAX_LANES: u32 = 1024;
const WINDOW_BYTES: u32 = 64 << 20;
const LANE_WINDOW_BYTES: u32 = 16 << 20;
/// A peer that is cut off is given up after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
const KEEP_ALIVE: Duration = Duration::from_millis(500);

/// The name by which other nodes know a node: DNS names have no capitals, so the cluster's identifier is in hex.
#[must_use]
pub fn peer_name(broker: BrokerId, cluster_id: &str) -> String {
    let hex: String = cluster_id.bytes().map(|b| format!("{b:02x}")).collect();
    format!("n{broker}.{hex}.{DOMAIN}")
}

/// The protocol's name in the handshake, by level.
fn alpn(level: FeatureLevel) -> Vec<u8> {
    // What releases say that did not know levels.
    let number = if level == FeatureLevel::BEFORE_LEVELS {
        1
    } else {
        level.0
    };
    format!("callboard-peer/{number}").into_bytes()
}

/// The level that both ends of a connection speak: the highest that both know. `None` if it was not made by a node.
#[must_use]
pub fn level_of(connection: &Connection) -> Option<FeatureLevel> {
    let handshake = connection.handshake_data()?;
    let handshake = handshake.downcast::<HandshakeData>().ok()?;
    let protocol = handshake.protocol?;
    FeatureLevel::NEWEST.down().find(|l| alpn(*l) == protocol)
}

/// The node and the cluster that a name is of.
fn parse_name(name: &str) -> Option<(BrokerId, String)> {
    let mut labels = name.split('.');
    let (node, hex, domain) = (labels.next()?, labels.next()?, labels.next()?);
    if domain != DOMAIN || labels.next().is_some() || hex.len() % 2 != 0 {
        return None;
    }
    let broker = BrokerId(node.strip_prefix('n')?.parse().ok()?);
    let digits = hex.as_bytes().as_chunks::<2>().0.iter();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.map(byte).collect();
    Some((broker, String::from_utf8(bytes?).ok()?))
}

/// The node and the cluster that a certificate is of; `None` if it is no node's.
#[must_use]
pub fn node_of(certificate: &CertificateDer<'_>) -> Option<(BrokerId, String)> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut names = parsed.valid_dns_names().filter_map(parse_name);
    let named = names.next()?;
    // A certificate of two nodes is of none.
    names.next().is_none().then_some(named)
}

/// Who a node is to the others.
#[derive(Clone, Debug)]
pub struct PeerIdentity {
    /// Certificates and key.
    pub identity: Identity,
    /// The node.
    pub broker: BrokerId,
    /// The cluster.
    pub cluster_id: String,
    /// The highest level that it speaks.
    pub newest: FeatureLevel,
}

impl PeerIdentity {
    /// Reads whose certificate it is.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if it is no node's.
    pub fn new(identity: Identity) -> Result<Self, TlsError> {
        let all = certificates(&identity.certificate_pem)?;
        let named = all.first().and_then(node_of);
        let (broker, cluster_id) =
            named.ok_or_else(|| TlsError::Certificate("it is no node's certificate".into()))?;
        Ok(Self {
            identity,
            broker,
            cluster_id,
            newest: FeatureLevel::NEWEST,
        })
    }

    /// The names of what it speaks, the best first: the server's order decides.
    fn protocols(&self) -> Vec<Vec<u8>> {
        self.newest.down().map(alpn).collect()
    }

    fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let failed = |e: rustls::Error| TlsError::Certificate(e.to_string());
        let verifier = WebPkiClientVerifier::builder_with_provider(
            roots(&self.identity.ca_pem)?.into(),
            tls_provider(),
        )
        .build()
        .map_err(|e| TlsError::Certificate(e.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(tls_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                certificates(&self.identity.certificate_pem)?,
                key(&self.identity.key_pem)?,
            )
            .map_err(failed)?;
        config.alpn_protocols = self.protocols();
        config.max_early_data_size = 0;
        Ok(config)
    }

    fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let failed = |e: rustls::Error| TlsError::Certificate(e.to_string());
        let mut config = ClientConfig::builder_with_provider(tls_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_root_certificates(roots(&self.identity.ca_pem)?)
            .with_client_auth_cert(
                certificates(&self.identity.certificate_pem)?,
                key(&self.identity.key_pem)?,
            )
            .map_err(failed)?;
        config.alpn_protocols = self.protocols();
        Ok(config)
    }

    /// Opens the endpoint that calls other nodes and is called by them; call it on the runtime that drives it.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] if the certificates or the socket cannot be used.
    pub fn open(&self, socket: Socket) -> Result<Endpoint, EndpointError> {
        let unusable = |e: &dyn std::fmt::Display| TlsError::Certificate(e.to_string());
        let crypto = QuicServerConfig::try_from(self.server_config()?).map_err(|e| unusable(&e))?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let transport = transport();
        let _same = server.transport_config(transport.clone());
        let crypto = QuicClientConfig::try_from(self.client_config()?).map_err(|e| unusable(&e))?;
        let mut client = quinn::ClientConfig::new(Arc::new(crypto));
        let _same = client.transport_config(transport);
        let of = endpoint_config(Some(&self.identity.key_pem));
        let mut endpoint = socket.open(of, Some(server))?;
        endpoint.set_default_client_config(client);
        Ok(endpoint)
    }

    /// The node at the other end of a connection that was made to this one, if it is of this cluster.
    #[must_use]
    pub fn caller(&self, connection: &Connection) -> Option<BrokerId> {
        let identity = connection.peer_identity()?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        let (broker, cluster_id) = node_of(chain.first()?)?;
        (cluster_id == self.cluster_id && broker != self.broker).then_some(broker)
    }

    /// The name that the certificate of another node of this cluster must have.
    #[must_use]
    pub fn name_of(&self, broker: BrokerId) -> String {
        peer_name(broker, &self.cluster_id)
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let mut mtu = quinn::MtuDiscoveryConfig::default();
    let _same = mtu.upper_bound(MTU_UPPER_BOUND);
    let idle = VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32);
    let _same = transport
        .stream_receive_window(VarInt::from_u32(LANE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_LANES))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(idle.into()));
    Arc::new(transport)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::authority::Authority;

    #[test]
    fn a_certificate_names_its_node_and_cluster() {
        let authority = Authority::create("Xy_3-id").expect("made");
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let identity = authority.node(BrokerId(7), &hosts).expect("made");
        let peer = PeerIdentity::new(identity).expect("a node's");
        assert_eq!((peer.broker, &*peer.cluster_id), (BrokerId(7), "Xy_3-id"));
        assert!(peer.server_config().is_ok() && peer.client_config().is_ok());
        let again = Authority::load("Xy_3-id", authority.ca_pem(), authority.key_pem());
        assert!(again.expect("kept").node(BrokerId(8), &hosts).is_ok());
    }

    #[test]
    fn other_certificates_are_no_nodes() {
        let development = Identity::development().expect("made");
        assert!(PeerIdentity::new(development.clone()).is_err());
        let authority = Authority::create("Wb_-1").expect("made");
        let user = Identity {
            certificate_pem: authority.client("ann").expect("made"),
            ..development
        };
        assert!(PeerIdentity::new(user).is_err(), "it is a user's");
        for name in [
            "n1.zz.callboard",
            "n1.61.example",
            "x1.61.callboard",
            "n1.61.callboard.org",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
