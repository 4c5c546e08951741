//! The ledger on real files, fed with made-up readings.

mod booked;
mod closing;
mod crashes;
mod draining;
mod exchange;
mod histories;
mod interfaces;
mod node;
mod pva;
mod pva_import;
mod reports;
mod rollups;
