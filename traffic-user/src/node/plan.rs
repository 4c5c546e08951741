//! What is wanted against what was seen of one interface: the steps that are left. Pure.
//!
//! [`steps`] decides, and nothing else does: `attach` and the daemon carry its steps out (`super::carry_out`),
//! and `status` reports them. An interface for which it returns none that changes anything is settled.
//!
//! The order of the steps is what makes them safe to interrupt after any of them: the slot's record before
//! the entry, the entry before the hooks, and a slot's former owner is noted as gone only when no packet is
//! counted for it any more.

use traffic_common::{DIRECTIONS, Direction, InterfaceEntry, UNKNOWN_INTERFACE_SLOT, interface_flags};
use traffic_model::{ContainerId, NODE_ID};

use super::{missed::CountedSoFar, registry::Registry};
use crate::{
    kernel::{
        hooks::{HookSeen, OnHook},
        records::read_text,
    },
    net::interface::NetInterface,
};

/// For whom an interface should be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// For one container, or for the node on an uplink.
    Container(ContainerId),
    /// For an owner that is not known yet. [`with_pending_owner`] says under which id.
    Pending,
    /// For whoever has the address.
    Shared,
    /// For nobody.
    Nothing,
}

impl Wanted {
    /// The container, if it is one.
    pub const fn container(&self) -> Option<&ContainerId> {
        match self {
            Self::Container(id) => Some(id),
            Self::Pending | Self::Shared | Self::Nothing => None,
        }
    }
}

/// For whom the very device that was seen is counted, if it is: a container, or a pending owner.
fn recorded_owner(seen: &Seen, registry: &Registry) -> Option<ContainerId> {
    let Seen { interface, hooks, .. } = seen;
    let owner = registry.recorded_owner(interface.index, &seen.entry)?;
    let is_on_hook = hooks.iter().any(|hook| hook.ours != OnHook::Nothing);
    let is_pinned = hooks.iter().filter_map(|hook| hook.pin).reduce(|a, b| a || b);
    // An index passes to another device, whose traffic is not that of the first. Without our program on it, only
    // what distinguishes devices can tell.
    let has_record_of_it = || {
        let record = registry.interface_of_index(interface.index).map(|slot| registry.interface(slot).device);
        record.is_some_and(|device| device != 0 && device == interface.device())
    };
    (is_on_hook || is_pinned.unwrap_or_else(has_record_of_it)).then_some(owner)
}

/// The same observation, with an owner in place of [`Wanted::Pending`]: the one for whom the device is counted, or
/// a new pending one. Whoever is known stays the owner while nothing names another: a command that fails must not
/// take a container's traffic from it.
pub fn with_pending_owner(seen: Seen, registry: &Registry, now_unix_s: u64) -> Seen {
    if seen.wanted != Wanted::Pending {
        return seen;
    }
    let known = recorded_owner(&seen, registry);
    let id = known.unwrap_or_else(|| registry.new_pending_owner(&seen.interface, now_unix_s));
    Seen { wanted: Wanted::Container(id), ..seen }
}

/// The pending owner that turned out to be the wanted container.
pub fn attributable(seen: &Seen, registry: &Registry) -> Option<ContainerId> {
    let is_known = seen.wanted.container().is_some_and(|id| !id.is_pending() && !id.is_node());
    let owner = recorded_owner(seen, registry).filter(|_| is_known && !seen.interface.is_uplink);
    owner.filter(ContainerId::is_pending)
}

/// One interface as it was seen, and what is wanted of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The interface; an uplink as [`NetInterface::as_uplink`].
    pub interface: NetInterface,
    /// For whom it should be counted.
    pub wanted: Wanted,
    /// By direction.
    pub hooks: [HookSeen; DIRECTIONS],
    /// By direction: another program runs before ours and keeps packets from it.
    pub starved: [bool; DIRECTIONS],
    /// What the program finds under its index.
    pub entry: InterfaceEntry,
    /// Slots that were asked for in vain.
    pub without_room: WithoutRoom,
}

/// Slots for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithoutRoom {
    /// The container's.
    pub container: bool,
    /// The interface's.
    pub interface: bool,
}

