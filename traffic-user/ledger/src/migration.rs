//! Brings a file with an older schema to the current one.
//!
//! First the file is copied (`FILE.vN-backup`), without the write lock: whoever still writes the older schema
//! continues meanwhile. Then all steps run in one short transaction. What takes long afterwards is left to
//! maintenance: packing days (`days/pack`), and digests of ledgers from before version 5 (`digest/rebuild`).
//! An interruption at any moment leaves the older file, and the next attempt begins again.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{
    backup::{Existing, Partial},
    digest,
    error::LedgerError,
    migrate::{BUSY_PAUSE, BUSY_TIMEOUT, open_error},
    outbox, read_only, schema,
    time::borders,
};

/// The first version whose rows have digests.
const DIGESTS_SINCE: i64 = 5;
/// How many instructions SQLite executes between two looks at the progress of a copy.
const INSTRUCTIONS: i32 = 100_000;

/// One step from a schema version to the next.
pub(crate) type Migration = fn(&Transaction<'_>) -> rusqlite::Result<()>;

/// Element `n` migrates version `n + 1` to version `n + 2`. A released step never changes.
pub(crate) const MIGRATIONS: &[Migration] = &[
    |transaction| transaction.execute_batch(schema::CONTROL_TOTALS),
    |transaction| transaction.execute_batch(schema::ADJUSTMENT_NUMBER),
    |transaction| {
        transaction.execute_batch(schema::TIME)?;
        borders::store_existing(transaction)
    },
    // Ledgers of earlier versions got these tables when they were needed. Digests are begun after the last
    // step.
    |transaction| {
        transaction.execute_batch(schema::ACCOUNTED)?;
        transaction.execute_batch(schema::PVA_RANGES)
    },
    pack_days,
    |transaction| transaction.execute_batch(schema::ATTRIBUTION),
    |transaction| transaction.execute_batch(schema::NAMES_AND_OWNERS),
    |transaction| {
        transaction.execute_batch(schema::OUTBOX)?;
        outbox::fill(transaction)?;
        digest::created(transaction, &["outbox", "changes", "lineage"])
    },
    |transaction| transaction.execute_batch(schema::QUOTAS),
    |transaction| {
        transaction.execute_batch(&schema::drop_views())?;
        transaction.execute_batch(&schema::views(&schema::KINDS_BEFORE_12))
    },
    |transaction| transaction.execute_batch(&schema::add_drops()),
    |transaction| transaction.execute_batch(&(schema::chain_keys() + ";" + schema::CALIBRATIONS)),
];

/// Makes room for packed days. The next maintenance packs the days that are over, little by little, while
/// drains continue.
fn pack_days(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    // Somebody's own views of these tables show both forms afterwards.
    transaction.execute_batch("PRAGMA legacy_alter_table = ON; DROP VIEW IF EXISTS log_data")?;
    let mut renamed = Vec::new();
    for (kind, level) in schema::packed_levels(&schema::KINDS_BEFORE_12) {
        let (table, rows) = (kind.table(level), kind.rows_table(level));
        transaction.execute_batch(&format!("ALTER TABLE {table} RENAME TO {rows}"))?;
        renamed.push((table, rows));
    }
    if transaction.table_exists(None, "digest")? {
        renamed.iter().try_for_each(|(from, to)| digest::rename(transaction, from, to))?;
    }
    transaction.execute_batch(&schema::packed_days(&schema::KINDS_BEFORE_12))?;
    transaction.execute_batch(&schema::views(&schema::KINDS_BEFORE_12))?;
    transaction.execute_batch("PRAGMA legacy_alter_table = OFF")
}

/// What takes long when a ledger is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationProgress {
    /// It waits for another process that migrates the same file.
    Waiting,
    /// It copies the file.
    Copying {
        /// Bytes of the copy that are written.
        done: u64,
        /// Bytes that the copy will have, roughly.
        total: u64,
    },
    /// It changes the schema, in one transaction.
    Changing,
    /// It audits a file that is a copy, which happens before the first write into any copy.
    Auditing,
}

