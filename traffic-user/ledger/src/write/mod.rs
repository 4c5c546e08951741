//! The write side: readings become rows, and rows become sums.

mod apart;
pub(crate) mod attribution;
pub(crate) mod calibrations;
pub(crate) mod clock;
pub(crate) mod control_totals;
pub(crate) mod difference;
pub(crate) mod drain;
mod drain_gaps;
mod dropped;
pub(crate) mod gaps;
pub(crate) mod last_reading;
pub(crate) mod names;
pub(crate) mod owner_changes;
pub(crate) mod pace;
pub(crate) mod quotas;
pub(crate) mod readings;
pub(crate) mod relocation;
pub(crate) mod retention;
mod returning;
mod reverted;
pub(crate) mod rollup;
pub(crate) mod rollup_state;
