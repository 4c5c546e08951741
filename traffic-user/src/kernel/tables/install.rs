//! Builds a class table in the kernel beside the one in force, and switches to it between two packets.

use anyhow::{Context as _, bail};
use ipnet::{Ipv4Net, Ipv6Net};
use traffic_classes::{
    ClassTable, KernelMemory,
    index::{CompiledTable, Row},
    stored_rows,
};
use traffic_common::{ARRAY_WORDS, Control, LINE_BYTES, LINE_WORDS, Line, Meta, TableWord};

use super::columns::{assign_columns, with_columns_of};
use crate::{
    kernel::{
        bpffs::Bpffs,
        maps::{ClassArray, ClassRows, Maps, ROWS_ELEMENT_BYTES},
        memory, skb_layout,
    },
    time,
};

/// Receives the number of arrays that are in the kernel, and the number of all.
pub type Progress<'a> = &'a dyn Fn(usize, usize);

/// A whole class table in the kernel, beside the one in force.
pub struct Prepared {
    tables: Tables,
    /// As it was read, with the columns of the table's classes added.
    meta: Meta,
    hash: [u8; 32],
    prefixes: u64,
}

/// Builds a whole class table in the kernel. This can take seconds, so it needs no change lock, only the
/// [`LoadLock`](super::LoadLock). The present table stays in force meanwhile. What must happen just before
/// the change belongs between this and [`Prepared::switch`].
///
/// # Errors
/// When there is not enough memory for the table, or no room for its classes or its prefixes.
pub fn prepare(maps: &Maps, table: &ClassTable, progress: Progress<'_>) -> anyhow::Result<Prepared> {
    let mut meta = maps.meta.get(0)?;
    let columns = assign_columns(&mut meta, table)?;
    let v4: Vec<_> = table.v4.iter().map(|row| (row.prefix, columns[usize::from(row.class)])).collect();
    let v6: Vec<_> = table.v6.iter().map(|row| (row.prefix, columns[usize::from(row.class)])).collect();
    let tables = Tables::new(&v4, &v6, progress)?;
    Ok(Prepared { tables, meta, hash: table.hash(), prefixes: table.len() as u64 })
}

impl Prepared {
    /// Puts the table in force, between two packets. The caller holds the change lock, and has opened the maps
    /// under it.
    ///
    /// # Errors
    /// When the counters are not those of [`prepare`] any more, or a map cannot be written. Up to the switch
    /// itself, the present table stays in force.
    pub fn switch(self, maps: &mut Maps) -> anyhow::Result<()> {
        let Self { tables, meta: prepared, hash, prefixes } = self;
        // Some hooks may run on the next set of maps already, which shares the places of class tables.
        if Bpffs::new(&maps.pinned_in).next().maps().exists() {
            bail!(
                "the counters are moving to other maps, and that was interrupted; run `trafctl attach`, which \
                 completes it"
            );
        }
        let mut meta = with_columns_of(maps.meta.get(0)?, &prepared)?;
        // Columns first: whoever reads the counters must know the classes of all of them.
        maps.meta.set(0, meta)?;
        tables.switch(maps)?;
        meta.table_hash = hash;
        meta.table_loaded_unix_s = time::unix_seconds();
        meta.table_prefixes = prefixes;
        maps.meta.set(0, meta)
    }
}

/// All maps of one class table.
pub(in crate::kernel) struct Tables {
    is_wide: bool,
    offset_words: u32,
    /// Arrays with different contents.
    arrays: Vec<ClassArray>,
    /// For each entry of the table's place, the number of its array.
    places: Vec<usize>,
    rows: ClassRows,
    /// What is in `rows`.
    encoded: Vec<u8>,
}

impl Tables {
    /// Compiles the rows and writes them into new maps.
    pub(in crate::kernel) fn new(
        v4: &[Row<Ipv4Net>],
        v6: &[Row<Ipv6Net>],
        progress: Progress<'_>,
    ) -> anyhow::Result<Self> {
        /// Files that a process has open anyway, and some more.
        const OTHER_FILES: u64 = 512;
        memory::lift_limit();
        let compiled = CompiledTable::new(v4, v6)?;
        let encoded = stored_rows::encode(v4, v6);
        let needed = KernelMemory::with(&compiled, encoded.len());
        check_memory(&needed, memory::available()?)?;
        tracing::debug!("{} prefixes take {needed}", v4.len() + v6.len());

        let distinct = compiled.distinct_arrays();
        memory::lift_file_limit(distinct.arrays.len() as u64 + OTHER_FILES);
        let offset_words = line_offset_words();
        let mut arrays = Vec::with_capacity(distinct.arrays.len());
        for lines in &distinct.arrays {
            arrays.push(fill_array(lines, offset_words as usize)?);
            progress(arrays.len(), distinct.arrays.len());
        }
        let rows = fill_rows(&encoded).context("cannot store the prefixes of the class table")?;
        Ok(Self { is_wide: compiled.is_wide, offset_words, arrays, places: distinct.places, rows, encoded })
    }