/// One step towards what is wanted of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Give what was counted under a pending id to the wanted container. What comes next depends on it.
    Attribute,
    /// Give the interface and its container slots. What comes next depends on them.
    AssignSlots,
    /// Take our program off a hook where another one keeps packets from it. Attached again, it runs first.
    LeaveLaterPlace(Direction),
    /// The interface's slot is recorded for this index. Release it if it is gone; otherwise it was renamed,
    /// and counts in the slot that interfaces without one of their own share.
    EndFormer {
        /// The index.
        index: u32,
        /// The slot.
        slot: u32,
    },
    /// Record in the slot that counting begins, and what passed before.
    RecordAttach {
        /// The slot.
        slot: u32,
        /// Where the interface was counted until now.
        counted_so_far: CountedSoFar,
    },
    /// Write what the program finds under the index.
    SetEntry(InterfaceEntry),
    /// Note in another slot of this index that its interface is gone.
    NoteGone {
        /// That slot.
        slot: u32,
    },
    /// Detach our program where it is attached by the method that is not configured.
    DetachOtherKind(Direction),
    /// Attach the program, or replace another version of it.
    Attach(Direction),
    /// Record what passed between the record and the attach.
    Settle {
        /// The slot.
        slot: u32,
        /// As in [`Step::RecordAttach`].
        counted_so_far: CountedSoFar,
    },
    /// Compare the slot with the kernel's statistics. Changes nothing that is counted.
    Compare {
        /// The slot.
        slot: u32,
    },
    /// Detach from an interface that is no uplink any more.
    ReleaseUplink {
        /// Its slot.
        slot: u32,
    },
    /// Release what is left of a device whose index a foreign interface has now.
    ReleaseFormer {
        /// The slot of that device.
        slot: u32,
    },
}

impl Step {
    /// Whether the kernel shows the step's effect, so that it is to be looked at again.
    pub const fn is_change(self) -> bool {
        !matches!(self, Self::Compare { .. } | Self::Settle { .. })
    }
}

/// The steps that are left for an interface, in their order.
pub fn steps(seen: &Seen, registry: &Registry) -> Vec<Step> {
    let container = match &seen.wanted {
        Wanted::Nothing => return leaving(seen, registry),
        wanted => wanted.container(),
    };
    if attributable(seen, registry).is_some() {
        return vec![Step::Attribute];
    }
    let container_slot = container.and_then(|id| registry.container_slot(id));
    if container.is_some() && container_slot.is_none() && !seen.without_room.container {
        return vec![Step::AssignSlots];
    }
    let slot = match registry.assigned_interface(&seen.interface, container, container_slot) {
        Some(slot) => slot,
        None if seen.without_room.interface => UNKNOWN_INTERFACE_SLOT,
        None => return vec![Step::AssignSlots],
    };
    let mut steps = Vec::new();
    let starved = Direction::BOTH.into_iter().filter(|direction| seen.starved[*direction as usize]);
    steps.extend(starved.map(Step::LeaveLaterPlace));
    let start = counting_start(seen, registry, slot);
    if let Some(counted_so_far) = start {
        // A device that was made again under its name has another index: the old one shows that it is another
        // device.
        let former = registry.interface(slot).ifindex;
        if former != 0 && former != seen.interface.index {
            steps.push(Step::EndFormer { index: former, slot });
        }
        // Before the hooks, so that the next attach completes one that was interrupted.
        steps.push(Step::RecordAttach { slot, counted_so_far });
    }
    // Before the hooks: the first packet must find its interface.
    let entry = entry(&seen.interface, container, container_slot, slot);
    if seen.entry != entry {
        steps.push(Step::SetEntry(entry));
    }
    // Not before: a slot whose owner is gone may be given to another. An interrupted attach leaves more than
    // one.
    let others = registry.others_of_index(seen.interface.index, slot).into_iter();
    steps.extend(others.map(|slot| Step::NoteGone { slot }));
    for direction in Direction::BOTH {
        // Before ours: both together would count twice.
        if seen.hooks[direction as usize].other_kind {
            steps.push(Step::DetachOtherKind(direction));
        }
        if !is_attached(seen, direction as usize) {
            steps.push(Step::Attach(direction));
        }
    }
    // The kernel's statistics of an uplink cover everybody's traffic.
    if !seen.interface.is_uplink {
        steps.push(match start {
            Some(counted_so_far) => Step::Settle { slot, counted_so_far },
            None => Step::Compare { slot },
        });
    }
    steps
}

