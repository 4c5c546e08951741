//! Gaps, closed months and corrections.

use jiff::Timestamp;
use tokio_postgres::types::Type;
use traffic_ledger::{
    Adjustment, ClosedPeriod, Gap, GapReason, GapSize, LedgerError, PeriodAdjustment, Signed,
};

use super::{Period, Reader};

pub(super) fn mixed_buckets(reader: &Reader, range: (i64, i64)) -> Result<u64, LedgerError> {
    let sql = "SELECT count(DISTINCT start) FROM trafctl.span
               WHERE level = 0 AND ledger = ANY($1) AND start >= $2 AND start < $3";
    let rows = reader.rows(
        sql,
        &[(&reader.ledger_numbers(), Type::INT4_ARRAY), (&range.0, Type::INT8), (&range.1, Type::INT8)],
    )?;
    Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).cast_unsigned()))
}

/// Gaps of the asked containers, those of whole nodes, and those of interfaces that never had another owner.
const CONCERNS: &str = "
    AND CASE WHEN g.container IS NOT NULL THEN
            (g.ledger, g.container) IN (SELECT * FROM unnest($4::int[], $5::bigint[]))
        WHEN g.interface IS NULL THEN true
        ELSE EXISTS (SELECT 1 FROM trafctl.interface i WHERE i.ledger = g.ledger AND i.name = g.interface)
            AND NOT EXISTS (SELECT 1 FROM trafctl.interface i WHERE i.ledger = g.ledger AND i.name = g.interface
                AND i.container <> 0
                AND (i.ledger, i.container) NOT IN (SELECT * FROM unnest($4::int[], $5::bigint[]))) END";

pub(super) fn gaps(
    reader: &Reader,
    range: (i64, i64),
    containers: Option<&[i64]>,
) -> Result<Vec<Gap>, LedgerError> {
    let sql = format!(
        "SELECT g.ledger, g.start, g.\"end\", g.reason, g.interface, g.container, g.in_skbs, g.in_skb_bytes, g.out_skbs,
             g.out_skb_bytes, g.detail
         FROM trafctl.gap g WHERE g.ledger = ANY($1) AND g.\"end\" >= $2 AND coalesce(g.start, g.\"end\") < $3{}
         ORDER BY g.\"end\", g.ledger, g.number",
        if containers.is_some() { CONCERNS } else { "" }
    );
    let (ledgers, numbers) = reader.members_of(containers.unwrap_or_default());
    let rows = reader.rows(
        &sql,
        &[
            (&reader.ledger_numbers(), Type::INT4_ARRAY),
            (&range.0, Type::INT8),
            (&range.1, Type::INT8),
            (&ledgers, Type::INT4_ARRAY),
            (&numbers, Type::INT8_ARRAY),
        ],
    )?;
    let mut gaps = Vec::with_capacity(rows.len());
    for row in &rows {
        let ledger: i32 = row.get(0);
        let reason: &str = row.get(3);
        let known = GapReason::ALL.into_iter().find(|known| known.name() == reason);
        let value = |at: usize| row.get::<_, Option<i64>>(at).unwrap_or_default().cast_unsigned();
        let size = GapSize {
            in_skbs: value(6),
            in_skb_bytes: value(7),
            out_skbs: value(8),
            out_skb_bytes: value(9),
        };
        let container = row.get::<_, Option<i64>>(5);
        let container = container.and_then(|number| reader.own_labels.get(&(ledger, number)));
        gaps.push(Gap {
            node: reader.named_node(ledger),
            start: row.get::<_, Option<i64>>(1).map(Timestamp::from_second).transpose()?,
            end: Timestamp::from_second(row.get(2))?,
            reason: known.ok_or_else(|| {
                LedgerError::Store(format!(
                    "node {} has a gap of the kind {reason:?}, which this trafctl does not know; use a newer one",
                    reader.node(ledger)
                ))
            })?,
            interface: row.get(4),
            container: container.cloned(),
            size: row.get::<_, Option<i64>>(6).is_some().then_some(size),
            detail: row.get(10),
        });
    }
    Ok(gaps)
}

