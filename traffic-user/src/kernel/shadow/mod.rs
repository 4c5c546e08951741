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

use std::{fs, io};

use anyhow::Context as _;
use aya::maps::{Map, MapData};
use traffic_common::{
    ARRAYS_PER_TABLE, ClassBlock, ClassCounters, Control, SHADOW_ARRAYS, SHADOW_VERSION, ShadowRecord,
    TableWord,
};

use super::{
    bpffs::Bpffs,
    maps::{Elements, Maps, SHADOW},
    sys,
};

pub use read::{ShadowCounter, counters, rebase};
pub use start::{Prepared, prepare};

const RECORD: &str = "RECORD";
const BASES: &str = "BASES";
/// Followed by the number of the array.
const COUNTERS: &str = "COUNTERS_";

/// The maps of a shadow that counts.
#[derive(Debug)]
pub struct Shadow {
    record: ShadowRecord,
    /// Counters of container slots and pairs, in arrays of [`traffic_common::SHADOW_BLOCKS`] blocks.
    arrays: Vec<Elements<ClassBlock>>,
    /// Container slot * pairs + pair -> what the counters held when the present owner got the slot.
    bases: Elements<ClassCounters>,
}

impl Shadow {
    /// Opens the shadow that counts now; `None` if there is none.
    ///
    /// # Errors
    /// When there is one, and its maps cannot be opened.
    pub fn open(maps: &Maps) -> anyhow::Result<Option<Self>> {
        let bpffs = &Bpffs::new(&maps.pinned_in);
        if !maps.active_table()?.has_shadow() {
            return Ok(None);
        }
        let record = last_record(bpffs)?
            .filter(|record| record.version == SHADOW_VERSION)
            .context("a shadow class table counts, and what it counts is not described; `trafctl classes shadow --drop` ends it")?;
        let count = start::arrays_for(record.container_slots, record.pairs);
        let arrays = (0..count).map(|number| open(bpffs, "SHADOW_COUNTERS", &format!("{COUNTERS}{number}")));
        Ok(Some(Self {
            record,
            arrays: arrays.collect::<Result<_, _>>()?,
            bases: open(bpffs, BASES, BASES)?,
        }))
    }

    /// What the shadow is.
    pub const fn record(&self) -> &ShadowRecord {
        &self.record
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
    let path = bpffs.shadow().join(RECORD);
    if !fs::exists(&path).with_context(|| format!("cannot look for {}", path.display()))? {
        return Ok(None);
    }
    open::<ShadowRecord>(bpffs, RECORD, RECORD)?.get(0).map(Some)
}

/// Ends the shadow, if there is one, and frees its memory. When this returns, no program reads its maps. Also clears
/// away what an interrupted start or end has left. The caller holds the change lock.
///
/// # Errors
/// When the kernel refuses. Then nothing counts any more, and memory may be left.
pub fn end(maps: &mut Maps) -> anyhow::Result<()> {
    let bpffs = Bpffs::new(&maps.pinned_in);
    turn_off(maps)?;
    for (name, most) in [(SHADOW[1], ARRAYS_PER_TABLE), (SHADOW[2], SHADOW_ARRAYS)] {
        let path = bpffs.map(name);
        if !path.exists() {
            continue;
        }
        let outer = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        // The kernel returns from a removal only when the programs that ran before it have ended.
        sys::nested_maps_used(&outer, 0, most)
            .and_then(|used| sys::remove_maps(&outer, 0, used))
            .with_context(|| {
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
