//! One connection: frames in, answers out in the same order.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use callboard_common::kafka::header::{RequestHeader, encode_response};
use callboard_common::kafka::{ApiKey, DecodeError, Decoder, Encoder, Text};
use callboard_common::protocol::{Request, TopicRef};
use callboard_common::time::Clock;
use callboard_common::{BrokerId, ErrorCode, Monotonic};
use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt};
use parking_lot::Mutex;
use slog::{debug, info};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Connection;
use super::authentication::{Authentication, Reply};
use super::convert::{self, Answering, Converted, Known};
use super::fetch_session::FetchSessions;
use crate::api::{Api, Became, Caller, Door, LeaderHint, Resource};
use crate::metrics::RequestLabels;
use crate::net::admission::Limits;
use crate::net::throttle::{Mute, Used};
use crate::security::Principal;
use crate::supervision::Permit;

/// So much of a request is read before it takes credits: what an idle or slow connection costs at most.
const UNCREDITED_BYTES: usize = 64 << 10;
/// Credits are taken in pieces of this size as a request arrives.
const CREDIT_BYTES: usize = 1 << 20;
/// So much is read at once from a client that has sent nothing yet.
const READ_BYTES: usize = 16 << 10;
/// Client texts are logged no longer than this.
const LOGGED_CHARS: usize = 256;

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("the client closed it")]
    ByClient,
    #[error("the node stops")]
    NodeStops,
    #[error("no request for too long")]
    Idle,
    #[error("a request of {0} bytes is not possible")]
    Length(i32),
    #[error("this is not Kafka's protocol but {0}")]
    Foreign(&'static str),
    #[error("a request was not whole in time")]
    SlowRequest,
    #[error("an answer was not taken in time")]
    SlowReader,
    #[error("request {api_key} version {version} is not supported")]
    Unsupported { api_key: i16, version: i16 },
    #[error("a request is malformed: {0}")]
    Malformed(#[from] DecodeError),
    #[error("a request contradicts itself: {0}")]
    Invalid(&'static str),
    #[error("records without acknowledgement were refused: {0:?}")]
    RefusedSilently(ErrorCode),
    #[error("request {0} came before the client had proved who it is")]
    Unauthenticated(i16),
    #[error("the client did not prove who it is: {0}")]
    AuthenticationFailed(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Closed {
    /// Reason for the counter of refusals, if the client is at fault.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Length(_) => Some("length"),
            Self::Foreign(_) => Some("foreign_protocol"),
            Self::SlowRequest => Some("slow_request"),
            Self::SlowReader => Some("slow_reader"),
            Self::Unsupported { .. } => Some("unsupported_version"),
            Self::Malformed(_) => Some("malformed"),
            Self::Invalid(_) => Some("invalid"),
            Self::Unauthenticated(_) => Some("unauthenticated"),
            Self::AuthenticationFailed(_) => Some("authentication_failed"),
            Self::ByClient
            | Self::NodeStops
            | Self::Idle
            | Self::RefusedSilently(_)
            | Self::Io(_) => None,
        }
    }
}

/// An answer's chunks with the request's credits, or why the connection must be closed instead; no chunks where no
/// answer is wanted.
type Answer = BoxFuture<'static, Result<(Option<Vec<Bytes>>, Permit), Closed>>;

/// A client's text, safe to log.
fn logged(text: &str) -> String {
    text.escape_debug().take(LOGGED_CHARS).collect()
}

/// Serves one connection to its end.
pub(super) async fn serve(
    read: impl AsyncRead + Unpin,
    write: impl AsyncWrite + Unpin,
    connection: Connection,
    mut stop: watch::Receiver<bool>,
) {
    let logger = connection.logger.clone();
    let peer = connection.peer;
    let in_flight = connection.admission.limits().requests_per_connection;
    // The channel holds one more per sender than its size.
    let (answers, outgoing) = mpsc::channel::<Answer>(0);
    let metrics = connection.admission.metrics().clone();
    let clock = connection.api.shared().clock.clone();
    let admission = connection.admission.clone();
    let authentication = Authentication::new(&connection.api, connection.certified.clone());
    let reader = Reader {
        connection,
        authentication,
        mute: Mute::default(),
        read,
        usual_bytes: READ_BYTES,
        buffer: BytesMut::new(),
        sessions: Arc::default(),
        software: Text::default(),
    };
    let closed = tokio::select! {
        // In this order nothing more is begun for a client that has gone.
        biased;
        closed = reader.run(answers) => closed,
        closed = write_answers(write, outgoing.buffered(in_flight), &clock, admission.limits()) => closed,
        _ = stop.wait_for(|stop| *stop) => Closed::NodeStops,
    };
    match closed.reason() {
        Some(reason) => {
            metrics.refuse(reason);
            info!(logger, "connection closed: {closed}"; "peer" => %peer, "reason" => reason);
        }
        None => debug!(logger, "connection closed: {closed}"; "peer" => %peer),
    }
}

/// Writes answers in order until the reader is done with them or the client does not take them.
async fn write_answers(
    mut write: impl AsyncWrite + Unpin,
    mut answers: impl futures::Stream<Item = Result<(Option<Vec<Bytes>>, Permit), Closed>> + Unpin,
    clock: &Clock,
    limits: &Limits,
) -> Closed {
    while let Some(answer) = answers.next().await {
        // The credits are held until the answer is written.
        let (chunks, _permit) = match answer {
            Ok((Some(chunks), permit)) => (chunks, permit),
            Ok((None, _)) => continue,
            Err(closed) => return closed,
        };
        let timeout = limits.write_timeout_of(chunks.iter().map(Bytes::len).sum());
        tokio::select! {
            biased;
            written = write_all(&mut write, &chunks) => {
                if let Err(error) = written {
                    return error.into();
                }
            }
            () = clock.sleep(timeout) => return Closed::SlowReader,
        }
    }
    // The reader has gone and says why.
    futures::future::pending().await
}

/// Writes all chunks with as few system calls as it takes.
async fn write_all(write: &mut (impl AsyncWrite + Unpin), chunks: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = chunks.iter().map(|c| IoSlice::new(c)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let written = write.write_vectored(rest).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, written);
    }
    // TLS keeps what the socket did not take.
    write.flush().await
}

/// What another protocol's first bytes are.
fn foreign(first: [u8; 4]) -> Option<&'static str> {
    match &first {
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"DELE" | b"CONN" => Some("HTTP"),
        b"SSH-" => Some("SSH"),
        b"PRI " => Some("HTTP/2"),
        [0x16, 0x03, ..] => Some("TLS"),
        _ => None,
    }
}

