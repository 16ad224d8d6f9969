//! A TCP connection that carries nothing. When a process ends, however it ends, its kernel closes the connection at
//! once, which QUIC would notice by silence only.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use slog::{Logger, debug};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);
/// A wire that broke though somebody listens is looked at again after this, and after twice that the next time.
const SHORT_PAUSE: Duration = Duration::from_millis(2);
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

/// A wire that is held, for who wants to know at once whether it is broken.
#[derive(Clone, Debug)]
pub struct Wire(Arc<OwnedFd>);

impl Wire {
    /// Asks the kernel: it knows before the event loop does.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let read = recv(&*self.0, &mut [0; 1], flags);
        !matches!(read, Err(Errno::AGAIN | Errno::INTR))
    }
}

/// What is known of a wire.
#[derive(Clone, Debug)]
pub enum Sign {
    /// There is one.
    Connected(Wire),
    /// It broke.
    Broke,
}

/// Waits until a connection to `host` can be made and then until the process there has ended. `tell` hears at once what
/// happens to wires meanwhile.
///
/// # Cancel safety
///
/// Cancel safe: the wire is given up.
pub async fn watch_over(host: &str, port: u16, tell: impl Fn(Sign)) -> Broken {
    let mut wire = loop {
        match connect(host, port).await {
            Ok(wire) => break wire,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let mut pause = SHORT_PAUSE;
    loop {
        // Without a second handle only the event loop notices.
        if let Ok(fd) = wire.as_fd().try_clone_to_owned() {
            tell(Sign::Connected(Wire(Arc::new(fd))));
        }
        let held_since = tokio::time::Instant::now();
        // Whatever is read, it should not be there.
        let _ended = wire.read(&mut [0; 1]).await;
        tell(Sign::Broke);
        match connect(host, port).await {
            // A process that is being killed closes one socket after the other, the one that listens perhaps last: who
            // connects to that sees its connection end soon too.
            Ok(next) => wire = next,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Broken::Dead,
            Err(_) => return Broken::Silent,
        }
        if held_since.elapsed() > PAUSE {
            pause = SHORT_PAUSE;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE);
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect((host, port));
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
    let wires = Arc::new(tokio::sync::Semaphore::new(MAX_WIRES));
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
