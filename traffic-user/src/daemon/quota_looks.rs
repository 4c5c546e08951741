//! Looks at live counters between two drains, so that a threshold of a quota is found before the next one.
//!
//! [`Lookout`] decides when to look at whom, and whether a drain is due at once. The drain finds the crossing:
//! nothing here writes a figure. So whatever fails here makes a crossing late, by at most a drain interval.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use traffic_ledger::Ledger;
use traffic_model::Snapshot;
use traffic_quota::{Found, Lookout, Sum, Taken};

use crate::{
    health::{Components, Part},
    kernel::{bpffs::Bpffs, counters::live::LiveCounters},
    time::thread_cpu,
};

/// When something began, and the CPU time of this thread until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin(Instant, Duration);

impl Begin {
    pub fn now() -> Self {
        Self(Instant::now(), thread_cpu())
    }

    /// What it took until now.
    fn taken(self) -> Taken {
        Taken { began: self.0, ended: Instant::now(), cpu: thread_cpu().saturating_sub(self.1) }
    }
}

/// What a look reads: what containers counted since the drain.
pub(super) trait Counters: Sized {
    /// See [`LiveCounters::read`].
    fn read(&self, wanted: Vec<String>) -> anyhow::Result<Option<Found>>;
}

impl Counters for LiveCounters {
    fn read(&self, wanted: Vec<String>) -> anyhow::Result<Option<Found>> {
        Self::read(self, wanted)
    }
}

/// The looks between two drains.
#[derive(Debug)]
pub(super) struct QuotaLooks<C = LiveCounters> {
    lookout: Lookout,
    /// `None` while nobody is watched.
    counters: Option<C>,
}

impl<C> Default for QuotaLooks<C> {
    fn default() -> Self {
        Self { lookout: Lookout::default(), counters: None }
    }
}

impl QuotaLooks {
    /// To be called after each drain that can be followed by looks. `reading` is what it wrote, and `began` when it
    /// began. A failure is noted, and nobody is watched until the next drain.
    pub fn drained(
        &mut self,
        (began, reading): (Begin, &Snapshot),
        ledger: &Ledger,
        bpffs: &Bpffs,
        components: &Components,
    ) {
        let sums = ledger.quota_sums().context("cannot read what is used of quotas");
        let taken = sums.and_then(|sums| {
            self.take(began, sums, |lookout| LiveCounters::since(bpffs, reading, lookout.containers()))
        });
        if let Err(error) = taken {
            components.failed(
                Part::Quotas,
                &error.context("thresholds are found by drains alone until the next one"),
            );
        }
    }
}

impl<C: Counters> QuotaLooks<C> {
    fn take(
        &mut self,
        began: Begin,
        sums: Vec<Sum>,
        counters: impl FnOnce(&Lookout) -> anyhow::Result<C>,
    ) -> anyhow::Result<()> {
        self.counters = None;
        self.lookout.drained(began.taken(), sums);
        if self.lookout.due().is_none() {
            return Ok(());
        }
        match counters(&self.lookout) {
            Ok(counters) => {
                self.counters = Some(counters);
                Ok(())
            }
            Err(error) => {
                self.lookout = Lookout::default();
                Err(error)
            }
        }
    }

    /// When to look next; `None` for not before the next drain.
    pub fn due(&self) -> Option<Instant> {
        self.lookout.due()
    }

    /// Looks, if that is due. Returns whether to drain at once.
    ///
    /// # Errors
    /// When the counters cannot be read. It is tried again.
    pub fn look(&mut self) -> anyhow::Result<bool> {
        let began = Begin::now();
        let wanted = self.lookout.wanted(began.0);
        let Some(counters) = self.counters.as_ref().filter(|_| !wanted.is_empty()) else { return Ok(false) };
        match counters.read(wanted) {
            Ok(Some(found)) => Ok(self.lookout.looked(began.taken(), found)),
            // Classes are counted that were not: only a drain knows how.
            Ok(None) => {
                self.lookout.failed(Instant::now());
                Ok(true)
            }
            Err(error) => {
                self.lookout.failed(Instant::now());
                Err(error.context("cannot look at what containers with quotas count"))
            }
        }
    }

