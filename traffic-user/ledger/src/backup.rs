//! Writes a complete copy of a ledger into one file: beside its final name first, in a directory that only
//! its owner can enter, then synced and renamed. An interrupted copy never has the final name, so it cannot
//! be mistaken for a backup or prevent the next one.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection,
    types::{ToSqlOutput, ValueRef},
};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::error::LedgerError;

/// Name of the copy inside the directory of an unfinished copy.
const PARTIAL: &str = "copy";
const BUSY: &str = "another process is writing a copy of this name; try again when it has ended";
/// Billing data: for its owner and group.
const MODE: u32 = 0o640;

/// Whether a file of the final name may be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It is kept, and the copy fails.
    Keep,
    /// The finished copy replaces it.
    Replace,
}

/// Copies the ledger of a connection that is in no transaction to `copy`.
///
/// # Errors
/// When the copy exists and must be kept, or cannot be written. Then nothing is left under its name.
pub(crate) fn copy_to(conn: &Connection, copy: &Path, existing: Existing) -> Result<(), LedgerError> {
    let failed = |source| LedgerError::Backup { path: copy.to_owned(), source };
    if existing == Existing::Keep && fs::symlink_metadata(copy).is_ok() {
        let reason = "there is a file of this name; name another one, or remove it";
        return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, reason)));
    }
    let partial = Partial::create(copy).map_err(failed)?;
    partial.write(conn)?;
    partial.publish(copy, existing).map_err(failed)
}

/// The directory of a copy that is being written. Removed when dropped.
pub(crate) struct Partial {
    directory: PathBuf,
    /// Excludes a second copy to the same name.
    _lock: File,
}

impl Partial {
    /// Begins a copy to this name.
    ///
    /// # Errors
    /// With [`io::ErrorKind::ResourceBusy`] while another process writes a copy of this name; when the
    /// directory cannot be written.
    pub fn create(copy: &Path) -> io::Result<Self> {
        let name = copy
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path does not name a file"))?;
        let parent = match copy.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(".partial");
        let directory = fs::canonicalize(parent)?.join(hidden);
        // Whoever held it removes it at the end, at any of these moments.
        let busy = || io::Error::new(io::ErrorKind::ResourceBusy, BUSY);
        let removed = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { busy() } else { error };
        match DirBuilder::new().mode(0o700).create(&directory) {
            // A copy that was interrupted left it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                require_own(&directory).map_err(removed)?;
            }
            other => other?,
        }
        let lock = File::open(&directory).map_err(removed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let identity = |file: fs::Metadata| (file.dev(), file.ino());
        let there = fs::symlink_metadata(&directory).map_err(removed)?;
        if identity(there) != identity(lock.metadata()?) {
            return Err(busy());
        }
        let partial = Self { directory, _lock: lock };
        partial.clear()?;
        Ok(partial)
    }

    /// Where the copy is written.
    pub fn path(&self) -> PathBuf {
        self.directory.join(PARTIAL)
    }

