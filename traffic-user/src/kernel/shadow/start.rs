//! Builds a shadow beside all that counts, and puts it in force.

use anyhow::{Context as _, bail};
use aya::maps::{Array, IterableMap as _, MapData, PerCpuArray};
use traffic_classes::{ClassTable, Overlay};
use traffic_common::{
    ClassBlock, ClassCounters, Control, SHADOW_ARRAYS, SHADOW_BLOCKS, SHADOW_VERSION, ShadowControl,
    ShadowRecord, TableWord, blocks_of,
};

use super::{BASES, COUNTERS, RECORD, end, is_known, pin};
use crate::{
    kernel::{
        bpffs::Bpffs,
        maps::{Elements, Maps, SHADOW},
        memory, sys,
        tables::{self, LoadLock, Progress, Tables},
    },
    time,
};

/// A whole shadow in the kernel, which no program reads yet.
pub struct Prepared {
    tables: Tables,
    arrays: Vec<PerCpuArray<MapData, ClassBlock>>,
    bases: Array<MapData, ClassCounters>,
    record: ShadowRecord,
}

/// Arrays that hold the counters of this many container slots and pairs.
pub(super) const fn arrays_for(slots: u32, pairs: u32) -> u32 {
    slots.saturating_mul(blocks_of(pairs)).div_ceil(SHADOW_BLOCKS)
}

/// Builds a shadow beside the table in force. This can take seconds, so it needs no change lock.
///
/// # Errors
/// When the program in the kernel knows no shadows, the tables have too many pairs of classes, the counters have no
/// columns for the classes of the table, or there is not enough memory.
pub fn prepare(
    _loading: &LoadLock,
    maps: &Maps,
    (table, file_hash): (&ClassTable, [u8; 32]),
    progress: Progress<'_>,
) -> anyhow::Result<Prepared> {
    /// Files that a process has open anyway, and some more.
    const OTHER_FILES: u64 = 512;
    if !is_known(&Bpffs::new(&maps.pinned_in)) {
        bail!(
            "the program in the kernel is of a version without shadow class tables; run `trafctl attach`, which \
             replaces it without a gap"
        );
    }
    let meta = maps.meta.get(0)?;
    let overlay = Overlay::new(&tables::in_force(maps)?, table)?;
    // What could not be put in force afterwards would be tried in vain.
    tables::check_columns(&meta, table)?;
    let pairs = u32::try_from(overlay.pairs.len())?;
    let slots = meta.container_slots;
    let count = arrays_for(slots, pairs);
    if count > SHADOW_ARRAYS {
        bail!(
            "a shadow class table with {pairs} pairs of classes has room for {} containers, and [limits] allows {slots}; \
             use fewer classes in the file",
            SHADOW_ARRAYS * SHADOW_BLOCKS / blocks_of(pairs)
        );
    }
    check_memory(slots, pairs, sys::possible_cpus()?, memory::available()?)?;
    let tables = Tables::new(&overlay.v4, &overlay.v6, progress)?;
    // The lines take memory as well.
    check_memory(slots, pairs, sys::possible_cpus()?, memory::available()?)?;
    let open = tables.arrays().count() as u64 + u64::from(count) + OTHER_FILES;
    memory::lift_file_limit(open);
    let arrays = (0..count)
        .map(|_| PerCpuArray::create(SHADOW_BLOCKS, 0))
        .collect::<Result<_, _>>()
        .context("cannot create the counters of the shadow class table")?;
    let bases =
        Array::create(slots * pairs, 0).context("cannot create the bases of the shadow class table")?;
    let mut record = ShadowRecord {
        version: SHADOW_VERSION,
        pairs,
        container_slots: slots,
        reserved: 0,
        epoch: meta.epoch,
        since_unix_s: 0,
        table_hash: meta.table_hash,
        shadow_hash: table.hash(),
        file_hash,
        classes: [[0; 2]; 256],
    };
    for (classes, (from, to)) in record.classes.iter_mut().zip(&overlay.pairs) {
        *classes = [*from, *to];
    }
    Ok(Prepared { tables, arrays, bases, record })
}

