//! The figures of trafctl as plain data, and the arithmetic on them. No kernel, no database, no output.
//!
//! - [`counted()`]: a number with its noun.
//! - `dropped`: one reading of the counters of drops, a part of the snapshot.
//! - `ids`: container ids.
//! - `snapshot`: one reading of all counters, the only type that leaves the kernel side.
//! - [`calendar`]: five-minute buckets, hours, days and billing months of a time zone.
//! - [`live_rates`]: the traffic between two readings.
//! - [`local_time`]: instants as text in a time zone.
//! - [`notation`]: hardware addresses and IP prefixes as text.
//! - [`skb_mark`]: which containers and classes have an `skb->mark` for a shaper.
//! - [`units`]: amounts of bytes and durations as text.
//! - `zones`: the rules of a time zone by name, also under its former names.

pub mod calendar;
mod counted;
mod dropped;
mod ids;
pub mod live_rates;
pub mod local_time;
pub mod notation;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
pub mod skb_mark;
mod snapshot;
pub mod units;
mod zones;

pub use counted::counted;
pub use dropped::{DropCounter, DropReading};
pub use ids::{ContainerId, InvalidContainerId, NODE_ID, hex, is_pending};
pub use snapshot::{
    Balance, ByDirection, ClassCounter, ClassTableInfo, FaultCounter, InterfaceCounter, PassedCounter,
    Snapshot, Wanted,
};
