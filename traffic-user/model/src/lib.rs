//! What trafctl's figures are, as plain data: no kernel, no database, no output.
//!
//! - `ids`: container ids.
//! - `snapshot`: one reading of all counters, which is all that leaves the kernel side.
//! - [`calendar`]: buckets, days and billing months of a time zone.
//! - [`live_rates`]: what passed between two readings.
//! - [`notation`]: hardware addresses and IP prefixes as text.
//! - [`skb_mark`]: the `skb->mark` that a shaper selects by.
//! - [`units`]: amounts of bytes and durations as text.

pub mod calendar;
mod ids;
pub mod live_rates;
pub mod notation;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
pub mod skb_mark;
mod snapshot;
pub mod units;

pub use ids::{ContainerId, InvalidContainerId, NODE_ID, hex};
pub use snapshot::{
    Balance, ByDirection, ClassCounter, ClassTableInfo, FaultCounter, InterfaceCounter, PassedCounter,
    Snapshot, Wanted,
};