struct Reader<R> {
    connection: Connection,
    /// Who uses the connection.
    authentication: Authentication,
    /// A client above its quota is not read for a while.
    mute: Mute,
    read: R,
    /// About as large as requests of this client are, so that one read takes a whole one.
    usual_bytes: usize,
    buffer: BytesMut,
    sessions: Arc<Mutex<FetchSessions>>,
    /// Name and version of the client's library, as it says.
    software: Text,
}

/// What a request became.
enum Begun {
    /// It is served.
    Serving(Answer),
    /// It is about who the client is: nothing else is read until that is answered.
    Authentication(Reply),
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads requests and begins to serve them, as far as the credits go.
    async fn run(mut self, mut answers: mpsc::Sender<Answer>) -> Closed {
        let clock = self.connection.api.shared().clock.clone();
        loop {
            let (frame, credits) = match self.frame().await {
                Ok(frame) => frame,
                Err(closed) => return closed,
            };
            self.mute.wait(&clock).await;
            let (answer, failed) = match self.begin(frame, credits) {
                Ok(Begun::Serving(answer)) => (answer, None),
                Ok(Begun::Authentication(reply)) => self.authenticate(reply).await,
                Err(closed) => return closed,
            };
            // Waits while as many requests are in flight as may be.
            if answers.send(answer).await.is_err() {
                return Closed::ByClient;
            }
            if let Some(reason) = failed {
                // Once the answer is written the connection is closed.
                let closed = futures::future::ready(Err(Closed::AuthenticationFailed(reason)));
                let _told = answers.send(closed.boxed()).await;
                return futures::future::pending().await;
            }
        }
    }

    /// Takes a step towards knowing who the client is; the answer, and why it has failed.
    async fn authenticate(&mut self, reply: Reply) -> (Answer, Option<String>) {
        let (chunks, failed) = self.authentication.reply(&self.connection.api, reply).await;
        let answer = chunks.map(|chunks| (Some(chunks), Permit::internal()));
        (futures::future::ready(answer).boxed(), failed)
    }

