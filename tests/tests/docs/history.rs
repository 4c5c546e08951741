//! A month of history in the ledger of a node, by the way a user has: PVA's database, imported.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Result;
use traffic_tests::process::run_with_input;

use crate::node::Node;

/// 1 October 2026, 00:00 UTC.
const FIRST: i64 = 1_790_812_800;
/// The hours of October. A sample of an hour lies in one day of any zone, so the sums stay the same when the
/// ledger keeps only days of this month.
const HOURS: i64 = 31 * 24;
const HOUR: i64 = 3600;

/// What container 101 has each hour. Container 102 has a third of it.
const COUNTERS: [(&str, i64); 4] = [
    ("counter_net_incoming_bytes", 311_222_333),
    ("counter_net_outgoing_bytes", 433_444_555),
    ("counter_net_incoming_packets", 354_321),
    ("counter_net_outgoing_packets", 465_432),
];

/// Imports October 2026. What follows until the counters began is a gap.
///
/// # Errors
///
/// When there is no ledger yet, or the import fails.
pub fn import(node: &Node) -> Result<()> {
    let mut sql = String::from(
        "BEGIN; CREATE TABLE log_def (id, eid, lclass, instance, counter); CREATE TABLE log_data (id, startTime, avg);",
    );
    let series = [("101", 1), ("102", 3)].into_iter().flat_map(|id| COUNTERS.map(|counter| (id, counter)));
    for (index, ((container, part), (counter, of_hour))) in series.enumerate() {
        write!(
            sql,
            "INSERT INTO log_def VALUES ({index}, '{container}', 'counters_vz_net', '', '{counter}');"
        )?;
        for hour in 0..HOURS {
            let (time, amount) = (FIRST + hour * HOUR, of_hour / part);
            write!(sql, "INSERT INTO log_data VALUES ({index}, {time}, {amount});")?;
        }
    }
    sql += "COMMIT;";
    run_with_input(Command::new("sqlite3").arg(node.path("var/tmp/pva.db")), &sql)?;
    node.run("trafctl", &["ledger", "import-pva", "/var/tmp/pva.db", "--class", "1", "--yes"]).map(drop)
}
