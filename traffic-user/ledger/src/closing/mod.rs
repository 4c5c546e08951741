//! Closed months: freezing, correcting and auditing them.

pub(crate) mod adjust;
pub(crate) mod audit;
pub(crate) mod close;
