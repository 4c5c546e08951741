//! The ledger on real files, fed with made-up readings.

mod draining;
mod node;
mod rollups;
