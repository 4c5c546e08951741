//! Decides when traffic passed, from the clocks of a reading, and which hour, day and month that is.

pub(crate) mod borders;
pub(crate) mod bucket_assignment;
pub(crate) mod clock_line;
mod hours;
mod loaded_borders;
pub(crate) mod reading_checks;
pub(crate) mod unknown_zone;
