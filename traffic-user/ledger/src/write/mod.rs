//! Writing: a reading becomes rows, rows become sums.

pub(crate) mod control_totals;
pub(crate) mod difference;
pub(crate) mod drain;
pub(crate) mod gaps;
pub(crate) mod last_reading;
pub(crate) mod readings;
pub(crate) mod rollup;
pub(crate) mod rollup_state;
