//! The counters of containers and classes.

use traffic_common::{ClassCounters, Direction, Family, Meta, Tally, slot_state};
use traffic_model::{ByDirection, ClassCounter, Snapshot};

use super::{
    Owners,
    arithmetic::{since, totals},
};
use crate::kernel::{maps::Maps, records::container_id, tables};

/// Reads the class counters of all slots that ever had an owner.
pub(super) fn read(maps: &Maps, meta: &Meta, owners: &Owners, snapshot: &mut Snapshot) -> anyhow::Result<()> {
    let totals = read_totals(maps, meta, owners)?;
    let slots = owners.container_slots_used()?;
    let bases = maps.class_bases.range(0, slots * meta.columns)?;

    // Sorted while there is one element for each slot, not yet one for each class and family. The sort at the
    // end then finds its input in order, apart from ids that had several slots, one after another.
    let mut containers: Vec<_> = (0..slots as usize)
        .zip(&owners.containers)
        .map(|(slot, record)| (container_id(record), slot, record))
        .collect();
    containers.sort_by(|(a, ..), (b, ..)| {
        a.as_ref().map(|id| natural(id.as_str())).cmp(&b.as_ref().map(|id| natural(id.as_str())))
    });
    let mut columns = tables::columns(meta);
    columns.sort_unstable_by_key(|&(_, class)| class);

    snapshot.counters.reserve(containers.len() * columns.len() * Family::ALL.len());
    for (container, slot, record) in containers {
        for &(column, class) in &columns {
            let at = slot * meta.columns as usize + column as usize;
            let all = totals[at];
            let Some(container) = &container else {
                add_former(snapshot, &all);
                continue;
            };
            add_former(snapshot, &bases[at]);
            let own = since(&all, &bases[at]);
            for family in Family::ALL {
                snapshot.counters.push(ClassCounter {
                    container: container.clone(),
                    generation: record.generation,
                    is_retired: record.state == slot_state::RETIRED,
                    class,
                    family,
                    tally: ByDirection::from_array(own.tallies[family as usize]),
                });
            }
        }
    }
    snapshot.counters.sort_by(|a, b| {
        (natural(a.container.as_str()), a.class, a.family).cmp(&(
            natural(b.container.as_str()),
            b.class,
            b.family,
        ))
    });
    Ok(())
}

/// Reads the sums of all classes only: whoever has or had a slot, its counters are added to those of former owners.
pub(super) fn read_sums(
    maps: &Maps,
    meta: &Meta,
    owners: &Owners,
    snapshot: &mut Snapshot,
) -> anyhow::Result<()> {
    read_totals(maps, meta, owners)?.iter().for_each(|totals| add_former(snapshot, totals));
    Ok(())
}

/// What each column of each slot counted, whoever had the slot.
fn read_totals(maps: &Maps, meta: &Meta, owners: &Owners) -> anyhow::Result<Vec<ClassCounters>> {
    let slots = owners.container_slots_used()?;
    let values = maps.class_counters.range(0, slots, meta.columns)?;
    Ok(totals(&values, &maps.class_carried.range(0, slots * meta.columns)?))
}

/// Adds what was counted for former owners of a slot.
fn add_former(snapshot: &mut Snapshot, counters: &ClassCounters) {
    let add_direction = |to: &mut Tally, direction: Direction| {
        for family in Family::ALL {
            *to += counters.tallies[family as usize][direction as usize];
        }
    };
    add_direction(&mut snapshot.former.incoming.classes, Direction::In);
    add_direction(&mut snapshot.former.outgoing.classes, Direction::Out);
}

/// Sorts numbers by value, and before names.
pub(in crate::kernel) fn natural(id: &str) -> (u64, &str) {
    (id.parse().unwrap_or(u64::MAX), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_ids_sort_by_value_and_before_names() {
        let mut ids = ["veth", "100", "20", "0", "a-uuid"];
        ids.sort_by_key(|id| natural(id));
        assert_eq!(ids, ["0", "20", "100", "a-uuid", "veth"]);
    }
}