impl fmt::Display for MigrationProgress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Waiting => write!(formatter, "waiting for another process that migrates the ledger"),
            Self::Copying { done, total } => {
                let percent = done.saturating_mul(100) / total.max(1);
                write!(formatter, "copying the ledger before its migration: {} %", percent.min(100))
            }
            Self::Changing => write!(formatter, "migrating the ledger"),
            Self::Auditing => write!(formatter, "auditing the ledger, which is a copy or was restored"),
        }
    }
}

/// Is called with the progress of a migration, many times per second while it copies.
pub type OnProgress = Arc<dyn Fn(MigrationProgress) + Send + Sync>;

/// An older file that is being migrated.
pub(crate) struct Migrating<'a> {
    pub path: &'a Path,
    pub migrations: &'a [Migration],
    pub progress: &'a OnProgress,
}

impl Migrating<'_> {
    /// Migrates the file of a writing connection from version `found`, unless another process does.
    ///
    /// # Errors
    /// When the copy or the file cannot be written, or another process takes too long.
    pub fn run(&self, conn: &mut Connection, mut found: i64) -> Result<(), LedgerError> {
        let deadline = Instant::now() + BUSY_TIMEOUT;
        let known = known_version(self.migrations);
        while found < known {
            let copy = PathBuf::from(format!("{}.v{found}-backup", self.path.display()));
            // Held to the end: of several processes one migrates, and the others wait for its directory.
            match Partial::create(&copy) {
                Ok(partial) => {
                    // Another process may have migrated it before this one got the directory.
                    let is_copied = version(conn)? == found && self.copy(&partial, &copy, found)?;
                    if is_copied && self.change(conn, found)? {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    if Instant::now() >= deadline {
                        return Err(LedgerError::Migrating { known });
                    }
                    (self.progress)(MigrationProgress::Waiting);
                    thread::sleep(BUSY_PAUSE);
                }
                Err(source) => return Err(LedgerError::Backup { path: copy, source }),
            }
            found = version(conn)?;
        }
        Ok(())
    }

    /// Copies the file as it is now. Returns false if it has another version by now.
    fn copy(&self, partial: &Partial, copy: &Path, found: i64) -> Result<bool, LedgerError> {
        let mut reader = read_only::open(self.path).map_err(|source| open_error(self.path, source))?;
        let total: i64 = reader.query_row(
            "SELECT (c.page_count - f.freelist_count) * s.page_size
             FROM pragma_page_count c, pragma_freelist_count f, pragma_page_size s",
            [],
            |row| row.get(0),
        )?;
        let total = total.unsigned_abs();
        let (progress, target) = (Arc::clone(self.progress), partial.path());
        let show = move || {
            let done = fs::metadata(&target).map_or(0, |file| file.len());
            progress(MigrationProgress::Copying { done, total });
            false
        };
        show();
        reader.progress_handler(INSTRUCTIONS, Some(show))?;
        partial.write(&reader)?;
        let copied = Connection::open(partial.path())?;
        let copied: i64 = copied.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if copied == found {
            // An interrupted migration may have left a copy, which the new one replaces.
            let failed = |source| LedgerError::Backup { path: copy.to_owned(), source };
            partial.publish(copy, Existing::Replace).map_err(failed)?;
        }
        Ok(copied == found)
    }

    /// Runs all steps in one transaction. Returns false if the file has another version by now.
    fn change(&self, conn: &mut Connection, found: i64) -> Result<bool, LedgerError> {
        (self.progress)(MigrationProgress::Changing);
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if version(&transaction)? != found {
            return Ok(false);
        }
        for (to, migration) in (2_i64..).zip(self.migrations).skip_while(|&(to, _)| to <= found) {
            migration(&transaction)?;
            transaction.pragma_update(None, "user_version", to)?;
        }
        if found < DIGESTS_SINCE {
            digest::begin(&transaction)?;
        } else {
            digest::schema_changed(&transaction)?;
        }
        transaction.commit()?;
        Ok(true)
    }
}

/// The version that these steps lead to.
pub(crate) fn known_version(migrations: &[Migration]) -> i64 {
    i64::try_from(migrations.len()).unwrap_or(i64::MAX) + 1
}

fn version(conn: &Connection) -> Result<i64, LedgerError> {
    Ok(conn.pragma_query_value(None, "user_version", |row| row.get(0))?)
}
