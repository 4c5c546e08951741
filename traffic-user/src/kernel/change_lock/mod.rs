//! The lock on changing what is pinned. Every command and the daemon's thread take it for each change.
//!
//! It consists of two directories below `lock` in the pin directory. `lock` has mode 0700, so that a reader of
//! the pins cannot open, and thus cannot lock, what writers need. Whoever wants the lock waits first for
//! `lock/turn`, then for `lock/change`, and then releases `turn`. So a process that releases `change` and
//! wants it again at once queues behind those who wait already: between two batches of a long listing, a
//! container's start hook gets its turn.
//!
//! Versions before this one locked the pin directory itself. That lock is taken as well, so that an upgrade
//! under a running daemon is safe. Its mode let a group open the directory, so a lock that another user holds
//! there is ignored.
//!
//! - `waiter`: waits for an flock(2) in the kernel's queue, with an end.
//! - `former`: the locks of former versions, which readers could hold.

pub mod former;
mod waiter;

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use self::former::Former;
use super::{
    bpffs::Bpffs,
    expedite::{self, Expedite},
};

/// How long a command waits for others that hold the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// Access for the owner alone.
const OWNER_ONLY: u32 = 0o700;

/// Held by every command that changes anything pinned. Released when dropped, and by the kernel when the
/// process ends.
#[derive(Debug)]
pub struct ChangeLock {
    // Dropped in this order: a former version must not start before this one has ended.
    _change: File,
    _former: Option<File>,
}

impl Bpffs {
    /// Acquires the change lock. Waits while another command holds it, in the order in which commands came.
    ///
    /// # Errors
    /// When others do not release it in time, or its directories cannot be created or opened.
    pub fn lock(&self) -> anyhow::Result<ChangeLock> {
        self.lock_until(Instant::now() + LOCK_TIMEOUT)?.with_context(|| {
            format!(
                "cannot lock {}: another trafctl has held the lock for {} s; end it, or try again later",
                self.root().display(),
                LOCK_TIMEOUT.as_secs()
            )
        })
    }

    /// Acquires the change lock if nobody holds it or waits for it.
    ///
    /// # Errors
    /// As [`Self::lock`], except that a lock that is held is `None`.
    pub fn try_lock(&self) -> anyhow::Result<Option<ChangeLock>> {
        self.lock_until(Instant::now())
    }

    fn lock_until(&self, deadline: Instant) -> anyhow::Result<Option<ChangeLock>> {
        self.create_lock_directories()?;
        let Some(turn) = acquire(&self.turn(), deadline)? else { return Ok(None) };
        let Some(change) = acquire(&self.change(), deadline)? else { return Ok(None) };
        drop(turn);
        let root = open(self.root()).with_context(|| format!("cannot open {}", self.root().display()))?;
        let lock = match former::acquire(root, self.root(), deadline)? {
            Former::Held => return Ok(None),
            Former::Acquired(root) => ChangeLock { _change: change, _former: Some(root) },
            Former::Ignored => ChangeLock { _change: change, _former: None },
        };
        expedite::restore_after_kill(&self.expedite_note());
        Ok(Some(lock))
    }

    /// Restores what a process set that was killed under the lock, if nobody holds it now. For commands that
    /// do not take the lock themselves.
    pub fn restore_after_kill(&self) {
        if self.expedite_note().is_dir() {
            // Whoever holds the lock restores it, or has set it.
            if let Err(error) = self.try_lock() {
                tracing::debug!("{error:#}");
            }
        }
    }

    /// Grace periods are expedited through this, for a holder of the change lock.
    pub fn expedite(&self) -> Expedite {
        Expedite::with_note(self.expedite_note())
    }

    fn expedite_note(&self) -> PathBuf {
        self.lock_directory().join("expedited")
    }

    pub(super) fn lock_directory(&self) -> PathBuf {
        self.root().join("lock")
    }

    fn turn(&self) -> PathBuf {
        self.lock_directory().join("turn")
    }

    fn change(&self) -> PathBuf {
        self.lock_directory().join("change")
    }

    /// Creates the directories of the lock where they are missing, and removes the access of others.
    ///
    /// # Errors
    /// When the pin directory does not exist, or one of them cannot be created.
    pub(super) fn create_lock_directories(&self) -> anyhow::Result<()> {
        for directory in [self.lock_directory(), self.turn(), self.change()] {
            self.create_for_locking(&directory)?;
        }
        restrict(&self.lock_directory())
    }

    fn create_for_locking(&self, directory: &Path) -> anyhow::Result<()> {
        match fs::DirBuilder::new().mode(OWNER_ONLY).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).with_context(|| {
                format!("cannot create {} to lock {}", directory.display(), self.root().display())
            }),
            _ => Ok(()),
        }
    }

    /// Locks a directory of this name beside those of the change lock, where only the owner can open it;
    /// `None` when others hold it until the deadline. The kernel releases it when the process ends.
    ///
    /// # Errors
    /// When it cannot be created, opened or locked.
    pub fn lock_beside(&self, name: &str, deadline: Instant) -> anyhow::Result<Option<File>> {
        self.create_lock_directories()?;
        let directory = self.lock_directory().join(name);
        self.create_for_locking(&directory)?;
        acquire(&directory, deadline)
    }
}

impl Bpffs {
    /// The lock that the daemon of these counters holds as long as it runs; `None` when one runs, or another
    /// process keeps it from running, until the deadline.
    ///
    /// # Errors
    /// As [`Self::lock_beside`].
    pub fn lock_of_daemon(&self, deadline: Instant) -> anyhow::Result<Option<File>> {
        self.lock_beside("daemon", deadline)
    }
}

/// Takes the access of group and others from a directory, which `chmod -R` may have given them.
fn restrict(directory: &Path) -> anyhow::Result<()> {
    let what = || format!("cannot restrict the access to {}", directory.display());
    let mode = fs::metadata(directory).with_context(what)?.mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(directory, Permissions::from_mode(OWNER_ONLY)).with_context(what)
}

/// Locks a directory; `None` when others hold it until the deadline.
fn acquire(path: &Path, deadline: Instant) -> anyhow::Result<Option<File>> {
    let what = || format!("cannot lock {}", path.display());
    loop {
        let directory = open(path).with_context(what)?;
        let Some(locked) = waiter::lock(directory, deadline).with_context(what)? else { return Ok(None) };
        match fs::metadata(path) {
            Ok(now) if is_same(&now, &locked.metadata().with_context(what)?) => return Ok(Some(locked)),
            // The directory was removed, and perhaps created again, meanwhile. A lock on the old one excludes
            // nobody.
            Ok(_) => {}
            Err(error) => return Err(error).with_context(what),
        }
        if Instant::now() >= deadline {
            bail!("{}: it is replaced again and again", what());
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A link that somebody planted is not followed.
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests;
