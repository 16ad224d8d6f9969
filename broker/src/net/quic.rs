//! The QUIC door: lanes of Callboard's own clients.
//!
//! A connection's streams are its lanes. A lane's requests are begun in order and answered in order; lanes do not
//! wait for each other, so one slow or lossy partition holds up no other.

use std::net::SocketAddr;

use callboard_common::ErrorCode;
use callboard_common::kafka::Text;
use callboard_common::protocol::{Request, Response};
use callboard_common::runtime::Runtime;
use callboard_common::transport::endpoint;
use callboard_common::transport::network::Socket;
use callboard_common::transport::stream::{FrameReader, ReadError, write};
use callboard_common::transport::tls::Identity;
use callboard_common::wire::codec::{self, BODY_LIMIT_BYTES, CodecError};
use callboard_common::wire::frame::{Frame, FrameError, Header, split};
use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt};
use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use rustls_pki_types::CertificateDer;
use slog::{Logger, debug, info, warn};
use tokio::sync::watch;

use super::admission::Admission;
use super::kafka::Doors;
use crate::api::{Api, Became, Caller, Door};
use crate::metrics::RequestLabels;
use crate::net::throttle::{Mute, Throttle, Used};
use crate::planted::{self, Bug};
use crate::security::Principal;
use crate::security::certificate::user_of;
use crate::supervision::Permit;

/// Handshakes that are under way at once on one socket; beyond it clients must prove their address first.
const HANDSHAKES_WITHOUT_RETRY: usize = 64;
/// So much of a request is read before it takes credits.
const UNCREDITED_BYTES: usize = 64 << 10;
const CREDIT_BYTES: usize = 1 << 20;
/// Largest request of a client that has not proved who it is.
const UNAUTHENTICATED_MAX_BYTES: usize = 64 << 10;
/// Codes of closed connections.
const CODE_STOPPED: u32 = 0;
const CODE_REFUSED: u32 = 1;
const CODE_MALFORMED: u32 = 2;

/// What lanes are served with.
#[derive(Clone, Debug)]
struct Lanes {
    api: Api,
    admission: Admission,
    throttle: Throttle,
    /// Who proved to use the connection.
    became: Became,
    mute: Mute,
    peer: SocketAddr,
    logger: Logger,
}

/// Serves one socket per worker until `stop` turns true.
pub fn serve(
    sockets: Vec<Socket>,
    identity: &Identity,
    runtime: &Runtime,
    doors: &Doors,
    stop: &watch::Receiver<bool>,
) {
    for (worker, socket) in runtime.workers().iter().zip(sockets) {
        let (identity, doors, stop) = (identity.clone(), doors.clone(), stop.clone());
        let _alive: bool = worker.run(move || {
            drop(actix_rt::spawn(accept(socket, identity, doors, stop)));
        });
    }
}

async fn accept(socket: Socket, identity: Identity, doors: Doors, mut stop: watch::Receiver<bool>) {
    let logger = doors.logger.clone();
    let endpoint = match endpoint::server(socket, &identity) {
        Ok(endpoint) => endpoint,
        Err(error) => return warn!(logger, "the QUIC door does not open"; "error" => %error),
    };
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some(incoming) = incoming else { break };
        if endpoint.open_connections() > HANDSHAKES_WITHOUT_RETRY
            && !incoming.remote_address_validated()
        {
            // Spoofed addresses cost one packet each.
            let _sent = incoming.retry();
            continue;
        }
        let peer = incoming.remote_address();
        let lanes = Lanes {
            api: doors.api.clone(),
            admission: doors.admission.clone(),
            throttle: doors.throttle.clone(),
            became: Became::default(),
            mute: Mute::default(),
            peer,
            logger: logger.clone(),
        };
        drop(actix_rt::spawn(connection(incoming, lanes, stop.clone())));
    }
    endpoint.close(VarInt::from_u32(CODE_STOPPED), b"the node stops");
    endpoint.wait_idle().await;
}

