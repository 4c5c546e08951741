//! Adds what passed the hooks of attached interfaces unseen to what was missed, at each drain.

use std::{
    collections::{HashMap, HashSet},
    mem,
};

use traffic_common::{InterfaceRecord, Tally};
use traffic_model::{ByDirection, PassedCounter, Snapshot};

use super::excess::KernelSide;
use crate::kernel::{
    counters::{
        self, Buffers,
        bypass::{self, Bypass},
    },
    maps::Maps,
};

/// An interface as it was attached at some moment.
type Attached = (u32, u64);

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
        let key = |record: &InterfaceRecord| (record.ifindex, record.attached_unix_s);
        let now = found.iter().map(|one| (key(&one.record), one.missed)).collect();
        let before: HashMap<Attached, ByDirection<Buffers>> = mem::replace(&mut self.suspected, now);
        for one in found.iter().filter(|one| before.contains_key(&key(&one.record))) {
            let most = self.added.entry(key(&one.record)).or_default();
            *most = ByDirection {
                incoming: larger(most.incoming, one.missed.incoming),
                outgoing: larger(most.outgoing, one.missed.outgoing),
            };
        }
        let attached = |counter: &traffic_model::InterfaceCounter| {
            Some((counter.ifindex?, u64::try_from(counter.attached.as_second()).ok()?))
        };
        let mut present = HashMap::new();
        for counter in &mut snapshot.interfaces {
            let Some(key) = attached(counter) else { continue };
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
