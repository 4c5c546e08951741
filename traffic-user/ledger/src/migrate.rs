//! Opens a database file as a ledger: creates it, has an older one migrated (`migration`), or refuses it. A file
//! with a newer schema version is left untouched.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};
use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    io::Errno,
};

use crate::{
    digest,
    error::LedgerError,
    migration::{MIGRATIONS, Migrating, Migration, OnProgress, known_version},
    read_only, schema,
};

/// How long a writer waits for another writer before it fails.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two attempts where SQLite does not wait by itself.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Opens the file for reading and writing, in the current schema.
///
/// # Errors
/// When it cannot be opened, is not a ledger, or has a newer version.
pub fn open(path: &Path, progress: &OnProgress) -> Result<Connection, LedgerError> {
    open_with(path, MIGRATIONS, progress)
}

/// Opens the file for reading only. Older schema versions are refused as well as newer ones.
///
/// # Errors
/// When it cannot be opened, is not a ledger, or has another version.
pub fn open_read_only(path: &Path) -> Result<Connection, LedgerError> {
    known(read_only::open(path), path)
}

/// The same, in a process that may have the file open: see [`read_only::open_beside`].
pub fn open_beside(path: &Path) -> Result<Connection, LedgerError> {
    known(read_only::open_beside(path), path)
}

/// Refuses a file of another schema version.
fn known(opened: rusqlite::Result<Connection>, path: &Path) -> Result<Connection, LedgerError> {
    let conn = opened.map_err(|source| open_error(path, source))?;
    let known = known_version(MIGRATIONS);
    match version(&conn, path)? {
        found if found == known => Ok(conn),
        found if found > known => Err(LedgerError::Newer { found, known }),
        0 => Err(LedgerError::Empty),
        found => Err(LedgerError::Older { found, known }),
    }
}

fn open_with(
    path: &Path,
    migrations: &[Migration],
    progress: &OnProgress,
) -> Result<Connection, LedgerError> {
    read_only::require_regular(path).map_err(|source| open_error(path, source))?;
    let mut conn = Connection::open_with_flags(
        absolute(path),
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|source| open_error(path, source))?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // All plans follow from the schema. Otherwise a statement is prepared again whenever values are bound that
    // statistics could have something to say about.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // A drain and the maintenance after it use more statements than the default cache holds, and more than 64.
    conn.set_prepared_statement_cache_capacity(256);
    let known = known_version(migrations);
    let mut found = version(&conn, path)?;
    if found <= known {
        use_log(&conn)?;
    }
    if found == 0 {
        found = create(&mut conn, known)?;
    }
    if found < known {
        Migrating { path, migrations, progress }.run(&mut conn, found)?;
        found = version(&conn, path)?;
    }
    if found > known {
        return Err(LedgerError::Newer { found, known });
    }
    Ok(conn)
}

/// Creates the tables, unless another process did. Returns the version of the file.
fn create(conn: &mut Connection, known: i64) -> Result<i64, LedgerError> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if now > 0 {
        return Ok(now);
    }
    transaction.execute_batch(&schema::create())?;
    transaction.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known)?;
    digest::create(&transaction)?;
    transaction.commit()?;
    Ok(known)
}

/// Switches to the write-ahead log. SQLite does not wait for the lock that the first switch of a file needs.
pub(crate) fn use_log(conn: &Connection) -> Result<(), LedgerError> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    // The writer checkpoints after each drain; an automatic checkpoint would come at a worse time.
    let switch = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY;";
    loop {
        match conn.execute_batch(switch).map_err(LedgerError::from) {
            Err(LedgerError::Busy(_)) if Instant::now() < deadline => thread::sleep(BUSY_PAUSE),
            other => return other,
        }
    }
}

/// An absolute path: SQLite gives some relative names a meaning of their own, such as `:memory:` or `file:x`.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The file's schema version; 0 for an empty file.
fn version(conn: &Connection, path: &Path) -> Result<i64, LedgerError> {
    // At one moment: another process may be creating the tables.
    let view = conn.unchecked_transaction()?;
    let pragma = |name| view.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = pragma("user_version").map_err(|source| open_error(path, source))?;
    let ours = pragma("application_id")? == schema::APPLICATION_ID;
    let tables: i64 = view.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let empty = version == 0 && tables == 0;
    if ours || empty { Ok(version) } else { Err(LedgerError::Foreign { path: path.to_owned() }) }
}

/// Whether the file can be opened, without opening it: to close it again would release the locks that SQLite holds on it
/// for another connection.
fn may_read(path: &Path) -> rustix::io::Result<()> {
    accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS)
}

