//! The counters of the former set of maps, in the form that its layout has.

use anyhow::Context as _;
use aya::{Pod, maps::MapData};
use traffic_common::ClassCounters;

use crate::kernel::{
    bpffs::Bpffs,
    counters::{self, Counters},
    maps::{ClassBlocks, Elements},
};

/// Counters, what was carried over to them before, and the bases of their slots.
#[derive(Debug)]
pub(super) struct Counted<C> {
    counters: Elements<C>,
    /// Layout 2 has none.
    carried: Option<Elements<C>>,
    bases: Elements<C>,
}

impl<C: Pod + Counters> Counted<C> {
    pub(super) fn open(bpffs: &Bpffs, [counters, carried, bases]: [&'static str; 3]) -> anyhow::Result<Self> {
        Ok(Self {
            counters: Elements::open(bpffs, counters)?,
            carried: open_carried(bpffs, carried)?,
            bases: Elements::open(bpffs, bases)?,
        })
    }

    /// All that was counted, once nothing is counted any more.
    pub(super) fn final_counts(&self) -> anyhow::Result<Vec<C>> {
        let len = self.counters.len();
        Ok(counters::totals(&self.counters.range(0, len)?, &carried(self.carried.as_ref(), len)?))
    }

    pub(super) fn bases(&self) -> anyhow::Result<Vec<C>> {
        self.bases.range(0, self.bases.len())
    }
}

/// The same for containers and classes, by slot and column.
#[derive(Debug)]
pub(super) struct Classes {
    counters: ClassMap,
    /// Layout 2 has none.
    carried: Option<Elements<ClassCounters>>,
    bases: Elements<ClassCounters>,
}

/// The counters of classes.
#[derive(Debug)]
enum ClassMap {
    Blocks(ClassBlocks),
    /// An element for each slot and column, before layout 5.
    Single(Elements<ClassCounters>),
}

impl Classes {
    pub(super) fn open(bpffs: &Bpffs) -> anyhow::Result<Self> {
        const NAME: &str = "CLASS_COUNTERS";
        // Not by the version: what the map has is what it must be read as.
        let path = bpffs.map(NAME);
        let info = MapData::from_pin(&path).and_then(|data| data.info());
        let info = info.with_context(|| format!("cannot inspect {}", path.display()))?;
        let counters = if info.value_size() as usize == size_of::<ClassCounters>() {
            ClassMap::Single(Elements::open(bpffs, NAME)?)
        } else {
            ClassMap::Blocks(ClassBlocks::open(bpffs, NAME)?)
        };
        let carried = open_carried(bpffs, "CLASS_CARRIED")?;
        Ok(Self { counters, carried, bases: Elements::open(bpffs, "CLASS_BASES")? })
    }

    /// All that was counted, once nothing is counted any more.
    pub(super) fn final_counts(&self, slots: u32, columns: u32) -> anyhow::Result<Vec<ClassCounters>> {
        let copies = match &self.counters {
            ClassMap::Blocks(blocks) => blocks.range(0, slots, columns)?,
            ClassMap::Single(elements) => elements.range(0, slots * columns)?,
        };
        Ok(counters::totals(&copies, &self.carried(slots * columns)?))
    }

    /// What was carried over to the first elements before.
    pub(super) fn carried(&self, len: u32) -> anyhow::Result<Vec<ClassCounters>> {
        carried(self.carried.as_ref(), len)
    }

    pub(super) fn bases(&self) -> anyhow::Result<Vec<ClassCounters>> {
        self.bases.range(0, self.bases.len())
    }
}

fn open_carried<C: Pod>(bpffs: &Bpffs, name: &'static str) -> anyhow::Result<Option<Elements<C>>> {
    bpffs.map(name).exists().then(|| Elements::open(bpffs, name)).transpose()
}

fn carried<C: Pod + Default>(map: Option<&Elements<C>>, len: u32) -> anyhow::Result<Vec<C>> {
    match map {
        Some(carried) => carried.range(0, len),
        None => Ok(vec![C::default(); len as usize]),
    }
}
