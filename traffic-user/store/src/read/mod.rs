//! What reports from a store of any kind have in common. Nothing here asks a server.
//!
//! - `book`: what is small of the ledgers, as the server's rows have it, and the ledger in memory that is made of it.
//! - `drops`: since when there are drops, and whose are missing.
//! - `pieces`: which rows answer for which time.
//! - `frozen`: which rates of closed months answer.
//! - `shares`: whose a container is when, in a report by tenant.
//! - `time_limit`: how long the server may take.

pub(crate) mod book;
pub(crate) mod drops;
pub(crate) mod frozen;
pub(crate) mod pieces;
pub(crate) mod shares;
pub(crate) mod time_limit;

use std::time::Instant;

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
    /// When it must be there; `None`: each answer of the server may take five minutes.
    pub until: Option<Instant>,
}

/// Rows of containers, classes and families.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub table: &'static str,
    /// The expression for the reason: -1 where there is none.
    pub reason: &'static str,
    /// Whether the frozen rows of closed months answer for them.
    pub uses_closed: bool,
}

/// The key of a report's row. Class and family are -1 where the report does not split by them.
pub(crate) fn key(step: usize, container: i64, class: i64, family: i64) -> LineKey {
    (step, container, u8::try_from(class).ok(), u8::try_from(family).ok(), class != 0)
}

/// The reason of a row, which has -1 where there is none.
pub(crate) fn reason(value: i64) -> Option<i64> {
    (value >= 0).then_some(value)
}
