//! The ledger as its users hold it: a file, opened by the one writer of a node or by any number of readers.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};
use traffic_model::{
    ClassTableInfo, Snapshot,
    calendar::{Calendar, Retention},
};

use crate::{
    error::LedgerError,
    ids, migrate,
    time::reading_checks::DrainContext,
    wal_guard,
    write::{
        drain::{self, DrainOutcome},
        gaps::{self, Gap, GapReason},
        last_reading,
    },
};

/// How a ledger is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerConfig {
    /// Zone and billing day of the days and months that are kept for ever. Fixed when the file is made.
    pub calendar: Calendar,
    /// How long the finer levels are kept.
    pub retention: Retention,
    /// Beginnings of interface names by which a machine is told from a container.
    pub vm_interface_prefixes: Vec<String>,
}

impl Default for LedgerConfig {
    /// UTC, months from the first, 35 days and 13 months, Virtuozzo's and QEMU's names.
    fn default() -> Self {
        Self {
            calendar: Calendar::utc(),
            retention: Retention::default(),
            vm_interface_prefixes: ["vme", "tap", "vnet"].map(str::to_owned).to_vec(),
        }
    }
}

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    pub(crate) conn: Connection,
    path: PathBuf,
    pub(crate) calendar: Calendar,
    pub(crate) retention: Retention,
    vm_interface_prefixes: Vec<String>,
    /// Why the drains since the last good one failed.
    failing: Option<GapReason>,
}

impl Ledger {
    /// Opens the file for writing, makes it when it is not there, and brings it to the present schema. That only one process
    /// does so at a time is the caller's business; a second one would wait and then be refused, drain by drain.
    ///
    /// # Errors
    /// When the file cannot be opened or is of a newer version, or its days and months follow another calendar.
    pub fn open(path: &Path, config: LedgerConfig) -> Result<Self, LedgerError> {
        wal_guard::check(path)?;
        let conn = migrate::open(path)?;
        let calendar = config.calendar;
        match stored_calendar(&conn)? {
            // Both or none: killed in between, the ledger could not be opened any more. Where one is there already, nothing is
            // booked yet.
            None => {
                conn.execute(
                    "INSERT OR REPLACE INTO meta (key, value) VALUES ('zone', ?1), ('billing_day', ?2)",
                    params![calendar.zone_name(), calendar.billing_day()],
                )?;
            }
            Some((zone, day)) if zone == calendar.zone_name() && day == calendar.billing_day() => {}
            Some((stored_zone, stored_day)) => {
                let (zone, day) = (calendar.zone_name().to_owned(), calendar.billing_day());
                return Err(LedgerError::CalendarChanged { stored_zone, stored_day, zone, day });
            }
        }
        wal_guard::remember(path)?;
        Ok(Self {
            conn,
            path: path.to_owned(),
            calendar,
            retention: config.retention,
            vm_interface_prefixes: config.vm_interface_prefixes,
            failing: None,
        })
    }

