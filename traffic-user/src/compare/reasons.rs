//! Why two accountings differ: the known habits of the other one, tried in turn on each difference.

use serde::Serialize;
use traffic_common::{Direction, Tally};
use traffic_model::ContainerId;

use crate::{compare::Row, vz};

/// The likely reason of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Our counters restarted at zero in between.
    OursBeganAnew,
    /// Their counters restarted: Virtuozzo 9 loses them when a container stops.
    TheirsBeganAnew,
    /// They show no row of this container.
    ContainerNotShown,
    /// They show the container but not this class.
    ClassNotShown,
    /// The node's own traffic, which is not counted here.
    NodeNotCounted,
    /// A container that is not counted here.
    NotCountedHere,
    /// They count nothing in class 0.
    ClassZeroNotCounted,
    /// They count a super-packet as one packet with one set of headers.
    GsoHeaders,
    /// They count the Ethernet header of each packet.
    LinkHeaders,
    /// The container's sum over all classes is the same, so the class tables differ.
    ClassTables,
    /// Their classes overlap: this one also includes traffic that we have in another class.
    NotExclusive,
    /// Traffic between containers of the node, which they count for the sender only.
    Neighbours,
    /// A difference so small that the readings were taken at different moments.
    Moment,
    /// None of the others fits.
    Unexplained,
}

impl Reason {
    /// A few words, for a table.
    pub const fn short(self) -> &'static str {
        match self {
            Self::OursBeganAnew => "ours restarted",
            Self::TheirsBeganAnew => "theirs restarted",
            Self::ContainerNotShown => "container not shown",
            Self::ClassNotShown => "class not shown",
            Self::NodeNotCounted => "node not counted here",
            Self::NotCountedHere => "not counted here",
            Self::ClassZeroNotCounted => "class 0 not counted",
            Self::GsoHeaders => "GSO headers",
            Self::LinkHeaders => "link headers",
            Self::ClassTables => "class tables differ",
            Self::NotExclusive => "overlapping classes",
            Self::Neighbours => "neighbors",
            Self::Moment => "different moments",
            Self::Unexplained => "unexplained",
        }
    }

    /// One sentence.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::OursBeganAnew => {
                "our counters restarted at zero in between; start the comparison over with --restart"
            }
            Self::TheirsBeganAnew => {
                "their counters went back in between, as those of Virtuozzo 9 do when a container stops; \
                 the figures are what they counted since then"
            }
            Self::ContainerNotShown => "they show no row of this container",
            Self::ClassNotShown => {
                "they show no row of this class: it is not in their table, or -c or -4 was used"
            }
            Self::NodeNotCounted => {
                "the node's own traffic is not counted here unless [node] uplinks is configured"
            }
            Self::NotCountedHere => {
                "nothing was counted here for this container; check with `trafctl status` that it is attached"
            }
            Self::ClassZeroNotCounted => "they count nothing in class 0",
            Self::GsoHeaders => {
                "they count a super-packet as one packet: they show fewer packets, and they miss the \
                 headers of all segments but the first"
            }
            Self::LinkHeaders => "they count the Ethernet header of each packet, 14 or 18 bytes",
            Self::ClassTables => {
                "the sum over all classes is the same: the class tables or their orders differ"
            }
            Self::NotExclusive => {
                "their classes overlap: this class also includes traffic that we have in another class"
            }
            Self::Neighbours => {
                "possibly traffic between containers of this node, which they count for the sender only: \
                 the others sent at least as much as is missing"
            }
            Self::Moment => "less than half a per cent: the two were read at different moments",
            Self::Unexplained => "none of the known reasons fits",
        }
    }

    /// Whether an operator should investigate before switching over.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::NotCountedHere | Self::Unexplained)
    }
}

/// Most overlapping classes that are tried together: each one doubles the combinations.
const MOST_CLASSES: usize = 10;
/// Size of the headers of one segment in bytes, from plain IPv4 with UDP to IPv6 in a tunnel.
const HEADERS: std::ops::RangeInclusive<u64> = 28..=160;
/// Headers of at most 160 bytes on packets of 1,400 bytes are at most this many thousandths.
const MOST_HEADERS_PER_MILLE: u64 = 120;
/// How far two readings of different moments may differ, in thousandths.
const MOMENT_PER_MILLE: u64 = 5;

/// Fills in the reasons that are still missing.
pub(super) fn find(rows: &mut [Row]) {
    let before = rows.to_vec();
    let all = AllRows(&before);
    for row in rows {
        for direction in [Direction::In, Direction::Out] {
            let side = row.sides.of(direction);
            if side.reason.is_none() && side.theirs.unwrap_or_default() != side.ours {
                let reason = all.reason(row, direction);
                row.sides.of_mut(direction).reason = Some(reason);
            }
        }
    }
}

/// All rows, which the reason of one row depends on.
struct AllRows<'a>(&'a [Row]);

