//! Which slot counts for which interface.

use std::collections::HashMap;

use traffic_common::InterfaceRecord;

use crate::net::interface::NetInterface;

/// Each listed interface that has a slot: the slot, its record and the interface, in the order of the slots. An
/// attach that was interrupted leaves two records of an index. The first one counts.
pub fn attached<'a>(
    records: &'a [InterfaceRecord],
    listed: &'a [NetInterface],
) -> impl Iterator<Item = (usize, &'a InterfaceRecord, &'a NetInterface)> {
    let mut by_index: HashMap<u32, &NetInterface> =
        listed.iter().map(|interface| (interface.index, interface)).collect();
    let of_slots = records.iter().enumerate();
    of_slots.filter_map(move |(slot, record)| Some((slot, record, by_index.remove(&record.ifindex)?)))
}
