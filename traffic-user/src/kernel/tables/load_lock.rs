//! The lock between loaders of class tables.
//!
//! A class table is built beside the one in force, which takes seconds, and the change lock is held only for
//! the switch. Meanwhile no other loader may give the same column to another class, or take the memory for a
//! second table.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::kernel::{bpffs::Bpffs, change_lock};

/// How long a loader waits for another one.
const PATIENCE: Duration = Duration::from_mins(1);

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
        bpffs.create_lock_directories()?;
        // Beside the change lock, where only the owner can open it.
        let path = bpffs.lock_directory().join("load");
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot create {}", path.display()));
            }
            _ => {}
        }
        let directory = change_lock::acquire(&path, Instant::now() + patience)?.with_context(|| {
            format!(
                "cannot lock {}: another trafctl has been loading a class table for {} s; end it, or try again \
                 later",
                path.display(),
                patience.as_secs()
            )
        })?;
        Ok(Self { _directory: directory })
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
        for path in ["lock", "lock/load"] {
            let mode = fs::metadata(pins.path().join(path)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o700, "others may not even open {path}");
        }
        let error = LoadLock::take_within(&bpffs, Duration::from_millis(30)).unwrap_err().to_string();
        assert!(error.contains("another trafctl has been loading a class table"), "{error}");
        // The change lock is another one: meanwhile interfaces are attached and counters are drained.
        drop(bpffs.lock().unwrap());
        drop(first);
        LoadLock::take_within(&bpffs, Duration::ZERO).unwrap();
    }
}
