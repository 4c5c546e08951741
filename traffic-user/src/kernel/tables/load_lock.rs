//! The lock between loaders of class tables.
//!
//! A class table is built beside the one in force, which takes seconds, and the change lock is held only for
//! the switch. Meanwhile no other loader may give the same column to another class, or take the memory for a
//! second table.

use std::{
    fs::File,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::kernel::bpffs::Bpffs;

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
        let directory = bpffs.lock_beside("load", Instant::now() + patience)?.with_context(|| {
            format!(
                "cannot lock the class table in {}: another trafctl has been loading one for {} s; end it, or try \
                 again later",
                bpffs.root().display(),
                patience.as_secs()
            )
        })?;
        Ok(Self { _directory: directory })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

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
        assert!(error.contains("another trafctl has been loading one"), "{error}");
        // The change lock is another one: meanwhile interfaces are attached and counters are drained.
        drop(bpffs.lock().unwrap());
        drop(first);
        // The thread that was left waiting above may hold it for a moment.
        LoadLock::take(&bpffs).unwrap();
    }
}