/// Whether exactly the wanted program is on the hook, and may stay there.
fn is_attached(seen: &Seen, at: usize) -> bool {
    seen.hooks[at].ours == OnHook::Current && !seen.starved[at]
}

/// What is left to do on an interface that should not be counted. One that was only renamed to a name that no
/// rule matches stays attached.
fn leaving(seen: &Seen, registry: &Registry) -> Vec<Step> {
    let index = seen.interface.index;
    let Some(slot) = registry.interface_of_index(index) else { return Vec::new() };
    let [incoming, outgoing] = &seen.hooks;
    let is_known = match (incoming.pin, outgoing.pin) {
        // Nothing is pinned under its index: then only a program on its hooks makes it the device that was
        // attached.
        (None, None) => incoming.ours != OnHook::Nothing || outgoing.ours != OnHook::Nothing,
        pins => pins.0 == Some(true) || pins.1 == Some(true),
    };
    let first = if read_text(&registry.interface(slot).container) == NODE_ID {
        Step::ReleaseUplink { slot }
    } else if is_known {
        return Vec::new();
    } else {
        Step::ReleaseFormer { slot }
    };
    let others = registry.others_of_index(index, slot).into_iter();
    std::iter::once(first).chain(others.map(|slot| Step::NoteGone { slot })).collect()
}

/// Where an interface was counted until now, if counting in its slot starts over; `None` where it simply
/// continues.
fn counting_start(seen: &Seen, registry: &Registry, slot: u32) -> Option<CountedSoFar> {
    let index = seen.interface.index;
    let attached = (0..DIRECTIONS).all(|at| is_attached(seen, at));
    // Its slot's record has its index already: an attach that was interrupted has recorded where it was
    // counted before.
    let is_recorded = registry.interface(slot).ifindex == index;
    // Until now it had no slot of its own and was counted in the one that such interfaces share. No record
    // has its index: it would look gone, and its slots would be given away while it counts in them.
    let shared_a_slot = slot != UNKNOWN_INTERFACE_SLOT && !is_recorded;
    let moved_from = registry.interface_of_index(index).filter(|&old| old != slot && !is_recorded);
    match (moved_from, attached) {
        (Some(_), true) => Some(CountedSoFar::Elsewhere),
        (Some(slot), false) => Some(CountedSoFar::ElsewhereWithGap { slot }),
        (None, true) if shared_a_slot => Some(CountedSoFar::Elsewhere),
        (None, true) => None,
        (None, false) => Some(CountedSoFar::Here),
    }
}

/// What the program finds under the interface's index.
fn entry(
    interface: &NetInterface,
    container: Option<&ContainerId>,
    container_slot: Option<u32>,
    slot: u32,
) -> InterfaceEntry {
    let presence = if interface.is_uplink { interface_flags::UPLINK } else { interface_flags::PRESENT };
    // An uplink is reversed anyway.
    let presence = match interface.is_reversed() && !interface.is_uplink {
        true => presence | interface_flags::REVERSED,
        false => presence,
    };
    let presence = if interface.is_shared_uplink { presence | interface_flags::SHARED } else { presence };
    let owner = match (container, container_slot) {
        (None, _) => interface_flags::SHARED,
        (Some(_), None) => interface_flags::NO_SLOT,
        (Some(_), Some(_)) => 0,
    };
    InterfaceEntry {
        flags: presence | owner,
        interface_slot: slot,
        // Without one an invalid slot: a packet may find the flags of before beside it.
        container_slot: container_slot.unwrap_or(u32::MAX),
        link_header_len: interface.link_header_len(),
    }
}

/// Indexes under which something is left of an interface that the listing lacks. Each is to be asked for by
/// itself before it is released: absence from a listing proves nothing.
pub fn missing(listed: impl Iterator<Item = u32>, left: impl Iterator<Item = u32>) -> Vec<u32> {
    let listed: std::collections::HashSet<u32> = listed.collect();
    let mut missing: Vec<u32> = left.filter(|index| !listed.contains(index)).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

#[cfg(test)]
mod tests;
