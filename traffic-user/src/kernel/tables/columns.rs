//! Which class has which column of the counters. A class keeps its column as long as the counters exist.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use traffic_classes::ClassTable;
use traffic_common::{CLASS_ZERO_COLUMN, Meta};

/// Refuses a table with more classes than the counters have columns.
///
/// # Errors
/// When the table has more.
pub fn check_capacity(table: &ClassTable, columns: u32) -> anyhow::Result<()> {
    let classes = table.classes_in_use().len();
    if classes > columns as usize {
        bail!(
            "the class file uses {classes} classes (class 0 included), and there is room for {columns}; \
             raise `classes` under [limits] in the configuration"
        );
    }
    Ok(())
}

/// Gives a column to each class of the table that has none yet. Returns the columns by class.
pub(super) fn assign_columns(meta: &mut Meta, table: &ClassTable) -> anyhow::Result<[u8; 256]> {
    let mut known: BTreeMap<u8, u32> =
        columns(meta).into_iter().map(|(column, class)| (class, column)).collect();
    for class in table.classes_in_use() {
        if known.contains_key(&class) {
            continue;
        }
        if meta.columns_used >= meta.columns {
            bail!(
                "no room to count class {class}: all {} columns belong to classes that have been in use \
                 since the counters were created; raise `classes` under [limits], run `trafctl attach` or \
                 reload the daemon, then load the classes again",
                meta.columns
            );
        }
        meta.column_class[meta.columns_used as usize] = class;
        known.insert(class, meta.columns_used);
        meta.columns_used += 1;
    }
    let mut by_class = [0; 256];
    for (class, column) in known {
        by_class[usize::from(class)] =
            u8::try_from(column).context("the column number does not fit an index entry")?;
    }
    Ok(by_class)
}

/// Returns each column in use with its class.
pub fn columns(meta: &Meta) -> Vec<(u32, u8)> {
    let used = meta.columns_used.min(meta.columns).max(CLASS_ZERO_COLUMN + 1);
    (0..used).map(|column| (column, meta.column_class[column as usize])).collect()
}
