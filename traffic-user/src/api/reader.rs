//! Reads the ledger for requests: bounded in number, time and rows, on threads of their own.
//!
//! Instead of a ledger's file, they may be those of a store, as a ledger that is read from there ([`StoreView`]).
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
use traffic_store::{Reported, Target, open_ledger};

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

/// What is shown of a store.
#[derive(Clone, Debug)]
pub struct StoreView {
    /// The store.
    pub target: Target,
    /// Names of nodes; empty for all.
    pub nodes: Vec<String>,
    /// Whether containers are the tenants.
    pub by_tenant: bool,
}

/// Where the figures are.
#[derive(Clone, Debug)]
enum Origin {
    File {
        path: PathBuf,
        /// Whether this process has the file open for writing.
        beside_writer: bool,
    },
    Store(Arc<StoreView>),
}

/// A ledger that requests are answered from.
#[derive(Clone)]
pub struct Reader {
    origin: Origin,
    places: Arc<Semaphore>,
    find: Arc<Find>,
    pub(super) class_names: Arc<ReadNames>,
    kept: Arc<NodeSums>,
    calendar: AskedCalendar,
}

/// Time zone and billing day of all answers, unless a question asks for others.
#[derive(Clone, Debug, Default)]
pub struct AskedCalendar {
    /// The time zone; `None` for that of the ledger, or of all ledgers of a store.
    pub zone: Option<String>,
    /// The first day of billing months; `None` as for the zone.
    pub billing_day: Option<u8>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("origin", &self.origin).finish_non_exhaustive()
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
        Self::of(Origin::File { path: path.to_owned(), beside_writer: true })
    }

    /// Reads a ledger that another process may write. Otherwise as [`Reader::beside_writer`].
    pub fn of_file(path: &Path) -> Self {
        Self::of(Origin::File { path: path.to_owned(), beside_writer: false })
    }

    /// Reads a store of many nodes. Each answer has a connection of its own. Nothing says whether it changed since.
    pub fn of_store(view: StoreView) -> Self {
        Self::of(Origin::Store(Arc::new(view)))
    }

    fn of(origin: Origin) -> Self {
        Self {
            origin,
            places: Arc::new(Semaphore::new(AT_A_TIME)),
            find: Arc::new(ById),
            class_names: Arc::new(ClassNames::new),
            kept: Arc::default(),
            calendar: AskedCalendar::default(),
        }
    }

    /// Answers in a time zone and with a billing day.
    #[must_use]
    pub fn in_calendar(mut self, calendar: AskedCalendar) -> Self {
        self.calendar = calendar;
        self
    }

    /// The parameters by which a question asks for the calendar.
    pub(super) fn calendar_parameters(&self) -> Vec<(&'static str, String)> {
        let zone = self.calendar.zone.clone().map(|zone| ("tz", zone));
        let day = self.calendar.billing_day.map(|day| ("billing_day", day.to_string()));
        zone.into_iter().chain(day).collect()
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
    pub fn open(&self) -> Result<Ledger, LedgerError> {
        self.open_for((None, None), false)
    }

    /// The same for a query: time zone and billing day that it asks for, and whether it names interfaces. A file needs
    /// neither.
    pub(super) fn open_for(
        &self,
        (zone, billing_day): (Option<&str>, Option<u8>),
        with_interfaces: bool,
    ) -> Result<Ledger, LedgerError> {
        let until = Instant::now() + TIME;
        let zone = zone.or(self.calendar.zone.as_deref());
        let billing_day = billing_day.or(self.calendar.billing_day);
        let mut ledger = match &self.origin {
            Origin::File { path, beside_writer: true } => Ledger::open_beside_writer(path)?,
            Origin::File { path, beside_writer: false } => Ledger::open_read_only(path)?,
            Origin::Store(view) => {
                let by_tenant = view.by_tenant;
                if by_tenant && with_interfaces {
                    let what = "interfaces have no tenants; ask for show=containers or show=drops";
                    return Err(LedgerError::Query(what.to_owned()));
                }
                let (nodes, until) = (&view.nodes, Some(until));
                let asked = Reported { nodes, zone, billing_day, with_interfaces, by_tenant, until };
                open_ledger(&view.target, &asked).map_err(|error| LedgerError::Store(error.to_string()))?
            }
        };
        ledger.limit_queries(QueryLimits { most_rows: Some(MOST_ROWS), until: Some(until) })?;
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
            let opened = reader.open_for(query.asked_calendar(), query.names_interfaces());
            let ledger = opened.map_err(|error| reader.cannot_open(error))?;
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
        // A store adds up its rows itself.
        if matches!(self.origin, Origin::Store(_)) {
            return;
        }
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
        let Origin::File { path, .. } = &self.origin else { return None };
        let revision = traffic_ledger::revision(path).ok()?;
        let names = serde_json::to_string(class_names).ok()?;
        // A span until now moves with the five-minute borders.
        let now = ends_now.then(|| calendar::five_minutes_of(Timestamp::now().as_second()).to_string());
        // A process that was started again may answer in another calendar.
        let asked = serde_json::to_string(&(&self.calendar.zone, self.calendar.billing_day)).ok()?;
        Some(Tag::new(document, pairs, &[&revision, &names, &now.unwrap_or_default(), &asked]))
    }

    /// The containers that are asked for, as the ledger knows them.
    pub(super) fn known(&self, ledger: &Ledger, typed: &[String]) -> anyhow::Result<Vec<String>> {
        known_names(ledger, typed, &*self.find)
    }

    /// Bytes of the ledger's file and its log.
    pub(super) fn file_bytes(&self) -> Option<u64> {
        let Origin::File { path, .. } = &self.origin else { return None };
        traffic_ledger::file_bytes(path).ok()
    }

    pub(super) fn cannot_open(&self, error: LedgerError) -> anyhow::Error {
        let what = match &self.origin {
            Origin::File { path, .. } => format!("cannot open the ledger {}", path.display()),
            Origin::Store(view) => format!("cannot read the store {}", view.target.name()),
        };
        anyhow::Error::new(error).context(what)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_calendar_has_tags_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        drop(Ledger::open(&path, traffic_ledger::LedgerConfig::default()).unwrap());
        let tag = |zone: Option<&str>, billing_day| {
            let calendar = AskedCalendar { zone: zone.map(str::to_owned), billing_day };
            let reader = Reader::of_file(&path).in_calendar(calendar);
            let tag = reader.tag(("report", &Pairs::new()), false, &ClassNames::new());
            tag.expect("the state of the ledger is known")
        };
        let tags = [
            tag(None, None),
            tag(Some("UTC"), None),
            tag(Some("Europe/Berlin"), None),
            tag(Some("UTC"), Some(1)),
            tag(Some("UTC"), Some(15)),
            tag(None, Some(15)),
        ];
        for (at, one) in tags.iter().enumerate() {
            assert_eq!(tags.iter().position(|other| other == one), Some(at));
        }
        assert_eq!(tag(Some("UTC"), Some(15)), tags[4]);
    }
}
