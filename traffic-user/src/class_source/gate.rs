//! The gate: every class file that is put in force goes through here, whoever asks for it. `classes load`,
//! `vztactl class_load`, `attach` and `run` accept and hold the same files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use ipnet::IpNet;
use traffic_classes::{Candidate, ClassFile, ClassOrder, ClassTable, Hold, HoldLimit, InForce, hold};
use traffic_ledger::Ledger;

use super::{STDIN, locate, log_line_warnings, read, record};
use crate::{
    config::Config,
    drain,
    kernel::{
        bpffs::Bpffs,
        counters, load,
        maps::Maps,
        tables::{self, LoadLock},
    },
};

/// Which class file is meant.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// The configured file, or the table that Virtuozzo ships.
    Configured,
    /// A file that a command names, or `-`, and the order under which it is compiled.
    Named(&'a Path, ClassOrder),
}

/// What a person or a script said besides the file's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Word {
    /// Nothing.
    #[default]
    None,
    /// The file is right, although it is empty or looks cut short.
    Given,
}

/// Where a table came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file; `None` for standard input and for the table that Virtuozzo ships.
    pub path: Option<PathBuf>,
    /// Whether a command named the file.
    pub by_name: bool,
    /// The order under which it was compiled.
    pub order: ClassOrder,
    /// The bytes of the file.
    pub bytes: Vec<u8>,
}

/// A compiled class file.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The table.
    pub table: ClassTable,
    /// Where it came from.
    pub origin: Origin,
    /// The lines and the names of classes.
    pub file: ClassFile,
}

/// Why a readable class file is not put in force.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Barred {
    /// It has no networks, or class 0 covers all of them.
    #[error(
        "the class file{file} puts every address into class 0, which is not billed; give the right file, or load \
         it with `trafctl classes load --yes`, or use `vztactl class_unload`"
    )]
    Empty {
        /// Its path behind a blank.
        file: String,
    },
    /// It looks cut short.
    #[error(
        "the class file{file} is held: {hold}; if it is right, `trafctl classes load --yes{named}` loads it"
    )]
    Held {
        /// Its path behind a blank.
        file: String,
        /// The same, if a command named it.
        named: String,
        /// Why.
        hold: Hold,
    },
}

/// Reads and compiles a class file. [`Loaded::log_warnings`] logs its warnings.
///
/// # Errors
/// When it cannot be read, or any line is refused; and when the configuration names a file that does not
/// exist.
pub fn compiled(config: &Config, wanted: Wanted<'_>) -> anyhow::Result<Loaded> {
    let (path, by_name, order) = match wanted {
        Wanted::Named(path, order) => (Some(path.to_owned()), true, order),
        Wanted::Configured => {
            (locate(config).or_else(|| config.class_file.clone()), false, config.class_order)
        }
    };
    let (file, bytes) = match &path {
        Some(path) => read(path)?,
        None => {
            let places: Vec<_> =
                config.class_file_candidates().iter().map(|path| path.display().to_string()).collect();
            tracing::warn!(
                "no class file found ({}): all traffic is class 1, as in the file that Virtuozzo ships",
                places.join(", ")
            );
            (ClassFile::shipped(), Vec::new())
        }
    };
    let path = path.filter(|path| path != Path::new(STDIN));
    let table = traffic_classes::compile(&file.entries, order);
    Ok(Loaded { table, origin: Origin { path, by_name, order, bytes }, file })
}

/// The table in force, as far as it is known.
#[derive(Debug, Default)]
pub struct Known {
    hash: Option<[u8; 32]>,
    rows: Vec<(IpNet, u8)>,
    bytes: Option<Vec<u8>>,
}

impl Known {
    /// What the kernel holds. What cannot be read is not known: a damaged table must be replaceable.
    pub fn of_kernel(maps: &Maps, state_dir: &Path) -> Self {
        let Ok(info) = counters::class_table(maps) else { return Self::default() };
        let bytes = record::of(state_dir, &info.hash).and_then(|record| record.bytes(state_dir));
        Self { hash: Some(info.hash), rows: tables::in_force(maps).unwrap_or_default(), bytes }
    }

    /// A table that was in force before a reboot.
    fn of_table(table: &ClassTable, state_dir: &Path) -> Self {
        let hash = table.hash();
        let bytes = record::of(state_dir, &hash).and_then(|record| record.bytes(state_dir));
        let rows = table.entries().map(|entry| (entry.prefix, entry.class)).collect();
        Self { hash: Some(hash), rows, bytes }
    }

    /// Prefixes in force, for tests.
    #[cfg(test)]
    pub(super) fn of_test(table: &ClassTable, state_dir: &Path) -> Self {
        Self::of_table(table, state_dir)
    }

    /// The prefixes, with their classes.
    pub fn rows(&self) -> &[(IpNet, u8)] {
        &self.rows
    }

    /// Whether a file would be held.
    pub fn holds(&self, candidate: Candidate<'_>, limit: HoldLimit) -> Option<Hold> {
        if self.hash == Some(candidate.table.hash()) {
            return None;
        }
        hold(candidate, InForce { rows: &self.rows, file: self.bytes.as_deref() }, limit)
    }

    /// The hash of the table.
    pub const fn hash(&self) -> Option<&[u8; 32]> {
        self.hash.as_ref()
    }
}

