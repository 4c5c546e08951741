//! The shadow class table: another table that counts beside the one in force, on the same packets, and bills nothing.
//!
//! | file | owns |
//! |---|---|
//! | this one | whether a shadow counts, and its end |
//! | `start` | building a shadow beside all that counts, and putting it in force |
//! | `read` | what it has counted, and the bases of slots |
//!
//! What the kernel program reads is an overlay of both tables ([`traffic_classes::Overlay`]): one lookup gives the pair
//! of the class in force and the class in the shadow. The counters are those of a container and pair.
//!
//! One bit of the word that names the table in force says whether there is a shadow
//! ([`traffic_common::TableWord::has_shadow`]). It is set when everything else is complete, so a packet never sees half
//! a shadow. Whoever puts another table in force, or moves the counters to other maps, writes a word without it: then
//! the pairs would be wrong. Nothing that counts for bills waits for a shadow or fails because of it.
//!
//! The record, the bases and the arrays of counters are pinned in a directory of their own. Without the bit, they are
//! what an ended shadow has left, and nobody reads them.

mod read;
mod start;

use std::{collections::HashSet, fs, io};

use anyhow::Context as _;
use aya::maps::{Map, MapData};
use traffic_classes::ARRAY_BYTES;
use traffic_common::{
    ARRAYS_PER_TABLE, ClassBlock, ClassCounters, Control, SHADOW_ARRAYS, SHADOW_VERSION, ShadowRecord,
    TableWord,
};

use super::{
    bpffs::Bpffs,
    maps::{Elements, Maps, SHADOW, locked_bytes},
    sys,
};

pub use read::{ShadowCounter, read, rebase};
pub use start::{Prepared, prepare};

const RECORD: &str = "RECORD";
const BASES: &str = "BASES";
/// Followed by the number of the array.
const COUNTERS: &str = "COUNTERS_";

/// A shadow that counts. Its arrays are opened while they are read: there may be more of them than a process may
/// have open files.
#[derive(Debug)]
pub struct Shadow {
    bpffs: Bpffs,
    record: ShadowRecord,
    /// The kernel's id of the map that holds the record. No other shadow has the same.
    id: u32,
}

impl Shadow {
    /// Opens the shadow that counts now; `None` if there is none.
    ///
    /// # Errors
    /// When there is one, and what it is cannot be read.
    pub fn open(maps: &Maps) -> anyhow::Result<Option<Self>> {
        if !maps.active_table()?.has_shadow() {
            return Ok(None);
        }
        let bpffs = Bpffs::new(&maps.pinned_in);
        let (id, record) = described(&bpffs)?.filter(|(_, record)| record.version == SHADOW_VERSION).context(
            "a shadow class table counts, and what it counts is not described; `trafctl classes shadow --drop` ends it",
        )?;
        Ok(Some(Self { bpffs, record, id }))
    }

    /// What the shadow is.
    pub const fn record(&self) -> &ShadowRecord {
        &self.record
    }

    /// Counters of container slots and pairs: one of the arrays of [`traffic_common::SHADOW_BLOCKS`] blocks.
    fn array(&self, number: u32) -> anyhow::Result<Elements<ClassBlock>> {
        open(&self.bpffs, "SHADOW_COUNTERS", &format!("{COUNTERS}{number}"))
    }

    /// Container slot * pairs + pair -> what the counters held when the present owner got the slot.
    fn bases(&self) -> anyhow::Result<Elements<ClassCounters>> {
        open(&self.bpffs, BASES, BASES)
    }
}

/// Whether a shadow counts.
///
/// # Errors
/// When the kernel refuses.
pub fn is_on(maps: &Maps) -> anyhow::Result<bool> {
    Ok(maps.active_table()?.has_shadow())
}

/// Whether the program in the kernel knows shadows.
pub fn is_known(bpffs: &Bpffs) -> bool {
    SHADOW.iter().all(|name| bpffs.map(name).exists())
}

/// The description of the shadow that counts, or of the last one if its maps are still there.
///
/// # Errors
/// When it is there and cannot be read.
pub fn last_record(bpffs: &Bpffs) -> anyhow::Result<Option<ShadowRecord>> {
    Ok(described(bpffs)?.map(|(_, record)| record))
}

