//! The ledger on real files, fed with made-up readings.

mod closing;
mod draining;
mod node;
mod pva;
mod reports;
mod rollups;
