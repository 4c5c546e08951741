//! The lock that keeps a second daemon from writing the same ledger.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// Name of the lock file in the state directory.
const DAEMON_LOCK: &str = "run.lock";

/// Held by the one daemon of a state directory. The kernel releases it when the process ends.
#[derive(Debug)]
pub struct DaemonLock {
    _file: File,
}

/// Another daemon holds the lock.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the state directory {0}: another `trafctl run` keeps the ledger there; stop it first")]
pub struct OtherDaemon(PathBuf);

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
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(DaemonLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(OtherDaemon(state_dir.to_owned()).into()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}
