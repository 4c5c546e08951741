//! Where the class table comes from: a class file, which is used whole or not at all, or else the table last
//! in force.
//!
//! Parsing and compiling are `traffic_classes`; [`crate::kernel::tables`] writes a table into the maps.
//! `trafctl classes load FILE` may put another file in force than the configured one. [`record_loaded_file`]
//! and [`difference_from_table_in_force`] make that visible.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use traffic_classes::{ClassFile, ClassOrder, ClassTable, Diagnostic, SHOWN_PROBLEMS};
use traffic_ledger::Ledger;
use traffic_model::{counted, hex};

use crate::{
    config::Config,
    drain, files,
    kernel::tables,
    state_file::{self, StateLock},
};

/// Why a class file is not put in force unless somebody asks for it: it is empty, or has only class 0.
pub const ALL_UNBILLED: &str = "the class file puts every address into class 0, which is not billed";

/// The size of a table in force, as a sentence.
pub fn in_force(table: &ClassTable) -> String {
    let verb = if table.len() == 1 { "is" } else { "are" };
    let (prefixes, classes) =
        (counted(table.len(), "prefix"), counted(table.classes_in_use().len(), "class"));
    format!("{prefixes} in {classes} {verb} in force")
}

/// The path that stands for standard input.
pub const STDIN: &str = "-";

/// Name of the file in the state directory that records which class file was loaded by name.
const RECORD_FILE: &str = "class-table.json";
/// Largest such file, in bytes.
const MOST_RECORD_BYTES: u64 = 64 << 10;
/// Version of that file.
const RECORD_VERSION: u32 = 1;

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

/// Reads a class file and logs its warnings.
///
/// # Errors
/// When the file cannot be read, or any line is refused. The first refused lines are part of the message.
pub fn read(path: &Path) -> anyhow::Result<ClassFile> {
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
    for problem in file.warnings().take(SHOWN_PROBLEMS) {
        tracing::warn!("{}:{}: {}", path.display(), problem.line, problem.message);
    }
    let more = file.warnings().count().saturating_sub(SHOWN_PROBLEMS);
    if more > 0 {
        tracing::warn!("{}: ... and {more} more warnings; {} lists all", path.display(), check_command(path));
    }
    Ok(file)
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

/// The class file's table, or the one that Virtuozzo ships if there is no file.
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
                "no class file found ({}): all traffic is class 1, as in the file that Virtuozzo ships",
                places.join(", ")
            );
            ClassFile::shipped()
        }
    };
    Ok(traffic_classes::compile(&file.entries, config.class_order))
}

/// The table for new counters: [`configured_table`]. If that fails, does not fit or has no networks, the table
/// that was last in force. After a reboot, a mistake in the file must neither leave the node uncounted nor put
/// all traffic into class 0.
///
/// Without an earlier table, all traffic is class 0, which is counted for its container and never billed.
/// Returns the reason with the table, unless the file is used.
pub fn table_for_new_counters(config: &Config, state_dir: &Path) -> (ClassTable, Option<String>) {
    let fits = |table: &ClassTable| tables::check_capacity(table, config.limits.classes);
    let configured = configured_table(config).and_then(|table| {
        fits(&table)?;
        ensure!(!table.is_empty(), "the class file contains no network");
        Ok(table)
    });
    let reason = match configured {
        Ok(table) => return (table, None),
        Err(error) => format!("{error:#}"),
    };
    let last = last_in_force(state_dir).unwrap_or_else(|error| {
        tracing::warn!("cannot read the class table last in force from the ledger: {error:#}");
        None
    });
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
    (traffic_classes::compile(&[], config.class_order), Some(reason))
}

/// The table under which the ledger's last reading was counted, if the ledger has it.
fn last_in_force(state_dir: &Path) -> anyhow::Result<Option<ClassTable>> {
    let path = drain::ledger_path(state_dir);
    if !path.exists() {
        return Ok(None);
    }
    let kept = Ledger::open_read_only(&path)?.last_class_table()?;
    // The ledger keeps compiled tables, so the order of the original file no longer matters.
    let table = |text: Vec<u8>| {
        traffic_classes::compile(&traffic_classes::parse(&text).entries, ClassOrder::LongestPrefix)
    };
    Ok(kept.map(table).filter(|table| !table.is_empty()))
}

/// Which file a table was loaded from by name.
#[derive(Debug, Deserialize, Serialize)]
struct LoadedFile {
    version: u32,
    file: PathBuf,
    table_hash: String,
}

/// Records that a table was loaded from a file given by name, or, with `None`, from the configured file.
///
/// # Errors
/// When the state directory cannot be written.
pub fn record_loaded_file(state_dir: &Path, file: Option<&Path>, table: &ClassTable) -> anyhow::Result<()> {
    let record = state_dir.join(RECORD_FILE);
    let Some(file) = file else {
        return match fs::remove_file(&record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", record.display()))
            }
            _ => Ok(()),
        };
    };
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let loaded = LoadedFile { version: RECORD_VERSION, file, table_hash: hex(&table.hash()) };
    let bytes = serde_json::to_vec_pretty(&loaded)?;
    StateLock::take(state_dir)?.replace(RECORD_FILE, &bytes, MOST_RECORD_BYTES)
}

/// The file that the table of this hash was loaded from by name. `None` also for a record of an earlier table
/// or of another version, because the record only adds to a message.
fn recorded_file(state_dir: &Path, in_force: &[u8; 32]) -> Option<PathBuf> {
    let bytes = state_file::read(&state_dir.join(RECORD_FILE), MOST_RECORD_BYTES).ok()??;
    let loaded: LoadedFile = serde_json::from_slice(&bytes).ok()?;
    (loaded.version == RECORD_VERSION && loaded.table_hash == hex(in_force)).then_some(loaded.file)
}

