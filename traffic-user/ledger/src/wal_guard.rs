//! Checks that SQLite's write-ahead log (`FILE-wal`) belongs to the ledger file next to it.
//!
//! SQLite matches the two by name only. If another file replaces a ledger that is in use, or whose daemon was
//! killed, SQLite would apply the old file's log to the new file and corrupt it. So every writer records
//! which ledger and log belong together (`FILE-log-of`), and every opener compares.

use std::{
    ffi::OsString,
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use crate::error::LedgerError;

/// Identifies a file, even if a later file reuses its inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970; 0 on file systems that do not store it.
    created_ns: u128,
}

impl FileIdentity {
    /// Identifies the file that is currently at `path`.
    ///
    /// # Errors
    /// When there is no such file or its metadata cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let created = metadata.created().unwrap_or(UNIX_EPOCH);
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            created_ns: created.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos(),
        })
    }
}

impl fmt::Display for FileIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "device {} inode {} created {}", self.device, self.inode, self.created_ns)
    }
}

/// Records that the ledger and the log next to it belong together.
///
/// # Errors
/// When the note cannot be written.
pub(crate) fn remember(ledger: &Path) -> Result<(), LedgerError> {
    let note = beside(ledger, "-log-of");
    let attempt = || -> io::Result<()> {
        // Nothing was written yet, so there is no log.
        let Some(log) = found(&log_of(ledger))? else { return Ok(()) };
        let text = format!("ledger {}\nlog {log}\n", FileIdentity::of(ledger)?);
        if fs::read_to_string(&note).is_ok_and(|there| there == text) {
            return Ok(());
        }
        fs::File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o640)
            .open(&note)?
            .write_all(text.as_bytes())
    };
    attempt().map_err(|source| LedgerError::Log { path: note.clone(), source })
}

/// Refuses a ledger whose log belongs to another file.
///
/// # Errors
/// With [`LedgerError::LogOfAnother`] in that case.
pub(crate) fn check(ledger: &Path) -> Result<(), LedgerError> {
    if is_of_another(ledger) {
        return Err(LedgerError::LogOfAnother { path: ledger.to_owned(), log: log_of(ledger) });
    }
    Ok(())
}

/// Moves another ledger's log out of the way, if there is one. No process may have that other ledger open.
///
/// Returns the new name of the log, which keeps its content for whoever needs the other ledger complete.
///
/// # Errors
/// When a file cannot be renamed or removed.
pub fn set_aside_anothers(ledger: &Path) -> Result<Option<PathBuf>, LedgerError> {
    let log = log_of(ledger);
    // If the ledger itself is gone, SQLite would delete the log when it opens the new file.
    if !is_of_another(ledger) && ledger.exists() {
        return Ok(None);
    }
    let attempt = || -> io::Result<Option<PathBuf>> {
        // The shared-memory file is only an index of the log.
        remove(&beside(ledger, "-shm"))?;
        match fs::metadata(&log) {
            Ok(metadata) if metadata.len() > 0 => {
                let aside = beside(ledger, "-wal-of-another");
                fs::rename(&log, &aside)?;
                Ok(Some(aside))
            }
            Ok(_) => remove(&log).map(|()| None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    };
    attempt().map_err(|source| LedgerError::Log { path: log.clone(), source })
}

/// Whether the log was recorded as belonging to a file that had the ledger's name before.
fn is_of_another(ledger: &Path) -> bool {
    // A reader that cannot read the note knows as much as SQLite itself.
    let Ok(note) = fs::read_to_string(beside(ledger, "-log-of")) else { return false };
    let notes = |what: &str, file: &Path| {
        FileIdentity::of(file)
            .is_ok_and(|identity| note.lines().any(|line| line == format!("{what} {identity}")))
    };
    notes("log", &log_of(ledger)) && !notes("ledger", ledger)
}

fn found(path: &Path) -> io::Result<Option<FileIdentity>> {
    match FileIdentity::of(path) {
        Ok(identity) => Ok(Some(identity)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn log_of(ledger: &Path) -> PathBuf {
    beside(ledger, "-wal")
}

/// The ledger's path with a suffix appended to its name.
fn beside(ledger: &Path, addition: &str) -> PathBuf {
    let mut name = OsString::from(ledger);
    name.push(addition);
    name.into()
}
