//! What passed an interface uncounted: the kernel's statistics against our counters, compared when the
//! program is attached and while it stays attached.
//!
//! Each slot's record holds a base: what the kernel's statistics and our counters were at one moment. From
//! there on both must grow alike. What the kernel has beyond that was missed; it is added to the record, in
//! the interface's units (buffers and their bytes), and becomes a gap in the ledger.

use anyhow::bail;
use traffic_common::{DIRECTIONS, Direction, InterfaceCounters, InterfaceRecord, InterfaceStatistics};

use super::{
    kernel_access::{Clock, InterfaceList, NodeKernel, SlotMaps},
    registry::Registry,
};
use crate::{
    kernel::{
        counters::{is_missed, since_attach},
        hooks::DeviceFate,
        records::NOTHING,
    },
    net::interface::NetInterface,
};

/// How often kernel and counters are compared after an attach before the closest comparison is taken. A pause
/// of a tenth of a millisecond is enough for an exact one.
const SETTLE_READINGS: usize = 100;
/// The same while the program is attached. Each resync repeats the comparison.
const COMPARE_READINGS: usize = 3;

/// Where an interface that is now counted in some slot was counted until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedSoFar {
    /// In the same slot, or nowhere.
    Here,
    /// In another slot, until this moment.
    Elsewhere,
    /// In another slot, but not lately.
    ElsewhereWithGap {
        /// That slot.
        slot: u32,
    },
}

/// The kernel's statistics of an interface, and our own totals just before and just after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Ours, read first.
    pub counted_earlier: InterfaceStatistics,
    /// The kernel's.
    pub kernel: InterfaceStatistics,
    /// Ours, read last.
    pub counted: InterfaceStatistics,
}

impl Reading {
    /// Buffers that passed during the reading: its uncertainty.
    fn spread(&self) -> u64 {
        minus(&self.counted, &self.counted_earlier).packets.iter().sum()
    }
}

/// Our own totals of a slot, in the terms of the kernel's statistics.
fn counted(maps: &impl SlotMaps, slot: u32) -> anyhow::Result<InterfaceStatistics> {
    Ok(as_statistics(&maps.interface_totals(slot)?))
}

/// Records that counting in this slot begins at this moment, and what passed uncounted until then. What
/// passes between this and the moment the program is attached is added by [`settle_missed`]. Returns what
/// became of the device that was registered under the index before, for the slot of that device.
///
/// # Errors
/// When the maps cannot be read or written.
pub(super) fn record_attach(
    kernel: &mut impl NodeKernel,
    registry: &mut Registry,
    slot: u32,
    listed: &NetInterface,
    counted_so_far: CountedSoFar,
) -> anyhow::Result<DeviceFate> {
    // Ours before the kernel's: for the device that was counted, the kernel's are then never behind.
    let counted_here = counted(kernel, slot)?;
    let counted_elsewhere = match counted_so_far {
        CountedSoFar::ElsewhereWithGap { slot } => Some((slot, counted(kernel, slot)?)),
        _ => None,
    };
    let interface = still_there(kernel, listed)?;
    let is_known = kernel.is_known_device(&interface)?;
    let old = *registry.interface(slot);
    let attached_unix_s = kernel.unix_seconds();
    let missed = match (counted_so_far, counted_elsewhere) {
        (CountedSoFar::Elsewhere, _) => NOTHING,
        (_, former) => former
            .and_then(|(slot, counted)| {
                missed_since(registry.interface(slot), &interface, &counted, is_known)
            })
            .or_else(|| missed_since(&old, &interface, &counted_here, is_known))
            // A device that was never counted: everything on it.
            .unwrap_or(interface.statistics),
    };
    let record = InterfaceRecord {
        ifindex: interface.index,
        attached_unix_s,
        gone_unix_s: 0,
        kernel_before: interface.statistics,
        counted_before: counted_here,
        missed: plus(&old.missed, &missed),
        device: interface.device(),
        ..old
    };
    let former_fate = match is_known {
        // It is this device, which another slot counts from now on.
        Some(true) => DeviceFate::Ended,
        // Once the record is written, its pins would make this device look new again.
        Some(false) => kernel.release(interface.index)?,
        None => DeviceFate::Unknown,
    };
    registry.write_interface(kernel, slot, record)?;
    Ok(former_fate)
}

