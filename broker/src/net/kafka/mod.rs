//! The Kafka door: TCP, frames of Kafka's protocol.
//!
//! `connection` frames and orders, `convert` turns every version of a message into a request of
//! `common::protocol` and back, `fetch_session` keeps incremental fetches (KIP-227).

mod connection;
mod convert;
mod fetch_session;

use std::net::{SocketAddr, TcpListener};

use callboard_common::runtime::Runtime;
use slog::{Logger, debug, warn};
use tokio::sync::watch;

use super::admission::Admission;
use crate::api::Api;

/// A failed accept, as with too many open files, is tried again after this.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Serves connections of a listener until `stop` turns true; they are spread over the workers.
pub fn serve(
    listener: TcpListener,
    runtime: &Runtime,
    api: Api,
    admission: Admission,
    stop: watch::Receiver<bool>,
    logger: Logger,
) {
    let workers = runtime.clone();
    let _alive: bool = runtime.workers()[0].run(move || {
        drop(actix_rt::spawn(accept(
            listener, workers, api, admission, stop, logger,
        )));
    });
}

async fn accept(
    listener: TcpListener,
    runtime: Runtime,
    api: Api,
    admission: Admission,
    mut stop: watch::Receiver<bool>,
    logger: Logger,
) {
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
                api.shared().clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(admitted) = admission.connect(peer.ip()) else {
            debug!(logger, "connection refused: too many"; "peer" => %peer);
            continue;
        };
        // The socket leaves this worker's reactor and enters another one's.
        let Ok(stream) = stream.into_std() else {
            continue;
        };
        let serve = Connection {
            api: api.clone(),
            admission: admission.clone(),
            peer,
            logger: logger.clone(),
        };
        let stop = stop.clone();
        let _alive: bool = runtime.worker(next).run(move || {
            drop(actix_rt::spawn(async move {
                connection::serve(stream, serve, stop).await;
                drop(admitted);
            }));
        });
        next += 1;
    }
}

/// What a connection is served with.
#[derive(Clone, Debug)]
struct Connection {
    api: Api,
    admission: Admission,
    peer: SocketAddr,
    logger: Logger,
}
