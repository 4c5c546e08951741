//! The opposite of missed traffic: more counted than the kernel's statistics of an interface show.
//!
//! Only buffers are compared. They are the same on both sides: a super-packet is one buffer for the hook and for
//! the statistics. Bytes are not, because some drivers leave out the link-layer header.
//!
//! What an interface *receives*, the kernel counts before the hook sees it, or just after. So the hook cannot
//! see more, except a packet that passes it twice, or one that another tool puts there. What is *sent* passes the
//! hook first. Queues, other programs and filters may drop it behind the hook, and it counts all the same. So
//! that direction is only compared where none of these exists, and only over a time in which none existed.

use std::{thread, time::Duration};

use traffic_common::{Direction, InterfaceCounters, InterfaceRecord, Tally};

use super::missed::{Buffers, since_attach};
use crate::{kernel::records::read_text, net::interface::NetInterface};

/// Buffers that never count as an excess. The two sides of the base, and of a comparison, are not read at one
/// instant, and packets pass in between.
const UNCERTAIN: u64 = 1000;
/// Nor does this part of what was counted, for fast traffic.
const UNCERTAIN_PART: u64 = 32;
/// How often a suspicion is looked at again.
const LOOKS: u32 = 5;
/// Time between two looks. Drivers count at most one round of work after the hook.
const PAUSE: Duration = Duration::from_millis(20);

/// An interface on which the program counted more than the kernel's statistics show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// Its index.
    pub ifindex: u32,
    /// The direction of the container.
    pub direction: Direction,
    /// What the program counted, since it was attached or during the comparison.
    pub counted: Buffers,
    /// What the kernel counted in the same time.
    pub kernel: Buffers,
}

impl Excess {
    /// What was counted beyond the kernel's statistics: buffers and their bytes.
    pub const fn beyond(&self) -> Tally {
        Tally {
            packets: self.counted.skbs.saturating_sub(self.kernel.skbs),
            bytes: self.counted.bytes.saturating_sub(self.kernel.bytes),
        }
    }
}

/// The slot of an interface whose comparison shows an excess: its record, and its totals at that time.
pub type Suspect = (InterfaceRecord, InterfaceCounters);

/// The direction in which an interface receives.
fn received(interface: &NetInterface) -> Direction {
    if interface.is_reversed() { Direction::In } else { Direction::Out }
}

/// Kinds of interfaces on which the kernel's own code counts each buffer at once. A network card counts what GRO
/// then merges, and may report it seconds later.
const COUNTED_AT_ONCE: [&str; 9] =
    ["veth", "netkit", "tun", "venet", "macvlan", "macvtap", "ipvlan", "ipvtap", "vlan"];

/// Whether the kernel's statistics of this interface can be compared with a slot.
pub(super) fn is_comparable(record: &InterfaceRecord, interface: &NetInterface) -> bool {
    const THE_NODE: &str = "0";
    record.ifindex == interface.index
        && !interface.is_uplink
        && COUNTED_AT_ONCE.contains(&interface.kind.as_str())
        && read_text(&record.container) != THE_NODE
}

/// Whether so many buffers more than the kernel's are no uncertainty of the reading.
const fn is_excess(counted: u64, kernel: u64) -> bool {
    counted.saturating_sub(kernel) > UNCERTAIN + counted / UNCERTAIN_PART
}

/// What was counted on received packets beyond the kernel's statistics, if anything. `ours` was read before the
/// interface's statistics.
pub fn of_received(
    record: &InterfaceRecord,
    interface: &NetInterface,
    ours: &InterfaceCounters,
) -> Option<Excess> {
    let direction = received(interface);
    let at = direction as usize;
    // Statistics that fell have begun anew, and the base is of no use.
    if !is_comparable(record, interface)
        || interface.statistics.packets[at] < record.kernel_before.packets[at]
        || interface.statistics.bytes[at] < record.kernel_before.bytes[at]
    {
        return None;
    }
    let since = *since_attach(record, &interface.statistics, ours).of(direction);
    is_excess(since.counted.skbs, since.kernel.skbs).then_some(Excess {
        ifindex: interface.index,
        direction,
        counted: since.counted,
        kernel: since.kernel,
    })
}

