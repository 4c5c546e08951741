//! Checks that the files of SQLite's write-ahead log (`FILE-wal` and its index `FILE-shm`) belong to the
//! ledger file next to them.
//!
//! SQLite matches them by name only. If another file replaces a ledger that is in use, or whose daemon was
//! killed, SQLite would apply the old file's log to the new file and corrupt it. If the log or its index is
//! removed under a running process, two processes would write without seeing each other. So every writer
//! records which files belong together (`FILE-log-of`), every opener compares, and every writer compares
//! again before it writes ([`OpenFiles`]).
//!
//! SQLite follows symbolic links and keeps the log beside the file that a link leads to, so all this happens
//! there ([`resolve`]).

use std::{
    ffi::OsString,
    fmt,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

use rustix::fs::OFlags;

use crate::{error::LedgerError, read_only};

/// How long a process that closes the ledger may take.
const PATIENCE: Duration = Duration::from_millis(300);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

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
        Ok(Self::new(&fs::metadata(path)?))
    }

    fn new(metadata: &fs::Metadata) -> Self {
        let created = metadata.created().unwrap_or(UNIX_EPOCH);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            created_ns: created.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos(),
        }
    }

    /// Names the file for a record that outlives a reboot, which may renumber devices.
    pub(crate) fn lasting_name(&self) -> String {
        match self.created_ns {
            0 => format!("device {} inode {}", self.device, self.inode),
            created => format!("inode {} created {created}", self.inode),
        }
    }
}

impl fmt::Display for FileIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "device {} inode {} created {}", self.device, self.inode, self.created_ns)
    }
}

/// The files that an open connection uses, as they were when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenFiles {
    files: [(PathBuf, Option<FileIdentity>); 3],
}

impl OpenFiles {
    /// Notes the files of a connection that was opened just now.
    ///
    /// # Errors
    /// When the metadata of a file cannot be read.
    pub fn note(ledger: &Path) -> Result<Self, LedgerError> {
        let ledger = resolve(ledger);
        let paths = [ledger.clone(), log_of(&ledger), index_of(&ledger)];
        let noted = |path: PathBuf| match found(&path) {
            Ok(identity) => Ok((path, identity)),
            Err(source) => Err(LedgerError::Log { path, source }),
        };
        let [file, log, index] = paths.map(noted);
        Ok(Self { files: [file?, log?, index?] })
    }

    /// The first of the files that is no longer at its path. A connection would still use the removed one.
    pub fn replaced(&self) -> Option<&Path> {
        self.files.iter().find(|file| is_other(file)).map(|(path, _)| path.as_path())
    }

    /// Whether the ledger itself is no longer at its path.
    pub fn ledger_was_moved(&self) -> bool {
        is_other(&self.files[0])
    }
}

fn is_other((path, noted): &(PathBuf, Option<FileIdentity>)) -> bool {
    found(path).is_ok_and(|now| now != *noted)
}

/// How many ledgers this process has open.
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// How many of them are open for writing.
static WRITING: AtomicUsize = AtomicUsize::new(0);

/// Held by each open ledger. POSIX locks belong to the process: as long as it has a ledger open, it must not
/// open and close the file by itself, which would release SQLite's locks.
#[derive(Debug)]
pub(crate) struct InUse {
    alone: bool,
    writes: bool,
}

impl InUse {
    /// Counts a ledger that is about to be opened for reading.
    pub fn begin() -> Self {
        Self { alone: OPEN.fetch_add(1, Ordering::AcqRel) == 0, writes: false }
    }

    /// Counts a ledger that is about to be opened for writing.
    pub fn begin_writing() -> Self {
        WRITING.fetch_add(1, Ordering::AcqRel);
        Self { writes: true, ..Self::begin() }
    }

    /// Whether the process has a ledger open for writing.
    pub fn is_writing() -> bool {
        WRITING.load(Ordering::Acquire) > 0
    }

