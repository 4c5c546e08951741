//! Documents made from the ledger. Those that a command prints are the same text.

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::{Asked, options, parsed};
use crate::{
    api::{
        Source,
        answers::{JSON, document, error_answer},
        query,
        reader::{Question, Reader, asked_badly, refused},
    },
    queries::{
        ANY_DAY, ById, Context, GapOptions, MonthOptions, OverviewOptions, Query, QuotaOptions,
        ReportOptions, SeriesOptions, SheetFormat, TopOptions, known_names,
    },
    render::{
        ClassNames,
        plots::{self, NodeFacts},
    },
};

/// How old the problems of the overview may be. From the first age on, the next view has newer ones.
const MOST_AGE: [Duration; 2] = [Duration::from_secs(20), Duration::from_mins(2)];

const JSON_FORMAT: [(&str, &str); 1] = [("format", "json")];

/// The type of what a query with a choice of formats answers.
const fn content_type(format: SheetFormat) -> &'static str {
    match format {
        SheetFormat::Json => JSON,
        SheetFormat::Csv => "text/csv; charset=utf-8",
        SheetFormat::Table => "text/plain; charset=utf-8",
    }
}

pub(super) async fn get_report(State(source): State<Source>, headers: HeaderMap, asked: Asked) -> Response {
    let of_format = |options: &ReportOptions| content_type(options.format);
    let parsed = options(&source, asked, &JSON_FORMAT);
    answer(source, headers, ("report", parsed), of_format).await
}

pub(super) async fn get_top(State(source): State<Source>, headers: HeaderMap, asked: Asked) -> Response {
    let of_format = |options: &TopOptions| content_type(options.format);
    let parsed = options(&source, asked, &JSON_FORMAT);
    answer(source, headers, ("top", parsed), of_format).await
}

pub(super) async fn get_gaps(State(source): State<Source>, headers: HeaderMap, asked: Asked) -> Response {
    let of_format = |options: &GapOptions| content_type(options.format);
    let parsed = options(&source, asked, &JSON_FORMAT);
    answer(source, headers, ("gaps", parsed), of_format).await
}

pub(super) async fn get_series(State(source): State<Source>, headers: HeaderMap, asked: Asked) -> Response {
    let parsed = options(&source, asked, &[]);
    answer(source, headers, ("series", parsed), |_: &SeriesOptions| JSON).await
}

pub(super) async fn get_months(State(source): State<Source>, headers: HeaderMap, asked: Asked) -> Response {
    let parsed = options(&source, asked, &[]);
    answer(source, headers, ("months", parsed), |_: &MonthOptions| JSON).await
}

type Parsed<Q> = Result<(Q, crate::queries::parameters::Pairs), Box<Response>>;

async fn answer<Q: Query + Send + 'static>(
    source: Source,
    headers: HeaderMap,
    (document, parsed): (&'static str, Parsed<Q>),
    content_type: impl FnOnce(&Q) -> &'static str,
) -> Response {
    let (query, pairs) = match parsed {
        Ok(parsed) => parsed,
        Err(refusal) => return *refusal,
    };
    let Some(reader) = source.reader else { return no_ledger() };
    let (content_type, quotas) = (content_type(&query), source.quota_files);
    reader.answer(Question { document, content_type, pairs, headers, quotas, query }).await
}

fn no_ledger() -> Response {
    let error =
        "this node keeps no ledger ([ledger] enabled = false); the live counters are at /api/v1/counters";
    error_answer(StatusCode::NOT_FOUND, error)
}