async fn connection(incoming: Incoming, lanes: Lanes, mut stop: watch::Receiver<bool>) {
    let Some(_admitted) = lanes.admission.connect(lanes.peer.ip()) else {
        incoming.refuse();
        return;
    };
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => {
            return debug!(lanes.logger, "handshake failed"; "peer" => %lanes.peer, "error" => %error);
        }
    };
    let shown = connection.peer_identity();
    let chain = shown.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    if let Some(user) = chain.and_then(|chain| user_of(chain.first()?)) {
        lanes.became.certify(user);
    }
    loop {
        tokio::select! {
            lane = connection.accept_bi() => match lane {
                Ok((send, receive)) => {
                    drop(actix_rt::spawn(lane_to_its_end(connection.clone(), lanes.clone(), send, receive)));
                }
                Err(error) => return debug!(lanes.logger, "connection closed: {error}"; "peer" => %lanes.peer),
            },
            _ = stop.wait_for(|stop| *stop) => {
                return connection.close(VarInt::from_u32(CODE_STOPPED), b"the node stops");
            }
        }
    }
}

/// Why a lane ends.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the client closed it")]
    ByClient,
    #[error("a request was not whole in time")]
    SlowRequest,
    #[error("an answer was not taken in time")]
    SlowReader,
    #[error("a request of {0} bytes came before the client had proved who it is")]
    Unauthenticated(usize),
    #[error("{0}")]
    Read(ReadError),
    #[error("{0}")]
    Write(std::io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Codec(#[from] CodecError),
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::ByClient,
            ReadError::Broken(_) | ReadError::CutShort | ReadError::Frame(_) => Self::Read(error),
        }
    }
}

impl Ended {
    /// Reason for the counter of refusals, if the client is at fault: it costs the connection.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::ByClient
            | Self::Write(_)
            | Self::Read(ReadError::Broken(_) | ReadError::Closed) => None,
            Self::Unauthenticated(_) => Some("unauthenticated"),
            Self::SlowRequest => Some("slow_request"),
            Self::SlowReader => Some("slow_reader"),
            Self::Read(ReadError::CutShort | ReadError::Frame(_)) | Self::Frame(_) => {
                Some("length")
            }
            Self::Codec(_) => Some("malformed"),
        }
    }
}

async fn lane_to_its_end(
    connection: Connection,
    lanes: Lanes,
    send: SendStream,
    receive: RecvStream,
) {
    let ended = lane(&lanes, send, receive).await;
    match ended.reason() {
        Some(reason) => {
            lanes.admission.metrics().refuse(reason);
            info!(lanes.logger, "connection closed: {ended}"; "peer" => %lanes.peer, "reason" => reason);
            let code = if reason == "malformed" {
                CODE_MALFORMED
            } else {
                CODE_REFUSED
            };
            connection.close(VarInt::from_u32(code), reason.as_bytes());
        }
        None => debug!(lanes.logger, "lane closed: {ended}"; "peer" => %lanes.peer),
    }
}

type Answer = BoxFuture<'static, Result<(Frame, Permit), Ended>>;

async fn lane(lanes: &Lanes, mut send: SendStream, receive: RecvStream) -> Ended {
    let (answers, outgoing) = mpsc::channel::<Answer>(0);
    let at_once = lanes.admission.limits().requests_per_connection;
    let mut outgoing = match planted::is(Bug::AnswersOutOfOrder) {
        true => outgoing.buffer_unordered(at_once).left_stream(),
        false => outgoing.buffered(at_once).right_stream(),
    };
    let clock = lanes.api.shared().clock.clone();
    let writing = async {
        while let Some(answer) = outgoing.next().await {
            // The credits are held until the answer is written.
            let (frame, _permit) = match answer {
                Ok(answer) => answer,
                Err(ended) => return ended,
            };
            let timeout = lanes.admission.limits().write_timeout_of(frame.bytes());
            tokio::select! {
                written = write(&mut send, frame) => {
                    if let Err(error) = written {
                        return Ended::Write(error);
                    }
                }
                () = clock.sleep(timeout) => return Ended::SlowReader,
            }
        }
        // All that was asked is answered.
        Ended::ByClient
    };
    let reading = read(lanes, FrameReader::new(receive), answers);
    futures::pin_mut!(writing);
    futures::pin_mut!(reading);
    match futures::future::select(reading, writing).await {
        // A client that only closed its half still gets its answers.
        futures::future::Either::Left((Ended::ByClient, writing)) => writing.await,
        futures::future::Either::Left((ended, _)) | futures::future::Either::Right((ended, _)) => {
            ended
        }
    }
}

async fn read(lanes: &Lanes, mut reader: FrameReader, mut answers: mpsc::Sender<Answer>) -> Ended {
    loop {
        let answer = match begin(lanes, &mut reader).await {
            Ok(answer) => answer,
            Err(ended) => return ended,
        };
        if answers.send(answer).await.is_err() {
            return Ended::ByClient;
        }
    }
}

