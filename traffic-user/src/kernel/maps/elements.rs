//! Array maps, per CPU or not, that are read in ranges.

use std::{io, marker::PhantomData};

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{Array, Map, MapData, PerCpuArray},
};

use super::open;
use crate::kernel::{bpffs::Bpffs, sys};

/// An array map of `V`.
#[derive(Debug)]
pub struct Elements<V> {
    name: &'static str,
    map: Map,
    len: u32,
    copies: usize,
    _value: PhantomData<V>,
}

impl<V: Pod> Elements<V> {
    pub(in crate::kernel) fn open(bpffs: &Bpffs, name: &'static str) -> anyhow::Result<Self> {
        Self::new(name, open(bpffs, name)?)
    }

    pub(in crate::kernel) fn new(name: &'static str, map: Map) -> anyhow::Result<Self> {
        let (len, copies) = match &map {
            Map::Array(_) => (Array::<&MapData, V>::try_from(&map).map(|array| array.len()), 1),
            _ => (PerCpuArray::<&MapData, V>::try_from(&map).map(|array| array.len()), sys::possible_cpus()?),
        };
        let len = len.with_context(|| format!("the pinned map {name} does not have the expected type"))?;
        Ok(Self { name, map, len, copies, _value: PhantomData })
    }

    /// Number of elements.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no elements. All maps of ours have some.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of values for each index: the number of possible CPUs, or 1.
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// Reads `count` elements from `first`. A per-CPU map returns [`Self::copies`] values in a row for each
    /// element.
    ///
    /// # Errors
    /// When the range is not within the map, or the kernel refuses.
    pub fn range(&self, first: u32, count: u32) -> anyhow::Result<Vec<V>> {
        let data = match &self.map {
            Map::Array(data) | Map::PerCpuArray(data) => data,
            _ => anyhow::bail!("map {} is not an array", self.name),
        };
        match sys::lookup_batch(data, first, count) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.one_by_one(first, count),
            other => other.with_context(|| format!("cannot read map {}", self.name)),
        }
    }

    fn one_by_one(&self, first: u32, count: u32) -> anyhow::Result<Vec<V>> {
        let mut values = Vec::with_capacity(count as usize * self.copies);
        for index in first..first + count {
            let read = if matches!(self.map, Map::Array(_)) {
                Array::<&MapData, V>::try_from(&self.map)?.get(&index, 0).map(|value| values.push(value))
            } else {
                PerCpuArray::<&MapData, V>::try_from(&self.map)?
                    .get(&index, 0)
                    .map(|copies| values.extend(copies.iter().copied()))
            };
            read.with_context(|| format!("cannot read element {index} of map {}", self.name))?;
        }
        Ok(values)
    }

    /// Reads one element of a map that is not per CPU.
    ///
    /// # Errors
    /// When the index is out of range or the kernel refuses.
    pub fn get(&self, index: u32) -> anyhow::Result<V> {
        Array::<&MapData, V>::try_from(&self.map)
            .and_then(|array| array.get(&index, 0))
            .with_context(|| format!("cannot read element {index} of map {}", self.name))
    }

    /// Writes one element of a map that is not per CPU.
    ///
    /// # Errors
    /// When the index is out of range or the kernel refuses.
    pub fn set(&mut self, index: u32, value: V) -> anyhow::Result<()> {
        Array::<&mut MapData, V>::try_from(&mut self.map)
            .and_then(|mut array| array.set(index, value, 0))
            .with_context(|| format!("cannot write element {index} of map {}", self.name))
    }
}
