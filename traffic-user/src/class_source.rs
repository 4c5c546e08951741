//! Where the class file is, and reading it whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::{
    classes::{self, ClassFile, ClassTable},
    config::Config,
};

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
    let file = classes::parse(&bytes);
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
        bail!("the class file is refused, and the table in force stays in force:{shown}{rest}");
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

/// The table that counting starts with: the class file's, or the one Virtuozzo ships where there is none.
///
/// # Errors
/// As [`read`]; and when the configuration names a file that does not exist.
pub fn table_for_start(config: &Config) -> anyhow::Result<ClassTable> {
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
    Ok(classes::compile(&file.entries, config.class_order))
}