/// Reads one request and begins to serve it.
async fn begin(lanes: &Lanes, reader: &mut FrameReader) -> Result<Answer, Ended> {
    let limits = lanes.admission.limits();
    let clock = lanes.api.shared().clock.clone();
    let length = reader.length(limits.request_max_bytes).await?;
    // Another lane may have proved who it is while this one was waiting for its next request.
    let authenticated = lanes
        .became
        .get()
        .or((!lanes.api.config().authenticate).then_some(Principal::Anonymous));
    if authenticated.is_none() && length > UNAUTHENTICATED_MAX_BYTES {
        return Err(Ended::Unauthenticated(length));
    }
    let mut credits = Vec::new();
    let arrive = async {
        let mut granted = UNCREDITED_BYTES;
        loop {
            reader.arrive(length.min(granted)).await?;
            if granted >= length {
                return Ok::<(), Ended>(());
            }
            credits.extend(lanes.admission.bytes(CREDIT_BYTES as u32).await);
            granted += CREDIT_BYTES;
        }
    };
    tokio::select! {
        arrived = arrive => arrived?,
        () = clock.sleep(limits.frame_timeout) => return Err(Ended::SlowRequest),
    }
    let (header, body, records) = split(reader.take(length), BODY_LIMIT_BYTES)?;
    if header.version != codec::VERSION {
        return Ok(refuse(header, ErrorCode::UnsupportedVersion));
    }
    let known = Request::ALL.iter().any(|(number, _)| *number == header.api);
    if !known {
        return Ok(refuse(header, ErrorCode::UnsupportedVersion));
    }
    let request = codec::request(header, &body, records)?;
    let principal = match authenticated {
        Some(principal) => principal,
        None if matches!(request, Request::Authenticate(_)) => Principal::Anonymous,
        None => return Ok(refuse(header, ErrorCode::SaslAuthenticationFailed)),
    };
    // Who only asks whether the node still answers is told so while it has to wait with everything else.
    let asks_nothing =
        matches!(&request, Request::Metadata(m) if m.topics.as_ref().is_some_and(Vec::is_empty));
    if !asks_nothing {
        lanes.mute.wait(&clock).await;
    }
    let caller = Caller {
        principal,
        client_id: Text::from_static("callboard"),
        host: Text::from(format!("/{}", lanes.peer.ip().to_canonical())),
        door: Door::Quic,
        permit: Permit::new(credits),
        became: lanes.became.clone(),
    };
    Ok(answer(lanes, header, caller, request, length))
}

/// Hands a request of so many bytes to its actors; the answer waits for them.
fn answer(
    lanes: &Lanes,
    header: Header,
    caller: Caller,
    request: Request,
    length: usize,
) -> Answer {
    let clock = lanes.api.shared().clock.clone();
    let labels = RequestLabels {
        door: "quic",
        request: request.name(),
    };
    let metrics = lanes.admission.metrics().clone();
    let _total = metrics
        .received_bytes
        .get_or_create(&labels)
        .inc_by(length as u64);
    let began = clock.now().monotonic;
    let permit = caller.permit.clone();
    let (produces, fetches) = (
        matches!(request, Request::Produce(_)),
        matches!(request, Request::Fetch(_)),
    );
    let used = Used::new(&caller, produces, fetches, length);
    let (throttle, mute) = (lanes.throttle.clone(), lanes.mute.clone());
    let serving = lanes.api.start(caller, request);
    let begin_took = clock.now().monotonic.since(began);
    async move {
        let response = serving.await;
        let encoding = clock.now().monotonic;
        let frame = codec::response_frame(header, response)?;
        let sent = frame.body.len() + frame.records.iter().map(bytes::Bytes::len).sum::<usize>();
        let wait = throttle.after(
            &used,
            sent,
            begin_took + clock.now().monotonic.since(encoding),
        );
        if !wait.is_zero() {
            mute.until(clock.now().monotonic.after(wait));
        }
        let _total = metrics
            .sent_bytes
            .get_or_create(&labels)
            .inc_by(sent as u64);
        metrics
            .requests
            .get_or_create(&labels)
            .observe(clock.now().monotonic.since(began).as_secs_f64());
        Ok((frame, permit))
    }
    .boxed()
}

fn refuse(header: Header, error: ErrorCode) -> Answer {
    let frame = codec::response_frame(header, Response::Refused(error)).map_err(Ended::from);
    futures::future::ready(frame.map(|f| (f, Permit::internal()))).boxed()
}
