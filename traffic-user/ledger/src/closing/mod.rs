//! Closed months: freezing, correcting and auditing them; changes of the key that signs statements of them.

pub(crate) mod adjust;
pub(crate) mod audit;
pub(crate) mod chain;
pub(crate) mod close;
pub(crate) mod close_checks;
pub(crate) mod closed_rates;
pub(crate) mod correction;
pub(crate) mod delivered;
pub(crate) mod frozen;
pub(crate) mod key_change;
mod live_counters;
pub(crate) mod preview;
