//! Control totals: per counter epoch, the sum of everything its drains wrote. The drains maintain them.
//!
//! An audit compares the rows with these totals, so it finds a row that was changed, added or removed even if
//! all levels agree. It also checks that classes + faults equal what passed. Traffic that was moved between
//! rows is found by the hash chain of closed months instead.
//!
//! Counters are not read at one instant: classes first, then interfaces, then faults. The passed total may
//! therefore be ahead of the classes, by at most what passed since the previous drain, and behind the faults,
//! by at most what they grew by since then. If nothing moved in the last drain, all totals must agree to the
//! byte.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use traffic_common::Tally;
use traffic_model::{
    Balance, ByDirection,
    calendar::{Calendar, Level},
};

use crate::{
    days::read::{self, Selection},
    error::LedgerError,
    figures::{self, Sums},
    query::rows::Cutter,
    schema::{DROPPED, FAULT, KINDS, Kind, PASSED, TALLY, TRAFFIC, time},
    time::borders::Borders,
    write::difference::Change,
};

/// What one drain writes, by kind of row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ControlTotals {
    sums: [Sums; KINDS.len()],
    /// Number of counters that fell. Traffic behind a fall is in no sum.
    losses: i64,
}

/// Index of a kind in [`KINDS`].
fn place(kind: &Kind) -> usize {
    KINDS.iter().position(|other| other == kind).unwrap_or(0)
}

/// Number of a kind in the table.
fn number(kind: &Kind) -> i64 {
    (0..).zip(KINDS).find(|(_, other)| other == kind).map_or(0, |(number, _)| number)
}

/// Reads four u64 values that are stored as i64.
fn four(row: &Row<'_>, first: usize) -> rusqlite::Result<Sums> {
    let value = |at| row.get::<_, i64>(first + at).map(i64::cast_unsigned);
    Ok([value(0)?, value(1)?, value(2)?, value(3)?])
}

impl ControlTotals {
    /// Adds one counter's change.
    pub(crate) fn add<const N: usize>(&mut self, kind: &Kind, change: &Change<N>) {
        // Each direction begins with packets and bytes on the wire.
        let [incoming, outgoing] = [0, N / 2];
        let moved = [incoming, incoming + 1, outgoing, outgoing + 1].map(|at| change.passed[at]);
        figures::add(&mut self.sums[place(kind)], moved);
        // What is dropped is in the classes too, so that a loss here leaves all other sums complete.
        if *kind != DROPPED {
            self.losses += i64::from(change.is_loss());
        }
    }

    /// Records that traffic is in some sums and not in others.
    pub(crate) const fn note_loss(&mut self) {
        self.losses += 1;
    }

