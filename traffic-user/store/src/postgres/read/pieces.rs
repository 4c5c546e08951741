//! Which rows answer for which time.
//!
//! A closed month answers from its frozen rows, a day that is over from its own rows, and everything else from five
//! minutes. A day whose five minutes changed after it was summed up does not answer until it is summed up again.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;
use traffic_ledger::{LedgerError, StoredQuery};

use super::Reader;

/// Seconds. No day of any zone is shorter.
const SHORTEST_DAY_S: i64 = 20 * 3600;

/// Rows of one level in a span, of some ledgers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// 0 for five minutes, 2 for days.
    pub level: i16,
    pub span: (i64, i64),
    pub ledgers: Vec<i32>,
}

/// A closed month of a ledger, and the step that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClosedPiece {
    pub ledger: i32,
    pub period: i64,
    /// Start of the month, Unix seconds.
    pub start: i64,
    pub step: usize,
}

/// All rows of a span.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub rows: Vec<Piece>,
    pub closed: Vec<ClosedPiece>,
}

/// The step that holds a whole unit.
fn step_of(query: &StoredQuery<'_>, (start, end): (i64, i64)) -> Option<usize> {
    let is_inside = query.range.0 <= start && end <= query.range.1 && start < end;
    let step = query.step(start)?;
    (is_inside && query.step(end - 1) == Some(step)).then_some(step)
}

/// Cuts a span. `uses_closed`: whether frozen rows have what is asked for.
pub(super) fn pieces(
    reader: &Reader,
    query: &StoredQuery<'_>,
    uses_closed: bool,
) -> Result<Pieces, LedgerError> {
    let mut covered: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
    let mut pieces = Pieces::default();
    for period in reader.periods.iter().filter(|_| uses_closed) {
        if let Some(step) = step_of(query, period.span) {
            pieces.closed.push(ClosedPiece {
                ledger: period.ledger,
                period: period.number,
                start: period.span.0,
                step,
            });
            covered.entry(period.ledger).or_default().push(period.span);
        }
    }
    let mut grouped: BTreeMap<(i16, i64, i64), Vec<i32>> = BTreeMap::new();
    let mut days: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
    for (ledger, span) in summed_days(reader, query)? {
        let is_covered = covered
            .get(&ledger)
            .is_some_and(|closed| closed.iter().any(|of| of.0 <= span.0 && span.0 < of.1));
        if is_covered || step_of(query, span).is_none() {
            continue;
        }
        let of_ledger = days.entry(ledger).or_default();
        match of_ledger.last_mut() {
            Some(last) if last.1 == span.0 => last.1 = span.1,
            _ => of_ledger.push(span),
        }
    }
    for ledger in reader.ledger_numbers() {
        let of_days = days.remove(&ledger).unwrap_or_default();
        let mut taken = covered.remove(&ledger).unwrap_or_default();
        for &(start, end) in &of_days {
            grouped.entry((2, start, end)).or_default().push(ledger);
            taken.push((start, end));
        }
        taken.sort_unstable();
        for (start, end) in between(query.range, &taken) {
            grouped.entry((0, start, end)).or_default().push(ledger);
        }
    }
    pieces.rows = grouped
        .into_iter()
        .map(|((level, start, end), ledgers)| Piece { level, span: (start, end), ledgers })
        .collect();
    for piece in &pieces.rows {
        require_kept(reader, piece)?;
    }
    Ok(pieces)
}

/// What is left of a span without some parts of it, which are sorted and do not overlap.
fn between(range: (i64, i64), taken: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut left = Vec::new();
    let mut at = range.0;
    for &(start, end) in taken {
        left.extend((at < start).then_some((at, start)));
        at = at.max(end);
    }
    left.extend((at < range.1).then_some((at, range.1)));
    left
}

/// A ledger, and a span of Unix seconds in it.
type LedgerSpan = (i32, (i64, i64));

