//! Histories of a ledger that is shipped to a model of a store, and to a fake of ClickHouse, which fail at any call. A
//! seed gives one history.

mod fake;
mod histories;
mod model;
mod races;
mod tables;
