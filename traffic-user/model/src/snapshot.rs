//! One reading of all counters. It is plain data, and the only type that passes from the kernel side to
//! rendering, the ledger and exports. It knows neither maps nor output formats.

use std::{collections::BTreeMap, ops::AddAssign};

use jiff::Timestamp;
use traffic_common::{DIRECTIONS, Direction, FAULTS, Family, Fault, Tally};

use crate::{ContainerId, DropReading, hex};

/// A pair of values, one for each direction as the container sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByDirection<T> {
    /// To the container.
    pub incoming: T,
    /// From the container.
    pub outgoing: T,
}

impl<T> ByDirection<T> {
    /// The value of one direction.
    pub const fn of(&self, direction: Direction) -> &T {
        match direction {
            Direction::In => &self.incoming,
            Direction::Out => &self.outgoing,
        }
    }

    /// The value of one direction, mutable.
    pub const fn of_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::In => &mut self.incoming,
            Direction::Out => &mut self.outgoing,
        }
    }
}

impl<T: Copy> ByDirection<T> {
    /// Converts an array indexed by [`Direction`].
    pub const fn from_array(values: [T; DIRECTIONS]) -> Self {
        Self { incoming: values[Direction::In as usize], outgoing: values[Direction::Out as usize] }
    }
}

impl<T: AddAssign> AddAssign for ByDirection<T> {
    fn add_assign(&mut self, other: Self) {
        self.incoming += other.incoming;
        self.outgoing += other.outgoing;
    }
}

impl ByDirection<Tally> {
    /// The difference to an earlier reading. 0 where the other reading is above this one, because it was
    /// taken later.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            incoming: self.incoming.saturating_sub(earlier.incoming),
            outgoing: self.outgoing.saturating_sub(earlier.outgoing),
        }
    }

    /// Both directions together.
    #[must_use]
    pub const fn total(&self) -> Tally {
        self.incoming.saturating_add(self.outgoing)
    }
}

/// The class table in force at a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassTableInfo {
    /// SHA-256 of the compiled table.
    pub hash: [u8; 32],
    /// When it was loaded.
    pub loaded: Timestamp,
    /// Number of prefixes, both families.
    pub prefixes: u64,
}

impl ClassTableInfo {
    /// The hash in hexadecimal, as in output and ledger.
    pub fn hash_hex(&self) -> String {
        hex(&self.hash)
    }
}

/// One container's traffic of one class and family, since its slot became the container's. Only grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassCounter {
    /// The container.
    pub container: ContainerId,
    /// Generation of the container's slot. Under another generation the counter restarted at zero.
    pub generation: u32,
    /// Whether the container was retired. Its id may have another owner now.
    pub is_retired: bool,
    /// The class, 0 to 254.
    pub class: u8,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Wire packets and layer-3 bytes.
    pub tally: ByDirection<Tally>,
}

/// A selection of class counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only this family; `None` for both.
    pub family: Option<Family>,
    /// Only these containers; empty for all.
    pub containers: Vec<ContainerId>,
    /// Only these classes; empty for all.
    pub classes: Vec<u8>,
}

impl Wanted {
    /// Whether a container is selected.
    pub fn takes_container(&self, id: &ContainerId) -> bool {
        self.containers.is_empty() || self.containers.contains(id)
    }

    /// Whether a counter is selected.
    pub fn takes(&self, counter: &ClassCounter) -> bool {
        self.takes_container(&counter.container)
            && self.family.is_none_or(|family| counter.family == family)
            && (self.classes.is_empty() || self.classes.contains(&counter.class))
    }
}

/// Traffic of an interface that is in no class, by reason. Only counters that are not zero are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultCounter {
    /// Name of the interface.
    pub interface: String,
    /// Generation of the interface's slot.
    pub generation: u32,
    /// The reason.
    pub fault: Fault,
    /// Wire packets and layer-3 bytes.
    pub tally: ByDirection<Tally>,
}

