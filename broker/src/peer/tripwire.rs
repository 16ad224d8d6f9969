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
/// A wire that broke though somebody listens is looked at again after this, and after twice that the next time.
const SHORT_PAUSE: Duration = Duration::from_millis(2);
/// A wire that was held for so long is held by somebody who lives.
const HOLDS_AFTER: Duration = Duration::from_millis(100);
/// Nodes that may hold a wire to this one.
const MAX_WIRES: usize = 256;

/// How a wire ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nobody listens there any more: the process has ended.
    Dead,
    /// Nobody answers: nothing is known.
    Silent,
}

/// Waits until a connection to `host` can be made and then until the process there has ended. `suspect` hears `true` at once
/// when a wire breaks, and `false` when somebody holds it again.
///
/// # Cancel safety
///
/// Cancel safe: the wire is given up.
pub async fn watch_over(host: &str, port: u16, suspect: impl Fn(bool)) -> Broken {
    let mut wire = loop {
        match connect(host, port).await {
            Ok(wire) => break wire,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let mut pause = SHORT_PAUSE;
    loop {
        // A process that is being killed closes one socket after the other, the one that listens perhaps last: who
        // connects to that sees its connection end soon too.
        if tokio::time::timeout(HOLDS_AFTER, end_of(&mut wire))
            .await
            .is_err()
        {
            suspect(false);
            pause = SHORT_PAUSE;
            end_of(&mut wire).await;
        }
        suspect(true);
        match connect(host, port).await {
            Ok(next) => wire = next,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Broken::Dead,
            Err(_) => return Broken::Silent,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE);
    }
}

/// Whatever is read, it should not be there.
async fn end_of(wire: &mut TcpStream) {
    let _ended = wire.read(&mut [0; 1]).await;
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
