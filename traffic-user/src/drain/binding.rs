//! Binds pinned counters to the ledger that drains them, so that no other installation's ledger takes them
//! over.
//!
//! A symbolic link beside the pins names the counter epoch and the id of its ledger. (The BPF file system
//! holds no regular files.) The link disappears with the pins, and counts for its own epoch only:
//!
//! - After a reboot or a purge there is a new epoch, which belongs to no ledger until its first drain.
//! - A ledger restored from a backup keeps its id. A ledger that has drained the epoch before is accepted as
//!   well.
//! - If the ledger was lost, a new one has another id. `trafctl ledger adopt` then binds the counters to it.
//!
//! A refused drain does not stop counting: the error is logged and the next drain tries again.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use traffic_ledger::{Ledger, LedgerError};
use traffic_model::Snapshot;

/// Name of the link beside the pins.
const LINK: &str = "ledger";
/// What stands before the ledger's id in the link.
const SEPARATOR: &str = "-ledger-";

/// The counters belong to another ledger.
#[derive(Debug, thiserror::Error)]
#[error(
    "they are drained into another ledger (id {owner}); use --bpffs and --state-dir of the same \
     installation, or run `trafctl ledger adopt --yes` if that ledger is lost"
)]
pub struct OtherLedger {
    /// Id of the ledger that the counters belong to.
    owner: String,
}

/// The counters belong to a ledger, and the state directory holds none.
#[derive(Debug, thiserror::Error)]
#[error(
    "they are drained into another ledger (id {owner}), and there is no ledger {}; use --bpffs and \
     --state-dir of the same installation, or, if that ledger is lost, start `trafctl run` and run \
     `trafctl ledger adopt --yes`",
    path.display()
)]
pub struct NoLedger {
    /// Id of the ledger that the counters belong to.
    owner: String,
    /// Where the ledger is missing.
    path: PathBuf,
}

/// The link beside one set of pins.
pub(super) struct Binding {
    path: PathBuf,
}

impl Binding {
    /// The binding of the counters that are pinned below `root`.
    pub fn of_pins(root: &Path) -> Self {
        Self { path: root.join(LINK) }
    }

    /// Refuses a ledger that the counters of a snapshot do not belong to.
    ///
    /// # Errors
    /// With [`OtherLedger`] in that case, and when the link or the ledger cannot be read.
    pub fn check(&self, ledger: &Ledger, snapshot: &Snapshot) -> anyhow::Result<()> {
        match self.owner(snapshot)? {
            Some(owner) if owner != ledger.id()? && !has_drained(ledger, snapshot)? => {
                Err(OtherLedger { owner }.into())
            }
            _ => Ok(()),
        }
    }

    /// Refuses to continue without a ledger when the counters of a snapshot belong to one. `path` is where it
    /// is missing.
    ///
    /// # Errors
    /// With [`NoLedger`] in that case, and when the link cannot be read.
    pub fn check_unbound(&self, path: &Path, snapshot: &Snapshot) -> anyhow::Result<()> {
        match self.owner(snapshot)? {
            Some(owner) => Err(NoLedger { owner, path: path.to_owned() }.into()),
            None => Ok(()),
        }
    }