    /// Adds this drain to the epoch's totals. An epoch whose first drains kept no totals never gets any.
    pub(crate) fn store(&self, conn: &Connection, epoch: i64) -> Result<(), LedgerError> {
        for (kind, last) in KINDS.iter().zip(&self.sums) {
            let stored = conn
                .prepare_cached(
                    "SELECT in_packets, in_bytes, out_packets, out_bytes FROM booked
                     WHERE epoch = ?1 AND kind = ?2",
                )?
                .query_row(params![epoch, number(kind)], |row| four(row, 0))
                .optional()?;
            let stored = match stored {
                // An epoch of a ledger from before version 12, of which no drop was recorded.
                None if *kind == DROPPED => {
                    insert(conn, (epoch, kind), [0; 4])?;
                    Some([0; 4])
                }
                stored => stored,
            };
            let Some(mut sums) = stored else { return Ok(()) };
            // Not in SQL: an impossible counter would make the statement fail forever.
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

/// Creates the totals of a new epoch. `former` was counted for owners that are gone; no ledger has their last
/// readings.
pub(crate) fn create(
    conn: &Connection,
    epoch: i64,
    former: &ByDirection<Balance>,
) -> Result<(), LedgerError> {
    for kind in KINDS {
        let of = |balance: &Balance| {
            let tally = match place(&kind) {
                0 => balance.classes,
                1 => balance.faults,
                2 => balance.passed,
                _ => Tally::default(),
            };
            (tally.packets, tally.bytes)
        };
        let (incoming, outgoing) = (of(&former.incoming), of(&former.outgoing));
        insert(conn, (epoch, &kind), [incoming.0, incoming.1, outgoing.0, outgoing.1])?;
    }
    Ok(())
}

fn insert(conn: &Connection, (epoch, kind): (i64, &Kind), former: Sums) -> Result<(), LedgerError> {
    let [in_packets, in_bytes, out_packets, out_bytes] = former.map(u64::cast_signed);
    conn.prepare_cached(
        "INSERT INTO booked (epoch, kind,
             former_in_packets, former_in_bytes, former_out_packets, former_out_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![epoch, number(kind), in_packets, in_bytes, out_packets, out_bytes])?;
    Ok(())
}

/// The stored totals of an epoch and kind.
#[derive(Clone, Copy, Debug, Default)]
struct StoredTotals {
    sums: Sums,
    last: Sums,
    former: Sums,
}

/// A counter epoch and its totals.
struct EpochTotals {
    name: String,
    lost: bool,
    /// By [`place`].
    kinds: [StoredTotals; KINDS.len()],
}

/// Result of comparing rows with control totals.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Number of epochs compared.
    pub sets: u64,
    /// Number of epochs without control totals.
    pub sets_skipped: u64,
    /// Mismatches.
    pub problems: Vec<String>,
}

/// Compares the rows of every epoch with its control totals, and the totals with each other.
pub(crate) fn compare(conn: &Connection, calendar: &Calendar) -> Result<Comparison, LedgerError> {
    let mut compared = Comparison::default();
    let rows = sums_of_rows(conn, calendar)?;
    let epochs = epochs(conn)?;
    // Imported rows belong to an epoch that was never drained.
    let drained = "SELECT count(*) FROM epoch WHERE drains > 0 AND id NOT IN (SELECT epoch FROM booked)";
    let skipped: i64 = conn.prepare_cached(drained)?.query_row([], |row| row.get(0))?;
    compared.sets_skipped = skipped.cast_unsigned();
    for (id, epoch) in &epochs {
        compared.sets += 1;
        for kind in KINDS {
            let at = place(&kind);
            let (in_rows, total) = (rows.get(&(*id, at)).copied().unwrap_or_default(), epoch.kinds[at].sums);
            if in_rows != total {
                compared.problems.push(format!(
                    "counters {}: the rows of {} hold {}, but the control total is {}",
                    epoch.name,
                    kind.name,
                    describe(&in_rows),
                    describe(&total),
                ));
            }
        }
        compared.problems.extend(epoch.imbalance());
    }
    Ok(compared)
}

impl EpochTotals {
    fn totals(&self, kind: &Kind) -> &StoredTotals {
        &self.kinds[place(kind)]
    }

    /// Describes the traffic that passed and is neither in classes nor in faults.
    fn imbalance(&self) -> Option<String> {
        // A counter that fell is missing from one sum and not from another. A gap record covers it.
        if self.lost {
            return None;
        }
        let [passed, classes, faults] = [&PASSED, &TRAFFIC, &FAULT].map(|kind| self.totals(kind));
        let total = |kept: &StoredTotals, at: usize| i128::from(kept.sums[at]) + i128::from(kept.former[at]);
        let missing = [0, 1, 2, 3].map(|at| total(passed, at) - total(classes, at) - total(faults, at));
        let is_torn =
            |at: usize| (-i128::from(faults.last[at])..=i128::from(passed.last[at])).contains(&missing[at]);
        if (0..4).all(is_torn) {
            return None;
        }
        let [in_packets, in_bytes, out_packets, out_bytes] = missing;
        Some(format!(
            "counters {}: {in_packets} packets and {in_bytes} bytes in, {out_packets} packets and \
             {out_bytes} bytes out passed, but are neither in classes nor in faults",
            self.name
        ))
    }
}

fn describe([in_packets, in_bytes, out_packets, out_bytes]: &Sums) -> String {
    format!("in {in_packets} packets, {in_bytes} bytes, out {out_packets} packets, {out_bytes} bytes")
}

fn epochs(conn: &Connection) -> Result<BTreeMap<i64, EpochTotals>, LedgerError> {
    let mut epochs: BTreeMap<i64, EpochTotals> = BTreeMap::new();
    let mut statement = conn.prepare_cached(
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
        let epoch = epochs.entry(row.get(0)?).or_insert_with(|| EpochTotals {
            name: format!("{number} of {created}"),
            lost: false,
            kinds: Default::default(),
        });
        epoch.lost |= row.get::<_, i64>(3)? > 0;
        if let Some(stored) = epoch.kinds.get_mut(usize::from(row.get::<_, u8>(4)?)) {
            *stored = StoredTotals { sums: four(row, 5)?, last: four(row, 9)?, former: four(row, 13)? };
        }
    }
    Ok(epochs)
}

/// Sums all rows by epoch and kind, each span from the coarsest level that has it.
fn sums_of_rows(conn: &Connection, calendar: &Calendar) -> Result<BTreeMap<(i64, usize), Sums>, LedgerError> {
    let mut sums: BTreeMap<(i64, usize), Sums> = BTreeMap::new();
    let span = conn
        .prepare_cached("SELECT min(start), max(start) FROM unit")?
        .query_row([], |row| Ok(row.get::<_, Option<i64>>(0)?.zip(row.get::<_, Option<i64>>(1)?)))?;
    let Some((first, last)) = span else { return Ok(sums) };
    let mut statement = conn.prepare_cached("SELECT id, epoch FROM stream")?;
    let epochs: BTreeMap<i64, i64> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let borders = Borders::new(conn, calendar);
    let (start, end) = (borders.start(Level::Month, first)?, borders.end(Level::Month, last)?);
    for slice in Cutter::new(conn, calendar)?.cut(Level::Month, start, end)? {
        for kind in KINDS {
            let sql = format!(
                "SELECT s.epoch, sum(in_packets), sum(in_bytes), sum(out_packets), sum(out_bytes)
                 FROM {} t JOIN stream s ON s.id = t.stream WHERE t.start >= ?1 AND t.start < ?2 GROUP BY 1",
                kind.rows_table(slice.level)
            );
            let mut statement = conn.prepare_cached(&sql)?;
            let mut rows = statement.query([slice.start, slice.end])?;
            while let Some(row) = rows.next()? {
                figures::add(sums.entry((row.get(0)?, place(&kind))).or_default(), four(row, 1)?);
            }
            let range = (slice.start, slice.end);
            let packed = Selection { values: &TALLY, ..Selection::all(&kind, slice.level, range) };
            for (series, values) in read::packed_sums(conn, &packed)? {
                let Some(&epoch) = epochs.get(&series[kind.keys.len() - 1]) else { continue };
                let [a, b, c, d, ..] = values;
                figures::add(sums.entry((epoch, place(&kind))).or_default(), [a, b, c, d]);
            }
        }
    }
    Ok(sums)
}