impl Loaded {
    /// An empty table, which a command asks for.
    pub fn nothing(order: ClassOrder) -> Self {
        let origin = Origin { path: None, by_name: true, order, bytes: Vec::new() };
        Self { table: traffic_classes::compile(&[], order), origin, file: ClassFile::default() }
    }

    /// Logs what `classes check` would warn of: first what would not be billed, then the first lines. For
    /// whoever is about to put the file in force, once, so that a file that is tried again is not logged again.
    pub fn log_warnings(&self) {
        // A file without networks is barred, or asked for. The table that Virtuozzo ships has no lines.
        if self.file.entries.is_empty() || self.origin.bytes.is_empty() {
            return;
        }
        let path = self.origin.path.as_deref().unwrap_or(Path::new(STDIN));
        for warning in traffic_classes::billing_warnings(&self.file, &self.table) {
            tracing::warn!("{}: {warning}", path.display());
        }
        log_line_warnings(path, &self.file);
    }

    /// Lets the table pass, or tells why it is not put in force.
    ///
    /// # Errors
    /// [`Barred`].
    pub fn admit(self, known: &Known, limit: HoldLimit, word: Word) -> Result<Self, Barred> {
        // What is in force already takes nothing away.
        let is_unbilled = self.table.is_all_unclassified();
        if word == Word::Given || !is_unbilled && known.hash == Some(self.table.hash()) {
            return Ok(self);
        }
        let file = self.origin.path.as_ref().map_or(String::new(), |path| format!(" {}", path.display()));
        if is_unbilled {
            return Err(Barred::Empty { file });
        }
        let candidate = Candidate { bytes: &self.origin.bytes, file: &self.file, table: &self.table };
        match known.holds(candidate, limit) {
            Some(hold) => {
                let named = if self.origin.by_name { file.clone() } else { String::new() };
                Err(Barred::Held { file, named, hold })
            }
            None => Ok(self),
        }
    }
}

/// The table for new counters: the configured one, if it passes the gate against the table that was last in
/// force, and fits. Otherwise that table. After a reboot, a mistake in the file must neither leave the node
/// uncounted nor put all traffic into class 0.
///
/// Without an earlier table, all traffic is class 0, which is counted for its container and never billed.
/// Returns the reason with the table, unless the file is used.
pub fn table_for_new_counters(config: &Config, state_dir: &Path) -> (ClassTable, Option<String>) {
    let fits = |table: &ClassTable| tables::check_capacity(table, config.limits.classes);
    let last = last_in_force(state_dir).unwrap_or_else(|error| {
        tracing::warn!("cannot read the class table last in force from the ledger: {error:#}");
        None
    });
    let known = last.as_ref().map(|table| Known::of_table(table, state_dir)).unwrap_or_default();
    let configured = compiled(config, Wanted::Configured).and_then(|loaded| {
        fits(&loaded.table)?;
        ensure!(!loaded.table.is_empty(), "the class file contains no network");
        Ok(loaded.admit(&known, config.hold_limit, Word::None)?)
    });
    let reason = match configured {
        Ok(loaded) => {
            loaded.log_warnings();
            record::keep(state_dir, &loaded);
            return (loaded.table, None);
        }
        Err(error) => format!("{error:#}"),
    };
    // After a reason of several lines, it would read as part of the last one.
    let end = if reason.contains('\n') { "\n  " } else { ". " };
    if let Some(table) = last.filter(|table| fits(table).is_ok()) {
        tracing::error!("{reason}{end}Until the file is corrected, the table last in force is used");
        return (table, Some(reason));
    }
    tracing::error!(
        "{reason}{end}Until the file is corrected, all traffic is counted in class 0, which is not billed; then \
         the daemon loads it, or `trafctl classes load`"
    );
    let stand_in = traffic_classes::compile(&[], config.class_order);
    record::forget(state_dir, &stand_in.hash());
    (stand_in, Some(reason))
}

/// Whether the table in force is the one without a network that [`table_for_new_counters`] made because no
/// file was usable. The same table has a record if somebody asked for it.
pub fn is_stand_in(hash: &[u8; 32], state_dir: &Path) -> bool {
    let nothing = traffic_classes::compile(&[], ClassOrder::default());
    *hash == nothing.hash() && record::of(state_dir, hash).is_none()
}

/// As `is_stand_in`, for the table that the kernel has now. Waits for a load that is under way: its record
/// follows its table.
///
/// # Errors
/// When nothing is loaded, or the lock of another load is not released in time.
pub fn has_stand_in(bpffs: &Bpffs, state_dir: &Path) -> anyhow::Result<bool> {
    let looked = || anyhow::Ok(is_stand_in(&counters::class_table(&load::open(bpffs)?)?.hash, state_dir));
    Ok(looked()? && {
        let _loading = LoadLock::take(bpffs)?;
        looked()?
    })
}

/// The table under which the ledger's last reading was counted, if the ledger has it.
fn last_in_force(state_dir: &Path) -> anyhow::Result<Option<ClassTable>> {
    let path = drain::ledger_path(state_dir);
    if !path.exists() {
        return Ok(None);
    }
    let kept = Ledger::open_read_only(&path).context("opening the ledger")?.last_class_table()?;
    // The ledger keeps compiled tables, so the order of the original file no longer matters.
    let table = |text: Vec<u8>| {
        traffic_classes::compile(&traffic_classes::parse(&text).entries, ClassOrder::LongestPrefix)
    };
    Ok(kept.map(table).filter(|table| !table.is_empty()))
}
