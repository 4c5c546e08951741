//! What passed an attached interface and never reached the program: the kernel's statistics grew, and ours did not.
//!
//! Another tool can take packets before the hook (a program that redirects, a flowtable, generic XDP), and a sender
//! can go past it (`bpf_redirect_peer`, AF_PACKET with qdisc bypass). The amount is a lower bound: what the kernel drops
//! behind the hook is missing in its statistics, and hides as much.

use std::{thread, time::Duration};

use traffic_common::{Direction, InterfaceCounters, InterfaceRecord};
use traffic_model::ByDirection;

use super::{
    attached,
    excess::is_comparable,
    missed::{Buffers, beyond_pieces, is_missed, since_attach},
};
use crate::net::interface::NetInterface;

/// How often a suspicion is looked at again.
const LOOKS: u32 = 3;
/// Time between two looks. The kernel counts a received buffer before the hook sees it, so a packet can be under way.
const PAUSE: Duration = Duration::from_millis(10);

/// An interface that the kernel counted more on than we did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// The slot.
    pub slot: u32,
    /// The slot's record.
    pub record: InterfaceRecord,
    /// The interface with the kernel's statistics.
    interface: NetInterface,
    /// What passed the hooks by, at the least.
    pub missed: ByDirection<Buffers>,
}

/// The interfaces on which the kernel counted more than we did. `totals` are those of all slots, read after the
/// listing.
pub fn suspects(
    records: &[InterfaceRecord],
    totals: &[InterfaceCounters],
    listed: &[NetInterface],
) -> Vec<Bypass> {
    let of = |(slot, record, interface): (usize, &InterfaceRecord, &NetInterface)| {
        let missed = missed(record, interface, totals.get(slot)?)?;
        Some(Bypass {
            slot: u32::try_from(slot).ok()?,
            record: *record,
            interface: interface.clone(),
            missed,
        })
    };
    attached(records, listed).filter_map(of).collect()
}

/// Reads our counters again, and leaves those that still lack what the kernel had counted at first.
///
/// # Errors
/// When the counters cannot be read.
pub fn confirmed(
    mut suspects: Vec<Bypass>,
    read: impl Fn(u32) -> anyhow::Result<InterfaceCounters>,
) -> anyhow::Result<Vec<Bypass>> {
    for _ in 0..LOOKS {
        if suspects.is_empty() {
            break;
        }
        thread::sleep(PAUSE);
        let mut left = Vec::with_capacity(suspects.len());
        for suspect in suspects {
            let ours = read(suspect.slot)?;
            left.extend(
                missed(&suspect.record, &suspect.interface, &ours).map(|missed| Bypass { missed, ..suspect }),
            );
        }
        suspects = left;
    }
    Ok(suspects)
}

/// What the kernel counted on an interface and we did not; `None` for nothing, or where the two cannot be compared.
fn missed(
    record: &InterfaceRecord,
    interface: &NetInterface,
    ours: &InterfaceCounters,
) -> Option<ByDirection<Buffers>> {
    if !is_comparable(record, interface) {
        return None;
    }
    let since = since_attach(record, &interface.statistics, ours);
    let of = |direction: Direction| {
        let (side, passed) = (*since.of(direction), &ours.passed[direction as usize]);
        if is_missed(side, passed) { beyond_pieces(side, passed) } else { Buffers::default() }
    };
    let missed = ByDirection { incoming: of(Direction::In), outgoing: of(Direction::Out) };
    let is_any = missed.incoming != Buffers::default() || missed.outgoing != Buffers::default();
    is_any.then_some(missed)
}

#[cfg(test)]
mod tests {
    use traffic_common::InterfaceStatistics;

    use super::*;
    use crate::kernel::records::EMPTY_INTERFACE;

    fn veth(index: u32, incoming: u64, outgoing: u64) -> NetInterface {
        let mut statistics = InterfaceStatistics::default();
        let (at_in, at_out) = (Direction::In as usize, Direction::Out as usize);
        (statistics.packets[at_in], statistics.packets[at_out]) = (incoming, outgoing);
        (statistics.bytes[at_in], statistics.bytes[at_out]) = (incoming * 114, outgoing * 74);
        NetInterface { index, kind: "veth".to_owned(), statistics, ..NetInterface::default() }
    }

    fn ours(incoming: u64, outgoing: u64) -> InterfaceCounters {
        let mut counters = InterfaceCounters::default();
        for (direction, skbs, bytes) in [(Direction::In, incoming, 114), (Direction::Out, outgoing, 74)] {
            let passed = &mut counters.passed[direction as usize];
            (passed.skbs, passed.skb_bytes) = (skbs, skbs * bytes);
            (passed.wire.packets, passed.wire.bytes) = (skbs, skbs * (bytes - 14));
        }
        counters
    }

    #[test]
    fn what_the_kernel_has_and_we_do_not_passed_by() {
        let record = |ifindex| InterfaceRecord { ifindex, ..EMPTY_INTERFACE };
        // An attach that was interrupted left a second record of the first.
        let records = [record(7), record(8), record(0), record(9), record(7)];
        let totals = [ours(10, 20), ours(10, 20), ours(0, 0), ours(10, 20), ours(0, 0)];
        // One is fine, one is not there any more, and of one something is missing.
        let listed = [veth(7, 10, 20), veth(9, 13, 25)];
        let found = suspects(&records, &totals, &listed);
        assert_eq!(found.iter().map(|one| (one.slot, one.record.ifindex)).collect::<Vec<_>>(), [(3, 9)]);
        let expected = ByDirection {
            incoming: Buffers { skbs: 3, bytes: 3 * 114 },
            outgoing: Buffers { skbs: 5, bytes: 5 * 74 },
        };
        assert_eq!(found[0].missed, expected);
        // Two of them were only under way; others passed meanwhile.
        let later = confirmed(found.clone(), |slot| {
            assert_eq!(slot, 3);
            Ok(ours(12, 20))
        });
        assert_eq!(later.unwrap()[0].missed.incoming.skbs, 1);
        assert!(confirmed(found, |_| Ok(ours(13, 26))).unwrap().is_empty());
    }

    #[test]
    fn pieces_of_super_packets_did_not_pass_by() {
        let record = InterfaceRecord { ifindex: 7, ..EMPTY_INTERFACE };
        let mut counted = ours(2, 0);
        // Two buffers of ten packets each, which the device cut.
        let passed = &mut counted.passed[Direction::In as usize];
        (passed.wire.packets, passed.wire.bytes) = (20, 20 * 1400);
        passed.skb_bytes = 2 * 13_054;
        let mut cut = veth(7, 20, 0);
        cut.statistics.bytes[Direction::In as usize] = 20 * 1414;
        assert!(suspects(&[record], &[counted], &[cut.clone()]).is_empty());
        cut.statistics.packets[Direction::In as usize] = 23;
        let found = suspects(&[record], &[counted], &[cut]);
        assert_eq!(found[0].missed.incoming.skbs, 3);
    }
}