    /// The next frame, with the credits for its bytes.
    async fn frame(&mut self) -> Result<(Bytes, Vec<OwnedSemaphorePermit>), Closed> {
        let clock = self.connection.api.shared().clock.clone();
        let limits = self.connection.admission.limits().clone();
        tokio::select! {
            // In this order no timer is set for what is there already.
            biased;
            filled = self.fill(4) => filled?,
            () = clock.sleep(limits.idle_timeout) => return Err(Closed::Idle),
        }
        let first = [
            self.buffer[0],
            self.buffer[1],
            self.buffer[2],
            self.buffer[3],
        ];
        let length = i32::from_be_bytes(first);
        let most = self
            .authentication
            .request_max_bytes(limits.request_max_bytes);
        let size = match u32::try_from(length) {
            Ok(size) if size > 0 && size <= most => size as usize,
            _ => return Err(foreign(first).map_or(Closed::Length(length), Closed::Foreign)),
        };
        let mut credits = Vec::new();
        let deadline = clock.sleep(limits.frame_timeout);
        let body = async {
            let mut granted = UNCREDITED_BYTES;
            loop {
                self.fill(4 + size.min(granted)).await?;
                if granted >= size {
                    return Ok::<(), Closed>(());
                }
                let admission = self.connection.admission.clone();
                credits.extend(admission.bytes(CREDIT_BYTES as u32).await);
                granted += CREDIT_BYTES;
            }
        };
        tokio::select! {
            biased;
            filled = body => filled?,
            () = deadline => return Err(Closed::SlowRequest),
        }
        self.usual_bytes = size.clamp(READ_BYTES, UNCREDITED_BYTES);
        let mut frame = self.buffer.split_to(4 + size).freeze();
        Ok((frame.split_off(4), credits))
    }

    /// Reads until the buffer holds `size` bytes.
    async fn fill(&mut self, size: usize) -> Result<(), Closed> {
        while self.buffer.len() < size {
            // Memory grows with what arrives, not with what was announced.
            let missing = size - self.buffer.len();
            let arrived = self.buffer.len().max(self.usual_bytes);
            self.buffer
                .reserve(missing.max(READ_BYTES).min(arrived).max(self.usual_bytes));
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return Err(Closed::ByClient);
            }
        }
        Ok(())
    }

    /// Decodes a request and begins to serve it.
    fn begin(
        &mut self,
        request: Bytes,
        credits: Vec<OwnedSemaphorePermit>,
    ) -> Result<Begun, Closed> {
        let received = request.len();
        if self.authentication.takes_raw_tokens() {
            return Ok(Begun::Authentication(Reply::raw(request)));
        }
        let mut decoder = Decoder::new(request);
        let header = RequestHeader::decode(&mut decoder)?;
        let (api_key, version) = (header.api_key, header.api_version);
        let Some(key) = ApiKey::from_number(api_key) else {
            return Err(Closed::Unsupported { api_key, version });
        };
        if !key.serves(version) {
            // Clients that are newer than this broker ask again with a version that the answer names (KIP-511).
            let is_probe = key == ApiKey::ApiVersions && version >= 0;
            return match is_probe {
                true => {
                    let correlation_id = header.correlation_id;
                    let at = At {
                        key,
                        version: 0,
                        correlation_id,
                    };
                    let levels = self.connection.api.feature_levels();
                    let answer = convert::api_versions(ErrorCode::UnsupportedVersion, levels);
                    Ok(Begun::Serving(at.ready(&answer)))
                }
                false => Err(Closed::Unsupported { api_key, version }),
            };
        }
        if !self.authentication.admits(key) {
            return Err(Closed::Unauthenticated(api_key));
        }
        let caller = Caller {
            principal: self.authentication.principal(),
            client_id: header.client_id.clone().unwrap_or_default(),
            host: self.connection.host.clone(),
            door: self.connection.door,
            permit: Permit::new(credits),
            became: Became::default(),
        };
        let began = self.connection.api.shared().clock.now().monotonic;
        let converted = convert::request(key, version, decoder.into_rest(), &self.sessions)?;
        let correlation_id = header.correlation_id;
        let at = At {
            key,
            version,
            correlation_id,
        };
        Ok(match converted {
            Converted::Request(request, answering) => {
                let size = (received, began);
                Begun::Serving(self.serve(at, caller, request, answering, size))
            }
            Converted::Handshake { mechanism } => {
                Begun::Authentication(Reply::handshake(version, correlation_id, mechanism))
            }
            Converted::Token { token } => {
                Begun::Authentication(Reply::token(version, correlation_id, token))
            }
            Converted::Answer(answer) => Begun::Serving(at.ready(&answer)),
            Converted::ApiVersions { software } => {
                self.software = software;
                debug!(self.connection.logger, "client"; "peer" => %self.connection.peer,
                    "software" => logged(&self.software), "client_id" => logged(&caller.client_id));
                let levels = self.connection.api.feature_levels();
                Begun::Serving(at.ready(&convert::api_versions(ErrorCode::None, levels)))
            }
        })
    }

    /// Hands a request of so many bytes, begun at that time, to its actors; the answer waits for them.
    fn serve(
        &self,
        at: At,
        caller: Caller,
        request: Request,
        answering: Answering,
        (received, began): (usize, Monotonic),
    ) -> Answer {
        let clock = self.connection.api.shared().clock.clone();
        let labels = RequestLabels {
            door: "kafka",
            request: request.name(),
        };
        let metrics = self.connection.admission.metrics().clone();
        let _total = metrics
            .received_bytes
            .get_or_create(&labels)
            .inc_by(received as u64);
        let permit = caller.permit.clone();
        let used = Used::new(
            &caller,
            at.key == ApiKey::Produce,
            at.key == ApiKey::Fetch,
            received,
        );
        let (throttle, mute) = (self.connection.throttle.clone(), self.mute.clone());
        let asker = Asker {
            api: self.connection.api.clone(),
            door: caller.door,
            principal: caller.principal.clone(),
            host: caller.host.clone(),
        };
        let serving = asker.api.start(caller, request);
        let begin_took = clock.now().monotonic.since(began);
        async move {
            let response = serving.await;
            let encoding = clock.now().monotonic;
            // A client that will not be answered is told by closing: there is no other way.
            let mut message = convert::response(at.version, answering, response, &asker)
                .map_err(Closed::RefusedSilently)?;
            let mut chunks = message.as_ref().map(|m| at.frame(m)).transpose()?;
            let sent: usize = chunks.iter().flatten().map(Bytes::len).sum();
            let busy = begin_took + clock.now().monotonic.since(encoding);
            let wait = throttle.after(&used, sent, busy);
            if !wait.is_zero() {
                mute.until(clock.now().monotonic.after(wait));
                if let Some(message) = &mut message {
                    message.set_throttle_time(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX));
                    chunks = Some(at.frame(message)?);
                }
            }
            let _total = metrics
                .sent_bytes
                .get_or_create(&labels)
                .inc_by(sent as u64);
            let took = clock.now().monotonic.since(began);
            metrics
                .requests
                .get_or_create(&labels)
                .observe(took.as_secs_f64());
            Ok((chunks, permit))
        }
        .boxed()
    }
}

