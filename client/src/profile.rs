//! Where a node is and whom to trust, in a small TOML file that `callboard start` writes.

use serde::{Deserialize, Serialize};

use crate::{ClientCertificate, ClientConfig, Credentials, Error, Trust};

/// How to reach a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Address of the QUIC door, `host:port`.
    pub server: String,
    /// The CA of the node's certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// SHA-256 of the node's certificate; used without a CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Who uses the node, if it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The user's certificate and its key, PEM, for nodes that let clients show one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Address of the Kafka door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<String>,
    /// Address of health and metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
}

impl Profile {
    /// Name of the file in a node's data directory.
    pub const FILE_NAME: &'static str = "client.toml";

    /// Settings for a client of this node.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if neither CA nor fingerprint is usable, or the user's certificate is not.
    pub fn client_config(&self) -> Result<ClientConfig, Error> {
        let trust = match (&self.ca, &self.fingerprint) {
            (Some(ca), _) => Trust::Ca(ca.clone()),
            (None, Some(fingerprint)) => Trust::Fingerprint(
                fingerprint
                    .parse()
                    .map_err(|e| Error::Config(format!("{e}")))?,
            ),
            (None, None) => {
                let wanted = "a server is trusted by its CA or its fingerprint; neither is given";
                return Err(Error::Config(wanted.into()));
            }
        };
        let credentials = match (&self.user, &self.password) {
            (Some(user), Some(password)) => Some(Credentials {
                user: user.clone(),
                password: password.clone(),
            }),
            (None, None) => None,
            _ => {
                let wanted = "user and password are given together or not at all";
                return Err(Error::Config(wanted.into()));
            }
        };
        let config = ClientConfig::new(&self.server, trust);
        let certificate = self.certificate.as_deref().map(ClientCertificate::new);
        let certificate = certificate.transpose();
        let certificate = certificate.map_err(|e| Error::Config(e.to_string()))?;
        Ok(ClientConfig {
            credentials,
            certificate,
            ..config
        })
    }
}
