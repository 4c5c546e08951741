//! Sets the base of a slot: what its counters held when the next owner got it.

use traffic_common::InterfaceCounters;

use super::arithmetic::{sum_with, totals};
use crate::kernel::maps::Maps;

/// Makes what a container's slot has counted so far its base, so that its next owner starts from zero.
///
/// # Errors
/// When a map cannot be read or written.
pub fn rebase_container(maps: &mut Maps, slot: u32) -> anyhow::Result<()> {
    let columns = maps.control.get(0)?.columns;
    let values = maps.class_counters.range(slot, 1, columns)?;
    let carried = maps.class_carried.range(slot * columns, columns)?;
    for (index, total) in (slot * columns..).zip(totals(&values, &carried)) {
        maps.class_bases.set(index, total)?;
    }
    Ok(())
}

/// Does the same for an interface's slot.
///
/// # Errors
/// When a map cannot be read or written.
pub fn rebase_interface(maps: &mut Maps, slot: u32) -> anyhow::Result<()> {
    let passed = maps.interface_counters.range(slot, 1)?;
    let faults = maps.fault_counters.range(slot, 1)?;
    maps.interface_bases.set(slot, sum_with(&passed, &maps.interface_carried.get(slot)?))?;
    maps.fault_bases.set(slot, sum_with(&faults, &maps.fault_carried.get(slot)?))
}

/// What an interface's slot has counted, over all CPUs and all owners.
///
/// # Errors
/// When a map cannot be read.
pub fn interface_totals(maps: &Maps, slot: u32) -> anyhow::Result<InterfaceCounters> {
    let copies = maps.interface_counters.range(slot, 1)?;
    Ok(sum_with(&copies, &maps.interface_carried.get(slot)?))
}

/// The same for the first slots, in few calls.
///
/// # Errors
/// When a map cannot be read.
pub fn interfaces_totals(maps: &Maps, slots: u32) -> anyhow::Result<Vec<InterfaceCounters>> {
    Ok(totals(&maps.interface_counters.range(0, slots)?, &maps.interface_carried.range(0, slots)?))
}

/// The same for all slots that ever had an owner.
///
/// # Errors
/// When a map cannot be read.
pub fn all_interfaces_totals(maps: &Maps) -> anyhow::Result<Vec<InterfaceCounters>> {
    let records = super::used_interface_records(maps)?;
    interfaces_totals(maps, super::used(&records, |record| record.generation)?)
}
