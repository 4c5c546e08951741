//! Opens a database file as a ledger: creates it, migrates it to the current schema, or refuses it.
//!
//! Only this file deals with schema versions. A file with a newer version is refused and left untouched. A
//! file with an older one is first copied (`FILE.vN-backup`); all its migrations then run in one transaction.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::{error::LedgerError, schema};

/// How long a writer waits for another writer before it fails.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// One step from a schema version to the next.
pub type Migration = fn(&Transaction<'_>) -> rusqlite::Result<()>;

/// Element `n` migrates version `n + 1` to version `n + 2`. A released step never changes.
const MIGRATIONS: &[Migration] = &[
    |transaction| transaction.execute_batch(schema::CONTROL_TOTALS),
    |transaction| transaction.execute_batch(schema::ADJUSTMENT_NUMBER),
];

/// Opens the file for reading and writing, in the current schema.
///
/// # Errors
/// When it cannot be opened, is not a ledger, or has a newer version.
pub fn open(path: &Path) -> Result<Connection, LedgerError> {
    open_with(path, MIGRATIONS)
}

/// Opens the file for reading only. Older schema versions are refused as well as newer ones.
///
/// # Errors
/// When it cannot be opened, is not a ledger, or has another version.
pub fn open_read_only(path: &Path) -> Result<Connection, LedgerError> {
    let conn = open_file_read_only(path).map_err(|source| open_error(path, source))?;
    let known = known_version(MIGRATIONS);
    match version(&conn, path)? {
        found if found == known => Ok(conn),
        found if found > known => Err(LedgerError::Newer { found, known }),
        found => Err(LedgerError::Older { found, known }),
    }
}

/// Opens any SQLite database for reading only.
///
/// # Errors
/// When it cannot be opened or is not a database.
pub fn open_file_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let open = |flags: OpenFlags, name: &Path| {
        let conn = Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map(|()| conn)
    };
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
    match open(read_only, path) {
        // SQLite cannot create its shared-memory file in a directory that this user may not write. If no
        // writer left anything in the log, the main file is complete and can be read as immutable.
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen) && log_is_empty(path) =>
        {
            let name = format!("file:{}?immutable=1", percent_encoded(path));
            open(read_only | OpenFlags::SQLITE_OPEN_URI, Path::new(&name))
        }
        other => other,
    }
}

fn open_with(path: &Path, migrations: &[Migration]) -> Result<Connection, LedgerError> {
    let mut conn = Connection::open(path).map_err(|source| open_error(path, source))?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // A drain uses more statements than the default cache holds.
    conn.set_prepared_statement_cache_capacity(64);
    let known = known_version(migrations);
    let found = version(&conn, path)?;
    if found > known {
        return Err(LedgerError::Newer { found, known });
    }
    // The writer checkpoints after each drain; an automatic checkpoint would come at a worse time.
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY;",
    )?;
    if found == known {
        conn.execute_batch(schema::ACCOUNTED)?;
        return Ok(conn);
    }
    if found > 0 {
        back_up(&conn, path, found)?;
    }
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have migrated it while this one waited for the lock.
    let now: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if now == 0 {
        transaction.execute_batch(&schema::create())?;
        transaction.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", known)?;
    } else {
        for (to, migration) in (2_i64..).zip(migrations).skip_while(|&(to, _)| to <= now) {
            migration(&transaction)?;
            transaction.pragma_update(None, "user_version", to)?;
        }
    }
    transaction.execute_batch(schema::ACCOUNTED)?;
    transaction.commit()?;
    Ok(conn)
}

fn known_version(migrations: &[Migration]) -> i64 {
    i64::try_from(migrations.len()).unwrap_or(i64::MAX) + 1
}

/// The file's schema version; 0 for an empty file.
fn version(conn: &Connection, path: &Path) -> Result<i64, LedgerError> {
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = pragma("user_version").map_err(|source| open_error(path, source))?;
    let ours = pragma("application_id")? == schema::APPLICATION_ID;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let empty = version == 0 && tables == 0;
    if ours || empty { Ok(version) } else { Err(LedgerError::Foreign { path: path.to_owned() }) }
}

