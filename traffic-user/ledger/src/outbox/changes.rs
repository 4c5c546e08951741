//! What a store asks for: what changed since a change number, and the present rows of it.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension as _, params};
use traffic_model::calendar::Level;

use crate::{
    days::read::{self, Selection},
    error::LedgerError,
    ids,
    outbox::{
        RECORDS, UNITS,
        parts::{self, Content},
        sizes::{ContentSize, Sizes},
    },
    schema::DROPPED,
    store::Ledger,
    write::rollup::DROPPED_FIVE_MINUTES,
};

/// Which ledger this is, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its random id.
    pub ledger: String,
    /// The machine that it belongs to, if one is known.
    pub machine: Option<String>,
    /// The id of the ledger that it is an adopted copy of.
    pub parent: Option<String>,
    /// The last change number; 0 before the first change.
    pub changes: i64,
    /// The token of the last change; see [`Ledger::lineage_at`].
    pub token: Option<String>,
    /// Five minutes from this time on (Unix seconds) are in the ledger; `None` if it has dropped none.
    pub kept_from: Option<i64>,
}

/// Which changes to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Changes with higher numbers only.
    pub after: i64,
    /// Changes up to this number only.
    pub until: i64,
    /// Units (true) or everything else (false).
    pub units: bool,
}

impl Ledger {
    /// Which ledger this is, and how far it has come.
    ///
    /// # Errors
    /// When the file cannot be read, or has no id yet.
    pub fn shipping_identity(&self) -> Result<Identity, LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        let changes = view.prepare_cached("SELECT number FROM changes")?.query_row([], |row| row.get(0))?;
        Ok(Identity {
            ledger: self.id()?,
            machine: ids::meta(&view, "machine")?,
            parent: ids::meta(&view, "parent_id")?,
            changes,
            token: self.lineage_at(changes)?,
            kept_from: ids::meta(&view, DROPPED_FIVE_MINUTES)?,
        })
    }

    /// The token of whoever wrote the change with this number. A ledger that went back to an earlier state and on
    /// from there has another one than whoever remembers the number. `None` before the first change.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn lineage_at(&self, change: i64) -> Result<Option<String>, LedgerError> {
        let sql = "SELECT token FROM lineage WHERE since <= ?1 ORDER BY since DESC LIMIT 1";
        Ok(self.conn.prepare_cached(sql)?.query_row([change], |row| row.get(0)).optional()?)
    }

    /// The parts that changed, the oldest change first: name, number, and change number. All of them, because one
    /// transaction may change many: a year of a ledger has some ten thousand parts.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn changes(&self, of: Changes) -> Result<Vec<(&'static str, i64, i64)>, LedgerError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT name, part, rev FROM outbox WHERE rev > ?1 AND rev <= ?2 ORDER BY rev, name, part",
        )?;
        let mut rows = statement.query(params![of.after, of.until])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let name = known_name(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?, of.units);
            if let Some(name) = name {
                found.push((name, row.get(1)?, row.get(2)?));
            }
        }
        Ok(found)
    }

    /// The units that have rows of drops: name, number, and change number.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn units_with_drops(&self) -> Result<Vec<(&'static str, i64, i64)>, LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        let mut found = Vec::new();
        for (level, name) in UNITS {
            let mut starts = BTreeSet::new();
            read::each(&view, &Selection::all(&DROPPED, level, (i64::MIN, i64::MAX)), |row| {
                starts.insert(row.start);
                Ok(())
            })?;
            let mut rev = view.prepare_cached("SELECT rev FROM outbox WHERE name = ?1 AND part = ?2")?;
            for start in starts {
                let rev: Option<i64> = rev.query_row(params![name, start], |row| row.get(0)).optional()?;
                found.extend(rev.map(|rev| (name, start, rev)));
            }
        }
        Ok(found)
    }

    /// How many parts changed after a change number, and when the oldest unit of these began, in seconds since the
    /// Unix epoch.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn changes_left(&self, after: i64) -> Result<(u64, Option<i64>), LedgerError> {
        let sql = "SELECT count(*), min(CASE WHEN name = '5min' THEN part END) FROM outbox WHERE rev > ?1";
        let mut statement = self.conn.prepare_cached(sql)?;
        Ok(statement.query_row([after], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?)))?)
    }

    /// How many of the first parts are, together, at most so large; at least one of them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn fitting(
        &self,
        parts: &[(&'static str, i64, i64)],
        most: ContentSize,
    ) -> Result<usize, LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        let (mut size, mut sizes) = (ContentSize::default(), Sizes::new(&view));
        for (at, part) in parts.iter().enumerate() {
            size += sizes.most((part.0, part.1))?;
            if !size.is_within(most) {
                return Ok(at.max(1));
            }
        }
        Ok(parts.len())
    }

    /// The present rows of parts, each with the number of its last change. A part that the ledger no longer lists
    /// is left out: retention removed it, which no store repeats.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn contents(&self, parts: &[(&'static str, i64)]) -> Result<Vec<Content>, LedgerError> {
        // All of one moment: rows must not be newer than their number.
        let view = self.conn.unchecked_transaction()?;
        let mut contents = Vec::new();
        let mut units: BTreeMap<Level, BTreeMap<i64, Content>> = BTreeMap::new();
        for &(name, number) in parts {
            let rev: Option<i64> = view
                .prepare_cached("SELECT rev FROM outbox WHERE name = ?1 AND part = ?2")?
                .query_row(params![name, number], |row| row.get(0))
                .optional()?;
            let Some(rev) = rev else { continue };
            let mut content = Content::new(name, number, rev);
            match parts::level_of(name) {
                Some(level) => drop(units.entry(level).or_default().insert(number, content)),
                None => {
                    parts::record(&view, &mut content)?;
                    contents.push(content);
                }
            }
        }
        for (level, mut of_level) in units {
            parts::units(&view, level, &mut of_level)?;
            contents.extend(of_level.into_values());
        }
        Ok(contents)
    }
}

fn known_name(name: &str, units: bool) -> Option<&'static str> {
    let units_of = UNITS.iter().map(|unit| unit.1).filter(|_| units);
    let records = RECORDS.iter().map(|record| record.0).filter(|_| !units);
    units_of.chain(records).find(|known| *known == name)
}