/// Why a file cannot be opened. SQLite names neither the file's permissions nor, for an immutable file, its
/// path.
pub fn open_error(path: &Path, source: rusqlite::Error) -> LedgerError {
    let reason = match LedgerError::from(source) {
        LedgerError::Sql(rusqlite::Error::SqliteFailure(_, Some(message)))
            if message == read_only::NOT_REGULAR =>
        {
            message
        }
        LedgerError::Sql(rusqlite::Error::SqliteFailure(error, _)) => match may_read(path) {
            Err(Errno::ACCESS) => "permission denied; run as root".to_owned(),
            Err(error) => error.to_string(),
            Ok(()) => rusqlite::ffi::code_to_str(error.extended_code).to_owned(),
        },
        LedgerError::Sql(source) => source.to_string(),
        other => return other,
    };
    LedgerError::Open { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use rusqlite::Transaction;

    use super::*;
    use crate::testing;

    fn quiet() -> OnProgress {
        std::sync::Arc::new(|_| {})
    }

    fn add_column(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        transaction.execute_batch("ALTER TABLE node ADD COLUMN place TEXT")
    }

    fn fail(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        add_column(transaction)?;
        transaction.execute_batch("SELECT nonsense FROM nowhere")
    }

    fn user_version(path: &Path) -> i64 {
        Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_older_ledger_is_migrated_after_a_backup() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.sqlite");
        let first = open_with(&path, &[], &quiet()).unwrap();
        first.execute_batch("INSERT INTO node (name) VALUES ('n1')").unwrap();
        first.execute_batch(&testing::as_version_5()).unwrap();
        first.pragma_update(None, "user_version", 1).unwrap();
        first
            .execute_batch(
                "DROP TABLE booked; DROP TABLE border; DROP TABLE clock; DROP TABLE closed_rate;
                 ALTER TABLE adjustment DROP COLUMN number",
            )
            .unwrap();
        drop(first);
        let migrations: Vec<Migration> =
            MIGRATIONS.iter().copied().chain([add_column as Migration]).collect();
        let conn = open_with(&path, &migrations, &quiet()).unwrap();
        let place: Option<String> = conn.query_row("SELECT place FROM node", [], |row| row.get(0)).unwrap();
        assert_eq!(place, None);
        assert_eq!(conn.query_row("SELECT count(*) FROM booked", [], |row| row.get(0)), Ok(0));
        assert_eq!(conn.query_row("SELECT count(number) FROM adjustment", [], |row| row.get(0)), Ok(0));
        assert_eq!(user_version(&path), 14);
        let backup = dir.path().join("ledger.sqlite.v1-backup");
        assert_eq!(user_version(&backup), 1);
        let name: String = Connection::open(backup)
            .unwrap()
            .query_row("SELECT name FROM node", [], |row| row.get(0))
            .unwrap();
        assert_eq!(name, "n1");
        assert!(matches!(open(&path, &quiet()), Err(LedgerError::Newer { found: 14, known: 13, .. })));
        assert!(matches!(open_read_only(&path), Err(LedgerError::Newer { found: 14, known: 13, .. })));
    }

    fn open_from_eight_threads(path: &Path, migrations: &'static [Migration]) {
        let barrier = std::sync::Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    drop(open_with(path, migrations, &quiet()).unwrap());
                });
            }
        });
    }

    #[test]
    fn of_several_processes_one_creates_or_migrates_and_the_others_wait() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ledger.sqlite");
            open_from_eight_threads(&path, &[]);
            assert_eq!(user_version(&path), 1);
            open_from_eight_threads(&path, &[add_column]);
            assert_eq!(user_version(&path), 2);
            let backup = dir.path().join("ledger.sqlite.v1-backup");
            assert_eq!(
                user_version(&backup),
                1,
                "the copy of the old version is not replaced by one of the new"
            );
            let columns = "SELECT count(*) FROM pragma_table_info('node')";
            let count = |file: &Path| -> i64 {
                Connection::open(file).unwrap().query_row(columns, [], |row| row.get(0)).unwrap()
            };
            assert_eq!(count(&path), count(&backup) + 1);
        }
    }

    #[test]
    fn a_failed_migration_leaves_the_ledger_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.sqlite");
        drop(open_with(&path, &[], &quiet()).unwrap());
        assert!(open_with(&path, &[fail], &quiet()).is_err());
        assert_eq!(user_version(&path), 1);
        assert!(open_with(&path, &[add_column], &quiet()).is_ok());
    }

    #[test]
    fn other_databases_and_other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = dir.path().join("foreign.sqlite");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        assert!(matches!(open(&foreign, &quiet()), Err(LedgerError::Foreign { .. })));
        let text = dir.path().join("text");
        std::fs::write(&text, "no database, but long enough to be looked at".repeat(100)).unwrap();
        assert!(matches!(open(&text, &quiet()), Err(LedgerError::Damaged(_))));
    }
}
