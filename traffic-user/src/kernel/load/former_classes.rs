//! The class table of maps of layouts 2 and 3: tries, which this version's program does not read.

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{ArrayOfMaps, LpmTrie, Map, MapData},
};
use ipnet::{Ipv4Net, Ipv6Net};
use traffic_classes::{index::Row, stored_rows::Rows};

use crate::kernel::{bpffs::Bpffs, maps::typed};

/// The first layout whose class tables are lines.
const LINES_SINCE: u32 = 4;

/// Whether maps of this layout have tries.
pub(super) const fn has_tries(layout: u32) -> bool {
    layout < LINES_SINCE
}

/// The name of the map that says which table is in force, and how many columns a row has.
pub(super) const fn control(layout: u32) -> &'static str {
    if has_tries(layout) { "CONTROL" } else { "CLASS_CONTROL" }
}

/// Reads the rows of the table in a place, with their columns.
pub(super) fn rows(bpffs: &Bpffs, place: u32) -> anyhow::Result<Rows> {
    let mut v4: Vec<Row<Ipv4Net>> =
        read(bpffs, "CLASSES_V4", place, |address: [u8; 4], len| Ok(Ipv4Net::new(address.into(), len)?))?;
    let mut v6: Vec<Row<Ipv6Net>> =
        read(bpffs, "CLASSES_V6", place, |address: [u8; 16], len| Ok(Ipv6Net::new(address.into(), len)?))?;
    v4.sort_unstable();
    v6.sort_unstable();
    Ok((v4, v6))
}

fn read<N, K: Pod>(
    bpffs: &Bpffs,
    name: &'static str,
    place: u32,
    prefix: impl Fn(K, u8) -> anyhow::Result<N>,
) -> anyhow::Result<Vec<Row<N>>> {
    let trie: LpmTrie<MapData, K, u32> = Map::from_map_data(open(bpffs, name, place)?)?.try_into()?;
    trie.iter()
        .map(|element| {
            let (key, column) = element.with_context(|| format!("cannot read {name}"))?;
            Ok((prefix(key.data(), u8::try_from(key.prefix_len())?)?, u8::try_from(column)?))
        })
        .collect()
}

/// The trie in a place. It is pinned, because to open it by its id takes CAP_SYS_ADMIN.
fn open(bpffs: &Bpffs, name: &str, place: u32) -> anyhow::Result<MapData> {
    let pin = bpffs.map(&format!("{name}_{place}"));
    if pin.exists() {
        return MapData::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()));
    }
    let places: ArrayOfMaps<MapData> = typed(bpffs, name)?;
    places
        .get(&place, 0)
        .with_context(|| format!("cannot open the class table in {name}, which is not pinned"))
}
