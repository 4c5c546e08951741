//! Histories of a ledger that is shipped to a model of a store, which fails at any call. A seed gives one history.

mod histories;
mod model;
