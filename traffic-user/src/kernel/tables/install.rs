//! Builds a class table in the kernel beside the one in force, and switches to it between two packets.

use std::{cell::Cell, io};

use anyhow::{Context as _, bail};
use aya::{
    Pod,
    maps::{
        Array, IterableMap, MapData,
        lpm_trie::{Key, LpmTrie},
    },
};
use traffic_classes::{ClassTable, KernelMemory, index};
use traffic_common::{Control, INDEX_V4_BLOCK_BYTES, INDEX_V6_BLOCK_ENTRIES, Meta};

use super::columns::assign_columns;
use crate::{
    kernel::{
        maps::{ClassIndexV4, ClassIndexV6, ClassRangesV6, ClassTrieV4, ClassTrieV6, Maps},
        memory, sys,
    },
    time,
};

/// Elements that one system call writes.
const BATCH: usize = 4096;
/// `BPF_F_INNER_MAP`: maps of different sizes may replace each other in one place.
const INNER_MAP: u32 = 0x1000;
/// `BPF_F_NO_PREALLOC`: the kernel creates no trie without it.
const NO_PREALLOC: u32 = 1;

/// Receives the number of elements that are in the kernel, and the number of all.
pub type Progress<'a> = &'a dyn Fn(usize, usize);

/// A whole class table in the kernel, beside the one in force.
pub struct Prepared {
    tables: Tables,
    /// Has the columns of the table's classes, but still describes the table in force.
    meta: Meta,
    hash: [u8; 32],
    prefixes: u64,
}

/// Builds a whole class table in the kernel. This can take seconds, and the present table stays in force
/// meanwhile. What must happen just before the change belongs between this and [`Prepared::switch`].
///
/// # Errors
/// When there is not enough memory for the table, or no room for its classes.
pub fn prepare(maps: &Maps, table: &ClassTable, progress: Progress<'_>) -> anyhow::Result<Prepared> {
    memory::lift_limit();
    let mut meta = maps.meta.get(0)?;
    let columns = assign_columns(&mut meta, table)?;
    let v4: Vec<_> = table.v4.iter().map(|row| (row.prefix, columns[usize::from(row.class)])).collect();
    let v6: Vec<_> = table.v6.iter().map(|row| (row.prefix, columns[usize::from(row.class)])).collect();
    let (index_v4, index_v6) = (index::v4(&v4), index::v6(&v6));
    let needed = KernelMemory::with_index(table, &index_v6);
    check_memory(&needed, memory::available()?)?;
    tracing::debug!("{} prefixes take {needed}", table.len());

    let (blocks_v4, _) = index_v4.as_chunks::<INDEX_V4_BLOCK_BYTES>();
    let (blocks_v6, _) = index_v6.entries.as_chunks::<INDEX_V6_BLOCK_ENTRIES>();
    let steps = Steps {
        done: Cell::new(0),
        total: blocks_v4.len() + v4.len() + blocks_v6.len() + index_v6.nodes.len() + v6.len(),
        progress,
    };
    let tables = Tables {
        index_v4: fill_array(blocks_v4, 0, &steps).context("cannot build the IPv4 class index")?,
        trie_v4: fill_trie(&v4, |prefix| (prefix.prefix_len(), prefix.network().octets()), &steps)
            .context("cannot build the IPv4 class table")?,
        index_v6: fill_array(blocks_v6, 0, &steps).context("cannot build the IPv6 class index")?,
        ranges_v6: fill_array(&index_v6.nodes, INNER_MAP, &steps)
            .context("cannot build the IPv6 class index")?,
        trie_v6: fill_trie(&v6, |prefix| (prefix.prefix_len(), prefix.network().octets()), &steps)
            .context("cannot build the IPv6 class table")?,
    };
    Ok(Prepared { tables, meta, hash: table.hash(), prefixes: (v4.len() + v6.len()) as u64 })
}

