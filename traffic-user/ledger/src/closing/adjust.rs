//! Corrections of closed periods. A correction is a row of its own in the hash chain. It is shown next to the
//! frozen figures and never changes them.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use traffic_common::Family;

use crate::{
    closing::{
        chain::extend_chain,
        correction::{Adjusted, Adjustment, AdjustmentRequest, ChainEntry, Corrected, Signed},
    },
    digest,
    error::LedgerError,
    query::billing::add,
    schema::time,
    store::Ledger,
};

impl Ledger {
    /// Computes what a correction would do, without writing anything.
    ///
    /// # Errors
    /// As for [`Ledger::adjust`].
    pub fn preview_adjustment(&self, request: &AdjustmentRequest) -> Result<Adjusted, LedgerError> {
        let (_, _, period) = self.month(&request.period)?;
        Ok(evaluate(&self.conn, &period, request)?.1)
    }

    /// Adds a correction to a closed period.
    ///
    /// # Errors
    /// When the period is not closed, the container is unknown, or the file cannot be written. Also when the
    /// correction is empty, has no reason, repeats an earlier one, or exceeds the existing figures.
    pub fn adjust(&mut self, request: &AdjustmentRequest) -> Result<Adjusted, LedgerError> {
        self.check_files()?;
        let (_, _, period) = self.month(&request.period)?;
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (of, mut adjusted) = evaluate(&transaction, &period, request)?;
        adjusted.chained = Some(insert(&transaction, (of.period, of.container), &adjusted.adjustment)?);
        digest::commit(transaction)?;
        self.keep_for_good()?;
        Ok(adjusted)
    }
}

/// Adds a correction of a period and a container, both by number, and its entry in the chain.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    (period, container): (i64, i64),
    adjustment: &Adjustment,
) -> Result<ChainEntry, LedgerError> {
    let id = transaction
        .prepare_cached(
            "INSERT INTO adjustment (period, made, container, class, family, in_packets, in_bytes, out_packets,
             out_bytes, reason, number) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .insert(params![
            period,
            adjustment.made.as_second(),
            adjustment.container,
            adjustment.class,
            adjustment.family,
            adjustment.packets[0],
            adjustment.bytes[0],
            adjustment.packets[1],
            adjustment.bytes[1],
            adjustment.reason,
            container,
        ])?;
    let (seq, hash) = extend_chain(transaction, "adjustment", id)?;
    Ok(ChainEntry { seq, hash })
}

const SUMS: &str = "coalesce(sum(in_packets), 0), coalesce(sum(in_bytes), 0), coalesce(sum(out_packets), 0),
    coalesce(sum(out_bytes), 0)";

/// Ids of the corrected period and container.
#[derive(Clone, Copy, Debug)]
struct Subject {
    period: i64,
    container: i64,
}

