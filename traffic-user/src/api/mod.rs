//! Metrics and a small read-only JSON API over HTTP, for monitoring.
//!
//! Every request reads the pinned maps itself, on its own thread. It takes no lock, so neither the daemon's
//! loop nor a change in the kernel waits for it. Here are the routes and the answers. `metrics` formats the
//! metrics, `query` parses filters, `host_check` refuses foreign host names, `listen` binds the socket,
//! `server` serves it, `places` and `patience` bound the connections, `drain_health` carries the state of
//! draining from the daemon. `[api] listen` is parsed in `config`.

pub mod drain_health;
mod host_check;
mod listen;
mod lives;
pub mod metrics;
mod patience;
mod places;
mod query;
mod server;

use std::{fmt, path::Path, sync::Arc};

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::{sync::Semaphore, task};
use traffic_model::{ContainerId, Snapshot};

use crate::{
    api::{
        drain_health::{DrainHealth, Drains},
        lives::Lives,
    },
    health::{Component, Components},
    node::status::Unaccounted,
    ownership::UnknownContainer,
    render::{ClassNames, dump, json},
};

pub use self::{
    listen::{Bound, SocketFile, bind_to},
    server::{Server, serve},
};

/// Most readings at a time: each takes a thread and holds all counters in memory.
const READINGS: usize = 2;

const JSON: &str = "application/json";

type Read = dyn Fn() -> anyhow::Result<Snapshot> + Send + Sync;
type ReadNames = dyn Fn() -> ClassNames + Send + Sync;
type Resolve = dyn Fn(&[ContainerId], &Snapshot) -> anyhow::Result<Vec<ContainerId>> + Send + Sync;

/// The data that requests are answered from.
#[derive(Clone)]
pub struct Source {
    read: Arc<Read>,
    resolve: Arc<Resolve>,
    drains: Option<Arc<DrainHealth>>,
    components: Arc<Components>,
    class_names: Arc<ReadNames>,
    readings: Arc<Semaphore>,
    lives: Arc<Lives>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("drains", &self.drains).finish_non_exhaustive()
    }
}

impl Source {
    /// `read` reads all counters; `drains` is `None` if no ledger is kept. Containers are found by the id
    /// that they are counted under; [`Source::resolving`] adds their other ids.
    pub fn new(
        read: impl Fn() -> anyhow::Result<Snapshot> + Send + Sync + 'static,
        drains: Option<Arc<DrainHealth>>,
    ) -> Self {
        let resolve = |typed: &[ContainerId], snapshot: &Snapshot| {
            let counted = snapshot.containers();
            match typed.iter().find(|id| !counted.contains(id)) {
                Some(id) => Err(UnknownContainer::without_counters(id).into()),
                None => Ok(typed.to_vec()),
            }
        };
        Self {
            read: Arc::new(read),
            resolve: Arc::new(resolve),
            drains,
            components: Arc::default(),
            class_names: Arc::new(ClassNames::new),
            readings: Arc::new(Semaphore::new(READINGS)),
            lives: Arc::default(),
        }
    }

    /// `resolve` gives all ids that the containers asked for are known by, or fails with
    /// [`UnknownContainer`].
    #[must_use]
    pub fn resolving(
        mut self,
        resolve: impl Fn(&[ContainerId], &Snapshot) -> anyhow::Result<Vec<ContainerId>> + Send + Sync + 'static,
    ) -> Self {
        self.resolve = Arc::new(resolve);
        self
    }

    /// Keeps the beginning of counters in a state directory, over restarts.
    #[must_use]
    pub fn keeping_lives_in(mut self, state_dir: &Path) -> Self {
        self.lives = Arc::new(Lives::kept_in(state_dir));
        self
    }

    /// Adds the state of the daemon's optional parts.
    #[must_use]
    pub fn with_components(mut self, components: Arc<Components>) -> Self {
        self.components = components;
        self
    }

    /// Adds the names of classes.
    #[must_use]
    pub fn naming(mut self, names: impl Fn() -> ClassNames + Send + Sync + 'static) -> Self {
        self.class_names = Arc::new(names);
        self
    }

    /// Reads the counters and formats an answer, both on a thread of their own.
    async fn answer(
        self,
        content_type: &'static str,
        render: impl FnOnce(&Snapshot, &DaemonHealth) -> anyhow::Result<String> + Send + 'static,
    ) -> Response {
        let place = self.readings.acquire_owned().await.ok();
        let (drains, components) = (self.drains.map(|health| health.read()), self.components.read());
        let uncounted = self.components.uncounted();
        let work = task::spawn_blocking(move || {
            // Held until the work is done, even if the client has gone.
            let _place = place;
            let health = DaemonHealth { drains, components, uncounted, class_names: (self.class_names)() };
            render(&(self.read)()?, &health)
        });
        match work.await.map_err(anyhow::Error::from).and_then(|result| result) {
            Ok(text) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
            Err(error) => {
                tracing::debug!("answering a request: {error:#}");
                let status = match error.is::<UnknownContainer>() {
                    true => StatusCode::NOT_FOUND,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                error_answer(status, &format!("{error:#}"))
            }
        }
    }
}

/// An error as a document.
fn error_answer(status: StatusCode, error: &str) -> Response {
    #[derive(Serialize)]
    struct Failure<'a> {
        error: &'a str,
    }
    match json::line(&Failure { error }) {
        Ok(text) => (status, [(header::CONTENT_TYPE, JSON)], text).into_response(),
        Err(_) => status.into_response(),
    }
}

