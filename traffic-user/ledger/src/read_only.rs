//! Opens database files for reading, also where this user may not write beside them.

use std::{
    fs::{self, File},
    io,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::{
    io::Errno,
    process::{Flock, FlockType, fcntl_getlk},
};

use crate::{
    migrate::{BUSY_TIMEOUT, absolute},
    wal_guard,
};

/// Where SQLite locks a database file: `PENDING_BYTE`, and the bytes up to the end of the shared locks.
const LOCKED_AT: u64 = 0x4000_0000;
const LOCKED_BYTES: u64 = 512;

/// Opens any SQLite database for reading only.
///
/// SQLite needs to write the shared index of the log (`FILE-shm`), unless a running writer keeps it. A user
/// who may only read can still read a ledger that no process has open: without a log the main file is
/// complete, and with one a private index is enough.
///
/// # Errors
/// When it cannot be opened or is not a database.
pub(crate) fn open(path: &Path) -> rusqlite::Result<Connection> {
    // Not left to the first attempt, whose failure leads to others: each would wait for a FIFO.
    require_regular(path)?;
    let plain = open_beside(path);
    let Err(error) = &plain else { return plain };
    if !matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)) {
        return plain;
    }
    let resolved = wal_guard::resolve(path);
    if log_is_empty(&resolved) {
        return with_parameters(&resolved, "immutable=1", "");
    }
    if is_open_in_a_process(&resolved).unwrap_or(true) {
        return plain;
    }
    // Nobody writes, so that locks are not needed. This locking mode keeps the index in memory.
    with_parameters(&resolved, "vfs=unix-none", "PRAGMA locking_mode = EXCLUSIVE")
}

/// The same for a process that may have the file open otherwise, also for writing: looking for other processes
/// opens and closes the file, which would release SQLite's locks.
///
/// # Errors
/// As [`open`], and where this user may not write beside the file.
pub(crate) fn open_beside(path: &Path) -> rusqlite::Result<Connection> {
    require_regular(path)?;
    connect(OpenFlags::SQLITE_OPEN_READ_ONLY, &absolute(path), "")
}

/// Refuses a FIFO, a device or a directory, which SQLite would wait for or take for an empty database.
///
/// # Errors
/// When there is such a thing at the path. What does not exist or cannot be looked at is left to SQLite.
pub(crate) fn require_regular(path: &Path) -> rusqlite::Result<()> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(NOT_REGULAR.to_owned()),
        )),
        _ => Ok(()),
    }
}

/// What [`require_regular`] says.
pub(crate) const NOT_REGULAR: &str = "it is not a regular file; name a database file";

fn with_parameters(path: &Path, parameters: &str, first: &str) -> rusqlite::Result<Connection> {
    let name = format!("file:{}?{parameters}", percent_encoded(path));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    connect(flags, Path::new(&name), first)
}

fn connect(flags: OpenFlags, name: &Path, first: &str) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.execute_batch(first)?;
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map(|()| conn)
}

/// Whether any process holds one of SQLite's locks on a database file. Every open connection to a file with a
/// log holds a shared one.
///
/// The calling process must have no connection to the file: closing the file here would release its locks.
///
/// # Errors
/// When the file cannot be opened.
pub(crate) fn is_open_in_a_process(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    // A write lock conflicts with every lock of others. Asking about one needs no right to write.
    let mut wanted = Flock::from(FlockType::WriteLock);
    wanted.start = LOCKED_AT;
    wanted.length = LOCKED_BYTES;
    match fcntl_getlk(&file, &wanted) {
        Ok(held) => Ok(held.is_some()),
        // The file system has no locks.
        Err(Errno::NOLCK | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn log_is_empty(path: &Path) -> bool {
    let log = wal_guard::beside(path, "-wal");
    fs::metadata(log).map_or(true, |metadata| metadata.len() == 0)
}

/// A path in a URI. Bytes that are not plain letters, digits or one of `/._-` are encoded.
fn percent_encoded(path: &Path) -> String {
    let mut text = String::new();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
        process::Command,
    };

    use super::*;
    use crate::{Ledger, LedgerConfig, testing::*};

    const FILE: &str = "TRAFCTL_TEST_READ";

    /// The child of the test below: reads the file as a user who may write nothing.
    #[test]
    fn child_reads() {
        let Some(path) = std::env::var_os(FILE) else { return };
        let ledger = Ledger::open_read_only(Path::new(&path)).unwrap();
        assert_eq!(sums(&ledger, "traffic_5min")[&("101".to_owned(), 1)], [1, 100, 2, 200]);
        println!("read it");
    }

    fn reads_as_nobody(path: &Path) -> bool {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "read_only::tests::child_reads", "--nocapture"]).env(FILE, path);
        let output = command.uid(65534).gid(65534).current_dir("/").output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("read it")
    }

    #[test]
    fn who_may_only_read_reads_a_ledger_in_every_state() {
        assert!(rustix::process::geteuid().is_root(), "becoming another user needs root");
        // Below /tmp, where another user can reach it, with a name that a URI would misread.
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("ledger 100%?#.sqlite");
        let readable = || {
            for entry in fs::read_dir(dir.path()).unwrap() {
                fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o644)).unwrap();
            }
        };
        let mut ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
        Node::new(NOON).traffic("101", 1, [1, 100, 2, 200]).pass(60).drain(&mut ledger);
        readable();
        assert!(reads_as_nobody(&path), "beside a daemon");

        // As a killed daemon leaves it, with rows that are only in the log.
        let left = tempfile::tempdir().unwrap();
        fs::set_permissions(left.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM traffic_5min").unwrap();
        ledger.conn.execute_batch("UPDATE container SET since = since + 1").unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
        }
        let killed = left.path().join("ledger 100%?#.sqlite");
        assert!(fs::metadata(wal_guard::beside(&killed, "-wal")).unwrap().len() > 0);
        assert!(reads_as_nobody(&killed), "after a kill");
        fs::remove_file(wal_guard::beside(&killed, "-shm")).unwrap();
        assert!(reads_as_nobody(&killed), "after a kill, without the index");

        drop(reader);
        drop(ledger);
        assert!(!wal_guard::beside(&path, "-wal").exists());
        assert!(reads_as_nobody(&path), "after a clean end");
    }

    /// The child of the test below.
    #[test]
    fn child_looks_for_locks() {
        let Some(path) = std::env::var_os(FILE) else { return };
        println!("held: {}", is_open_in_a_process(Path::new(&path)).unwrap());
    }

    #[test]
    fn a_ledger_that_another_process_has_open_is_recognised() {
        let file = ledger();
        let path = file.ledger.path().to_owned();
        let held = || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args(["--exact", "read_only::tests::child_looks_for_locks", "--nocapture"])
                .env(FILE, &path);
            let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
            assert!(output.contains("held: "), "{output}");
            output.contains("held: true")
        };
        assert!(held());
        drop(file.ledger);
        assert!(!held());
    }

    /// Looking for other processes opens and closes the file, which would release the locks of the writer.
    #[test]
    fn a_process_that_writes_a_ledger_looks_for_no_others() {
        let file = ledger();
        let path = file.ledger.path().to_owned();
        let reads_beside = || Ledger::open_read_only(&path).unwrap().beside_writer;
        assert!(reads_beside());
        drop(file.ledger);
        assert!(!reads_beside());
    }
}