/// Checks a request and computes its effect.
fn evaluate(
    conn: &Connection,
    period: &str,
    request: &AdjustmentRequest,
) -> Result<(Subject, Adjusted), LedgerError> {
    let find = "SELECT id FROM period WHERE name = ?1";
    let number: Option<i64> = conn.query_row(find, [period], |row| row.get(0)).optional()?;
    let number = number.ok_or_else(|| LedgerError::NotClosed(period.to_owned()))?;
    let reason = request.reason.trim();
    if reason.is_empty() || reason.chars().any(char::is_control) {
        return Err(LedgerError::Query(
            "the correction has no reason; give one in one line with --reason".to_owned(),
        ));
    }
    if request.packets == [0; 2] && request.bytes == [0; 2] {
        return Err(LedgerError::Query(
            "the correction changes nothing; give --in, --out, --in-packets or --out-packets".to_owned(),
        ));
    }
    let mut remarks = Vec::new();
    let (container, container_now) = find_container(conn, number, period, request, &mut remarks)?;
    let subject = Subject { period: number, container };
    let family = family_of(conn, subject, request)?;
    let adjustment = Adjustment {
        period: period.to_owned(),
        made: Timestamp::from_second(request.made.as_second())?,
        container: request.container.clone(),
        class: request.class,
        family: family as u8,
        packets: request.packets,
        bytes: request.bytes,
        reason: reason.to_owned(),
    };
    refuse_repetition(conn, subject, &adjustment)?;
    let sum = |table: &str| -> Result<Signed, LedgerError> {
        let sql = format!(
            "SELECT {SUMS} FROM {table} WHERE period = ?1 AND number = ?2 AND class = ?3 AND family = ?4"
        );
        let key = params![subject.period, subject.container, adjustment.class, adjustment.family];
        Ok(conn.query_row(&sql, key, |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?)
    };
    let (frozen, corrected_before) = (sum("closed_row")?, sum("adjustment")?);
    let this = [request.packets[0], request.bytes[0], request.packets[1], request.bytes[1]];
    let mut to_bill = [0; 4];
    for (at, name) in ["packets in", "bytes in", "packets out", "bytes out"].into_iter().enumerate() {
        let before = frozen[at].saturating_add(corrected_before[at]);
        to_bill[at] = before.checked_add(this[at]).filter(|&result| result >= 0).ok_or_else(|| {
            LedgerError::Query(format!(
                "{period} has {before} {name} of {} class {} {} (frozen {}, corrected by {:+}), so {:+} is \
                 out of range",
                adjustment.container,
                adjustment.class,
                family.name(),
                frozen[at],
                corrected_before[at],
                this[at],
            ))
        })?;
    }
    if frozen == [0; 4] {
        remarks.push(format!("{period} has no frozen row of this container, class and family"));
    }
    if adjustment.class == 0 {
        remarks.push("class 0 is not billed".to_owned());
    }
    let adjusted =
        Adjusted { adjustment, container_now, frozen, corrected_before, to_bill, remarks, chained: None };
    Ok((subject, adjusted))
}

/// Finds the container's id among the frozen rows, or else in the ledger, and its current label if that
/// differs.
fn find_container(
    conn: &Connection,
    period: i64,
    period_name: &str,
    request: &AdjustmentRequest,
    remarks: &mut Vec<String>,
) -> Result<(i64, Option<String>), LedgerError> {
    let frozen = "SELECT number FROM closed_row WHERE period = ?1 AND container = ?2 LIMIT 1";
    let frozen: Option<i64> =
        conn.query_row(frozen, params![period, request.container], |row| row.get(0)).optional()?;
    if let Some(number) = frozen {
        let now = other_name(conn, number, &request.container)?;
        if let Some(label) = &now {
            remarks.push(format!("{} of {period_name} is now called {label}", request.container));
        }
        return Ok((number, now));
    }
    let known = "SELECT id FROM container WHERE label = ?1";
    let known = conn.query_row(known, [&request.container], |row| row.get(0)).optional()?;
    let number = known.ok_or_else(|| LedgerError::NoSuchContainer(request.container.clone()))?;
    Ok((number, None))
}

/// The container's current label, if it is not `name`.
fn other_name(conn: &Connection, number: i64, name: &str) -> Result<Option<String>, LedgerError> {
    let sql = "SELECT label FROM container WHERE id = ?1 AND label <> ?2";
    Ok(conn.prepare_cached(sql)?.query_row(params![number, name], |row| row.get(0)).optional()?)
}

/// The requested family, or the only one that was frozen.
fn family_of(
    conn: &Connection,
    subject: Subject,
    request: &AdjustmentRequest,
) -> Result<Family, LedgerError> {
    if let Some(family) = request.family {
        return Ok(family);
    }
    let mut statement = conn.prepare_cached(
        "SELECT DISTINCT family FROM closed_row WHERE period = ?1 AND number = ?2 AND class = ?3 ORDER BY 1",
    )?;
    let key = params![subject.period, subject.container, request.class];
    let rows = statement.query_map(key, |row| row.get(0))?;
    match rows.collect::<Result<Vec<i64>, _>>()?.as_slice() {
        [] | [0] => Ok(Family::Ipv4),
        [_] => Ok(Family::Ipv6),
        _ => Err(LedgerError::Query(format!(
            "{} class {} has both IPv4 and IPv6 figures; choose one with --family",
            request.container, request.class
        ))),
    }
}

/// Refuses a repeated correction, which is probably a mistake.
fn refuse_repetition(
    conn: &Connection,
    subject: Subject,
    adjustment: &Adjustment,
) -> Result<(), LedgerError> {
    let sql = "SELECT made FROM adjustment WHERE period = ? AND number = ? AND class = ? AND family = ?
        AND in_packets = ? AND in_bytes = ? AND out_packets = ? AND out_bytes = ? AND reason = ?";
    let key = params![
        subject.period,
        subject.container,
        adjustment.class,
        adjustment.family,
        adjustment.packets[0],
        adjustment.bytes[0],
        adjustment.packets[1],
        adjustment.bytes[1],
        adjustment.reason,
    ];
    match conn.query_row(sql, key, |row| time(row, 0)).optional()? {
        None => Ok(()),
        Some(made) => Err(LedgerError::Query(format!(
            "the same correction was already made at {made}; to make it a second time, give it another reason"
        ))),
    }
}

/// A correction with the id of its container and the span of its period in Unix seconds.
#[derive(Clone, Debug)]
pub struct PeriodAdjustment {
    /// The container's number.
    pub container: i64,
    /// Start and end of the period.
    pub span: (i64, i64),
    /// The correction.
    pub adjustment: Adjustment,
}

/// Lists the corrections of closed periods that overlap a span, for the requested containers and classes.
pub(crate) fn adjustments_within(
    conn: &Connection,
    span: (Timestamp, Timestamp),
    containers: Option<&[i64]>,
    classes: &[u8],
) -> Result<Vec<PeriodAdjustment>, LedgerError> {
    let mut statement = conn.prepare_cached(
        "SELECT p.name, a.made, a.container, a.class, a.family, a.in_packets, a.out_packets, a.in_bytes,
         a.out_bytes, a.reason, a.number, p.start, p.end
         FROM adjustment a JOIN period p ON p.id = a.period WHERE p.end > ?1 AND p.start < ?2 ORDER BY a.id",
    )?;
    let rows = statement.query_map([span.0.as_second(), span.1.as_second()], |row| {
        let adjustment = Adjustment {
            period: row.get(0)?,
            made: time(row, 1)?,
            container: row.get(2)?,
            class: row.get(3)?,
            family: row.get(4)?,
            packets: [row.get(5)?, row.get(6)?],
            bytes: [row.get(7)?, row.get(8)?],
            reason: row.get(9)?,
        };
        Ok(PeriodAdjustment { container: row.get(10)?, span: (row.get(11)?, row.get(12)?), adjustment })
    })?;
    let mut adjustments = Vec::new();
    for row in rows {
        let row: PeriodAdjustment = row?;
        let of_container = containers.is_none_or(|asked| asked.contains(&row.container));
        if of_container && (classes.is_empty() || classes.contains(&row.adjustment.class)) {
            adjustments.push(row);
        }
    }
    Ok(adjustments)
}

/// The frozen figures of a container and class in the period of this name.
pub(crate) fn frozen(
    conn: &Connection,
    period: &str,
    container: i64,
    class: u8,
) -> Result<Signed, LedgerError> {
    let sql = format!(
        "SELECT {SUMS} FROM closed_row WHERE period = (SELECT id FROM period WHERE name = ?1)
         AND number = ?2 AND class = ?3"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    Ok(statement.query_row(params![period, container, class], |row| {
        Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
    })?)
}

