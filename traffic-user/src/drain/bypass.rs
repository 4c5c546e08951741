//! Adds what passed the hooks of attached interfaces unseen to what was missed, at each drain.

use std::{
    collections::{HashMap, HashSet},
    mem,
};

use traffic_common::Tally;
use traffic_model::{ByDirection, PassedCounter, Snapshot};

use super::{attached::Attached, excess::KernelSide};
use crate::kernel::{
    counters::{
        self, Buffers,
        bypass::{self, Bypass},
    },
    maps::Maps,
};

/// Remembers what was found. Only what lasts from a drain to the next is added, because a device that was made again
/// under its index looks as if it were bypassed, until it is attached. What was added once stays: in the ledger, too
/// much is as wrong as too little.
#[derive(Debug, Default)]
pub(super) struct BypassWatch {
    suspected: HashMap<Attached, ByDirection<Buffers>>,
    added: HashMap<Attached, ByDirection<Buffers>>,
}

impl BypassWatch {
    /// Compares all interfaces, and adds to the snapshot what passed unseen.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub(super) fn compare(
        &mut self,
        maps: &Maps,
        kernel: &KernelSide,
        snapshot: &mut Snapshot,
    ) -> anyhow::Result<()> {
        let attached: HashSet<u32> = kernel.records.iter().map(|record| record.ifindex).collect();
        let mut listed = kernel.listed.clone();
        kernel.netlink.add_other_ends(&mut listed, |interface| attached.contains(&interface.index));
        let slots = u32::try_from(kernel.totals.len())?;
        let totals = counters::interfaces_totals(maps, slots)?;
        let suspects = bypass::suspects(&kernel.records, &totals, &listed);
        let found = bypass::confirmed(suspects, |slot| counters::interface_totals(maps, slot))?;
        self.note(&found, snapshot);
        Ok(())
    }

    fn note(&mut self, found: &[Bypass], snapshot: &mut Snapshot) {
        let key = |one: &Bypass| Attached::of_record(&one.record);
        let now = found.iter().map(|one| (key(one), one.missed)).collect();
        let before: HashMap<Attached, ByDirection<Buffers>> = mem::replace(&mut self.suspected, now);
        for one in found.iter().filter(|one| before.contains_key(&key(one))) {
            let most = self.added.entry(key(one)).or_default();
            *most = ByDirection {
                incoming: larger(most.incoming, one.missed.incoming),
                outgoing: larger(most.outgoing, one.missed.outgoing),
            };
        }
        let mut present = HashMap::new();
        for counter in &mut snapshot.interfaces {
            let Some(key) = Attached::of_counter(counter) else { continue };
            if let Some(missed) = self.added.remove(&key) {
                add(&mut counter.passed.incoming, missed.incoming);
                add(&mut counter.passed.outgoing, missed.outgoing);
                for (side, missed) in [
                    (&mut counter.accounted.incoming, missed.incoming),
                    (&mut counter.accounted.outgoing, missed.outgoing),
                ] {
                    side.packets = side.packets.saturating_add(missed.skbs);
                    side.bytes = side.bytes.saturating_add(missed.bytes);
                }
                present.insert(key, missed);
            }
        }
        // What was attached again has another base, and the attach itself has recorded what was missed.
        self.added = present;
    }
}

fn larger(a: Buffers, b: Buffers) -> Buffers {
    Buffers { skbs: a.skbs.max(b.skbs), bytes: a.bytes.max(b.bytes) }
}

fn add(passed: &mut PassedCounter, missed: Buffers) {
    passed.missed_skbs = passed.missed_skbs.saturating_add(missed.skbs);
    passed.missed_skb_bytes = passed.missed_skb_bytes.saturating_add(missed.bytes);
    passed.bypassed = Tally { packets: missed.skbs, bytes: missed.bytes };
}

#[cfg(test)]
mod tests {
    use traffic_common::{Direction, InterfaceCounters, InterfaceRecord};
    use traffic_model::{ContainerId, sample};

    use super::*;
    use crate::{
        kernel::records::{EMPTY_INTERFACE, read_text, write_text},
        net::interface::NetInterface,
    };

    /// A slot on whose device this many buffers of 200 bytes to the container passed the hook by.
    fn bypassed(record: InterfaceRecord, skbs: u64) -> Vec<Bypass> {
        let mut interface = NetInterface { index: 7, kind: "veth".to_owned(), ..NetInterface::default() };
        let at = Direction::In as usize;
        interface.statistics.packets[at] = record.kernel_before.packets[at] + skbs;
        interface.statistics.bytes[at] = record.kernel_before.bytes[at] + 200 * skbs;
        bypass::suspects(&[record], &[InterfaceCounters::default()], &[interface])
    }

    #[test]
    fn an_attach_in_the_same_second_adds_nothing_twice() {
        let reading = |record: &InterfaceRecord| {
            let mut snapshot = sample::snapshot();
            let counter = &mut snapshot.interfaces[0];
            counter.ifindex = Some(record.ifindex);
            counter.generation = record.generation;
            counter.container = ContainerId::new(read_text(&record.container)).ok();
            counter.attached = jiff::Timestamp::from_second(record.attached_unix_s.cast_signed()).unwrap();
            let at = Direction::In as usize;
            counter.passed.incoming.missed_skbs = record.missed.packets[at];
            counter.passed.incoming.missed_skb_bytes = record.missed.bytes[at];
            (counter.passed.outgoing.missed_skbs, counter.passed.outgoing.missed_skb_bytes) = (0, 0);
            snapshot
        };
        let mut watch = BypassWatch::default();
        let mut missed = |record: &InterfaceRecord, skbs| {
            let mut snapshot = reading(record);
            watch.note(&bypassed(*record, skbs), &mut snapshot);
            let PassedCounter { missed_skbs, missed_skb_bytes, .. } = snapshot.interfaces[0].passed.incoming;
            (missed_skbs, missed_skb_bytes)
        };
        let mut record =
            InterfaceRecord { ifindex: 7, generation: 3, attached_unix_s: 50, ..EMPTY_INTERFACE };
        write_text(&mut record.container, "101");
        assert_eq!(missed(&record, 42), (0, 0), "once may be a moment");
        assert_eq!(missed(&record, 42), (42, 8400));
        assert_eq!(missed(&record, 0), (42, 8400), "what was added stays");
        // Attached again at once: that found it, and the comparison begins there.
        let at = Direction::In as usize;
        (record.missed.packets[at], record.missed.bytes[at]) = (42, 8400);
        (record.kernel_before.packets[at], record.kernel_before.bytes[at]) = (42, 8400);
        assert_eq!(missed(&record, 0), (42, 8400));
        assert_eq!(missed(&record, 5), (42, 8400));
        assert_eq!(missed(&record, 5), (47, 9400));
        // Its owner changed in that second: what was added to the former owner is not the new one's.
        write_text(&mut record.container, "102");
        assert_eq!(missed(&record, 0), (42, 8400));
    }
}
