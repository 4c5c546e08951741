//! The kernel memory that a class table needs, computed before it is loaded.

use std::fmt;

use serde::Serialize;
use traffic_common::LINES_PER_ARRAY;

use crate::{
    ClassTable,
    index::{CompiledTable, TooLarge},
    stored_rows,
};

/// Kernel memory of a table's parts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KernelMemory {
    /// Tries. No table has any; earlier versions did, and documents keep the field.
    pub tries: u64,
    /// What the kernel program reads: the indexes, and everything to which they lead.
    pub indexes: u64,
    /// The prefixes as they were loaded, for `trafctl classes list` and the like.
    pub prefixes: u64,
}

/// What the kernel allocates for an inner array of lines.
pub const ARRAY_BYTES: u64 = 32 << 10;

impl KernelMemory {
    /// The memory for a table. For one that is too large to be loaded, it is a lower limit.
    pub fn of(table: &ClassTable) -> Self {
        // Columns are assigned when a table is loaded: to the classes in use, one after another.
        let mut columns = [0; 256];
        for (column, class) in (0..).zip(table.classes_in_use()) {
            columns[usize::from(class)] = column;
        }
        let v4: Vec<_> = table.v4.iter().map(|row| (row.prefix, columns[usize::from(row.class)])).collect();
        let v6: Vec<_> = table.v6.iter().map(|row| (row.prefix, columns[usize::from(row.class)])).collect();
        let prefix_bytes = stored_rows::encode(&v4, &v6).len();
        match CompiledTable::new(&v4, &v6) {
            Ok(compiled) => Self::with(&compiled, prefix_bytes),
            Err(TooLarge { lines }) => Self {
                tries: 0,
                indexes: lines as u64 / u64::from(LINES_PER_ARRAY) * ARRAY_BYTES,
                prefixes: prefix_bytes as u64,
            },
        }
    }

    /// The memory for a compiled table and its encoded prefixes.
    pub fn with(table: &CompiledTable, prefix_bytes: usize) -> Self {
        let arrays = table.distinct_arrays().arrays.len() as u64;
        Self { tries: 0, indexes: arrays * ARRAY_BYTES, prefixes: prefix_bytes as u64 }
    }

    /// The sum of the parts. While a table is replaced, the old one exists as well.
    pub fn total(&self) -> u64 {
        self.tries + self.indexes + self.prefixes
    }
}

impl fmt::Display for KernelMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        write!(
            f,
            "{} MiB of kernel memory (indexes {}, prefixes {})",
            self.total().div_ceil(MIB),
            self.indexes.div_ceil(MIB),
            self.prefixes.div_ceil(MIB)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_rounds_up_to_mebibytes() {
        let memory = KernelMemory { tries: 0, indexes: (32 << 20) + 1, prefixes: 3 << 20 };
        assert_eq!(memory.to_string(), "36 MiB of kernel memory (indexes 33, prefixes 3)");
    }
}