/// Everything that passed an interface in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedCounter {
    /// Wire packets and layer-3 bytes, equal to classes + faults.
    pub wire: Tally,
    /// Socket buffers.
    pub skbs: u64,
    /// Bytes of these buffers with the link-layer header.
    pub skb_bytes: u64,
    /// The part of `wire` whose size was estimated by the plain segmentation rule.
    pub estimated: Tally,
    /// The part of `wire` in segments below 48 bytes, which only the sender claims.
    pub small_segments: Tally,
    /// Copies that no wire carried, as buffers and their bytes with the link-layer header. In no other figure.
    pub copies: Tally,
    /// Missed buffers: those that the kernel's statistics show for times when the program was not attached.
    /// Only grows.
    pub missed_skbs: u64,
    /// Bytes of the missed buffers with the link-layer header.
    pub missed_skb_bytes: u64,
    /// The part of the missed buffers that passed the attached program unseen, and their bytes, since the present
    /// attach. Only in a reading that was compared with the kernel's statistics.
    pub bypassed: Tally,
    /// Buffers counted beyond what the kernel's statistics show since the program was attached, and their bytes.
    /// Only in a reading that was compared with these statistics.
    pub excess: Tally,
}

/// Everything that passed one interface since it got its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceCounter {
    /// Name of the interface.
    pub interface: String,
    /// Generation of the interface's slot.
    pub generation: u32,
    /// Its container; `None` if several share it.
    pub container: Option<ContainerId>,
    /// Its current index; `None` after it was removed.
    pub ifindex: Option<u32>,
    /// When the program was last attached to it.
    pub attached: Timestamp,
    /// Its traffic.
    pub passed: ByDirection<PassedCounter>,
    /// The part of the kernel's statistics for the current index that is counted or known as missed: buffers
    /// and their bytes. A new set of counters continues from here.
    pub accounted: ByDirection<Tally>,
}

/// All counters at one reading. They are read one after another, not at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The node's name.
    pub node: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Random number of this set of counters. Under another epoch all counters restarted at zero.
    pub epoch: u64,
    /// When the set was created.
    pub epoch_created: Timestamp,
    /// When this reading started, by the wall clock.
    pub time: Timestamp,
    /// The same instant by `CLOCK_BOOTTIME`, which neither steps nor stops, in nanoseconds.
    pub boottime_ns: u64,
    /// The class table in force.
    pub class_table: ClassTableInfo,
    /// Class counters, sorted by container, class and family. Every class in use is included, even if zero.
    pub counters: Vec<ClassCounter>,
    /// Fault counters that are not zero.
    pub faults: Vec<FaultCounter>,
    /// Interfaces, including removed ones that still own their slot.
    pub interfaces: Vec<InterfaceCounter>,
    /// Counts of former owners whose slots passed on. Their final readings are in the ledger. The balance
    /// needs these.
    pub former: ByDirection<Balance>,
    /// The part of `former` in faults, by fault number, both directions added.
    pub former_faults: [Tally; FAULTS],
    /// The [estimated](PassedCounter::estimated) part of `former`, both directions added.
    pub former_estimated: Tally,
    /// The [small segments](PassedCounter::small_segments) of `former`, both directions added.
    pub former_small_segments: Tally,
    /// The [copies](PassedCounter::copies) of `former`, both directions added.
    pub former_copies: Tally,
    /// What was dropped behind the hooks, read before everything else here: a packet is counted before it is dropped.
    /// `None` where drops are not counted, or could not be read.
    pub drops: Option<DropReading>,
}

/// What passed all interfaces, and where it was counted. Equal sums prove that no packet was lost in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// The sum of the interfaces' totals.
    pub passed: Tally,
    /// The sum of the class counters.
    pub classes: Tally,
    /// The sum of the fault counters.
    pub faults: Tally,
}

impl Balance {
    /// Passed minus classes minus faults, as packets and bytes. Zero without traffic; while traffic flows,
    /// the amount that passed between the reads of the counters.
    pub fn unaccounted(&self) -> (i128, i128) {
        let missing = |passed: u64, classes: u64, faults: u64| {
            i128::from(passed) - i128::from(classes) - i128::from(faults)
        };
        (
            missing(self.passed.packets, self.classes.packets, self.faults.packets),
            missing(self.passed.bytes, self.classes.bytes, self.faults.bytes),
        )
    }
}

