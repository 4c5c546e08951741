//! The routes, by what their documents are made from: `live` counters, the `ledger`, the table of `classes`, and
//! `rates` as events.

mod classes;
mod ledger;
mod live;
mod openapi;
mod rates;

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{Method, StatusCode, Uri},
    middleware,
    response::Response,
    routing::get,
};

use crate::{
    api::{
        Source,
        answers::error_answer,
        pages,
        token::{self, Access},
    },
    queries::parameters::{self, Pairs},
};

/// A query string as it came.
type Asked = Result<Query<Pairs>, QueryRejection>;

/// Applies `parse` to the query; an error becomes the answer.
fn parsed<T>(
    asked: Asked,
    parse: impl FnOnce(&Pairs) -> Result<T, String>,
) -> Result<(T, Pairs), Box<Response>> {
    asked
        .map_err(|error| error.to_string())
        .and_then(|Query(pairs)| Ok((parse(&pairs)?, pairs)))
        .map_err(|error| Box::new(error_answer(StatusCode::BAD_REQUEST, &error)))
}

/// Reads options from a query; a document is JSON unless another format is asked for, and in the calendar that the
/// source was started with.
fn options<T: clap::Args>(
    source: &Source,
    asked: Asked,
    fixed: &[(&str, &str)],
) -> Result<(T, Pairs), Box<Response>> {
    let calendar = source.calendar_parameters();
    let calendar = calendar.iter().map(|(name, value)| (*name, value.as_str()));
    let fixed: Vec<_> = fixed.iter().copied().chain(calendar).collect();
    parsed(asked, |pairs| parameters::parse(pairs, &fixed))
}

/// All routes. Nothing can be changed through them. Figures need the token, if there is one.
pub(crate) fn router(source: Source, access: Access) -> Router {
    let figures = Router::new()
        .route("/metrics", get(live::get_metrics))
        .route("/api/v1/counters", get(live::get_counters))
        .route("/api/v1/status", get(live::get_status))
        .route("/api/v1/interfaces", get(live::get_interfaces))
        .route("/api/v1/rates", get(rates::get_rates))
        .route("/api/v1/overview", get(ledger::get_overview))
        .route("/api/v1/series", get(ledger::get_series))
        .route("/api/v1/months", get(ledger::get_months))
        .route("/api/v1/report", get(ledger::get_report))
        .route("/api/v1/top", get(ledger::get_top))
        .route("/api/v1/gaps", get(ledger::get_gaps))
        .route("/api/v1/containers", get(ledger::get_containers))
        .route("/api/v1/quotas", get(ledger::get_quotas))
        .route("/api/v1/classes", get(classes::get_classes))
        .route("/api/v1/classes/explain", get(classes::get_explain))
        .route("/api/v1/openapi.json", get(openapi::get_openapi))
        .route("/api/{*path}", get(nothing_there))
        .route_layer(middleware::from_fn_with_state(access, token::require));
    figures
        .route("/", get(pages::get_index))
        .route("/{*path}", get(pages::get_file))
        .method_not_allowed_fallback(not_allowed)
        .with_state(source)
}

async fn nothing_there(State(_): State<Source>, uri: Uri) -> Response {
    pages::nothing_there(uri.path().trim_start_matches('/'))
}

async fn not_allowed(method: Method) -> Response {
    let error = format!("{method} is not possible: nothing can be changed here; use GET");
    error_answer(StatusCode::METHOD_NOT_ALLOWED, &error)
}
