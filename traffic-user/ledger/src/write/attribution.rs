//! Attribution: a pending owner turned out to be a container, and everything recorded under the pending id
//! becomes that container's.
//!
//! The last readings move with the rows, so nothing is read twice, whenever this happens between two drains.
//! Closed months do not change: two corrections of each figure take it from the pending owner and give it to the
//! container. A drain finds what the counters show ([`known_by_counters`]). By hand: `by_hand`.

mod by_hand;

use std::{borrow::Cow, collections::HashMap};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use traffic_model::{ContainerId, Snapshot, calendar::Level};

pub use by_hand::{Attribution, PendingOwner};

use crate::{
    closing::{
        adjust,
        correction::{Adjustment, Signed},
    },
    days::take_out::{Fate, take_out},
    error::LedgerError,
    ids, outbox,
    query::billing::add,
    schema::{DROPPED, FAULT, Kind, PACKED_LEVELS, PASSED, TRAFFIC},
    write::last_reading::frozen,
};

/// SQL for whether a row `t` is in no closed month.
const OPEN: &str = "NOT EXISTS (SELECT 1 FROM period p WHERE p.start <= t.start AND t.start < p.end)";

/// How it became known whose a pending owner's traffic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source<'a> {
    /// The counters have the container's name by now.
    Counters,
    /// Somebody said so.
    Hand(&'a str),
}

/// Whose the counters of pending owners turned out to be: number of the pending container, and name of the other.
///
/// No other slot of an epoch has a generation that a slot has had. So a life that was counted under a pending id
/// and is now under another one is that of the same interface, whose container became known.
pub(crate) fn known_by_counters(
    conn: &Connection,
    epoch: i64,
    snapshot: &Snapshot,
) -> Result<Vec<(i64, ContainerId)>, LedgerError> {
    let mut statement = conn.prepare_cached(
        "SELECT l.generation, c.id FROM container_life l JOIN container c ON c.id = l.container
         WHERE l.epoch = ?1 AND c.name LIKE 'pending:%'",
    )?;
    let rows = statement.query_map([epoch], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut lives: HashMap<u32, i64> = rows.collect::<Result<_, _>>()?;
    if lives.is_empty() {
        return Ok(Vec::new());
    }
    let mut known = Vec::new();
    for counter in snapshot.counters.iter().filter(|counter| !counter.container.is_pending()) {
        if let Some(pending) = lives.remove(&counter.generation) {
            known.push((pending, counter.container.clone()));
        }
    }
    Ok(known)
}

/// The reading with the names of containers in place of pending ids that were attributed. The counters have the
/// pending id until the command that attributed it by hand has told them as well.
pub(crate) fn with_known_owners<'a>(
    conn: &Connection,
    snapshot: &'a Snapshot,
) -> Result<Cow<'a, Snapshot>, LedgerError> {
    let of_interfaces = snapshot.interfaces.iter().filter_map(|interface| interface.container.as_ref());
    let of_drops = snapshot.drops.iter().flat_map(|drops| &drops.counters).map(|counter| &counter.container);
    let ids = snapshot.counters.iter().map(|counter| &counter.container).chain(of_interfaces).chain(of_drops);
    let mut owners: HashMap<ContainerId, ContainerId> = HashMap::new();
    for id in ids.filter(|id| id.is_pending()) {
        if !owners.contains_key(id)
            && let Some((_, name)) = owner_of(conn, id.as_str())?
        {
            let name = ContainerId::new(&name).map_err(|error| LedgerError::Query(error.to_string()))?;
            owners.insert(id.clone(), name);
        }
    }
    if owners.is_empty() {
        return Ok(Cow::Borrowed(snapshot));
    }
    let mut snapshot = snapshot.clone();
    let of_interfaces = snapshot.interfaces.iter_mut().filter_map(|interface| interface.container.as_mut());
    let of_drops = snapshot.drops.iter_mut().flat_map(|drops| &mut drops.counters);
    let of_drops = of_drops.map(|counter| &mut counter.container);
    let of_classes = snapshot.counters.iter_mut().map(|counter| &mut counter.container);
    for id in of_classes.chain(of_interfaces).chain(of_drops) {
        if let Some(owner) = owners.get(id) {
            id.clone_from(owner);
        }
    }
    Ok(Cow::Owned(snapshot))
}

