//! Reading all counters: the one way from the maps to a [`Snapshot`].

use jiff::Timestamp;
use traffic_common::{
    ClassCounters, ContainerRecord, Direction, FAULTS, Family, Fault, FaultCounters, InterfaceCounters,
    InterfaceRecord, InterfaceStatistics, Meta, Passed, Tally, slot_state,
};
use traffic_model::{
    Balance, ByDirection, ClassCounter, ClassTableInfo, FaultCounter, InterfaceCounter, PassedCounter,
    Snapshot,
};

use crate::{
    kernel::{
        maps::Maps,
        records::{container_id, read_text},
        tables,
    },
    time,
};

/// Reads everything that is counted.
///
/// # Errors
/// When a map can't be read.
pub fn read(maps: &Maps, node: &str) -> anyhow::Result<Snapshot> {
    loop {
        let before = owners(maps)?;
        let snapshot = read_once(maps, node, &before)?;
        if !before.changed_hands(&owners(maps)?) {
            return Ok(snapshot);
        }
    }
}

/// Who owns which slot.
struct Owners {
    containers: Vec<ContainerRecord>,
    interfaces: Vec<InterfaceRecord>,
}

impl Owners {
    /// Whether a slot that was read has another owner or none by now: one's counters would be shown under the other's name. One
    /// that nobody had before was not read; its first owner may come, and a thousand one after the other.
    fn changed_hands(&self, now: &Self) -> bool {
        let changed = |before: (u32, u32), now: (u32, u32)| before.1 != 0 && before != now;
        let container = |record: &ContainerRecord| (record.state, record.generation);
        let interface = |record: &InterfaceRecord| (record.state, record.generation);
        self.containers.iter().zip(&now.containers).any(|(a, b)| changed(container(a), container(b)))
            || self.interfaces.iter().zip(&now.interfaces).any(|(a, b)| changed(interface(a), interface(b)))
    }
}

fn owners(maps: &Maps) -> anyhow::Result<Owners> {
    Ok(Owners {
        containers: maps.containers.range(0, maps.containers.len())?,
        interfaces: maps.interfaces.range(0, maps.interfaces.len())?,
    })
}

fn read_once(maps: &Maps, node: &str, owners: &Owners) -> anyhow::Result<Snapshot> {
    let meta = stable_meta(maps)?;
    let mut snapshot = Snapshot {
        node: node.to_owned(),
        boot_id: String::from_utf8_lossy(&meta.boot_id).into_owned(),
        epoch: meta.epoch,
        epoch_created: time::timestamp(meta.created_unix_s),
        time: Timestamp::now(),
        boottime_ns: time::boottime_ns(),
        class_table: table_info(&meta),
        counters: Vec::new(),
        faults: Vec::new(),
        interfaces: Vec::new(),
        former: ByDirection::default(),
        former_faults: [Tally::default(); FAULTS],
        former_estimated: Tally::default(),
    };
    // Readings are not of one instant. Read before the classes, the interfaces' totals hold nothing that these lack, so that
    // what is called accounted for is in the sums.
    let earlier = interface_totals(maps, &owners.interfaces)?;
    read_classes(maps, &meta, &owners.containers, &mut snapshot)?;
    read_interfaces(maps, &owners.interfaces, &earlier, &mut snapshot)?;
    Ok(snapshot)
}

/// The totals of all interface slots that ever had an owner, bases included.
fn interface_totals(maps: &Maps, owners: &[InterfaceRecord]) -> anyhow::Result<Vec<InterfaceCounters>> {
    let last = owners.iter().rposition(|record| record.generation != 0);
    let slots = u32::try_from(last.map_or(0, |last| last + 1))?;
    let values = maps.interface_counters.range(0, slots)?;
    Ok(values.chunks_exact(maps.interface_counters.copies()).map(sum_interface).collect())
}

/// Which class table is in force.
///
/// # Errors
/// When the map can't be read.
pub fn class_table(maps: &Maps) -> anyhow::Result<ClassTableInfo> {
    stable_meta(maps).map(|meta| table_info(&meta))
}

fn table_info(meta: &Meta) -> ClassTableInfo {
    ClassTableInfo {
        hash: meta.table_hash,
        loaded: time::timestamp(meta.table_loaded_unix_s),
        prefixes: meta.table_prefixes,
    }
}

