//! Health and metrics over HTTP, on a thread of its own: it answers even when a worker is stuck.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
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

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    check: Check,
    refresh: Refresh,
}

async fn health(State(shared): State<Shared>) -> impl IntoResponse {
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

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    (shared.refresh)().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.text())
}

/// Serves until `stop` turns true.
///
/// # Errors
///
/// What the operating system says when it starts no more threads.
pub fn serve(
    listener: TcpListener,
    metrics_of: Metrics,
    check: Check,
    refresh: Refresh,
    mut stop: watch::Receiver<bool>,
    logger: Logger,
) -> std::io::Result<JoinHandle<()>> {
    let shared = Shared {
        metrics: metrics_of,
        check,
        refresh,
    };
    let router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(0))
        .with_state(shared);
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
