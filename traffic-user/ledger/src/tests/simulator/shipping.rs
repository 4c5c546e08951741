//! A store to which the histories ship: the plainest one that is right, a map from parts to their last rows.
//!
//! Shipping stops at any part, its acknowledgement is lost, batches arrive twice, late and in any order, as from
//! two shippers. Afterwards the store holds what the ledger holds, row by row. When the ledger was restored or went
//! back, the store must notice before it takes anything, and begins anew.

use std::collections::BTreeMap;

use super::Random;
use crate::{Changes, Content, Ledger, TABLES, ids, outbox::KINDS, schema::Kind};

type Part = (&'static str, i64);

/// What the store holds of one ledger.
#[derive(Debug, Default)]
pub struct Store {
    ledger: String,
    parts: BTreeMap<Part, Content>,
    /// The highest change number that arrived, with its token.
    known: Option<(i64, Option<String>)>,
    /// Everything up to this number arrived.
    done: i64,
    /// Batches on the way of another shipper.
    late: Vec<Content>,
}

impl Store {
    fn take(&mut self, content: Content) {
        let part = (content.name, content.number);
        if self.parts.get(&part).is_none_or(|before| content.rev > before.rev) {
            self.parts.insert(part, content);
        }
    }

    /// Whether the ledger is the one that was shipped from before, and has not gone back.
    fn is_continued_by(&self, ledger: &Ledger) -> bool {
        let identity = ledger.shipping_identity().unwrap();
        self.known.as_ref().is_none_or(|(known, token)| {
            self.ledger == identity.ledger
                && *known <= identity.changes
                && ledger.lineage_at(*known).unwrap() == *token
        })
    }

    /// Ships some or all of what changed.
    pub fn ship(&mut self, ledger: &Ledger, random: Option<&mut Random>) {
        if !self.is_continued_by(ledger) {
            *self = Self::default();
        }
        let identity = ledger.shipping_identity().unwrap();
        self.ledger.clone_from(&identity.ledger);
        let mut parts = Vec::new();
        for units in [false, true] {
            parts.extend(ledger.changes(Changes { after: self.done, until: i64::MAX, units }).unwrap());
        }
        let (mut count, mut is_lost) = (parts.len(), false);
        if let Some(random) = random {
            count = random.below(parts.len() + 1);
            for at in 0..count {
                let other = at + random.below(parts.len() - at);
                parts.swap(at, other);
            }
            is_lost = random.once_in(3);
            for content in std::mem::take(&mut self.late) {
                self.take(content);
            }
            if random.once_in(2) {
                let some: Vec<Part> = parts.iter().map(|part| (part.0, part.1)).take(5).collect();
                self.late = ledger.contents(&some).unwrap();
            }
        }
        let is_all = count == parts.len();
        let chosen: Vec<Part> = parts.into_iter().take(count).map(|part| (part.0, part.1)).collect();
        for content in ledger.contents(&chosen).unwrap() {
            assert!(content.rev <= identity.changes);
            self.take(content);
        }
        self.known = Some((identity.changes, identity.token));
        if is_all && !is_lost {
            self.done = identity.changes;
        }
    }

    /// Ships everything and compares all rows.
    pub fn check(&mut self, ledger: &Ledger) {
        self.ship(ledger, None);
        for content in std::mem::take(&mut self.late) {
            self.take(content);
        }
        let kept_from: Option<i64> = ids::meta(&ledger.conn, "dropped_before_5min").unwrap();
        for (level, table_level) in
            [(0, traffic_model::calendar::Level::FiveMinutes), (2, traffic_model::calendar::Level::Day)]
        {
            let from = if level == 0 { kept_from.unwrap_or(i64::MIN) } else { i64::MIN };
            for (_, kind) in &KINDS {
                let expected = rows(ledger, kind, &kind.table(table_level), from);
                let found = self.rows(level, kind, from);
                assert_eq!(found, expected, "the store's {} of level {level}", kind.name);
            }
        }
        let gaps: i64 = ledger.conn.query_row("SELECT count(*) FROM gap", [], |row| row.get(0)).unwrap();
        let stored =
            self.parts.iter().filter(|(part, content)| part.0 == "gap" && !content.rows.is_empty()).count();
        assert_eq!(stored, usize::try_from(gaps).unwrap());
    }

    /// Keys and values of a kind.
    fn rows(&self, level: i64, kind: &Kind, from: i64) -> BTreeMap<Vec<i64>, Vec<i64>> {
        let mut found = BTreeMap::new();
        for row in self.parts.values().flat_map(Content::counted_rows) {
            if TABLES[row.0].name != kind.name || row.1[0] != level {
                continue;
            }
            let (key, values) = row.1[1..].split_at(1 + kind.keys.len());
            if key[0] >= from {
                assert_eq!(found.insert(key.to_vec(), values.to_vec()), None, "a key twice");
            }
        }
        found
    }
}

/// The same from the ledger, by its views. Rows of zeros are left out.
fn rows(ledger: &Ledger, kind: &Kind, table: &str, from: i64) -> BTreeMap<Vec<i64>, Vec<i64>> {
    let keys = kind.keys.join(", ");
    let sums: Vec<String> = kind.values.iter().map(|value| format!("sum({value})")).collect();
    let sql = format!(
        "SELECT start, {keys}, {} FROM {table} WHERE start >= ?1 GROUP BY start, {keys}",
        sums.join(", ")
    );
    let mut statement = ledger.conn.prepare_cached(&sql).unwrap();
    let all = 1 + kind.keys.len() + kind.values.len();
    let rows = statement
        .query_map([from], |row| (0..all).map(|at| row.get(at)).collect::<rusqlite::Result<Vec<i64>>>())
        .unwrap();
    let rows = rows.map(|row| {
        let row = row.unwrap();
        (row[..=kind.keys.len()].to_vec(), row[1 + kind.keys.len()..].to_vec())
    });
    rows.filter(|(_, values)| values.iter().any(|&value| value != 0)).collect()
}