/// A reading of the description that no writer changed halfway.
fn stable_meta(maps: &Maps) -> anyhow::Result<Meta> {
    let mut meta = maps.meta.get(0)?;
    loop {
        let again = maps.meta.get(0)?;
        if again == meta {
            return Ok(meta);
        }
        meta = again;
    }
}

fn read_classes(
    maps: &Maps,
    meta: &Meta,
    owners: &[ContainerRecord],
    snapshot: &mut Snapshot,
) -> anyhow::Result<()> {
    let mut columns = tables::columns(meta);
    // Slots are given from the first on, so those ever owned are a short head of the map, read in one go.
    let last = owners.iter().rposition(|record| record.generation != 0);
    let slots = u32::try_from(last.map_or(0, |last| last + 1))?;
    let copies = maps.class_counters.copies();
    let values = maps.class_counters.range(0, slots * meta.columns)?;
    let bases = maps.class_bases.range(0, slots * meta.columns)?;
    // In order before there is a row for each class and family of them: what is sorted below then is so already, but for
    // the slots that one id had, one after another.
    let mut containers: Vec<_> = (0..slots as usize)
        .zip(owners)
        .map(|(slot, record)| (container_id(record), slot, record.generation))
        .collect();
    containers.sort_by(|(a, ..), (b, ..)| {
        a.as_ref().map(|id| natural(id.as_str())).cmp(&b.as_ref().map(|id| natural(id.as_str())))
    });
    columns.sort_unstable_by_key(|&(_, class)| class);
    snapshot.counters.reserve(containers.len() * columns.len() * Family::ALL.len());
    for (container, slot, generation) in containers {
        for &(column, class) in &columns {
            let at = slot * meta.columns as usize + column as usize;
            let all = sum_class(&values[at * copies..(at + 1) * copies]);
            let Some(container) = &container else {
                former(snapshot, |balance, direction| add_class(&mut balance.classes, &all, direction));
                continue;
            };
            former(snapshot, |balance, direction| add_class(&mut balance.classes, &bases[at], direction));
            let sum = class_since(&all, &bases[at]);
            for family in Family::ALL {
                snapshot.counters.push(ClassCounter {
                    container: container.clone(),
                    generation,
                    class,
                    family,
                    tally: ByDirection::from_array(sum.tallies[family as usize]),
                });
            }
        }
    }
    snapshot.counters.sort_by(|a, b| {
        (natural(a.container.as_str()), a.class, a.family).cmp(&(
            natural(b.container.as_str()),
            b.class,
            b.family,
        ))
    });
    Ok(())
}

/// Adds to what belongs to former owners of slots.
fn former(snapshot: &mut Snapshot, add: impl Fn(&mut Balance, Direction)) {
    add(&mut snapshot.former.incoming, Direction::In);
    add(&mut snapshot.former.outgoing, Direction::Out);
}

fn add_class(to: &mut Tally, counters: &ClassCounters, direction: Direction) {
    for family in Family::ALL {
        *to += counters.tallies[family as usize][direction as usize];
    }
}

/// Sorts numbers by value and before names.
fn natural(id: &str) -> (u64, &str) {
    (id.parse().unwrap_or(u64::MAX), id)
}

fn read_interfaces(
    maps: &Maps,
    owners: &[InterfaceRecord],
    earlier: &[InterfaceCounters],
    snapshot: &mut Snapshot,
) -> anyhow::Result<()> {
    let last = owners.iter().rposition(|record| record.generation != 0);
    let slots = u32::try_from(last.map_or(0, |last| last + 1))?;
    let copies = maps.interface_counters.copies();
    let passed = maps.interface_counters.range(0, slots)?;
    let faults = maps.fault_counters.range(0, slots)?;
    let passed_bases = maps.interface_bases.range(0, slots)?;
    let fault_bases = maps.fault_bases.range(0, slots)?;
    for (slot, record) in owners.iter().enumerate().take(slots as usize) {
        let (mut passed_base, mut faults_base) = (passed_bases[slot], fault_bases[slot]);
        let passed = sum_interface(&passed[slot * copies..(slot + 1) * copies]);
        let faults = sum_faults(&faults[slot * copies..(slot + 1) * copies]);
        let is_owned = record.state != slot_state::FREE;
        if !is_owned {
            (passed_base, faults_base) = (passed, faults);
        }
        former(snapshot, |balance, direction| {
            balance.passed += passed_base.passed[direction as usize].wire;
            balance.faults += faults_base.faults[direction as usize].iter().copied().sum();
        });
        for direction in [Direction::In, Direction::Out] {
            snapshot.former_estimated += faults_base.estimated[direction as usize];
            for (to, from) in snapshot.former_faults.iter_mut().zip(&faults_base.faults[direction as usize]) {
                *to += *from;
            }
        }
        if !is_owned {
            continue;
        }
        let passed = interface_since(&passed, &passed_base);
        let faults = faults_since(&faults, &faults_base);
        let interface = read_text(&record.name);
        if slot == traffic_common::UNKNOWN_INTERFACE_SLOT as usize && passed == InterfaceCounters::default() {
            continue;
        }
        for fault in Fault::ALL {
            let tally = ByDirection::from_array(
                [Direction::In, Direction::Out].map(|d| faults.faults[d as usize][fault as usize]),
            );
            if tally != ByDirection::default() {
                snapshot.faults.push(FaultCounter {
                    interface: interface.to_owned(),
                    generation: record.generation,
                    fault,
                    tally,
                });
            }
        }
        let accounted = accounted(record, &earlier.get(slot).copied().unwrap_or_default());
        snapshot
            .interfaces
            .push(InterfaceCounter { accounted, ..interface_counter(record, &passed, &faults) });
    }
    snapshot.interfaces.sort_by(|a, b| a.interface.cmp(&b.interface));
    snapshot.faults.sort_by(|a, b| (&a.interface, a.fault).cmp(&(&b.interface, b.fault)));
    Ok(())
}

