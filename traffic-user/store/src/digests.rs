//! Digests of parts: the same of the same rows, computed by the ledger's node and by the store each for itself.
//!
//! Each row is a line of text, as `postgres` writes it in SQL as well. The digest of a part's rows in one table is
//! SHA-256 over its lines, sorted by their bytes.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use sha2::{Digest as _, Sha256};
use traffic_ledger::{Cell, Content};

use crate::store::PartDigest;

/// Text as a store can hold it: PostgreSQL's has no NUL.
pub(crate) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A row as a line.
fn line(row: &[Cell]) -> String {
    let mut line = String::new();
    for (at, cell) in row.iter().enumerate() {
        if at > 0 {
            line.push(' ');
        }
        // Writing to a string cannot fail.
        let _done = match cell {
            Cell::Null => write!(line, "-"),
            Cell::Integer(number) => write!(line, "{number}"),
            Cell::Text(text) => write!(line, "{}:{}", storable(text).len(), storable(text)),
            Cell::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(line, "{byte:02x}")),
        };
    }
    line
}

/// The digests of a part, by table.
pub(crate) fn of(content: &Content) -> Vec<PartDigest> {
    let mut tables: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (table, row) in content.all_rows() {
        tables.entry(table).or_default().push(line(&row));
    }
    let digest = |(table, mut lines): (usize, Vec<String>)| {
        lines.sort_unstable();
        let hash = Sha256::digest(lines.join("\n"));
        PartDigest {
            table,
            name: content.name.to_owned(),
            number: content.number,
            rows: i64::try_from(lines.len()).unwrap_or(i64::MAX),
            hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    };
    tables.into_iter().map(digest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_changes_the_digest_and_the_order_does_not() {
        let row =
            |number, text: &str| (2, vec![Cell::Integer(number), Cell::Text(text.to_owned()), Cell::Null]);
        let part = |rows| Content { rows, ..Content::new("5min", 300, 1) };
        let base = of(&part(vec![row(1, "a"), row(2, "b")]));
        assert_eq!((base.len(), base[0].rows), (1, 2));
        assert_eq!(of(&part(vec![row(2, "b"), row(1, "a")])), base);
        for other in [vec![row(1, "a")], vec![row(1, "a"), row(3, "b")], vec![row(1, "a"), row(2, "b ")]] {
            assert_ne!(of(&part(other))[0].hash, base[0].hash);
        }
        assert_eq!(line(&[Cell::Bytes(vec![0, 255]), Cell::Text("\0".to_owned())]), "00ff 3:\u{fffd}");
    }
}
