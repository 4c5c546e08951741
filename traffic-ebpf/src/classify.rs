//! Which container, and which class: the index of the counter.

use aya_ebpf::btf_maps::lpm_trie::Key;
use traffic_common::{
    ADDRESS_WITHOUT_SLOT, CLASS_ZERO_COLUMN, Direction, Fault, InterfaceEntry, interface_flags,
};

use crate::{
    maps::{ADDRESSES_V4, ADDRESSES_V6, CLASSES_V4, CLASSES_V6, CONTROL},
    parse::Addresses,
};

/// Index in the counter map of the packet's container and class.
#[inline(always)]
pub fn classify(
    interface: &InterfaceEntry,
    addresses: &Addresses,
    direction: Direction,
) -> Result<u32, Fault> {
    // Read once: both families' tables and the row width belong to this instant.
    let control = CONTROL.get(0).ok_or(Fault::NoCounter)?;
    let shared = interface.flags & interface_flags::SHARED != 0;
    let (slot, column) = match addresses {
        Addresses::V4 { source, destination, .. } => {
            let (peer, local) = match direction {
                Direction::In => (source, destination),
                Direction::Out => (destination, source),
            };
            let slot = if shared {
                slot_of(ADDRESSES_V4.get(&Key::new(32, *local)))?
            } else {
                interface.container_slot
            };
            let table = CLASSES_V4.get(control.active_table).ok_or(Fault::NoClassTable)?;
            (slot, table.get(&Key::new(32, *peer)).copied())
        }
        Addresses::V6 { source, destination, .. } => {
            let (peer, local) = match direction {
                Direction::In => (source, destination),
                Direction::Out => (destination, source),
            };
            let slot = if shared {
                slot_of(ADDRESSES_V6.get(&Key::new(128, *local)))?
            } else {
                interface.container_slot
            };
            let table = CLASSES_V6.get(control.active_table).ok_or(Fault::NoClassTable)?;
            (slot, table.get(&Key::new(128, *peer)).copied())
        }
    };
    Ok(slot * control.columns + column.unwrap_or(CLASS_ZERO_COLUMN))
}

#[inline(always)]
fn slot_of(found: Option<&u32>) -> Result<u32, Fault> {
    match found {
        None => Err(Fault::NoContainer),
        Some(&ADDRESS_WITHOUT_SLOT) => Err(Fault::ContainerTableFull),
        Some(&slot) => Ok(slot),
    }
}
