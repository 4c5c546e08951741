//! Reads the ledger for requests: bounded in number, time and rows, on threads of their own.
//!
//! Each answer opens the file for reading and closes it again. So a reader holds the write-ahead log back for
//! seconds at most, a ledger that was replaced is noticed, and a connection that was left open holds nothing.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};
use jiff::Timestamp;
use tokio::{sync::Semaphore, task, time};
use traffic_ledger::{Ledger, LedgerError, NodeSums, QueryLimits};
use traffic_model::calendar;

use crate::{
    api::{
        ReadNames,
        answers::{self, Tag, error_answer, try_again},
    },
    queries::{
        ById, Context, FindContainers, Query, QuotaFiles, known_names,
        parameters::{Pairs, renamed},
    },
    render::ClassNames,
};

/// Most answers at a time.
const AT_A_TIME: usize = 2;
/// How long a request waits for others.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long an answer may take. It keeps the write-ahead log from being emptied meanwhile.
const TIME: Duration = Duration::from_secs(10);
/// Most rows of a document: 20 MB of JSON.
const MOST_ROWS: usize = 25_000;

type Find = dyn FindContainers + Send + Sync;

/// A ledger that requests are answered from.
#[derive(Clone)]
pub struct Reader {
    path: PathBuf,
    /// Whether this process has the file open for writing.
    beside_writer: bool,
    places: Arc<Semaphore>,
    find: Arc<Find>,
    pub(super) class_names: Arc<ReadNames>,
    kept: Arc<NodeSums>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A question to the ledger.
pub(super) struct Question<Q> {
    pub document: &'static str,
    pub content_type: &'static str,
    pub pairs: Pairs,
    pub headers: HeaderMap,
    pub quotas: Option<Arc<QuotaFiles>>,
    pub query: Q,
}

impl Reader {
    /// Reads a ledger that this process writes. Containers have no other ids, and classes no names.
    pub fn beside_writer(path: &Path) -> Self {
        Self { beside_writer: true, ..Self::of_file(path) }
    }

    /// Reads a ledger that another process may write. Otherwise as [`Reader::beside_writer`].
    pub fn of_file(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            beside_writer: false,
            places: Arc::new(Semaphore::new(AT_A_TIME)),
            find: Arc::new(ById),
            class_names: Arc::new(ClassNames::new),
            kept: Arc::default(),
        }
    }

    /// `find` finds containers by their other ids and names.
    #[must_use]
    pub fn resolving(mut self, find: impl FindContainers + Send + Sync + 'static) -> Self {
        self.find = Arc::new(find);
        self
    }

    /// Adds the names of classes.
    #[must_use]
    pub fn naming(mut self, names: Arc<ReadNames>) -> Self {
        self.class_names = names;
        self
    }

