//! trafctl: the library behind the command.

pub mod snapshot;
