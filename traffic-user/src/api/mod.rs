//! Metrics, JSON documents and the web page over HTTP. Nothing can be changed through it.
//!
//! Every request for live figures reads the pinned maps itself, and every one for figures of the ledger opens
//! the file for reading, on threads of their own. They take no lock, so neither the daemon's loop nor a
//! change in the kernel waits for them.
//!
//! - here: the data that requests are answered from ([`Source`]);
//! - `routes`: paths, parameters and documents; `pages`: the files of the page; `answers`: errors and tags;
//! - `reader`: the bounds on reading the ledger; `rate_hub`, `event_stream`: live rates for all listeners;
//!   `cached`: what is too expensive to find out for each request, such as `quota_rows`;
//! - `metrics`, `lives`, `drain_health`: the metrics;
//! - `token`, `host_check`, `headers`: who may ask, and what a browser may do with an answer;
//! - `listen` binds the socket, `server` serves it, `places` and `patience` bound the connections.
//!
//! `[api]` is parsed in `config`. Queries to the ledger are in [`crate::queries`].

mod answers;
mod cached;
mod class_documents;
pub mod drain_health;
mod event_stream;
mod headers;
mod host_check;
mod listen;
mod lives;
pub mod metrics;
mod pages;
mod patience;
mod places;
mod query;
pub mod quota_rows;
mod rate_hub;
mod reader;
mod routes;
mod server;
mod token;

use std::{fmt, path::Path, sync::Arc, time::Duration};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use tokio::{sync::Semaphore, task, time};
use traffic_model::{ContainerId, Snapshot};

use crate::{
    api::{
        answers::error_answer,
        cached::Cached,
        drain_health::{DrainHealth, Drains},
        lives::Lives,
        rate_hub::RateHub,
    },
    health::{Component, Components},
    kernel::drops::Drops,
    node::status::Status,
    ownership::{AmbiguousName, UnknownContainer},
    queries::QuotaFiles,
    render::{ClassNames, screen::ContainerNames},
};

pub use self::{
    class_documents::{Classes, LedgerClasses, NodeClasses},
    listen::{Bound, SocketFile, bind_to},
    quota_rows::{QuotaFacts, QuotaRow},
    reader::{AskedCalendar, Reader, StoreView},
    server::{Server, serve},
    token::{Access, Unusable},
};

/// Most readings at a time: each takes a thread and holds all counters in memory.
const READINGS: usize = 2;
/// When the state of the node is found out again for metrics, and how long they show an old one.
const STATE_OF_METRICS: [Duration; 2] = [Duration::from_mins(1), Duration::from_mins(10)];

/// When quotas are read again for metrics, and how long they show old ones. Reading them takes two reports.
const QUOTAS_OF_METRICS: [Duration; 2] = [Duration::from_mins(5), Duration::from_mins(30)];

/// How often what is new of the last day is read. Each time takes as long as the rows of as many minutes.
const NEW_OF_THE_DAY: Duration = Duration::from_mins(10);

type Read = dyn Fn() -> anyhow::Result<Snapshot> + Send + Sync;
/// `None` where drops are not counted.
type ReadDrops = dyn Fn() -> Option<Drops> + Send + Sync;
type ReadNames = dyn Fn() -> ClassNames + Send + Sync;
type Resolve = dyn Fn(&[ContainerId], &Snapshot) -> anyhow::Result<Vec<ContainerId>> + Send + Sync;

/// The data that requests are answered from.
#[derive(Clone)]
pub struct Source {
    read: Arc<Read>,
    is_live: bool,
    resolve: Arc<Resolve>,
    drains: Option<Arc<DrainHealth>>,
    drops: Arc<ReadDrops>,
    components: Arc<Components>,
    class_names: Arc<ReadNames>,
    container_names: Cached<ContainerNames>,
    readings: Arc<Semaphore>,
    lives: Arc<Lives>,
    rates: RateHub,
    reader: Option<Reader>,
    node: Option<Cached<NodeState>>,
    quotas: Option<Cached<QuotaFacts>>,
    quota_files: Option<Arc<QuotaFiles>>,
    classes: Option<Arc<dyn Classes>>,
    class_places: Arc<Semaphore>,
}

