//! The open ledger file. One process per node writes it; any number of readers may open it at the same time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::{Timestamp, civil::Date};
use rusqlite::{Connection, OptionalExtension as _, params};
use traffic_model::{
    ClassTableInfo, Snapshot,
    calendar::{Calendar, Retention},
};

use crate::{
    backup::{self, Existing},
    closing::delivered,
    digest::{self, Rebuild},
    error::LedgerError,
    identity, ids, migrate,
    migration::OnProgress,
    query::{limits::QueryLimits, stored::StoredRows},
    read_only,
    time::{
        borders::{Borders, stored_calendar},
        reading_checks::DrainContext,
        unknown_zone::with_substitute,
    },
    wal_guard::{self, InUse, OpenFiles},
    write::{
        drain::{self, DrainOutcome, DrainSettings},
        gaps::{self, Gap, GapReason},
        last_reading, names,
    },
};

/// Moves the log into the main file and empties it.
const CHECKPOINT: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

/// Settings of a ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerConfig {
    /// Time zone and billing day of the stored days and months. Fixed when the file is created.
    pub calendar: Calendar,
    /// How long the finer levels are kept.
    pub retention: Retention,
    /// Interface name prefixes that identify a virtual machine.
    pub vm_interface_prefixes: Vec<String>,
    /// A name of this machine that no other has, if one is known. A ledger continues only on its own machine.
    pub machine: Option<String>,
    /// Whether a ledger of another machine continues on this one, under a new id.
    pub adopt: bool,
    /// Classes that are billed by what was delivered, not by what was counted.
    pub delivered: BTreeSet<u8>,
}

impl Default for LedgerConfig {
    /// UTC, months from day 1, 35 days and 13 months, and the interface prefixes of Virtuozzo and QEMU.
    fn default() -> Self {
        Self {
            calendar: Calendar::utc(),
            retention: Retention::default(),
            vm_interface_prefixes: ["vme", "tap", "vnet"].map(str::to_owned).to_vec(),
            machine: None,
            adopt: false,
            delivered: BTreeSet::new(),
        }
    }
}

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    pub(crate) conn: Connection,
    path: PathBuf,
    /// How long it waits for another writer.
    patience: Duration,
    pub(crate) calendar: Calendar,
    pub(crate) retention: Retention,
    /// From when on five-minute rows stay, however old they are, in Unix seconds.
    pub(crate) held_from: Option<i64>,
    vm_interface_prefixes: Vec<String>,
    /// Why the drains since the last successful one failed.
    pub(crate) failing: Option<GapReason>,
    pub(crate) noted: Vec<Gap>,
    /// What people call the containers now, by id.
    pub(crate) names: BTreeMap<String, String>,
    /// The files that a writing connection uses.
    files: Option<OpenFiles>,
    pub(crate) digests: Rebuild,
    pub(crate) limits: QueryLimits,
    /// Adds up the rows, if they are in a store.
    pub(crate) stored: Option<Box<dyn StoredRows>>,
    /// Whether this process may have the file open otherwise too.
    pub(crate) beside_writer: bool,
    _in_use: InUse,
}

impl Ledger {
    /// Opens the file for writing, creates it if it does not exist, and migrates it to the current schema.
    ///
    /// The caller makes sure that only one process writes. A second writer would wait for the lock and then
    /// fail on each drain.
    ///
    /// # Errors
    /// When the file cannot be opened, has a newer schema, follows another calendar, is an incomplete copy, or
    /// belongs to another machine.
    pub fn open(path: &Path, config: LedgerConfig) -> Result<Self, LedgerError> {
        Self::open_with_progress(path, config, &(Arc::new(|_| {}) as OnProgress))
    }

