//! Live export for monitoring: metrics and a small JSON API, over HTTP, for reading only.
//!
//! Every request reads the pinned maps for itself, on a thread of its own: it takes no lock, and neither the daemon's
//! loop nor a change waits for it.

pub mod drain_health;
mod limit;
mod listen;
pub mod metrics;

use std::{fmt, future::Future, io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, oneshot},
    task::{self, JoinHandle},
    time,
};
use traffic_model::Snapshot;

use crate::{
    api::drain_health::{DrainHealth, Drains},
    node::status::Unaccounted,
    render::dump,
};

pub use self::listen::{Bound, SocketFile, bind_to};

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// Readings at a time: each has a thread and all counters in memory.
const READINGS: usize = 2;
/// How long requests under way may take when the daemon ends.
const END_PATIENCE: Duration = Duration::from_secs(1);

const JSON: &str = "application/json";

/// What requests are answered from.
#[derive(Clone)]
pub struct Source {
    read: Arc<dyn Fn() -> anyhow::Result<Snapshot> + Send + Sync>,
    drains: Option<Arc<DrainHealth>>,
    readings: Arc<Semaphore>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("drains", &self.drains).finish_non_exhaustive()
    }
}

impl Source {
    /// `read` gives all counters as they are now; `drains` is `None` where no ledger is kept.
    pub fn new(
        read: impl Fn() -> anyhow::Result<Snapshot> + Send + Sync + 'static,
        drains: Option<Arc<DrainHealth>>,
    ) -> Self {
        Self { read: Arc::new(read), drains, readings: Arc::new(Semaphore::new(READINGS)) }
    }

    /// Reads the counters and makes an answer of them, both where it holds up nobody else.
    async fn answer(
        self,
        content_type: &'static str,
        render: impl FnOnce(&Snapshot, Option<&Drains>) -> anyhow::Result<String> + Send + 'static,
    ) -> Response {
        let place = self.readings.acquire_owned().await.ok();
        let drains = self.drains.map(|health| health.read());
        let work = task::spawn_blocking(move || {
            // Held to the end of the work, even if the one who asked has gone.
            let _place = place;
            render(&(self.read)()?, drains.as_ref())
        });
        match work.await.map_err(anyhow::Error::from).and_then(|result| result) {
            Ok(text) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
            Err(error) => {
                tracing::debug!("answering a request: {error:#}");
                let text = serde_json::json!({ "error": format!("{error:#}") }).to_string() + "\n";
                (StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, JSON)], text).into_response()
            }
        }
    }
}

/// What can be asked for. Nothing can be changed.
pub fn router(source: Source) -> Router {
    Router::new()
        .route("/metrics", get(get_metrics))
        .route("/api/v1/counters", get(get_counters))
        .route("/api/v1/status", get(get_status))
        .with_state(source)
}

async fn get_metrics(State(source): State<Source>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = metrics::Format::for_accept(accept);
    source
        .answer(format.content_type(), move |snapshot, drains| Ok(metrics::render(snapshot, drains, format)))
        .await
}

/// The document of `trafctl dump --format json`.
async fn get_counters(State(source): State<Source>) -> Response {
    source.answer(JSON, |snapshot, _| dump::json(&dump::Filter::default().apply(snapshot.clone()))).await
}

async fn get_status(State(source): State<Source>) -> Response {
    source
        .answer(JSON, |snapshot, drains| {
            Ok(serde_json::to_string_pretty(&Health::new(snapshot, drains))? + "\n")
        })
        .await
}

/// The daemon's health; its names never change within a version.
#[derive(Debug, Serialize)]
struct Health<'a> {
    version: u32,
    node: &'a str,
    time: String,
    trafctl_version: &'static str,
    class_table_hash: String,
    /// Passed less classes less faults.
    unaccounted: Unaccounted,
    /// `null` where no ledger is kept.
    ledger: Option<LedgerHealth>,
}

/// Since the daemon started.
#[derive(Debug, Serialize)]
struct LedgerHealth {
    last_drain: Option<String>,
    drain_failures: u64,
    gaps: u64,
}

impl<'a> Health<'a> {
    fn new(snapshot: &'a Snapshot, drains: Option<&Drains>) -> Self {
        Self {
            version: 1,
            node: &snapshot.node,
            time: snapshot.time.to_string(),
            trafctl_version: env!("CARGO_PKG_VERSION"),
            class_table_hash: snapshot.class_table.hash_hex(),
            unaccounted: Unaccounted::from(&snapshot.balance()),
            ledger: drains.map(|drains| LedgerHealth {
                last_drain: drains.last_success.map(|time| time.to_string()),
                drain_failures: drains.failures,
                gaps: drains.gaps,
            }),
        }
    }
}

/// Answers requests until `shutdown`, then those under way.
///
/// # Errors
/// None in practice: a connection that fails is its own business.
pub async fn serve<L>(
    listener: L,
    source: Source,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    L: Listener,
    L::Addr: fmt::Debug,
{
    let listener = limit::Limited::new(listener, CONNECTIONS);
    axum::serve(listener, router(source)).with_graceful_shutdown(shutdown).await
}

/// The server as a task beside the daemon's loop.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<io::Result<()>>,
    shutdown: oneshot::Sender<()>,
    _file: Option<SocketFile>,
}

impl Server {
    /// Starts to answer.
    ///
    /// # Errors
    /// When the event loop can't take the socket.
    pub fn start(bound: Bound, source: Source) -> io::Result<Self> {
        let (shutdown, told) = oneshot::channel();
        // To drop the sender is to tell it, too.
        let told = async move { drop(told.await) };
        let (task, file) = match bound {
            Bound::Tcp(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                (tokio::spawn(serve(listener, source, told)), None)
            }
            Bound::Unix(listener, file) => {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                (tokio::spawn(serve(listener, source, told)), Some(file))
            }
        };
        Ok(Self { task, shutdown, _file: file })
    }

    /// Ends it: requests under way are answered, but one that never ends is not waited for.
    pub async fn stop(mut self) {
        drop(self.shutdown);
        if time::timeout(END_PATIENCE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

#[cfg(test)]
mod tests;