    /// The arrays in the order of a place's entries.
    pub(in crate::kernel) fn arrays(&self) -> impl Iterator<Item = &ClassArray> {
        self.places.iter().map(|&number| &self.arrays[number])
    }

    /// How the table is read in a place.
    pub(in crate::kernel) const fn word(&self, place: u32) -> TableWord {
        TableWord::new(place, self.is_wide, self.offset_words)
    }

    /// Puts the table into the idle place and makes it active. Then frees the memory of the former one. A shadow that
    /// counts beside that one ends, unless both are the same table.
    pub(in crate::kernel) fn switch(&self, maps: &mut Maps) -> anyhow::Result<()> {
        let control = maps.control.get(0)?;
        let in_force = TableWord(control.active_table);
        let old = in_force.place();
        let idle = 1 - old;
        let arrays: Vec<&ClassArray> = self.arrays().collect();
        maps.class_lines.pin_rows(idle, &self.rows)?;
        maps.class_lines.put(idle, &arrays)?;
        let keeps_shadow = in_force.has_shadow() && self.is_in(maps, old);
        let word = self.word(idle).with_shadow(keeps_shadow);
        maps.control.set(0, Control { active_table: word.0, ..control })?;

        // A packet that read the old word may still be looking into the old table. Only when every program
        // that ran before has ended, the old table may go, and its memory with it.
        if let Some(first) = arrays.first() {
            maps.class_lines.wait_with(idle, first)?;
        }
        maps.class_lines.release(old)
    }

    /// Whether the table in a place has the same rows. The pairs of a shadow hold as long as the classes of all
    /// addresses do. The hash in `META` does not say so: it is written after the word, and a load may have ended in
    /// between.
    fn is_in(&self, maps: &Maps, place: u32) -> bool {
        let rows = maps.class_lines.rows(place);
        rows.is_ok_and(|rows| {
            let (head, padding) = rows.split_at(self.encoded.len().min(rows.len()));
            head == self.encoded
                && padding.len() < ROWS_ELEMENT_BYTES
                && padding.iter().all(|byte| *byte == 0)
        })
    }
}

/// The word at which the lines of an array begin, so that each is in one cache line. Where the kernel does not
/// describe its arrays, lines may be in two.
fn line_offset_words() -> u32 {
    let offset = skb_layout::array_value_offset().unwrap_or(0) as usize;
    let missing = offset.next_multiple_of(LINE_BYTES) - offset;
    u32::try_from(missing / size_of::<u64>()).unwrap_or(0)
}

fn fill_array(lines: &[Line], offset_words: usize) -> anyhow::Result<ClassArray> {
    let mut value = [0; ARRAY_WORDS];
    value[offset_words..][..lines.len() * LINE_WORDS].copy_from_slice(lines.as_flattened());
    let mut array = ClassArray::create(1, 0).context(
        "cannot create an array for the class table; if too many files are open, raise the limit (`ulimit -n`, \
         or LimitNOFILE of the service)",
    )?;
    array.set(0, value, 0).context("cannot write the class table")?;
    Ok(array)
}

fn fill_rows(encoded: &[u8]) -> anyhow::Result<ClassRows> {
    let elements = encoded.chunks(ROWS_ELEMENT_BYTES);
    let mut rows = ClassRows::create(u32::try_from(elements.len())?, 0)?;
    for (number, bytes) in (0..).zip(elements) {
        let mut element = [0; ROWS_ELEMENT_BYTES];
        element[..bytes.len()].copy_from_slice(bytes);
        rows.set(number, element, 0)?;
    }
    Ok(rows)
}

/// Refuses a table that does not fit the free memory. Otherwise the kernel would take that memory from
/// containers.
fn check_memory(needed: &KernelMemory, available: u64) -> anyhow::Result<()> {
    if needed.total() > available {
        bail!(
            "the class table needs {needed}, and {} MiB are available; load a smaller table, or free memory \
             first",
            available >> 20
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_does_not_fit_is_refused_before_it_is_built() {
        let needed = KernelMemory { tries: 0, indexes: 32 << 20, prefixes: 5 << 20 };
        assert!(check_memory(&needed, 37 << 20).is_ok());
        let error = check_memory(&needed, (37 << 20) - 1).unwrap_err().to_string();
        assert!(error.starts_with(
            "the class table needs 37 MiB of kernel memory (indexes 32, prefixes 5), and 36 MiB"
        ));
    }

    #[test]
    fn the_kernel_reports_the_available_memory() {
        assert!(memory::available().unwrap() > 1 << 20);
    }
}
