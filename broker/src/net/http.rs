//! Health and metrics over HTTP, on a thread of its own: it answers even when a worker is stuck.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use callboard_common::kafka::Text;
use serde::Serialize;
use slog::{Logger, warn};
use tokio::sync::watch;

use crate::metrics::Metrics;

/// Brings gauges up to date before they are shown.
pub type Refresh = Arc<dyn Fn() -> futures::future::BoxFuture<'static, ()> + Send + Sync>;

/// How the node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether the process serves at all.
    pub live: bool,
    /// Whether everything that should be led is led.
    pub ready: bool,
    /// What is in the way of that.
    pub reasons: Vec<String>,
}

/// Answers how the node is.
pub type Check = Arc<dyn Fn() -> Health + Send + Sync>;

/// Who asks for metrics.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// The user it claims to be.
    pub user: Text,
    /// The password.
    pub password: Vec<u8>,
    /// Where it is.
    pub address: IpAddr,
}

/// Answers whether somebody may see the metrics; nobody in particular is `None`.
pub type Admit =
    Arc<dyn Fn(Option<Visitor>) -> futures::future::BoxFuture<'static, bool> + Send + Sync>;

/// What the door shows.
#[derive(Clone)]
pub struct Door {
    /// The counters.
    pub metrics: Metrics,
    /// How the node is.
    pub check: Check,
    /// Brings gauges up to date.
    pub refresh: Refresh,
    /// Who may see the metrics.
    pub admit: Admit,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

/// User and password of basic authentication (RFC 7617).
fn visitor(headers: &HeaderMap, address: IpAddr) -> Option<Visitor> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded = STANDARD
        .decode(encoded.trim())
        .ok()
        .filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    let user = std::str::from_utf8(&decoded[..colon]).ok()?;
    Some(Visitor {
        user: user.into(),
        password: decoded[colon + 1..].to_vec(),
        address,
    })
}

async fn health(State(shared): State<Door>) -> impl IntoResponse {
    let health = (shared.check)();
    let status = if health.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = serde_json::to_string(&health).unwrap_or_default();
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        body + "\n",
    )
}

async fn metrics(
    State(shared): State<Door>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if !(shared.admit)(visitor(&headers, peer.ip())).await {
        let wanted = [(header::WWW_AUTHENTICATE, "Basic realm=\"callboard\"")];
        return (
            StatusCode::UNAUTHORIZED,
            wanted,
            "user and password, please\n",
        )
            .into_response();
    }
    (shared.refresh)().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.text()).into_response()
}

/// Serves until `stop` turns true.
///
/// # Errors
///
/// What the operating system says when it starts no more threads.
pub fn serve(
    listener: TcpListener,
    door: Door,
    mut stop: watch::Receiver<bool>,
    logger: Logger,
) -> std::io::Result<JoinHandle<()>> {
    let router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(0))
        .with_state(door)
        .into_make_service_with_connect_info::<SocketAddr>();
    thread::Builder::new()
        .name("callboard-http".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let served = runtime.and_then(|runtime| {
                runtime.block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
                    tokio::select! {
                        served = async { axum::serve(listener, router).await } => served,
                        () = stopped => Ok(()),
                    }
                })
            });
            if let Err(error) = served {
                warn!(logger, "the HTTP door has closed"; "error" => %error);
            }
        })
}
