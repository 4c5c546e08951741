//! A flow that runs until it is stopped and counts itself.

pub use traffic_tests::traffic::{Load, Sent};
