//! trafctl: the library behind the command.

pub mod classes;
pub mod snapshot;
