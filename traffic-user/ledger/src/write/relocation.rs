//! Moves what was booked while the clock was wrong to its true time.

use std::collections::BTreeSet;

use rusqlite::Connection;
use traffic_model::calendar::{Calendar, FIVE_MINUTES_S, Level, five_minutes_of};

use crate::{
    days::{
        read,
        take_out::{Fate, take_out},
    },
    error::LedgerError,
    ids,
    schema::KINDS,
    time::{borders::Borders, clock_line::ClockEvent},
    write::{last_reading::frozen, rollup::remove_sums, rollup_state::mark_dirty},
};

/// Moves what was booked while the clock was wrong, if the event says so. Rows in closed periods stay, and
/// none is moved into one.
pub(crate) fn move_booked(
    conn: &Connection,
    calendar: &Calendar,
    boot_id: &str,
    event: ClockEvent,
) -> Result<(), LedgerError> {
    let (by_ms, from_s) = match event {
        ClockEvent::BootMoves { by_ms } => (by_ms, i64::MIN / 2),
        ClockEvent::SinceMoves { by_ms, since_ms } => (by_ms, five_minutes_of(since_ms / 1000)),
        _ => return Ok(()),
    };
    let moved = Move { conn, boot_id, by_s: by_ms / 1000, from_s };
    moved.records()?;
    if by_ms < 0 {
        lower_dropped(conn)?;
    }
    let frozen = frozen(conn)?;
    let mut starts = moved.starts()?;
    starts.retain(|&start| frozen.writable_from(start) == start);
    let borders = Borders::new(conn, calendar);
    moved.stage()?;
    for &start in &starts {
        // To the nearest bucket: the clock was set by a number of seconds.
        let to = five_minutes_of(start + moved.by_s + FIVE_MINUTES_S / 2);
        moved.bucket(start, frozen.writable_from(to))?;
    }
    moved.unstage(&borders)?;
    moved.forget_empty(&borders, &starts)
}

/// Takes back what a clock that was ahead dropped without finding a row: only what rows were dropped of stays
/// closed.
fn lower_dropped(conn: &Connection) -> Result<(), LedgerError> {
    for (key, above) in [("dropped_before_5min", Level::Hour), ("dropped_before_hour", Level::Day)] {
        let Some(dropped) = ids::meta(conn, key)? else { continue };
        let sql = "SELECT max(end) FROM unit WHERE level >= ?1 AND finest";
        let last: Option<i64> = conn.query_row(sql, [above as u8], |row| row.get(0))?;
        match last {
            Some(last) if last < dropped => ids::set_meta(conn, key, last)?,
            Some(_) => {}
            None => drop(conn.execute("DELETE FROM meta WHERE key = ?1", [key])?),
        }
    }
    Ok(())
}

struct Move<'a> {
    conn: &'a Connection,
    boot_id: &'a str,
    by_s: i64,
    /// Only buckets from here on.
    from_s: i64,
}

/// The series of a boot.
const SERIES: &str = "(SELECT s.id FROM stream s JOIN epoch e ON e.id = s.epoch WHERE e.boot_id = (SELECT boot_id FROM temp.moving))";

