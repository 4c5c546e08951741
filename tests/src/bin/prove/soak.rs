//! A soak run: mixed traffic while classes change, interfaces come and go and the daemon is killed.

use std::time::Duration;

use anyhow::{Result, bail};
use traffic_tests::soak;

use crate::bench::Bench;
use crate::evidence::{Evidence, Row};

/// The summary of this part.
pub const ABOUT: &str = "traffic of bridged and routed containers and a machine under reloads, churn and kills, \
    in the counters and in the ledger";

/// The length of the run. `cargo xtask soak` runs for any length.
const LENGTH: Duration = Duration::from_secs(120);

/// Runs the part.
pub fn run(_: &Bench, evidence: &mut Evidence) -> Result<()> {
    let summary = soak::run(LENGTH, |_| {})?;
    for row in &summary.rows {
        let sent = format!("all kinds of traffic for {} s", summary.seconds);
        for (place, figure) in [("counters", row.counted), ("ledger", row.booked)] {
            let case = format!("{}, by the {place}", row.what);
            evidence.row(Row::new(case, &sent, "the senders' own count").amounts(row.sent, figure));
        }
    }
    evidence.note(format!(
        "{} class tables loaded, {} interfaces created and removed, {} kills of the daemon",
        summary.reloads, summary.churned, summary.kills
    ));
    if let Some([first, second, last]) = summary.memory.thirds() {
        evidence.note(format!(
            "the last daemon's memory in the thirds of its life: {first}, {second}, {last} KiB"
        ));
    }
    let faults = summary.faults();
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(())
}
