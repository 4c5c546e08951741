//! One reading of everything that is counted: plain data, the only thing that flows from the kernel side to
//! rendering, the ledger and exports. It knows neither maps nor output formats.

use std::{collections::BTreeMap, ops::AddAssign};

use jiff::Timestamp;
use traffic_common::{DIRECTIONS, Direction, FAULTS, Family, Fault, Tally};

use crate::{ContainerId, hex};

/// A pair of values, one a direction, in the container's view.
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

    /// The value of one direction, to be changed.
    pub const fn of_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::In => &mut self.incoming,
            Direction::Out => &mut self.outgoing,
        }
    }
}

impl<T: Copy> ByDirection<T> {
    /// From an array indexed by [`Direction`].
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
    /// The difference to an earlier reading. 0 where the other reading is above this one, because it was taken later.
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

/// Which class table was in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassTableInfo {
    /// SHA-256 of the compiled table.
    pub hash: [u8; 32],
    /// When it was loaded.
    pub loaded: Timestamp,
    /// Prefixes in it, both families.
    pub prefixes: u64,
}

impl ClassTableInfo {
    /// The hash in hexadecimal, as output and ledger show it.
    pub fn hash_hex(&self) -> String {
        hex(&self.hash)
    }
}

/// One container's traffic of one class and family since the epoch began. Only grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassCounter {
    /// Whose traffic.
    pub container: ContainerId,
    /// Generation of the container's slot: another number means that counting began anew at zero.
    pub generation: u32,
    /// The class, 0 to 254.
    pub class: u8,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Wire packets and layer-3 bytes.
    pub tally: ByDirection<Tally>,
}

/// Which class counters are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// One family only.
    pub family: Option<Family>,
    /// These containers only; empty for all.
    pub containers: Vec<ContainerId>,
    /// These classes only; empty for all.
    pub classes: Vec<u8>,
}

impl Wanted {
    /// Whether a container is.
    pub fn takes_container(&self, id: &ContainerId) -> bool {
        self.containers.is_empty() || self.containers.contains(id)
    }

    /// Whether a counter is.
    pub fn takes(&self, counter: &ClassCounter) -> bool {
        self.takes_container(&counter.container)
            && self.family.is_none_or(|family| counter.family == family)
            && (self.classes.is_empty() || self.classes.contains(&counter.class))
    }
}

/// What passed an interface and is in no class counter, by reason. Only non-zero ones are listed.
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

/// What passed an interface in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedCounter {
    /// Wire packets and layer-3 bytes, equal to classes + faults.
    pub wire: Tally,
    /// Socket buffers.
    pub skbs: u64,
    /// Their bytes with the link-layer header.
    pub skb_bytes: u64,
    /// The part of `wire` whose size came from the plain segmentation rule.
    pub estimated: Tally,
    /// Buffers that passed while the program was not attached, by the kernel's statistics: a gap. Only grows.
    pub missed_skbs: u64,
    /// Their bytes with the link-layer header.
    pub missed_skb_bytes: u64,
}

/// Everything that passed one interface since its slot began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceCounter {
    /// Name of the interface.
    pub interface: String,
    /// Generation of the interface's slot.
    pub generation: u32,
    /// Its container; `None` where many share it.
    pub container: Option<ContainerId>,
    /// Its index now, `None` after it went.
    pub ifindex: Option<u32>,
    /// When the program was last attached to it.
    pub attached: Timestamp,
    /// What passed.
    pub passed: ByDirection<PassedCounter>,
    /// How much of the kernel's own statistics of the interface of this index is counted or known as unseen: buffers and
    /// their bytes. Another set of counters begins where this one ended.
    pub accounted: ByDirection<Tally>,
}

/// All counters at one reading. Readings of different counters are not taken at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The node's name.
    pub node: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Random number of this set of counters; another one means that all counters began anew at zero.
    pub epoch: u64,
    /// When the set was made.
    pub epoch_created: Timestamp,
    /// When this reading began, by the wall clock.
    pub time: Timestamp,
    /// The same instant on the clock that neither steps nor stops (`CLOCK_BOOTTIME`), in nanoseconds.
    pub boottime_ns: u64,
    /// The class table in force at the reading.
    pub class_table: ClassTableInfo,
    /// Class counters, sorted by container, class and family; zero ones included for every class in use.
    pub counters: Vec<ClassCounter>,
    /// Fault counters that are not zero.
    pub faults: Vec<FaultCounter>,
    /// Interfaces, those that went included while their slot is theirs.
    pub interfaces: Vec<InterfaceCounter>,
    /// What was counted for containers and interfaces whose slots went to others; their final readings are in the
    /// ledger. Without it nothing would balance.
    pub former: ByDirection<Balance>,
    /// What of `former` is in faults, both directions added up, by the number of the fault.
    pub former_faults: [Tally; FAULTS],
    /// What of `former` was [estimated](PassedCounter::estimated), both directions added up.
    pub former_estimated: Tally,
}

/// What passed all interfaces, and where it was counted. Equal sums are the proof that nothing was missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// What passed, by the interfaces' totals.
    pub passed: Tally,
    /// What is in class counters.
    pub classes: Tally,
    /// What is in fault counters.
    pub faults: Tally,
}

impl Balance {
    /// Passed less classes less faults: zero when traffic rests; while it flows, what passed between two readings.
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
    /// Sums over the whole node, by direction.
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

    /// Class counters without those of former lives: of an id that was retired and given away again only the later one.
    pub fn present_counters(&self) -> impl Iterator<Item = &ClassCounter> {
        let mut latest: BTreeMap<&ContainerId, u32> = BTreeMap::new();
        for counter in &self.counters {
            let generation = latest.entry(&counter.container).or_default();
            *generation = counter.generation.max(*generation);
        }
        self.counters
            .iter()
            .filter(move |counter| latest.get(&counter.container) == Some(&counter.generation))
    }

    /// All containers that have counters, each once.
    pub fn containers(&self) -> std::collections::BTreeSet<&ContainerId> {
        self.counters.iter().map(|counter| &counter.container).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_shows_with_its_sign() {
        let tally = |packets, bytes| Tally { packets, bytes };
        let balance = Balance { passed: tally(10, 1000), classes: tally(7, 800), faults: tally(2, 100) };
        assert_eq!(balance.unaccounted(), (1, 100));
        let balance = Balance { passed: tally(1, 10), classes: tally(2, 30), faults: tally(0, 0) };
        assert_eq!(balance.unaccounted(), (-1, -20));
    }
}