    /// As [`Ledger::open`], with the progress of a migration.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn open_with_progress(
        path: &Path,
        config: LedgerConfig,
        progress: &OnProgress,
    ) -> Result<Self, LedgerError> {
        Self::open_by(path, config, progress, |path| {
            let mut conn = migrate::open(path, progress)?;
            digest::follow(&mut conn)?;
            Ok(conn)
        })
    }

    /// As [`Ledger::open_with_progress`], by a connection that notes its changes: in the simulator, one that exists.
    pub(crate) fn open_by(
        path: &Path,
        config: LedgerConfig,
        progress: &OnProgress,
        connect: impl FnOnce(&Path) -> Result<Connection, LedgerError>,
    ) -> Result<Self, LedgerError> {
        // Before anything opens it: a FIFO would never be opened.
        read_only::require_regular(path).map_err(|source| migrate::open_error(path, source))?;
        wal_guard::check(path)?;
        let in_use = InUse::begin_writing();
        if in_use.is_alone() {
            wal_guard::check_before_writing(path)?;
        }
        let was_lost = wal_guard::was_lost(path);
        // The zone may have become known since the configuration was read.
        let calendar = config.calendar.with_current_rules();
        if !calendar.zone_is_known() && fs::metadata(path).map_or(0, |file| file.len()) == 0 {
            // A name that was mistyped would stay in the new file for good.
            return Err(LedgerError::UnknownZone(calendar.zone_name().to_owned()));
        }
        let conn = connect(path)?;
        let calendar = with_substitute(&conn, calendar)?;
        match stored_calendar(&conn)? {
            // One statement writes both values. If the process were killed between two, the ledger could not
            // be opened again. A file that holds only one of them contains no figures yet.
            None if !calendar.zone_is_known() => {
                return Err(LedgerError::UnknownZone(calendar.zone_name().to_owned()));
            }
            None => {
                digest::change(&conn, |transaction| {
                    Ok(transaction.execute(
                        "INSERT OR REPLACE INTO meta (key, value) VALUES ('zone', ?1), ('billing_day', ?2)",
                        params![calendar.zone_name(), calendar.billing_day()],
                    )?)
                })?;
            }
            Some((zone, day)) if zone == calendar.zone_name() && day == calendar.billing_day() => {}
            // The zone under its former or its current name.
            Some((zone, day)) if calendar.is_same(&zone, day) => {
                let rename = "UPDATE meta SET value = ?1 WHERE key = 'zone'";
                digest::change(
                    &conn,
                    |transaction| Ok(transaction.execute(rename, [calendar.zone_name()])?),
                )?;
            }
            Some((stored_zone, stored_day)) => {
                let (zone, day) = (calendar.zone_name().to_owned(), calendar.billing_day());
                return Err(LedgerError::CalendarChanged { stored_zone, stored_day, zone, day });
            }
        }
        identity::give_id(&conn)?;
        if was_lost {
            digest::change(&conn, |transaction| gaps::insert_lost_ledger(transaction, Timestamp::now()))?;
        }
        wal_guard::remember(path)?;
        let ledger = Self {
            conn,
            path: path.to_owned(),
            patience: migrate::BUSY_TIMEOUT,
            calendar,
            retention: config.retention,
            held_from: None,
            vm_interface_prefixes: config.vm_interface_prefixes,
            failing: None,
            noted: Vec::new(),
            names: BTreeMap::new(),
            files: Some(OpenFiles::note(path)?),
            digests: Rebuild::default(),
            limits: QueryLimits::default(),
            stored: None,
            beside_writer: true,
            _in_use: in_use,
        };
        identity::check(&ledger, config.machine.as_deref(), config.adopt, progress)?;
        ledger.bill_delivered(&config.delivered)?;
        ledger.keep_found()?;
        Ok(ledger)
    }

    /// Bills these classes by what was delivered, in months that are not closed yet, and all others by what was
    /// counted.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn bill_delivered(&self, classes: &BTreeSet<u8>) -> Result<(), LedgerError> {
        self.check_files()?;
        delivered::store(&self.conn, classes)
    }

    /// Opens the file for reading. A reader never blocks the writer.
    ///
    /// # Errors
    /// When the file cannot be opened or has another schema version.
    pub fn open_read_only(path: &Path) -> Result<Self, LedgerError> {
        Self::open_reader(path, false)
    }

    /// Opens the file for reading in a process that may have it open for writing.
    ///
    /// # Errors
    /// As for [`Ledger::open_read_only`], and where this user may not write beside the file.
    pub fn open_beside_writer(path: &Path) -> Result<Self, LedgerError> {
        Self::open_reader(path, true)
    }

    fn open_reader(path: &Path, beside_writer: bool) -> Result<Self, LedgerError> {
        wal_guard::check(path)?;
        let in_use = InUse::begin();
        // Looking for other processes would release the locks of this one.
        let beside_writer = beside_writer || InUse::is_writing();
        let open = if beside_writer { migrate::open_beside } else { migrate::open_read_only };
        let conn = open(path)?;
        let (zone, day) = stored_calendar(&conn)?.unwrap_or_else(|| ("UTC".to_owned(), 1));
        // The borders of everything that was booked are in the file, so this machine need not know the zone.
        let calendar = with_substitute(&conn, Calendar::new_or_unknown(&zone, day)?)?;
        Ok(Self { path: path.to_owned(), beside_writer, ..Self::to_read(conn, calendar, in_use) })
    }

    /// Of a connection that is no file, whose rows are in a store.
    pub(crate) fn in_memory(conn: Connection, calendar: Calendar, rows: Box<dyn StoredRows>) -> Self {
        Self { stored: Some(rows), ..Self::to_read(conn, calendar, InUse::begin()) }
    }

    /// What all readers have.
    fn to_read(conn: Connection, calendar: Calendar, in_use: InUse) -> Self {
        Self {
            conn,
            path: PathBuf::new(),
            patience: migrate::BUSY_TIMEOUT,
            calendar,
            retention: Retention::default(),
            held_from: None,
            vm_interface_prefixes: Vec::new(),
            failing: None,
            noted: Vec::new(),
            names: BTreeMap::new(),
            files: None,
            digests: Rebuild::default(),
            limits: QueryLimits::default(),
            stored: None,
            beside_writer: false,
            _in_use: in_use,
        }
    }

    /// Sets how long the finer levels are kept, for the preview of an import.
    pub const fn set_retention(&mut self, retention: Retention) {
        self.retention = retention;
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Time zone and billing day of the stored days and months.
    pub const fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// The first instant of a date in the ledger's zone, as the ledger booked it.
    ///
    /// # Errors
    /// When the file cannot be read or the date is out of range.
    pub fn date_start(&self, date: Date) -> Result<Timestamp, LedgerError> {
        Ok(Timestamp::from_second(Borders::new(&self.conn, &self.calendar).date_start(date)?)?)
    }

    /// Writes what the counters grew by since the last reading. Pass every reading, in order.
    ///
    /// # Errors
    /// When nothing could be written. The next drain catches up and records why this one failed.
    pub fn drain(&mut self, snapshot: &Snapshot, context: DrainContext) -> Result<DrainOutcome, LedgerError> {
        // tzdata may have been updated while this process runs.
        self.calendar = self.calendar.with_current_rules();
        let checked = self.check_files();
        let settings = DrainSettings {
            calendar: &self.calendar,
            failing: self.failing,
            noted: &self.noted,
            names: &self.names,
            vm_prefixes: &self.vm_interface_prefixes,
        };
        let result = checked.and_then(|()| drain::run(&mut self.conn, snapshot, &context, settings));
        match result {
            Ok(mut outcome) => {
                self.failing = None;
                self.noted.clear();
                // The write-ahead log already holds everything, so a failed checkpoint is not a failed drain.
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

    /// The file that was removed or replaced since this ledger was opened for writing, if one was: the ledger
    /// itself, its log or the log's index.
    pub fn replaced_file(&self) -> Option<&Path> {
        self.files.as_ref().and_then(OpenFiles::replaced)
    }

    /// Whether the ledger's own file is no longer at its path. It then still has its log.
    pub fn was_moved(&self) -> bool {
        self.files.as_ref().is_some_and(OpenFiles::ledger_was_moved)
    }

    /// Refuses to write into files that nobody else would see. Called before each write.
    pub(crate) fn check_files(&self) -> Result<(), LedgerError> {
        self.replaced_file().map_or(Ok(()), |path| Err(LedgerError::Replaced { path: path.to_owned() }))
    }

    /// Closes a ledger whose log or index was removed or replaced. The files at these paths stay as they are:
    /// they may hold what another process wrote, and what is only in the removed log is drained again.
    pub fn close_without_log(self) {
        let keep = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        if let Err(error) = self.conn.set_db_config(keep, true) {
            tracing::warn!("cannot close the ledger {} without its log: {error}", self.path.display());
        }
    }

    /// The ledger's random id. A copy or a restored backup has the same one.
    ///
    /// # Errors
    /// When the file cannot be read, or was never opened for writing by a version that gives ids.
    pub fn id(&self) -> Result<String, LedgerError> {
        let find = "SELECT value FROM meta WHERE key = 'ledger_id'";
        Ok(self.conn.prepare_cached(find)?.query_row([], |row| row.get(0))?)
    }

    /// Whether a drain of this counter epoch was written to this ledger.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn has_drained(&self, boot_id: &str, epoch: u64) -> Result<bool, LedgerError> {
        ids::has_drained(&self.conn, boot_id, epoch)
    }

    /// Waits no longer than this for another writer: for callers that others wait for. Five seconds otherwise.
    ///
    /// # Errors
    /// When SQLite does not take the time.
    pub fn set_patience(&mut self, patience: Duration) -> Result<(), LedgerError> {
        self.patience = patience;
        Ok(self.conn.busy_timeout(patience)?)
    }

    /// Moves the write-ahead log into the main file, so that a plain copy of the file is complete. Returns
    /// false if a reader prevented that.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn checkpoint(&self) -> Result<bool, LedgerError> {
        // Do not wait for readers: the next drain comes soon.
        self.conn.busy_timeout(Duration::ZERO)?;
        let busy = self.conn.query_row(CHECKPOINT, [], |row| row.get::<_, bool>(0));
        self.conn.busy_timeout(self.patience)?;
        Ok(!busy?)
    }

    /// Has the disk keep what a killed process left. Its last change may be in the log, and nowhere but in the
    /// system's memory: others who have seen it would find it gone after a power failure.
    fn keep_found(&self) -> Result<(), LedgerError> {
        match self.checkpoint() {
            // It is as safe as before. The next drain tries again.
            Err(error @ LedgerError::Full(_)) => {
                tracing::warn!("cannot write the log into {}: {error}", self.path.display());
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Makes sure that a change that cannot be made again is not lost with the log: moves it into the main file, for
    /// which it waits for readers. Called after such a change was committed and before anybody is told of it.
    ///
    /// # Errors
    /// With [`LedgerError::Replaced`] when a file was removed or replaced meanwhile, and when the file cannot be
    /// written. The change may be lost then.
    pub(crate) fn keep_for_good(&self) -> Result<(), LedgerError> {
        let is_moved = !self.conn.query_row(CHECKPOINT, [], |row| row.get::<_, bool>(0))?;
        self.check_files()?;
        if !is_moved {
            tracing::warn!(
                "the last change is only in the log of {} while another process reads; do not remove the log",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Stores a class table under its hash, as the text that its owner loaded.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn store_class_table(&self, table: &ClassTableInfo, content: &[u8]) -> Result<(), LedgerError> {
        self.check_files()?;
        digest::change(&self.conn, |transaction| {
            let id = ids::class_table(transaction, table)?;
            transaction.execute(
                "UPDATE class_table SET content = ?2 WHERE id = ?1 AND content IS NULL",
                params![id, content],
            )?;
            Ok(())
        })
    }

    /// The text of the class table with this hash (hexadecimal), if it was stored.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn class_table(&self, hash: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let find = "SELECT content FROM class_table WHERE hash = ?1";
        Ok(self.conn.query_row(find, [hash], |row| row.get(0)).optional()?.flatten())
    }

    /// The text of the class table of the last reading, if it was stored.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_class_table(&self) -> Result<Option<Vec<u8>>, LedgerError> {
        let Some(last) = last_reading::latest_reading(&self.conn)? else { return Ok(None) };
        let find = "SELECT content FROM class_table WHERE id = ?1";
        Ok(self.conn.query_row(find, [last.class_table], |row| row.get(0)).optional()?.flatten())
    }

    /// Whether the ledger has figures under this id.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn knows_container(&self, name: &str) -> Result<bool, LedgerError> {
        let mut statement = self.conn.prepare_cached("SELECT 1 FROM container WHERE name = ?1")?;
        Ok(statement.exists([name])?)
    }

    /// Whether a container of this label is recorded, retired or not.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn has_label(&self, label: &str) -> Result<bool, LedgerError> {
        let mut statement = self.conn.prepare_cached("SELECT 1 FROM container WHERE label = ?1")?;
        Ok(statement.exists([label])?)
    }

    /// Retires a container: its id becomes free for a new customer. Returns the label that keeps its figures.
    ///
    /// Drain and retire its kernel slot first. Counters of the old slot's generation stay the old
    /// container's.
    ///
    /// # Errors
    /// When no active container has this id, or the file cannot be written.
    pub fn retire(&self, container: &str, now: Timestamp) -> Result<String, LedgerError> {
        self.check_files()?;
        let label = format!("{container}@{:.0}", now.round(jiff::Unit::Second)?);
        let retired = digest::change(&self.conn, |transaction| {
            let is_active = "SELECT 1 FROM container WHERE name = ?1 AND retired IS NULL";
            if !transaction.prepare_cached(is_active)?.exists([container])? {
                return Err(LedgerError::UnknownContainer(container.to_owned()));
            }
            if transaction.prepare_cached("SELECT 1 FROM container WHERE label = ?1")?.exists([&label])? {
                return Err(LedgerError::JustRetired { container: container.to_owned(), label });
            }
            let number = "SELECT id FROM container WHERE name = ?1 AND retired IS NULL";
            let number = transaction.prepare_cached(number)?.query_row([container], |row| row.get(0))?;
            names::close(transaction, number, now.as_second())?;
            transaction.execute(
                "UPDATE container SET retired = ?2, label = ?3 WHERE name = ?1 AND retired IS NULL",
                params![container, now.as_second(), label],
            )?;
            Ok(label)
        })?;
        self.keep_for_good()?;
        Ok(retired)
    }

    /// Writes a complete copy of the ledger while it is in use.
    ///
    /// # Errors
    /// When the copy already exists or cannot be written.
    pub fn backup(&self, copy: &Path) -> Result<(), LedgerError> {
        backup::copy_to(&self.conn, copy, Existing::Keep)
    }
}
