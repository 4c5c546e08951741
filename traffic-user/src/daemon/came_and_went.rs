//! Interfaces that ended before the program was attached to them: what they carried is a gap.
//!
//! The kernel announces each end with the statistics of the interface, however late the daemon reads it. Only
//! a device whose other end is gone already (veth) has lost half of them by then, so that its size is unknown.
//! Which devices were attached is known from the daemon's own work, and from the records of slots: a start
//! hook changes them. No sockets, no threads.

mod attached;
mod recorded;
mod unseen;

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use traffic_common::{InterfaceRecord, InterfaceStatistics};
use traffic_ledger::Gap;
use traffic_model::ContainerId;

use self::{
    attached::AttachedDevices,
    recorded::{is_of_record, is_other_attach, is_recorded, mac_of, partly_counted, without},
    unseen::Unseen,
};
use super::{
    away::{Away, AwayAs, RecordOf},
    index_watch::{Doubt, IndexWatch, Seen},
};
use crate::{
    kernel::records::read_name,
    net::{
        events::{Batch, Ended},
        interface::{NetInterface, OtherEnd},
    },
    node::{Policy, kernel_access::SlotMaps, registry::Registry},
    ownership::interface_rules::Role,
};

type Mac = Option<[u8; 6]>;

/// What an interface carried that was never attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    Nothing,
    Size(InterfaceStatistics),
    Unknown,
}

/// An interface that came and went, and that the daemon did not attach.
#[derive(Clone, Debug)]
struct Candidate {
    last: NetInterface,
    container: Option<ContainerId>,
    carried: Carried,
    /// In the order of the ends.
    number: u64,
    /// The record that may be its own: an attach failed halfway.
    record: Option<RecordOf>,
}

/// Follows which interfaces came and went.
#[derive(Debug, Default)]
pub(super) struct CameAndWent {
    attached: AttachedDevices,
    /// Attached devices that moved to another network namespace.
    away: Away,
    /// Indexes of interfaces that are not attached and had a carrier.
    had_carrier: HashSet<u32>,
    /// By index: where the other end is of an interface, if that is in another network namespace.
    elsewhere: HashMap<u32, OtherEnd>,
    candidates: Vec<Candidate>,
    /// Ends so far, which number the candidates.
    ends_seen: u64,
    /// Interfaces in events beside which others were dropped: whether they still exist is to be seen.
    doubtful: Vec<Candidate>,
    found: Vec<Unseen>,
    /// When the daemon last looked before the first of these.
    since: Option<Timestamp>,
    /// The records of interface slots when the daemon last looked.
    records: Vec<InterfaceRecord>,
    /// Indexes that the daemon could not attach.
    tried: HashSet<u32>,
    /// Indexes whose ends were judged since the daemon last looked.
    judged: HashSet<u32>,
    looked: Option<Timestamp>,
    /// Indexes in the last listing.
    listed: HashSet<u32>,
    /// Indexes of interfaces that events told something of, and that the last listing lacked.
    lacked: HashSet<u32>,
    indexes: IndexWatch,
}

