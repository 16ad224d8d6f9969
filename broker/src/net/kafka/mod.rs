//! The Kafka doors: TCP, with TLS or without, frames of Kafka's protocol.
//!
//! `authentication` finds out who the client is, `connection` frames and orders, `convert` turns every version of a message into a request of
//! `common::protocol` and back, `fetch_session` keeps incremental fetches (KIP-227).

mod authentication;
mod connection;
mod convert;
mod fetch_session;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use callboard_common::kafka::Text;
use callboard_common::runtime::Runtime;
use slog::{Logger, debug, info, warn};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::admission::Admission;
use super::throttle::Throttle;
use crate::api::{Api, Door};
use crate::security::Principal;
use crate::security::certificate::user_of;

/// A failed accept, as with too many open files, is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A TLS handshake must be over by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What all connections of a door are served with.
#[derive(Clone)]
pub struct Doors {
    /// The requests.
    pub api: Api,
    /// The bound of the system.
    pub admission: Admission,
    /// Quotas.
    pub throttle: Throttle,
    /// For the door with TLS.
    pub tls: Option<TlsAcceptor>,
    /// The log.
    pub logger: Logger,
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Doors(tls: {})", self.tls.is_some())
    }
}

/// Serves connections of a listener until `stop` turns true; they are spread over the workers.
pub fn serve(listener: TcpListener, runtime: &Runtime, doors: Doors, stop: watch::Receiver<bool>) {
    let workers = runtime.clone();
    let _alive: bool = runtime.workers()[0].run(move || {
        drop(actix_rt::spawn(accept(listener, workers, doors, stop)));
    });
}

async fn accept(
    listener: TcpListener,
    runtime: Runtime,
    doors: Doors,
    mut stop: watch::Receiver<bool>,
) {
    let logger = doors.logger.clone();
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(logger, "the Kafka door does not open"; "error" => %error),
    };
    let mut next = 0u64;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(logger, "connection is not accepted"; "error" => %error);
                doors.api.shared().clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(admitted) = doors.admission.connect(peer.ip()) else {
            debug!(logger, "connection refused: too many"; "peer" => %peer);
            continue;
        };
        // The socket leaves this worker's reactor and enters another one's.
        let Ok(stream) = stream.into_std() else {
            continue;
        };
        let (doors, stop) = (doors.clone(), stop.clone());
        let _alive: bool = runtime.worker(next).run(move || {
            drop(actix_rt::spawn(async move {
                begin(stream, peer, doors, stop).await;
                drop(admitted);
            }));
        });
        next += 1;
    }
}

/// Serves one connection to its end, on the worker where it stays.
async fn begin(
    stream: std::net::TcpStream,
    peer: SocketAddr,
    doors: Doors,
    stop: watch::Receiver<bool>,
) {
    let logger = &doors.logger;
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            return debug!(logger, "connection is lost"; "peer" => %peer, "error" => %error);
        }
    };
    // Answers are written whole; waiting to fill packets would only delay them.
    let _best_effort = stream.set_nodelay(true);
    let door = if doors.tls.is_some() {
        Door::KafkaTls
    } else {
        Door::Kafka
    };
    let mut connection = Connection {
        api: doors.api.clone(),
        admission: doors.admission.clone(),
        throttle: doors.throttle,
        door,
        peer,
        host: Text::from(format!("/{}", peer.ip().to_canonical())),
        certified: None,
        logger: logger.clone(),
    };
    let Some(tls) = doors.tls else {
        let (read, write) = stream.into_split();
        return connection::serve(read, write, connection, stop).await;
    };
    let clock = doors.api.shared().clock.clone();
    let accepted = tokio::select! {
        accepted = tls.accept(stream) => accepted.map_err(|e| e.to_string()),
        () = clock.sleep(HANDSHAKE_TIMEOUT) => Err("the handshake took too long".into()),
    };
    match accepted {
        Ok(stream) => {
            let shown = stream.get_ref().1.peer_certificates();
            connection.certified = shown.and_then(|chain| user_of(chain.first()?));
            let (read, write) = tokio::io::split(stream);
            connection::serve(read, write, connection, stop).await;
        }
        Err(error) => {
            doors.admission.metrics().refuse("tls_handshake");
            info!(logger, "connection closed: the TLS handshake failed: {error}";
                "peer" => %peer, "reason" => "tls_handshake");
        }
    }
}

/// What a connection is served with.
#[derive(Clone, Debug)]
struct Connection {
    api: Api,
    admission: Admission,
    throttle: Throttle,
    door: Door,
    peer: SocketAddr,
    /// The peer's address as Kafka writes it.
    host: Text,
    /// Who the client's certificate says it is.
    certified: Option<Principal>,
    logger: Logger,
}
