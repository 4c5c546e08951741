//! Compares two accountings of one node: this one, and another that prints `vznetstat` output.
//!
//! A row is a container and class, with what both counted since a first reading and the likely reason of each
//! difference. `read` parses their output, `reasons` finds the reasons; both are pure. [`baseline`] stores
//! the first reading. `cli/compare` takes the readings, `render/compare` prints the result.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use traffic_common::{Direction, Tally};
use traffic_model::{ByDirection, ContainerId};

pub mod baseline;
mod read;
mod reasons;
#[cfg(test)]
mod tests;

pub use read::read;
pub use reasons::Reason;

/// The figures of an accounting, by container and class.
pub type Figures = BTreeMap<(ContainerId, u8), ByDirection<Tally>>;

/// Both accountings, read as close together in time as possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readings {
    /// When our counters were read.
    pub time: Timestamp,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The counters' epoch.
    pub epoch: u64,
    /// Our figures.
    pub ours: Figures,
    /// The figures of the other accounting.
    pub theirs: Figures,
}

/// One direction of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// What we counted.
    pub ours: Tally,
    /// What they counted; `None` if they have no such row.
    pub theirs: Option<Tally>,
    /// The likely reason of a difference.
    pub reason: Option<Reason>,
}

/// A container and class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The container, by the id that we count it under.
    pub container: ContainerId,
    /// The class.
    pub class: u8,
    /// To the container, and from it.
    pub sides: ByDirection<Side>,
}

/// The differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Time of the first readings.
    pub since: Timestamp,
    /// Time of the later readings.
    pub until: Timestamp,
    /// Rows in which either side counted anything.
    pub rows: Vec<Row>,
}

impl Comparison {
    /// Compares what both sides counted between `first` and `now`.
    pub fn new(first: &Readings, now: &Readings) -> Self {
        let containers: BTreeSet<&ContainerId> = now.theirs.keys().map(|(container, _)| container).collect();
        let keys: BTreeSet<&(ContainerId, u8)> = now.ours.keys().chain(now.theirs.keys()).collect();
        let mut rows: Vec<Row> = keys
            .into_iter()
            .map(|key| {
                let side = |direction| {
                    let mut side = since(key, direction, (first, now));
                    if side.reason.is_none() && side.theirs.is_none() && side.ours.bytes > 0 {
                        let known = containers.contains(&key.0);
                        side.reason =
                            Some(if known { Reason::ClassNotShown } else { Reason::ContainerNotShown });
                    }
                    side
                };
                let sides = ByDirection { incoming: side(Direction::In), outgoing: side(Direction::Out) };
                Row { container: key.0.clone(), class: key.1, sides }
            })
            .filter(Row::has_traffic)
            .collect();
        reasons::find(&mut rows);
        // Numeric ids first, by value.
        rows.sort_by_cached_key(|row| {
            let number = row.container.as_str().parse().unwrap_or(u64::MAX);
            (number, row.container.clone(), row.class)
        });
        Self { since: first.time, until: now.time, rows }
    }

    /// Whether there is a difference that an operator should investigate.
    pub fn has_open(&self) -> bool {
        let sides = self.rows.iter().flat_map(|row| [row.sides.incoming, row.sides.outgoing]);
        sides.filter_map(|side| side.reason).any(Reason::is_open)
    }
}

impl Row {
    fn has_traffic(&self) -> bool {
        [self.sides.incoming, self.sides.outgoing].iter().any(|side| {
            side.ours != Tally::default() || side.theirs.is_some_and(|tally| tally != Tally::default())
        })
    }
}

/// The growth of one direction of a row. A row that is missing from the first reading began at zero.
fn since(key: &(ContainerId, u8), direction: Direction, (first, now): (&Readings, &Readings)) -> Side {
    let figure = |figures: &Figures| figures.get(key).map(|tallies| *tallies.of(direction));
    let less = |now: Tally, first: Tally| Tally {
        packets: now.packets - first.packets,
        bytes: now.bytes - first.bytes,
    };
    let mut side = Side::default();
    let (ours, ours_first) = (figure(&now.ours).unwrap_or_default(), figure(&first.ours).unwrap_or_default());
    if ours.bytes < ours_first.bytes || ours.packets < ours_first.packets {
        (side.ours, side.reason) = (ours, Some(Reason::OursBeganAnew));
    } else {
        side.ours = less(ours, ours_first);
    }
    let Some(mut theirs) = figure(&now.theirs) else { return side };
    let theirs_first = figure(&first.theirs).unwrap_or_default();
    if theirs.bytes >= theirs_first.bytes && theirs.packets < theirs_first.packets {
        // Virtuozzo 7 counts packets in 32 bits.
        theirs.packets = theirs.packets.saturating_add(1 << 32);
    }
    if theirs.bytes < theirs_first.bytes || theirs.packets < theirs_first.packets {
        side.theirs = Some(theirs);
        side.reason = side.reason.or(Some(Reason::TheirsBeganAnew));
    } else {
        side.theirs = Some(less(theirs, theirs_first));
    }
    side
}
