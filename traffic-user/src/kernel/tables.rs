//! Putting compiled tables into the kernel: classes, as a whole and between two packets; addresses, one by one.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::AsFd as _,
};

use anyhow::{Context as _, bail};
use aya::{
    Pod,
    maps::{
        Array, IterableMap, Map, MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use traffic_classes::{ClassTable, KernelMemory, index};
use traffic_common::{
    CLASS_ZERO_COLUMN, Control, Family, INDEX_V4_BLOCK_BYTES, INDEX_V6_BLOCK_ENTRIES, Meta, node_address_v4,
};

use crate::{
    kernel::{
        maps::{ClassIndexV4, ClassIndexV6, ClassRangesV6, ClassTrieV4, ClassTrieV6, Maps},
        memory, sys,
    },
    time,
};

/// Elements that go into the kernel with one call.
const BATCH: usize = 4096;

/// Refuses a table that has more classes than there is room for.
///
/// # Errors
/// When it has.
pub fn check_capacity(table: &ClassTable, columns: u32) -> anyhow::Result<()> {
    let classes = table.classes_in_use().len();
    if classes > columns as usize {
        bail!(
            "the class file uses {classes} classes (class 0 included) and there is room for {columns}: raise \
             `classes` under [limits] in the configuration"
        );
    }
    Ok(())
}

/// Told how many of a load's elements are in the kernel, and of how many.
pub type Progress<'a> = &'a dyn Fn(usize, usize);

/// A whole class table in the kernel, beside the one in force.
pub struct Prepared {
    tables: Tables,
    /// With the columns of its classes, and still without what tells of the table itself.
    meta: Meta,
    hash: [u8; 32],
    prefixes: u64,
}

/// Brings a whole class table into the kernel. That may take seconds, in which the one in force stays: what must be done
/// just before the change is done before [`Prepared::switch`].
///
/// # Errors
/// When the kernel has no memory for it, or its classes no room.
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
    /// Puts it in force, between two packets. The caller has held the lock on the pinned state since [`prepare`].
    ///
    /// # Errors
    /// When a map can't be written. Before the switch the table in force stays in force.
    pub fn switch(self, maps: &mut Maps) -> anyhow::Result<()> {
        let Self { tables, mut meta, hash, prefixes } = self;
        // From here on the columns are spoken for: whoever reads the counters must know their classes first.
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

        // A packet that read the old word may still be looking into the old table. The kernel returns from an update of a
        // map of maps only when no program that ran before is running any more: placing the new table once more waits for
        // just that. Only then the old one is let go, and its memory with it.
        tables.put(maps, idle)?;
        for pair in maps.class_tables_mut() {
            pair.clear(old)?;
        }
        Ok(())
    }
}

/// All that one class table is in the kernel.
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
        pairs.try_for_each(|(pair, table)| pair.pin(place, table))
    }

    fn put(&self, maps: &mut Maps, place: u32) -> anyhow::Result<()> {
        let mut pairs = maps.class_tables_mut().into_iter().zip(self.all());
        pairs.try_for_each(|(pair, table)| pair.put(place, table))
    }
}