    /// Opens the file for reading. Never blocks the writer and needs no copy.
    ///
    /// # Errors
    /// When the file cannot be opened or is not of this version.
    pub fn open_read_only(path: &Path) -> Result<Self, LedgerError> {
        wal_guard::check(path)?;
        let conn = migrate::open_read_only(path)?;
        let (zone, day) = stored_calendar(&conn)?.unwrap_or_else(|| ("UTC".to_owned(), 1));
        Ok(Self {
            conn,
            path: path.to_owned(),
            calendar: Calendar::new(&zone, day)?,
            retention: Retention::default(),
            vm_interface_prefixes: Vec::new(),
            failing: None,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Zone and billing day of the days and months that are kept.
    pub const fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// LedgerHandle everything that the reading holds beyond the last one. To be called with every reading, in their order.
    ///
    /// # Errors
    /// When nothing could be written; the next drain catches up and records why this one failed.
    pub fn drain(&mut self, snapshot: &Snapshot, context: DrainContext) -> Result<DrainOutcome, LedgerError> {
        let result =
            drain::run(&mut self.conn, snapshot, &context, self.failing, &self.vm_interface_prefixes);
        match result {
            Ok(mut outcome) => {
                self.failing = None;
                // Everything is safe in the log by now: what hinders this is no failure of the drain.
                outcome.checkpointed = self.checkpoint().unwrap_or(false);
                Ok(outcome)
            }
            Err(error) => {
                match error {
                    LedgerError::StaleReading { .. } => {}
                    LedgerError::Full(_) => self.failing = Some(GapReason::DiskFull),
                    _ => self.failing = self.failing.or(Some(GapReason::LedgerUnwritable)),
                }
                Err(error)
            }
        }
    }

    /// Notes why drains failed before this ledger was open, for the gap record of the next that succeeds.
    pub const fn failed_before(&mut self, reason: GapReason) {
        self.failing = Some(reason);
    }

    /// Moves the log into the main file, so that a plain copy of that is whole; false when a reader is in the way.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn checkpoint(&self) -> Result<bool, LedgerError> {
        // Without waiting: a reader keeps what it is reading, and the next drain comes soon.
        self.conn.busy_timeout(std::time::Duration::ZERO)?;
        let busy = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        self.conn.busy_timeout(migrate::BUSY_TIMEOUT)?;
        Ok(!busy?)
    }

    /// The gaps that touch a span of time; `None` is unlimited.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn gaps(&self, from: Option<Timestamp>, to: Option<Timestamp>) -> Result<Vec<Gap>, LedgerError> {
        gaps::list(&self.conn, from, to)
    }

    /// Keeps a class table in the form its owner wants it back, under its hash.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_class_table(&self, table: &ClassTableInfo, content: &[u8]) -> Result<(), LedgerError> {
        let id = ids::class_table(&self.conn, table)?;
        self.conn.execute(
            "UPDATE class_table SET content = ?2 WHERE id = ?1 AND content IS NULL",
            params![id, content],
        )?;
        Ok(())
    }

    /// The class table of a hash (in hexadecimal), if it was kept.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn class_table(&self, hash: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let find = "SELECT content FROM class_table WHERE hash = ?1";
        Ok(self.conn.query_row(find, [hash], |row| row.get(0)).optional()?.flatten())
    }

    /// The class table of the last reading, if it was kept.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_class_table(&self) -> Result<Option<Vec<u8>>, LedgerError> {
        let Some(past) = last_reading::latest_reading(&self.conn)? else { return Ok(None) };
        let find = "SELECT content FROM class_table WHERE id = ?1";
        Ok(self.conn.query_row(find, [past.class_table], |row| row.get(0)).optional()?.flatten())
    }

    /// Whether anything is booked under this id.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn knows_container(&self, name: &str) -> Result<bool, LedgerError> {
        let mut statement = self.conn.prepare_cached("SELECT 1 FROM container WHERE name = ?1")?;
        Ok(statement.exists([name])?)
    }

    /// Retires a container: the id is free for a new customer, and what it had stays under the label that is returned.
    /// Its slot in the kernel must have been drained and retired before; counters under the old slot's generation still belong to
    /// the old container.
    ///
    /// # Errors
    /// When no active container has this id, or the file cannot be written.
    pub fn retire(&self, container: &str, now: Timestamp) -> Result<String, LedgerError> {
        let label = format!("{container}@{:.0}", now.round(jiff::Unit::Second)?);
        let changed = self.conn.execute(
            "UPDATE container SET retired = ?2, label = ?3 WHERE name = ?1 AND retired IS NULL",
            params![container, now.as_second(), label],
        )?;
        if changed == 1 { Ok(label) } else { Err(LedgerError::UnknownContainer(container.to_owned())) }
    }

    /// Writes a whole copy of the ledger while it is in use.
    ///
    /// # Errors
    /// When the copy exists already or cannot be written.
    pub fn backup(&self, copy: &Path) -> Result<(), LedgerError> {
        migrate::copy_to(&self.conn, copy)
    }
}

fn stored_calendar(conn: &Connection) -> Result<Option<(String, u8)>, LedgerError> {
    let sql = "SELECT z.value, d.value FROM meta z, meta d WHERE z.key = 'zone' AND d.key = 'billing_day'";
    Ok(conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}