impl CameAndWent {
    /// Takes over the ends of a batch, before anything else is done about it.
    pub fn take_events(&mut self, batch: &Batch, policy: &Policy) {
        let indexes: BTreeSet<u32> = batch.ends.iter().map(|end| end.last.index).collect();
        let mut others = Vec::new();
        for index in indexes {
            let mut ends: Vec<(usize, &Ended)> =
                batch.ends.iter().enumerate().filter(|(_, end)| end.last.index == index).collect();
            let alive = batch.interfaces.get(&index).filter(|_| !batch.gone.contains(&index));
            let attached = self.attached.mac(index);
            let place = place_of_attached(&ends, alive.map(|interface| interface.mac), attached);
            if let Some(at) = place {
                self.attached.remove(index);
                let (_, own) = ends.remove(at);
                if own.has_moved {
                    self.away.leave(&own.last, AwayAs::Attached);
                }
            }
            if self.tried.contains(&index) {
                for (_, end) in ends.iter().filter(|(_, end)| end.has_moved) {
                    self.away.leave(&end.last, AwayAs::Tried(RecordOf::Index(index)));
                }
            }
            let mut had_carrier = self.had_carrier.remove(&index);
            for (at, (place_of_end, end)) in ends.into_iter().enumerate() {
                let had_carrier = end.had_carrier || std::mem::take(&mut had_carrier);
                let record = (at == 0 && place.is_none()).then_some(RecordOf::Index(index));
                others.push((place_of_end, end, had_carrier, record));
            }
        }
        others.sort_unstable_by_key(|(at, ..)| *at);
        let moved = self.attached.may_have_moved(batch.lost);
        for (_, end, had_carrier, record) in others.into_iter().filter(|(_, end, ..)| !end.has_moved) {
            // An attached device that moved away takes its links along, and may have come back under another index.
            let left_as = self.away.come_back(&end.last, &end.former_names);
            if left_as != Some(AwayAs::Attached) {
                let record = match left_as {
                    Some(AwayAs::Tried(record)) => Some(record),
                    _ => record,
                };
                let mut carried = carried(&end.last, had_carrier);
                // It may be an attached device whose move no event told of: all, some or nothing of it was counted.
                if left_as.is_none() && carried != Carried::Nothing && moved.may_be(end) {
                    carried = Carried::Unknown;
                }
                self.ends_seen += 1;
                let number = self.ends_seen;
                let mut last = end.last.clone();
                last.recall_other_end(self.elsewhere.remove(&last.index));
                let candidate = end.names().find_map(|name| {
                    candidate(&NetInterface { name: name.clone(), ..last.clone() }, carried, policy)
                });
                self.candidates.extend(candidate.map(|one| Candidate { number, record, ..one }));
            }
        }
        let seen = batch.interfaces.values();
        self.elsewhere.retain(|index, _| !batch.gone.contains(index));
        self.note_other_ends(seen.clone().filter(|interface| !batch.gone.contains(&interface.index)));
        if batch.lost {
            let carriers: HashSet<u32> = batch.with_carrier().collect();
            let open = seen.clone().filter(|interface| carriers.contains(&interface.index));
            let open = open.filter(|interface| !self.attached.contains(interface.index));
            self.doubtful.extend(open.filter_map(|interface| candidate(interface, Carried::Unknown, policy)));
            self.indexes.overrun();
        }
        let ended = batch.ends.iter().map(|end| &end.last);
        let place = if batch.lost { Seen::IncompleteEvents } else { Seen::Events };
        let doubt = self.indexes.see(seen.chain(ended), place);
        self.note_doubt(doubt);
        self.had_carrier.extend(batch.with_carrier().filter(|index| !self.attached.contains(*index)));
    }