/// Looks again at interfaces that showed an excess, and returns those where it lasts. The kernel's statistics may
/// be a moment behind the hook.
///
/// # Errors
/// When the kernel does not answer.
pub fn confirmed(
    suspects: &[Suspect],
    ask: impl Fn(u32) -> anyhow::Result<Option<NetInterface>>,
) -> anyhow::Result<Vec<Excess>> {
    let mut left: Vec<(&Suspect, Option<Excess>)> = suspects.iter().map(|suspect| (suspect, None)).collect();
    for look in 0..LOOKS {
        if left.is_empty() {
            break;
        }
        if look > 0 {
            thread::sleep(PAUSE);
        }
        let mut still = Vec::with_capacity(left.len());
        for ((record, ours), _) in left.iter().map(|(suspect, excess)| (*suspect, excess)) {
            let excess = ask(record.ifindex)?.and_then(|interface| of_received(record, &interface, ours));
            still.push(excess);
        }
        left = left
            .into_iter()
            .zip(still)
            .filter_map(|((suspect, _), excess)| excess.map(|excess| (suspect, Some(excess))))
            .collect();
    }
    Ok(left.into_iter().filter_map(|(_, excess)| excess).collect())
}

/// A reading of an interface for the comparison of what it sends.
#[derive(Clone, Debug)]
pub struct Sending {
    /// The kernel's half.
    pub interface: NetInterface,
    /// The program's half.
    pub ours: InterfaceCounters,
}

/// Whether nothing but the device itself can drop what passed the hook of this interface, as far as the interface
/// shows. Programs and filters on its hook must be looked for besides.
pub fn sends_at_once(interface: &NetInterface) -> bool {
    matches!(interface.kind.as_str(), "veth" | "netkit") && interface.queue == "noqueue"
}

/// What was counted on sent packets beyond the kernel's statistics between two readings, if anything. In the first
/// the kernel's half was read before the program's, in the second after it.
pub fn of_sent(first: &Sending, second: &Sending) -> Option<Excess> {
    let direction = received(&first.interface).reversed();
    let at = direction as usize;
    let sent = |reading: &Sending| {
        let dropped = reading.interface.send_drops;
        (
            reading.interface.statistics.packets[at].saturating_add(dropped),
            reading.interface.statistics.bytes[at],
        )
    };
    let (before, now) = (sent(first), sent(second));
    let (passed, passed_before) = (second.ours.passed[at], first.ours.passed[at]);
    let counted = Buffers {
        skbs: passed.skbs.saturating_sub(passed_before.skbs),
        bytes: passed.skb_bytes.saturating_sub(passed_before.skb_bytes),
    };
    let kernel = Buffers { skbs: now.0.saturating_sub(before.0), bytes: now.1.saturating_sub(before.1) };
    let has_begun_anew = now.0 < before.0 || first.interface.index != second.interface.index;
    let excess = Excess { ifindex: first.interface.index, direction, counted, kernel };
    // Here no base is uncertain, and the order of the readings is on the kernel's side.
    (!has_begun_anew && excess.beyond().packets > counted.skbs / UNCERTAIN_PART).then_some(excess)
}

