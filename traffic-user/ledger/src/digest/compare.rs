//! Compares all rows with their digests.

use std::mem;

use rusqlite::Connection;

use super::{Digest, Table, compute, flat, part_of, rebuild::Left};
use crate::error::LedgerError;

/// What the comparison of all rows with their digests found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    /// Number of rows.
    pub rows: u64,
    /// Number of rows, among them, whose digests maintenance has not computed yet.
    pub rows_left: u64,
    /// One sentence for each part that differs.
    pub problems: Vec<String>,
}

/// Compares all rows with their digests.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn compare(conn: &Connection) -> Result<Compared, LedgerError> {
    let mut compared = Compared::default();
    let left = Left::load(conn)?;
    let is_left = |name: &str, part| left.as_ref().is_some_and(|left| left.includes(name, part));
    let mut found = compute(conn, &Table::all(conn)?)?;
    for (name, part, digest) in flat(&found) {
        let rows = digest.rows.unsigned_abs();
        compared.rows += rows;
        compared.rows_left += if is_left(name, part) { rows } else { 0 };
    }
    let mut statement = conn.prepare_cached("SELECT name, part, rows, sum FROM digest")?;
    let mut rows = statement.query([])?;
    let mut differing = Vec::new();
    while let Some(row) = rows.next()? {
        let (name, part): (String, i64) = (row.get(0)?, row.get(1)?);
        let written = Digest { rows: row.get(2)?, sum: u128::from_be_bytes(row.get(3)?) };
        let there = mem::take(part_of(&mut found, &name, part));
        differing.push((name, part, [written, there]));
    }
    differing
        .extend(flat(&found).map(|(name, part, there)| (name.to_owned(), part, [Digest::default(), there])));
    differing.retain(|(name, part, [written, there])| written != there && !is_left(name, *part));
    compared.problems.extend(differing.iter().map(|(name, part, digests)| difference(name, *part, *digests)));
    compared.problems.sort();
    Ok(compared)
}

fn difference(name: &str, part: i64, [written, there]: [Digest; 2]) -> String {
    let day = jiff::Timestamp::from_second(part).map(|day| day.to_string());
    let of = match (part, day) {
        (0, _) | (_, Err(_)) => String::new(),
        (_, Ok(day)) => format!(" of {} (UTC)", &day[..10]),
    };
    let how = match there.rows.wrapping_sub(written.rows) {
        0 => "rows were changed".to_owned(),
        more @ 1.. => format!("{more} rows were added"),
        fewer => format!("{} rows were removed", fewer.unsigned_abs()),
    };
    format!("{name}{of}: {how} by something else than trafctl")
}