/// Who asked, and of whom.
struct Asker {
    api: Api,
    door: Door,
    principal: Principal,
    host: Text,
}

impl Known for Asker {
    fn leader(&self, topic: &TopicRef, partition: i32) -> Option<LeaderHint> {
        self.api.leader_hint(self.door, topic, partition)
    }

    fn rack(&self, broker: BrokerId) -> Option<Text> {
        self.api.rack(broker)
    }

    fn rights(&self, resource: Resource<'_>) -> i32 {
        self.api.rights(&self.principal, &self.host, resource)
    }
}

/// The request that an answer is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) key: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
}

impl At {
    /// An answer that waits for nothing.
    fn ready(self, answer: &convert::Message) -> Answer {
        let chunks = self.frame(answer);
        futures::future::ready(chunks.map(|c| (Some(c), Permit::internal()))).boxed()
    }

    /// The frame of an answer, in chunks.
    pub(super) fn frame(self, answer: &convert::Message) -> Result<Vec<Bytes>, Closed> {
        let Self {
            key,
            version,
            correlation_id,
        } = self;
        let mut encoder = Encoder::new();
        let too_long = |_| Closed::Invalid("the answer does not fit its format");
        encode_response(&mut encoder, key, version, correlation_id).map_err(too_long)?;
        answer.encode(&mut encoder, version).map_err(too_long)?;
        let length = i32::try_from(encoder.length())
            .map_err(|_| Closed::Invalid("the answer is too large"))?;
        let mut chunks = encoder.into_chunks();
        // The first chunk is the header's and small: putting the length in front of it saves a slice.
        let mut first = BytesMut::with_capacity(4 + chunks.first().map_or(0, Bytes::len));
        first.extend_from_slice(&length.to_be_bytes());
        if let Some(chunk) = chunks.first_mut() {
            first.extend_from_slice(chunk);
            *chunk = first.freeze();
        }
        Ok(chunks)
    }
}