fn interface_counter(
    record: &InterfaceRecord,
    passed: &InterfaceCounters,
    faults: &FaultCounters,
) -> InterfaceCounter {
    let one = |direction: Direction| {
        let at = direction as usize;
        PassedCounter {
            wire: passed.passed[at].wire,
            skbs: passed.passed[at].skbs,
            skb_bytes: passed.passed[at].skb_bytes,
            estimated: faults.estimated[at],
            missed_skbs: record.missed.packets[at],
            missed_skb_bytes: record.missed.bytes[at],
        }
    };
    let container = read_text(&record.container);
    InterfaceCounter {
        interface: read_text(&record.name).to_owned(),
        generation: record.generation,
        container: traffic_model::ContainerId::new(container).ok(),
        ifindex: (record.ifindex != 0).then_some(record.ifindex),
        attached: time::timestamp(record.attached_unix_s),
        passed: ByDirection { incoming: one(Direction::In), outgoing: one(Direction::Out) },
        accounted: ByDirection::default(),
    }
}

/// How much of the kernel's statistics of an interface these totals account for, besides what is known as unseen.
fn accounted(record: &InterfaceRecord, totals: &InterfaceCounters) -> ByDirection<Tally> {
    let one = |direction: Direction| {
        let at = direction as usize;
        let passed = &totals.passed[at];
        Tally {
            packets: record.kernel_before.packets[at]
                + passed.skbs.saturating_sub(record.counted_before.packets[at]),
            bytes: record.kernel_before.bytes[at]
                + passed.skb_bytes.saturating_sub(record.counted_before.bytes[at]),
        }
    };
    ByDirection { incoming: one(Direction::In), outgoing: one(Direction::Out) }
}

/// What the kernel counted on an interface since we were attached, and what we counted, in buffers and their bytes:
/// what the difference should be is zero.
pub fn since_attach(
    record: &InterfaceRecord,
    kernel: &InterfaceStatistics,
    ours: &InterfaceCounters,
) -> ByDirection<[(u64, u64); 2]> {
    let one = |direction: Direction| {
        let at = direction as usize;
        [
            (
                kernel.packets[at].saturating_sub(record.kernel_before.packets[at]),
                ours.passed[at].skbs.saturating_sub(record.counted_before.packets[at]),
            ),
            (
                kernel.bytes[at].saturating_sub(record.kernel_before.bytes[at]),
                ours.passed[at].skb_bytes.saturating_sub(record.counted_before.bytes[at]),
            ),
        ]
    };
    ByDirection { incoming: one(Direction::In), outgoing: one(Direction::Out) }
}

