//! Two places for a table, of which one is active: a new table is put into the idle place, then made active.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::maps::{ArrayOfMaps, MapData, MapError};

use super::{locked_bytes, typed};
use crate::kernel::{bpffs::Bpffs, sys};

/// A map of maps with two places.
///
/// The table in each place is pinned as well. The kernel reports only the id of a map within a map, and
/// opening one by its id takes CAP_SYS_ADMIN.
#[derive(Debug)]
pub struct DoubleBuffer {
    name: &'static str,
    places: ArrayOfMaps<MapData>,
    /// A second handle on the same map, for what the first does not offer.
    data: MapData,
    /// Where the table of each place is pinned.
    pins: [PathBuf; 2],
}

impl DoubleBuffer {
    pub(in crate::kernel) fn open(bpffs: &Bpffs, name: &'static str) -> anyhow::Result<Self> {
        let path = bpffs.map(name);
        let data = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let pins = [0, 1].map(|place| bpffs.map(&format!("{name}_{place}")));
        Ok(Self { name, places: typed(bpffs, name)?, data, pins })
    }

    fn pin_of(&self, place: u32) -> anyhow::Result<&Path> {
        let pin =
            self.pins.get(place as usize).with_context(|| format!("{} has no place {place}", self.name))?;
        Ok(pin)
    }

    /// Pins the table that is about to be put into a place. This replaces the pin that an interrupted load
    /// may have left there.
    ///
    /// # Errors
    /// When the table cannot be pinned.
    pub fn pin(&self, place: u32, table: &MapData) -> anyhow::Result<()> {
        let pin = self.pin_of(place)?;
        unpin(pin)?;
        table.pin(pin).with_context(|| format!("cannot pin {}", pin.display()))
    }

    /// Puts a table into a place. When this returns, every program run that may have seen the former table
    /// has ended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put(&mut self, place: u32, table: &MapData) -> anyhow::Result<()> {
        self.places.set(place, table, 0).with_context(|| format!("cannot put a table into {}", self.name))
    }

    /// Opens the table in a place.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn table(&self, place: u32) -> anyhow::Result<Option<MapData>> {
        let pin = self.pin_of(place)?;
        if fs::exists(pin)? {
            let table = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
            return Ok(Some(table));
        }
        match self.places.get(&place, 0) {
            Ok(table) => Ok(Some(table)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).with_context(|| {
                format!("cannot open the table in {}, which is not pinned (needs CAP_SYS_ADMIN)", self.name)
            }),
        }
    }

    /// Returns the bytes of the table in a place, 0 for an empty place.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn memory(&self, place: u32) -> anyhow::Result<u64> {
        Ok(self.table(place)?.map_or(0, |table| locked_bytes(table.fd())))
    }

    /// Empties a place, and frees the table's memory.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn clear(&mut self, place: u32) -> anyhow::Result<()> {
        sys::delete_element(&self.data, place)
            .with_context(|| format!("cannot empty a place in {}", self.name))?;
        unpin(self.pin_of(place)?)
    }
}

fn unpin(pin: &Path) -> anyhow::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot unpin {}", pin.display()))
        }
        _ => Ok(()),
    }
}