/// The routes. Nothing can be changed through them.
pub fn router(source: Source) -> Router {
    Router::new()
        .route("/metrics", get(get_metrics))
        .route("/api/v1/counters", get(get_counters))
        .route("/api/v1/status", get(get_status))
        .fallback(|| async { (StatusCode::NOT_FOUND, INDEX) })
        .with_state(source)
}

/// What a person sees who tries the address, or mistypes a path.
const INDEX: &str = "trafctl counts the traffic of containers. This API is read-only:\n\n\
    /metrics            for Prometheus\n\
    /api/v1/counters    the live counters; ?container=101&class=2&family=ipv4 filters them\n\
    /api/v1/status      drains, gaps and the daemon's parts\n";

async fn get_metrics(State(source): State<Source>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = metrics::Format::for_accept(accept);
    let lives = Arc::clone(&source.lives);
    source
        .answer(format.content_type(), move |snapshot, health| {
            Ok(metrics::render_lives(snapshot, health, &lives.follow(snapshot), format))
        })
        .await
}

type Pairs = Result<Query<query::Pairs>, QueryRejection>;

/// Applies `parse` to the query; an error becomes the answer.
fn parsed<T>(
    pairs: Pairs,
    parse: impl FnOnce(&query::Pairs) -> Result<T, String>,
) -> Result<T, Box<Response>> {
    pairs
        .map_err(|error| error.to_string())
        .and_then(|Query(pairs)| parse(&pairs))
        .map_err(|error| Box::new(error_answer(StatusCode::BAD_REQUEST, &error)))
}

/// The document of `trafctl dump --format json`, with the same filter.
async fn get_counters(State(source): State<Source>, pairs: Pairs) -> Response {
    let mut wanted = match parsed(pairs, query::parse) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    let resolve = Arc::clone(&source.resolve);
    source
        .answer(JSON, move |snapshot, health| {
            wanted.containers = resolve(&wanted.containers, snapshot)?;
            let shown = dump::Filter { wanted, zeros: false }.apply(snapshot.clone());
            dump::json(&shown, &health.class_names)
        })
        .await
}

async fn get_status(State(source): State<Source>, pairs: Pairs) -> Response {
    if let Err(refusal) = parsed(pairs, query::none) {
        return *refusal;
    }
    source.answer(JSON, |snapshot, health| json::document(&Health::new(snapshot, health))).await
}

/// What the daemon knows of itself, besides the counters.
#[derive(Debug, Default)]
pub struct DaemonHealth {
    /// The results of its drains; `None` if no ledger is kept: then no drain can be late.
    pub drains: Option<Drains>,
    /// Its optional parts.
    pub components: Vec<Component>,
    /// Interfaces that look like a container's and are not counted.
    pub uncounted: u64,
    /// Names of classes.
    pub class_names: ClassNames,
}

/// The daemon's health.
#[derive(Debug, Serialize)]
struct Health<'a> {
    node: &'a str,
    time: String,
    trafctl_version: &'static str,
    class_table_hash: String,
    /// Passed - classes - faults.
    unaccounted: Unaccounted,
    /// `null` if no ledger is kept.
    ledger: Option<LedgerHealth>,
    /// The optional parts of the daemon.
    components: &'a [Component],
}

/// Draining since the daemon started.
#[derive(Debug, Serialize)]
struct LedgerHealth {
    last_drain: Option<String>,
    drain_failures: u64,
    gaps: u64,
}

impl<'a> Health<'a> {
    fn new(snapshot: &'a Snapshot, health: &'a DaemonHealth) -> Self {
        Self {
            node: &snapshot.node,
            time: snapshot.time.to_string(),
            trafctl_version: env!("CARGO_PKG_VERSION"),
            class_table_hash: snapshot.class_table.hash_hex(),
            unaccounted: Unaccounted::from(&snapshot.balance()),
            ledger: health.drains.as_ref().map(|drains| LedgerHealth {
                last_drain: drains.last_success.map(|time| time.to_string()),
                drain_failures: drains.failures,
                gaps: drains.gaps,
            }),
            components: &health.components,
        }
    }
}

#[cfg(test)]
mod tests;