impl Snapshot {
    /// The node's balance, by direction.
    pub fn balance(&self) -> ByDirection<Balance> {
        let mut balance = self.former;
        for interface in &self.interfaces {
            balance.incoming.passed += interface.passed.incoming.wire;
            balance.outgoing.passed += interface.passed.outgoing.wire;
        }
        for counter in &self.counters {
            balance.incoming.classes += counter.tally.incoming;
            balance.outgoing.classes += counter.tally.outgoing;
        }
        for fault in &self.faults {
            balance.incoming.faults += fault.tally.incoming;
            balance.outgoing.faults += fault.tally.outgoing;
        }
        balance
    }

    /// The class counters of the present container of each id. A container may have several slots, because it
    /// was counted under a pending owner at first: their counters are added, under the generation of the oldest.
    /// Of an id that was retired and has no other owner, the latest slot.
    pub fn present_counters(&self) -> Vec<ClassCounter> {
        let mut latest: BTreeMap<&ContainerId, (bool, u32)> = BTreeMap::new();
        for counter in &self.counters {
            let of_counter = (!counter.is_retired, counter.generation);
            let known = latest.entry(&counter.container).or_default();
            *known = of_counter.max(*known);
        }
        let mut present: Vec<ClassCounter> = Vec::with_capacity(self.counters.len());
        for counter in &self.counters {
            let (is_in_use, generation) = latest[&counter.container];
            if counter.is_retired && (is_in_use || counter.generation != generation) {
                continue;
            }
            // The counters of a container, class and family are neighbours.
            let key = |counter: &ClassCounter| (counter.class, counter.family);
            match present.last_mut() {
                Some(last) if last.container == counter.container && key(last) == key(counter) => {
                    last.generation = last.generation.min(counter.generation);
                    last.tally += counter.tally;
                }
                _ => present.push(counter.clone()),
            }
        }
        present
    }

    /// All containers with counters, each once.
    pub fn containers(&self) -> std::collections::BTreeSet<&ContainerId> {
        self.counters.iter().map(|counter| &counter.container).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_balance_keeps_its_sign() {
        let tally = |packets, bytes| Tally { packets, bytes };
        let balance = Balance { passed: tally(10, 1000), classes: tally(7, 800), faults: tally(2, 100) };
        assert_eq!(balance.unaccounted(), (1, 100));
        let balance = Balance { passed: tally(1, 10), classes: tally(2, 30), faults: tally(0, 0) };
        assert_eq!(balance.unaccounted(), (-1, -20));
    }

    #[test]
    fn all_slots_of_a_container_count_and_those_of_its_predecessor_do_not() {
        let mut snapshot = crate::sample::snapshot();
        let first = snapshot.counters[0].clone();
        let slot = |generation, is_retired, packets| ClassCounter {
            generation,
            is_retired,
            tally: ByDirection { incoming: Tally { packets, bytes: 0 }, outgoing: Tally::default() },
            ..first.clone()
        };
        let present = |slots: &[ClassCounter]| {
            let present =
                Snapshot { counters: slots.to_vec(), ..crate::sample::snapshot() }.present_counters();
            present.iter().map(|one| (one.generation, one.tally.incoming.packets)).collect::<Vec<_>>()
        };
        assert_eq!(present(&[slot(4, false, 10), slot(9, false, 300)]), [(4, 310)]);
        assert_eq!(present(&[slot(2, true, 7), slot(9, false, 300), slot(4, false, 10)]), [(4, 310)]);
        assert_eq!(present(&[slot(2, true, 7), slot(3, true, 8)]), [(3, 8)]);
        // Each class and family by itself.
        let all = snapshot.counters.clone();
        snapshot.counters.extend(all.iter().map(|one| ClassCounter { generation: 1, ..one.clone() }));
        snapshot
            .counters
            .sort_by(|a, b| (&a.container, a.class, a.family).cmp(&(&b.container, b.class, b.family)));
        let twice = snapshot.present_counters();
        assert_eq!(twice.len(), all.len());
        assert!(twice.iter().all(|one| one.generation == 1));
    }
}