/// Number and name of the container that a pending id was attributed to.
pub(crate) fn owner_of(conn: &Connection, pending: &str) -> Result<Option<(i64, String)>, LedgerError> {
    let sql = "SELECT o.id, o.name FROM container c JOIN attribution a ON a.pending = c.id
               JOIN container o ON o.id = a.owner WHERE c.name = ?1 LIMIT 1";
    let found = conn.prepare_cached(sql)?.query_row([pending], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(found.optional()?)
}

/// Gives everything recorded of a pending owner to a container. Both are numbers.
pub(crate) fn attribute(
    transaction: &Transaction<'_>,
    (pending, owner): (i64, i64),
    made: Timestamp,
    source: Source<'_>,
) -> Result<Attribution, LedgerError> {
    let name: String = transaction
        .prepare_cached("SELECT name FROM container WHERE id = ?1")?
        .query_row([pending], |row| row.get(0))?;
    let label: String = transaction
        .prepare_cached("SELECT label FROM container WHERE id = ?1")?
        .query_row([owner], |row| row.get(0))?;
    let (source, reason) = match source {
        Source::Counters => ("counters", None),
        Source::Hand(reason) => ("hand", Some(reason.to_owned())),
    };
    let mut recorded = move_rows(transaction, &TRAFFIC, (pending, owner))?;
    move_rows(transaction, &DROPPED, (pending, owner))?;
    for (interface, name) in interfaces_of(transaction, pending)? {
        let to = ids::interface(transaction, &name, owner)?;
        for kind in [FAULT, PASSED] {
            move_rows(transaction, &kind, (interface, to))?;
        }
    }
    let corrected = correct_closed_months(transaction, (pending, owner), &name, made, &mut recorded)?;
    for sql in [
        "UPDATE container_life SET container = ?2 WHERE container = ?1",
        "UPDATE gap SET container = ?2 WHERE container = ?1",
        "UPDATE interface_owner SET container = ?2 WHERE container = ?1",
        "INSERT OR IGNORE INTO class_use SELECT ?2, class FROM class_use WHERE container = ?1",
        "UPDATE container SET since = min(since, (SELECT since FROM container WHERE id = ?1)) WHERE id = ?2",
    ] {
        transaction.prepare_cached(sql)?.execute([pending, owner])?;
    }
    // Its name stays, so that whoever asks for it learns whose it is.
    transaction
        .prepare_cached("UPDATE container SET retired = coalesce(retired, ?2) WHERE id = ?1")?
        .execute([pending, made.as_second()])?;
    let [in_packets, in_bytes, out_packets, out_bytes] = recorded;
    transaction
        .prepare_cached("INSERT INTO attribution VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute(params![
            pending,
            owner,
            made.as_second(),
            source,
            reason,
            in_packets,
            in_bytes,
            out_packets,
            out_bytes
        ])?;
    Ok(Attribution {
        pending: name,
        owner: label,
        made,
        source: source.to_owned(),
        reason,
        recorded,
        corrected,
        is_repeated: false,
    })
}