/// Whether the kernel passed more, by the figures of [`since_attach`], than reached the program.
///
/// The program sees a buffer whole. A device that can't segment (a veth or a tap with its offloads off) has it cut only
/// afterwards and counts the pieces: up to as many packets and bytes as we have counted on the wire, that is nothing missed.
pub fn is_missed(
    [(kernel_packets, packets), (kernel_bytes, bytes)]: [(u64, u64); 2],
    passed: &Passed,
) -> bool {
    // Ethernet with two tags. Bytes on the wire are layer 3, those of buffers are with their link header.
    const LINK_HEADER: u64 = 22;
    let on_wire = passed.wire.bytes.wrapping_add(passed.wire.packets.wrapping_mul(LINK_HEADER));
    let pieces = passed.wire.packets.saturating_sub(passed.skbs);
    let headers = if pieces == 0 { 0 } else { on_wire.saturating_sub(passed.skb_bytes) };
    kernel_packets > packets.saturating_add(pieces)
        || kernel_packets > packets && kernel_bytes > bytes.saturating_add(headers)
}

fn class_since(now: &ClassCounters, base: &ClassCounters) -> ClassCounters {
    let mut since_base = *now;
    for (to, base) in since_base.tallies.as_flattened_mut().iter_mut().zip(base.tallies.as_flattened()) {
        *to = to.saturating_sub(*base);
    }
    since_base
}

fn interface_since(now: &InterfaceCounters, base: &InterfaceCounters) -> InterfaceCounters {
    let mut since_base = *now;
    for (to, base) in since_base.passed.iter_mut().zip(&base.passed) {
        to.wire = to.wire.saturating_sub(base.wire);
        to.skbs = to.skbs.saturating_sub(base.skbs);
        to.skb_bytes = to.skb_bytes.saturating_sub(base.skb_bytes);
    }
    since_base
}

fn faults_since(now: &FaultCounters, base: &FaultCounters) -> FaultCounters {
    let mut since_base = *now;
    for (to, base) in since_base.faults.as_flattened_mut().iter_mut().zip(base.faults.as_flattened()) {
        *to = to.saturating_sub(*base);
    }
    for (to, base) in since_base.estimated.iter_mut().zip(&base.estimated) {
        *to = to.saturating_sub(*base);
    }
    since_base
}

/// Makes all that is counted in a container's slot so far its base: whoever gets it next begins at zero.
///
/// # Errors
/// When a map can't be read or written.
pub fn rebase_container(maps: &mut Maps, slot: u32) -> anyhow::Result<()> {
    let columns = maps.control.get(0)?.columns;
    let copies = maps.class_counters.copies();
    let values = maps.class_counters.range(slot * columns, columns)?;
    for (index, values) in (slot * columns..).zip(values.chunks(copies)) {
        maps.class_bases.set(index, sum_class(values))?;
    }
    Ok(())
}

/// The same for an interface's slot.
///
/// # Errors
/// When a map can't be read or written.
pub fn rebase_interface(maps: &mut Maps, slot: u32) -> anyhow::Result<()> {
    let (passed, faults) = (maps.interface_counters.range(slot, 1)?, maps.fault_counters.range(slot, 1)?);
    maps.interface_bases.set(slot, sum_interface(&passed))?;
    maps.fault_bases.set(slot, sum_faults(&faults))
}

fn sum_class(copies: &[ClassCounters]) -> ClassCounters {
    let mut sum = ClassCounters::default();
    for copy in copies {
        for (to, from) in sum.tallies.as_flattened_mut().iter_mut().zip(copy.tallies.as_flattened()) {
            *to += *from;
        }
    }
    sum
}

/// Sums the CPUs' copies of an interface's totals.
pub fn sum_interface(copies: &[InterfaceCounters]) -> InterfaceCounters {
    let mut sum = InterfaceCounters::default();
    for copy in copies {
        for (to, from) in sum.passed.iter_mut().zip(&copy.passed) {
            to.wire += from.wire;
            to.skbs = to.skbs.saturating_add(from.skbs);
            to.skb_bytes = to.skb_bytes.saturating_add(from.skb_bytes);
        }
    }
    sum
}

