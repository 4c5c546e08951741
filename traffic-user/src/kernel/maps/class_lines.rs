//! The two places for a class table, of which one is active: a new table is put into the idle place, then made
//! active.

use std::{
    collections::HashSet,
    fs, io, iter,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::maps::{Array, IterableMap as _, Map, MapData};
use traffic_classes::ARRAY_BYTES;
use traffic_common::{ARRAY_WORDS, ARRAYS_PER_TABLE, TableWord};

use super::{Elements, locked_bytes};
use crate::kernel::{bpffs::Bpffs, sys};

/// An inner array: a part of the lines of a class table.
pub type ClassArray = Array<MapData, [u64; ARRAY_WORDS]>;
/// The encoded prefixes of a class table.
pub type ClassRows = Array<MapData, [u8; ROWS_ELEMENT_BYTES]>;
/// Bytes of an element of [`ClassRows`].
pub const ROWS_ELEMENT_BYTES: usize = 4096;

const UNREADABLE: &str = "cannot read the inner arrays of the class tables";

/// The lines of both class tables, and the prefixes beside them.
///
/// The prefixes of each place are pinned in a map of their own, which no program reads. The inner arrays are
/// not pinned: nobody needs to open them.
#[derive(Debug)]
pub struct ClassLines {
    outer: MapData,
    /// Where the prefixes of each place are pinned.
    rows: [PathBuf; 2],
}

impl ClassLines {
    pub(super) fn open(bpffs: &Bpffs, name: &str) -> anyhow::Result<Self> {
        let path = bpffs.map(name);
        let outer = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { outer, rows: [0, 1].map(|place| bpffs.map(&format!("CLASS_ROWS_{place}"))) })
    }

    /// Puts a table's inner arrays into a place, one for each of its entries. Entries that a former table used
    /// beyond these get an empty array, so that its memory is freed. When this returns, every program run that
    /// may have seen the former arrays has ended.
    ///
    /// # Errors
    /// When the kernel refuses. Then the place holds parts of both tables.
    pub fn put(&self, place: u32, arrays: &[&ClassArray]) -> anyhow::Result<()> {
        let spare = (self.used(place).context(UNREADABLE)? as usize).saturating_sub(arrays.len());
        let empty = empty_array()?;
        let maps: Vec<&MapData> =
            arrays.iter().map(|array| array.map()).chain(iter::repeat_n(empty.map(), spare)).collect();
        sys::put_maps(&self.outer, first_array(place), &maps)
            .context("cannot put a class table into its place")
    }

    /// Frees the memory of the table in a place that no program reads any more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn release(&self, place: u32) -> anyhow::Result<()> {
        self.put(place, &[])?;
        unpin(self.pin_of(place)?)
    }

    /// Waits until every program run that is in progress now has ended: the kernel returns from an update of a
    /// map of maps only then. `idle` is the place that no program reads.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wait_for_packets(&self, idle: u32) -> anyhow::Result<()> {
        sys::put_maps(&self.outer, first_array(idle), &[empty_array()?.map()])
            .context("cannot wait for running programs")
    }

    /// Puts an array into the first entry of a place once more, and waits as [`Self::wait_for_packets`] does.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wait_with(&self, place: u32, first: &ClassArray) -> anyhow::Result<()> {
        sys::put_maps(&self.outer, first_array(place), &[first.map()])
            .context("cannot wait for running programs")
    }

    fn pin_of(&self, place: u32) -> anyhow::Result<&Path> {
        Ok(self.rows.get(place as usize).with_context(|| format!("there is no place {place}"))?)
    }

    /// Pins the prefixes of the table that is about to be put into a place. This replaces the pin that an
    /// interrupted load may have left there.
    ///
    /// # Errors
    /// When they cannot be pinned.
    pub fn pin_rows(&self, place: u32, rows: &ClassRows) -> anyhow::Result<()> {
        let pin = self.pin_of(place)?;
        unpin(pin)?;
        rows.map().pin(pin).with_context(|| format!("cannot pin {}", pin.display()))
    }

    /// Reads the encoded prefixes of the table in a place.
    ///
    /// # Errors
    /// When they are not pinned or cannot be read.
    pub fn rows(&self, place: u32) -> anyhow::Result<Vec<u8>> {
        let pin = self.pin_of(place)?;
        let map = MapData::from_pin(pin)
            .and_then(Map::from_map_data)
            .with_context(|| format!("cannot open the prefixes of the class table, {}", pin.display()))?;
        let elements = Elements::<[u8; ROWS_ELEMENT_BYTES]>::new("CLASS_ROWS", map)?;
        let rows = elements.range(0, elements.len())?;
        Ok(rows.into_flattened())
    }

    /// The number of entries of a place that hold an array. They are the first ones.
    fn used(&self, place: u32) -> io::Result<u32> {
        sys::nested_maps_used(&self.outer, first_array(place), ARRAYS_PER_TABLE)
    }

    /// Returns the bytes that the kernel has allocated for the inner arrays of both places. Entries that share
    /// an array count once.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn array_memory(&self) -> anyhow::Result<u64> {
        let ids = |place| sys::nested_map_ids(&self.outer, first_array(place), self.used(place)?);
        let both = ids(0).and_then(|first| Ok([first, ids(1)?].concat())).context(UNREADABLE)?;
        Ok(both.into_iter().collect::<HashSet<u32>>().len() as u64 * ARRAY_BYTES)
    }

    /// Returns the bytes of the prefixes in both places.
    ///
    /// # Errors
    /// When a map cannot be opened.
    pub fn rows_memory(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for pin in &self.rows {
            if fs::exists(pin)? {
                let map = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
                bytes += locked_bytes(map.fd());
            }
        }
        Ok(bytes)
    }
}

const fn first_array(place: u32) -> u32 {
    TableWord::new(place, false, 0).first_array()
}

/// An array of zeros. It takes the place of arrays that are no longer needed: the kernel waits for running
/// programs in each removal, but only once for many replacements.
fn empty_array() -> anyhow::Result<ClassArray> {
    ClassArray::create(1, 0).context("cannot create an array for a class table")
}

fn unpin(pin: &Path) -> anyhow::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot unpin {}", pin.display()))
        }
        _ => Ok(()),
    }
}
