//! How the configured class file differs from the table in force.

use std::{
    borrow::Borrow,
    fmt,
    path::{Path, PathBuf},
};

use traffic_classes::{ClassFile, ClassOrder};

use super::{
    gate::{self, Known, Loaded, Origin, Word},
    locate, record,
};
use crate::{config::Config, files};

/// How the configured class file and the table in force differ. Its `Display` is one sentence: WHAT; WHAT TO
/// DO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDifference {
    /// The configured class file; `None` if there is none and the shipped table applies.
    pub configured: Option<PathBuf>,
    /// Why the configured file cannot be used, or is held, if so.
    pub refused: Option<String>,
    /// The file that the table in force was loaded from by `trafctl classes load FILE`, if known.
    pub loaded_from: Option<PathBuf>,
    /// The order under which the table in force was compiled, if that is another one than the configured.
    pub other_order: Option<ClassOrder>,
    /// Whether the table in force only stands in for a file that was not usable: nothing is billed.
    pub is_unbilled: bool,
}

impl fmt::Display for TableDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let configured = match &self.configured {
            Some(path) => format!("the class file {}", path.display()),
            None => "the default table (all traffic is class 1)".to_owned(),
        };
        if self.is_unbilled {
            f.write_str(
                "no class file is in force, so all traffic is counted in class 0, which is not billed: ",
            )?;
            return match &self.refused {
                Some(reason) => write!(f, "{configured} is not usable: {reason}"),
                None => write!(f, "`trafctl attach` and `trafctl classes load` load {configured}"),
            };
        }
        match &self.loaded_from {
            Some(path) => {
                write!(f, "the class table in force was loaded from {}, not from ", path.display())?;
            }
            None => f.write_str("the class table in force differs from ")?,
        }
        f.write_str(&configured)?;
        if let Some(order) = self.other_order {
            write!(f, ", and under the order {order}")?;
        }
        match &self.refused {
            Some(reason) => write!(f, ", which is not usable: {reason}"),
            None => f.write_str("; `trafctl classes load` loads that"),
        }
    }
}

/// Compares the configured class file with the table in force. `None` if the file would give the same table,
/// and if none is known.
///
/// For `status`: parses the file only if it is not the one that was loaded, and asks for `known` only if the
/// table would be another one. Reading either takes a while with 800,000 lines.
pub fn difference_from_table_in_force<K: Borrow<Known>>(
    config: &Config,
    state_dir: &Path,
    in_force: &[u8; 32],
    known: impl FnOnce() -> K,
) -> Option<TableDifference> {
    let configured = locate(config).or_else(|| config.class_file.clone());
    let record = record::of(state_dir, in_force);
    let loaded = match &configured {
        Some(path) => match files::read(path, files::MOST_CLASS_FILE_BYTES) {
            Ok(bytes) if record.as_ref().is_some_and(|record| record.is_of(&bytes, config.class_order)) => {
                return None;
            }
            Ok(bytes) => usable(path, bytes, config),
            Err(error) => Err(error.to_string()),
        },
        None => Ok(of_file(None, (ClassFile::shipped(), Vec::new()), config)),
    };
    let is_unbilled = gate::is_stand_in(in_force, state_dir);
    if !is_unbilled && loaded.as_ref().is_ok_and(|loaded| loaded.table.hash() == *in_force) {
        return None;
    }
    let refused = match loaded {
        // After a load by name, the configured file waits for somebody to load it.
        Ok(_) if record.as_ref().is_some_and(|record| record.by_name) => None,
        Ok(loaded) => loaded
            .admit(known().borrow(), config.hold_limit, Word::None)
            .err()
            .map(|barred| barred.to_string()),
        Err(reason) => Some(reason),
    };
    Some(TableDifference {
        configured,
        refused,
        is_unbilled,
        other_order: record
            .as_ref()
            .and_then(|record| record.order)
            .filter(|&order| order != config.class_order),
        loaded_from: record.filter(|record| record.by_name).and_then(|record| record.file),
    })
}

/// The file as it would be loaded, or why not, in few words.
fn usable(path: &Path, bytes: Vec<u8>, config: &Config) -> Result<Loaded, String> {
    let file = traffic_classes::parse(&bytes);
    if let Some(problem) = file.refused().next() {
        return Err(problem.to_string());
    }
    Ok(of_file(Some(path.to_owned()), (file, bytes), config))
}

fn of_file(path: Option<PathBuf>, (file, bytes): (ClassFile, Vec<u8>), config: &Config) -> Loaded {
    let order = config.class_order;
    let table = traffic_classes::compile(&file.entries, order);
    Loaded { table, origin: Origin { path, by_name: false, order, bytes }, file }
}