impl Prepared {
    /// Puts the table in force, between two packets. The caller has held the change lock since [`prepare`].
    ///
    /// # Errors
    /// When a map cannot be written. Up to the switch itself, the present table stays in force.
    pub fn switch(self, maps: &mut Maps) -> anyhow::Result<()> {
        let Self { tables, mut meta, hash, prefixes } = self;
        // Columns first: whoever reads the counters must know the classes of all of them.
        maps.meta.set(0, meta)?;

        let control = maps.control.get(0)?;
        let (old, idle) = (control.active_table, 1 - control.active_table);
        tables.pin(maps, idle)?;
        tables.put(maps, idle)?;
        maps.control.set(0, Control { active_table: idle, ..control })?;
        meta.table_hash = hash;
        meta.table_loaded_unix_s = time::unix_seconds();
        meta.table_prefixes = prefixes;
        maps.meta.set(0, meta)?;

        // A packet that read the old word may still be looking into the old table. The kernel returns from an
        // update of a map of maps only when every program that ran before has ended, so putting the new table
        // once more waits for exactly that. Only then may the old table go, and its memory with it.
        tables.put(maps, idle)?;
        for buffer in maps.class_tables_mut() {
            buffer.clear(old)?;
        }
        Ok(())
    }
}

/// All maps of one class table.
struct Tables {
    index_v4: ClassIndexV4,
    trie_v4: ClassTrieV4,
    index_v6: ClassIndexV6,
    ranges_v6: ClassRangesV6,
    trie_v6: ClassTrieV6,
}

impl Tables {
    /// In the order of [`Maps::class_tables_mut`].
    fn all(&self) -> [&MapData; 5] {
        [
            IterableMap::map(&self.index_v4),
            IterableMap::map(&self.trie_v4),
            IterableMap::map(&self.ranges_v6),
            IterableMap::map(&self.index_v6),
            IterableMap::map(&self.trie_v6),
        ]
    }

    fn pin(&self, maps: &mut Maps, place: u32) -> anyhow::Result<()> {
        let mut pairs = maps.class_tables_mut().into_iter().zip(self.all());
        pairs.try_for_each(|(buffer, table)| buffer.pin(place, table))
    }

    fn put(&self, maps: &mut Maps, place: u32) -> anyhow::Result<()> {
        let mut pairs = maps.class_tables_mut().into_iter().zip(self.all());
        pairs.try_for_each(|(buffer, table)| buffer.put(place, table))
    }
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

/// How far a load is.
struct Steps<'a> {
    done: Cell<usize>,
    total: usize,
    progress: Progress<'a>,
}

impl Steps<'_> {
    fn add(&self, written: usize) {
        self.done.set(self.done.get() + written);
        (self.progress)(self.done.get(), self.total);
    }
}

fn fill_array<V: Pod>(values: &[V], flags: u32, steps: &Steps<'_>) -> anyhow::Result<Array<MapData, V>> {
    let capacity = u32::try_from(values.len().max(1)).context("more elements than a map can hold")?;
    let mut array = Array::create(capacity, flags)?;
    for (chunk, first) in values.chunks(BATCH).zip((0..).step_by(BATCH)) {
        let keys: Vec<u32> = (first..).take(chunk.len()).collect();
        match sys::update_batch(IterableMap::map(&array), &keys, chunk) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                for (key, value) in keys.iter().zip(chunk) {
                    array.set(*key, value, 0)?;
                }
            }
            other => other.context("cannot write the index")?,
        }
        steps.add(chunk.len());
    }
    Ok(array)
}

fn fill_trie<N, K: Pod>(
    rows: &[(N, u8)],
    key: impl Fn(&N) -> (u8, K),
    steps: &Steps<'_>,
) -> anyhow::Result<LpmTrie<MapData, K, u32>> {
    let capacity = u32::try_from(rows.len().max(1)).context("more prefixes than a map can hold")?;
    let mut trie = LpmTrie::create(capacity, NO_PREALLOC)?;
    for chunk in rows.chunks(BATCH) {
        let (keys, values): (Vec<_>, Vec<_>) = chunk
            .iter()
            .map(|(prefix, column)| {
                let (len, network) = key(prefix);
                (Key::new(u32::from(len), network), u32::from(*column))
            })
            .unzip();
        match sys::update_batch(IterableMap::map(&trie), &keys, &values) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                for (key, value) in keys.iter().zip(values) {
                    trie.insert(key, value, 0)?;
                }
            }
            other => other.context("cannot write prefixes")?,
        }
        steps.add(chunk.len());
    }
    Ok(trie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_does_not_fit_is_refused_before_it_is_built() {
        let needed = KernelMemory { tries: 5 << 20, indexes: 32 << 20 };
        assert!(check_memory(&needed, 37 << 20).is_ok());
        let error = check_memory(&needed, (37 << 20) - 1).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "the class table needs 37 MiB of kernel memory (tries 5, indexes 32), and 36 MiB"
            )
        );
    }

    #[test]
    fn the_kernel_reports_the_available_memory() {
        assert!(memory::available().unwrap() > 1 << 20);
    }
}
