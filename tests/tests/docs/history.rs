//! A month of history in the ledger of a node, by the way a user has: PVA's database, imported.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result};
use traffic_tests::process::run_ok;

use crate::node::Node;

/// 1 October 2026, 00:00 UTC.
const FIRST: i64 = 1_790_812_800;
const DAY: i64 = 86_400;

/// How far the history reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The end of October. What follows is a gap.
    TheEndOfTheMonth,
    /// The moment when the counters began.
    OurCounters,
}

/// Imports a sample for each day from October 2026: containers 101 and 102, with different figures in each
/// direction. The figures of October are always the same.
///
/// # Errors
///
/// When there is no ledger yet, or the import fails.
pub fn import(node: &Node, until: Until) -> Result<()> {
    let query = "SELECT min(created) FROM epoch";
    let begin = node.run("sqlite3", &["-readonly", "/var/lib/trafctl/ledger.sqlite", query])?;
    let begin: i64 = begin.trim().parse().with_context(|| format!("the start of the counters: {begin}"))?;
    let mut sql = String::from(
        "CREATE TABLE log_def (id, eid, lclass, instance, counter); CREATE TABLE log_data (id, startTime, avg);",
    );
    let counters = [
        ("counter_net_incoming_bytes", 7_111_222_333_i64),
        ("counter_net_outgoing_bytes", 9_333_444_555),
        ("counter_net_incoming_packets", 7_654_321),
        ("counter_net_outgoing_packets", 8_765_432),
    ];
    let series = ["101", "102"].into_iter().flat_map(|id| counters.map(|(counter, day)| (id, counter, day)));
    for (index, (container, counter, day)) in (0_i64..).zip(series) {
        write!(
            sql,
            "INSERT INTO log_def VALUES ({index}, '{container}', 'counters_vz_net', '', '{counter}');"
        )?;
        let amount = if container == "101" { day } else { day / 3 };
        let (days, last) = match until {
            Until::TheEndOfTheMonth => (30, None),
            Until::OurCounters => ((begin - FIRST) / DAY, Some(begin - 2)),
        };
        for time in (0..=days).map(|day| FIRST + day * DAY).chain(last) {
            write!(sql, "INSERT INTO log_data VALUES ({index}, {time}, {amount});")?;
        }
    }
    run_ok(Command::new("sqlite3").arg(node.path("var/tmp/pva.db")).arg(&sql))?;
    node.run("trafctl", &["ledger", "import-pva", "/var/tmp/pva.db", "--class", "1", "--yes"]).map(drop)
}