/// The interface as it is now, if its index still is that of the interface that was listed.
fn still_there(kernel: &impl InterfaceList, listed: &NetInterface) -> anyhow::Result<NetInterface> {
    match kernel.interface(listed.index)? {
        None => bail!("the interface is gone"),
        Some(now) if now.name != listed.name => {
            bail!("its index {} now belongs to {}", listed.index, now.name)
        }
        Some(now) if listed.is_uplink => Ok(now.as_uplink()),
        Some(now) => Ok(now),
    }
}

/// Records that the interface of a slot is gone. The slot and its counters stay. The device itself may come
/// back with its statistics. If it ended, the base becomes that of a new device, which begins at zero.
///
/// # Errors
/// When a map cannot be read or written.
pub(super) fn note_gone(
    maps: &mut (impl SlotMaps + Clock),
    registry: &mut Registry,
    slot: u32,
    fate: DeviceFate,
) -> anyhow::Result<()> {
    registry.complete_attribution(maps, slot)?;
    let mut record =
        InterfaceRecord { ifindex: 0, gone_unix_s: maps.unix_seconds(), ..*registry.interface(slot) };
    if fate == DeviceFate::Ended {
        record.kernel_before = NOTHING;
        record.counted_before = counted(maps, slot)?;
    }
    registry.write_interface(maps, slot, record)
}

/// Records what passed between the reading before the program was attached and the moment it was.
///
/// From that moment on, the kernel's statistics and our counters grow alike. So any later reading of both
/// shows how much it was, provided that no packet passes between its two halves. Two equal readings prove
/// that. Under constant traffic, the closest reading is used. Its uncertainty is never counted as missed, and
/// later comparisons ignore it.
///
/// # Errors
/// When the kernel cannot be asked, or the map cannot be written.
pub(super) fn settle_missed(
    kernel: &mut (impl InterfaceList + SlotMaps),
    registry: &mut Registry,
    (slot, ifindex): (u32, u32),
    counted_so_far: CountedSoFar,
) -> anyhow::Result<()> {
    let Some(reading) = closest_reading(kernel, (slot, ifindex), SETTLE_READINGS)? else { return Ok(()) };
    let old = *registry.interface(slot);
    let missed =
        minus(&minus(&reading.kernel, &old.kernel_before), &minus(&reading.counted, &old.counted_before));
    let record = InterfaceRecord {
        kernel_before: reading.kernel,
        counted_before: reading.counted_earlier,
        // What was counted in another slot a moment ago was not missed.
        missed: match counted_so_far {
            CountedSoFar::Elsewhere => old.missed,
            _ => plus(&old.missed, &missed),
        },
        ..old
    };
    registry.write_interface(kernel, slot, record)
}

/// Moves the base of an attached interface where the device itself explains the difference.
///
/// A device that cannot segment counts the pieces of buffers that we saw whole, so the kernel's statistics
/// grow faster than ours. Without this step, the difference would count as missed when the program is next
/// attached. So as long as pieces explain the difference, the comparison starts again from here. Any larger
/// difference was missed, and is still reported.
///
/// # Errors
/// When the kernel cannot be asked, or the map cannot be written.
pub(super) fn rebase_statistics(
    kernel: &mut (impl InterfaceList + SlotMaps),
    registry: &mut Registry,
    slot: u32,
    interface: &NetInterface,
) -> anyhow::Result<()> {
    // The kernel's half was read before ours, so packets that passed in between cannot put it ahead.
    if !is_behind(registry.interface(slot), &interface.statistics, &counted(kernel, slot)?) {
        return Ok(());
    }
    let Some(reading) = closest_reading(kernel, (slot, interface.index), COMPARE_READINGS)? else {
        return Ok(());
    };
    let mut record = *registry.interface(slot);
    let totals = kernel.interface_totals(slot)?;
    let since = since_attach(&record, &reading.kernel, &totals);
    for (direction, since) in Direction::BOTH.into_iter().zip([since.incoming, since.outgoing]) {
        let at = direction as usize;
        if ahead(&record, &reading.kernel, &reading.counted, at) && !is_missed(since, &totals.passed[at]) {
            record.kernel_before.packets[at] = reading.kernel.packets[at];
            record.kernel_before.bytes[at] = reading.kernel.bytes[at];
            record.counted_before.packets[at] = reading.counted_earlier.packets[at];
            record.counted_before.bytes[at] = reading.counted_earlier.bytes[at];
        }
    }
    registry.write_interface(kernel, slot, record)
}