    /// The drain that was asked for has failed.
    pub fn drain_failed(&mut self) {
        self.lookout.failed(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use anyhow::bail;
    use traffic_quota::{Counted, Direction, SHORTEST_LOOK, Used};

    use super::*;

    /// Counters that say what they are told to.
    #[derive(Debug, Default)]
    struct Fake {
        bytes: Cell<u64>,
        fails: Cell<bool>,
        differs: Cell<bool>,
        read: RefCell<Vec<Vec<String>>>,
    }

    impl Counters for &Fake {
        fn read(&self, wanted: Vec<String>) -> anyhow::Result<Option<Found>> {
            self.read.borrow_mut().push(wanted.clone());
            if self.fails.get() {
                bail!("no such map");
            }
            let counted = |id: String| {
                let counted: Option<Counted> = (id != "gone").then(|| vec![(1, self.bytes.get(), 3)]);
                (id, counted)
            };
            Ok((!self.differs.get()).then(|| wanted.into_iter().map(counted).collect()))
        }
    }

    fn sum(container: &str, used: u64) -> Sum {
        Sum {
            container: container.to_owned(),
            direction: Direction::In,
            classes: Vec::new(),
            used: Used { incoming: used, ..Used::default() },
            next: 1000,
        }
    }

    fn after_drain<'f>(looks: &mut QuotaLooks<&'f Fake>, fake: &'f Fake, used: u64) {
        let sums = vec![sum("101", used), sum("gone", used)];
        looks.take(Begin::now(), sums, |_| Ok(fake)).unwrap();
    }

    /// When the pause after something that was done now is over.
    fn is_paused(looks: &QuotaLooks<&Fake>) -> bool {
        looks.due().is_some_and(|due| due > Instant::now())
    }

    #[test]
    fn a_look_reads_those_that_are_close_and_asks_for_a_drain_at_the_threshold() {
        let fake = Fake::default();
        let mut looks = QuotaLooks::default();
        assert!(!looks.look().unwrap());
        assert_eq!(looks.due(), None);
        after_drain(&mut looks, &fake, 900);
        fake.bytes.set(100);
        while looks.due().is_some_and(|due| due > Instant::now()) {}
        assert!(looks.look().unwrap());
        assert_eq!(*fake.read.borrow(), [["101", "gone"]]);
        // The drain: what is left has not been counted since.
        fake.bytes.set(0);
        looks.take(Begin::now(), vec![Sum { next: 2000, ..sum("101", 1000) }], |_| Ok(&fake)).unwrap();
        assert!(is_paused(&looks), "drains that are asked for do not follow each other");
        assert!(!looks.look().unwrap());
        assert_eq!(fake.read.borrow().len(), 1);
    }

    #[test]
    fn whatever_fails_is_tried_again_or_left_to_the_next_drain() {
        let fake = Fake::default();
        let mut looks: QuotaLooks<&Fake> = QuotaLooks::default();
        // The counters cannot be opened.
        let failed = looks.take(Begin::now(), vec![sum("101", 1000)], |_| bail!("no such map"));
        assert!(failed.is_err());
        assert_eq!(looks.due(), None);
        assert!(!looks.look().unwrap());
        // They cannot be read.
        after_drain(&mut looks, &fake, 1000);
        fake.fails.set(true);
        assert!(format!("{:#}", looks.look().unwrap_err()).ends_with("count: no such map"));
        assert!(looks.due() > Some(Instant::now() + 2 * SHORTEST_LOOK));
        assert!(!looks.look().unwrap(), "not before the pause is over");
        assert_eq!(fake.read.borrow().len(), 1);
        // The drain that was asked for fails.
        fake.fails.set(false);
        after_drain(&mut looks, &fake, 1000);
        assert!(looks.look().unwrap());
        looks.drain_failed();
        assert!(looks.due() > Some(Instant::now() + 2 * SHORTEST_LOOK));
        // Other classes are counted.
        fake.differs.set(true);
        after_drain(&mut looks, &fake, 0);
        while is_paused(&looks) {}
        assert!(looks.look().unwrap());
        looks.drain_failed();
        assert!(is_paused(&looks));
        // Without quotas, nothing is read.
        looks.take(Begin::now(), Vec::new(), |_| unreachable!("there is nobody to look at")).unwrap();
        assert_eq!(looks.due(), None);
    }
}