    /// Writes the copy, as the ledger is when this begins.
    ///
    /// # Errors
    /// When the connection is in a transaction, or the file cannot be read or written.
    pub fn write(&self, conn: &Connection) -> Result<(), LedgerError> {
        // An absolute path, as its bytes: SQLite would read a name such as `file:x` as a URI.
        let target = self.path();
        let name = ToSqlOutput::Borrowed(ValueRef::Text(target.as_os_str().as_bytes()));
        conn.execute("VACUUM INTO ?1", [name])?;
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// Gives the copy its final name, when it is on the disk.
    ///
    /// # Errors
    /// When there is a file that must be kept, or the disk fails.
    pub fn publish(&self, copy: &Path, existing: Existing) -> io::Result<()> {
        let partial = self.path();
        fs::set_permissions(&partial, fs::Permissions::from_mode(MODE))?;
        File::open(&partial)?.sync_all()?;
        match existing {
            Existing::Replace => fs::rename(&partial, copy)?,
            Existing::Keep => match renameat_with(CWD, &partial, CWD, copy, RenameFlags::NOREPLACE) {
                // Not every file system can do this. A link does not replace a file either.
                Err(rustix::io::Errno::INVAL) => fs::hard_link(&partial, copy)?,
                other => other?,
            },
        }
        self.directory.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What is left here is cleared by the next copy to the same name.
        if self.clear().is_ok() {
            drop(fs::remove_dir(&self.directory));
        }
    }
}

/// Refuses to use a directory that somebody else put in the way.
fn require_own(directory: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(directory)?;
    if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() {
        return fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    }
    let reason = format!("{} is in the way; remove it", directory.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

#[cfg(test)]
mod tests {
    use std::os::unix::{ffi::OsStringExt as _, fs::symlink};

    use super::*;
    use crate::testing::{NOON, Node, ledger};

    fn kind(result: Result<(), LedgerError>) -> io::ErrorKind {
        match result {
            Err(LedgerError::Backup { source, .. }) => source.kind(),
            other => panic!("{other:?}"),
        }
    }

    fn names(directory: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn any_file_name_is_a_file_name() {
        let file = ledger();
        let dir = tempfile::tempdir().unwrap();
        let odd = OsString::from_vec(b"caf\xe9".to_vec());
        for name in
            ["file:x", "a?mode=memory", ":memory:", "50%#'"].map(OsString::from).into_iter().chain([odd])
        {
            let copy = dir.path().join(&name);
            file.ledger.backup(&copy).unwrap();
            assert_eq!(names(dir.path()), std::slice::from_ref(&name));
            assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o7777, MODE);
            fs::remove_file(copy).unwrap();
        }
        for none in ["/", ".."] {
            assert_eq!(kind(file.ledger.backup(Path::new(none))), io::ErrorKind::AlreadyExists, "{none}");
        }
    }

    #[test]
    fn an_interrupted_copy_is_cleared_by_the_next() {
        let file = ledger();
        let dir = tempfile::tempdir().unwrap();
        let (copy, left) = (dir.path().join("b"), dir.path().join(".b.partial"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join(PARTIAL), "half").unwrap();
        fs::write(left.join("copy-journal"), "half").unwrap();
        file.ledger.backup(&copy).unwrap();
        assert_eq!(names(dir.path()), ["b"]);
        crate::Ledger::open_read_only(&copy).unwrap();
        assert_eq!(kind(file.ledger.backup(&copy)), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_failed_copy_leaves_nothing() {
        let mut file = ledger();
        Node::new(NOON).traffic("101", 1, [1, 2, 3, 4]).pass(60).drain(&mut file.ledger);
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("b");
        // A reader in a transaction cannot copy.
        file.ledger.conn.execute_batch("BEGIN").unwrap();
        assert!(file.ledger.backup(&copy).is_err());
        file.ledger.conn.execute_batch("COMMIT").unwrap();
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn planted_files_are_neither_followed_nor_used() {
        let file = ledger();
        let dir = tempfile::tempdir().unwrap();
        let (copy, target) = (dir.path().join("b"), dir.path().join("target"));
        symlink(&target, &copy).unwrap();
        assert_eq!(kind(file.ledger.backup(&copy)), io::ErrorKind::AlreadyExists);
        fs::remove_file(&copy).unwrap();
        symlink(dir.path(), dir.path().join(".b.partial")).unwrap();
        assert_eq!(kind(file.ledger.backup(&copy)), io::ErrorKind::PermissionDenied);
        assert_eq!(names(dir.path()), [".b.partial"]);
    }

    #[test]
    fn two_copies_to_one_name_do_not_mix() {
        let file = ledger();
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("b");
        let first = Partial::create(&copy).unwrap();
        assert_eq!(kind(file.ledger.backup(&copy)), io::ErrorKind::ResourceBusy);
        drop(first);
        file.ledger.backup(&copy).unwrap();
    }
}
