//! Putting compiled tables into the kernel: classes, as a whole and between two packets; addresses, one by one.

use std::{collections::BTreeMap, io, os::fd::AsFd as _};

use anyhow::{Context as _, bail};
use aya::{
    Pod,
    maps::{
        IterableMap, Map, MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use traffic_common::{
    CLASS_ZERO_COLUMN, Control, INDEX_ASK_TRIE, INDEX_V4_BLOCK_BYTES, INDEX_V4_BLOCKS, Meta,
};

use super::{
    maps::{ClassIndexV4, ClassTrieV4, ClassTrieV6, Maps},
    sys,
};
use crate::{classes::ClassTable, clock};

/// Prefixes that go into the kernel with one call.
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

/// Loads a whole class table beside the one in force, then switches to it between two packets.
///
/// # Errors
/// When the kernel has no memory for it, or its classes no room. The table in force stays in force then.
pub fn load(maps: &mut Maps, table: &ClassTable) -> anyhow::Result<()> {
    let mut meta = maps.meta.get(0)?;
    let columns = assign_columns(&mut meta, table)?;
    let v4: Vec<_> = table
        .v4
        .iter()
        .map(|row| {
            (Key::new(u32::from(row.prefix.prefix_len()), row.prefix.network().octets()), columns[&row.class])
        })
        .collect();
    let v6: Vec<_> = table
        .v6
        .iter()
        .map(|row| {
            (Key::new(u32::from(row.prefix.prefix_len()), row.prefix.network().octets()), columns[&row.class])
        })
        .collect();
    let fresh = Tables {
        index_v4: fill_index(&index_v4(&v4)).context("cannot build the IPv4 class index")?,
        trie_v4: fill(&v4).context("cannot build the IPv4 class table")?,
        trie_v6: fill(&v6).context("cannot build the IPv6 class table")?,
    };
    // From here on the columns are spoken for: whoever reads the counters must know their classes first.
    maps.meta.set(0, meta)?;

    let control = maps.control.get(0)?;
    let (old, idle) = (control.active_table, 1 - control.active_table);
    fresh.put(maps, idle)?;
    maps.control.set(0, Control { active_table: idle, ..control })?;
    meta.table_hash = table.hash();
    meta.table_loaded_unix_s = clock::unix_seconds();
    meta.table_prefixes = (v4.len() + v6.len()) as u64;
    maps.meta.set(0, meta)?;

    // A packet that read the old word may still be looking into the old table. The kernel returns from an update of a
    // map of maps only when no program that ran before is running any more: placing the new table once more waits for
    // just that. Only then the old one is let go, and its memory with it.
    fresh.put(maps, idle)?;
    for pair in [&mut maps.class_index_v4, &mut maps.classes_v4, &mut maps.classes_v6] {
        pair.clear(old)?;
    }
    Ok(())
}

/// All that one class table is in the kernel.
struct Tables {
    index_v4: ClassIndexV4,
    trie_v4: ClassTrieV4,
    trie_v6: ClassTrieV6,
}

impl Tables {
    fn put(&self, maps: &mut Maps, place: u32) -> anyhow::Result<()> {
        maps.class_index_v4.put(place, IterableMap::map(&self.index_v4))?;
        maps.classes_v4.put(place, IterableMap::map(&self.trie_v4))?;
        maps.classes_v6.put(place, IterableMap::map(&self.trie_v6))
    }
}

/// The column of each prefix of 24 bits, or the word that the trie has to be asked. `rows` are sorted by network and
/// prefix length, so that an enclosing prefix comes before what lies in it.
fn index_v4(rows: &[(Key<[u8; 4]>, u32)]) -> Vec<u8> {
    const INDEXED_BITS: u32 = 24;
    let mut index = vec![0; 1 << INDEXED_BITS];
    for (key, column) in rows {
        let first = (u32::from_be_bytes(key.data()) >> (32 - INDEXED_BITS)) as usize;
        match INDEXED_BITS.checked_sub(key.prefix_len()) {
            // A column is below the word's value: the number of columns is limited so.
            Some(free) => {
                index[first..first + (1 << free)].fill(u8::try_from(*column).unwrap_or(INDEX_ASK_TRIE));
            }
            None => index[first] = INDEX_ASK_TRIE,
        }
    }
    index
}

fn fill_index(index: &[u8]) -> anyhow::Result<ClassIndexV4> {
    let mut array = ClassIndexV4::create(INDEX_V4_BLOCKS, 0)?;
    let (blocks, _) = index.as_chunks::<INDEX_V4_BLOCK_BYTES>();
    for (chunk, first) in blocks.chunks(BATCH).zip((0..).step_by(BATCH)) {
        let keys: Vec<u32> = (first..).take(chunk.len()).collect();
        match sys::update_batch(IterableMap::map(&array).fd().as_fd(), &keys, chunk) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                for (key, block) in keys.iter().zip(chunk) {
                    array.set(*key, block, 0)?;
                }
            }
            other => other.context("cannot write the index")?,
        }
    }
    Ok(array)
}

