//! The read side: rows become reports.

pub(crate) mod balance;
pub(crate) mod billing;
pub(crate) mod collected;
pub(crate) mod day_rates;
pub(crate) mod interfaces;
pub(crate) mod percentile;
pub(crate) mod percentile_report;
pub(crate) mod query_plan;
pub(crate) mod report;
pub(crate) mod rows;
mod spread;
pub(crate) mod top;
