//! A cluster's own certificate authority: one key, one CA, a certificate for each node and for users who want one.
//!
//! The CA's certificate can be made again from its key, so only the key and the cluster's identifier are kept.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::peer::peer_name;
use super::tls::{Identity, TlsError};
use crate::BrokerId;

/// Longest common name (X.520, `ub-common-name`).
const COMMON_NAME_MAX: usize = 64;

fn failed(error: rcgen::Error) -> TlsError {
    TlsError::Certificate(error.to_string())
}

/// Signs the certificates of a cluster's nodes.
pub struct Authority {
    cluster_id: String,
    ca_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("cluster_id", &self.cluster_id)
            .finish_non_exhaustive()
    }
}

/// Valid from the beginning of time: a machine without a battery starts there, before it has asked what time it is.
fn params(names: Vec<String>) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.not_before = date_time_ymd(1970, 1, 1);
    Ok(params)
}

fn ca_params(cluster_id: &str) -> Result<CertificateParams, TlsError> {
    let mut params = params(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let name = format!("Callboard cluster {cluster_id}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

impl Authority {
    /// Makes a new authority for the cluster with this identifier.
    ///
    /// # Errors
    ///
    /// [`TlsError::Certificate`] if no key or certificate can be made.
    pub fn create(cluster_id: &str) -> Result<Self, TlsError> {
        let key = KeyPair::generate().map_err(failed)?;
        let params = ca_params(cluster_id)?;
        let ca_pem = params.self_signed(&key).map_err(failed)?.pem();
        let key_pem = key.serialize_pem();
        Ok(Self {
            cluster_id: cluster_id.to_owned(),
            ca_pem,
            key_pem,
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority whose certificate and key were kept.
    ///
    /// # Errors
    ///
    /// [`TlsError::Certificate`] if the key is none.
    pub fn load(cluster_id: &str, ca_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let key = KeyPair::from_pem(key_pem).map_err(failed)?;
        Ok(Self {
            cluster_id: cluster_id.to_owned(),
            ca_pem: ca_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            issuer: Issuer::new(ca_params(cluster_id)?, key),
        })
    }

    /// The CA's certificate, which everybody may know.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The CA's key. Who has it can make nodes.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Makes the certificate of a node: for other nodes by its name in the cluster, for clients by its hosts.
    ///
    /// # Errors
    ///
    /// [`TlsError::Certificate`] if a host is no name or address.
    pub fn node(&self, broker: BrokerId, hosts: &[String]) -> Result<Identity, TlsError> {
        let mut names = vec![peer_name(broker, &self.cluster_id)];
        names.extend(hosts.iter().cloned());
        let mut params = params(names)?;
        let name = format!("Callboard node {broker}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let (certificate_pem, key_pem) = self.sign(&params)?;
        Ok(Identity {
            ca_pem: self.ca_pem.clone(),
            certificate_pem,
            key_pem,
            clients_pem: None,
        })
    }

    /// Makes the certificate of a user, whom its common name says: PEM text with the certificate and its key. It names no
    /// node, so other nodes do not let it in.
    ///
    /// # Errors
    ///
    /// [`TlsError::Certificate`] if a certificate cannot have that name.
    pub fn client(&self, user: &str) -> Result<String, TlsError> {
        if user.is_empty() || user.len() > COMMON_NAME_MAX || user.contains(char::is_control) {
            let wanted =
                format!("a user's name has 1 to {COMMON_NAME_MAX} bytes, all of them printable");
            return Err(TlsError::Certificate(wanted));
        }
        let mut params = params(Vec::new())?;
        // What rcgen would put there otherwise.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate_pem, key_pem) = self.sign(&params)?;
        Ok(certificate_pem + &key_pem)
    }

    /// A certificate and its key, PEM.
    fn sign(&self, params: &CertificateParams) -> Result<(String, String), TlsError> {
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}
