//! Traffic that goes on until it is told to stop, and counts itself: the lab has it.

pub use traffic_tests::traffic::{Load, Sent};
