//! The read side: rows become reports.

pub(crate) mod balance;
pub(crate) mod billing;
pub(crate) mod collected;
pub(crate) mod day_rates;
pub(crate) mod drop_report;
pub(crate) mod facts;
pub(crate) mod interfaces;
pub(crate) mod limits;
pub(crate) mod months;
pub(crate) mod node_sums;
pub(crate) mod overview;
pub(crate) mod percentile;
pub(crate) mod percentile_report;
pub(crate) mod query_plan;
pub(crate) mod records;
pub(crate) mod report;
pub(crate) mod rows;
pub(crate) mod running;
pub(crate) mod series;
mod spread;
pub(crate) mod standing;
pub(crate) mod steps;
pub(crate) mod stored;
pub(crate) mod top;
