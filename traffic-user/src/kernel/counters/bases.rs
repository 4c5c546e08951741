//! Sets the base of a slot: what its counters held when the next owner got it.

use super::arithmetic::sum;
use crate::kernel::maps::Maps;

/// Makes what a container's slot has counted so far its base, so that its next owner starts from zero.
///
/// # Errors
/// When a map cannot be read or written.
pub fn rebase_container(maps: &mut Maps, slot: u32) -> anyhow::Result<()> {
    let columns = maps.control.get(0)?.columns;
    let copies = maps.class_counters.copies();
    let values = maps.class_counters.range(slot * columns, columns)?;
    for (index, values) in (slot * columns..).zip(values.chunks(copies)) {
        maps.class_bases.set(index, sum(values))?;
    }
    Ok(())
}

/// Does the same for an interface's slot.
///
/// # Errors
/// When a map cannot be read or written.
pub fn rebase_interface(maps: &mut Maps, slot: u32) -> anyhow::Result<()> {
    let (passed, faults) = (maps.interface_counters.range(slot, 1)?, maps.fault_counters.range(slot, 1)?);
    maps.interface_bases.set(slot, sum(&passed))?;
    maps.fault_bases.set(slot, sum(&faults))
}
