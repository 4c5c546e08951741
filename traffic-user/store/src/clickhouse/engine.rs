//! What the store asks ClickHouse for: a few calls, each one statement. `http` sends them, and the tests have an engine
//! in memory that loses, repeats and delays them.
//!
//! None of them is a transaction. An insertion into one table and one partition is there as a whole or not at all.

use std::collections::BTreeSet;

use traffic_ledger::{Content, ShippedExtent};

use crate::store::{Node, PartDigest, StoreError};

/// A change number of a ledger that somebody who ships it has seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub changes: i64,
    /// The token of that number; see [`traffic_ledger::Identity::token`].
    pub token: Option<String>,
    pub machine: Option<String>,
}

/// What is noted about a place. Every note is true for ever, so that of several the highest counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// For each machine and token, the highest change number.
    pub seen: Vec<Seen>,
    /// Everything up to this change number has arrived.
    pub done: i64,
    /// With its drops. That is noted once: what knows no drops cannot ship to tables that have them.
    pub has_drops: bool,
    /// See [`crate::store::Known::drops_kept_from`].
    pub drops_kept_from: Option<i64>,
}

/// Notes to add.
#[derive(Clone, Copy, Debug)]
pub struct Notes<'a> {
    pub place: u64,
    pub ledger: &'a str,
    pub seen: &'a Seen,
    /// Also that everything up to a change number has arrived.
    pub done: Option<i64>,
    /// And that all drops have.
    pub has_drops: bool,
    /// Which five minutes may lack theirs.
    pub drops_kept_from: Option<i64>,
    pub node: &'a Node,
    pub extent: &'a ShippedExtent,
}

/// Where the rows of a ledger are from a turn on. Of the first turn, nothing is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    pub ledger: String,
    /// The highest counts.
    pub turn: u64,
    /// Nothing is there if another ledger took its place.
    pub place: u64,
    pub replaced_by: Option<String>,
}

/// The newest version of a part, and of any of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartVersion {
    pub part: String,
    pub number: i64,
    /// That of the part, if it is there.
    pub of_part: Option<u64>,
    /// That of its rows and of itself.
    pub highest: u64,
}

/// Parts with all of their rows, and their versions.
pub type Versioned<'a> = [(&'a Content, u64)];

/// Names and numbers of parts, with versions.
pub type Versions<'a> = [(&'a str, i64, u64)];

/// A server.
pub trait Engine {
    /// Whether it has drops. One of an older version takes everything else.
    fn takes_drops(&self) -> bool {
        true
    }

    /// Whether the store has come to have drops since this connection was made.
    fn was_migrated(&mut self) -> impl Future<Output = Result<bool, StoreError>>;

    /// Where a ledger was and is.
    fn adoptions(&mut self, ledger: &str) -> impl Future<Output = Result<Vec<Adoption>, StoreError>>;

    /// What is noted about a place.
    fn progress(&mut self, place: u64) -> impl Future<Output = Result<Progress, StoreError>>;

    /// Adds notes about one place: all of them or none.
    fn note(&mut self, notes: Notes<'_>) -> impl Future<Output = Result<(), StoreError>>;

    /// Adds parts: either units, or records. Each of them with all of its rows or not at all.
    fn add(&mut self, place: u64, parts: &Versioned<'_>) -> impl Future<Output = Result<(), StoreError>>;

    /// The versions of those of some parts that are there. Either units, or records.
    fn versions(
        &mut self,
        place: u64,
        parts: &[(&str, i64)],
    ) -> impl Future<Output = Result<Vec<PartVersion>, StoreError>>;

    /// Those of some parts that are there in a version or a later one, on every server that must have them. Either units,
    /// or records. One that says nothing of a part gets it again.
    fn arrived(
        &mut self,
        place: u64,
        parts: &Versions<'_>,
    ) -> impl Future<Output = Result<BTreeSet<(String, i64)>, StoreError>>;

    /// Copies five minutes before a time from one place to another, as the oldest version of each.
    fn copy(&mut self, from: u64, to: u64, before: i64) -> impl Future<Output = Result<(), StoreError>>;

    /// Adds adoptions: all of them or none.
    fn adopt(&mut self, adoptions: &[Adoption]) -> impl Future<Output = Result<(), StoreError>>;

    /// The digests of all parts in a place; see [`crate::Store::digests`].
    fn digests(
        &mut self,
        place: u64,
        units: Option<(i64, i64)>,
    ) -> impl Future<Output = Result<Vec<PartDigest>, StoreError>>;
}
