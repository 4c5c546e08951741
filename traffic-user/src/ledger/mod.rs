//! The ledger.
mod bucket;
mod clock;
mod difference;
mod error;
