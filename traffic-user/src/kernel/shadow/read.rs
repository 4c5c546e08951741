//! What a shadow has counted, and the bases of slots.

use traffic_common::{ClassCounters, ContainerRecord, Family, SHADOW_BLOCKS, Tally, blocks_of, slot_state};
use traffic_model::{ByDirection, ContainerId};

use super::{Shadow, end};
use crate::kernel::{
    counters::{container_records, natural, since, totals},
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

/// Reads what the shadow has counted for the present owners of the slots, sorted by container, classes and family.
/// Only counters that are not 0.
///
/// # Errors
/// When a map cannot be read.
pub fn counters(maps: &Maps, shadow: &Shadow) -> anyhow::Result<Vec<ShadowCounter>> {
    let owner = |record: &ContainerRecord| (record.state, record.generation, record.id);
    let mut before = container_records(maps)?;
    loop {
        let counters = read_once(shadow, &before)?;
        let after = container_records(maps)?;
        let is_same = before.iter().map(owner).eq(after.iter().map(owner));
        if is_same {
            return Ok(counters);
        }
        before = after;
    }
}

fn read_once(shadow: &Shadow, owners: &[ContainerRecord]) -> anyhow::Result<Vec<ShadowCounter>> {
    let Shadow { record, bases, .. } = shadow;
    let used = owners.iter().rposition(|record| record.generation != 0).map_or(0, |last| last + 1);
    let slots = u32::try_from(used)?.min(record.container_slots);
    let totals = shadow.totals(0, slots)?;
    let bases = bases.range(0, slots * record.pairs)?;
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
            let (array, within) = (at / SHADOW_BLOCKS, at % SHADOW_BLOCKS);
            let count = (SHADOW_BLOCKS - within).min(end - at);
            if let Some(array) = self.arrays.get(array as usize) {
                copies = array.copies();
                blocks.extend(array.range(within, count)?);
            }
            at += count;
        }
        let values = by_column(&blocks, copies, self.record.pairs);
        Ok(totals(&values, &vec![ClassCounters::default(); (slots * self.record.pairs) as usize]))
    }

    /// Makes what a slot has counted so far its base.
    fn rebase(&mut self, slot: u32) -> anyhow::Result<()> {
        let pairs = self.record.pairs;
        for (index, total) in (slot * pairs..).zip(self.totals(slot, 1)?) {
            self.bases.set(index, total)?;
        }
        Ok(())
    }
}

/// Makes what a container's slot has counted under the shadow its base, so that its next owner starts from zero. Where
/// that fails, the shadow ends: a container must never see another one's figures. The caller holds the change lock.
///
/// # Errors
/// When neither succeeds.
pub fn rebase(maps: &mut Maps, slot: u32) -> anyhow::Result<()> {
    let rebased = Shadow::open(maps).and_then(|shadow| match shadow {
        Some(mut shadow) if slot < shadow.record.container_slots => shadow.rebase(slot),
        _ => Ok(()),
    });
    rebased.or_else(|error| {
        tracing::error!("the shadow class table ends, because a slot's new owner cannot be told from the former: {error:#}");
        end(maps)
    })
}
