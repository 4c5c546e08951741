//! Decides when traffic passed, from the clocks of a reading. Pure.

pub(crate) mod bucket_assignment;
pub(crate) mod reading_checks;
