//! Interfaces that ended before the program was attached to them: what they carried is a gap.
//!
//! The kernel announces each end with the statistics of the interface, however late the daemon reads it. Only
//! a device whose other end is gone already (veth) has lost half of them by then, so that its size is unknown.
//! Which devices were attached is known from the daemon's own work, and from the records of slots: a start
//! hook changes them. No sockets, no threads.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use traffic_common::{Direction, InterfaceRecord, InterfaceStatistics};
use traffic_ledger::{Gap, GapReason, GapSize};
use traffic_model::ContainerId;

use super::{
    away::Away,
    index_watch::{IndexWatch, Seen},
};
use crate::{
    net::{
        events::{Batch, Ended},
        interface::NetInterface,
    },
    node::{Policy, kernel_access::SlotMaps, registry::Registry},
    ownership::interface_rules::Role,
};

/// How many listings in a row may lack a device before its end is no longer waited for.
const LISTINGS: u8 = 2;

/// Where the hardware address begins in what distinguishes a device ([`NetInterface::device`]).
const ADDRESS: u32 = 16;

type Mac = Option<[u8; 6]>;

/// What an interface carried that was never attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    Nothing,
    Size(InterfaceStatistics),
    Unknown,
}

/// What passed uncounted on interfaces that came and went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unseen {
    /// On interfaces of a name.
    Interface {
        /// The name.
        name: String,
        /// For whom they would have been counted, if it is known.
        container: Option<ContainerId>,
        /// What passed; `None` if unknown.
        size: Option<InterfaceStatistics>,
        /// How many they were.
        times: u32,
    },
    /// The kernel dropped events, and an index was used that nobody saw.
    Overrun,
}

/// An interface that came and went, and that the daemon did not attach.
#[derive(Clone, Debug)]
struct Candidate {
    last: NetInterface,
    container: Option<ContainerId>,
    carried: Carried,
    /// Whether the record of its index may be its own: an attach failed halfway.
    may_be_recorded: bool,
}

/// A device that the daemon attached.
#[derive(Clone, Copy, Debug)]
struct Attached {
    mac: Mac,
    /// Listings in a row that lacked it.
    absent: u8,
}

/// Follows which interfaces came and went.
#[derive(Debug, Default)]
pub(super) struct CameAndWent {
    attached: HashMap<u32, Attached>,
    /// Attached devices that moved to another network namespace.
    away: Away,
    /// Indexes of interfaces that are not attached and had a carrier.
    had_carrier: HashSet<u32>,
    candidates: Vec<Candidate>,
    /// Interfaces in events beside which others were dropped: whether they still exist is to be seen.
    doubtful: Vec<Candidate>,
    found: Vec<Unseen>,
    /// When the daemon last looked before the first of these.
    since: Option<Timestamp>,
    /// The records of interface slots when the daemon last looked.
    records: Vec<InterfaceRecord>,
    looked: Option<Timestamp>,
    indexes: IndexWatch,
}

impl CameAndWent {
    /// Takes over the ends of a batch, before anything else is done about it.
    pub fn take_events(&mut self, batch: &Batch, policy: &Policy) {
        let indexes: BTreeSet<u32> = batch.ends.iter().map(|end| end.last.index).collect();
        let mut others = Vec::new();
        for index in indexes {
            let mut ends: Vec<&Ended> = batch.ends.iter().filter(|end| end.last.index == index).collect();
            let alive = batch.interfaces.get(&index).filter(|_| !batch.gone.contains(&index));
            let attached = self.attached.get(&index).map(|attached| attached.mac);
            let place = place_of_attached(&ends, alive.map(|interface| interface.mac), attached);
            if let Some(at) = place {
                self.attached.remove(&index);
                let own = ends.remove(at);
                if own.has_moved {
                    self.away.leave(&own.last);
                }
            }
            let mut had_carrier = self.had_carrier.remove(&index);
            for (at, end) in ends.into_iter().enumerate() {
                let had_carrier = end.had_carrier || std::mem::take(&mut had_carrier);
                others.push((end, had_carrier, at == 0 && place.is_none()));
            }
        }
        for (end, had_carrier, may_be_recorded) in others.into_iter().filter(|(end, ..)| !end.has_moved) {
            // An attached device that moved away takes its links along, and may have come back under another index.
            if !self.away.come_back(&end.last) {
                let candidate = candidate(&end.last, carried(&end.last, had_carrier), policy);
                self.candidates.extend(candidate.map(|one| Candidate { may_be_recorded, ..one }));
            }
        }
        let seen = batch.interfaces.values();
        if batch.lost {
            let carriers: HashSet<u32> = batch.with_carrier().collect();
            let open = seen.clone().filter(|interface| carriers.contains(&interface.index));
            let open = open.filter(|interface| !self.attached.contains_key(&interface.index));
            self.doubtful.extend(open.filter_map(|interface| candidate(interface, Carried::Unknown, policy)));
            self.indexes.overrun();
        }
        let ended = batch.ends.iter().map(|end| &end.last);
        let place = if batch.lost { Seen::IncompleteEvents } else { Seen::Events };
        if self.indexes.see(seen.chain(ended), place) {
            self.note(Unseen::Overrun);
        }
        self.had_carrier.extend(batch.with_carrier().filter(|index| !self.attached.contains_key(index)));
    }