impl Move<'_> {
    /// Moves the times that are recorded beside the rows.
    fn records(&self) -> Result<(), LedgerError> {
        let boot = (self.boot_id, self.by_s, self.from_s);
        let epochs = "(SELECT id FROM epoch WHERE boot_id = ?1)";
        let first = "(SELECT max(min(created), ?3) FROM epoch WHERE boot_id = ?1)";
        // Everything of a boot was recorded at or after its first moment.
        for sql in [
            format!(
                "UPDATE gap SET recorded = recorded + ?2, end = end + ?2,
                     start = CASE WHEN start >= {first} THEN start + ?2 ELSE start END
                 WHERE recorded >= {first} AND end >= {first} AND once IS NULL"
            ),
            format!("UPDATE container_life SET gone = gone + ?2 WHERE epoch IN {epochs} AND gone >= ?3"),
            format!("UPDATE interface_life SET gone = gone + ?2 WHERE epoch IN {epochs} AND gone >= ?3"),
            format!(
                "UPDATE container SET since = since + ?2 WHERE since >= {first}
                 AND id IN (SELECT container FROM container_life WHERE epoch IN {epochs})"
            ),
            format!(
                "UPDATE container_name SET since = since + ?2,
                     until = CASE WHEN until >= {first} THEN until + ?2 ELSE until END
                 WHERE since >= {first}
                 AND container IN (SELECT container FROM container_life WHERE epoch IN {epochs})"
            ),
            format!("UPDATE owner_change SET made = made + ?2 WHERE made >= {first}"),
            format!("UPDATE drop_set SET read = read + ?2 WHERE epoch IN {epochs} AND read >= ?3"),
            format!("UPDATE drop_set SET recorded = recorded + ?2 WHERE recorded >= {first}"),
            "UPDATE epoch SET last_bucket = last_bucket + ?2 WHERE boot_id = ?1 AND last_bucket >= ?3"
                .to_owned(),
            "UPDATE epoch SET created = created + ?2 WHERE boot_id = ?1 AND created >= ?3".to_owned(),
        ] {
            self.conn.prepare_cached(&sql)?.execute(boot)?;
        }
        self.conn
            .prepare_cached(
                "UPDATE epoch SET last_bucket = last_bucket - (last_bucket % 300) WHERE boot_id = ?1",
            )?
            .execute([self.boot_id])?;
        Ok(())
    }

    /// The buckets with rows of this boot.
    fn starts(&self) -> Result<Vec<i64>, LedgerError> {
        self.conn.execute_batch(
            "CREATE TEMP TABLE IF NOT EXISTS moving (boot_id TEXT NOT NULL); DELETE FROM temp.moving;",
        )?;
        self.conn.prepare_cached("INSERT INTO temp.moving VALUES (?1)")?.execute([self.boot_id])?;
        // Packed days become rows again. Those that stay where they are get packed with the next maintenance.
        for kind in &KINDS {
            let series = format!("AND d.stream IN {SERIES}");
            let all = (self.from_s, i64::MAX);
            take_out(self.conn, (kind, Level::FiveMinutes), all, &series, Fate::Rows)?;
        }
        let of_kinds: Vec<String> = KINDS
            .iter()
            .map(|kind| {
                let table = kind.rows_table(Level::FiveMinutes);
                format!("SELECT start FROM {table} WHERE start >= ?1 AND stream IN {SERIES}")
            })
            .collect();
        let mut statement = self.conn.prepare_cached(&format!("{} ORDER BY 1", of_kinds.join(" UNION ")))?;
        Ok(statement.query_map([self.from_s], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    /// Prepares a place for rows on the way, so that a bucket may move to where another one is moved away. It is
    /// empty, and stays as long as the connection: a table that comes or goes has every statement prepared again.
    fn stage(&self) -> Result<(), LedgerError> {
        for kind in KINDS {
            let table = kind.rows_table(Level::FiveMinutes);
            self.conn.execute_batch(&format!(
                "CREATE TEMP TABLE IF NOT EXISTS moved_{} AS SELECT * FROM {table} WHERE 0",
                kind.name
            ))?;
        }
        self.conn
            .execute_batch("CREATE TEMP TABLE IF NOT EXISTS moved_span AS SELECT * FROM span WHERE 0")?;
        Ok(())
    }

    /// Takes the rows of one bucket out, with their new start.
    fn bucket(&self, start: i64, to: i64) -> Result<(), LedgerError> {
        for kind in KINDS {
            let table = kind.rows_table(Level::FiveMinutes);
            let columns = kind.keys.iter().chain(kind.values).copied().collect::<Vec<_>>().join(", ");
            self.conn
                .prepare_cached(&format!(
                    "INSERT INTO temp.moved_{} SELECT ?2, {columns} FROM {table}
                     WHERE start = ?1 AND stream IN {SERIES}",
                    kind.name
                ))?
                .execute([start, to])?;
            self.conn
                .prepare_cached(&format!("DELETE FROM {table} WHERE start = ?1 AND stream IN {SERIES}"))?
                .execute([start])?;
        }
        self.conn
            .prepare_cached(&format!(
                "INSERT INTO temp.moved_span SELECT ?2, stream, start + ?3, end + ?3 FROM span
                 WHERE bucket = ?1 AND stream IN {SERIES}"
            ))?
            .execute([start, to, self.by_s])?;
        self.conn
            .prepare_cached(&format!("DELETE FROM span WHERE bucket = ?1 AND stream IN {SERIES}"))?
            .execute([start])?;
        Ok(())
    }

    /// Writes the rows at their new place.
    fn unstage(&self, borders: &Borders<'_>) -> Result<(), LedgerError> {
        for kind in KINDS {
            let sums: Vec<String> = kind.values.iter().map(|value| format!("sum({value})")).collect();
            let keys = kind.keys.join(", ");
            let moved = format!(
                "SELECT start, {keys}, {} FROM temp.moved_{} WHERE true GROUP BY start, {keys}",
                sums.join(", "),
                kind.name,
            );
            self.conn.prepare_cached(&kind.add_rows(Level::FiveMinutes, &moved))?.execute([])?;
        }
        let of_kinds: Vec<String> =
            KINDS.iter().map(|kind| format!("SELECT start FROM temp.moved_{}", kind.name)).collect();
        let mut statement = self.conn.prepare_cached(&of_kinds.join(" UNION "))?;
        let starts: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for start in starts {
            borders.book(start)?;
            mark_dirty(self.conn, start)?;
        }
        drop(statement);
        self.conn
            .prepare_cached(
                "INSERT INTO span (bucket, stream, start, end)
                 SELECT bucket, stream, min(start), max(end) FROM temp.moved_span WHERE true GROUP BY 1, 2
                 ON CONFLICT (bucket, stream) DO UPDATE
                 SET start = min(start, excluded.start), end = max(end, excluded.end)",
            )?
            .execute([])?;
        // If one of these steps fails, the transaction is rolled back, and these tables with it.
        for staged in KINDS.iter().map(|kind| kind.name).chain(["span"]) {
            self.conn.prepare_cached(&format!("DELETE FROM temp.moved_{staged}"))?.execute([])?;
        }
        Ok(())
    }

    /// Removes the buckets that hold nothing any more, and sums again what is above the others.
    fn forget_empty(&self, borders: &Borders<'_>, starts: &[i64]) -> Result<(), LedgerError> {
        let packed = self.packed(starts)?;
        for &start in starts {
            if !packed.contains(&start) && has_no_rows(self.conn, start)? {
                self.conn
                    .prepare_cached("DELETE FROM unit WHERE level = 0 AND start = ?1")?
                    .execute([start])?;
            } else {
                mark_dirty(self.conn, start)?;
            }
        }
        for level in [Level::Hour, Level::Day, Level::Month] {
            let mut last = (0, 0);
            for &start in starts {
                if (last.0..last.1).contains(&start) {
                    continue;
                }
                last = borders.unit(level, start)?;
                self.sum_again(level, last)?;
            }
        }
        Ok(())
    }

    /// The buckets that other boots have rows of in packed days.
    fn packed(&self, starts: &[i64]) -> Result<BTreeSet<i64>, LedgerError> {
        let mut packed = BTreeSet::new();
        let Some(range) = starts.first().zip(starts.last()) else { return Ok(packed) };
        for kind in &KINDS {
            let range = (*range.0, range.1 + 1);
            packed.append(&mut read::packed_starts(self.conn, kind, Level::FiveMinutes, range)?);
        }
        Ok(packed)
    }

    fn sum_again(&self, level: Level, (start, end): (i64, i64)) -> Result<(), LedgerError> {
        let below = level as i64 - 1;
        let left = self
            .conn
            .prepare_cached("UPDATE unit SET dirty = 1 WHERE level = ?1 AND start >= ?2 AND start < ?3")?
            .execute([below, start, end])?;
        if left > 0 {
            return Ok(());
        }
        let removed = self
            .conn
            .prepare_cached("DELETE FROM unit WHERE level = ?1 AND start = ?2 AND NOT finest")?
            .execute([level as i64, start])?;
        if removed > 0 {
            for kind in KINDS {
                remove_sums(self.conn, &kind, level, start)?;
            }
        }
        Ok(())
    }
}

fn has_no_rows(conn: &Connection, start: i64) -> Result<bool, LedgerError> {
    for kind in KINDS {
        let sql = format!("SELECT 1 FROM {} WHERE start = ?1", kind.rows_table(Level::FiveMinutes));
        if conn.prepare_cached(&sql)?.exists([start])? {
            return Ok(false);
        }
    }
    Ok(true)
}