/// Of this many readings, the one during which the fewest packets passed; `None` when the interface is gone.
fn closest_reading(
    kernel: &(impl InterfaceList + SlotMaps),
    (slot, ifindex): (u32, u32),
    readings: usize,
) -> anyhow::Result<Option<Reading>> {
    let mut earlier = counted(kernel, slot)?;
    let mut last = None;
    let mut closest: Option<Reading> = None;
    for _ in 0..readings {
        let Some(interface) = kernel.interface(ifindex)? else { break };
        let later = counted(kernel, slot)?;
        let reading = Reading { counted_earlier: earlier, kernel: interface.statistics, counted: later };
        if closest.as_ref().is_none_or(|closest| reading.spread() <= closest.spread()) {
            closest = Some(reading);
        }
        if last == Some((interface.statistics, later)) {
            break;
        }
        last = Some((interface.statistics, later));
        earlier = later;
    }
    Ok(closest)
}

/// Whether an interface is the device of the slot's record, even under another index: it may have moved to
/// another network namespace and back. `counted` was read before the interface's statistics.
///
/// A device has counted at least what the base says and what we counted on it since. A new one under the same
/// name begins at zero. Our own counts are compared only for traffic from the container: traffic to it can be
/// dropped behind our hook, before the device counts it.
fn is_same_device(record: &InterfaceRecord, interface: &NetInterface, counted: &InterfaceStatistics) -> bool {
    if is_other_device(record.device, interface.device()) {
        return false;
    }
    let (before, now) = (&record.kernel_before, &interface.statistics);
    let since = minus(counted, &record.counted_before);
    let never_fell =
        (0..DIRECTIONS).all(|at| now.packets[at] >= before.packets[at] && now.bytes[at] >= before.bytes[at]);
    let out = Direction::Out as usize;
    never_fell
        && now.packets[out] >= before.packets[out].saturating_add(since.packets[out])
        && now.bytes[out] >= before.bytes[out].saturating_add(since.bytes[out])
}

/// Whether hardware address and other end have both changed since a device was attached. One of them alone can
/// change on the same device; 0 is unknown.
const fn is_other_device(attached: u64, now: u64) -> bool {
    const PEER: u64 = 0xffff;
    let changed = attached ^ now;
    attached != 0 && now != 0 && changed & PEER != 0 && changed & !PEER != 0
}

/// Whether the kernel has counted more than we have, since the two were last compared.
fn is_behind(record: &InterfaceRecord, kernel: &InterfaceStatistics, counted: &InterfaceStatistics) -> bool {
    record.ifindex != 0 && (0..DIRECTIONS).any(|at| ahead(record, kernel, counted, at))
}

/// The same in one direction.
fn ahead(
    record: &InterfaceRecord,
    kernel: &InterfaceStatistics,
    counted: &InterfaceStatistics,
    at: usize,
) -> bool {
    let kernel = minus(kernel, &record.kernel_before);
    let counted = minus(counted, &record.counted_before);
    kernel.packets[at] > counted.packets[at] || kernel.bytes[at] > counted.bytes[at]
}

/// What passed an interface uncounted since the base in this record, if the record is about the same device.
/// `counted` is what its slot had counted before the interface's statistics were read; `is_known` is what the
/// hooks know about the device that was last attached under its index.
fn missed_since(
    record: &InterfaceRecord,
    interface: &NetInterface,
    counted: &InterfaceStatistics,
    is_known: Option<bool>,
) -> Option<InterfaceStatistics> {
    let is_same = match is_known.filter(|_| record.ifindex == interface.index) {
        Some(true) => true,
        // Links also end when somebody detaches them. Then the device has its hardware address and its other
        // end, and its statistics went on.
        Some(false) => {
            record.device != 0
                && record.device == interface.device()
                && is_same_device(record, interface, counted)
        }
        None => is_same_device(record, interface, counted),
    };
    is_same.then(|| {
        minus(&minus(&interface.statistics, &record.kernel_before), &minus(counted, &record.counted_before))
    })
}

fn plus(a: &InterfaceStatistics, b: &InterfaceStatistics) -> InterfaceStatistics {
    combine(a, b, u64::wrapping_add)
}

fn minus(a: &InterfaceStatistics, b: &InterfaceStatistics) -> InterfaceStatistics {
    combine(a, b, u64::saturating_sub)
}

