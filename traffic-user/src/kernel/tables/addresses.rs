//! Addresses of containers on shared interfaces, and the node's own, changed one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{
        MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use traffic_common::node_address_v4;

use crate::kernel::maps::Maps;

/// What happens to addresses in the kernel that are not among the wanted ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherAddresses {
    /// They are removed. Before a slot gets another owner, none may still lead to it.
    Remove,
    /// They stay, because not everything that names owners could be read.
    Keep,
}

/// Makes the local addresses in the kernel equal to `wanted`: prefix -> container slot. New prefixes are
/// written before old ones are removed, so that an address is never without an owner while a longer or
/// shorter prefix replaces its prefix. Returns the prefixes for which there was no room.
///
/// # Errors
/// When the maps cannot be read, or the kernel refuses for another reason. The other family is complete even
/// then.
pub fn sync_addresses(
    maps: &mut Maps,
    wanted: &BTreeMap<IpNet, u32>,
    others: OtherAddresses,
) -> anyhow::Result<Vec<IpNet>> {
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
    // A failure of one family does not keep the other from being written.
    let refused_v4 = sync_family(&mut maps.addresses_v4, &v4, others)
        .context("cannot write the IPv4 addresses of containers");
    let refused_v6 = sync_family(&mut maps.addresses_v6, &v6, others)
        .context("cannot write the IPv6 addresses of containers");
    Ok([refused_v4?, refused_v6?].concat())
}

/// Makes the node's own addresses in the kernel equal to `wanted`, in the same order. Returns the addresses
/// for which there was no room.
///
/// # Errors
/// When the map cannot be read, or the kernel refuses for another reason.
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
    others: OtherAddresses,
) -> Result<Vec<IpNet>, MapError> {
    let present = present(trie)?;
    let changed = wanted.iter().filter(|&(key, (_, slot))| present.get(key) != Some(slot));
    let late =
        refused(changed, |&(&(len, data), (_, slot))| fits(trie.insert(&Key::new(len, data), slot, 0)))?;
    let is_removed = |key: &&(u32, K)| others == OtherAddresses::Remove && !wanted.contains_key(key);
    for &(len, data) in present.keys().filter(is_removed) {
        trie.remove(&Key::new(len, data))?;
    }
    let still = refused(late, |&(&(len, data), (_, slot))| {
        // Kernels before 6.13 need room for a second prefix while they replace one. If even that fails, the
        // prefix must not keep pointing to its old slot, which may soon belong to another container.
        if present.contains_key(&(len, data)) {
            trie.remove(&Key::new(len, data))?;
        }
        fits(trie.insert(&Key::new(len, data), slot, 0))
    })?;
    Ok(still.into_iter().map(|(_, &(prefix, _))| prefix).collect())
}

/// Returns the local addresses that the program knows: prefix -> container slot.
///
/// # Errors
/// When the maps cannot be read.
pub fn addresses_in_force(maps: &Maps) -> anyhow::Result<BTreeMap<IpNet, u32>> {
    let mut all = BTreeMap::new();
    for ((len, network), slot) in present(&maps.addresses_v4)? {
        all.insert(Ipv4Net::new(network.into(), u8::try_from(len)?)?.into(), slot);
    }
    for ((len, network), slot) in present(&maps.addresses_v6)? {
        all.insert(Ipv6Net::new(network.into(), u8::try_from(len)?)?.into(), slot);
    }
    Ok(all)
}

/// Reads a trie: length and network -> value.
fn present<K: Pod + Ord>(trie: &LpmTrie<MapData, K, u32>) -> Result<BTreeMap<(u32, K), u32>, MapError> {
    trie.keys()
        .map(|key| {
            let key = key?;
            // The key is packed: its fields must be copied, not borrowed.
            Ok(((key.prefix_len(), key.data()), trie.get(&key, 0)?))
        })
        .collect()
}

/// Inserts all, and returns those for which there was no room.
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
