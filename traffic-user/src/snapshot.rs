//! One reading of everything that is counted: plain data, the only thing that flows from the kernel side to
//! rendering, the ledger and exports. It knows neither maps nor output formats.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use traffic_common::{DIRECTIONS, Direction, FAULTS, Family, Fault, Tally};

/// A container's id as text: a number or a UUID, never empty, at most 63 bytes. `0` is the node itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

/// The id of the node itself.
pub const NODE_ID: &str = "0";

fn is_uuid(text: &str) -> bool {
    let digit_or_dash = |(at, b): (usize, u8)| {
        if matches!(at, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_hexdigit() }
    };
    text.len() == 36 && text.bytes().enumerate().all(digit_or_dash)
}

/// Why a text is no container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("container id {id:?} is not usable: {reason}")]
pub struct InvalidContainerId {
    /// What was given.
    pub id: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ContainerId {
    /// Takes letters, digits, `-`, `_`, `.` and `:`; braces around a UUID are dropped and its letters made small.
    ///
    /// # Errors
    /// When the id is empty, too long for its place in the maps, or holds other characters (it stands in
    /// blank-separated columns).
    pub fn new(id: &str) -> Result<Self, InvalidContainerId> {
        let invalid = |reason| InvalidContainerId { id: id.to_owned(), reason };
        let bare = id.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(id);
        if bare.is_empty() {
            return Err(invalid("it is empty"));
        }
        if bare.len() >= traffic_common::CONTAINER_ID_BYTES {
            return Err(invalid("it is longer than 63 bytes"));
        }
        if !bare.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b)) {
            return Err(invalid("only letters, digits and - _ . : may stand in it"));
        }
        Ok(Self(if is_uuid(bare) { bare.to_ascii_lowercase() } else { bare.to_owned() }))
    }

    /// Takes the id of a container or a machine: as [`Self::new`], but for `0`, which is the node itself.
    ///
    /// # Errors
    /// As [`Self::new`], and when the id is the node's.
    pub fn of_container(id: &str) -> Result<Self, InvalidContainerId> {
        let taken = Self::new(id)?;
        if taken.0.bytes().all(|b| b == b'0') {
            let reason = "it is the node itself, whose interfaces are named under [node] uplinks";
            return Err(InvalidContainerId { id: id.to_owned(), reason });
        }
        Ok(taken)
    }

    /// The node itself.
    pub fn node() -> Self {
        Self(NODE_ID.to_owned())
    }

    /// Whether it is the node itself.
    pub fn is_node(&self) -> bool {
        self.0 == NODE_ID
    }

    /// Whether it is a UUID in its usual form.
    pub fn is_uuid(&self) -> bool {
        is_uuid(&self.0)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

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

impl ByDirection<Tally> {
    /// What came since an earlier reading. One that is above this was taken just after it.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let one = |now: &Tally, earlier: &Tally| Tally {
            packets: now.packets.saturating_sub(earlier.packets),
            bytes: now.bytes.saturating_sub(earlier.bytes),
        };
        Self {
            incoming: one(&self.incoming, &earlier.incoming),
            outgoing: one(&self.outgoing, &earlier.outgoing),
        }
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

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
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
    pub unseen_skbs: u64,
    /// Their bytes with the link-layer header.
    pub unseen_skb_bytes: u64,
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
        let add = |to: &mut Tally, tally: &Tally| {
            to.packets += tally.packets;
            to.bytes += tally.bytes;
        };
        for interface in &self.interfaces {
            add(&mut balance.incoming.passed, &interface.passed.incoming.wire);
            add(&mut balance.outgoing.passed, &interface.passed.outgoing.wire);
        }
        for counter in &self.counters {
            add(&mut balance.incoming.classes, &counter.tally.incoming);
            add(&mut balance.outgoing.classes, &counter.tally.outgoing);
        }
        for fault in &self.faults {
            add(&mut balance.incoming.faults, &fault.tally.incoming);
            add(&mut balance.outgoing.faults, &fault.tally.outgoing);
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
    fn ids_as_people_type_them() {
        let id = |text: &str| ContainerId::new(text).map(|id| id.to_string());
        assert_eq!(id("101"), Ok("101".to_owned()));
        assert_eq!(
            id("{6D1E1C39-63E6-4A2B-8EF4-1B7A1D2F3C4D}"),
            Ok("6d1e1c39-63e6-4a2b-8ef4-1b7a1d2f3c4d".to_owned())
        );
        assert_eq!(id("Web-Server"), Ok("Web-Server".to_owned()), "only UUIDs have no case");
        for bad in ["", "{}", "a b", "a\tb", "ä", &"x".repeat(64)] {
            assert!(id(bad).is_err(), "{bad:?}");
        }
        assert!(ContainerId::new("0").unwrap().is_node());
        assert!(!ContainerId::new("10").unwrap().is_node());
        for node in ["0", "00"] {
            let error = ContainerId::of_container(node).unwrap_err().to_string();
            assert!(error.contains("is the node itself"), "{error}");
        }
    }

    #[test]
    fn what_is_missing_shows_with_its_sign() {
        let tally = |packets, bytes| Tally { packets, bytes };
        let balance = Balance { passed: tally(10, 1000), classes: tally(7, 800), faults: tally(2, 100) };
        assert_eq!(balance.unaccounted(), (1, 100));
        let balance = Balance { passed: tally(1, 10), classes: tally(2, 30), faults: tally(0, 0) };
        assert_eq!(balance.unaccounted(), (-1, -20));
    }
}