fn sum_faults(copies: &[FaultCounters]) -> FaultCounters {
    let mut sum = FaultCounters::default();
    for copy in copies {
        for (to, from) in sum.faults.as_flattened_mut().iter_mut().zip(copy.faults.as_flattened()) {
            *to += *from;
        }
        for (to, from) in sum.estimated.iter_mut().zip(&copy.estimated) {
            *to += *from;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A structure whose every field has another value, so that a mix-up shows.
    fn tally(base: u64) -> Tally {
        Tally { packets: base, bytes: base + 1000 }
    }

    #[test]
    fn what_a_device_cuts_is_not_missed() {
        // Two buffers of fifteen segments each, 52 bytes of headers and 1448 of payload.
        let passed = Passed { wire: Tally { packets: 30, bytes: 45_000 }, skbs: 2, skb_bytes: 43_572 };
        let whole = [(2, 2), (43_572, 43_572)];
        let cut = [(30, 2), (30 * 1514, 43_572)];
        assert!(!is_missed(whole, &passed));
        assert!(!is_missed(cut, &passed));
        let one_more_packet = [(31, 2), (30 * 1514 + 60, 43_572)];
        let one_more_buffer = [(3, 2), (43_572 + 21_786, 43_572)];
        assert!(is_missed(one_more_packet, &passed));
        assert!(is_missed(one_more_buffer, &passed));
    }

    #[test]
    fn every_buffer_that_is_one_packet_must_be_seen() {
        let passed = Passed { wire: Tally { packets: 7, bytes: 700 }, skbs: 7, skb_bytes: 798 };
        assert!(!is_missed([(7, 7), (798, 798)], &passed));
        assert!(is_missed([(8, 7), (858, 798)], &passed));
    }

    #[test]
    fn every_field_of_a_class_counter_is_summed_into_its_own_place() {
        let one = ClassCounters { tallies: [[tally(1), tally(2)], [tally(3), tally(4)]] };
        let other = ClassCounters { tallies: [[tally(10), tally(20)], [tally(30), tally(40)]] };
        let sum = sum_class(&[one, other]);
        let expected = [[(11, 2011), (22, 2022)], [(33, 2033), (44, 2044)]];
        assert_eq!(sum.tallies.map(|row| row.map(|t| (t.packets, t.bytes))), expected);
    }

    #[test]
    fn interface_and_fault_copies_sum_field_by_field() {
        let mut interface = InterfaceCounters::default();
        interface.passed[0] = Passed { wire: tally(5), skbs: 6, skb_bytes: 7 };
        interface.passed[1] = Passed { wire: tally(8), skbs: 9, skb_bytes: 11 };
        let sum = sum_interface(&[interface, interface]);
        assert_eq!((sum.passed[0].wire.packets, sum.passed[0].skbs, sum.passed[0].skb_bytes), (10, 12, 14));
        assert_eq!((sum.passed[1].wire.bytes, sum.passed[1].skbs, sum.passed[1].skb_bytes), (2016, 18, 22));

        let mut faults = FaultCounters::default();
        faults.faults[1][Fault::Malformed as usize] = tally(3);
        faults.estimated[0] = tally(4);
        let sum = sum_faults(&[faults, faults, faults]);
        assert_eq!(sum.faults[1][Fault::Malformed as usize].packets, 9);
        assert_eq!(sum.faults[0][Fault::Malformed as usize].packets, 0);
        assert_eq!((sum.estimated[0].packets, sum.estimated[1].packets), (12, 0));
    }

    #[test]
    fn what_a_slot_held_before_its_owner_is_taken_off_field_by_field() {
        let base = ClassCounters { tallies: [[tally(1), tally(2)], [tally(3), tally(4)]] };
        let now = ClassCounters { tallies: [[tally(11), tally(22)], [tally(33), tally(44)]] };
        let expected = [[(10, 10), (20, 20)], [(30, 30), (40, 40)]];
        assert_eq!(class_since(&now, &base).tallies.map(|row| row.map(|t| (t.packets, t.bytes))), expected);

        let mut base = InterfaceCounters::default();
        base.passed[1] = Passed { wire: tally(1), skbs: 2, skb_bytes: 3 };
        let mut now = InterfaceCounters::default();
        now.passed[1] = Passed { wire: tally(5), skbs: 12, skb_bytes: 103 };
        let since_base = interface_since(&now, &base).passed[1];
        assert_eq!((since_base.wire.packets, since_base.skbs, since_base.skb_bytes), (4, 10, 100));

        let (mut base, mut now) = (FaultCounters::default(), FaultCounters::default());
        base.faults[1][Fault::Malformed as usize] = tally(3);
        now.faults[1][Fault::Malformed as usize] = tally(9);
        now.estimated[0] = tally(4);
        let since_base = faults_since(&now, &base);
        assert_eq!(since_base.faults[1][Fault::Malformed as usize].packets, 6);
        assert_eq!(since_base.estimated[0].bytes, 1004);
    }

    #[test]
    fn numbers_sort_before_names_and_by_value() {
        let mut ids = ["veth", "100", "20", "0", "a-uuid"];
        ids.sort_by_key(|id| natural(id));
        assert_eq!(ids, ["0", "20", "100", "a-uuid", "veth"]);
    }
}
