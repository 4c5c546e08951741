//! Where the table in force came from: a record in the state directory, and a copy of the class file.
//!
//! The record belongs to one table, by its hash. It holds what the kernel's table does not: the file, the
//! order under which it was compiled, and the names of classes. The copy answers which line and which comment
//! decide after the file has changed, and whether a new file is only the beginning of it. Everything works
//! without them, with less to say.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use traffic_classes::ClassOrder;
use traffic_model::hex;

use super::gate::{Loaded, Origin};
use crate::{
    files,
    state_file::{self, StateLock},
};

/// Name of the record in the state directory.
const RECORD_FILE: &str = "class-table.json";
/// Name of the copy of the class file there.
const COPY_FILE: &str = "class-file";
/// Largest record, in bytes: 255 names and a path.
const MOST_RECORD_BYTES: u64 = 256 << 10;
/// Version of the record. Version 1 had only a file that was loaded by name.
const VERSION: u32 = 2;

/// The version of this program.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// What is known about a table.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Record {
    version: u32,
    /// The class file; `None` for standard input and for the table that Virtuozzo ships.
    pub file: Option<PathBuf>,
    /// Whether a command named the file.
    #[serde(default = "by_name_before")]
    pub by_name: bool,
    /// The order under which it was compiled; `None` in a record of version 1.
    #[serde(default)]
    pub order: Option<ClassOrder>,
    table_hash: String,
    #[serde(default)]
    file_hash: Option<String>,
    /// The version of the program that compiled it: another one may read the file in another way.
    #[serde(default)]
    program: Option<String>,
    /// Names of classes in the file.
    #[serde(default)]
    pub names: BTreeMap<u8, String>,
}

const fn by_name_before() -> bool {
    true
}

impl Record {
    /// Whether this program compiled the table from these bytes under this order.
    pub(super) fn is_of(&self, bytes: &[u8], order: ClassOrder) -> bool {
        self.program.as_deref() == Some(PROGRAM) && self.order == Some(order) && self.is_of_file(bytes)
    }

    fn is_of_file(&self, bytes: &[u8]) -> bool {
        self.file_hash.as_ref() == Some(&hex(&Sha256::digest(bytes)))
    }

    /// The bytes of the class file, if the copy is of this table.
    pub fn bytes(&self, state_dir: &Path) -> Option<Vec<u8>> {
        let bytes = state_file::read(&state_dir.join(COPY_FILE), files::MOST_CLASS_FILE_BYTES).ok()??;
        self.is_of_file(&bytes).then_some(bytes)
    }
}

/// The record of the table of this hash.
pub fn of(state_dir: &Path, in_force: &[u8; 32]) -> Option<Record> {
    last(state_dir).filter(|record| record.table_hash == hex(in_force))
}

/// The record of the table that was loaded last.
pub fn last(state_dir: &Path) -> Option<Record> {
    let bytes = state_file::read(&state_dir.join(RECORD_FILE), MOST_RECORD_BYTES).ok()??;
    let record: Record = serde_json::from_slice(&bytes).ok()?;
    (record.version <= VERSION).then_some(record)
}

/// Records where a table came from. A failure is logged: the record only adds to what is reported.
pub fn keep(state_dir: &Path, loaded: &Loaded) {
    if let Err(error) = write(state_dir, loaded) {
        tracing::warn!("cannot record where the class table came from: {error:#}");
    }
}

/// Forgets the record of the table of this hash: the same table is now in force without anybody's word.
pub fn forget(state_dir: &Path, hash: &[u8; 32]) {
    if of(state_dir, hash).is_some()
        && let Err(error) = fs::remove_file(state_dir.join(RECORD_FILE))
    {
        tracing::warn!("cannot remove the record of the class table before: {error}");
    }
}

fn write(state_dir: &Path, Loaded { table, origin, file }: &Loaded) -> anyhow::Result<()> {
    let Origin { path, by_name, order, bytes } = origin;
    let record = Record {
        version: VERSION,
        file: path.as_ref().map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.clone())),
        by_name: *by_name,
        order: Some(*order),
        table_hash: hex(&table.hash()),
        file_hash: Some(hex(&Sha256::digest(bytes))),
        program: Some(PROGRAM.to_owned()),
        names: file.names.clone(),
    };
    let json = serde_json::to_vec_pretty(&record)?;
    let lock = StateLock::take(state_dir)?;
    // A record without its copy says less, a copy without its record says nothing.
    lock.replace(COPY_FILE, bytes, files::MOST_CLASS_FILE_BYTES)?;
    lock.replace(RECORD_FILE, &json, MOST_RECORD_BYTES)
}
