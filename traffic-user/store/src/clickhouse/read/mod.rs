//! Reports from a store in ClickHouse.
//!
//! The server adds up the rows: what comes here has the size of the report, and not of its span. Unlike in PostgreSQL, the
//! statements of one report may see rows of different moments, and a statement that reads a table twice may do so, too. Days
//! that are over change by late readings and repairs; `sums` makes sure that they are there as a whole.
//!
//! - `load`: what is small: calendars, containers, closed months.
//! - `days`: which days answer by themselves.
//! - `by_tenant`: sums where the containers are tenants.
//! - `sums`, `rates`, `records`: the questions of [`StoredRows`].

mod by_tenant;
mod days;
mod load;
mod rates;
mod records;
mod sums;

use std::collections::HashMap;

use tokio::runtime::Runtime;
use traffic_ledger::{
    ClosedPeriod, CountedOrDropped, Gap, InterfaceSums, Ledger, LedgerError, LineKey, PeriodAdjustment,
    Ranking, Rates, Signed, StoredQuery, StoredRows,
};

use super::{ClickHouse, Http, http::number, sql, target::Target};
use crate::{
    read::{
        Reported,
        book::Book,
        drops,
        pieces::{LedgerSpan, Piece},
        time_limit::TimeLimit,
    },
    store::StoreError,
};

/// A row of an answer.
type Row = Vec<Option<String>>;

/// An open report.
#[derive(Debug)]
struct Reader {
    runtime: Runtime,
    server: Http,
    limit: TimeLimit,
    /// Where the rows of the ledgers are. A ledger's number in the report is its place in this list, from 1 on.
    places: Vec<u64>,
    book: Book,
    /// What the tenants are called, in a report by tenant.
    tenants: HashMap<i64, String>,
}

/// Opens what a store holds of some nodes, as a ledger that can only be read. Blocks; not to be called within an event
/// loop.
///
/// # Errors
/// When the store does not answer, does not know a node, or its ledgers do not go together.
pub fn open_ledger(target: &Target, reported: &Reported<'_>) -> Result<Ledger, StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StoreError::Away(format!("cannot start the event loop: {error}")))?;
    let limit = TimeLimit::new(reported.until);
    let server = runtime.block_on(limit.within(ClickHouse::connect(target)))??.engine;
    let reader =
        Reader { runtime, server, limit, places: Vec::new(), book: Book::default(), tenants: HashMap::new() };
    load::open(reader, reported).map_err(|error| match error {
        LedgerError::Store(text) => StoreError::Refused(text),
        other => StoreError::Refused(other.to_string()),
    })
}

fn failed(error: &StoreError) -> LedgerError {
    LedgerError::Store(format!("the store cannot answer: {error}"))
}

/// A number of a row.
fn value<N: std::str::FromStr>(row: &Row, at: usize) -> Result<N, LedgerError> {
    number(row, at).map_err(|error| failed(&error))
}

/// A number of a row that may be null.
fn optional(row: &Row, at: usize) -> Result<Option<i64>, LedgerError> {
    row.get(at).and_then(Option::as_ref).map(|_| value(row, at)).transpose()
}

fn text(row: &Row, at: usize) -> &str {
    super::http::text(row, at)
}

/// Numbers as a list in a statement.
fn list<T: ToString>(numbers: impl IntoIterator<Item = T>) -> String {
    numbers.into_iter().map(|number| number.to_string()).collect::<Vec<_>>().join(", ")
}

/// Starts that a server looks through for each row, if it has no better way.
const FEW_STARTS: usize = 500;

fn start_of(time: &str, starts: &[i64], (rounds, is_exact): (bool, bool)) -> String {
    let widths = || starts.windows(2).map(|pair| pair[1] - pair[0]);
    match (starts, widths().next()) {
        ([start], _) => format!("toInt64({start})"),
        _ if rounds => format!("roundDown({time}, [{}])", list(starts)),
        ([first, ..], Some(width)) if widths().all(|other| other == width) => {
            // What is behind the last step's start stays in it.
            let last = starts.len() - 1;
            format!("{first} + least(intDiv({time} - {first}, {width}), {last}) * {width}")
        }
        _ if is_exact || starts.len() <= FEW_STARTS => {
            // Without a lambda, whose columns an old server does not ask a subquery for.
            let passed: Vec<String> = starts.iter().map(|start| format!("{time} >= {start}")).collect();
            format!("arrayElement([{}], arraySum([{}]))", list(starts), passed.join(", "))
        }
        _ => time.to_owned(),
    }
}

impl Reader {
    fn ask(&self, sql: &str) -> Result<Vec<Row>, LedgerError> {
        let answer = self.server.ask_within(sql, self.limit.left());
        self.runtime.block_on(answer).map_err(|error| failed(&error))
    }

    /// Whether a ledger has five minutes in a span.
    fn has_five_minutes(&self, (ledger, (start, end)): LedgerSpan) -> Result<bool, LedgerError> {
        let of = self.of_ledgers(&[ledger]);
        let filter = format!("{of} AND part = '5min' AND part_number >= {start} AND part_number < {end}");
        let rows = self.ask(&format!("SELECT count() FROM {}", self.rows_of("unit", &filter)))?;
        Ok(rows.first().map_or(Ok(0), |row| value::<u64>(row, 0))? > 0)
    }

