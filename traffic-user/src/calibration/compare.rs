//! What was counted of known packets, against what must have been. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use traffic_common::{Direction, Family, Tally};
use traffic_ledger::CalibrationRecord;
use traffic_model::{ByDirection, ClassTableInfo, Snapshot, hex};

use super::{CONTAINER, plan::Plan};

/// Figures by class and family.
pub(super) type Figures = BTreeMap<(u8, Family), ByDirection<Tally>>;

/// What came of a calibration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// When its packets were sent.
    pub time: Timestamp,
    /// SHA-256 of the class table that decided.
    pub class_table: [u8; 32],
    /// SHA-256 of the kernel program.
    pub program: [u8; 32],
    /// By class and family, in their order.
    pub lines: Vec<Line>,
}

/// The packets of one class and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The class.
    pub class: u8,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Wire packets and layer-3 bytes that were sent.
    pub sent: ByDirection<Tally>,
    /// Wire packets and layer-3 bytes that were counted.
    pub counted: ByDirection<Tally>,
}

impl Line {
    /// Whether every packet and byte was counted, and nothing else.
    pub fn is_exact(&self) -> bool {
        self.sent == self.counted
    }
}

impl Calibration {
    pub(super) fn new(
        time: Timestamp,
        (class_table, program): (&ClassTableInfo, [u8; 32]),
        plan: &Plan,
        counted: &Figures,
    ) -> Self {
        let places: BTreeSet<_> = plan.expected.keys().chain(counted.keys()).copied().collect();
        let of = |figures: &Figures, place| figures.get(&place).copied().unwrap_or_default();
        let line = |(class, family)| Line {
            class,
            family,
            sent: of(&plan.expected, (class, family)),
            counted: of(counted, (class, family)),
        };
        Self { time, class_table: class_table.hash, program, lines: places.into_iter().map(line).collect() }
    }

    /// Whether nothing differs.
    pub fn is_exact(&self) -> bool {
        self.differing() == 0
    }

    /// How many classes and families differ.
    pub fn differing(&self) -> usize {
        self.lines.iter().filter(|line| !line.is_exact()).count()
    }

    /// What the ledger keeps of it.
    pub fn record(&self) -> CalibrationRecord {
        let (sent, counted) = self.totals();
        CalibrationRecord {
            time: self.time,
            class_table: hex(&self.class_table),
            program: hex(&self.program),
            sent,
            counted,
            differing: u32::try_from(self.differing()).unwrap_or(u32::MAX),
        }
    }

    /// All packets and bytes that were sent, and those that were counted.
    pub fn totals(&self) -> (ByDirection<Tally>, ByDirection<Tally>) {
        let mut totals = (ByDirection::default(), ByDirection::default());
        for line in &self.lines {
            totals.0 += line.sent;
            totals.1 += line.counted;
        }
        totals
    }
}

/// What was counted for the throwaway container between two readings, where it is not zero.
pub(super) fn counted(before: &Snapshot, after: &Snapshot) -> Figures {
    let of = |snapshot: &Snapshot| -> Figures {
        let own = snapshot
            .counters
            .iter()
            .filter(|counter| counter.container.as_str() == CONTAINER && !counter.is_retired);
        own.map(|counter| ((counter.class, counter.family), counter.tally)).collect()
    };
    let earlier = of(before);
    let since = |(place, tally): (_, ByDirection<Tally>)| {
        (place, tally.since(&earlier.get(&place).copied().unwrap_or_default()))
    };
    of(after).into_iter().map(since).filter(|(_, tally)| !tally.total().is_zero()).collect()
}

/// How many buffers the kernel saw on the interface beside those of the plan, by direction. Negative where some are
/// still on their way.
pub(super) fn beside(plan: &Plan, before: [u64; 2], after: [u64; 2]) -> [i128; 2] {
    let mut beside = [0; 2];
    for direction in Direction::BOTH {
        let at = direction as usize;
        beside[at] = i128::from(after[at]) - i128::from(before[at]) - i128::from(plan.frames_in(direction));
    }
    beside
}
