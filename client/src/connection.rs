//! Requests and answers over one QUIC connection, in lanes that do not wait for each other.
//!
//! A lane is a stream: its requests are answered in order. A lane that breaks fails what waits on it; the next
//! request opens it, and if need be the connection, anew.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use callboard_common::ErrorCode;
use callboard_common::TopicPartition;
use callboard_common::protocol::security::{Authenticate, Authenticated};
use callboard_common::protocol::{Ask, Request, Response};
use callboard_common::transport::endpoint;
use callboard_common::transport::network::Network;
use callboard_common::transport::stream::{FrameReader, write};
use callboard_common::transport::tls::{ClientCertificate, Trust};
use callboard_common::wire::codec::{self, BODY_LIMIT_BYTES};
use callboard_common::wire::frame::{Frame, Header};
use quinn::{Connection as Quic, RecvStream, SendStream};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::config::{ClientConfig, Credentials};
use crate::error::{Error, check};
use crate::spawn::spawn;

/// Larger answers are not accepted.
const ANSWER_LIMIT_BYTES: u32 = 256 << 20;

/// Requests of one kind and place share a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Metadata, administration.
    Control,
    /// Whether it still answers, while something else waits.
    Alive,
    /// A group's heartbeats and commits.
    Group,
    /// A group's joins and syncs, which wait for others.
    Membership,
    /// Records to a partition.
    Produce(TopicPartition),
    /// Records from a partition.
    Fetch(TopicPartition),
}

type Waiting = oneshot::Sender<Result<Response, Error>>;

struct Asked {
    request: Request,
    answer: Waiting,
}

#[derive(Default)]
struct State {
    quic: Option<Quic>,
    endpoint: Option<quinn::Endpoint>,
    lanes: BTreeMap<Lane, mpsc::UnboundedSender<Asked>>,
}

impl State {
    /// Closes the connection, if there is one; what waits fails.
    fn disconnect(&mut self, reason: &[u8]) {
        self.lanes.clear();
        if let Some(quic) = self.quic.take() {
            quic.close(quinn::VarInt::from_u32(0), reason);
        }
    }
}

struct Inner {
    server: String,
    trust: Trust,
    certificate: Option<ClientCertificate>,
    network: Network,
    credentials: Option<Credentials>,
    connect_timeout: Duration,
    request_timeout: Duration,
    state: Mutex<State>,
}

