//! A TCP connection that carries nothing. When a process ends, however it ends, its kernel closes the connection at
//! once, which QUIC would notice by silence only.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{RecvFlags, recv};
use rustix::process::{Resource, getrlimit};
use slog::{Logger, debug};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);
/// A wire that broke though somebody listens is looked at again after this, and after twice that the next time.
const SHORT_PAUSE: Duration = Duration::from_millis(2);
/// Nodes that may hold a wire to this one.
const MAX_WIRES: u64 = 256;
/// Wires need no higher numbers than this: the kernel keeps a table of eight bytes for each below.
const HIGHEST: u64 = 1 << 16;

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
    let (wires_from, listens_at) = high_numbers();
    let listener = match TcpListener::from_std(at_or_above(listens_at, listener)) {
        Ok(listener) => listener,
        Err(error) => return debug!(logger, "no tripwires are held"; "error" => %error),
    };
    let wires = Arc::new(tokio::sync::Semaphore::new(MAX_WIRES as usize));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let raised = accepted
            .and_then(|(wire, _)| TcpStream::from_std(at_or_above(wires_from, wire.into_std()?)));
        let Ok(mut wire) = raised else {
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

/// The first number of a wire and that of the socket that listens for them: higher than those of all but a node with tens of
/// thousands of clients.
///
/// A process that is killed closes its files one after the other, on Linux the highest number first (`task_work_run` takes the
/// newest first); 800 sockets took it 4 to 15 ms. So other nodes know of its death before any of its clients does, and what
/// these ask next is answered well. Were it the other way round, the wires would break last and clients hear of a leader that
/// is dead.
fn high_numbers() -> (u64, u64) {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(HIGHEST);
    let end = most.min(HIGHEST);
    (end.saturating_sub(MAX_WIRES + 1), end.saturating_sub(1))
}

/// The same socket under the first free number from `number` on; under its own if there is none.
fn at_or_above<S: AsFd + From<OwnedFd>>(number: u64, socket: S) -> S {
    let number = i32::try_from(number).unwrap_or_default();
    match fcntl_dupfd_cloexec(&socket, number) {
        Ok(raised) => S::from(raised),
        Err(_) => socket,
    }
}