    /// Notes an interface that the daemon attached, or found attached.
    pub fn attached(&mut self, interface: &NetInterface) {
        self.had_carrier.remove(&interface.index);
        self.away.come_back(interface);
        self.attached.insert(interface.index, Attached { mac: interface.mac, absent: 0 });
    }

    /// Takes over a listing. `attached` says which interfaces the pass before it attached.
    pub fn listed(&mut self, interfaces: &[NetInterface], attached: impl Fn(&NetInterface) -> bool) {
        let listed: HashSet<u32> = interfaces.iter().map(|interface| interface.index).collect();
        self.attached.retain(|index, device| {
            device.absent = if listed.contains(index) { 0 } else { device.absent + 1 };
            device.absent <= LISTINGS
        });
        self.had_carrier.retain(|index| listed.contains(index));
        for interface in interfaces {
            if attached(interface) {
                self.attached(interface);
            } else if interface.has_carrier {
                self.had_carrier.insert(interface.index);
            }
        }
        let gone = std::mem::take(&mut self.doubtful).into_iter();
        for one in gone.filter(|one| !listed.contains(&one.last.index)) {
            // Not again if its end is announced after all, nor if it was attached meanwhile.
            let settled = Attached { mac: one.last.mac, absent: 0 };
            if self.attached.insert(one.last.index, settled).is_none() {
                self.add(one);
            }
        }
        if self.indexes.see(interfaces.iter(), Seen::Listing) {
            self.note(Unseen::Overrun);
        }
    }

    /// Whether anything waits for [`Self::judge`].
    pub const fn is_waiting(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// Decides which of those that came and went were attached by another process, such as a start hook.
    /// Called under the lock, before this process attaches anything.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn judge(&mut self, registry: &Registry, maps: &impl SlotMaps) -> anyhow::Result<()> {
        let was_attached = |one: &Candidate| is_recorded(&self.records, registry, one);
        let (candidates, doubtful) = (&mut self.candidates, &mut self.doubtful);
        candidates.retain(|one| !was_attached(one));
        doubtful.retain(|one| !was_attached(one));
        for mut one in std::mem::take(&mut self.candidates) {
            if let Some(counted) = partly_counted(registry, maps, &one)? {
                one.carried = without(one.carried, &counted);
            }
            self.add(one);
        }
        Ok(())
    }

    /// Remembers the records, at the end of work under the lock.
    pub fn remember(&mut self, registry: &Registry, now: Timestamp) {
        self.records = registry.interfaces().to_vec();
        self.looked = Some(now);
    }

    /// Takes what was found, as gaps that end now.
    pub fn take_gaps(&mut self, now: Timestamp) -> Vec<Gap> {
        let start = self.since.take();
        self.found.drain(..).map(|unseen| unseen.gap(start, now)).collect()
    }

    fn note(&mut self, unseen: Unseen) {
        self.since = self.since.or(self.looked);
        self.found.push(unseen);
    }

    fn add(&mut self, one: Candidate) {
        let Candidate { last, container: owner, carried, .. } = one;
        let more = match carried {
            Carried::Nothing => return,
            Carried::Size(size) => Some(size),
            Carried::Unknown => None,
        };
        let same = self.found.iter_mut().find_map(|unseen| match unseen {
            Unseen::Interface { name, container, size, times }
                if *name == last.name && *container == owner =>
            {
                Some((size, times))
            }
            _ => None,
        });
        let Some((size, times)) = same else {
            let name = last.name;
            return self.note(Unseen::Interface { name, container: owner, size: more, times: 1 });
        };
        *times += 1;
        *size = size.zip(more).map(|(size, more)| {
            let sum = |a: [u64; 2], b: [u64; 2]| std::array::from_fn(|at| a[at].saturating_add(b[at]));
            InterfaceStatistics {
                packets: sum(size.packets, more.packets),
                bytes: sum(size.bytes, more.bytes),
            }
        });
    }
}

