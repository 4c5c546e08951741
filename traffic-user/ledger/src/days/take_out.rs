//! Takes buckets out of packed days: to move or sum them again as rows, or because they are dropped.

use rusqlite::{Connection, params_from_iter, types::Value};
use traffic_model::calendar::{FIVE_MINUTES_S, Level};

use crate::{
    days::{
        columns::{Columns, Packed, Points},
        packed_columns,
    },
    error::LedgerError,
    schema::Kind,
};

/// What becomes of the buckets that are taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They become rows.
    Rows,
    /// They are removed.
    Removed,
}

/// A packed day that is changed.
struct Stored {
    start: i64,
    keys: Vec<Value>,
    step: u32,
    points: Points,
}

/// Takes the buckets that begin in a range out of the packed days. `series` is SQL that limits them to some
/// series. Returns how many there were.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn take_out(
    conn: &Connection,
    (kind, level): (&Kind, Level),
    range: (i64, i64),
    series: &str,
    fate: Fate,
) -> Result<usize, LedgerError> {
    let Some(table) = kind.days_table(level) else { return Ok(0) };
    let sql = format!(
        "SELECT d.rowid FROM border b CROSS JOIN {table} d ON d.start = b.start
         WHERE b.level = 2 AND b.end > ?1 AND b.start < ?2 {series}"
    );
    let ids = conn
        .prepare_cached(&sql)?
        .query_map([range.0, range.1], |row| row.get(0))?
        .collect::<Result<Vec<i64>, _>>()?;
    let mut taken = 0;
    for id in ids {
        let mut day = load(conn, kind, &table, id)?;
        let at = |bucket: u32| day.start + i64::from(bucket) * FIVE_MINUTES_S;
        let all = std::mem::take(&mut day.points);
        let (out, left): (Points, Points) =
            all.into_iter().partition(|&(bucket, _)| range.0 <= at(bucket) && at(bucket) < range.1);
        if out.is_empty() {
            continue;
        }
        taken += out.len();
        if fate == Fate::Rows {
            write_rows(conn, (kind, level), &day, &out)?;
        }
        if left.is_empty() {
            conn.prepare_cached(&format!("DELETE FROM {table} WHERE rowid = ?1"))?.execute([id])?;
            continue;
        }
        let columns = packed_columns(kind);
        let places = super::places(5 + kind.values.len());
        let packed = Packed::new(&left, kind.values.len(), day.step);
        let mut update =
            conn.prepare_cached(&format!("UPDATE {table} SET ({columns}) = ({places}) WHERE rowid = ?"))?;
        let id = rusqlite::types::ToSqlOutput::from(id);
        update.execute(params_from_iter(packed.parameters().chain([id])))?;
    }
    Ok(taken)
}

fn load(conn: &Connection, kind: &Kind, table: &str, id: i64) -> Result<Stored, LedgerError> {
    let (keys, columns) = (kind.keys.join(", "), packed_columns(kind));
    let mut statement =
        conn.prepare_cached(&format!("SELECT start, {keys}, {columns} FROM {table} WHERE rowid = ?1"))?;
    let count = kind.keys.len();
    Ok(statement.query_row([id], |row| {
        Ok(Stored {
            start: row.get(0)?,
            keys: (1..=count).map(|at| row.get(at)).collect::<Result<_, _>>()?,
            step: row.get(count + 3)?,
            points: Columns::read(row, count + 1, kind.values.len())?.points(),
        })
    })?)
}

fn write_rows(
    conn: &Connection,
    (kind, level): (&Kind, Level),
    day: &Stored,
    points: &Points,
) -> Result<(), LedgerError> {
    let mut upsert = conn.prepare_cached(&kind.upsert_at(level))?;
    for (&bucket, values) in points {
        let start = Value::Integer(day.start + i64::from(bucket) * FIVE_MINUTES_S);
        let values = values.iter().take(kind.values.len()).map(|value| Value::Integer(value.cast_signed()));
        upsert.execute(params_from_iter([start].into_iter().chain(day.keys.clone()).chain(values)))?;
    }
    Ok(())
}