    fn place(&self, ledger: i32) -> u64 {
        let at = usize::try_from(ledger).unwrap_or_default().saturating_sub(1);
        self.places.get(at).copied().unwrap_or_default()
    }

    /// The ledger of a row, whose place is a column of it.
    fn ledger(&self, row: &Row, at: usize) -> Result<i32, LedgerError> {
        let place: u64 = value(row, at)?;
        let found = self.places.iter().position(|one| *one == place);
        Ok(found.and_then(|at| i32::try_from(at + 1).ok()).unwrap_or(0))
    }

    /// The condition for some ledgers.
    fn of_ledgers(&self, ledgers: &[i32]) -> String {
        format!("place IN ({})", list(ledgers.iter().map(|ledger| self.place(*ledger))))
    }

    /// The condition for pairs of a ledger and a number in it.
    fn of_pairs(&self, columns: &str, pairs: &[(i32, i64)]) -> String {
        if pairs.is_empty() {
            return "1 = 0".to_owned();
        }
        let all = pairs.iter().map(|(ledger, number)| format!("({}, {number})", self.place(*ledger)));
        format!("({columns}) IN ({})", all.collect::<Vec<_>>().join(", "))
    }

    /// SQL for the start of the step that a time is in. Where that is not exact, it may also be another time in the step.
    fn start_of(&self, time: &str, starts: &[i64], is_exact: bool) -> String {
        start_of(time, starts, (self.server.rounds(), is_exact))
    }

    /// The rows of a table that count, for a FROM.
    fn rows_of(&self, entity: &str, filter: &str) -> String {
        let units = matches!(entity, "unit" | "traffic" | "fault" | "passed" | "span" | "dropped");
        let rows = sql::counted(self.server.tables(), units, filter);
        format!("{rows} AND entity = '{entity}'")
    }

    /// The same of all ledgers of the report.
    fn all_of(&self, entity: &str) -> String {
        self.rows_of(entity, &self.of_ledgers(&self.book.numbers()))
    }
}

impl StoredRows for Reader {
    fn traffic(&self, query: &StoredQuery<'_>) -> Result<Vec<(LineKey, [u64; 4])>, LedgerError> {
        sums::traffic(self, query)
    }

    fn drops(&self, query: &StoredQuery<'_>) -> Result<Vec<CountedOrDropped>, LedgerError> {
        sums::drops(self, query)
    }

    fn nodes_without_drops(&self, query: &StoredQuery<'_>) -> Result<Vec<String>, LedgerError> {
        let pieces = || {
            let rows = days::cut(self, query, false)?.rows.into_iter();
            let of = |piece: Piece| piece.ledgers.into_iter().map(move |of| (piece.level, (of, piece.span)));
            Ok(rows.flat_map(of).collect())
        };
        let lacking =
            drops::with_lacking_rows(&self.book.drops, query.range, pieces, |of| self.has_five_minutes(of))?;
        Ok(drops::nodes_without(&self.book.drops, query.range, &lacking))
    }

    fn faults(&self, query: &StoredQuery<'_>) -> Result<[u64; 4], LedgerError> {
        sums::faults(self, query)
    }

    fn interfaces(&self, query: &StoredQuery<'_>) -> Result<InterfaceSums, LedgerError> {
        sums::interfaces(self, query)
    }

    fn rates(
        &self,
        query: &StoredQuery<'_>,
        ranking: &Ranking<'_>,
    ) -> Result<Vec<(LineKey, Rates)>, LedgerError> {
        rates::rates(self, query, ranking)
    }

    fn mixed_buckets(&self, range: (i64, i64)) -> Result<u64, LedgerError> {
        records::mixed_buckets(self, range)
    }

    fn gaps(&self, range: (i64, i64), containers: Option<&[i64]>) -> Result<Vec<Gap>, LedgerError> {
        records::gaps(self, range, containers)
    }

    fn closed(&self, range: (i64, i64)) -> Result<Vec<ClosedPeriod>, LedgerError> {
        records::closed(self, range)
    }

    fn adjustments(&self, range: (i64, i64)) -> Result<Vec<PeriodAdjustment>, LedgerError> {
        records::adjustments(self, range)
    }

    fn frozen(&self, period: &str, container: i64, class: u8) -> Result<Signed, LedgerError> {
        records::frozen(self, period, container, class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_step_is_found_in_the_way_that_the_server_has() {
        let old = |starts: &[i64], is_exact| start_of("t", starts, (false, is_exact));
        assert_eq!(start_of("t", &[7], (true, true)), "toInt64(7)");
        assert_eq!(start_of("t", &[0, 300, 900], (true, true)), "roundDown(t, [0, 300, 900])");
        assert_eq!(old(&[600, 900, 1200], true), "600 + least(intDiv(t - 600, 300), 2) * 300");
        assert_eq!(
            old(&[0, 300, 900], true),
            "arrayElement([0, 300, 900], arraySum([t >= 0, t >= 300, t >= 900]))"
        );
        let many: Vec<i64> = (0..600).map(|at| at * at).collect();
        assert_eq!(old(&many, false), "t");
        assert!(old(&many, true).starts_with("arrayElement("));
    }
}