pub(super) fn closed(reader: &Reader, range: (i64, i64)) -> Result<Vec<ClosedPeriod>, LedgerError> {
    let sql = "SELECT p.ledger, p.name, p.start, p.\"end\", p.closed, c.hash,
                   (SELECT count(*) FROM trafctl.closed_row r WHERE r.ledger = p.ledger AND r.period = p.number)
               FROM trafctl.period p
               JOIN trafctl.chain c ON c.ledger = p.ledger AND c.kind = 'period' AND c.subject = p.number
               WHERE p.ledger = ANY($1) AND p.\"end\" > $2 AND p.start < $3 ORDER BY p.start, p.ledger";
    let rows = reader.rows(
        sql,
        &[(&reader.ledger_numbers(), Type::INT4_ARRAY), (&range.0, Type::INT8), (&range.1, Type::INT8)],
    )?;
    let period = |row: &tokio_postgres::Row| {
        Ok(ClosedPeriod {
            node: reader.named_node(row.get(0)),
            name: row.get(1),
            start: Timestamp::from_second(row.get(2))?,
            end: Timestamp::from_second(row.get(3))?,
            closed: Timestamp::from_second(row.get(4))?,
            hash: row.get(5),
            rows: row.get::<_, i64>(6).cast_unsigned(),
        })
    };
    rows.iter().map(period).collect()
}

pub(super) fn adjustments(reader: &Reader, range: (i64, i64)) -> Result<Vec<PeriodAdjustment>, LedgerError> {
    let order = if reader.ledgers.len() == 1 { "a.number" } else { "a.made, a.ledger, a.number" };
    let sql = format!(
        "SELECT a.ledger, p.name, a.made, a.container, a.class, a.family, a.in_packets, a.out_packets, a.in_bytes,
             a.out_bytes, a.reason, a.container_number, p.start, p.\"end\"
         FROM trafctl.adjustment a JOIN trafctl.period p ON p.ledger = a.ledger AND p.number = a.period
         WHERE a.ledger = ANY($1) AND p.\"end\" > $2 AND p.start < $3 ORDER BY {order}"
    );
    let rows = reader.rows(
        &sql,
        &[(&reader.ledger_numbers(), Type::INT4_ARRAY), (&range.0, Type::INT8), (&range.1, Type::INT8)],
    )?;
    let adjustment = |row: &tokio_postgres::Row| {
        let ledger: i32 = row.get(0);
        let small = |at: usize| u8::try_from(row.get::<_, i64>(at)).unwrap_or_default();
        let span: (i64, i64) = (row.get(12), row.get(13));
        // A correction is of a whole month: whoever had the container at its end gets it.
        let (container, label) = match &reader.shares {
            Some(shares) => {
                let shown = shares.at(ledger, row.get(11), span.1 - 1).unwrap_or(0);
                (shown, reader.labels.get(&shown).cloned().unwrap_or_default())
            }
            None => (reader.container(ledger, row.get(11)), reader.shown(ledger, row.get(3))),
        };
        Ok(PeriodAdjustment {
            container,
            span,
            adjustment: Adjustment {
                period: row.get(1),
                made: Timestamp::from_second(row.get(2))?,
                container: label,
                class: small(4),
                family: small(5),
                packets: [row.get(6), row.get(7)],
                bytes: [row.get(8), row.get(9)],
                reason: row.get(10),
            },
        })
    };
    rows.iter().map(adjustment).collect()
}

pub(super) fn frozen(
    reader: &Reader,
    period: &str,
    container: i64,
    class: u8,
) -> Result<Signed, LedgerError> {
    let (mut ledgers, mut periods, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for &(ledger, number) in reader.members.get(&container).into_iter().flatten() {
        let is_its = |of: &&Period| {
            reader
                .shares
                .as_ref()
                .is_none_or(|shares| shares.at(ledger, number, of.span.1 - 1) == Some(container))
        };
        for of in reader.periods.iter().filter(|of| of.ledger == ledger && of.name == period).filter(is_its) {
            ledgers.push(ledger);
            periods.push(of.number);
            numbers.push(number);
        }
    }
    let sql = "SELECT coalesce(sum(r.in_packets), 0)::bigint, coalesce(sum(r.in_bytes), 0)::bigint,
                   coalesce(sum(r.out_packets), 0)::bigint, coalesce(sum(r.out_bytes), 0)::bigint
               FROM trafctl.closed_row r
               JOIN unnest($1::int[], $2::bigint[], $3::bigint[]) c(ledger, period, number)
                   ON r.ledger = c.ledger AND r.period = c.period AND r.number = c.number
               WHERE r.class = $4";
    let rows = reader.rows(
        sql,
        &[
            (&ledgers, Type::INT4_ARRAY),
            (&periods, Type::INT8_ARRAY),
            (&numbers, Type::INT8_ARRAY),
            (&i64::from(class), Type::INT8),
        ],
    )?;
    Ok(rows.first().map_or([0; 4], |row| [row.get(0), row.get(1), row.get(2), row.get(3)]))
}
