//! What a shadow has counted, and the bases of slots.

use anyhow::bail;
use traffic_common::{ClassCounters, ContainerRecord, Family, SHADOW_BLOCKS, Tally, blocks_of, slot_state};
use traffic_model::{ByDirection, ContainerId};

use super::{Shadow, free, turn_off};
use crate::kernel::{
    counters::{container_records, containers_changed, natural, since, totals},
    maps::{Maps, by_column},
    records::container_id,
};

/// What one container's packets of a family were, by the class in force and the class in the shadow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowCounter {
    /// The container.
    pub container: ContainerId,
    /// The class in force, under which the packets were billed.
    pub from: u8,
    /// The class that they have in the shadow.
    pub to: u8,
    /// The family.
    pub family: Family,
    /// Packets on the wire, and layer-3 bytes.
    pub tally: ByDirection<Tally>,
}

/// Reads the shadow that counts now, and what it has counted for the present owners of the slots, sorted by container,
/// classes and family. Only counters that are not 0. `None` if no shadow counts.
///
/// # Errors
/// When a map cannot be read, or one shadow follows another faster than they are read.
pub fn read(maps: &Maps) -> anyhow::Result<Option<(Shadow, Vec<ShadowCounter>)>> {
    /// Shadows that begin while one is read.
    const ATTEMPTS: usize = 16;
    for _ in 0..ATTEMPTS {
        let Some(shadow) = Shadow::open(maps)? else { return Ok(None) };
        let counters = counters(maps, &shadow);
        // The maps of the next shadow have the same names, and those of one that ended have none.
        if Shadow::open(maps).ok().flatten().is_some_and(|now| now.id == shadow.id) {
            return Ok(Some((shadow, counters?)));
        }
    }
    bail!("the shadow class table began anew again and again while it was read; try again")
}

fn counters(maps: &Maps, shadow: &Shadow) -> anyhow::Result<Vec<ShadowCounter>> {
    let mut before = container_records(maps)?;
    loop {
        let counters = read_once(shadow, &before)?;
        let after = container_records(maps)?;
        if !containers_changed(&before, &after) {
            return Ok(counters);
        }
        before = after;
    }
}

fn read_once(shadow: &Shadow, owners: &[ContainerRecord]) -> anyhow::Result<Vec<ShadowCounter>> {
    let record = &shadow.record;
    let used = owners.iter().rposition(|record| record.generation != 0).map_or(0, |last| last + 1);
    let slots = u32::try_from(used)?.min(record.container_slots);
    let totals = shadow.totals(0, slots)?;
    let bases = shadow.bases()?.range(0, slots * record.pairs)?;
    let mut all: Vec<ShadowCounter> = Vec::new();
    let own = totals.iter().zip(&bases).map(|(now, base)| since(now, base));
    let pairs = record.pairs as usize;
    for (at, own) in own.enumerate().filter(|(_, own)| *own != ClassCounters::default()) {
        let owner = &owners[at / pairs];
        let Some(container) = container_id(owner).filter(|_| owner.state == slot_state::IN_USE) else {
            continue;
        };
        let [from, to] = record.classes[at % pairs];
        for family in Family::ALL {
            let tally = ByDirection::from_array(own.tallies[family as usize]);
            if tally != ByDirection::default() {
                all.push(ShadowCounter { container: container.clone(), from, to, family, tally });
            }
        }
    }
    all.sort_by(|a, b| {
        (natural(a.container.as_str()), a.from, a.to, a.family).cmp(&(
            natural(b.container.as_str()),
            b.from,
            b.to,
            b.family,
        ))
    });
    // A container that was a pending owner's has two slots.
    all.dedup_by(|next, kept| {
        let is_same = (&next.container, next.from, next.to, next.family)
            == (&kept.container, kept.from, kept.to, kept.family);
        if is_same {
            kept.tally += next.tally;
        }
        is_same
    });
    Ok(all)
}

impl Shadow {
    /// What each pair of each of these slots has counted, whoever had the slot.
    fn totals(&self, first: u32, slots: u32) -> anyhow::Result<Vec<ClassCounters>> {
        let each = blocks_of(self.record.pairs);
        let (mut at, end) = (first * each, (first + slots) * each);
        let (mut blocks, mut copies) = (Vec::new(), 1);
        while at < end {
            let (number, within) = (at / SHADOW_BLOCKS, at % SHADOW_BLOCKS);
            let count = (SHADOW_BLOCKS - within).min(end - at);
            let array = self.array(number)?;
            copies = array.copies();
            blocks.extend(array.range(within, count)?);
            at += count;
        }
        let values = by_column(&blocks, copies, self.record.pairs);
        Ok(totals(&values, &vec![ClassCounters::default(); (slots * self.record.pairs) as usize]))
    }

    /// Makes what a slot has counted so far its base.
    fn rebase(&self, slot: u32) -> anyhow::Result<()> {
        let pairs = self.record.pairs;
        let mut bases = self.bases()?;
        (slot * pairs..).zip(self.totals(slot, 1)?).try_for_each(|(index, total)| bases.set(index, total))
    }
}

/// Makes what a container's slot has counted under the shadow its base, so that its next owner starts from zero. Where
/// that fails, the shadow ends: a container must never see another one's figures. The caller holds the change lock.
///
/// # Errors
/// When it can neither be done nor the shadow be turned off. Memory that cannot be freed is no reason to refuse a
/// container its slot.
pub fn rebase(maps: &mut Maps, slot: u32) -> anyhow::Result<()> {
    let rebased = Shadow::open(maps).and_then(|shadow| match shadow {
        Some(shadow) if slot < shadow.record.container_slots => shadow.rebase(slot),
        _ => Ok(()),
    });
    let Err(error) = rebased else { return Ok(()) };
    tracing::error!(
        "the shadow class table ends, because a slot's new owner cannot be told from the former: {error:#}"
    );
    turn_off(maps)?;
    if let Err(error) = free(maps) {
        tracing::warn!(
            "the memory of the shadow class table stays in use until the next one begins: {error:#}"
        );
    }
    Ok(())
}
