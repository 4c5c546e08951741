//! The lock that keeps a second daemon from writing the same ledger.

use std::{
    fs::{self, File, Permissions, TryLockError},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::kernel::change_lock::former::{self, Former};

/// Name of the lock file in the state directory.
const DAEMON_LOCK: &str = "daemon.lock";
/// The lock file of former versions. A reader of the state directory could open it, and so hold the lock.
const FORMER_LOCK: &str = "run.lock";
/// How long to wait for the lock.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// Time to find out who holds that lock.
const FORMER_PATIENCE: Duration = Duration::from_millis(500);
/// Nobody but the owner may open a lock file, because whoever can open it can lock it.
const OWNER_ONLY: u32 = 0o600;

/// Held by the one daemon of a state directory. The kernel releases it when the process ends.
#[derive(Debug)]
pub struct DaemonLock {
    _file: File,
    _former: Option<File>,
}

/// Another daemon holds the lock.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the state directory {0}: another `trafctl run` keeps the ledger there; stop it first")]
pub struct OtherDaemon(PathBuf);

/// Whether a daemon holds the lock of a state directory.
///
/// # Errors
/// When the lock file exists and cannot be opened or locked.
pub(super) fn is_held(state_dir: &Path) -> anyhow::Result<bool> {
    let path = state_dir.join(DAEMON_LOCK);
    if !path.try_exists().with_context(|| format!("cannot look for {}", path.display()))? {
        return Ok(false);
    }
    match open(&path)?.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Creates the state directory and takes the daemon's lock in it.
///
/// # Errors
/// With [`OtherDaemon`] when another daemon holds it, and when the directory cannot be written.
pub fn lock_daemon(state_dir: &Path) -> anyhow::Result<DaemonLock> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(state_dir)
        .with_context(|| format!("cannot create {}", state_dir.display()))?;
    let path = state_dir.join(DAEMON_LOCK);
    let file = open(&path)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            // A command may be looking at it, and a process that was killed may be about to end.
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => return Err(OtherDaemon(state_dir.to_owned()).into()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
    let path = state_dir.join(FORMER_LOCK);
    match former::acquire(open(&path)?, &path, Instant::now() + FORMER_PATIENCE)? {
        Former::Acquired(former) => Ok(DaemonLock { _file: file, _former: Some(former) }),
        Former::Ignored => Ok(DaemonLock { _file: file, _former: None }),
        Former::Held => Err(OtherDaemon(state_dir.to_owned()).into()),
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    let what = || format!("cannot open {}", path.display());
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(OWNER_ONLY)
        // Not a link that was planted, and not a FIFO, whose opening would wait.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .with_context(what)?;
    file.set_permissions(Permissions::from_mode(OWNER_ONLY)).with_context(what)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn only_one_daemon_of_this_or_a_former_version_runs() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock_daemon(directory.path()).unwrap();
        assert!(lock_daemon(directory.path()).unwrap_err().is::<OtherDaemon>());
        let former = File::options().write(true).open(directory.path().join(FORMER_LOCK)).unwrap();
        assert!(former.try_lock().is_err(), "a former version must not start");
        drop(held);
        former.try_lock().unwrap();
        assert!(lock_daemon(directory.path()).unwrap_err().is::<OtherDaemon>());
        drop(former);
        lock_daemon(directory.path()).unwrap();
    }

    #[test]
    fn others_cannot_open_the_lock_files() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            drop(lock_daemon(directory.path()).unwrap());
            for name in [DAEMON_LOCK, FORMER_LOCK] {
                let path = directory.path().join(name);
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, OWNER_ONLY, "{name}");
                fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            }
        }
    }
}