/// The prefixes in force with their classes, sorted: what the kernel itself holds.
///
/// # Errors
/// When the maps can't be read.
pub fn in_force(maps: &Maps) -> anyhow::Result<Vec<(IpNet, u8)>> {
    let active = maps.control.get(0)?.active_table;
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

/// Gives every class of the table a column; a class that ever had one keeps it.
fn assign_columns(meta: &mut Meta, table: &ClassTable) -> anyhow::Result<BTreeMap<u8, u32>> {
    let mut columns: BTreeMap<u8, u32> =
        columns(meta).into_iter().map(|(column, class)| (class, column)).collect();
    for class in table.classes_in_use() {
        if columns.contains_key(&class) {
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
        columns.insert(class, meta.columns_used);
        meta.columns_used += 1;
    }
    Ok(columns)
}

/// The class of each column in use.
pub fn columns(meta: &Meta) -> Vec<(u32, u8)> {
    let used = meta.columns_used.min(meta.columns).max(CLASS_ZERO_COLUMN + 1);
    (0..used).map(|column| (column, meta.column_class[column as usize])).collect()
}

fn fill<K: Pod>(rows: &[(Key<K>, u32)]) -> anyhow::Result<LpmTrie<MapData, K, u32>> {
    /// `BPF_F_NO_PREALLOC`, without which the kernel makes no trie.
    const NO_PREALLOC: u32 = 1;
    let capacity = u32::try_from(rows.len().max(1)).context("more prefixes than a map can hold")?;
    let mut trie = LpmTrie::create(capacity, NO_PREALLOC)?;
    for chunk in rows.chunks(BATCH) {
        let (keys, values): (Vec<_>, Vec<_>) = chunk.iter().copied().unzip();
        match sys::update_batch(fd(&trie), &keys, &values) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                for (key, value) in chunk {
                    trie.insert(key, value, 0)?;
                }
            }
            other => other.context("cannot write prefixes")?,
        }
    }
    Ok(trie)
}

fn fd<K: Pod>(trie: &LpmTrie<MapData, K, u32>) -> std::os::fd::BorrowedFd<'_> {
    IterableMap::map(trie).fd().as_fd()
}

/// Makes the local addresses in the kernel equal to `wanted`: prefix -> container slot.
///
/// # Errors
/// When the kernel refuses one; those before it are in force.
pub fn sync_addresses(maps: &mut Maps, wanted: &BTreeMap<IpNet, u32>) -> anyhow::Result<()> {
    let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
    for (prefix, slot) in wanted {
        match prefix {
            IpNet::V4(net) => v4.insert((u32::from(net.prefix_len()), net.network().octets()), *slot),
            IpNet::V6(net) => v6.insert((u32::from(net.prefix_len()), net.network().octets()), *slot),
        };
    }
    sync_family(&mut maps.addresses_v4, &v4).context("cannot write the IPv4 addresses of containers")?;
    sync_family(&mut maps.addresses_v6, &v6).context("cannot write the IPv6 addresses of containers")
}

fn sync_family<K: Pod + Ord>(
    trie: &mut LpmTrie<MapData, K, u32>,
    wanted: &BTreeMap<(u32, K), u32>,
) -> Result<(), MapError> {
    let mut present = BTreeMap::new();
    for key in trie.keys() {
        let key = key?;
        let value = trie.get(&key, 0)?;
        // The key is packed; its fields are copied out, never borrowed.
        present.insert((key.prefix_len(), key.data()), value);
    }
    for (&(prefix_len, data), _) in present.iter().filter(|(key, _)| !wanted.contains_key(key)) {
        trie.remove(&Key::new(prefix_len, data))?;
    }
    for (&(prefix_len, data), slot) in wanted.iter().filter(|&(key, slot)| present.get(key) != Some(slot)) {
        trie.insert(&Key::new(prefix_len, data), slot, 0)?;
    }
    Ok(())
}
