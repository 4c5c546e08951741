//! Gaps, closed months and corrections.

use std::collections::HashSet;

use jiff::Timestamp;
use traffic_ledger::{
    Adjustment, ClosedPeriod, Gap, GapReason, GapSize, LedgerError, PeriodAdjustment, Signed,
};

use super::{Reader, Row, optional, text, value};
use crate::read::book::Period;

pub(super) fn mixed_buckets(reader: &Reader, range: (i64, i64)) -> Result<u64, LedgerError> {
    let filter = format!(
        "{} AND part = '5min' AND part_number >= {} AND part_number < {}",
        reader.of_ledgers(&reader.book.numbers()),
        range.0,
        range.1
    );
    let sql = format!("SELECT uniqExact(part_number) FROM {}", reader.rows_of("span", &filter));
    reader.ask(&sql)?.first().map_or(Ok(0), |row| value(row, 0))
}

/// A time of a row.
fn time(row: &Row, at: usize) -> Result<Timestamp, LedgerError> {
    Ok(Timestamp::from_second(value(row, at)?)?)
}

/// Whether a gap is of some containers, of a whole node, or of an interface that never had another owner.
struct Concerns {
    containers: HashSet<(i32, i64)>,
    /// Ledger, name and container of all interfaces.
    interfaces: Vec<(i32, String, i64)>,
}

impl Concerns {
    fn new(reader: &Reader, containers: &[i64]) -> Result<Self, LedgerError> {
        let sql = format!("SELECT place, name, ifNull(container, 0) FROM {}", reader.all_of("interface"));
        let of = |row: &Row| Ok((reader.ledger(row, 0)?, text(row, 1).to_owned(), value(row, 2)?));
        Ok(Self {
            containers: reader.book.members_of(containers).into_iter().collect(),
            interfaces: reader.ask(&sql)?.iter().map(of).collect::<Result<_, LedgerError>>()?,
        })
    }

    fn has(&self, ledger: i32, container: Option<i64>, interface: Option<&str>) -> bool {
        let Some(container) = container else {
            let Some(name) = interface else { return true };
            let mut known = self.interfaces.iter().filter(|one| one.0 == ledger && one.1 == name).peekable();
            return known.peek().is_some()
                && known.all(|one| one.2 == 0 || self.containers.contains(&(ledger, one.2)));
        };
        self.containers.contains(&(ledger, container))
    }
}

pub(super) fn gaps(
    reader: &Reader,
    range: (i64, i64),
    containers: Option<&[i64]>,
) -> Result<Vec<Gap>, LedgerError> {
    let concerns = containers.map(|containers| Concerns::new(reader, containers)).transpose()?;
    let sql = format!(
        "SELECT place, start, ifNull(`end`, 0), reason, interface, container, in_skbs, in_skb_bytes, out_skbs, out_skb_bytes, \
         detail, part_number FROM {} AND ifNull(`end`, 0) >= {} AND ifNull(start, ifNull(`end`, 0)) < {}",
        reader.all_of("gap"),
        range.0,
        range.1
    );
    let mut gaps = Vec::new();
    for row in &reader.ask(&sql)? {
        let ledger = reader.ledger(row, 0)?;
        let (reason, container) = (text(row, 3), optional(row, 5)?);
        let interface = row.get(4).cloned().flatten();
        if concerns.as_ref().is_some_and(|concerns| !concerns.has(ledger, container, interface.as_deref())) {
            continue;
        }
        let known = GapReason::ALL.into_iter().find(|known| known.name() == reason);
        let of = |at: usize| Ok::<_, LedgerError>(optional(row, at)?.unwrap_or_default().cast_unsigned());
        let size = GapSize { in_skbs: of(6)?, in_skb_bytes: of(7)?, out_skbs: of(8)?, out_skb_bytes: of(9)? };
        let container = container.and_then(|number| reader.book.labels.get(&(ledger, number)));
        let gap = Gap {
            node: reader.book.named_node(ledger),
            start: optional(row, 1)?.map(Timestamp::from_second).transpose()?,
            end: time(row, 2)?,
            reason: known.ok_or_else(|| {
                LedgerError::Store(format!(
                    "node {} has a gap of the kind {reason:?}, which this trafctl does not know; use a newer one",
                    reader.book.node(ledger)
                ))
            })?,
            interface,
            container: container.cloned(),
            size: optional(row, 6)?.is_some().then_some(size),
            detail: row.get(10).cloned().flatten(),
        };
        gaps.push(((value::<i64>(row, 2)?, ledger, value::<i64>(row, 11)?), gap));
    }
    gaps.sort_by_key(|one| one.0);
    Ok(gaps.into_iter().map(|one| one.1).collect())
}

/// The closed months that overlap a span.
fn overlapping(reader: &Reader, range: (i64, i64)) -> impl Iterator<Item = &Period> {
    reader.book.periods.iter().filter(move |period| period.span.1 > range.0 && period.span.0 < range.1)
}