impl Prepared {
    /// Whether the shadow is still one of the table in force and of its counters. The caller holds the change lock,
    /// and has opened the maps under it.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, maps: &Maps) -> anyhow::Result<()> {
        if Bpffs::new(&maps.pinned_in).next().maps().exists() {
            bail!(
                "the counters are moving to other maps, and that was interrupted; run `trafctl attach`, which \
                 completes it"
            );
        }
        let meta = maps.meta.get(0)?;
        let record = &self.record;
        if (meta.epoch, meta.table_hash, meta.container_slots)
            != (record.epoch, record.table_hash, record.container_slots)
        {
            bail!(
                "another class table or other counters came into force while the shadow was built; try again"
            );
        }
        Ok(())
    }

    /// Counts under the shadow from the next packet on. The caller has ended the one before it, has checked this one,
    /// and holds the change lock since.
    ///
    /// # Errors
    /// When the kernel refuses. Then no shadow counts.
    pub fn start(mut self, maps: &mut Maps) -> anyhow::Result<()> {
        let bpffs = Bpffs::new(&maps.pinned_in);
        self.fill(&bpffs, maps).inspect_err(|_| {
            // What led here explains more than a failure to clean up.
            if let Err(error) = end(maps) {
                tracing::warn!("cannot clean up: {error:#}");
            }
        })
    }

    /// Puts everything into its place, and sets the word last.
    fn fill(&mut self, bpffs: &Bpffs, maps: &mut Maps) -> anyhow::Result<()> {
        let Self { tables, arrays, bases, record } = self;
        bpffs.create_shadow()?;
        for (number, array) in arrays.iter().enumerate() {
            pin(bpffs, array.map(), &format!("{COUNTERS}{number}"))?;
        }
        pin(bpffs, bases.map(), BASES)?;
        let [control, lines, counters] = SHADOW;
        let place = |name: &str, inner: &[&MapData]| {
            let path = bpffs.map(name);
            let outer =
                MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
            sys::put_maps(&outer, 0, inner).with_context(|| format!("cannot write {}", path.display()))
        };
        place(counters, &arrays.iter().map(PerCpuArray::map).collect::<Vec<_>>())?;
        place(lines, &tables.arrays().map(Array::map).collect::<Vec<_>>())?;
        let word = tables.word(0);
        Elements::<ShadowControl>::open(bpffs, control)?
            .set(0, ShadowControl { table: word.0, pairs: record.pairs })?;
        record.since_unix_s = time::unix_seconds();
        let mut description = Array::<_, ShadowRecord>::create(1, 0).context("cannot create the record")?;
        description.set(0, *record, 0).context("cannot write the record of the shadow class table")?;
        pin(bpffs, description.map(), RECORD)?;
        let control = maps.control.get(0)?;
        let active_table = TableWord(control.active_table).with_shadow(true).0;
        maps.control.set(0, Control { active_table, ..control })
    }
}

/// Refuses counters for which the machine does not have the memory.
fn check_memory(slots: u32, pairs: u32, cpus: usize, available: u64) -> anyhow::Result<()> {
    let each_cpu =
        u64::from(arrays_for(slots, pairs)) * u64::from(SHADOW_BLOCKS) * size_of::<ClassBlock>() as u64;
    let bases = u64::from(slots) * u64::from(pairs) * size_of::<ClassCounters>() as u64;
    let needed = each_cpu.saturating_mul(cpus as u64).saturating_add(bases);
    if needed > available {
        bail!(
            "the counters of the shadow class table would take {} MiB ({} for each of {cpus} possible CPUs, for {slots} \
             containers and {pairs} pairs of classes), and {} MiB of memory are available; use fewer classes in the \
             file, or free memory first",
            needed.div_ceil(1 << 20),
            each_cpu.div_ceil(1 << 20),
            available >> 20
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shadow_that_does_not_fit_is_refused_with_figures() {
        // 2048 slots with one block each: 2 MiB on each CPU; and bases of 64 bytes for 9 pairs.
        let needed = 8 * (2 << 20) + 2048 * 9 * 64;
        assert!(check_memory(2048, 9, 8, needed).is_ok());
        let error = check_memory(2048, 9, 8, needed - 1).unwrap_err().to_string();
        assert!(
            error.contains("18 MiB (2 for each of 8 possible CPUs, for 2048 containers and 9 pairs"),
            "{error}"
        );
    }

    #[test]
    fn each_slot_has_its_blocks_in_some_array() {
        assert_eq!(
            (arrays_for(1, 1), arrays_for(64, 16), arrays_for(64, 17), arrays_for(65, 16)),
            (1, 1, 2, 2)
        );
        assert_eq!(arrays_for(2048, 255), 512);
    }
}