/// Refuses a table for which the memory is not there, rather than have the kernel look for it among the containers'.
fn check_memory(needed: &KernelMemory, available: u64) -> anyhow::Result<()> {
    if needed.total() > available {
        bail!(
            "the class table needs {needed}, and {} MiB are available: load a smaller table, or free memory first",
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

/// `BPF_F_INNER_MAP`: maps of different sizes may follow each other in one place.
const INNER_MAP: u32 = 0x1000;
/// `BPF_F_NO_PREALLOC`, without which the kernel makes no trie.
const NO_PREALLOC: u32 = 1;

fn fill_array<V: Pod>(values: &[V], flags: u32, steps: &Steps<'_>) -> anyhow::Result<Array<MapData, V>> {
    let capacity = u32::try_from(values.len().max(1)).context("more elements than a map can hold")?;
    let mut array = Array::create(capacity, flags)?;
    for (chunk, first) in values.chunks(BATCH).zip((0..).step_by(BATCH)) {
        let keys: Vec<u32> = (first..).take(chunk.len()).collect();
        match sys::update_batch(IterableMap::map(&array).fd().as_fd(), &keys, chunk) {
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
        match sys::update_batch(IterableMap::map(&trie).fd().as_fd(), &keys, &values) {
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

/// The prefixes in force with their classes, sorted: what the kernel itself holds.
///
/// # Errors
/// When the maps can't be read.
pub fn in_force(maps: &Maps) -> anyhow::Result<Vec<(IpNet, u8)>> {
    loop {
        let active = maps.control.get(0)?.active_table;
        let rows = rows_in(maps, active)?;
        // Another one that came into force meanwhile may have emptied the place that was read.
        if maps.control.get(0)?.active_table == active {
            return Ok(rows);
        }
    }
}

fn rows_in(maps: &Maps, active: u32) -> anyhow::Result<Vec<(IpNet, u8)>> {
    let meta = maps.meta.get(0)?;
    let mut rows = Vec::new();
    if let Some(table) = maps.classes_v4.table(active)? {
        let trie: ClassTrieV4 = Map::from_map_data(table)?.try_into()?;
        collect(&trie, &meta, &mut rows, |address: [u8; 4], len| {
            Ok(Ipv4Net::new(address.into(), len)?.into())
        })?;
    }
    if let Some(table) = maps.classes_v6.table(active)? {
        let trie: ClassTrieV6 = Map::from_map_data(table)?.try_into()?;
        collect(&trie, &meta, &mut rows, |address: [u8; 16], len| {
            Ok(Ipv6Net::new(address.into(), len)?.into())
        })?;
    }
    rows.sort_unstable();
    Ok(rows)
}

/// The classes of the table in force, 0 always among them; of one family or of both. Unlike [`in_force`] this looks no
/// further than to the last class in use that it has not met yet: through the whole table only for one that is gone.
///
/// # Errors
/// When the maps can't be read.
pub fn classes_in_force(maps: &Maps, family: Option<Family>) -> anyhow::Result<BTreeSet<u8>> {
    let active = maps.control.get(0)?.active_table;
    let in_use: BTreeMap<u32, u8> = columns(&maps.meta.get(0)?).into_iter().collect();
    let trie_v4: Option<ClassTrieV4> = match maps.classes_v4.table(active)? {
        Some(table) if family != Some(Family::Ipv6) => Some(Map::from_map_data(table)?.try_into()?),
        _ => None,
    };
    let trie_v6: Option<ClassTrieV6> = match maps.classes_v6.table(active)? {
        Some(table) if family != Some(Family::Ipv4) => Some(Map::from_map_data(table)?.try_into()?),
        _ => None,
    };
    let mut v4 = trie_v4.iter().flat_map(|trie| columns_in(trie, [0; 4]));
    let mut v6 = trie_v6.iter().flat_map(|trie| columns_in(trie, [0; 16]));
    let mut met = BTreeSet::from([CLASS_ZERO_COLUMN]);
    // In turn, since a class may be in one family only.
    while met.len() < in_use.len() {
        let found = [v4.next().transpose()?, v6.next().transpose()?];
        if found == [None, None] {
            break;
        }
        met.extend(found.into_iter().flatten().filter(|column| in_use.contains_key(column)));
    }
    Ok(met.iter().filter_map(|column| in_use.get(column).copied()).collect())
}

/// The column of each prefix. That of length zero, which most tables have and the kernel lists last, comes first as well.
fn columns_in<K: Pod>(
    trie: &LpmTrie<MapData, K, u32>,
    unspecified: K,
) -> impl Iterator<Item = Result<u32, MapError>> {
    let of_everything = match trie.get(&Key::new(0, unspecified), 0) {
        Err(MapError::KeyNotFound) => None,
        other => Some(other),
    };
    of_everything.into_iter().chain(trie.keys().map(|key| trie.get(&key?, 0)))
}

fn collect<K: Pod>(
    trie: &LpmTrie<MapData, K, u32>,
    meta: &Meta,
    rows: &mut Vec<(IpNet, u8)>,
    prefix: impl Fn(K, u8) -> anyhow::Result<IpNet>,
) -> anyhow::Result<()> {
    for key in trie.keys() {
        let key = key?;
        let column = trie.get(&key, 0)?;
        let class = *meta.column_class.get(column as usize).context("a column without a class")?;
        rows.push((prefix(key.data(), u8::try_from(key.prefix_len())?)?, class));
    }
    Ok(())
}

/// Gives every class of the table a column; a class that ever had one keeps it. Tells the column by class.
fn assign_columns(meta: &mut Meta, table: &ClassTable) -> anyhow::Result<[u8; 256]> {
    let mut known: BTreeMap<u8, u32> =
        columns(meta).into_iter().map(|(column, class)| (class, column)).collect();
    for class in table.classes_in_use() {
        if known.contains_key(&class) {
            continue;
        }
        if meta.columns_used >= meta.columns {
            bail!(
                "no room to count class {class}: all {} columns belong to classes that were in use since the counters were \
                 made; raise `classes` under [limits], then start anew with `trafctl detach --purge` and `trafctl attach`",
                meta.columns
            );
        }
        meta.column_class[meta.columns_used as usize] = class;
        known.insert(class, meta.columns_used);
        meta.columns_used += 1;
    }
    let mut by_class = [0; 256];
    for (class, column) in known {
        by_class[usize::from(class)] = u8::try_from(column).context("more columns than an index can tell")?;
    }
    Ok(by_class)
}

/// The class of each column in use.
pub fn columns(meta: &Meta) -> Vec<(u32, u8)> {
    let used = meta.columns_used.min(meta.columns).max(CLASS_ZERO_COLUMN + 1);
    (0..used).map(|column| (column, meta.column_class[column as usize])).collect()
}

/// Makes the local addresses in the kernel equal to `wanted`: prefix -> container slot. New ones come before old ones go,
/// so that one which is replaced by a longer or a shorter prefix is never missing. Gives those that found no room.
///
/// # Errors
/// When the maps can't be read, or the kernel refuses for another reason; all others are in force then, too.
pub fn sync_addresses(maps: &mut Maps, wanted: &BTreeMap<IpNet, u32>) -> anyhow::Result<Vec<IpNet>> {
    let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
    for (&prefix, &slot) in wanted {
        match prefix {
            IpNet::V4(net) => {
                v4.insert((u32::from(net.prefix_len()), net.network().octets()), (prefix, slot))
            }
            IpNet::V6(net) => {
                v6.insert((u32::from(net.prefix_len()), net.network().octets()), (prefix, slot))
            }
        };
    }
    // One family's trouble is not the other's.
    let refused_v4 =
        sync_family(&mut maps.addresses_v4, &v4).context("cannot write the IPv4 addresses of containers");
    let refused_v6 =
        sync_family(&mut maps.addresses_v6, &v6).context("cannot write the IPv6 addresses of containers");
    Ok([refused_v4?, refused_v6?].concat())
}

/// Makes the node's own addresses in the kernel equal to `wanted`, in the same order; gives those that found no room.
///
/// # Errors
/// As [`sync_addresses`].
pub fn sync_node_addresses(maps: &mut Maps, wanted: &BTreeSet<IpAddr>) -> anyhow::Result<Vec<IpAddr>> {
    let wanted: BTreeMap<[u8; 16], IpAddr> = wanted
        .iter()
        .map(|&address| match address {
            IpAddr::V4(v4) => (node_address_v4(v4.octets()), address),
            IpAddr::V6(v6) => (v6.octets(), address),
        })
        .collect();
    let present: BTreeSet<[u8; 16]> = maps.node_addresses.keys().collect::<Result<_, _>>()?;
    let mut attempt = || -> Result<Vec<IpAddr>, MapError> {
        let missing = wanted.iter().filter(|(key, _)| !present.contains(*key));
        let mut insert = |key: &[u8; 16]| fits(maps.node_addresses.insert(key, 1, 0));
        let late = refused(missing, |(key, _)| insert(key))?;
        for key in present.iter().filter(|key| !wanted.contains_key(*key)) {
            maps.node_addresses.remove(key)?;
        }
        let mut insert = |key: &[u8; 16]| fits(maps.node_addresses.insert(key, 1, 0));
        Ok(refused(late, |(key, _)| insert(key))?.into_iter().map(|(_, &address)| address).collect())
    };
    attempt().context("cannot write the node's own addresses")
}

fn sync_family<K: Pod + Ord>(
    trie: &mut LpmTrie<MapData, K, u32>,
    wanted: &BTreeMap<(u32, K), (IpNet, u32)>,
) -> Result<Vec<IpNet>, MapError> {
    let present = present(trie)?;
    let other = wanted.iter().filter(|&(key, (_, slot))| present.get(key) != Some(slot));
    let late = refused(other, |&(&(len, data), (_, slot))| fits(trie.insert(&Key::new(len, data), slot, 0)))?;
    for &(len, data) in present.keys().filter(|key| !wanted.contains_key(key)) {
        trie.remove(&Key::new(len, data))?;
    }
    let still = refused(late, |&(&(len, data), (_, slot))| {
        // Kernels before 6.13 want room for a second one while they replace one. Nor may it go on leading to a slot that
        // may be another's soon.
        if present.contains_key(&(len, data)) {
            trie.remove(&Key::new(len, data))?;
        }
        fits(trie.insert(&Key::new(len, data), slot, 0))
    })?;
    Ok(still.into_iter().map(|(_, &(prefix, _))| prefix).collect())
}

/// The local addresses that the program knows.
///
/// # Errors
/// When the maps can't be read.
pub fn addresses_in_force(maps: &Maps) -> anyhow::Result<BTreeSet<IpNet>> {
    let mut all = BTreeSet::new();
    for (len, network) in present(&maps.addresses_v4)?.into_keys() {
        all.insert(Ipv4Net::new(network.into(), u8::try_from(len)?)?.into());
    }
    for (len, network) in present(&maps.addresses_v6)?.into_keys() {
        all.insert(Ipv6Net::new(network.into(), u8::try_from(len)?)?.into());
    }
    Ok(all)
}

/// What is in a trie: length and network -> value.
fn present<K: Pod + Ord>(trie: &LpmTrie<MapData, K, u32>) -> Result<BTreeMap<(u32, K), u32>, MapError> {
    trie.keys()
        .map(|key| {
            let key = key?;
            // The key is packed; its fields are copied out, never borrowed.
            Ok(((key.prefix_len(), key.data()), trie.get(&key, 0)?))
        })
        .collect()
}

/// Those that found no room.
fn refused<T>(
    all: impl IntoIterator<Item = T>,
    mut insert: impl FnMut(&T) -> Result<bool, MapError>,
) -> Result<Vec<T>, MapError> {
    let mut refused = Vec::new();
    for one in all {
        if !insert(&one)? {
            refused.push(one);
        }
    }
    Ok(refused)
}

/// Whether there was room for an element.
fn fits(inserted: Result<(), MapError>) -> Result<bool, MapError> {
    match inserted {
        Ok(()) => Ok(true),
        Err(MapError::SyscallError(error))
            if matches!(error.io_error.raw_os_error(), Some(libc::ENOSPC | libc::E2BIG)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_does_not_fit_is_refused_before_it_is_built() {
        let needed = KernelMemory { tries: 5 << 20, indexes: 32 << 20 };
        assert!(check_memory(&needed, 37 << 20).is_ok());
        let error = check_memory(&needed, (37 << 20) - 1).unwrap_err().to_string();
        assert!(error.starts_with(
            "the class table needs 37 MiB of kernel memory (5 the tries, 32 the indexes), and 36 MiB"
        ));
    }

    #[test]
    fn the_kernel_says_what_is_available() {
        assert!(memory::available().unwrap() > 1 << 20);
    }
}
