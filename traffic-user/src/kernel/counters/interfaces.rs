//! The totals and faults of interfaces.

use traffic_common::{
    Direction, FAULTS, Fault, FaultCounters, InterfaceCounters, InterfaceRecord, Note, Tally,
    UNKNOWN_INTERFACE_SLOT, slot_state,
};
use traffic_model::{ByDirection, ContainerId, FaultCounter, InterfaceCounter, PassedCounter, Snapshot};

use super::{
    Owners,
    arithmetic::{self, since},
    missed::accounted,
};
use crate::{
    kernel::{
        maps::Maps,
        records::{read_name, read_text},
    },
    time,
};

/// Reads the totals of all interface slots that ever had an owner, bases included.
pub(super) fn totals(maps: &Maps, owners: &Owners) -> anyhow::Result<Vec<InterfaceCounters>> {
    let slots = owners.interface_slots_used()?;
    let values = maps.interface_counters.range(0, slots)?;
    Ok(arithmetic::totals(&values, &maps.interface_carried.range(0, slots)?))
}

/// Reads totals and faults. `earlier` are totals that were read before the class counters.
pub(super) fn read(
    maps: &Maps,
    owners: &Owners,
    earlier: &[InterfaceCounters],
    snapshot: &mut Snapshot,
) -> anyhow::Result<()> {
    let slots = owners.interface_slots_used()?;
    let passed = totals(maps, owners)?;
    let faults = maps.fault_counters.range(0, slots)?;
    let faults = arithmetic::totals(&faults, &maps.fault_carried.range(0, slots)?);
    let passed_bases = maps.interface_bases.range(0, slots)?;
    let fault_bases = maps.fault_bases.range(0, slots)?;
    for (slot, record) in owners.interfaces.iter().enumerate().take(slots as usize) {
        let (passed, faults) = (passed[slot], faults[slot]);
        if record.state == slot_state::FREE {
            add_former(snapshot, &passed, &faults);
            continue;
        }
        add_former(snapshot, &passed_bases[slot], &fault_bases[slot]);
        let passed = since(&passed, &passed_bases[slot]);
        let faults = since(&faults, &fault_bases[slot]);
        if slot == UNKNOWN_INTERFACE_SLOT as usize && passed == InterfaceCounters::default() {
            continue;
        }
        snapshot.faults.extend(fault_counters(record, &faults));
        let accounted = accounted(record, &earlier.get(slot).copied().unwrap_or_default());
        snapshot
            .interfaces
            .push(InterfaceCounter { accounted, ..interface_counter(record, &passed, &faults) });
    }
    snapshot.interfaces.sort_by(|a, b| a.interface.cmp(&b.interface));
    snapshot.faults.sort_by(|a, b| (&a.interface, a.fault).cmp(&(&b.interface, b.fault)));
    Ok(())
}

/// Adds what was counted for former owners of a slot.
fn add_former(snapshot: &mut Snapshot, passed: &InterfaceCounters, faults: &FaultCounters) {
    for direction in [Direction::In, Direction::Out] {
        let balance = snapshot.former.of_mut(direction);
        balance.passed += passed.passed[direction as usize].wire;
        // The places behind the faults hold what is reported apart.
        balance.faults += faults.faults[direction as usize][..FAULTS].iter().copied().sum();
        snapshot.former_small_segments += faults.faults[direction as usize][Note::SmallSegments as usize];
        snapshot.former_copies += faults.faults[direction as usize][Note::Copies as usize];
        snapshot.former_estimated += faults.estimated[direction as usize];
        for (to, from) in snapshot.former_faults.iter_mut().zip(&faults.faults[direction as usize]) {
            *to += *from;
        }
    }
}

/// The faults of an interface that are not zero.
fn fault_counters(record: &InterfaceRecord, faults: &FaultCounters) -> impl Iterator<Item = FaultCounter> {
    Fault::ALL
        .into_iter()
        .map(|fault| {
            let of = |direction: Direction| faults.faults[direction as usize][fault as usize];
            (fault, ByDirection { incoming: of(Direction::In), outgoing: of(Direction::Out) })
        })
        .filter(|(_, tally)| *tally != ByDirection::default())
        .map(|(fault, tally)| FaultCounter {
            interface: read_name(record),
            generation: record.generation,
            fault,
            tally,
        })
}

fn interface_counter(
    record: &InterfaceRecord,
    passed: &InterfaceCounters,
    faults: &FaultCounters,
) -> InterfaceCounter {
    let of = |direction: Direction| {
        let at = direction as usize;
        PassedCounter {
            wire: passed.passed[at].wire,
            skbs: passed.passed[at].skbs,
            skb_bytes: passed.passed[at].skb_bytes,
            estimated: faults.estimated[at],
            small_segments: faults.faults[at][Note::SmallSegments as usize],
            copies: faults.faults[at][Note::Copies as usize],
            missed_skbs: record.missed.packets[at],
            missed_skb_bytes: record.missed.bytes[at],
            bypassed: Tally::default(),
            excess: Tally::default(),
        }
    };
    InterfaceCounter {
        interface: read_name(record),
        generation: record.generation,
        container: ContainerId::new(read_text(&record.container)).ok(),
        ifindex: (record.ifindex != 0).then_some(record.ifindex),
        attached: time::timestamp(record.attached_unix_s),
        passed: ByDirection { incoming: of(Direction::In), outgoing: of(Direction::Out) },
        accounted: ByDirection::default(),
    }
}
