//! A node that was reverted together with its memory: its counters went back to an earlier state. What they
//! counted since is not known, so that the first reading afterwards is only a new beginning.

use std::collections::HashSet;

use rusqlite::Connection;
use traffic_model::Snapshot;

use crate::{error::LedgerError, write::readings::LastReadings};

/// Deletes the readings of an epoch whose counters went back, and the lives that had not begun then.
pub(crate) fn delete_readings(conn: &Connection, epoch: i64, snapshot: &Snapshot) -> Result<(), LedgerError> {
    for (readings, lives) in [
        ("class_reading", "container_life"),
        ("fault_reading", "interface_life"),
        ("passed_reading", "interface_life"),
        ("drop_reading", "container_life"),
    ] {
        conn.execute(
            &format!("DELETE FROM {readings} WHERE life IN (SELECT id FROM {lives} WHERE epoch = ?1)"),
            [epoch],
        )?;
    }
    for lives in ["interface_life", "unseen_reading"] {
        conn.execute(&format!("DELETE FROM {lives} WHERE epoch = ?1"), [epoch])?;
    }
    let present: HashSet<(&str, u32)> =
        snapshot.counters.iter().map(|counter| (counter.container.as_str(), counter.generation)).collect();
    let last = LastReadings::load(conn, epoch)?;
    for ((name, generation), life) in &last.lives {
        if !present.contains(&(name.as_str(), *generation)) {
            conn.execute("DELETE FROM container_life WHERE id = ?1", [life.id])?;
        }
    }
    Ok(())
}