pub(super) fn closed(reader: &Reader, range: (i64, i64)) -> Result<Vec<ClosedPeriod>, LedgerError> {
    let pairs: Vec<(i32, i64)> =
        overlapping(reader, range).map(|period| (period.ledger, period.number)).collect();
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let of = reader.of_pairs("place, part_number", &pairs);
    let closed = format!("SELECT place, part_number, closed FROM {}", reader.rows_of("period", &of));
    let rows = format!(
        "SELECT place, part_number, count() FROM {} GROUP BY place, part_number",
        reader.rows_of("closed_row", &of)
    );
    let subjects = reader.of_pairs("place, ifNull(subject, 0)", &pairs);
    let chain = format!(
        "SELECT place, ifNull(subject, 0), hash FROM {} AND kind = 'period' AND {subjects}",
        reader.all_of("chain")
    );
    let (closed, rows, chain) = (reader.ask(&closed)?, reader.ask(&rows)?, reader.ask(&chain)?);
    let find = |all: &[Row], period: &Period| -> Result<Option<Row>, LedgerError> {
        for row in all {
            if (reader.ledger(row, 0)?, value::<i64>(row, 1)?) == (period.ledger, period.number) {
                return Ok(Some(row.clone()));
            }
        }
        Ok(None)
    };
    let mut all = Vec::new();
    for period in overlapping(reader, range) {
        let (Some(at), Some(hash)) = (find(&closed, period)?, find(&chain, period)?) else { continue };
        let counted = find(&rows, period)?;
        all.push(ClosedPeriod {
            node: reader.book.named_node(period.ledger),
            name: period.name.clone(),
            start: Timestamp::from_second(period.span.0)?,
            end: Timestamp::from_second(period.span.1)?,
            closed: time(&at, 2)?,
            hash: text(&hash, 2).to_owned(),
            rows: counted.map_or(Ok(0), |row| value(&row, 2))?,
        });
    }
    all.sort_by_key(|period| period.start);
    Ok(all)
}

pub(super) fn adjustments(reader: &Reader, range: (i64, i64)) -> Result<Vec<PeriodAdjustment>, LedgerError> {
    let sql = format!(
        "SELECT place, ifNull(period, 0), ifNull(made, 0), container_text, class, family, in_packets, out_packets, in_bytes, \
         out_bytes, reason, ifNull(container_number, 0), part_number FROM {}",
        reader.all_of("adjustment")
    );
    let mut all = Vec::new();
    for row in &reader.ask(&sql)? {
        let (ledger, number): (i32, i64) = (reader.ledger(row, 0)?, value(row, 1)?);
        let is_its = |period: &&Period| (period.ledger, period.number) == (ledger, number);
        let Some(period) = overlapping(reader, range).find(is_its) else { continue };
        let of = |at: usize| Ok::<_, LedgerError>(optional(row, at)?.unwrap_or_default());
        let small = |at: usize| Ok::<_, LedgerError>(u8::try_from(of(at)?).unwrap_or_default());
        let container: i64 = value(row, 11)?;
        // A correction is of a whole month: whoever had the container at its end gets it.
        let owner = reader.book.owner(ledger, container, period.span.1 - 1);
        let label = match &reader.book.shares {
            Some(_) => reader.tenants.get(&owner).cloned().unwrap_or_default(),
            None => reader.book.shown(ledger, text(row, 3)),
        };
        let adjustment = PeriodAdjustment {
            container: owner,
            span: period.span,
            adjustment: Adjustment {
                period: period.name.clone(),
                made: time(row, 2)?,
                container: label,
                class: small(4)?,
                family: small(5)?,
                packets: [of(6)?, of(7)?],
                bytes: [of(8)?, of(9)?],
                reason: text(row, 10).to_owned(),
            },
        };
        // Of one ledger in its order, of several by time.
        let made = if reader.book.ledgers.len() == 1 { 0 } else { value::<i64>(row, 2)? };
        all.push(((made, ledger, value::<i64>(row, 12)?), adjustment));
    }
    all.sort_by_key(|one| one.0);
    Ok(all.into_iter().map(|one| one.1).collect())
}

pub(super) fn frozen(
    reader: &Reader,
    period: &str,
    container: i64,
    class: u8,
) -> Result<Signed, LedgerError> {
    let mut wanted = Vec::new();
    for &(ledger, number) in reader.book.members.get(&container).into_iter().flatten() {
        let is_its = |of: &&Period| reader.book.owner(ledger, number, of.span.1 - 1) == container;
        let of =
            reader.book.periods.iter().filter(|of| of.ledger == ledger && of.name == period).filter(is_its);
        wanted.extend(of.map(|of| format!("({}, {}, {number})", reader.place(ledger), of.number)));
    }
    if wanted.is_empty() {
        return Ok([0; 4]);
    }
    let sql = format!(
        "SELECT {} FROM {} AND class = {class} AND (place, part_number, number) IN ({})",
        super::sums::FIGURES,
        reader.all_of("closed_row"),
        wanted.join(", ")
    );
    let found = reader.ask(&sql)?;
    let Some(row) = found.first() else { return Ok([0; 4]) };
    Ok([value(row, 0)?, value(row, 1)?, value(row, 2)?, value(row, 3)?])
}