/// Whether a slot counted more on sent packets since the program was attached than the kernel sent or dropped. That
/// may have many reasons; it is worth a comparison.
pub fn may_exceed_sent(record: &InterfaceRecord, interface: &NetInterface, ours: &InterfaceCounters) -> bool {
    let since = since_attach(record, &interface.statistics, ours);
    let since = since.of(received(interface).reversed());
    is_comparable(record, interface)
        && is_excess(since.counted.skbs, since.kernel.skbs.saturating_add(interface.send_drops))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use traffic_common::{InterfaceStatistics, Passed};

    use super::*;
    use crate::kernel::records::EMPTY_INTERFACE;

    const IN: usize = Direction::In as usize;
    const OUT: usize = Direction::Out as usize;

    fn veth(sent: u64, received: u64) -> NetInterface {
        let mut packets = [0; 2];
        (packets[IN], packets[OUT]) = (sent, received);
        NetInterface {
            index: 7,
            name: "veth101.0".to_owned(),
            kind: "veth".to_owned(),
            queue: "noqueue".to_owned(),
            statistics: InterfaceStatistics { packets, bytes: packets.map(|packets| packets * 100) },
            ..NetInterface::default()
        }
    }

    /// Attached when the kernel had 10 and 20 buffers, and the slot 3 and 4.
    fn record() -> InterfaceRecord {
        let statistics = |packets: [u64; 2]| InterfaceStatistics { packets, bytes: packets.map(|n| n * 100) };
        let mut record = InterfaceRecord {
            ifindex: 7,
            kernel_before: statistics([10, 20]),
            counted_before: statistics([3, 4]),
            ..EMPTY_INTERFACE
        };
        record.container[..3].copy_from_slice(b"101");
        record
    }

    fn counted(incoming: u64, outgoing: u64) -> InterfaceCounters {
        let passed = |skbs: u64| Passed { skbs, skb_bytes: skbs * 100, ..Passed::default() };
        let mut counters = InterfaceCounters::default();
        (counters.passed[IN], counters.passed[OUT]) = (passed(incoming), passed(outgoing));
        counters
    }

    #[test]
    fn received_packets_that_count_twice_are_an_excess() {
        let excess = of_received(&record(), &veth(10, 20 + 5000), &counted(3, 4 + 10_000)).unwrap();
        assert_eq!(
            (excess.direction, excess.counted.skbs, excess.kernel.skbs),
            (Direction::Out, 10_000, 5000)
        );
        assert_eq!(excess.beyond(), Tally { packets: 5000, bytes: 500_000 });
        // A part of them.
        assert!(of_received(&record(), &veth(10, 20 + 100_000), &counted(3, 4 + 105_000)).is_some());
        // On a machine's own end, the other direction is the received one.
        let macvtap = NetInterface { kind: "macvtap".to_owned(), ..veth(10 + 5000, 20) };
        let excess = of_received(&record(), &macvtap, &counted(3 + 10_000, 4)).unwrap();
        assert_eq!(excess.direction, Direction::In);
    }

    #[test]
    fn what_may_have_another_reason_is_no_excess() {
        let doubled = counted(3, 4 + 10_000);
        // As many on both sides, and what passed while they were read.
        assert_eq!(of_received(&record(), &veth(10, 20 + 10_000), &doubled), None);
        assert_eq!(of_received(&record(), &veth(10, 20 + 9000), &doubled), None);
        assert_eq!(of_received(&record(), &veth(10, 20 + 98_000), &counted(3, 4 + 100_000)), None);
        // Sent packets that a queue dropped behind the hook.
        assert_eq!(of_received(&record(), &veth(10, 20), &counted(3 + 10_000, 4)), None);
        // Statistics that began anew.
        assert_eq!(of_received(&record(), &veth(10, 19), &doubled), None);
        // Another device, a network card, an uplink, and the node's own interface.
        assert_eq!(of_received(&record(), &NetInterface { index: 8, ..veth(10, 20) }, &doubled), None);
        assert_eq!(
            of_received(&record(), &NetInterface { kind: String::new(), ..veth(10, 20) }, &doubled),
            None
        );
        assert_eq!(of_received(&record(), &veth(10, 20).as_uplink(), &doubled), None);
        let mut of_node = record();
        of_node.container = EMPTY_INTERFACE.container;
        of_node.container[0] = b'0';
        assert_eq!(of_received(&of_node, &veth(10, 20), &doubled), None);
    }

    #[test]
    fn statistics_that_follow_a_moment_later_are_no_excess() {
        let suspects = [(record(), counted(3, 4 + 10_000))];
        let looks = Cell::new(0);
        let late = |_| {
            looks.set(looks.get() + 1);
            Ok(Some(veth(10, if looks.get() < 3 { 20 } else { 20 + 10_000 })))
        };
        assert_eq!(confirmed(&suspects, late).unwrap(), []);
        assert_eq!(looks.get(), 3);
        // One that stays, and one whose device goes away meanwhile.
        let other = (InterfaceRecord { ifindex: 8, ..record() }, counted(3, 4 + 10_000));
        let answer = |index| Ok((index == 7).then(|| veth(10, 20 + 5000)));
        let excess = confirmed(&[suspects[0], other], answer).unwrap();
        assert_eq!(excess.iter().map(|one| (one.ifindex, one.kernel.skbs)).collect::<Vec<_>>(), [(7, 5000)]);
    }

    #[test]
    fn sent_packets_are_compared_only_between_two_readings() {
        let reading = |sent, drops, counted_in| Sending {
            interface: NetInterface { send_drops: drops, ..veth(sent, 0) },
            ours: counted(counted_in, 0),
        };
        let first = reading(1000, 5, 9000);
        let excess = of_sent(&first, &reading(1100, 5, 9200)).unwrap();
        assert_eq!((excess.direction, excess.beyond().packets), (Direction::In, 100));
        assert_eq!(of_sent(&first, &reading(1200, 5, 9200)), None);
        // The device dropped the rest itself.
        assert_eq!(of_sent(&first, &reading(1100, 105, 9200)), None);
        assert_eq!(of_sent(&first, &first), None);
        assert_eq!(of_sent(&first, &reading(0, 0, 9200)), None);

        assert!(may_exceed_sent(&record(), &veth(10 + 5000, 20), &counted(3 + 10_000, 4)));
        let dropped = NetInterface { send_drops: 5000, ..veth(10 + 5000, 20) };
        assert!(!may_exceed_sent(&record(), &dropped, &counted(3 + 10_000, 4)));
        assert!(sends_at_once(&veth(0, 0)));
        assert!(!sends_at_once(&NetInterface { queue: "htb".to_owned(), ..veth(0, 0) }));
        assert!(!sends_at_once(&NetInterface { kind: "tun".to_owned(), ..veth(0, 0) }));
    }
}
