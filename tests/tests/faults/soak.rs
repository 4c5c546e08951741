//! The short form of the soak run.

use std::time::Duration;

use anyhow::{Result, ensure};
use traffic_tests::evidence::compare;
use traffic_tests::soak;

#[test]
fn mixed_traffic_under_disturbances_is_exact_in_counters_and_ledger() -> Result<()> {
    let mut reports = 0;
    let summary = soak::run(Duration::from_secs(12), |_| reports += 1)?;
    for row in &summary.rows {
        compare(&format!("{}, by the counters", row.what), "the senders", row.sent, row.counted)?;
        compare(&format!("{}, by the ledger", row.what), "the senders", row.sent, row.booked)?;
    }
    ensure!(summary.faults().is_empty(), "{:#?}", summary.faults());
    ensure!(summary.kills > 0 && summary.reloads > 0 && summary.churned > 0 && reports > 0, "{summary:#?}");
    Ok(())
}
