//! The doors, opened last of all, and the first user of a node that asks who everybody is.

use std::sync::Arc;

use actix::Addr;
use callboard_common::Uuid;
use callboard_common::kafka::Text;
use callboard_common::protocol::security::ScramMechanism;
use futures::FutureExt;
use slog::info;
use tokio::sync::watch;

use super::Addresses;
use super::builder::StartError;
use super::prepare::Starting;
use crate::api::{Api, Operation};
use crate::controller::actor::{Published, propose};
use crate::controller::{Command, ControllerActor, Refusal};
use crate::net::admission::Admission;
use crate::net::throttle::Throttle;
use crate::net::{http, kafka, quic};
use crate::security::image::SecurityChange;
use crate::security::scram::{ITERATIONS, ScramCredential};
use crate::status;
use crate::storage::StorageError;
use crate::storage::disk::{read_whole, replace_whole};

/// Where the first user's password is written.
const PASSWORD_FILE: &str = "admin.password";
const FIRST_USER: &str = "admin";

/// Whether somebody may see the metrics.
async fn admit(api: Api, who: Option<http::Visitor>) -> bool {
    if !api.config().authenticate {
        return true;
    }
    let Some(http::Visitor {
        user,
        password,
        address,
    }) = who
    else {
        return false;
    };
    match api.verified(&user, &password).await {
        Some(principal) => api.allows_at(&principal, address, Operation::Describe),
        None => false,
    }
}

impl Starting {
    /// The first user and its password, as long as its file is there.
    pub(super) fn first_user(&self) -> Option<(String, String)> {
        let path = self.shared.dir.join(PASSWORD_FILE);
        let bytes = read_whole(&**self.shared.open.disk(), &path, 4096).ok()?;
        let password = String::from_utf8(bytes).ok()?.trim_end().to_owned();
        let asked = self.config.security.authenticate;
        asked.then(|| (FIRST_USER.to_owned(), password))
    }

    /// Makes the user `admin` if everybody must prove who they are and nobody could.
    pub(super) async fn make_first_user(
        &self,
        controller: &Addr<ControllerActor>,
        published: &Published,
    ) -> Result<(), StartError> {
        let users_are_there = !published.image.load().security.users.is_empty();
        if !self.config.security.authenticate || users_are_there {
            return Ok(());
        }
        let password = format!("{}{}", Uuid::random(), Uuid::random());
        let path = self.shared.dir.join(PASSWORD_FILE);
        // Written first: a password that nobody knows would lock everybody out.
        replace_whole(
            &**self.shared.open.disk(),
            &path,
            format!("{password}\n").as_bytes(),
        )
        .map_err(StorageError::io("writing", &path))?;
        let of = |mechanism| {
            let salt = [Uuid::random().0, Uuid::random().0].concat();
            let credential =
                ScramCredential::from_password(mechanism, &salt, ITERATIONS, password.as_bytes());
            (mechanism, Some(credential))
        };
        let change = SecurityChange::Credentials {
            user: Text::from_static(FIRST_USER),
            credentials: vec![of(ScramMechanism::Sha256), of(ScramMechanism::Sha512)],
        };
        match propose(controller, Command::Security(change)).await {
            Ok(_) => {
                info!(self.shared.logger, "there was no user: made {FIRST_USER}";
                    "password_file" => %path.display());
                Ok(())
            }
            Err(Refusal::Stopped) => Err(StartError::FirstUser("it stopped".into())),
            Err(refusal) => Err(StartError::FirstUser(refusal.to_string())),
        }
    }

    /// Opens the doors, last of all.
    pub(super) fn open_doors(
        self,
        at: Addresses,
        controller: Addr<ControllerActor>,
        published: Published,
        stopping: watch::Receiver<bool>,
    ) -> Result<Option<std::thread::JoinHandle<()>>, StartError> {
        let shared = self.shared;
        let kafka = self.config.advertised_kafka(at.kafka)?;
        let kafka_tls = match at.kafka_tls {
            Some(bound) => self.config.advertised_kafka_tls(bound)?,
            None => kafka.clone(),
        };
        let advertised = crate::api::Addresses {
            kafka,
            kafka_tls,
            quic: self.config.advertised_quic(at.quic)?,
        };
        let config = self.config.api()?;
        let api = Api::new(
            shared.clone(),
            controller,
            published.clone(),
            config,
            advertised,
        );
        let admission = Admission::new(self.config.limits()?, shared.metrics.clone());
        let logger = shared.logger.clone();
        let doors = kafka::Doors {
            throttle: Throttle::new(api.clone()),
            api: api.clone(),
            admission,
            tls: None,
            logger: logger.clone(),
        };
        quic::serve(
            self.quic,
            &self.identity,
            &shared.runtime,
            &doors,
            &stopping,
        );
        let Some(tcp) = self.tcp else {
            return Ok(None);
        };
        kafka::serve(tcp.kafka, &shared.runtime, doors.clone(), stopping.clone());
        if let Some(listener) = tcp.kafka_tls {
            let tls = Arc::new(self.identity.kafka_server_config()?);
            let doors = kafka::Doors {
                tls: Some(tls.into()),
                ..doors.clone()
            };
            kafka::serve(listener, &shared.runtime, doors, stopping.clone());
        }
        info!(logger, "serves"; "kafka" => %at.kafka, "quic" => %at.quic, "http" => %at.http,
            "data" => %shared.dir.display());
        let door = http::Door {
            metrics: shared.metrics.clone(),
            check: status::check(shared.clone(), published),
            refresh: status::refresh(api.clone()),
            admit: Arc::new(move |user| admit(api.clone(), user).boxed()),
        };
        let serving = http::serve(tcp.http, door, stopping, logger);
        serving.map(Some).map_err(StartError::Threads)
    }
}