/// Why a file cannot be opened. SQLite names neither the file's permissions nor, for an immutable file, its
/// path.
pub fn open_error(path: &Path, source: rusqlite::Error) -> LedgerError {
    let reason = match LedgerError::from(source) {
        LedgerError::Sql(rusqlite::Error::SqliteFailure(error, _)) => match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "permission denied; run as root".to_owned()
            }
            Err(error) => error.to_string(),
            Ok(_) => rusqlite::ffi::code_to_str(error.extended_code).to_owned(),
        },
        LedgerError::Sql(source) => source.to_string(),
        other => return other,
    };
    LedgerError::Open { path: path.to_owned(), reason }
}

fn log_is_empty(path: &Path) -> bool {
    let log = PathBuf::from(format!("{}-wal", path.display()));
    std::fs::metadata(log).map_or(true, |metadata| metadata.len() == 0)
}

fn percent_encoded(path: &Path) -> String {
    let text = path.display().to_string();
    text.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// Writes a complete copy of the ledger into one file, and syncs it to disk.
///
/// # Errors
/// When the copy already exists or cannot be written.
pub fn copy_to(conn: &Connection, copy: &Path) -> Result<(), LedgerError> {
    let backup_error = |source| LedgerError::Backup { path: copy.to_owned(), source };
    if copy.exists() {
        return Err(backup_error(io::ErrorKind::AlreadyExists.into()));
    }
    conn.execute("VACUUM INTO ?1", [copy.display().to_string()])?;
    File::open(copy).and_then(|file| file.sync_all()).map_err(backup_error)
}

fn back_up(conn: &Connection, path: &Path, version: i64) -> Result<(), LedgerError> {
    let copy = PathBuf::from(format!("{}.v{version}-backup", path.display()));
    // An interrupted migration left this copy. The file still has the old version, so a new copy is as good.
    match std::fs::remove_file(&copy) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(LedgerError::Backup { path: copy, source });
        }
        _ => {}
    }
    copy_to(conn, &copy)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let first = open_with(&path, &[]).unwrap();
        first
            .execute_batch(
                "INSERT INTO node (name) VALUES ('n1'); DROP TABLE booked;
                 ALTER TABLE adjustment DROP COLUMN number",
            )
            .unwrap();
        drop(first);
        let conn = open_with(&path, &[MIGRATIONS[0], MIGRATIONS[1], add_column]).unwrap();
        let place: Option<String> = conn.query_row("SELECT place FROM node", [], |row| row.get(0)).unwrap();
        assert_eq!(place, None);
        assert_eq!(conn.query_row("SELECT count(*) FROM booked", [], |row| row.get(0)), Ok(0));
        assert_eq!(conn.query_row("SELECT count(number) FROM adjustment", [], |row| row.get(0)), Ok(0));
        assert_eq!(user_version(&path), 4);
        let backup = dir.path().join("ledger.sqlite.v1-backup");
        assert_eq!(user_version(&backup), 1);
        let name: String = Connection::open(backup)
            .unwrap()
            .query_row("SELECT name FROM node", [], |row| row.get(0))
            .unwrap();
        assert_eq!(name, "n1");
        assert!(matches!(open(&path), Err(LedgerError::Newer { found: 4, known: 3, .. })));
        assert!(matches!(open_read_only(&path), Err(LedgerError::Newer { found: 4, known: 3, .. })));
    }

    #[test]
    fn a_failed_migration_leaves_the_ledger_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.sqlite");
        drop(open_with(&path, &[]).unwrap());
        assert!(open_with(&path, &[fail]).is_err());
        assert_eq!(user_version(&path), 1);
        assert!(open_with(&path, &[add_column]).is_ok());
    }

    #[test]
    fn other_databases_and_other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = dir.path().join("foreign.sqlite");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        assert!(matches!(open(&foreign), Err(LedgerError::Foreign { .. })));
        let text = dir.path().join("text");
        std::fs::write(&text, "no database, but long enough to be looked at".repeat(100)).unwrap();
        assert!(matches!(open(&text), Err(LedgerError::Damaged(_))));
    }
}
