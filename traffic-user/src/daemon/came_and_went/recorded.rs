//! What the records of slots show of an interface that ended: whether another process attached it, and how much
//! of it was counted. Pure.

use traffic_common::{Direction, InterfaceRecord, InterfaceStatistics};
use traffic_model::ContainerId;

use super::{Candidate, Carried, Mac};
use crate::{
    daemon::away::RecordOf,
    net::interface::NetInterface,
    node::{kernel_access::SlotMaps, registry::Registry},
};

/// Where the hardware address begins in what distinguishes a device ([`NetInterface::device`]).
const ADDRESS: u32 = 16;

/// How much of an interface's statistics is accounted for, if an attach to it failed halfway.
pub(super) fn partly_counted(
    registry: &Registry,
    maps: &impl SlotMaps,
    one: &Candidate,
) -> anyhow::Result<Option<InterfaceStatistics>> {
    let slot = one.record.and_then(|record| record.slot(|index| registry.interface_of_index(index)));
    let Some(slot) = slot else { return Ok(None) };
    let record = registry.interface(slot);
    if record.device >> ADDRESS != one.last.device() >> ADDRESS {
        return Ok(None);
    }
    let totals = maps.interface_totals(slot)?;
    let mut counted = record.kernel_before;
    for at in [Direction::In as usize, Direction::Out as usize] {
        let passed = totals.passed[at];
        counted.packets[at] += passed.skbs.saturating_sub(record.counted_before.packets[at]);
        counted.bytes[at] += passed.skb_bytes.saturating_sub(record.counted_before.bytes[at]);
    }
    Ok(Some(counted))
}

/// What an interface carried beyond what is accounted for.
pub(super) fn without(carried: Carried, counted: &InterfaceStatistics) -> Carried {
    let Carried::Size(size) = carried else { return carried };
    let rest =
        |all: [u64; 2], counted: [u64; 2]| std::array::from_fn(|at| all[at].saturating_sub(counted[at]));
    let size = InterfaceStatistics {
        packets: rest(size.packets, counted.packets),
        bytes: rest(size.bytes, counted.bytes),
    };
    if size == InterfaceStatistics::default() { Carried::Nothing } else { Carried::Size(size) }
}

/// Whether the records show that another process attached this interface: by its index, or because the slot of
/// its name was attached again since this process last looked. Who attaches one by a start hook attaches all up
/// to the one that the record is about: the `last` one, where that has ended as well.
pub(super) fn is_recorded(
    before: &[InterfaceRecord],
    registry: &Registry,
    one: &Candidate,
    is_tried: bool,
    last: Option<u64>,
) -> bool {
    if let Some(slot) = registry.interface_of_index(one.last.index) {
        let is_new = before.get(slot as usize).is_none_or(|old| old.ifindex != one.last.index);
        // An old record is about the device that was attached before, or is of an attach that failed halfway.
        let is_own = one.record == Some(RecordOf::Index(one.last.index)) && !is_tried;
        if has_address_of(registry.interface(slot), &one.last) && (is_new || is_own) {
            return true;
        }
    }
    let container = one.container.as_ref().map_or("", ContainerId::as_str);
    let slot = registry.slot_of(&one.last.name, container);
    // Where nothing names its container, whoever attached it counted it for a pending owner.
    let slot = slot.or_else(|| registry.pending_slot_of(&one.last.name).filter(|_| container.is_empty()));
    let Some(slot) = slot else { return false };
    before.get(slot as usize).is_none_or(|old| is_other_attach(old, registry.interface(slot)))
        && last.is_none_or(|last| one.number <= last)
}

/// Whether a slot was attached again between these two records of it.
pub(super) fn is_other_attach(old: &InterfaceRecord, new: &InterfaceRecord) -> bool {
    let attach = |record: &InterfaceRecord| (record.attached_unix_s, record.generation, record.device);
    attach(old) != attach(new) || new.ifindex != 0 && old.ifindex != new.ifindex
}

/// Whether a record is about this interface. One that was released has no index.
pub(super) fn is_of_record(record: &InterfaceRecord, last: &NetInterface) -> bool {
    [0, last.index].contains(&record.ifindex) && has_address_of(record, last)
}

pub(super) fn has_address_of(record: &InterfaceRecord, last: &NetInterface) -> bool {
    record.device >> ADDRESS == last.device() >> ADDRESS
}

pub(super) fn mac_of(device: u64) -> Mac {
    let [a, b, c, d, e, f, ..] = device.to_be_bytes();
    Some([a, b, c, d, e, f]).filter(|mac| *mac != [0; 6])
}