fn combine(
    a: &InterfaceStatistics,
    b: &InterfaceStatistics,
    with: impl Fn(u64, u64) -> u64,
) -> InterfaceStatistics {
    let each = |a: [u64; DIRECTIONS], b: [u64; DIRECTIONS]| std::array::from_fn(|at| with(a[at], b[at]));
    InterfaceStatistics { packets: each(a.packets, b.packets), bytes: each(a.bytes, b.bytes) }
}

/// Our own totals in the terms of the kernel's statistics.
fn as_statistics(counters: &InterfaceCounters) -> InterfaceStatistics {
    let mut statistics = InterfaceStatistics::default();
    for direction in Direction::BOTH {
        statistics.packets[direction as usize] = counters.passed[direction as usize].skbs;
        statistics.bytes[direction as usize] = counters.passed[direction as usize].skb_bytes;
    }
    statistics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::records::EMPTY_INTERFACE;

    #[test]
    fn a_device_is_another_one_if_its_address_and_its_other_end_changed() {
        assert!(is_other_device(0x0018_5101_0203_0009, 0x0018_5101_0204_0008));
        for (attached, now) in [
            (0x0018_5101_0203_0009, 0x0018_5101_0203_0009),
            (0x0018_5101_0203_0009, 0x0018_5101_0204_0009),
            (0x0018_5101_0203_0009, 0x0018_5101_0203_0008),
            (0, 0x0018_5101_0203_0008),
            (0x0018_5101_0203_0009, 0),
        ] {
            assert!(!is_other_device(attached, now), "{attached:x} {now:x}");
        }
        // As the same device it would lack what the former one had counted.
        let statistics = InterfaceStatistics { packets: [7, 450], bytes: [700, 45_000] };
        let interface = NetInterface {
            index: 7,
            mac: Some([2, 0, 0, 0, 0, 2]),
            peer: Some(12),
            statistics,
            ..NetInterface::default()
        };
        let former = NetInterface { mac: Some([2, 0, 0, 0, 0, 1]), peer: Some(11), ..interface.clone() };
        let record = InterfaceRecord { ifindex: 7, device: former.device(), ..EMPTY_INTERFACE };
        assert_eq!(missed_since(&record, &interface, &NOTHING, None), None);
        let same = InterfaceRecord { device: interface.device(), ..record };
        assert_eq!(missed_since(&same, &interface, &NOTHING, None), Some(statistics));
        // Somebody detached its links: it is still the same, unless its statistics began again.
        assert_eq!(missed_since(&same, &interface, &NOTHING, Some(false)), Some(statistics));
        let ahead = InterfaceRecord { kernel_before: statistics, ..same };
        let began_again = NetInterface {
            statistics: InterfaceStatistics { packets: [1, 2], bytes: [100, 200] },
            ..interface.clone()
        };
        assert_eq!(missed_since(&ahead, &began_again, &NOTHING, Some(false)), None);
        // One that has another address only was made again.
        let mac_changed = NetInterface { mac: Some([2, 0, 0, 0, 0, 3]), ..interface };
        assert_eq!(missed_since(&same, &mac_changed, &NOTHING, Some(false)), None);
    }

    #[test]
    fn what_was_missed_is_what_the_kernel_has_beyond_our_counters() {
        let statistics =
            |base: u64| InterfaceStatistics { packets: [base, base + 1], bytes: [base + 2, base + 3] };
        let interface =
            |index, base| NetInterface { index, statistics: statistics(base), ..NetInterface::default() };
        // Counted from 100 (ours then 40); now the kernel has 500 and we have 340: 100 passed between.
        let record = InterfaceRecord {
            ifindex: 7,
            kernel_before: statistics(100),
            counted_before: statistics(40),
            ..EMPTY_INTERFACE
        };
        let expected = InterfaceStatistics { packets: [100, 100], bytes: [100, 100] };
        let missed = |index, kernel, counted, is_known| {
            missed_since(&record, &interface(index, kernel), &statistics(counted), is_known)
        };
        assert_eq!(missed(7, 500, 340, None), Some(expected));
        // The same device under another index.
        assert_eq!(missed(9, 500, 340, None), Some(expected));
        // Less than the base, or than the base and what we counted since: another device.
        assert_eq!(missed(7, 50, 40, None), None);
        assert_eq!(missed(7, 399, 340, None), None);
        // What the hooks know takes precedence over the figures, but only for the same index.
        assert_eq!(missed(7, 500, 340, Some(false)), None);
        assert_eq!(missed(9, 500, 340, Some(false)), Some(expected));
    }
}
