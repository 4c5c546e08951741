//! Counts by parts of the kernel that know nothing of trafctl, for a test to hold its figures against.
//!
//! | witness | where | packets | bytes |
//! |---|---|---|---|
//! | [`QdiscWitness`] | egress | on the wire | layer 2, on the wire |
//! | [`InterfaceStatistics`] | both ways | buffers | layer 2, buffers |

mod interface;
mod qdisc;

pub use interface::InterfaceStatistics;
pub use qdisc::{QdiscCount, QdiscWitness};