    /// Opens the ledger, with all bounds.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(&self) -> Result<Ledger, LedgerError> {
        let mut ledger = match self.beside_writer {
            true => Ledger::open_beside_writer(&self.path)?,
            false => Ledger::open_read_only(&self.path)?,
        };
        ledger
            .limit_queries(QueryLimits { most_rows: Some(MOST_ROWS), until: Some(Instant::now() + TIME) })?;
        Ok(ledger)
    }

    /// Answers a query, or that nothing changed.
    pub(super) async fn answer<Q: Query + Send + 'static>(self, question: Question<Q>) -> Response {
        self.on_a_thread(move |reader| {
            let Question { document, content_type, mut pairs, headers, quotas, query } = question;
            let class_names = (reader.class_names)();
            let quotas = quotas.filter(|_| query.shows_quotas());
            pairs.extend(quotas.iter().map(|files| (String::new(), files.revision())));
            let tag = reader.tag((document, &pairs), query.ends_now(), &class_names);
            if let Some(tag) = tag.as_ref().filter(|tag| tag.is_known(&headers)) {
                return Ok(tag.not_modified());
            }
            let ledger = reader.open().map_err(|error| reader.cannot_open(error))?;
            let resolve = |ledger: &Ledger, typed: &[String]| known_names(ledger, typed, &*reader.find);
            let context = Context {
                resolve: &resolve,
                class_names,
                kept: Some(&reader.kept),
                quotas: quotas.as_deref(),
            };
            let resolved = query.resolve(&ledger, &context).map_err(asked_badly)?;
            Ok(answers::document(content_type, resolved(&ledger, &context)?, tag))
        })
        .await
    }

    /// Reads what a plot of the last day needs, so that no view of it waits. What is known is not read again, so doing
    /// it often takes less than doing it once in a while.
    pub(super) async fn keep_last_day(self) {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
        let work = task::spawn_blocking(move || {
            let _place = place;
            // Whoever asks gets the error.
            if let Err(error) = self.open().and_then(|ledger| ledger.keep_last_day(&self.kept)) {
                tracing::debug!("reading the last day: {error}");
            }
        });
        drop(work.await);
    }

    /// Does some work with the ledger on a thread of its own, after waiting for a place.
    pub(super) async fn on_a_thread(
        self,
        work: impl FnOnce(&Self) -> anyhow::Result<Response> + Send + 'static,
    ) -> Response {
        let Ok(place) = time::timeout(PATIENCE, Arc::clone(&self.places).acquire_owned()).await else {
            return try_again("too many requests read the ledger at once; try again in a moment");
        };
        let worked = task::spawn_blocking(move || {
            // Held until the work is done, even if the client has gone.
            let _place = place;
            work(&self)
        });
        match worked.await.map_err(anyhow::Error::from).and_then(|result| result) {
            Ok(answer) => answer,
            Err(error) => refused(&error),
        }
    }

    /// The tag of an answer in the present state of the ledger; `None` if the state is unknown.
    pub(super) fn tag(
        &self,
        (document, pairs): (&str, &Pairs),
        ends_now: bool,
        class_names: &ClassNames,
    ) -> Option<Tag> {
        let revision = traffic_ledger::revision(&self.path).ok()?;
        let names = serde_json::to_string(class_names).ok()?;
        // A span until now moves with the five-minute borders.
        let now = ends_now.then(|| calendar::five_minutes_of(Timestamp::now().as_second()).to_string());
        Some(Tag::new(document, pairs, &[&revision, &names, &now.unwrap_or_default()]))
    }

    /// The containers that are asked for, as the ledger knows them.
    pub(super) fn known(&self, ledger: &Ledger, typed: &[String]) -> anyhow::Result<Vec<String>> {
        known_names(ledger, typed, &*self.find)
    }

    /// Bytes of the ledger's file and its log.
    pub(super) fn file_bytes(&self) -> Option<u64> {
        traffic_ledger::file_bytes(&self.path).ok()
    }

    pub(super) fn cannot_open(&self, error: LedgerError) -> anyhow::Error {
        anyhow::Error::new(error).context(format!("cannot open the ledger {}", self.path.display()))
    }
}

/// What is wrong with a question, as opposed to the ledger.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct AskedBadly(String);

/// Marks an error as the fault of whoever asks, unless the ledger failed.
pub(super) fn asked_badly(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<LedgerError>() {
        Some(LedgerError::Query(_)) | None => AskedBadly(renamed(&format!("{error:#}"))).into(),
        Some(_) => error,
    }
}

/// The answer to a question that failed.
pub(super) fn refused(error: &anyhow::Error) -> Response {
    tracing::debug!("answering a request: {error:#}");
    let status = match error.downcast_ref::<LedgerError>() {
        _ if error.is::<AskedBadly>() => StatusCode::BAD_REQUEST,
        Some(LedgerError::Query(_) | LedgerError::Calendar(_)) => StatusCode::BAD_REQUEST,
        Some(LedgerError::NoSuchContainer(_) | LedgerError::UnknownContainer(_)) => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    error_answer(status, &renamed(&format!("{error:#}")))
}