impl AllRows<'_> {
    fn reason(&self, row: &Row, direction: Direction) -> Reason {
        let side = row.sides.of(direction);
        let (ours, theirs) = (side.ours, side.theirs.unwrap_or_default());
        if self.nothing_of_ours(&row.container) {
            let is_node = row.container.as_str() == vz::NODE;
            return if is_node { Reason::NodeNotCounted } else { Reason::NotCountedHere };
        }
        if row.class == 0 && theirs == Tally::default() && self.never_count_class_0() {
            return Reason::ClassZeroNotCounted;
        }
        if lacks_headers(ours, theirs) {
            return Reason::GsoHeaders;
        }
        if has_link_headers(ours, theirs) {
            return Reason::LinkHeaders;
        }
        if self.overlaps(row, direction, true) {
            return Reason::NotExclusive;
        }
        if within(ours.bytes, theirs.bytes, MOMENT_PER_MILLE)
            && within(ours.packets, theirs.packets, MOMENT_PER_MILLE)
        {
            return Reason::Moment;
        }
        if self.same_sum(&row.container, direction) {
            return Reason::ClassTables;
        }
        if self.overlaps(row, direction, false) {
            return Reason::NotExclusive;
        }
        if direction == Direction::In && self.neighbours_sent(row) {
            return Reason::Neighbours;
        }
        Reason::Unexplained
    }

    fn nothing_of_ours(&self, container: &ContainerId) -> bool {
        let mut rows = self.0.iter().filter(|row| row.container == *container);
        rows.all(|row| {
            [row.sides.incoming, row.sides.outgoing].iter().all(|side| side.ours == Tally::default())
        })
    }

    fn never_count_class_0(&self) -> bool {
        let counted = |tally: Option<Tally>| tally.is_some_and(|tally| tally != Tally::default());
        let mut rows = self.0.iter().filter(|row| row.class == 0);
        !rows.any(|row| counted(row.sides.incoming.theirs) || counted(row.sides.outgoing.theirs))
    }

    /// Each class of a container in one direction: class, ours, theirs.
    fn classes(
        &self,
        container: &ContainerId,
        direction: Direction,
    ) -> impl Iterator<Item = (u8, Tally, Tally)> {
        let rows = self.0.iter().filter(move |row| row.container == *container);
        rows.map(move |row| {
            let side = row.sides.of(direction);
            (row.class, side.ours, side.theirs.unwrap_or_default())
        })
    }

    fn same_sum(&self, container: &ContainerId, direction: Direction) -> bool {
        let sum = self.classes(container, direction).fold((0_u64, 0_u64), |sum, (_, ours, theirs)| {
            (sum.0.saturating_add(ours.bytes), sum.1.saturating_add(theirs.bytes))
        });
        sum.0 > 0 && within(sum.0, sum.1, MOMENT_PER_MILLE)
    }

    /// Whether their excess is the traffic of some of our other classes.
    ///
    /// `exactly`, or within the tolerance for readings of different moments and for super-packets that count
    /// as one.
    fn overlaps(&self, row: &Row, direction: Direction, exactly: bool) -> bool {
        let side = row.sides.of(direction);
        let (ours, theirs) = (side.ours, side.theirs.unwrap_or_default());
        if theirs.bytes <= ours.bytes {
            return false;
        }
        let others: Vec<Tally> = self
            .classes(&row.container, direction)
            .filter(|(class, ours, _)| *class != row.class && ours.bytes > 0)
            .map(|(_, ours, _)| ours)
            .take(MOST_CLASSES)
            .collect();
        (1_u32..1 << others.len()).any(|chosen| {
            let chosen = others.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1);
            let together = chosen.fold(ours, |sum, (_, other)| sum.saturating_add(*other));
            if exactly {
                return together == theirs;
            }
            // Compare the excess alone: a small class must not vanish in the tolerance of a large one.
            within(together.bytes - ours.bytes, theirs.bytes - ours.bytes, MOMENT_PER_MILLE)
                || lacks_headers(together, theirs)
        })
    }

    /// Whether other containers sent at least as much as is missing here.
    fn neighbours_sent(&self, row: &Row) -> bool {
        let side = row.sides.incoming;
        let theirs = side.theirs.unwrap_or_default();
        let Some(missing) = side.ours.checked_sub(theirs) else { return false };
        let others = self.0.iter().filter(|other| other.container != row.container);
        let sent: Tally = others.map(|other| other.sides.outgoing.ours).sum();
        missing.packets > 0 && sent.checked_sub(missing).is_some()
    }
}

/// Whether two numbers differ by at most this many thousandths of the larger one.
fn within(a: u64, b: u64, per_mille: u64) -> bool {
    u128::from(a.abs_diff(b)) * 1000 <= u128::from(a.max(b)) * u128::from(per_mille)
}

/// Whether packets are missing, each with as many bytes as headers have.
fn lacks_headers(ours: Tally, theirs: Tally) -> bool {
    let Some(Tally { packets, bytes }) = ours.checked_sub(theirs) else { return false };
    !within(ours.packets, theirs.packets, MOMENT_PER_MILLE)
        && within(ours.bytes, theirs.bytes, MOST_HEADERS_PER_MILLE)
        && bytes.checked_div(packets).is_some_and(|each| HEADERS.contains(&each))
}

/// Whether each of their packets is larger by an Ethernet header, with or without a VLAN tag.
fn has_link_headers(ours: Tally, theirs: Tally) -> bool {
    let Some(bytes) = theirs.bytes.checked_sub(ours.bytes) else { return false };
    within(ours.packets, theirs.packets, MOMENT_PER_MILLE)
        && [14, 18].iter().any(|header| bytes > 0 && within(bytes, header * theirs.packets, MOMENT_PER_MILLE))
}
