//! Files in the state directory, replaced atomically: at every instant there is either the old file or the
//! new one.
//!
//! Used by reset baselines, the address list and the record of the loaded class file. The ledger has its own
//! transactions. A file that is read, changed and written back is changed under [`StateLock`], so that no
//! other process's change is lost.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, OpenOptionsExt as _},
        },
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use traffic_model::units::format_bytes;

use crate::{files, time};

/// Name of the lock file in the state directory.
const LOCK_FILE: &str = "files.lock";
/// How long a command waits for another one that changes a file. A change takes milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the lock is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(2);
/// Who may read the files: owner and group.
const MODE: u32 = 0o640;
/// The end of the name of a file that is being written.
const UNFINISHED: &str = ".new";

/// Reads a file of at most `most_bytes`. `None` if it does not exist.
///
/// # Errors
/// When there is something else than a regular file of this size, and when it cannot be read.
pub fn read(path: &Path, most_bytes: u64) -> anyhow::Result<Option<Vec<u8>>> {
    match files::read(path, most_bytes) {
        Ok(bytes) => Ok(Some(bytes)),
        // The target of a dangling link is not a missing file: an administrator put the link there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The exclusive right to change the files of a state directory. The kernel releases it when the process
/// ends.
///
/// It is a write lock on a file, which takes a descriptor that is open for writing: whoever may only read the
/// directory cannot take it.
#[derive(Debug)]
pub struct StateLock {
    directory: PathBuf,
    _file: File,
}

impl StateLock {
    /// Takes the lock of a state directory, which is created if it does not exist.
    ///
    /// # Errors
    /// When another process holds the lock for 20 s, or the directory cannot be written.
    pub fn take(state_dir: &Path) -> anyhow::Result<Self> {
        Self::within(state_dir, LOCK_TIMEOUT)?.with_context(|| {
            format!(
                "cannot lock {}: another trafctl has changed files there for {} s; end it, or try again later",
                state_dir.join(LOCK_FILE).display(),
                LOCK_TIMEOUT.as_secs()
            )
        })
    }

    /// As [`Self::take`], but does not wait: `None` if another process holds the lock.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn try_take(state_dir: &Path) -> anyhow::Result<Option<Self>> {
        Self::within(state_dir, Duration::ZERO)
    }

    fn within(state_dir: &Path, patience: Duration) -> anyhow::Result<Option<Self>> {
        create_directory(state_dir).with_context(|| format!("cannot create {}", state_dir.display()))?;
        let path = state_dir.join(LOCK_FILE);
        let cannot = || format!("cannot lock {}", path.display());
        let file = open_lock(&path).with_context(cannot)?;
        let deadline = Instant::now() + patience;
        while !try_lock(&file).with_context(cannot)? {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(LOCK_INTERVAL);
        }
        Ok(Some(Self { directory: state_dir.to_owned(), _file: file }))
    }

    /// Replaces a file of the directory, or creates it. Removes what killed processes left of earlier
    /// attempts.
    ///
    /// # Errors
    /// As [`replace`].
    pub fn replace(&self, name: &str, bytes: &[u8], most_bytes: u64) -> anyhow::Result<()> {
        self.replace_with_mode(name, bytes, most_bytes, MODE)
    }

    /// As [`Self::replace`], for a file of this mode.
    ///
    /// # Errors
    /// As [`replace`].
    pub fn replace_with_mode(
        &self,
        name: &str,
        bytes: &[u8],
        most_bytes: u64,
        mode: u32,
    ) -> anyhow::Result<()> {
        let path = self.directory.join(name);
        // Nobody else writes here now, so no such file is in use.
        if let Err(error) = remove_unfinished(&self.directory, name) {
            tracing::warn!("cannot remove unfinished files of {}: {error}", path.display());
        }
        replace_with_mode(&path, bytes, most_bytes, mode)
    }
}

/// Replaces a file, or creates it with its directory. The file is readable by owner and group only. After
/// return it survives a power loss. A symbolic link at the path is replaced, not followed.
///
/// # Errors
/// When any step fails, or the content is larger than `most_bytes`, the most that is read. The old file is
/// kept then.
pub fn replace(path: &Path, bytes: &[u8], most_bytes: u64) -> anyhow::Result<()> {
    replace_with_mode(path, bytes, most_bytes, MODE)
}

/// As [`replace`], for a file of this mode.
///
/// # Errors
/// As [`replace`].
pub fn replace_with_mode(path: &Path, bytes: &[u8], most_bytes: u64, mode: u32) -> anyhow::Result<()> {
    if bytes.len() as u64 > most_bytes {
        bail!(
            "cannot write {}: its content would be larger than {}, the most that is read",
            path.display(),
            format_bytes(most_bytes, true)
        );
    }
    let attempt = || -> io::Result<()> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        create_directory(directory)?;
        let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
        // A directory there would make the rename fail with a message about something else.
        if let Ok(there) = fs::symlink_metadata(path)
            && !there.is_symlink()
        {
            files::require_regular(&there.file_type())?;
        }
        let fresh = directory.join(unfinished_name(name)?);
        let written = write_new(&fresh, bytes, mode).and_then(|()| fs::rename(&fresh, path));
        if let Err(error) = written {
            // Of no use to anybody; where it cannot be removed, the next change of the file does it.
            let _kept = fs::remove_file(&fresh);
            return Err(error);
        }
        File::open(directory)?.sync_all()
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file that must not exist, and syncs it.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // `create_new` follows no symbolic link.
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name of its own for each attempt, so that two processes never write to one file.
fn unfinished_name(name: &OsStr) -> io::Result<OsString> {
    let number = time::random_number().map_err(io::Error::other)?;
    let mut unfinished = name.to_owned();
    unfinished.push(format!(".{number:016x}{UNFINISHED}"));
    Ok(unfinished)
}

fn remove_unfinished(directory: &Path, name: &str) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let middle = entry.file_name().as_bytes().strip_prefix(name.as_bytes()).and_then(|rest| {
            let middle = rest.strip_suffix(UNFINISHED.as_bytes())?;
            // Earlier versions had no number in the name.
            (middle.is_empty() || middle.len() == 17 && middle[0] == b'.').then_some(())
        });
        if middle.is_some() && !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn create_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(directory)
}

fn open_lock(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    files::require_regular(&file.metadata()?.file_type())?;
    Ok(file)
}

/// Takes the exclusive right that a lock file stands for, until the file is dropped. `None` if another process has it.
///
/// # Errors
/// When the file cannot be opened for writing.
pub fn try_lock_file(path: &Path) -> io::Result<Option<File>> {
    let file = open_lock(path)?;
    Ok(try_lock(&file)?.then_some(file))
}

/// Whether a process has the lock of a lock file. Takes nothing, so that nobody who wants it fails.
pub fn is_locked(path: &Path) -> bool {
    let file = match files::open(path) {
        Ok(file) => file,
        Err(error) => return error.kind() != io::ErrorKind::NotFound,
    };
    let mut asked = whole_file();
    // SAFETY: the descriptor is open, and the structure is ours.
    let asked_well = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut asked) } == 0;
    !asked_well || i32::from(asked.l_type) != libc::F_UNLCK
}

/// A write lock on a whole file.
fn whole_file() -> libc::flock {
    #[expect(clippy::cast_possible_truncation, reason = "these constants are 1 and 0")]
    let (write_lock, from_start) = (libc::F_WRLCK as libc::c_short, libc::SEEK_SET as libc::c_short);
    libc::flock { l_type: write_lock, l_whence: from_start, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Takes an exclusive lock on the open file; `false` if another process has it.
///
/// Not `flock`, which a descriptor that is open for reading suffices for.
fn try_lock(file: &File) -> io::Result<bool> {
    let whole_file = whole_file();
    loop {
        // SAFETY: the descriptor is open, and the kernel only reads the structure.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole_file) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => return Ok(false),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
