//! What the drains of each set of counters have booked in all: the sums that its rows must still come to, and of which
//! classes + faults must be what passed. Kept by the drains themselves, so that an audit compares what is in the rows now
//! with what was written, and finds a row that was changed, added or removed on every level alike. What was only moved
//! from one row to another, the chain of closed months finds.
//!
//! Counters are not read at one instant: classes first, then the interfaces, then the faults. So what is booked as passed may
//! be ahead of the classes, by no more than passed since the drain before, and behind the faults, by no more than these
//! grew by since then. Where nothing moved in the last drain, all must agree to the byte.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use traffic_model::{
    Balance, ByDirection,
    calendar::{Calendar, Level},
};

use crate::{
    error::LedgerError,
    figures::{Sums, add},
    query::rows::Cutter,
    schema::{FAULT, KINDS, Kind, PASSED, TRAFFIC, time},
    write::difference::Change,
};

/// What one drain books of each kind of rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ControlTotals {
    sums: [Sums; 3],
    /// Counters that fell: what passed them is in no sum.
    losses: i64,
}

/// Place of a kind in [`KINDS`].
fn place(kind: &Kind) -> usize {
    KINDS.iter().position(|other| other == kind).unwrap_or(0)
}

/// The same as its number in the table.
fn number(kind: &Kind) -> i64 {
    (0..).zip(KINDS).find(|(_, other)| other == kind).map_or(0, |(number, _)| number)
}

/// Four values of a row, unsigned ones in SQLite's signed ones.
fn four(row: &Row<'_>, first: usize) -> rusqlite::Result<Sums> {
    let value = |at| row.get::<_, i64>(first + at).map(i64::cast_unsigned);
    Ok([value(0)?, value(1)?, value(2)?, value(3)?])
}

impl ControlTotals {
    /// Takes one counter's change.
    pub(crate) fn note<const N: usize>(&mut self, kind: &Kind, change: &Change<N>) {
        // The wire's packets and bytes come first in each direction.
        let [incoming, outgoing] = [0, N / 2];
        let moved = [incoming, incoming + 1, outgoing, outgoing + 1].map(|at| change.passed[at]);
        add(&mut self.sums[place(kind)], moved);
        self.losses += i64::from(change.is_loss());
    }

    /// Adds it to what the epoch's drains have booked. Of an epoch that was drained by a version that kept no such sums
    /// there are none, and none are begun.
    pub(crate) fn store(&self, conn: &Connection, epoch: i64) -> Result<(), LedgerError> {
        for (kind, last) in KINDS.iter().zip(&self.sums) {
            let kept = conn
                .prepare_cached(
                    "SELECT in_packets, in_bytes, out_packets, out_bytes FROM booked WHERE epoch = ?1 AND kind = ?2",
                )?
                .query_row(params![epoch, number(kind)], |row| four(row, 0))
                .optional()?;
            let Some(mut sums) = kept else { return Ok(()) };
            // Not in SQL, where an impossible counter would make it fail for ever.
            sums.iter_mut().zip(last).for_each(|(sum, last)| *sum = sum.wrapping_add(*last));
            let values = sums.iter().chain(last).map(|value| value.cast_signed());
            let row = [epoch, number(kind)].into_iter().chain(values).chain([self.losses]);
            conn.prepare_cached(
                "UPDATE booked SET in_packets = ?3, in_bytes = ?4, out_packets = ?5, out_bytes = ?6,
                     last_in_packets = ?7, last_in_bytes = ?8, last_out_packets = ?9, last_out_bytes = ?10,
                     losses = losses + ?11 WHERE epoch = ?1 AND kind = ?2",
            )?
            .execute(rusqlite::params_from_iter(row))?;
        }
        Ok(())
    }
}

/// Begins the sums of an epoch that the ledger has not seen. `former` was counted for owners who are gone, whose final
/// readings are in no ledger that is left.
pub(crate) fn begin(conn: &Connection, epoch: i64, former: &ByDirection<Balance>) -> Result<(), LedgerError> {
    for kind in KINDS {
        let of = |balance: &Balance| {
            let tally = match place(&kind) {
                0 => balance.classes,
                1 => balance.faults,
                _ => balance.passed,
            };
            (tally.packets.cast_signed(), tally.bytes.cast_signed())
        };
        let (incoming, outgoing) = (of(&former.incoming), of(&former.outgoing));
        conn.execute(
            "INSERT INTO booked (epoch, kind, former_in_packets, former_in_bytes, former_out_packets, former_out_bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![epoch, number(&kind), incoming.0, incoming.1, outgoing.0, outgoing.1],
        )?;
    }
    Ok(())
}

/// The booked sums of an epoch and kind.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    sums: Sums,
    last: Sums,
    former: Sums,
}

/// A set of counters with what was booked of it.
struct Epoch {
    name: String,
    lost: bool,
    /// By [`place`].
    kinds: [Kept; 3],
}

/// What was compared, and what does not agree.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Sets of counters.
    pub sets: u64,
    /// Those without sums to compare with.
    pub sets_skipped: u64,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Compares the rows of every set of counters with what its drains have booked, and that with itself.
