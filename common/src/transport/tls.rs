//! Certificates: a development certificate that a node makes itself, and what a client accepts.
//!
//! The provider is passed explicitly everywhere, so a program with another one is not disturbed.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use crate::crypto::{sha256, tls_provider};

/// The protocol's name in the handshake.
pub const ALPN: &[u8] = b"callboard/1";

/// Why certificates cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// PEM text holds no certificate or key.
    #[error("no usable {what} in the PEM text: {error}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// What is wrong.
        error: String,
    },
    /// A certificate could not be made or does not fit its key.
    #[error("{0}")]
    Certificate(String),
    /// A fingerprint is not 64 hexadecimal digits.
    #[error("{0:?} is no SHA-256 fingerprint of 64 hexadecimal digits")]
    Fingerprint(String),
}

/// SHA-256 of a certificate, by which a client can know a server without a CA.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(sha256(certificate))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<Self, TlsError> {
        let wrong = || TlsError::Fingerprint(text.chars().take(80).collect());
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
        if digits.len() != 64 {
            return Err(wrong());
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(digits.as_chunks::<2>().0) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(out))
    }
}

/// A node's certificate with its key, and the CA that signed it, in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The CA's certificate, for clients.
    pub ca_pem: String,
    /// The node's certificate.
    pub certificate_pem: String,
    /// The node's key.
    pub key_pem: String,
    /// CA whose certificates clients may show; without one they are not asked.
    pub clients_pem: Option<String>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// Makes a development CA and a certificate for `localhost` and the loopback addresses.
    ///
    /// # Errors
    ///
    /// [`TlsError::Certificate`] if the certificate cannot be made.
    pub fn development() -> Result<Self, TlsError> {
        let failed = |e: rcgen::Error| TlsError::Certificate(e.to_string());
        let ca_key = rcgen::KeyPair::generate().map_err(failed)?;
        let mut ca = rcgen::CertificateParams::new(Vec::new()).map_err(failed)?;
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(rcgen::DnType::CommonName, "Callboard development CA");
        ca.key_usages = vec![
            rcgen::KeyUsagePurpose::KeyCertSign,
            rcgen::KeyUsagePurpose::CrlSign,
        ];
        let ca_certificate = ca.self_signed(&ca_key).map_err(failed)?;
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let names = ["localhost", "127.0.0.1", "::1"]
            .map(str::to_owned)
            .to_vec();
        let mut node = rcgen::CertificateParams::new(names).map_err(failed)?;
        node.distinguished_name
            .push(rcgen::DnType::CommonName, "Callboard node");
        node.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let key = rcgen::KeyPair::generate().map_err(failed)?;
        let certificate = node.signed_by(&key, &issuer).map_err(failed)?;
        Ok(Self {
            ca_pem: ca_certificate.pem(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            clients_pem: None,
        })
    }

    fn certificate(&self) -> Result<CertificateDer<'static>, TlsError> {
        certificates(&self.certificate_pem)?
            .into_iter()
            .next()
            .ok_or_else(|| TlsError::Certificate("there is none".into()))
    }

    /// The fingerprint of the node's certificate.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`] if there is no certificate.
    pub fn fingerprint(&self) -> Result<Fingerprint, TlsError> {
        Ok(Fingerprint::of(&self.certificate()?))
    }

    /// What the QUIC door offers: TLS 1.3 with Callboard's own protocol.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if certificate and key do not fit.
    pub fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let mut config = self.offering(&[&rustls::version::TLS13])?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    /// What the Kafka door offers: TLS 1.2 and 1.3; Kafka's clients name no protocol.
    ///
    /// # Errors
    ///
    /// As [`Identity::server_config`].
    pub fn kafka_server_config(&self) -> Result<ServerConfig, TlsError> {
        self.offering(&[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    fn offering(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Result<ServerConfig, TlsError> {
        let failed = |e: rustls::Error| TlsError::Certificate(e.to_string());
        let mut config = ServerConfig::builder_with_provider(tls_provider())
            .with_protocol_versions(versions)
            .map_err(failed)?
            .with_client_cert_verifier(self.client_verifier()?)
            .with_single_cert(certificates(&self.certificate_pem)?, key(&self.key_pem)?)
            .map_err(failed)?;
        // What comes with the first packet could be played again.
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// Who shows a certificate must have one of the right CA; nobody has to show one.
    fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let Some(ca) = &self.clients_pem else {
            return Ok(WebPkiClientVerifier::no_client_auth());
        };
        let builder =
            WebPkiClientVerifier::builder_with_provider(roots(ca)?.into(), tls_provider());
        let verifier = builder.allow_unauthenticated().build();
        verifier.map_err(|e| TlsError::Certificate(e.to_string()))
    }
}

/// The certificates of a CA, to check others by.
pub(super) fn roots(ca_pem: &str) -> Result<RootCertStore, TlsError> {
    let failed = |e: rustls::Error| TlsError::Certificate(e.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem)? {
        roots.add(certificate).map_err(failed)?;
    }
    Ok(roots)
}

pub(super) fn key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes());
    let key = key.map_err(|e| TlsError::Pem {
        what: "key",
        error: e.to_string(),
    })?;
    Ok(PrivateKeyDer::Pkcs8(key))
}

pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let wrong = |error: String| TlsError::Pem {
        what: "certificate",
        error,
    };
    let all = all.map_err(|e| wrong(e.to_string()))?;
    if all.is_empty() {
        Err(wrong("there is none".into()))
    } else {
        Ok(all)
    }
}

