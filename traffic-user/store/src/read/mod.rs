//! What reports from a store of any kind have in common. Nothing here asks a server.
//!
//! - `book`: what is small of the ledgers, as the server's rows have it, and the ledger in memory that is made of it.
//! - `pieces`: which rows answer for which time.
//! - `frozen`: which rates of closed months answer.
//! - `shares`: whose a container is when, in a report by tenant.

pub(crate) mod book;
pub(crate) mod frozen;
pub(crate) mod pieces;
pub(crate) mod shares;

use traffic_ledger::LineKey;

/// What a report is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reported<'a> {
    /// Names of nodes; empty for all.
    pub nodes: &'a [String],
    /// The time zone that is asked for.
    pub zone: Option<&'a str>,
    /// The billing day that is asked for.
    pub billing_day: Option<u8>,
    /// Whether the report names interfaces.
    pub with_interfaces: bool,
    /// Whether its containers are the tenants.
    pub by_tenant: bool,
}

/// Since when drops are recorded, by node, start and whether all of them are in the store: since when all nodes have them
/// that have any, and the nodes without, or not with all. A single node that records none says so by having no start.
pub(crate) fn drops_of(ledgers: &[(&str, Option<i64>, bool)]) -> (Option<i64>, Vec<String>) {
    let from = ledgers.iter().filter_map(|ledger| ledger.1).max();
    let lacks = |ledger: &&(&str, Option<i64>, bool)| !ledger.2 || from.is_some() && ledger.1.is_none();
    let mut without: Vec<String> = ledgers.iter().filter(lacks).map(|ledger| ledger.0.to_owned()).collect();
    without.dedup();
    (from, without)
}

/// The key of a report's row. Class and family are -1 where the report does not split by them.
pub(crate) fn key(step: usize, container: i64, class: i64, family: i64) -> LineKey {
    (step, container, u8::try_from(class).ok(), u8::try_from(family).ok(), class != 0)
}
