//! trafctl: the library behind the command.

pub mod ledger;
pub mod snapshot;
