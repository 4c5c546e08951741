//! The lock between loaders of class tables.
//!
//! A class table is built beside the one in force, which takes seconds, and the change lock is held only for
//! the switch. Meanwhile no other loader may give the same column to another class, or take the memory for a
//! second table.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::kernel::bpffs::Bpffs;

/// Name of the lock beside the pins: a directory, because the BPF file system holds no regular files.
const NAME: &str = "loading";
/// How long a loader waits for another one.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two attempts to get the lock.
const INTERVAL: Duration = Duration::from_millis(10);

/// Held while a class table is built and put in force. Released when dropped, and by the kernel when the
/// process ends.
#[derive(Debug)]
pub struct LoadLock {
    _directory: File,
}

impl LoadLock {
    /// Waits for the lock.
    ///
    /// # Errors
    /// When another loader holds it for too long, or the lock's directory cannot be created or opened.
    pub fn take(bpffs: &Bpffs) -> anyhow::Result<Self> {
        Self::take_within(bpffs, PATIENCE)
    }

    fn take_within(bpffs: &Bpffs, patience: Duration) -> anyhow::Result<Self> {
        let path = bpffs.root().join(NAME);
        // Taking a lock needs no more than read access, so only the owner has any.
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot create {}", path.display()));
            }
            _ => {}
        }
        let directory = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let deadline = Instant::now() + patience;
        loop {
            match directory.try_lock() {
                Ok(()) => return Ok(Self { _directory: directory }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(INTERVAL),
                Err(TryLockError::WouldBlock) => bail!(
                    "cannot lock {}: another trafctl has been loading a class table for {} s; end it, or try \
                     again later",
                    path.display(),
                    patience.as_secs()
                ),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn one_loader_excludes_another_and_no_reader_can() {
        let pins = tempfile::tempdir().unwrap();
        let bpffs = Bpffs::new(pins.path());
        let first = LoadLock::take(&bpffs).unwrap();
        let path = pins.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700, "others may not even open it");
        let error = LoadLock::take_within(&bpffs, Duration::from_millis(30)).unwrap_err().to_string();
        assert!(error.contains("another trafctl has been loading a class table"), "{error}");
        drop(first);
        LoadLock::take_within(&bpffs, Duration::ZERO).unwrap();
    }
}