/// A client's certificate and its key, by which a node knows who it is. Debug output does not show the key.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    pem: String,
}

impl ClientCertificate {
    /// PEM text with a certificate (its chain after it, if there is one) and its key, PKCS #8.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`] if either is not there.
    pub fn new(pem: impl Into<String>) -> Result<Self, TlsError> {
        let pem = pem.into();
        let _both = (certificates(&pem)?, key(&pem)?);
        Ok(Self { pem })
    }
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

/// Whom a client trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Servers with a certificate of this CA, in PEM.
    Ca(String),
    /// The one server with this certificate.
    Fingerprint(Fingerprint),
}

impl Trust {
    /// What a client demands, and what it shows of itself.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the CA or the client's certificate cannot be used.
    pub fn client_config(
        &self,
        shown: Option<&ClientCertificate>,
    ) -> Result<ClientConfig, TlsError> {
        let failed = |e: rustls::Error| TlsError::Certificate(e.to_string());
        let builder = ClientConfig::builder_with_provider(tls_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?;
        let builder = match self {
            Self::Ca(pem) => builder.with_root_certificates(roots(pem)?),
            Self::Fingerprint(fingerprint) => {
                let verifier = Pinned {
                    fingerprint: *fingerprint,
                    provider: tls_provider(),
                };
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(ClientCertificate { pem }) => builder
                .with_client_auth_cert(certificates(pem)?, key(pem)?)
                .map_err(failed)?,
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }
}

/// Accepts one certificate, whoever signed it; the handshake still proves that the server has its key.
#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Fingerprint::of(end_entity) == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(
            rustls::CertificateError::ApplicationVerificationFailure,
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_development_identity_serves_and_is_recognised() {
        let identity = Identity::development().expect("made");
        assert!(identity.server_config().is_ok());
        assert!(
            Trust::Ca(identity.ca_pem.clone())
                .client_config(None)
                .is_ok()
        );
        let fingerprint = identity.fingerprint().expect("there is a certificate");
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        assert!("12:34".parse::<Fingerprint>().is_err());
        assert!(Trust::Ca("nothing".into()).client_config(None).is_err());
    }

    #[test]
    fn the_digest_is_sha_256() {
        let abc = Fingerprint(sha256(b"abc")).to_string();
        assert_eq!(
            abc,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