/// The days within a span that hold everything of their five minutes.
fn summed_days(reader: &Reader, query: &StoredQuery<'_>) -> Result<Vec<LedgerSpan>, LedgerError> {
    let has_days = (0..query.starts.len()).any(|step| {
        let (start, end) = query.span(step);
        end - start >= SHORTEST_DAY_S
    });
    if !has_days {
        return Ok(Vec::new());
    }
    let sql = "SELECT u.ledger, u.start, u.\"end\" FROM trafctl.unit u
               JOIN trafctl.part p ON p.ledger = u.ledger AND p.name = 'day' AND p.number = u.start
               WHERE u.level = 2 AND u.ledger = ANY($1) AND u.start >= $2 AND u.start < $3 AND u.\"end\" <= $3
                   AND NOT EXISTS (SELECT 1 FROM trafctl.part q WHERE q.ledger = u.ledger AND q.name = '5min'
                       AND q.number >= u.start AND q.number < u.\"end\" AND q.rev > p.rev)
               ORDER BY u.ledger, u.start";
    let rows = reader.rows(
        sql,
        &[
            (&reader.ledger_numbers(), Type::INT4_ARRAY),
            (&query.range.0, Type::INT8),
            (&query.range.1, Type::INT8),
        ],
    )?;
    Ok(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
}

/// Refuses five minutes of which the store has only whole days, and rows whose partition was dropped.
pub(super) fn require_kept(reader: &Reader, piece: &Piece) -> Result<(), LedgerError> {
    let (from, until) = piece.span;
    let span = [(&from as _, Type::INT8), (&until as _, Type::INT8), (&piece.ledgers as _, Type::INT4_ARRAY)];
    let parts = "SELECT to_char(to_timestamp(p.number), 'YYYY_MM'), p.ledger FROM trafctl.part p
                 WHERE p.ledger = ANY($3) AND p.name IN ('5min', 'day') AND p.number >= $1 AND p.number < $2
                     AND NOT to_char(to_timestamp(p.number), 'YYYY_MM') = ANY($4) LIMIT 1";
    let mut with_partitions: Vec<super::Parameter<'_>> = span.to_vec();
    with_partitions.push((&reader.partitions, Type::TEXT_ARRAY));
    if let Some(row) = reader.rows(parts, &with_partitions)?.first() {
        return Err(LedgerError::Store(format!(
            "the rows of {} (UTC) of node {} were dropped from the store; give a later start, or whole closed months",
            row.get::<_, String>(0).replace('_', "-"),
            reader.node(row.get(1))
        )));
    }
    if piece.level != 0 {
        return Ok(());
    }
    let days = "SELECT u.day, u.ledger FROM trafctl.unit u WHERE u.level = 2 AND u.ledger = ANY($3)
                    AND u.start > $1 - 200000 AND u.start < $2 AND u.\"end\" > $1
                    AND NOT EXISTS (SELECT 1 FROM trafctl.unit f WHERE f.ledger = u.ledger AND f.level = 0
                        AND f.start >= u.start AND f.start < u.\"end\") LIMIT 1";
    match reader.rows(days, &span)?.first() {
        Some(row) => Err(LedgerError::Store(format!(
            "this needs five minutes of {}, of which the store has only whole days of node {}; use steps and a span of \
             whole days in its zone",
            row.get::<_, Option<String>>(0).unwrap_or_default(),
            reader.node(row.get(1))
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_span() {
        assert_eq!(between((0, 10), &[]), [(0, 10)]);
        assert_eq!(between((0, 10), &[(0, 3), (5, 7)]), [(3, 5), (7, 10)]);
        assert_eq!(between((0, 10), &[(2, 10)]), [(0, 2)]);
        assert_eq!(between((0, 10), &[(0, 10)]), []);
    }

    #[test]
    fn a_unit_answers_only_for_the_step_that_holds_all_of_it() {
        let query = StoredQuery {
            starts: &[100, 200, 300],
            range: (100, 350),
            containers: None,
            classes: &[],
            split: Default::default(),
        };
        for (unit, step) in [
            ((100, 200), Some(0)),
            ((250, 300), Some(1)),
            ((150, 250), None),
            ((300, 350), Some(2)),
            ((300, 400), None),
            ((50, 150), None),
        ] {
            assert_eq!(step_of(&query, unit), step, "{unit:?}");
        }
    }
}