    /// Notes where the other ends of these interfaces are.
    fn note_other_ends<'i>(&mut self, interfaces: impl Iterator<Item = &'i NetInterface>) {
        for interface in interfaces {
            if let Some(other_end) = interface.other_end_elsewhere() {
                self.elsewhere.insert(interface.index, other_end);
            } else if interface.knows_its_peer() {
                // One without a peer is about to end, after its other end.
                self.elsewhere.remove(&interface.index);
            }
        }
    }

    /// Notes an interface that the daemon attached, or found attached.
    pub fn attached(&mut self, interface: &NetInterface) {
        self.had_carrier.remove(&interface.index);
        self.tried.remove(&interface.index);
        self.away.come_back(interface, &[]);
        self.attached.insert(interface);
    }

    /// Notes an interface that the daemon could not attach, whose record it may have changed all the same.
    pub fn not_attached(&mut self, index: u32) {
        self.tried.insert(index);
    }

    /// Takes over a listing. `attached` says which interfaces the pass before it attached.
    pub fn listed(&mut self, interfaces: &[NetInterface], attached: impl Fn(&NetInterface) -> bool) {
        let listed: HashSet<u32> = interfaces.iter().map(|interface| interface.index).collect();
        self.attached.listed(&listed);
        self.had_carrier.retain(|index| listed.contains(index));
        self.note_other_ends(interfaces.iter());
        // The end of one that this listing lacks may still be announced: of one that the last listing showed, and of
        // one that began and ended since, of which only events told.
        let listed_before = std::mem::replace(&mut self.listed, listed.clone());
        let lacked_before = std::mem::take(&mut self.lacked);
        let may_end = |index: &u32| {
            listed.contains(index) || listed_before.contains(index) || !lacked_before.contains(index)
        };
        self.tried.retain(may_end);
        self.elsewhere.retain(|index, _| may_end(index));
        let known = self.tried.iter().chain(self.elsewhere.keys());
        self.lacked = known.copied().filter(|index| !listed.contains(index)).collect();
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
            if self.attached.insert_new(one.last.index, one.last.mac, &one.last.name) {
                self.add(one);
            }
        }
        let doubt = self.indexes.see(interfaces.iter(), Seen::Listing);
        self.note_doubt(doubt);
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
        self.judged.extend(self.candidates.iter().map(|one| one.last.index));
        self.away.find_slots(|index| registry.interface_of_index(index));
        self.learn(registry);
        let all = self.candidates.clone();
        let last = |one: &Candidate| {
            let container = one.container.as_ref().map_or("", ContainerId::as_str);
            let pending = || registry.pending_slot_of(&one.last.name).filter(|_| container.is_empty());
            let slot = registry.slot_of(&one.last.name, container).or_else(pending)?;
            let record = registry.interface(slot);
            all.iter().rposition(|other| is_of_record(record, &other.last)).map(|at| all[at].number)
        };
        let (records, tried) = (&self.records, &self.tried);
        let was_attached = |one: &Candidate| {
            let is_tried = tried.contains(&one.last.index);
            is_recorded(records, registry, one, is_tried, last(one))
        };
        self.candidates.retain(|one| !was_attached(one));
        self.doubtful.retain(|one| !was_attached(one));
        while let Some(one) = self.candidates.first() {
            let counted = partly_counted(registry, maps, one)?;
            let mut one = self.candidates.remove(0);
            if let Some(counted) = counted {
                // An attach that failed because the device ended has recorded what passed before it. What passed
                // from there to the end stays unknown where the kernel did not keep it.
                one.carried = without(one.carried, &counted);
            }
            self.tried.remove(&one.last.index);
            self.add(one);
        }
        Ok(())
    }

    /// Remembers the records, at the end of work under the lock.
    pub fn remember(&mut self, registry: &Registry, now: Timestamp) {
        self.learn(registry);
        self.judged.clear();
        self.records = registry.interfaces().to_vec();
        self.looked = Some(now);
    }

    /// Learns from new records which interfaces another process attached, before these are released.
    fn learn(&mut self, registry: &Registry) {
        // At the first look, records may be of interfaces that ended long ago.
        if self.looked.is_none() {
            return;
        }
        for (slot, record) in registry.interfaces().iter().enumerate() {
            let index = record.ifindex;
            let is_new = index != 0 && self.records.get(slot).is_none_or(|old| is_other_attach(old, record));
            if is_new && !self.tried.contains(&index) && !self.judged.contains(&index) {
                self.attached.insert_new(index, mac_of(record.device), &read_name(record));
            }
        }
    }

    /// Takes what was found, as gaps that end now.
    pub fn take_gaps(&mut self, now: Timestamp) -> Vec<Gap> {
        let start = self.since.take();
        self.found.drain(..).map(|unseen| unseen.gap(start, now)).collect()
    }

    fn note_doubt(&mut self, doubt: Doubt) {
        match doubt {
            Doubt::No => {}
            Doubt::Unseen => self.note(Unseen::Overrun { is_certain: true }),
            Doubt::MayBeUnseen => self.note(Unseen::Overrun { is_certain: false }),
        }
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
fn place_of_attached(ends: &[(usize, &Ended)], alive: Option<Mac>, attached: Option<Mac>) -> Option<usize> {
    let mac = attached?;
    let same = ends.iter().position(|(_, end)| end.last.mac == mac);
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
    is_any.then(|| Candidate { last: last.clone(), container, carried, number: 0, record: None })
}

#[cfg(test)]
mod tests;