pub(super) async fn get_containers(
    State(source): State<Source>,
    headers: HeaderMap,
    asked: Asked,
) -> Response {
    let ((), pairs) = match parsed(asked, query::none) {
        Ok(parsed) => parsed,
        Err(refusal) => return *refusal,
    };
    let Some(reader) = source.reader else { return no_ledger() };
    let work = move |reader: &Reader| {
        let tag = reader.tag(("containers", &pairs), false, &ClassNames::new());
        if let Some(tag) = tag.as_ref().filter(|tag| tag.is_known(&headers)) {
            return Ok(tag.not_modified());
        }
        let ledger = reader.open_for((None, ANY_DAY), false).map_err(|error| reader.cannot_open(error))?;
        Ok(document(JSON, plots::containers(&ledger.containers()?)?, tag))
    };
    reader.on_a_thread(work).await
}

pub(super) async fn get_quotas(State(source): State<Source>, headers: HeaderMap, asked: Asked) -> Response {
    let (query, pairs) = match options::<QuotaOptions>(&source, asked, &[]) {
        Ok(parsed) => parsed,
        Err(refusal) => return *refusal,
    };
    let Some(reader) = source.reader else { return no_ledger() };
    let Some(files) = source.quota_files else {
        return error_answer(StatusCode::NOT_FOUND, "quotas are not known here");
    };
    let work = move |reader: &Reader| {
        let state = [pairs, vec![("".to_owned(), files.revision())]].concat();
        let tag = reader.tag(("quotas", &state), false, &ClassNames::new());
        if let Some(tag) = tag.as_ref().filter(|tag| tag.is_known(&headers)) {
            return Ok(tag.not_modified());
        }
        let ledger = reader.open().map_err(|error| reader.cannot_open(error))?;
        let wanted = reader.known(&ledger, &query.containers).map_err(asked_badly)?;
        let at = query.time(&ledger).map_err(asked_badly)?;
        Ok(document(JSON, query.answer(&ledger, &files, (&wanted, at))?, tag))
    };
    reader.on_a_thread(work).await
}

/// The first view: the last day, and what is wrong.
pub(super) async fn get_overview(State(source): State<Source>, headers: HeaderMap, asked: Asked) -> Response {
    let (query, pairs) = match options::<OverviewOptions>(&source, asked, &[]) {
        Ok(parsed) => parsed,
        Err(refusal) => return *refusal,
    };
    let live = source.is_live;
    let (node, problems) = problems(&source).await;
    let Some(reader) = source.reader.clone() else {
        let facts = NodeFacts { node: node.as_deref(), live, problems: &problems };
        return match plots::overview_without_ledger(&facts) {
            Ok(text) => document(JSON, text, None),
            Err(error) => refused(&error),
        };
    };
    let work = move |reader: &Reader| {
        let class_names = (reader.class_names)();
        let state = format!("{node:?} {problems:?} {live}");
        let tag =
            reader.tag(("overview", &[pairs, vec![("".to_owned(), state)]].concat()), false, &class_names);
        if let Some(tag) = tag.as_ref().filter(|tag| tag.is_known(&headers)) {
            return Ok(tag.not_modified());
        }
        let opened = reader.open_for((query.zone(), ANY_DAY), false);
        let ledger = opened.map_err(|error| reader.cannot_open(error))?;
        let context = Context {
            resolve: &|ledger, typed| known_names(ledger, typed, &ById),
            class_names,
            kept: None,
            quotas: None,
        };
        let facts = NodeFacts { node: node.as_deref(), live, problems: &problems };
        Ok(document(JSON, query.answer(&ledger, &context, &facts).map_err(asked_badly)?, tag))
    };
    reader.on_a_thread(work).await
}

/// The name of the node, and what is wrong with it. A look at a large node takes as long as the ledger, so the last
/// one is taken unless it is too old.
async fn problems(source: &Source) -> (Option<String>, Vec<String>) {
    let Some(node) = &source.node else { return (None, Vec::new()) };
    let [most_age, most_known] = MOST_AGE;
    let state = match node.known(most_age, most_known) {
        Some(state) => Ok(state),
        None => node.get(most_known).await,
    };
    match state {
        Ok(state) => (Some(state.status.node.clone()), state.status.problems.clone()),
        Err(error) => (None, vec![format!("{error:#}")]),
    }
}
