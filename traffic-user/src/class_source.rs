//! Where the class table comes from: a file, read whole or not at all, and in need the table that was in force last.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use traffic_classes::{ClassFile, ClassOrder, ClassTable};
use traffic_ledger::Ledger;

use crate::{config::Config, drain};

/// Most refused lines that an error names; `trafctl classes check` names all.
const NAMED_LINES: usize = 10;

/// The class file the configuration names, or the first of the usual ones that exists.
pub fn locate(config: &Config) -> Option<PathBuf> {
    config.class_file_candidates().into_iter().find(|path| path.exists())
}

/// Reads a class file; every warning is logged.
///
/// # Errors
/// When it can't be read, or any line of it is refused: then each is named.
pub fn read(path: &Path) -> anyhow::Result<ClassFile> {
    let bytes = fs::read(path).with_context(|| format!("cannot read the class file {}", path.display()))?;
    let file = traffic_classes::parse(&bytes);
    let refused: Vec<_> = file.refused().collect();
    if !refused.is_empty() {
        let shown: String = refused
            .iter()
            .take(NAMED_LINES)
            .map(|problem| format!("\n  {}:{}: {}", path.display(), problem.line, problem.message))
            .collect();
        let more = refused.len().saturating_sub(NAMED_LINES);
        let rest = if more > 0 {
            format!("\n  and {more} more; `trafctl classes check` names all")
        } else {
            String::new()
        };
        bail!("the class file is refused, and nothing is taken from it:{shown}{rest}");
    }
    for problem in file.warnings().take(NAMED_LINES) {
        tracing::warn!("{}:{}: {}", path.display(), problem.line, problem.message);
    }
    let more = file.warnings().count().saturating_sub(NAMED_LINES);
    if more > 0 {
        tracing::warn!("{}: {more} more warnings; `trafctl classes check` names all", path.display());
    }
    Ok(file)
}

/// What stands in the place of the class file, to tell whether it has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A file.
    File {
        /// Where.
        path: PathBuf,
        /// SHA-256 of its bytes.
        hash: [u8; 32],
    },
    /// A file that can't be read.
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// None.
    Nothing,
}

/// Looks at the class file without reading its lines.
pub fn look(config: &Config) -> Seen {
    let Some(path) = locate(config) else { return Seen::Nothing };
    match fs::read(&path) {
        Ok(bytes) => Seen::File { path, hash: Sha256::digest(bytes).into() },
        Err(error) => Seen::Unreadable { path, reason: error.to_string() },
    }
}

/// The class file's table, or the one Virtuozzo ships where there is no file.
///
/// # Errors
/// As [`read`]; and when the configuration names a file that does not exist.
pub fn configured_table(config: &Config) -> anyhow::Result<ClassTable> {
    let file = match locate(config) {
        Some(path) => read(&path)?,
        None if config.class_file.is_some() => read(&config.class_file_candidates()[0])?,
        None => {
            let places: Vec<_> =
                config.class_file_candidates().iter().map(|path| path.display().to_string()).collect();
            tracing::warn!(
                "no class file ({}): all traffic is class 1, as Virtuozzo ships it",
                places.join(", ")
            );
            ClassFile::shipped()
        }
    };
    Ok(traffic_classes::compile(&file.entries, config.class_order))
}

/// The table that new counters begin with: [`configured_table`]. Where that can't be had, or names no network at all, it is
/// the one that was in force last: after a reboot nobody means a node to go uncounted for a slip in a file, nor all of its
/// traffic to be class 0.
///
/// # Errors
/// As [`configured_table`], where the ledger has no earlier one.
pub fn table_for_new_counters(config: &Config, state_dir: &Path) -> anyhow::Result<ClassTable> {
    let configured = configured_table(config);
    let reason = match &configured {
        Ok(table) if !table.is_empty() => return configured,
        Ok(_) => "the class file names no network".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    match last_in_force(state_dir) {
        Ok(Some(table)) => {
            tracing::error!(
                "{reason}. Until it is mended, the table that was in force last is in force again"
            );
            return Ok(table);
        }
        Ok(None) => {}
        Err(error) => tracing::warn!("cannot ask the ledger which table was in force last: {error:#}"),
    }
    if configured.is_ok() {
        tracing::warn!("{reason}: all traffic is class 0");
    }
    configured
}

/// The table that the ledger's last reading was counted under, if it keeps it.
fn last_in_force(state_dir: &Path) -> anyhow::Result<Option<ClassTable>> {
    let path = drain::ledger_path(state_dir);
    if !path.exists() {
        return Ok(None);
    }
    let kept = Ledger::open_read_only(&path)?.last_class_table()?;
    // What is kept is a compiled table, whatever order its file had.
    let table = |text: Vec<u8>| {
        traffic_classes::compile(&traffic_classes::parse(&text).entries, ClassOrder::LongestPrefix)
    };
    Ok(kept.map(table).filter(|table| !table.is_empty()))
}
