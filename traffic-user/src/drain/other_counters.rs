//! Keeps a second set of counters of a node out of the ledger. Both sets count the same packets, so the
//! ledger would hold them twice.
//!
//! A file in the state directory names where the counters are pinned that the ledger follows. Other counters
//! are refused as long as those are pinned there and belong to the ledger. In another mount namespace the same
//! path may show another BPF file system. So, for counters that the ledger has never seen, a command also asks
//! whether the daemon that holds the state directory is theirs.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use traffic_ledger::Ledger;
use traffic_model::Snapshot;

use super::{binding::Binding, lock};
use crate::{kernel::bpffs::Bpffs, state_file};

/// Name of the file in the state directory. It holds a path.
const FILE: &str = "counters";
/// Longest content: the longest path.
const MOST_BYTES: u64 = 4096;
/// A daemon that starts takes the lock of the state directory a moment before that of its counters.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two looks at the locks.
const PAUSE: Duration = Duration::from_millis(20);

/// The ledger follows counters that are pinned elsewhere.
#[derive(Debug, thiserror::Error)]
#[error(
    "the ledger in {} follows the counters in {}, which count the same packets; use --bpffs and --state-dir of \
     the same installation, or delete those counters first (`trafctl --bpffs {} detach --purge`)",
    state_dir.display(), pinned_in.display(), pinned_in.display()
)]
pub struct OtherCounters {
    state_dir: PathBuf,
    pinned_in: PathBuf,
}

/// The daemon of the state directory counts elsewhere.
#[derive(Debug, thiserror::Error)]
#[error(
    "the daemon of the state directory {} keeps other counters than those in {}; use --bpffs and --state-dir of \
     the same installation, in the daemon's mount namespace",
    state_dir.display(), pinned_in.display()
)]
pub struct DaemonElsewhere {
    state_dir: PathBuf,
    pinned_in: PathBuf,
}

/// Refuses counters that belong to no ledger while this ledger follows others that are still pinned.
///
/// # Errors
/// With [`OtherCounters`] in that case, and when the file or the link beside the pins cannot be read.
pub(super) fn check(ledger: &Ledger, snapshot: &Snapshot, pinned_in: &Path) -> anyhow::Result<()> {
    if ledger.has_drained(&snapshot.boot_id, snapshot.epoch)? {
        return Ok(());
    }
    let Some(state_dir) = ledger.path().parent() else { return Ok(()) };
    let Some(other) = state_file::read(&state_dir.join(FILE), MOST_BYTES)? else { return Ok(()) };
    let other = PathBuf::from(OsString::from_vec(other));
    let is_pinned = Bpffs::new(&other).map("META").exists();
    if other == real(pinned_in) || !is_pinned || !Binding::of_pins(&other).names(ledger)? {
        return Ok(());
    }
    Err(OtherCounters { state_dir: state_dir.to_owned(), pinned_in: other }.into())
}

/// Records that a ledger follows the counters pinned in a directory.
///
/// # Errors
/// When the file cannot be replaced.
pub(super) fn record(ledger: &Ledger, pinned_in: &Path) -> anyhow::Result<()> {
    let Some(state_dir) = ledger.path().parent() else { return Ok(()) };
    let (path, pinned_in) = (state_dir.join(FILE), real(pinned_in));
    let name = pinned_in.as_os_str().as_bytes();
    // It changes once in the life of an installation.
    if state_file::read(&path, MOST_BYTES).is_ok_and(|before| before.as_deref() == Some(name)) {
        return Ok(());
    }
    state_file::replace(&path, name, MOST_BYTES)
}

/// Refuses counters that the ledger has never seen while another process, the daemon of other counters, holds the
/// state directory. For commands and for the daemon of these counters alike.
///
/// # Errors
/// In that case, and when a lock or the ledger cannot be looked at.
pub(super) fn refuse_daemon_elsewhere(
    ledger: &Ledger,
    snapshot: &Snapshot,
    pinned_in: &Path,
) -> anyhow::Result<()> {
    let Some(state_dir) = ledger.path().parent() else { return Ok(()) };
    if ledger.has_drained(&snapshot.boot_id, snapshot.epoch)? {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    while lock::is_held(state_dir)? {
        if Bpffs::new(pinned_in).lock_of_daemon(Instant::now())?.is_none() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let (state_dir, pinned_in) = (state_dir.to_owned(), pinned_in.to_owned());
            return Err(DaemonElsewhere { state_dir, pinned_in }.into());
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// A path without links in it, where it exists.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use traffic_ledger::testing::{NOON, Node, ledger};

    use super::*;

    /// A directory in the place of a BPF file system with pinned counters.
    fn pins() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let meta = Bpffs::new(root.path()).map("META");
        fs::create_dir_all(meta.parent().unwrap()).unwrap();
        fs::write(meta, "").unwrap();
        root
    }

    #[test]
    fn a_second_set_of_counters_is_refused_until_the_first_is_purged() {
        let (first, second, mut file) = (pins(), pins(), ledger());
        let mut node = Node::new(NOON);
        node.traffic("101", 1, [1, 100, 2, 200]).pass(60).drain(&mut file.ledger);
        Binding::of_pins(first.path()).bind(&file.ledger, &node.snapshot()).unwrap();
        record(&file.ledger, first.path()).unwrap();
        record(&file.ledger, first.path()).unwrap();

        // Counters that were drained here before may come back, wherever they are pinned.
        check(&file.ledger, &node.snapshot(), second.path()).unwrap();
        let anew = node.renew_maps().snapshot();
        check(&file.ledger, &anew, first.path()).unwrap();
        let refused = check(&file.ledger, &anew, second.path()).unwrap_err();
        assert!(refused.is::<OtherCounters>(), "{refused:#}");
        assert!(refused.to_string().contains(&first.path().display().to_string()), "{refused:#}");

        // Another ledger follows the first set by now.
        let other = ledger();
        Binding::of_pins(first.path()).bind(&other.ledger, &anew).unwrap();
        check(&file.ledger, &anew, second.path()).unwrap();
        Binding::of_pins(first.path()).bind(&file.ledger, &anew).unwrap();
        check(&file.ledger, &anew, second.path()).unwrap_err();
        fs::remove_file(Bpffs::new(first.path()).map("META")).unwrap();
        check(&file.ledger, &anew, second.path()).unwrap();
    }
}