/// The frozen figures that belong to the corrections, by period, container and class.
pub(crate) fn corrected(
    conn: &Connection,
    adjustments: &[PeriodAdjustment],
    frozen: impl Fn(&str, i64, u8) -> Result<Signed, LedgerError>,
) -> Result<Vec<Corrected>, LedgerError> {
    let mut lines: Vec<(i64, Corrected)> = Vec::new();
    for PeriodAdjustment { container: number, adjustment, .. } in adjustments {
        let this = adjustment.signed();
        let same = |(of, line): &&mut (i64, Corrected)| {
            (of, &line.period, line.class) == (number, &adjustment.period, adjustment.class)
        };
        if let Some((_, line)) = lines.iter_mut().find(same) {
            line.corrections = add(line.corrections, this);
            continue;
        }
        let line = Corrected {
            period: adjustment.period.clone(),
            container: adjustment.container.clone(),
            container_now: other_name(conn, *number, &adjustment.container)?,
            class: adjustment.class,
            frozen: frozen(&adjustment.period, *number, adjustment.class)?,
            corrections: this,
            to_bill: [0; 4],
        };
        lines.push((*number, line));
    }
    let mut lines: Vec<Corrected> = lines.into_iter().map(|(_, line)| line).collect();
    for line in &mut lines {
        line.to_bill = add(line.frozen, line.corrections);
    }
    Ok(lines)
}
