//! A TCP connection that carries nothing. When a process ends, however it ends, its kernel closes the connection at
//! once, which QUIC would notice by silence only.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use slog::{Logger, debug};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);
/// Nodes that may hold a wire to this one.
const MAX_WIRES: usize = 256;

/// How a wire ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nobody listens there any more: the process has ended.
    Dead,
    /// Somebody listens there: the connection was lost, or the process is a new one.
    Listens,
    /// Nobody answers: nothing is known.
    Silent,
}

/// Waits until a connection to `host` can be made and then until it ends.
///
/// # Cancel safety
///
/// Cancel safe: the wire is given up.
pub async fn watch_over(host: &str, port: u16) -> Broken {
    let mut wire = loop {
        match connect(host, port).await {
            Ok(wire) => break wire,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let mut nothing = [0; 1];
    // Whatever is read, it should not be there.
    let _ended = wire.read(&mut nothing).await;
    match connect(host, port).await {
        Ok(_) => Broken::Listens,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Broken::Dead,
        Err(_) => Broken::Silent,
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let connecting = TcpStream::connect(&*addresses);
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(timed_out)?
}

/// Holds the other ends until `stop` turns true. Nothing that is sent on them is listened to.
pub async fn hold(
    listener: std::net::TcpListener,
    mut stop: watch::Receiver<bool>,
    logger: Logger,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return debug!(logger, "no tripwires are held"; "error" => %error),
    };
    let wires = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_WIRES));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((mut wire, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(permit) = wires.clone().try_acquire_owned() else {
            continue;
        };
        let mut stop = stop.clone();
        drop(actix_rt::spawn(async move {
            let mut nothing = [0; 1];
            tokio::select! {
                _ = wire.read(&mut nothing) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            drop(permit);
        }));
    }
}
