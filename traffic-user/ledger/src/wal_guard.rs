//! The log that SQLite keeps beside a ledger in use (`FILE-wal`), and which file it is the log of.
//!
//! SQLite goes by the name alone. When another file is put in place of a ledger that is in use, or of one whose daemon was
//! killed, the log of the old file is taken for that of the new one, and its pages land in a file that they don't fit. So
//! every writer writes down beside the ledger which two files belong together, and who opens one compares.

use std::{
    ffi::OsString,
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use crate::error::LedgerError;

/// Tells one file from every other, also from one that later got its number on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    /// Since 1970; 0 on file systems that don't keep it.
    created_ns: u128,
}

impl FileIdentity {
    /// Which file has this name now.
    ///
    /// # Errors
    /// When there is none, or it can't be looked at.
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

/// Writes down that the ledger and the log of its name belong together.
///
/// # Errors
/// When that can't be written.
pub(crate) fn remember(ledger: &Path) -> Result<(), LedgerError> {
    let note = beside(ledger, "-log-of");
    let attempt = || -> io::Result<()> {
        // Nobody has written yet: there is no log.
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

/// Refuses a ledger beside which the log of another one lies.
///
/// # Errors
/// With [`LedgerError::LogOfAnother`] in that case.
pub(crate) fn check(ledger: &Path) -> Result<(), LedgerError> {
    if is_of_another(ledger) {
        return Err(LedgerError::LogOfAnother { path: ledger.to_owned(), log: log_of(ledger) });
    }
    Ok(())
}

/// Takes the log of another ledger away from this one, if there is one: no process may have that other one open any more.
/// What is in the log stays, under the name that is returned, for whoever wants the other file whole.
///
/// # Errors
/// When a file can't be renamed or removed.
pub fn set_aside_anothers(ledger: &Path) -> Result<Option<PathBuf>, LedgerError> {
    let log = log_of(ledger);
    // Where the ledger itself is gone, SQLite would delete its log with the first step on the new one.
    if !is_of_another(ledger) && ledger.exists() {
        return Ok(None);
    }
    let attempt = || -> io::Result<Option<PathBuf>> {
        // It only tells where in the log what is.
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

/// Whether the log of this name was written down as that of a file that had the ledger's name before.
fn is_of_another(ledger: &Path) -> bool {
    // Who may not read the note, or finds none, knows no more than SQLite does.
    let Ok(note) = fs::read_to_string(beside(ledger, "-log-of")) else { return false };
    let says = |what: &str, file: &Path| {
        FileIdentity::of(file)
            .is_ok_and(|identity| note.lines().any(|line| line == format!("{what} {identity}")))
    };
    says("log", &log_of(ledger)) && !says("ledger", ledger)
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

/// A file that goes by the ledger's name and an addition.
fn beside(ledger: &Path, addition: &str) -> PathBuf {
    let mut name = OsString::from(ledger);
    name.push(addition);
    name.into()
}
