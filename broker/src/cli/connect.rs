//! Where the node is: by profile, or by address and trust.

use std::path::{Path, PathBuf};

use callboard_client::{Client, Profile};
use clap::Args;

use super::output::Failure;

/// Names a profile file.
const PROFILE_VARIABLE: &str = "CALLBOARD_PROFILE";
/// Holds the password of `--login`.
const PASSWORD_VARIABLE: &str = "CALLBOARD_PASSWORD";
const DEFAULT_DATA: &str = "callboard-data";

/// How to reach the node.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connect {
    /// Profile that `callboard start` wrote [default: $CALLBOARD_PROFILE or ./callboard-data/client.toml].
    #[arg(long, value_name = "FILE", global = true)]
    profile: Option<PathBuf>,
    /// Address of the node's QUIC door, instead of a profile.
    #[arg(long, value_name = "HOST:PORT", global = true)]
    server: Option<String>,
    /// CA of the node's certificate, PEM file.
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// SHA-256 of the node's certificate, instead of a CA.
    #[arg(long, value_name = "HEX", global = true)]
    fingerprint: Option<String>,
    /// Your certificate and its key, PEM file (`callboard cert client`), for a node that lets clients show one.
    #[arg(long, value_name = "FILE", global = true)]
    certificate: Option<PathBuf>,
    /// Who you are, for a node that asks; instead of the profile's user.
    #[arg(long, value_name = "NAME", global = true)]
    login: Option<String>,
    /// File with the user's password [default: $CALLBOARD_PASSWORD].
    #[arg(long = "login-password-file", value_name = "FILE", global = true)]
    login_password_file: Option<PathBuf>,
}

impl Connect {
    fn profile(&self) -> Result<Profile, Failure> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|e| Failure::new(format!("{}: {e}", path.display())))
        };
        let ca = self.ca.as_deref().map(read).transpose()?;
        let certificate = self.certificate.as_deref().map(read).transpose()?;
        if let Some(server) = &self.server
            && (ca.is_some() || self.fingerprint.is_some())
        {
            let fingerprint = self.fingerprint.clone();
            return Ok(Profile {
                server: server.clone(),
                ca,
                fingerprint,
                certificate,
                ..Profile::default()
            });
        }
        let named = self
            .profile
            .clone()
            .or_else(|| std::env::var_os(PROFILE_VARIABLE).map(PathBuf::from));
        let path = named
            .clone()
            .unwrap_or_else(|| Path::new(DEFAULT_DATA).join(Profile::FILE_NAME));
        if named.is_none() && !path.exists() {
            return Err(Failure::new(
                "no node is known here: run `callboard start` in this directory, or name one with --profile FILE or \
                 with --server HOST:PORT and --ca FILE or --fingerprint HEX",
            ));
        }
        let text = read(&path)?;
        let mut profile: Profile =
            toml::from_str(&text).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
        // What is given on the command line wins.
        profile.server = self.server.clone().unwrap_or(profile.server);
        if ca.is_some() || self.fingerprint.is_some() {
            (profile.ca, profile.fingerprint) = (ca, self.fingerprint.clone());
        }
        profile.certificate = certificate.or(profile.certificate);
        Ok(profile)
    }

    fn password(&self) -> Result<String, Failure> {
        let text = match &self.login_password_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| Failure::new(format!("{}: {e}", path.display())))?,
            None => std::env::var(PASSWORD_VARIABLE).map_err(|_| {
                Failure::usage(format!(
                    "--login needs --login-password-file FILE or ${PASSWORD_VARIABLE}"
                ))
            })?,
        };
        Ok(text.trim_end_matches(['\n', '\r']).to_owned())
    }

    /// Connects.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let mut profile = self.profile()?;
        if let Some(user) = &self.login {
            profile.password = Some(self.password()?);
            profile.user = Some(user.clone());
        }
        let config = profile.client_config()?;
        Ok(Client::connect(config).await?)
    }
}
