//! What a status needs of the ledger, kept after each drain: with it, a look at a thousand interfaces need not open the
//! ledger, which takes as long as all of their hooks.
//!
//! It counts only while the ledger is in the state in which it was looked at ([`FileState`]). Whatever else writes to the
//! ledger ends that, and so does the end of the daemon.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use traffic_ledger::{FileState, Ledger, LedgerError, Standing};

use crate::state_file;

/// Name of the file in the state directory.
const FILE: &str = "ledger-look.json";
/// Version of its content.
const VERSION: u32 = 1;
/// Largest file, in bytes: some thousand pending owners.
const MOST_BYTES: u64 = 1 << 20;

/// How a ledger stands, and who is pending in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct LedgerLook {
    /// See [`Ledger::standing`].
    pub standing: Standing,
    /// The ids of [`Ledger::pending_ids`].
    pub pending_ids: Vec<String>,
}

/// The content of the file.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    version: u32,
    /// The state that was looked at.
    of: FileState,
    look: LedgerLook,
}

impl LedgerLook {
    /// Looks at an open ledger.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn at(ledger: &Ledger) -> Result<Self, LedgerError> {
        let pending_ids = ledger.pending_ids()?.into_iter().map(|(id, _)| id).collect();
        Ok(Self { standing: ledger.standing()?, pending_ids })
    }

    /// Looks at an open ledger in this state and keeps what it saw in the state directory, unless somebody else changes the
    /// ledger meanwhile.
    ///
    /// # Errors
    /// When it cannot be read, or the file cannot be written.
    pub fn keep(ledger: &Ledger, of: &FileState, state_dir: &Path) -> anyhow::Result<()> {
        let look = Self::at(ledger).context("cannot look at the ledger")?;
        if FileState::of(ledger.path()).as_ref() != Some(of) {
            return Ok(());
        }
        let kept = serde_json::to_vec(&Kept { version: VERSION, of: of.clone(), look })?;
        state_file::replace(&state_dir.join(FILE), &kept, MOST_BYTES)
    }

    /// What was kept of the ledger at this path; `None` if the ledger has changed since, or nothing was kept.
    pub fn kept(path: &Path, state_dir: &Path) -> Option<Self> {
        let bytes = state_file::read(&state_dir.join(FILE), MOST_BYTES).ok()??;
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        (kept.version == VERSION && FileState::of(path)? == kept.of).then_some(kept.look)
    }
}

#[cfg(test)]
mod tests {
    use traffic_ledger::testing::*;

    use super::*;

    #[test]
    fn a_look_counts_until_the_ledger_changes() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, mut node) = (ledger(), Node::balanced(NOON));
        node.traffic("101", 1, [1, 100, 1, 10]).drain(&mut file.ledger);
        node.traffic_in("pending:veth7:7:x", 7, 1, [1, 10, 0, 0]).pass(90).drain(&mut file.ledger);
        let path = file.ledger.path().to_owned();
        let kept = || LedgerLook::kept(&path, directory.path());
        let keep = |ledger: &Ledger| {
            LedgerLook::keep(ledger, &FileState::of(&path).unwrap(), directory.path()).unwrap();
        };
        assert_eq!(kept(), None);
        keep(&file.ledger);
        let looked = LedgerLook::at(&file.ledger).unwrap();
        assert!(!looked.standing.open_months.is_empty());
        assert_eq!(kept(), Some(looked));

        node.traffic("101", 1, [1, 100, 1, 10]).pass(60).drain(&mut file.ledger);
        assert_eq!(kept(), None, "another drain");
        keep(&file.ledger);
        assert!(kept().is_some());
        std::fs::write(directory.path().join(FILE), "{}").unwrap();
        assert_eq!(kept(), None, "not a look");
        keep(&file.ledger);
        drop(file.ledger);
        assert_eq!(kept(), None, "nobody has it open");
    }
}