/// The state of the node, and the counters at about the same time.
#[derive(Debug)]
pub struct NodeState {
    /// What is attached, and what is wrong.
    pub status: Status,
    /// A reading.
    pub snapshot: Snapshot,
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
        let read: Arc<Read> = Arc::new(read);
        Self {
            rates: RateHub::new(Arc::clone(&read)),
            read,
            is_live: true,
            resolve: Arc::new(resolve),
            drains,
            drops: Arc::new(|| None),
            components: Arc::default(),
            class_names: Arc::new(ClassNames::new),
            container_names: Cached::new(|| Ok(ContainerNames::new())),
            readings: Arc::new(Semaphore::new(READINGS)),
            lives: Arc::default(),
            reader: None,
            node: None,
            quotas: None,
            quota_files: None,
            classes: None,
            class_places: Arc::new(Semaphore::new(1)),
        }
    }

    /// A ledger without a daemon: there are no live figures.
    pub fn of_ledger(reader: Reader) -> Self {
        let class_names = Arc::clone(&reader.class_names);
        Self {
            is_live: false,
            class_names,
            reader: Some(reader),
            ..Self::new(|| anyhow::bail!(NOT_LIVE), None)
        }
    }

    /// The parameters of the calendar that the figures are shown in.
    fn calendar_parameters(&self) -> Vec<(&'static str, String)> {
        self.reader.as_ref().map(Reader::calendar_parameters).unwrap_or_default()
    }

    /// `resolve` gives all ids that the containers asked for are known by, or fails with
    /// [`UnknownContainer`] or [`AmbiguousName`].
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

    /// Adds what was dropped behind the hooks, to the metrics and to the live rates.
    #[must_use]
    pub fn with_drops(mut self, read: impl Fn() -> Option<Drops> + Send + Sync + 'static) -> Self {
        self.drops = Arc::new(read);
        let (counters, drops) = (Arc::clone(&self.read), Arc::clone(&self.drops));
        self.rates = RateHub::new(Arc::new(move || {
            // Before the counters: what was dropped is then in them.
            let drops = drops().map(Drops::into_reading);
            Ok(Snapshot { drops, ..counters()? })
        }));
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
        self.reader = self.reader.map(|reader| reader.naming(Arc::clone(&self.class_names)));
        self
    }

    /// Adds the names of containers beside live figures. Documents of the ledger have those that it recorded.
    #[must_use]
    pub fn naming_containers(
        mut self,
        names: impl Fn() -> anyhow::Result<ContainerNames> + Send + Sync + 'static,
    ) -> Self {
        self.container_names = Cached::new(names);
        self
    }

    /// Adds a ledger, with the names of classes that are known now.
    #[must_use]
    pub fn with_ledger(mut self, reader: Option<Reader>) -> Self {
        self.reader = reader.map(|reader| reader.naming(Arc::clone(&self.class_names)));
        self
    }

    /// Adds the state of the node, which `gather` finds out.
    #[must_use]
    pub fn with_node(
        mut self,
        gather: impl Fn() -> anyhow::Result<NodeState> + Send + Sync + 'static,
    ) -> Self {
        self.node = Some(Cached::new(gather));
        self
    }

    /// Adds what is used of quotas, which `read` finds out for the metrics.
    #[must_use]
    pub fn with_quotas(
        mut self,
        files: Arc<QuotaFiles>,
        read: impl Fn() -> anyhow::Result<QuotaFacts> + Send + Sync + 'static,
    ) -> Self {
        self.quotas = Some(Cached::new(read));
        self.with_quota_files(files)
    }

    /// Adds where quotas are, without metrics of them.
    #[must_use]
    pub fn with_quota_files(mut self, files: Arc<QuotaFiles>) -> Self {
        self.quota_files = Some(files);
        self
    }

    /// Adds the class table.
    #[must_use]
    pub fn with_classes(mut self, classes: impl Classes + 'static) -> Self {
        self.classes = Some(Arc::new(classes));
        self
    }

    /// Why there are no live figures.
    const fn without_live_figures(&self) -> &'static str {
        if self.is_live { "the state of the node is not known here" } else { NOT_LIVE }
    }

    /// The state of the node as it was not long ago, without waiting for it.
    fn known_state(&self) -> Option<Arc<NodeState>> {
        let [most_age, most_known] = STATE_OF_METRICS;
        self.node.as_ref().and_then(|node| node.known(most_age, most_known))
    }

    /// What was used of quotas not long ago, without waiting for it.
    fn known_quotas(&self) -> Option<Arc<QuotaFacts>> {
        let [most_age, most_known] = QUOTAS_OF_METRICS;
        self.quotas.as_ref().and_then(|quotas| quotas.known(most_age, most_known))
    }

    /// Looks at the node and at its last day for the first view, and again and again at what is new of the day, until
    /// the task is aborted.
    async fn keep_warm(self) {
        drop((self.known_state(), task::spawn_blocking(pages::prepare)));
        let Some(reader) = self.reader else { return };
        loop {
            reader.clone().keep_last_day().await;
            time::sleep(NEW_OF_THE_DAY).await;
        }
    }

    /// All ids that containers are known by.
    async fn resolved(&self, typed: Vec<ContainerId>) -> anyhow::Result<Vec<ContainerId>> {
        let place = Arc::clone(&self.readings).acquire_owned().await.ok();
        let (read, resolve) = (Arc::clone(&self.read), Arc::clone(&self.resolve));
        let work = task::spawn_blocking(move || {
            let _place = place;
            resolve(&typed, &read()?)
        });
        work.await?
    }

    /// Reads the counters and formats an answer, both on a thread of their own.
    async fn answer(
        self,
        content_type: &'static str,
        render: impl FnOnce(&Snapshot, &DaemonHealth) -> anyhow::Result<String> + Send + 'static,
    ) -> Response {
        if !self.is_live {
            return error_answer(StatusCode::NOT_FOUND, NOT_LIVE);
        }
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
                error_answer(status_of(&error), &format!("{error:#}"))
            }
        }
    }
}

/// The status of an answer that failed: whose fault it is.
fn status_of(error: &anyhow::Error) -> StatusCode {
    match () {
        () if error.is::<UnknownContainer>() => StatusCode::NOT_FOUND,
        () if error.is::<AmbiguousName>() => StatusCode::BAD_REQUEST,
        () => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Why a ledger alone has no live figures.
const NOT_LIVE: &str = "this server reads a ledger or a store without a daemon, so there are no live figures; `trafctl run` with     [api] listen serves them";

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

#[cfg(test)]
mod tests;