    /// Whether the process had no other ledger open then.
    pub const fn is_alone(&self) -> bool {
        self.alone
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if self.writes {
            WRITING.fetch_sub(1, Ordering::AcqRel);
        }
        OPEN.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Records that the ledger, the log next to it and the log's index belong together.
///
/// # Errors
/// When the note cannot be written.
pub(crate) fn remember(ledger: &Path) -> Result<(), LedgerError> {
    let ledger = &resolve(ledger);
    let note = note_of(ledger);
    let attempt = || -> io::Result<()> {
        let mut text = format!("ledger {}\n", FileIdentity::of(ledger)?);
        for (what, path) in [("log", log_of(ledger)), ("index", index_of(ledger))] {
            // Before the first write there is neither.
            if let Some(identity) = found(&path)? {
                text.push_str(&format!("{what} {identity}\n"));
            }
        }
        if read_note(ledger).is_some_and(|there| there == text) {
            return Ok(());
        }
        replace(&note, &text)
    };
    attempt().map_err(|source| LedgerError::Log { path: note.clone(), source })
}

/// Writes a new file and renames it. Whatever was planted under either name is replaced, never followed.
fn replace(note: &Path, text: &str) -> io::Result<()> {
    let beside = beside(note, ".new");
    remove(&beside)?;
    let mut file = File::options().create_new(true).write(true).mode(0o640).open(&beside)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::rename(&beside, note)
}

/// Refuses a ledger whose log belongs to another file.
///
/// # Errors
/// With [`LedgerError::LogOfAnother`] in that case.
pub(crate) fn check(ledger: &Path) -> Result<(), LedgerError> {
    let ledger = resolve(ledger);
    if is_of_another(&ledger) {
        return Err(LedgerError::LogOfAnother { log: log_of(&ledger), path: ledger });
    }
    Ok(())
}

/// Refuses to write a ledger that another process has open, while the log or its index is no longer the one
/// that this process uses. The other process notices before it writes again.
///
/// Called only while this process has no connection to the file: see [`read_only::is_open_in_a_process`].
///
/// # Errors
/// With [`LedgerError::LogRemoved`] in that case.
pub(crate) fn check_before_writing(ledger: &Path) -> Result<(), LedgerError> {
    let ledger = resolve(ledger);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match removed_in_use(&ledger) {
            // The last process to close the ledger removes both files, and has it open for a moment more.
            Some(_) if Instant::now() < deadline => thread::sleep(PAUSE),
            Some(path) => return Err(LedgerError::LogRemoved { path }),
            None => return Ok(()),
        }
    }
}

/// The log or its index if it is not the noted one while a process has the ledger open.
fn removed_in_use(ledger: &Path) -> Option<PathBuf> {
    let note = read_note(ledger)?;
    for (what, path) in [("log", log_of(ledger)), ("index", index_of(ledger))] {
        let noted = note.lines().any(|line| line.split_once(' ').is_some_and(|(name, _)| name == what));
        let is_noted = found(&path).is_ok_and(|now| now.is_some_and(|now| names(&note, what, &now)));
        if noted && !is_noted && read_only::is_open_in_a_process(ledger).unwrap_or(false) {
            return Some(path);
        }
    }
    None
}

/// Whether a ledger was at this path whose figures are gone: its file was emptied or removed.
pub(crate) fn was_lost(ledger: &Path) -> bool {
    let ledger = resolve(ledger);
    read_note(&ledger).is_some() && fs::metadata(&ledger).map_or(true, |file| file.len() == 0)
}

/// Moves another ledger's log out of the way, if there is one. No process may have that other ledger open.
///
/// Returns the new name of the log, which keeps its content for whoever needs the other ledger complete.
///
/// # Errors
/// When a file cannot be renamed or removed.
pub fn set_aside_anothers(ledger: &Path) -> Result<Option<PathBuf>, LedgerError> {
    let ledger = &resolve(ledger);
    let log = log_of(ledger);
    // If the ledger itself is gone or empty, SQLite would delete the log when it opens the new file.
    let is_empty = fs::metadata(ledger).map_or(true, |file| file.len() == 0);
    if !is_of_another(ledger) && !is_empty {
        return Ok(None);
    }
    let attempt = || -> io::Result<Option<PathBuf>> {
        // The shared-memory file is only an index of the log.
        remove(&index_of(ledger))?;
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
    let Some(note) = read_note(ledger) else { return false };
    let is_noted =
        |what: &str, file: &Path| FileIdentity::of(file).is_ok_and(|identity| names(&note, what, &identity));
    is_noted("log", &log_of(ledger)) && !is_noted("ledger", ledger)
}

fn names(note: &str, what: &str, identity: &FileIdentity) -> bool {
    note.lines().any(|line| line == format!("{what} {identity}"))
}

/// The note beside a ledger. A link, or the file of somebody who owns neither the ledger nor its directory,
/// is not a note.
fn read_note(ledger: &Path) -> Option<String> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut options = File::options();
    options.read(true).custom_flags(i32::try_from(flags.bits()).ok()?);
    let file = options.open(note_of(ledger)).ok()?;
    let metadata = file.metadata().ok()?;
    let directory = ledger.parent()?;
    let owner = fs::metadata(ledger).or_else(|_| fs::metadata(directory)).ok()?.uid();
    if !metadata.is_file() || metadata.uid() != owner {
        return None;
    }
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Where the file of this name is, or would be created: the target of any symbolic links, as an absolute
/// path.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    let mut at = path.to_owned();
    // The kernel's own limit.
    for _ in 0..40 {
        match fs::read_link(&at) {
            Ok(target) => at = at.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => break,
        }
    }
    let parent = at.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    match (fs::canonicalize(parent), at.file_name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => at,
    }
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

fn note_of(ledger: &Path) -> PathBuf {
    beside(ledger, "-log-of")
}

fn log_of(ledger: &Path) -> PathBuf {
    beside(ledger, "-wal")
}

fn index_of(ledger: &Path) -> PathBuf {
    beside(ledger, "-shm")
}

/// The ledger's path with a suffix appended to its name.
pub(crate) fn beside(ledger: &Path, addition: &str) -> PathBuf {
    let mut name = OsString::from(ledger);
    name.push(addition);
    name.into()
}
