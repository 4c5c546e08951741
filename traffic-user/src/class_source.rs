//! Where the class table comes from: a class file, which is used whole or not at all, or else the table last
//! in force.
//!
//! - here: which file is meant, and reading it;
//! - `gate`: what may be put in force ([`Loaded::admit`]);
//! - `record`: where the table in force came from;
//! - [`shadow`]: which file the shadow class table is of;
//! - `difference`: how the configured file differs from it;
//! - `explained`: why an address has its class.
//!
//! Parsing and compiling are `traffic_classes`; [`crate::kernel::tables`] writes a table into the maps.
//! `trafctl classes load FILE` may put another file in force than the configured one.

mod difference;
mod explained;
mod gate;
mod record;
pub mod shadow;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use traffic_classes::{ClassFile, ClassTable, Diagnostic, SHOWN_PROBLEMS};
use traffic_model::counted;

use crate::{config::Config, files};

pub use difference::{TableDifference, difference_from_table_in_force};
pub use explained::{Basis, Explained, InForce};
pub use gate::{Barred, Known, Loaded, Origin, Wanted, Word, compiled, has_stand_in, table_for_new_counters};
pub use record::{Record, keep, of as record_of};

/// The size of a table in force, as a sentence.
pub fn in_force(table: &ClassTable) -> String {
    let verb = if table.len() == 1 { "is" } else { "are" };
    let (prefixes, classes) =
        (counted(table.len(), "prefix"), counted(table.classes_in_use().len(), "class"));
    format!("{prefixes} in {classes} {verb} in force")
}

/// The path that stands for standard input.
pub const STDIN: &str = "-";

/// Names of classes: those of the configuration, and those in the class file that was loaded last.
pub fn class_names(config: &Config, state_dir: &Path) -> BTreeMap<u8, String> {
    let mut names = record::last(state_dir).map(|record| record.names).unwrap_or_default();
    names.extend(config.class_names.iter().map(|(class, name)| (*class, name.clone())));
    names
}

/// The configured class file, or the first of the default places that exists.
///
/// A file that cannot be looked at, or a symbolic link that leads nowhere, exists: reading it names the reason.
pub fn locate(config: &Config) -> Option<PathBuf> {
    let is_there = |path: &PathBuf| !is_missing(&fs::symlink_metadata(path));
    config.class_file_candidates().into_iter().find(is_there)
}

/// Whether a look at a path found nothing there, not even a directory that could contain it.
fn is_missing(looked: &io::Result<fs::Metadata>) -> bool {
    let missing = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    looked.as_ref().is_err_and(|error| missing.contains(&error.kind()))
}

/// Reads a class file. Returns what it says, and its bytes.
///
/// # Errors
/// When the file cannot be read, or any line is refused. The first refused lines are part of the message.
pub fn read(path: &Path) -> anyhow::Result<(ClassFile, Vec<u8>)> {
    let bytes = read_bytes(path)?;
    let file = traffic_classes::parse(&bytes);
    let refused: Vec<_> = file.refused().collect();
    if let [Diagnostic { line: 0, message, .. }] = refused[..] {
        bail!("the class file is refused: {}: {message}", path.display());
    }
    if !refused.is_empty() {
        let shown: String = refused
            .iter()
            .take(SHOWN_PROBLEMS)
            .map(|problem| format!("\n  {}:{}: {}", path.display(), problem.line, problem.message))
            .collect();
        let rest = match file.refused_lines.saturating_sub(SHOWN_PROBLEMS) {
            0 => String::new(),
            more => format!("\n  ... and {more} more; {} lists all", check_command(path)),
        };
        bail!("the class file is refused, and nothing of it is used:{shown}{rest}");
    }
    Ok((file, bytes))
}

/// Logs the first warnings about lines, and how many more there are.
pub fn log_line_warnings(path: &Path, file: &ClassFile) {
    for problem in file.warnings().take(SHOWN_PROBLEMS) {
        tracing::warn!("{}:{}: {}", path.display(), problem.line, problem.message);
    }
    let more = file.warnings().count().saturating_sub(SHOWN_PROBLEMS);
    if more > 0 {
        tracing::warn!("{}: ... and {more} more warnings; {} lists all", path.display(), check_command(path));
    }
}

/// The bytes of a class file.
///
/// # Errors
/// When it cannot be read, or is not a regular file of sane size.
pub fn read_bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new(STDIN) {
        return files::read_bounded(io::stdin().lock(), files::MOST_CLASS_FILE_BYTES)
            .context("cannot read the classes from standard input");
    }
    files::read(path, files::MOST_CLASS_FILE_BYTES)
        .with_context(|| format!("cannot read the class file {}", path.display()))
}

fn check_command(path: &Path) -> String {
    format!("`trafctl classes check --format json {}`", path.display())
}

/// What is at the class file's path, to detect changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// SHA-256 of its bytes.
        hash: [u8; 32],
    },
    /// A file that cannot be read.
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// No file.
    Nothing,
}

impl Seen {
    /// Why there is nothing to load, if so. Without a configured file, there need not be one.
    pub fn problem(&self, config: &Config) -> Option<String> {
        match self {
            Self::Unreadable { path, reason } => {
                Some(format!("cannot read the class file {}: {reason}", path.display()))
            }
            Self::Nothing => {
                let path = config.class_file.as_ref()?.display();
                Some(format!("there is no class file {path}; put it there, or correct `class_file`"))
            }
            Self::File { .. } => None,
        }
    }
}

/// Looks at the class file without parsing it.
pub fn look(config: &Config) -> Seen {
    let Some(path) = locate(config) else { return Seen::Nothing };
    match files::read(&path, files::MOST_CLASS_FILE_BYTES) {
        Ok(bytes) => Seen::File { path, hash: Sha256::digest(bytes).into() },
        Err(error) => Seen::Unreadable { path, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests;
