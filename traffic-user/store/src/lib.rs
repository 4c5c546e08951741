//! The store: the rows of many nodes' ledgers in one database, each exactly once.
//!
//! A ledger says what changed since a change number, and hands out the present rows of it
//! ([`traffic_ledger::Changes`]). The store keeps, for each part of each ledger, the rows with the highest number.
//! So repeats, any order, several shippers and lost acknowledgements end with the same rows. How far a store is, is
//! written in the store itself: a shipper keeps no state.
//!
//! - `store`: what a store is to the shipper, and what goes there.
//! - `refusal`: which ledgers are not shipped: restored copies, clones and adopted copies.
//! - `shipper`: what is shipped next, until nothing is left.
//! - `columns`: whether the tables have the columns that they were made with.
//! - `digests`, `verify`: whether store and ledger hold the same rows.
//! - `postgres`: the store in PostgreSQL. `clickhouse`: the one in ClickHouse.
//! - `read`: what reports from both have in common.
//! - `tenants`: who has which container.
//! - `any_store`: either of them, by its URL. `passwords`: the files with passwords.
//!
//! Nothing here knows the kernel or the command line.

mod any_store;
pub mod clickhouse;
mod columns;
mod digests;
mod passwords;
pub mod postgres;
mod read;
mod refusal;
mod shipper;
mod store;
mod tenants;
#[cfg(test)]
mod tests;
mod verify;

pub use any_store::{AnyStore, Target, open_ledger};
pub use passwords::PasswordFile;
pub use read::Reported;
pub use refusal::Refusal;
pub use shipper::{BatchSize, ShipError, Shipped, Shipper};
pub use store::{
    Batch, Checked, Difference, Known, Node, NodeState, PartDigest, Put, Store, StoreError, Takeover,
};
pub use tenants::{Assigned, Assignment};
pub use verify::{Scope, Verified, verify, verify_days};
