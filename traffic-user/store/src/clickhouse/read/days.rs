//! Which days answer by themselves.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use traffic_ledger::{LedgerError, StoredQuery};

use super::{Reader, text, value};
use crate::{
    clickhouse::schema::{PART, table_of},
    read::pieces::{self, Piece, Pieces},
};

/// Seconds. No day of any zone is as long.
const LONGER_THAN_A_DAY_S: i64 = 200_000;

/// A day of a ledger.
struct Day {
    ledger: i32,
    span: (i64, i64),
    name: String,
    /// Whether it was summed up after its five minutes changed.
    is_summed: bool,
    /// Whether the store has its five minutes.
    has_parts: bool,
}

/// The days of some ledgers that overlap a span, by ledger and start.
fn days(reader: &Reader, ledgers: &[i32], (from, until): (i64, i64)) -> Result<Vec<Day>, LedgerError> {
    let places = reader.of_ledgers(ledgers);
    let units = reader.server.tables().table(table_of(true));
    let filter = format!(
        "{places} AND part = 'day' AND part_number > {} AND part_number < {until}",
        from.saturating_sub(LONGER_THAN_A_DAY_S)
    );
    // Only days whose unit has the version of its part. Both are read at the same moment: a day that is being replaced
    // just now is not left out.
    let sql = format!(
        "SELECT place, part_number, max(ifNull(`end`, 0)), max(ifNull(day, '')), bitShiftRight(max(version), 16) FROM {units} \
         FINAL WHERE entity IN ('{PART}', 'unit') AND {filter} GROUP BY place, part_number HAVING count() = 2 AND \
         min(version) = max(version)"
    );
    let mut found: Vec<(Day, u64)> = Vec::new();
    for row in reader.ask(&sql)? {
        let span = (value(&row, 1)?, value(&row, 2)?);
        if span.1 > from {
            let (ledger, name) = (reader.ledger(&row, 0)?, text(&row, 3).to_owned());
            let day = Day { ledger, span, name, is_summed: true, has_parts: false };
            found.push((day, value(&row, 4)?));
        }
    }
    found.sort_by_key(|(day, _)| (day.ledger, day.span.0));
    let borders: BTreeSet<i64> = found.iter().flat_map(|(day, _)| [day.span.0, day.span.1]).collect();
    let (Some(first), Some(last)) = (borders.first(), borders.last()) else { return Ok(Vec::new()) };
    // The newest of the five minutes between two borders, by ledger and border.
    let sql = format!(
        "SELECT place, {} AS border, max(bitShiftRight(version, 16)) FROM {units} FINAL WHERE {places} \
         AND entity = '{PART}' AND part = '5min' AND part_number >= {first} AND part_number < {last} GROUP BY place, \
         border",
        reader.start_of("part_number", &borders.iter().copied().collect::<Vec<_>>(), true)
    );
    let mut newest: BTreeMap<(i32, i64), u64> = BTreeMap::new();
    for row in reader.ask(&sql)? {
        newest.insert((reader.ledger(&row, 0)?, value(&row, 1)?), value(&row, 2)?);
    }
    for (day, rev) in &mut found {
        let within = newest.range((day.ledger, day.span.0)..(day.ledger, day.span.1));
        for (_, of_part) in within {
            day.has_parts = true;
            day.is_summed &= *of_part <= *rev;
        }
    }
    Ok(found.into_iter().map(|(day, _)| day).collect())
}

/// The days of a query's span. They are asked for once, and only if they are needed.
pub(super) struct Days<'a> {
    pub reader: &'a Reader,
    range: (i64, i64),
    found: OnceCell<Vec<Day>>,
}

impl<'a> Days<'a> {
    pub const fn of(reader: &'a Reader, query: &StoredQuery<'_>) -> Self {
        Self { reader, range: query.range, found: OnceCell::new() }
    }

    fn all(&self) -> Result<&[Day], LedgerError> {
        if let Some(found) = self.found.get() {
            return Ok(found);
        }
        let found = days(self.reader, &self.reader.book.numbers(), self.range)?;
        Ok(self.found.get_or_init(|| found))
    }

    /// Refuses five minutes of which the store has only whole days.
    pub fn require_parts(&self, piece: &Piece) -> Result<(), LedgerError> {
        if piece.level != 0 {
            return Ok(());
        }
        let is_in = |day: &Day| {
            day.span.0 < piece.span.1 && piece.span.0 < day.span.1 && piece.ledgers.contains(&day.ledger)
        };
        match self.all()?.iter().find(|day| !day.has_parts && is_in(day)) {
            Some(day) => Err(LedgerError::Store(format!(
                "this needs five minutes of {}, of which the store has only whole days of node {}; use steps and a span of \
                 whole days in its zone",
                day.name,
                self.reader.book.node(day.ledger)
            ))),
            None => Ok(()),
        }
    }
}

/// Cuts a span. `uses_closed`: whether frozen rows have what is asked for.
pub(super) fn cut(
    reader: &Reader,
    query: &StoredQuery<'_>,
    uses_closed: bool,
) -> Result<Pieces, LedgerError> {
    let days = Days::of(reader, query);
    let all = if pieces::has_days(query) { days.all()? } else { &[] };
    let is_within = |day: &&Day| query.range.0 <= day.span.0 && day.span.1 <= query.range.1;
    let summed: Vec<_> =
        all.iter().filter(|day| day.is_summed).filter(is_within).map(|day| (day.ledger, day.span)).collect();
    let pieces = pieces::cut(&reader.book, query, uses_closed, &summed);
    for piece in &pieces.rows {
        days.require_parts(piece)?;
    }
    Ok(pieces)
}
