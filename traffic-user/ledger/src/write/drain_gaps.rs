//! The gaps that a drain finds: counters that fell, and traffic that passed before the program was attached.

use jiff::Timestamp;
use traffic_model::{ByDirection, ContainerId, InterfaceCounter};

use crate::{
    error::LedgerError,
    store::Ledger,
    write::{
        difference::Change,
        drain::Drain,
        gaps::{self, Gap, GapLinks, GapReason, GapSize},
        readings,
    },
};

/// The first start attaches to all present interfaces within this time after it created the counters, in
/// seconds.
const FIRST_ATTACH_S: i64 = 60;

impl Ledger {
    /// Records why drains failed before this ledger was opened. The next successful drain stores it in a gap.
    pub const fn note_earlier_failure(&mut self, reason: GapReason) {
        self.failing = Some(reason);
    }

    /// Has the next successful drain store these gaps, which no counter shows, and no others.
    pub fn note_gaps(&mut self, gaps: &[Gap]) {
        self.noted = gaps.to_vec();
    }
}

impl Drain<'_> {
    /// Records the gaps that were found without a counter, with times of this boot.
    pub(super) fn record_noted(&mut self, noted: &[Gap]) -> Result<(), LedgerError> {
        for gap in noted {
            let gap = Gap {
                node: None,
                start: gap.start.map(|start| self.times.within_boot(start)),
                end: self.times.within_boot(gap.end),
                ..gap.clone()
            };
            self.insert(gap, None)?;
        }
        Ok(())
    }

    /// Records a counter that fell: what passed it since the last reading is unknown.
    pub(super) fn record_loss<const N: usize>(
        &mut self,
        change: &Change<N>,
        what: &str,
        interface: Option<&str>,
        container: Option<(&str, i64)>,
    ) -> Result<(), LedgerError> {
        if !change.is_loss() {
            return Ok(());
        }
        let halves = [
            ("incoming", change.fell_from.incoming, 0..N / 2),
            ("outgoing", change.fell_from.outgoing, N / 2..N),
        ];
        let details = halves.into_iter().filter_map(|(direction, before, half)| {
            let before = before?;
            Some(format!("{what} {direction}: {:?} after {:?}", &change.reading[half.clone()], &before[half]))
        });
        let gap = Gap {
            node: None,
            start: self.times.same_epoch.map(|last| last.min(self.times.now)),
            end: self.times.now,
            reason: GapReason::CounterLost,
            interface: interface.map(str::to_owned),
            container: container.map(|(name, _)| name.to_owned()),
            size: None,
            detail: Some(details.collect::<Vec<_>>().join("; ")),
        };
        let links = GapLinks { container: container.map(|(_, number)| number), once: None };
        gaps::insert(self.transaction, self.times.now, &gap, links)?;
        self.gaps.push(gap);
        Ok(())
    }

    /// Records what passed interfaces while the program was not attached. The total only grows, so its growth
    /// since the last reading is a gap.
    pub(super) fn record_missed(&mut self) -> Result<(), LedgerError> {
        for counter in &self.snapshot.interfaces {
            let ByDirection { incoming, outgoing } = counter.passed;
            let total = GapSize {
                in_skbs: incoming.missed_skbs,
                in_skb_bytes: incoming.missed_skb_bytes,
                out_skbs: outgoing.missed_skbs,
                out_skb_bytes: outgoing.missed_skb_bytes,
            };
            let (interface, generation) = (&counter.interface, counter.generation);
            let known = readings::missed(self.transaction, self.epoch, interface, generation)?;
            let mut size = total.since(&known);
            let mut start = None;
            if let Some(ifindex) = counter.ifindex {
                // A new epoch starts from the interface statistics at which the previous epoch stopped. What
                // that one had counted by its last reading is in sums already; what it counted later is not.
                let returning = self.returning.as_ref();
                if let Some(left) = returning.and_then(|returning| returning.missed(interface, generation)) {
                    size = left;
                    start = self.times.latest;
                } else if let Some(before) = self.accounted_before(ifindex)? {
                    size = size.since(&before);
                    start = self.times.latest;
                }
                self.store_accounted(ifindex, counter)?;
            }
            // A daemon that starts must find again what was bypassed. Until then the total is smaller.
            let most = known.plus(&total.since(&known));
            if most != known {
                readings::store_missed(self.transaction, self.epoch, interface, generation, &most)?;
            }
            let bypassed = size.at_most(&GapSize {
                in_skbs: incoming.bypassed.packets,
                in_skb_bytes: incoming.bypassed.bytes,
                out_skbs: outgoing.bypassed.packets,
                out_skb_bytes: outgoing.bypassed.bytes,
            });
            if bypassed != GapSize::default() {
                self.record_bypassed(counter, bypassed)?;
                size = size.since(&bypassed);
            }
            if size == GapSize::default() {
                continue;
            }
            let container = counter.container.as_ref().map(ContainerId::as_str);
            let attached = self.times.within_boot(counter.attached);
            let gap = Gap {
                node: None,
                start: start.map(|start| start.min(attached)),
                end: attached,
                reason: if self.is_first_attach(counter.attached)? {
                    GapReason::BeforeFirstCounters
                } else {
                    GapReason::BeforeAttach
                },
                interface: Some(interface.clone()),
                container: container.map(str::to_owned),
                size: Some(size),
                detail: None,
            };
            self.insert(gap, None)?;
        }
        let present = self.snapshot.interfaces.iter().filter_map(|counter| counter.ifindex).collect();
        readings::delete_accounted(self.transaction, self.epoch, &present)
    }

    /// Records what passed an attached interface unseen. Each attach has one gap that grows.
    fn record_bypassed(&mut self, counter: &InterfaceCounter, size: GapSize) -> Result<(), LedgerError> {
        let once = self.once(GapReason::Bypassed, counter);
        let former = gaps::size_of(self.transaction, &once)?;
        let gap = Gap {
            node: None,
            start: self.times.latest.map(|latest| latest.min(self.times.now)),
            end: self.times.now,
            reason: GapReason::Bypassed,
            interface: Some(counter.interface.clone()),
            container: counter.container.as_ref().map(|container| container.as_str().to_owned()),
            size: Some(former.unwrap_or_default().plus(&size)),
            detail: None,
        };
        self.extend_or_insert(gap, &once)
    }

    /// Names the gap that each attach of an interface has once for a reason.
    fn once(&self, reason: GapReason, counter: &InterfaceCounter) -> String {
        let (interface, generation) = (&counter.interface, counter.generation);
        let (epoch, attached) = (self.epoch, counter.attached.as_second());
        format!("{} {epoch} {generation} {attached} {interface}", reason.name())
    }

    /// Lets a gap grow to what it is now, or inserts it.
    fn extend_or_insert(&mut self, gap: Gap, once: &str) -> Result<(), LedgerError> {
        if gaps::extend(self.transaction, once, &gap)? {
            return Ok(());
        }
        self.insert(gap, Some(once))
    }

    fn insert(&mut self, gap: Gap, once: Option<&str>) -> Result<(), LedgerError> {
        let container = self.container_of(gap.container.as_deref())?;
        let links = GapLinks { container: Some(container).filter(|&number| number != 0), once };
        gaps::insert(self.transaction, self.times.now, &gap, links)?;
        self.gaps.push(gap);
        Ok(())
    }

    /// Records what was counted too often. The excess only grows while the program stays attached, so each attach
    /// has one gap that grows with it.
    pub(super) fn record_excess(&mut self) -> Result<(), LedgerError> {
        for counter in &self.snapshot.interfaces {
            let ByDirection { incoming, outgoing } = counter.passed;
            let size = GapSize {
                in_skbs: incoming.excess.packets,
                in_skb_bytes: incoming.excess.bytes,
                out_skbs: outgoing.excess.packets,
                out_skb_bytes: outgoing.excess.bytes,
            };
            if (size.in_skbs, size.out_skbs) == (0, 0) {
                continue;
            }
            let container = counter.container.as_ref().map(ContainerId::as_str);
            let gap = Gap {
                node: None,
                start: Some(self.times.within_boot(counter.attached).min(self.times.now)),
                end: self.times.now,
                reason: GapReason::CountedTwice,
                interface: Some(counter.interface.clone()),
                container: container.map(str::to_owned),
                size: Some(size),
                detail: None,
            };
            let once = self.once(GapReason::CountedTwice, counter);
            self.extend_or_insert(gap, &once)?;
        }
        Ok(())
    }

    /// Whether an interface was attached together with the first counters of this ledger. What passed it before
    /// that was never to be counted.
    fn is_first_attach(&self, attached: Timestamp) -> Result<bool, LedgerError> {
        let after = attached.duration_since(self.snapshot.epoch_created).as_secs();
        if self.times.latest.is_some() || after.abs() > FIRST_ATTACH_S {
            return Ok(false);
        }
        // An earlier ledger was there, and counted what this one does not know.
        let lost = "SELECT 1 FROM gap WHERE reason = ?1";
        Ok(!self.transaction.prepare_cached(lost)?.exists([GapReason::LedgerLost.name()])?)
    }

    fn accounted_before(&self, ifindex: u32) -> Result<Option<GapSize>, LedgerError> {
        readings::accounted_before(self.transaction, &self.snapshot.boot_id, self.epoch, ifindex)
    }

    fn store_accounted(&self, ifindex: u32, counter: &InterfaceCounter) -> Result<(), LedgerError> {
        let ByDirection { incoming, outgoing } = counter.accounted;
        let total = GapSize {
            in_skbs: incoming.packets,
            in_skb_bytes: incoming.bytes,
            out_skbs: outgoing.packets,
            out_skb_bytes: outgoing.bytes,
        };
        readings::store_accounted(self.transaction, &self.snapshot.boot_id, self.epoch, ifindex, &total)
    }
}
