//! What became of shipping: `ship.json` in the state directory.
//!
//! Nothing that is shipped depends on it: how far a store is, it knows itself. Metrics and `trafctl status` read it, and the
//! next process begins with batches of the size that it has.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::state_file::{self, StateLock};

/// Name of the file in the state directory.
const FILE: &str = "ship.json";
/// The most that is read, in bytes.
const MOST_BYTES: u64 = 1 << 20;
/// Version of the file.
const VERSION: u32 = 1;
/// How many differing days are kept. If there are as many, there may be more.
pub(super) const MOST_DIFFERING: usize = 100;
/// How many differing days a text names.
const MOST_NAMED: usize = 3;

/// What is known of all stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipState {
    version: u32,
    /// By the URL without options.
    pub stores: BTreeMap<String, StoreState>,
}

/// What is known of one store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreState {
    /// The id of the ledger that is shipped.
    pub ledger: String,
    /// Since when rows and failures are counted, Unix seconds.
    pub since_s: i64,
    /// Rows that were shipped.
    pub rows: u64,
    /// Rounds that failed.
    pub failures: u64,
    /// When everything was shipped last, Unix seconds.
    pub shipped_s: Option<i64>,
    /// The last reading of the counters that was shipped, in milliseconds since the Unix epoch.
    pub reading_ms: Option<i64>,
    /// Why the last round failed, if it did.
    pub error: Option<String>,
    /// How often the size of its batches was halved after failures, beyond what successes have doubled.
    pub batch_halvings: u32,
    /// When the store was last to be compared with the ledger by itself, Unix seconds.
    pub compare_tried_s: i64,
    /// Why that failed, if it did.
    pub compare_error: Option<String>,
    /// What that has shown.
    pub compared: Option<Compared>,
}

/// What comparisons with the ledger have shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compared {
    /// Everything before this time was found equal, Unix seconds; 0 for nothing.
    pub until_s: i64,
    /// The change number that the ledger had then: what changed later was not compared.
    pub changes: i64,
    /// The token of that number.
    pub token: Option<String>,
    /// The days that differ, as of the last comparison, and the tables of what is of no day.
    pub differing: Vec<String>,
}

impl Compared {
    /// The differing days in words.
    pub fn differing_text(&self) -> String {
        let named = self.differing.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
        match self.differing.len().saturating_sub(MOST_NAMED) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }
}

impl Default for ShipState {
    fn default() -> Self {
        Self { version: VERSION, stores: BTreeMap::new() }
    }
}

impl ShipState {
    /// What a state directory has; nothing if nobody has shipped yet.
    ///
    /// # Errors
    /// When the file cannot be read, or is another one.
    pub fn read(state_dir: &Path) -> anyhow::Result<Self> {
        let path = state_dir.join(FILE);
        let Some(bytes) = state_file::read(&path, MOST_BYTES)? else { return Ok(Self::default()) };
        let known: Self = serde_json::from_slice(&bytes)
            .map_err(|error| anyhow::anyhow!("{} is damaged ({error}); remove it", path.display()))?;
        anyhow::ensure!(
            known.version == VERSION,
            "{} has version {}, and {VERSION} is known; remove it",
            path.display(),
            known.version
        );
        Ok(known)
    }

    /// What is known of a store, if it is of this ledger.
    pub(super) fn of(&self, (store, ledger): (&str, &str)) -> StoreState {
        self.stores.get(store).filter(|known| known.ledger == ledger).cloned().unwrap_or_default()
    }

    /// Changes what is known of a store. What is of another ledger is forgotten; an empty id is that of the known one.
    pub(super) fn change(
        &mut self,
        (store, ledger): (&str, &str),
        now_s: i64,
        change: impl FnOnce(&mut StoreState),
    ) {
        let state = self.stores.entry(store.to_owned()).or_default();
        let is_another = !ledger.is_empty() && state.ledger != ledger;
        if state.since_s == 0 || is_another {
            *state = StoreState { ledger: ledger.to_owned(), since_s: now_s, ..StoreState::default() };
        }
        change(state);
    }

    fn write(&self, lock: &StateLock) -> anyhow::Result<()> {
        lock.replace(FILE, &serde_json::to_vec_pretty(self)?, MOST_BYTES)
    }
}

/// As [`ShipState::change`], in the file of a state directory.
pub(super) fn change(
    state_dir: &Path,
    of: (&str, &str),
    now_s: i64,
    change: impl FnOnce(&mut StoreState),
) -> anyhow::Result<()> {
    let lock = StateLock::take(state_dir)?;
    let mut known = ShipState::read(state_dir)?;
    known.change(of, now_s, change);
    known.write(&lock)
}

/// Forgets all stores but some.
pub(super) fn keep_only(state_dir: &Path, stores: &[&str]) -> anyhow::Result<()> {
    let lock = StateLock::take(state_dir)?;
    let mut known = ShipState::read(state_dir)?;
    let before = known.stores.len();
    known.stores.retain(|name, _| stores.contains(&name.as_str()));
    if known.stores.len() < before { known.write(&lock) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_store_has_its_own_figures_of_this_ledger() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ShipState::read(dir.path()).unwrap(), ShipState::default());
        change(dir.path(), ("a", "one"), 100, |store| store.rows += 5).unwrap();
        change(dir.path(), ("a", "one"), 200, |store| store.rows += 2).unwrap();
        // The ledger could not be opened.
        change(dir.path(), ("a", ""), 250, |store| store.failures += 1).unwrap();
        change(dir.path(), ("b", "one"), 300, |store| store.failures += 4).unwrap();
        let read = ShipState::read(dir.path()).unwrap().stores;
        let of = |name: &str| {
            (read[name].since_s, read[name].rows, read[name].failures, read[name].ledger.as_str())
        };
        assert_eq!((of("a"), of("b")), ((100, 7, 1, "one"), (300, 0, 4, "one")));
        keep_only(dir.path(), &["a", "c"]).unwrap();
        change(dir.path(), ("a", "two"), 400, |store| store.rows += 1).unwrap();
        let read = ShipState::read(dir.path()).unwrap().stores;
        assert_eq!(read.len(), 1);
        assert_eq!((read["a"].since_s, read["a"].rows, read["a"].ledger.as_str()), (400, 1, "two"));
    }

    #[test]
    fn another_file_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["{", r#"{"version": 2, "stores": {}}"#] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let error = change(dir.path(), ("a", "one"), 1, |_| {}).unwrap_err().to_string();
            assert!(error.contains("ship.json") && error.contains("remove it"), "{error}");
            assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), text);
        }
    }

    #[test]
    fn few_days_are_named() {
        let of = |days: &[&str]| {
            Compared { differing: days.iter().map(|day| (*day).to_owned()).collect(), ..Compared::default() }
                .differing_text()
        };
        assert_eq!(of(&["a", "b", "c"]), "a, b, c");
        assert_eq!(of(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }
}