/// The record, with the id of the map that holds it.
fn described(bpffs: &Bpffs) -> anyhow::Result<Option<(u32, ShadowRecord)>> {
    let path = bpffs.shadow().join(RECORD);
    if !fs::exists(&path).with_context(|| format!("cannot look for {}", path.display()))? {
        return Ok(None);
    }
    let data = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let id = data.info().with_context(|| format!("cannot inspect {}", path.display()))?.id();
    let record = Elements::<ShadowRecord>::new(RECORD, Map::from_map_data(data)?)?.get(0)?;
    Ok(Some((id, record)))
}

/// Returns the bytes of the counters and lines of the shadow that counts, as the kernel allocates them; 0 if none does.
///
/// # Errors
/// When a map cannot be opened, or the shadow ends meanwhile.
pub fn memory(maps: &Maps) -> anyhow::Result<u64> {
    let Some(Shadow { bpffs, record, .. }) = Shadow::open(maps)? else { return Ok(0) };
    let bytes = |pin: &str| {
        let path = bpffs.shadow().join(pin);
        let data = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        anyhow::Ok(locked_bytes(data.fd()))
    };
    let arrays = start::arrays_for(record.container_slots, record.pairs);
    let path = bpffs.map(SHADOW[1]);
    let lines = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let ids = sys::nested_maps_used(&lines, 0, ARRAYS_PER_TABLE)
        .and_then(|used| sys::nested_map_ids(&lines, 0, used))
        .with_context(|| format!("cannot read {}", path.display()))?;
    // Places that share an array count once, and all arrays of counters are of one size.
    let distinct = ids.into_iter().collect::<HashSet<u32>>().len() as u64;
    Ok(u64::from(arrays) * bytes(&format!("{COUNTERS}0"))? + bytes(BASES)? + distinct * ARRAY_BYTES)
}

/// Whether maps are pinned of a shadow that counts, or that an interruption has left.
///
/// # Errors
/// When their directory cannot be read.
pub fn has_maps(bpffs: &Bpffs) -> anyhow::Result<bool> {
    let directory = bpffs.shadow();
    match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        entries => {
            let mut entries = entries.with_context(|| format!("cannot list {}", directory.display()))?;
            Ok(entries.next().is_some())
        }
    }
}

/// Ends the shadow, if there is one, and frees its memory. When this returns, no program reads its maps. Also clears
/// away what an interrupted start or end has left. The caller holds the change lock.
///
/// # Errors
/// When the kernel refuses. Then memory may be left, which the next call frees.
pub fn end(maps: &mut Maps) -> anyhow::Result<()> {
    turn_off(maps)?;
    free(maps)
}

/// Frees the memory of a shadow that does not count any more.
fn free(maps: &mut Maps) -> anyhow::Result<()> {
    let bpffs = Bpffs::new(&maps.pinned_in);
    // For programs that saw the bit. The removals below wait as well, but one that was interrupted may have left
    // nothing to remove, and have waited for nothing.
    maps.wait_for_packets()?;
    for (name, most) in [(SHADOW[1], ARRAYS_PER_TABLE), (SHADOW[2], SHADOW_ARRAYS)] {
        let path = bpffs.map(name);
        if !path.exists() {
            continue;
        }
        let outer = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        // All places: a removal that was interrupted has left maps behind empty ones.
        sys::remove_maps(&outer, 0, most).with_context(|| {
            format!("cannot free the memory of the shadow class table in {}", path.display())
        })?;
    }
    bpffs.clear_shadow()
}

/// Lets packets count without the shadow from the next one on. Its maps stay.
fn turn_off(maps: &mut Maps) -> anyhow::Result<()> {
    let control = maps.control.get(0)?;
    let word = TableWord(control.active_table);
    if word.has_shadow() {
        maps.control.set(0, Control { active_table: word.with_shadow(false).0, ..control })?;
    }
    Ok(())
}

fn open<V: aya::Pod>(bpffs: &Bpffs, name: &'static str, pin: &str) -> anyhow::Result<Elements<V>> {
    let path = bpffs.shadow().join(pin);
    let map = MapData::from_pin(&path)
        .and_then(Map::from_map_data)
        .with_context(|| format!("cannot open {}", path.display()))?;
    Elements::new(name, map)
}

fn pin(bpffs: &Bpffs, data: &MapData, name: &str) -> anyhow::Result<()> {
    let path = bpffs.shadow().join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot unpin {}", path.display()));
        }
        _ => {}
    }
    data.pin(&path).with_context(|| format!("cannot pin {}", path.display()))
}