pub(crate) fn compare(conn: &Connection, calendar: &Calendar) -> Result<Compared, LedgerError> {
    let mut compared = Compared::default();
    let rows = sums_of_rows(conn, calendar)?;
    let epochs = epochs(conn)?;
    // What was imported belongs to a set that was never drained.
    let drained = "SELECT count(*) FROM epoch WHERE drains > 0 AND id NOT IN (SELECT epoch FROM booked)";
    compared.sets_skipped = conn.query_row(drained, [], |row| row.get::<_, i64>(0))?.cast_unsigned();
    for (id, epoch) in &epochs {
        compared.sets += 1;
        for kind in KINDS {
            let at = place(&kind);
            let (in_rows, booked) = (rows.get(&(*id, at)).copied().unwrap_or_default(), epoch.kinds[at].sums);
            if in_rows != booked {
                compared.problems.push(format!(
                    "counters {}: the rows of {} hold {}, and booked were {}",
                    epoch.name,
                    kind.name,
                    told(&in_rows),
                    told(&booked),
                ));
            }
        }
        compared.problems.extend(epoch.imbalance());
    }
    Ok(compared)
}

impl Epoch {
    fn kept(&self, kind: &Kind) -> &Kept {
        &self.kinds[place(kind)]
    }

    /// What passed must be in classes and faults.
    fn imbalance(&self) -> Option<String> {
        // Where a counter fell, what passed it is in one sum and not in another; the gap says so.
        if self.lost {
            return None;
        }
        let [passed, classes, faults] = [&PASSED, &TRAFFIC, &FAULT].map(|kind| self.kept(kind));
        let total = |kept: &Kept, at: usize| i128::from(kept.sums[at]) + i128::from(kept.former[at]);
        let missing = [0, 1, 2, 3].map(|at| total(passed, at) - total(classes, at) - total(faults, at));
        let is_torn =
            |at: usize| (-i128::from(faults.last[at])..=i128::from(passed.last[at])).contains(&missing[at]);
        if (0..4).all(is_torn) {
            return None;
        }
        let [in_packets, in_bytes, out_packets, out_bytes] = missing;
        Some(format!(
            "counters {}: of what passed, in {in_packets} packets and {in_bytes} bytes, out {out_packets} packets and \
             {out_bytes} bytes are neither in classes nor in faults",
            self.name
        ))
    }
}

fn told([in_packets, in_bytes, out_packets, out_bytes]: &Sums) -> String {
    format!("in {in_packets} packets, {in_bytes} bytes, out {out_packets} packets, {out_bytes} bytes")
}

fn epochs(conn: &Connection) -> Result<BTreeMap<i64, Epoch>, LedgerError> {
    let mut epochs: BTreeMap<i64, Epoch> = BTreeMap::new();
    let mut statement = conn.prepare(
        "SELECT e.id, e.epoch, e.created, b.losses, b.kind,
             in_packets, in_bytes, out_packets, out_bytes,
             last_in_packets, last_in_bytes, last_out_packets, last_out_bytes,
             former_in_packets, former_in_bytes, former_out_packets, former_out_bytes
         FROM booked b JOIN epoch e ON e.id = b.epoch ORDER BY e.id, b.kind",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let created = time(row, 2)?;
        let number: String = row.get(1)?;
        let epoch = epochs.entry(row.get(0)?).or_insert_with(|| Epoch {
            name: format!("{number} of {created}"),
            lost: false,
            kinds: Default::default(),
        });
        epoch.lost |= row.get::<_, i64>(3)? > 0;
        if let Some(kept) = epoch.kinds.get_mut(usize::from(row.get::<_, u8>(4)?)) {
            *kept = Kept { sums: four(row, 5)?, last: four(row, 9)?, former: four(row, 13)? };
        }
    }
    Ok(epochs)
}

/// The sums of all rows by epoch and kind, each time from the coarsest level that has it.
fn sums_of_rows(conn: &Connection, calendar: &Calendar) -> Result<BTreeMap<(i64, usize), Sums>, LedgerError> {
    let mut sums: BTreeMap<(i64, usize), Sums> = BTreeMap::new();
    let span = conn.query_row("SELECT min(start), max(start) FROM unit", [], |row| {
        Ok(row.get::<_, Option<i64>>(0)?.zip(row.get::<_, Option<i64>>(1)?))
    })?;
    let Some((first, last)) = span else { return Ok(sums) };
    let (start, end) = (calendar.start(Level::Month, first)?, calendar.end(Level::Month, last)?);
    for slice in Cutter::new(conn, calendar)?.cut(Level::Month, start, end)? {
        for kind in KINDS {
            let sql = format!(
                "SELECT s.epoch, sum(in_packets), sum(in_bytes), sum(out_packets), sum(out_bytes)
                 FROM {} t JOIN stream s ON s.id = t.stream WHERE t.start >= ?1 AND t.start < ?2 GROUP BY 1",
                kind.table(slice.level)
            );
            let mut statement = conn.prepare_cached(&sql)?;
            let mut rows = statement.query([slice.start, slice.end])?;
            while let Some(row) = rows.next()? {
                add(sums.entry((row.get(0)?, place(&kind))).or_default(), four(row, 1)?);
            }
        }
    }
    Ok(sums)
}
