//! The prefixes and classes of the table in force, read from the kernel.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{
        Map, MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use traffic_common::{CLASS_ZERO_COLUMN, Family, Meta};

use super::columns::columns;
use crate::kernel::maps::{ClassTrieV4, ClassTrieV6, Maps};

/// Returns the prefixes in force with their classes, sorted, as the kernel holds them.
///
/// # Errors
/// When the maps cannot be read.
pub fn in_force(maps: &Maps) -> anyhow::Result<Vec<(IpNet, u8)>> {
    loop {
        let active = maps.control.get(0)?.active_table;
        let rows = rows_in(maps, active)?;
        // If another table came into force meanwhile, the place may have been emptied while it was read.
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

fn collect<K: Pod>(
    trie: &LpmTrie<MapData, K, u32>,
    meta: &Meta,
    rows: &mut Vec<(IpNet, u8)>,
    prefix: impl Fn(K, u8) -> anyhow::Result<IpNet>,
) -> anyhow::Result<()> {
    for key in trie.keys() {
        let key = key?;
        let column = trie.get(&key, 0)?;
        let class = *meta.column_class.get(column as usize).context("a prefix names an unknown column")?;
        rows.push((prefix(key.data(), u8::try_from(key.prefix_len())?)?, class));
    }
    Ok(())
}

/// Returns the classes of the table in force, of one family or of both; class 0 is always among them. Unlike
/// [`in_force`], this stops as soon as it has found every class that has a column. It reads the whole table
/// only if one of these is no longer in it.
///
/// # Errors
/// When the maps cannot be read.
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
    let mut found = BTreeSet::from([CLASS_ZERO_COLUMN]);
    // Both families in turn, since a class may be in one of them only.
    while found.len() < in_use.len() {
        let next = [v4.next().transpose()?, v6.next().transpose()?];
        if next == [None, None] {
            break;
        }
        found.extend(next.into_iter().flatten().filter(|column| in_use.contains_key(column)));
    }
    Ok(found.iter().filter_map(|column| in_use.get(column).copied()).collect())
}

/// The column of each prefix. The prefix of length 0, which most tables have and the kernel lists last, is
/// also listed first.
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
