//! What a report says of quotas, as a part of its document and as lines of its tables.

use std::cmp::Reverse;

use serde::Serialize;
use traffic_quota::{FORECAST_METHOD, permille};

use crate::{
    queries::quotas::Standing,
    render::quota::{ShownRow, heading, shown_row, table_row},
};

/// How many quotas a table has: those of which most is expected.
const MOST: usize = 20;

/// The quotas of the containers of a report.
#[derive(Clone, Debug)]
pub struct Forecasts<'a> {
    /// What is used, and what is expected.
    pub standings: &'a [Standing<'a>],
    /// Why nothing is known.
    pub problem: Option<String>,
}

impl Forecasts<'_> {
    /// Nothing is known for this reason.
    pub fn unknown(error: &anyhow::Error) -> Self {
        Self { standings: &[], problem: Some(format!("{error:#}")) }
    }
}

/// The part of a report's document.
#[derive(Serialize)]
pub(super) struct ForecastsField<'a> {
    forecast_method: &'static str,
    standings: Vec<ShownRow<'a>>,
    /// Why nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
}

/// The part of a report's document.
///
/// # Errors
/// When an instant is outside the years that can be represented.
pub(super) fn field<'a>(forecasts: &'a Forecasts<'a>) -> anyhow::Result<ForecastsField<'a>> {
    Ok(ForecastsField {
        forecast_method: FORECAST_METHOD,
        standings: forecasts.standings.iter().map(shown_row).collect::<anyhow::Result<_>>()?,
        problem: forecasts.problem.as_deref(),
    })
}

/// The table: its heading and rows as in `trafctl quota show`, those first of which most is expected.
pub(super) fn table(forecasts: &Forecasts<'_>, exact: bool) -> (Vec<String>, Vec<Vec<String>>) {
    let mut standings: Vec<&Standing<'_>> = forecasts.standings.iter().collect();
    standings.sort_by_key(|standing| Reverse(comes_to(standing)));
    let rows = standings.into_iter().take(MOST).map(|standing| table_row(standing, exact));
    (heading(exact), rows.collect())
}

/// The lines below the table.
pub(super) fn notes(forecasts: &Forecasts<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let more = forecasts.standings.len().saturating_sub(MOST);
    if more > 0 {
        notes.push(format!("{more} quotas more, of which less is expected; `trafctl quota show` has all"));
    }
    for standing in forecasts.standings {
        if let Err(problem) = &standing.used {
            notes.push(format!("problem: {}, {}: {problem}", standing.container, standing.quota.name));
        }
    }
    if forecasts.standings.iter().any(|standing| standing.forecast.is_some()) {
        notes.push(format!("expected of quotas: {FORECAST_METHOD}"));
    }
    notes.extend(forecasts.problem.iter().map(|problem| format!("problem: quotas are not shown: {problem}")));
    notes
}

/// Which part of the allowance is used at the end of the period, in thousandths. What is not known comes first.
fn comes_to(standing: &Standing<'_>) -> u64 {
    let (Ok(used), Some(allowance)) = (&standing.used, standing.allowance) else { return u64::MAX };
    let expected = standing.forecast.map_or(0, |forecast| forecast.expected);
    permille(expected.max(*used), allowance)
}
