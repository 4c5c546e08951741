//! When traffic passed: pure decisions on what a reading's clocks say.

pub(crate) mod bucket_assignment;
pub(crate) mod reading_checks;