/// Which of the devices that ended under one index is the one that was attached under it. It has the address of
/// that one, unless a device with this address is still there. An address that nobody has was changed.
fn place_of_attached(ends: &[&Ended], alive: Option<Mac>, attached: Option<Mac>) -> Option<usize> {
    let mac = attached?;
    let same = ends.iter().position(|end| end.last.mac == mac);
    match same {
        None if alive == Some(mac) => None,
        None => Some(0),
        same => same,
    }
}

/// What an interface carried, as far as its end shows.
fn carried(last: &NetInterface, had_carrier: bool) -> Carried {
    let is_empty = last.statistics == InterfaceStatistics::default();
    match last.is_counted_on_the_other_end() {
        // The carrier is announced late: an interface can end before that.
        true if is_empty && !had_carrier && last.carrier_ups == 0 => Carried::Nothing,
        true => Carried::Unknown,
        false if is_empty => Carried::Nothing,
        false => Carried::Size(last.statistics),
    }
}

/// `None` for an interface that would not have been counted.
fn candidate(last: &NetInterface, carried: Carried, policy: &Policy) -> Option<Candidate> {
    let container = match policy.role(last) {
        // The kernel's statistics of an uplink cover everybody's traffic.
        Role::Ignored(_) | Role::Uplink => return None,
        Role::Container(id) => Some(id),
        Role::Shared | Role::Unresolved { .. } => None,
    };
    let is_any = carried != Carried::Nothing;
    is_any.then(|| Candidate { last: last.clone(), container, carried, may_be_recorded: false })
}

/// How much of an interface's statistics is accounted for, if an attach to it failed halfway.
fn partly_counted(
    registry: &Registry,
    maps: &impl SlotMaps,
    one: &Candidate,
) -> anyhow::Result<Option<InterfaceStatistics>> {
    let slot = registry.interface_of_index(one.last.index).filter(|_| one.may_be_recorded);
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

fn without(carried: Carried, counted: &InterfaceStatistics) -> Carried {
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
/// its name was attached again since this process last looked. Who attaches one by a start hook attaches all.
fn is_recorded(before: &[InterfaceRecord], registry: &Registry, one: &Candidate) -> bool {
    if let Some(slot) = registry.interface_of_index(one.last.index) {
        let is_same = registry.interface(slot).device >> ADDRESS == one.last.device() >> ADDRESS;
        if is_same && before.get(slot as usize).is_none_or(|old| old.ifindex != one.last.index) {
            return true;
        }
    }
    let container = one.container.as_ref().map_or("", ContainerId::as_str);
    let Some(slot) = registry.slot_of(&one.last.name, container) else { return false };
    let attach = |record: &InterfaceRecord| (record.attached_unix_s, record.generation, record.device);
    before.get(slot as usize).is_none_or(|old| attach(old) != attach(registry.interface(slot)))
}

impl Unseen {
    fn gap(self, start: Option<Timestamp>, end: Timestamp) -> Gap {
        // Whole seconds, as everywhere in the ledger.
        let whole = |time: Timestamp| Timestamp::from_second(time.as_second()).unwrap_or(time);
        let gap = Gap {
            start: start.map(|start| whole(start.min(end))),
            ..Gap::of_node(GapReason::BeforeAttach, end, whole(end))
        };
        match self {
            Self::Overrun => gap.with_detail(
                "the kernel dropped events of interfaces, and at least one interface came and went unseen"
                    .to_owned(),
            ),
            Self::Interface { name, container, size, times } => {
                let count = if times == 1 { String::new() } else { format!(" {times} times") };
                let unknown = if size.is_none() { "; the kernel did not keep its statistics" } else { "" };
                let detail = format!("it came and went{count} before it could be attached{unknown}");
                let (incoming, outgoing) = (Direction::In as usize, Direction::Out as usize);
                Gap {
                    interface: Some(name),
                    container: container.map(|id| id.to_string()),
                    size: size.map(|size| GapSize {
                        in_skbs: size.packets[incoming],
                        in_skb_bytes: size.bytes[incoming],
                        out_skbs: size.packets[outgoing],
                        out_skb_bytes: size.bytes[outgoing],
                    }),
                    ..gap.with_detail(detail)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