/// A connection to one node; clones share it. It is opened when it is needed.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Inner>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.0.server)
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(server: String, config: &ClientConfig) -> Self {
        Self(Arc::new(Inner {
            server,
            trust: config.trust.clone(),
            certificate: config.certificate.clone(),
            network: config.network.clone(),
            credentials: config.credentials.clone(),
            connect_timeout: config.connect_timeout,
            request_timeout: config.request_timeout,
            state: Mutex::default(),
        }))
    }

    /// Asks on a lane and waits `extra` longer than the usual time.
    pub(crate) async fn ask<A: Ask>(
        &self,
        lane: Lane,
        request: A,
        extra: Duration,
    ) -> Result<A::Answer, Error> {
        let answer = self.start(lane, request.into()).await?;
        self.wait(answer, extra).await
    }

    /// Waits for the answer of a request that was started.
    pub(crate) async fn wait<T: TryFrom<Response, Error = ErrorCode>>(
        &self,
        answer: oneshot::Receiver<Result<Response, Error>>,
        extra: Duration,
    ) -> Result<T, Error> {
        let answer = tokio::time::timeout(self.0.request_timeout + extra, answer).await;
        let response = answer
            .map_err(|_| Error::Timeout)?
            .map_err(|_| self.broken("the lane broke"))??;
        T::try_from(response).map_err(Error::refused)
    }

    /// Hands a request to its lane; requests of one lane go out in the order of these calls.
    pub(crate) async fn start(
        &self,
        lane: Lane,
        request: Request,
    ) -> Result<oneshot::Receiver<Result<Response, Error>>, Error> {
        let (answer, answered) = oneshot::channel();
        let mut asked = Asked { request, answer };
        let mut state = self.0.state.lock().await;
        if let Some(open) = state.lanes.get(&lane) {
            match open.send(asked) {
                Ok(()) => return Ok(answered),
                Err(mpsc::error::SendError(back)) => asked = back,
            }
        }
        let quic = self.quic(&mut state).await?;
        let opened = tokio::time::timeout(self.0.connect_timeout, quic.open_bi()).await;
        let opened = opened.map_err(|_| Error::Timeout)?;
        let (send, receive) = opened.map_err(|e| {
            state.quic = None;
            self.broken(e)
        })?;
        let (requests, incoming) = mpsc::unbounded_channel();
        let server = self.0.server.clone();
        drop(spawn(run_lane(server, send, receive, incoming)));
        if requests.send(asked).is_err() {
            return Err(self.broken("the lane broke"));
        }
        drop(state.lanes.insert(lane, requests));
        Ok(answered)
    }

    /// Where the node is.
    pub(crate) fn server(&self) -> &str {
        &self.0.server
    }

    /// Closes the connection to a node that does not answer, without telling it; what waits fails.
    pub(crate) async fn abandon(&self) {
        self.0.state.lock().await.disconnect(b"abandoned");
    }

    fn broken(&self, reason: impl ToString) -> Error {
        Error::Connection {
            server: self.0.server.clone(),
            reason: reason.to_string(),
        }
    }

    /// The open connection, or a new one.
    async fn quic(&self, state: &mut State) -> Result<Quic, Error> {
        if let Some(quic) = state.quic.as_ref().filter(|q| q.close_reason().is_none()) {
            return Ok(quic.clone());
        }
        // Lanes of the old connection are of no use any more.
        state.lanes.clear();
        let address = self.resolve()?;
        let endpoint = match state.endpoint.take() {
            Some(endpoint) => endpoint,
            None => {
                let shown = self.0.certificate.as_ref();
                endpoint::client(&self.0.network, &self.0.trust, shown, address)
                    .map_err(|e| Error::Config(e.to_string()))?
            }
        };
        let host = self
            .0
            .server
            .rsplit_once(':')
            .map_or("localhost", |(host, _)| host.trim_matches(['[', ']']));
        let connecting = endpoint
            .connect(address, host)
            .map_err(|e| self.broken(e))?;
        let connected = tokio::time::timeout(self.0.connect_timeout, connecting).await;
        state.endpoint = Some(endpoint);
        let quic = connected
            .map_err(|_| self.broken("it does not answer"))?
            .map_err(|e| self.broken(e))?;
        if let Some(credentials) = &self.0.credentials {
            self.authenticate(&quic, credentials).await?;
        }
        state.quic = Some(quic.clone());
        Ok(quic)
    }

    /// Proves who uses a new connection, before anything else.
    async fn authenticate(&self, quic: &Quic, credentials: &Credentials) -> Result<(), Error> {
        let request = Authenticate {
            user: credentials.user.as_str().into(),
            password: credentials.password.as_str().into(),
        };
        let prove = async {
            let (mut send, receive) = quic.open_bi().await.map_err(|e| self.broken(e))?;
            let frame = codec::request_frame(1, request.into())
                .map_err(|e| Error::Config(e.to_string()))?;
            write(&mut send, frame).await.map_err(|e| self.broken(e))?;
            let (_, response) = read(&mut FrameReader::new(receive))
                .await
                .map_err(|e| self.broken(e))?;
            Authenticated::try_from(response).map_err(Error::refused)
        };
        let answer = tokio::time::timeout(self.0.request_timeout, prove).await;
        let error = answer.map_err(|_| Error::Timeout)??.error;
        let user = || credentials.user.clone();
        check(error).map_err(|_| Error::Authentication { user: user() })
    }

    fn resolve(&self) -> Result<SocketAddr, Error> {
        let addresses = self.0.server.to_socket_addrs();
        let mut addresses = addresses
            .map_err(|e| Error::Config(format!("{:?} is no host:port: {e}", self.0.server)))?;
        addresses
            .next()
            .ok_or_else(|| Error::Config(format!("{:?} has no address", self.0.server)))
    }

    /// Closes the connection; what waits fails.
    pub(crate) async fn close(&self) {
        let mut state = self.0.state.lock().await;
        state.disconnect(b"done");
        if let Some(endpoint) = state.endpoint.take() {
            // The server learns of it at once instead of by silence.
            drop(tokio::time::timeout(Duration::from_millis(200), endpoint.wait_idle()).await);
        }
    }
}

/// Runs a lane until it breaks or nobody asks any more.
async fn run_lane(
    server: String,
    mut send: SendStream,
    receive: RecvStream,
    mut requests: mpsc::UnboundedReceiver<Asked>,
) {
    let waiting: std::sync::Mutex<VecDeque<Waiting>> = std::sync::Mutex::default();
    let queue = || {
        waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    let writing = async {
        let mut id = 0;
        while let Some(asked) = requests.recv().await {
            id += 1;
            let frame: Frame = match codec::request_frame(id, asked.request) {
                Ok(frame) => frame,
                Err(error) => {
                    drop(asked.answer.send(Err(Error::Config(error.to_string()))));
                    continue;
                }
            };
            queue().push_back(asked.answer);
            if let Err(error) = write(&mut send, frame).await {
                return error.to_string();
            }
        }
        // What was asked is still answered.
        let _finished = send.finish();
        std::future::pending().await
    };
    let reading = async {
        let mut reader = FrameReader::new(receive);
        loop {
            match read(&mut reader).await {
                Ok((_, response)) => {
                    let Some(answer) = queue().pop_front() else {
                        return "an answer to nothing".to_owned();
                    };
                    // Who asked may have gone away.
                    drop(answer.send(Ok(response)));
                }
                Err(reason) => return reason,
            }
        }
    };
    let reason = tokio::select! {
        reason = writing => reason,
        reason = reading => reason,
    };
    requests.close();
    let broken = Error::Connection { server, reason };
    for answer in queue().drain(..) {
        drop(answer.send(Err(broken.clone())));
    }
    while let Ok(asked) = requests.try_recv() {
        drop(asked.answer.send(Err(broken.clone())));
    }
}

async fn read(reader: &mut FrameReader) -> Result<(Header, Response), String> {
    let frame = reader.frame(ANSWER_LIMIT_BYTES, BODY_LIMIT_BYTES).await;
    let (header, body, records) = frame.map_err(|e| e.to_string())?;
    let response = codec::response(&body, records).map_err(|e| e.to_string())?;
    Ok((header, response))
}
