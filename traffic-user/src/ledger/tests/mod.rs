//! The ledger on real files, fed with made-up readings.

mod closing;
mod crashes;
mod draining;
mod histories;
mod node;
mod pva;
mod reports;
mod rollups;
