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

/// Refuses a table for whose classes the counters have no columns left.
///
/// # Errors
/// When a class has none, and none is free.
pub(in crate::kernel) fn check_columns(meta: &Meta, table: &ClassTable) -> anyhow::Result<()> {
    let mut meta = *meta;
    assign_columns(&mut meta, table).map(drop)
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

/// What describes the counters now, with the columns of a table that was built meanwhile.
///
/// # Errors
/// When these are other counters, or their columns went to other classes.
pub(super) fn with_columns_of(now: Meta, prepared: &Meta) -> anyhow::Result<Meta> {
    let used = now.columns_used as usize;
    let is_same = now.epoch == prepared.epoch
        && now.columns_used <= prepared.columns_used
        && now.column_class[..used] == prepared.column_class[..used];
    if !is_same {
        bail!("the counters were created again, or given other classes, while the class table was built");
    }
    Ok(Meta { columns_used: prepared.columns_used, column_class: prepared.column_class, ..now })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Meta = Meta {
        layout_version: 0,
        ready: 1,
        epoch: 0,
        created_unix_s: 0,
        boot_id: [0; 36],
        container_slots: 0,
        interface_slots: 0,
        columns: 0,
        columns_used: 0,
        program_version: 0,
        program_hash: [0; 32],
        table_hash: [0; 32],
        table_loaded_unix_s: 0,
        table_prefixes: 0,
        column_class: [0; 256],
    };

    #[test]
    fn a_table_is_put_in_force_only_where_its_columns_are_still_right() {
        let mut read = Meta { epoch: 7, columns: 16, columns_used: 2, program_version: 1, ..EMPTY };
        read.column_class[1] = 5;
        let mut prepared = read;
        prepared.column_class[2] = 9;
        prepared.columns_used = 3;
        // Another command replaced the program meanwhile.
        let now = Meta { program_version: 4, ..read };
        let merged = with_columns_of(now, &prepared).unwrap();
        assert_eq!((merged.program_version, merged.columns_used), (4, 3));
        assert_eq!(merged.column_class[..3], [0, 5, 9]);

        assert!(with_columns_of(Meta { epoch: 8, ..now }, &prepared).is_err(), "other counters");
        let mut other = now;
        other.columns_used = 3;
        other.column_class[2] = 8;
        let error = with_columns_of(other, &prepared).unwrap_err().to_string();
        assert!(error.contains("while the class table was built"), "{error}");
        other.columns_used = 4;
        other.column_class[2] = 9;
        assert!(with_columns_of(other, &prepared).is_err(), "one column more");
    }
}
