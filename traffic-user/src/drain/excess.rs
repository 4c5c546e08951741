//! Compares each drained reading with the kernel's statistics of the interfaces, for what was counted too often.

use std::{collections::HashSet, mem};

use traffic_common::{Direction, InterfaceCounters, InterfaceRecord};
use traffic_model::Snapshot;

use super::attached::Attached;
use crate::{
    kernel::{
        counters::{
            self,
            excess::{self, Excess, Suspect},
        },
        maps::Maps,
    },
    net::{interface::NetInterface, netlink::Netlink},
};

/// Remembers where the drain before showed an excess. Only one that lasts from a drain to the next is recorded: a
/// device that was made again under its index shows a false one until it is attached.
#[derive(Debug, Default)]
pub(super) struct ExcessWatch {
    suspected: HashSet<Attached>,
}

impl ExcessWatch {
    /// Adds the excess of each interface to the snapshot. Returns how many buffers that is.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(super) fn compare(&mut self, kernel: &KernelSide, snapshot: &mut Snapshot) -> anyhow::Result<u64> {
        Ok(self.note(&found(kernel)?, snapshot))
    }

    fn note(&mut self, found: &[(InterfaceRecord, Excess)], snapshot: &mut Snapshot) -> u64 {
        let key = Attached::of_record;
        let before = mem::replace(&mut self.suspected, found.iter().map(|(record, _)| key(record)).collect());
        let mut sum = 0_u64;
        for (record, excess) in found.iter().filter(|(record, _)| before.contains(&key(record))) {
            let mut of_slot = snapshot.interfaces.iter_mut().filter(|counter| {
                counter.ifindex == Some(record.ifindex) && counter.generation == record.generation
            });
            if let Some(counter) = of_slot.next() {
                let passed = match excess.direction {
                    Direction::In => &mut counter.passed.incoming,
                    Direction::Out => &mut counter.passed.outgoing,
                };
                passed.excess = excess.beyond();
                sum = sum.saturating_add(passed.excess.packets);
            }
        }
        sum
    }
}

/// What the kernel has of all interfaces, and what the slots had just before it.
pub(super) struct KernelSide {
    pub records: Vec<InterfaceRecord>,
    /// By slot.
    pub totals: Vec<InterfaceCounters>,
    pub listed: Vec<NetInterface>,
    pub netlink: Netlink,
}

impl KernelSide {
    /// Reads both. The counters are read first.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(super) fn read(maps: &Maps) -> anyhow::Result<Self> {
        let records = maps.interfaces.range(0, maps.interfaces.len())?;
        let used = records.iter().rposition(|record| record.ifindex != 0).map_or(0, |last| last + 1);
        let totals = counters::interfaces_totals(maps, u32::try_from(used)?)?;
        let netlink = Netlink::connect()?;
        let listed = netlink.interfaces()?;
        Ok(Self { records, totals, listed, netlink })
    }
}

/// The interfaces that show an excess now.
fn found(kernel: &KernelSide) -> anyhow::Result<Vec<(InterfaceRecord, Excess)>> {
    let suspects = suspects(&kernel.records, &kernel.totals, &kernel.listed);
    let excess = excess::confirmed(&suspects, |index| kernel.netlink.interface(index))?;
    let of = |excess: Excess| {
        let suspect = suspects.iter().find(|(record, _)| record.ifindex == excess.ifindex);
        suspect.map(|(record, _)| (*record, excess))
    };
    Ok(excess.into_iter().filter_map(of).collect())
}

fn suspects(
    records: &[InterfaceRecord],
    totals: &[InterfaceCounters],
    listed: &[NetInterface],
) -> Vec<Suspect> {
    let of = |(slot, record, interface): (usize, &InterfaceRecord, &NetInterface)| {
        let totals = totals.get(slot)?;
        excess::of_received(record, interface, totals).map(|_| (*record, *totals))
    };
    counters::attached(records, listed).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use traffic_common::Tally;
    use traffic_model::sample;

    use super::*;
    use crate::kernel::{counters::Buffers, records::EMPTY_INTERFACE};

    #[test]
    fn only_an_excess_that_lasts_is_recorded() {
        let mut watch = ExcessWatch::default();
        let mut snapshot = sample::snapshot();
        let counter = &mut snapshot.interfaces[0];
        counter.ifindex = Some(7);
        let record = InterfaceRecord {
            ifindex: 7,
            generation: counter.generation,
            attached_unix_s: 5,
            ..EMPTY_INTERFACE
        };
        let excess = |counted| Excess {
            ifindex: 7,
            direction: Direction::Out,
            counted: Buffers { skbs: counted, bytes: counted * 100 },
            kernel: Buffers { skbs: 5000, bytes: 400_000 },
        };
        assert_eq!(watch.note(&[(record, excess(9000))], &mut snapshot), 0);
        assert_eq!(snapshot.interfaces[0].passed.outgoing.excess, Tally::default());
        assert_eq!(watch.note(&[(record, excess(9500))], &mut snapshot), 4500);
        assert_eq!(snapshot.interfaces[0].passed.outgoing.excess, Tally { packets: 4500, bytes: 550_000 });
        assert_eq!(snapshot.interfaces[0].passed.incoming.excess, Tally::default());
        // Attached again since: another base.
        let again = InterfaceRecord { attached_unix_s: 6, ..record };
        assert_eq!(watch.note(&[(again, excess(9500))], &mut snapshot), 0);
        assert_eq!(watch.note(&[], &mut snapshot), 0);
        assert_eq!(watch.note(&[(again, excess(9500))], &mut snapshot), 0);
    }
}