/// How the configured class file and the table in force differ. Its `Display` is one sentence: WHAT; WHAT TO
/// DO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDifference {
    /// The configured class file; `None` if there is none and the shipped table applies.
    pub configured: Option<PathBuf>,
    /// Why the configured file cannot be used, if so.
    pub refused: Option<String>,
    /// The file that the table in force was loaded from by `trafctl classes load FILE`, if known.
    pub loaded_from: Option<PathBuf>,
}

impl fmt::Display for TableDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let configured = match &self.configured {
            Some(path) => format!("the class file {}", path.display()),
            None => "the default table (all traffic is class 1)".to_owned(),
        };
        match &self.loaded_from {
            Some(path) => {
                write!(f, "the class table in force was loaded from {}, not from ", path.display())?;
            }
            None => f.write_str("the class table in force differs from ")?,
        }
        f.write_str(&configured)?;
        match &self.refused {
            Some(reason) => write!(f, ", which is not usable: {reason}"),
            None => f.write_str("; `trafctl classes load` loads that"),
        }
    }
}

/// Compares the configured class file with the table in force, given by its hash ([`ClassTable::hash`], as in
/// the maps' `META`). `None` if the file would give the same table.
///
/// For `status`: parses the whole file, which takes about 0.3 s for 800,000 lines.
pub fn difference_from_table_in_force(
    config: &Config,
    state_dir: &Path,
    in_force: &[u8; 32],
) -> Option<TableDifference> {
    let configured = locate(config).or_else(|| config.class_file.clone());
    let hash_of = |path: &Path| -> Result<[u8; 32], String> {
        let bytes = files::read(path, files::MOST_CLASS_FILE_BYTES).map_err(|error| error.to_string())?;
        let file = traffic_classes::parse(&bytes);
        match file.refused().next() {
            Some(problem) => Err(problem.to_string()),
            None => Ok(traffic_classes::compile(&file.entries, config.class_order).hash()),
        }
    };
    let hash = match &configured {
        Some(path) => hash_of(path),
        None => Ok(traffic_classes::compile(&ClassFile::shipped().entries, config.class_order).hash()),
    };
    if hash.as_ref() == Ok(in_force) {
        return None;
    }
    Some(TableDifference { configured, refused: hash.err(), loaded_from: recorded_file(state_dir, in_force) })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node {
        directory: tempfile::TempDir,
        config: Config,
    }

    impl Node {
        fn new(classes: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("classes");
            fs::write(&path, classes).unwrap();
            let config = Config::parse(&format!("class_file = {path:?}\n"), Path::new("t.toml")).unwrap();
            Self { directory, config }
        }

        fn difference(&self, in_force: &ClassTable) -> Option<String> {
            let state = self.directory.path().join("state");
            difference_from_table_in_force(&self.config, &state, &in_force.hash()).map(|it| it.to_string())
        }
    }

    fn table(text: &str) -> ClassTable {
        traffic_classes::compile(&traffic_classes::parse(text.as_bytes()).entries, ClassOrder::Virtuozzo)
    }

    #[test]
    fn a_table_loaded_from_another_file_is_reported() {
        let node = Node::new("1 0.0.0.0/0\n");
        let (configured, other) = (table("1 0.0.0.0/0\n"), table("2 10.0.0.0/8\n"));
        let path = node.directory.path().join("classes").display().to_string();
        assert_eq!(node.difference(&configured), None);
        assert_eq!(
            node.difference(&other),
            Some(format!(
                "the class table in force differs from the class file {path}; `trafctl classes load` loads \
                 that"
            ))
        );
        let state = node.directory.path().join("state");
        record_loaded_file(&state, Some(Path::new("/nonexistent/new_classes")), &other).unwrap();
        assert_eq!(
            node.difference(&other),
            Some(format!(
                "the class table in force was loaded from /nonexistent/new_classes, not from the class file \
                 {path}; `trafctl classes load` loads that"
            ))
        );
        // The record belongs to one table.
        assert!(node.difference(&table("3 ::/0\n")).unwrap().starts_with("the class table in force differs"));
        record_loaded_file(&state, None, &configured).unwrap();
        record_loaded_file(&state, None, &configured).unwrap();
        assert!(node.difference(&other).unwrap().starts_with("the class table in force differs"));
    }

    #[test]
    fn a_configured_file_that_is_refused_is_reported() {
        let node = Node::new("300 0.0.0.0/0\n");
        let difference = node.difference(&table("1 0.0.0.0/0\n")).unwrap();
        assert!(difference.contains("which is not usable: line 1: refused: class 300"), "{difference}");
    }

    #[test]
    fn refused_files_are_reported_in_few_lines() {
        let message = |text: &[u8]| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("classes");
            fs::write(&path, text).unwrap();
            format!("{:#}", read(&path).unwrap_err())
        };
        let many = message("x\n".repeat(4000).as_bytes());
        assert_eq!(many.lines().count(), 1 + SHOWN_PROBLEMS + 1, "{many}");
        assert!(many.contains("... and 3980 more; `trafctl classes check --format json /"), "{many}");
        let binary = message(&[0x7f, b'E', b'L', b'F', 0, 0, 0, b'\n', 1, 2, 0]);
        assert_eq!(binary.lines().count(), 1, "{binary}");
        assert!(binary.contains("looks binary"), "{binary}");
    }
}