fn interfaces_of(conn: &Connection, container: i64) -> Result<Vec<(i64, String)>, LedgerError> {
    let mut statement = conn.prepare_cached("SELECT id, name FROM interface WHERE container = ?1")?;
    let rows = statement.query_map([container], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Moves the rows of one kind from an owner to another, on every level. Those in closed months stay. Returns the
/// sums of what moved.
///
/// Each level moves by itself, so that sums stay sums of the rows below them. Packed days become rows, which the
/// next maintenance packs again.
fn move_rows(conn: &Connection, kind: &Kind, (from, to): (i64, i64)) -> Result<Signed, LedgerError> {
    let owner = kind.keys[0];
    for level in PACKED_LEVELS {
        for range in open_ranges(conn)? {
            take_out(conn, (kind, level), range, &format!("AND d.{owner} = {from}"), Fate::Rows)?;
        }
    }
    let mut moved = [0; 4];
    for level in Level::ALL {
        let (table, number) = (kind.rows_table(level), level as u8);
        let rows = format!(
            "FROM unit u CROSS JOIN {table} t ON t.start = u.start AND t.{owner} = {from}
             WHERE u.level = {number} AND {OPEN}"
        );
        let sums = "SELECT coalesce(sum(t.in_packets), 0), coalesce(sum(t.in_bytes), 0),
                    coalesce(sum(t.out_packets), 0), coalesce(sum(t.out_bytes), 0)";
        // The finest rows of a time hold every byte once.
        let of_level = conn.query_row(&format!("{sums} {rows} AND u.finest"), [], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
        })?;
        moved = add(moved, of_level);
        let columns = kind.keys[1..].iter().chain(kind.values);
        let columns: String = columns.map(|column| format!(", t.{column}")).collect();
        let select = format!("SELECT t.start, {to}{columns} {rows}");
        conn.execute(&kind.add_rows(level, &select), [])?;
        outbox::note_units(conn, level, &format!("SELECT t.start {rows}"))?;
        let moved_rows = format!(
            "DELETE FROM {table} AS t WHERE t.{owner} = {from} AND {OPEN}
             AND t.start IN (SELECT u.start FROM unit u WHERE u.level = {number})"
        );
        conn.execute(&moved_rows, [])?;
    }
    Ok(moved)
}

/// The spans of time between closed months.
fn open_ranges(conn: &Connection) -> Result<Vec<(i64, i64)>, LedgerError> {
    let mut ranges = Vec::new();
    let mut from = i64::MIN;
    for (start, end) in frozen(conn)?.closed {
        ranges.push((from, start));
        from = end;
    }
    ranges.push((from, i64::MAX));
    ranges.retain(|range| range.0 < range.1);
    Ok(ranges)
}

/// Adds the corrections that take the figures of closed months from a pending owner and give them to its
/// container. Returns the months, and adds the figures to `recorded`.
fn correct_closed_months(
    transaction: &Transaction<'_>,
    (pending, owner): (i64, i64),
    name: &str,
    made: Timestamp,
    recorded: &mut Signed,
) -> Result<Vec<String>, LedgerError> {
    let label_of = |number: i64| -> Result<String, LedgerError> {
        let sql = "SELECT label FROM container WHERE id = ?1";
        Ok(transaction.prepare_cached(sql)?.query_row([number], |row| row.get(0))?)
    };
    let mut statement = transaction.prepare_cached(
        "SELECT r.period, p.name, r.class, r.family, sum(r.in_packets), sum(r.in_bytes), sum(r.out_packets),
         sum(r.out_bytes)
         FROM (SELECT period, class, family, in_packets, in_bytes, out_packets, out_bytes
               FROM closed_row WHERE number = ?1
               UNION ALL SELECT period, class, family, in_packets, in_bytes, out_packets, out_bytes
               FROM adjustment WHERE number = ?1) r
         JOIN period p ON p.id = r.period GROUP BY 1, 3, 4 ORDER BY p.start, 3, 4",
    )?;
    let rows = statement.query_map([pending], |row| {
        let sums: Signed = [row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?];
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, sums))
    })?;
    let rows: Vec<(i64, String, u8, u8, Signed)> = rows.collect::<Result<_, _>>()?;
    let mut months = Vec::new();
    for (period, month, class, family, sums) in rows.into_iter().filter(|row| row.4 != [0; 4]) {
        for (number, sign) in [(pending, -1), (owner, 1)] {
            let values = sums.map(|value: i64| value.saturating_mul(sign));
            let correction = Adjustment {
                period: month.clone(),
                made,
                container: label_of(number)?,
                class,
                family,
                packets: [values[0], values[2]],
                bytes: [values[1], values[3]],
                reason: format!("attribution: {name} is {}", label_of(owner)?),
            };
            adjust::insert(transaction, (period, number), &correction)?;
        }
        *recorded = add(*recorded, sums);
        if months.last() != Some(&month) {
            months.push(month);
        }
    }
    Ok(months)
}

/// Whether any rows of an owner are left outside closed months. For tests.
#[cfg(test)]
pub(crate) fn has_open_rows(conn: &Connection, container: i64) -> bool {
    let mut owners = vec![(TRAFFIC, container), (DROPPED, container)];
    let interfaces = interfaces_of(conn, container).unwrap();
    owners.extend(interfaces.iter().flat_map(|(id, _)| [(FAULT, *id), (PASSED, *id)]));
    owners.iter().any(|(kind, owner)| {
        Level::ALL.into_iter().any(|level| {
            let (table, key) = (kind.table(level), kind.keys[0]);
            let sql = format!("SELECT 1 FROM {table} t WHERE t.{key} = {owner} AND {OPEN}");
            conn.prepare_cached(&sql).unwrap().exists([]).unwrap()
        })
    })
}