    /// Binds the counters of a snapshot to a ledger. Returns false if they already belong to it.
    ///
    /// # Errors
    /// When the link cannot be replaced.
    pub fn bind(&self, ledger: &Ledger, snapshot: &Snapshot) -> anyhow::Result<bool> {
        if self.is_bound(ledger, snapshot)? {
            return Ok(false);
        }
        let target = target(snapshot, &ledger.id()?);
        let replace = || match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => symlink(&target, &self.path),
        };
        replace().with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(true)
    }

    /// Whether the counters of a snapshot belong to a ledger already.
    ///
    /// # Errors
    /// When the link cannot be read.
    pub fn is_bound(&self, ledger: &Ledger, snapshot: &Snapshot) -> anyhow::Result<bool> {
        Ok(self.target()?.as_deref() == Some(Path::new(&target(snapshot, &ledger.id()?))))
    }

    /// Whether the counters, of whichever epoch, belong to a ledger.
    ///
    /// # Errors
    /// When the link or the ledger's id cannot be read.
    pub fn names(&self, ledger: &Ledger) -> anyhow::Result<bool> {
        let target = self.target()?;
        let text = target.as_deref().and_then(Path::to_str).unwrap_or_default();
        Ok(text.ends_with(&format!("{SEPARATOR}{}", ledger.id()?)))
    }

    /// The id of the ledger that the counters of a snapshot belong to, if any.
    fn owner(&self, snapshot: &Snapshot) -> anyhow::Result<Option<String>> {
        let target = self.target()?;
        let text = target.as_deref().and_then(Path::to_str).unwrap_or_default();
        Ok(text.strip_prefix(&target_prefix(snapshot)).map(str::to_owned))
    }

    fn target(&self) -> anyhow::Result<Option<PathBuf>> {
        match fs::read_link(&self.path) {
            Ok(target) => Ok(Some(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        }
    }
}

fn has_drained(ledger: &Ledger, snapshot: &Snapshot) -> Result<bool, LedgerError> {
    ledger.has_drained(&snapshot.boot_id, snapshot.epoch)
}

fn target(snapshot: &Snapshot, ledger: &str) -> String {
    target_prefix(snapshot) + ledger
}

fn target_prefix(snapshot: &Snapshot) -> String {
    format!("epoch-{:016x}{SEPARATOR}", snapshot.epoch)
}

#[cfg(test)]
mod tests {
    use traffic_ledger::testing::{NOON, Node, ledger};

    use super::*;

    /// Drains as the daemon does. Returns whether the ledger was accepted.
    fn drain(binding: &Binding, ledger: &mut Ledger, node: &Node) -> bool {
        let snapshot = node.snapshot();
        if let Err(error) = binding.check(ledger, &snapshot) {
            assert!(error.is::<OtherLedger>(), "{error:#}");
            return false;
        }
        node.drain(ledger);
        binding.bind(ledger, &snapshot).unwrap();
        true
    }

    fn node() -> Node {
        let mut node = Node::new(NOON);
        node.traffic("101", 1, [1, 100, 2, 200]).pass(60);
        node
    }

    #[test]
    fn counters_of_another_installation_are_refused() {
        let pins = tempfile::tempdir().unwrap();
        let binding = Binding::of_pins(pins.path());
        let (mut own, mut other, mut node) = (ledger(), ledger(), node());
        assert!(drain(&binding, &mut own.ledger, &node));
        assert!(!drain(&binding, &mut other.ledger, node.pass(60)));
        assert!(drain(&binding, &mut own.ledger, node.pass(60)));
        let refused = binding.check(&other.ledger, &node.snapshot()).unwrap_err().to_string();
        assert!(refused.contains(&own.ledger.id().unwrap()), "{refused}");
    }

    #[test]
    fn a_new_epoch_belongs_to_the_first_ledger_that_drains_it() {
        let pins = tempfile::tempdir().unwrap();
        let binding = Binding::of_pins(pins.path());
        let (mut first, mut second, mut node) = (ledger(), ledger(), node());
        assert!(drain(&binding, &mut first.ledger, &node));
        // The pins stay after a purge, and the link with them.
        assert!(drain(&binding, &mut second.ledger, node.pass(60).renew_maps().pass(60)));
        assert!(!drain(&binding, &mut first.ledger, node.pass(60)));
    }

    #[test]
    fn only_counters_without_a_ledger_may_be_changed_without_one() {
        let pins = tempfile::tempdir().unwrap();
        let binding = Binding::of_pins(pins.path());
        let missing = Path::new("/var/lib/other/ledger.sqlite");
        let (mut own, mut node) = (ledger(), node());
        binding.check_unbound(missing, &node.snapshot()).unwrap();
        assert!(drain(&binding, &mut own.ledger, &node));
        let refused = binding.check_unbound(missing, &node.snapshot()).unwrap_err();
        assert!(refused.is::<NoLedger>(), "{refused:#}");
        let refused = refused.to_string();
        let owner = own.ledger.id().unwrap();
        for part in [owner.as_str(), "/var/lib/other/ledger.sqlite", "`trafctl ledger adopt --yes`"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        binding.check_unbound(missing, &node.renew_maps().snapshot()).unwrap();
    }

    #[test]
    fn a_restored_backup_is_accepted_and_a_new_ledger_must_adopt_the_counters() {
        let pins = tempfile::tempdir().unwrap();
        let binding = Binding::of_pins(pins.path());
        let (mut own, mut node) = (ledger(), node());
        let backup = own.dir.path().join("backup.sqlite");
        own.ledger.backup(&backup).unwrap();
        assert!(drain(&binding, &mut own.ledger, &node));
        let mut restored = Ledger::open(&backup, Default::default()).unwrap();
        assert!(drain(&binding, &mut restored, node.pass(60)));

        let mut new = ledger();
        assert!(!drain(&binding, &mut new.ledger, node.pass(60)));
        assert!(binding.bind(&new.ledger, &node.snapshot()).unwrap());
        assert!(!binding.bind(&new.ledger, &node.snapshot()).unwrap(), "they already belong to it");
        assert!(drain(&binding, &mut new.ledger, node.pass(60)));
        // The lost ledger has drained these counters before, so it may come back.
        assert!(drain(&binding, &mut own.ledger, node.pass(60)));
    }
}
