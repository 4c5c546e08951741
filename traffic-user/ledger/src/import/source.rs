//! PVA's database as it is found: the definitions of its network counters, and the samples of each in the order of time.
//!
//! What cannot be used is counted by its reason and left out; only a file that cannot be read at all is an error. The file is
//! opened for reading only.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use traffic_model::ContainerId;

use crate::{
    error::LedgerError,
    import::{
        series::Sample,
        skips::{SkipReason, Skips},
    },
    migrate,
};

/// Names of the values, in the order of the ledger's columns.
pub const VALUES: [&str; 4] = [
    "counter_net_incoming_packets",
    "counter_net_incoming_bytes",
    "counter_net_outgoing_packets",
    "counter_net_outgoing_bytes",
];

/// PVA's names for what a counter belongs to: a container, a virtual machine.
const LCLASSES: [&str; 2] = ["counters_vz_net", "counters_vzp_net"];

/// Times before 2000 and after 2100 are mistakes.
const CENTURY: std::ops::Range<i64> = 946_684_800..4_102_444_800;
/// With at most this much in a sample, a month of minutes stays below 2^63.
const LARGEST: i64 = 1 << 47;

/// One of the four values of a container, in one class or in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// The container's id.
    pub owner: String,
    /// The class; `None` for all together.
    pub class: Option<u8>,
    /// Place in [`VALUES`].
    pub value: u8,
}

impl std::fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", VALUES[usize::from(self.value)], self.owner)?;
        self.class.map_or(Ok(()), |class| write!(f, " class {class}"))
    }
}

/// The file, and what is defined in it.
#[derive(Debug)]
pub struct Source {
    conn: Connection,
    /// In their order; samples refer to them by their places.
    pub series: Vec<SeriesKey>,
    /// All owners, and whether they are machines.
    pub owners: BTreeMap<String, bool>,
}

impl Source {
    /// Opens the file and reads the definitions.
    ///
    /// # Errors
    /// When it cannot be read or has not the tables of PVA.
    pub fn open(path: &Path, skips: &mut Skips) -> Result<Self, LedgerError> {
        let conn = migrate::open_file_read_only(path)
            .map_err(|source| LedgerError::Open { path: path.to_owned(), source })?;
        for (table, columns) in
            [("log_def", "id, eid, lclass, instance, counter"), ("log_data", "id, startTime, avg")]
        {
            conn.prepare(&format!("SELECT {columns} FROM {table}")).map_err(|error| {
                LedgerError::Query(format!("{} is no database of PVA: {error}", path.display()))
            })?;
        }
        let mut source = Self { conn, series: Vec::new(), owners: BTreeMap::new() };
        source.define(skips)?;
        Ok(source)
    }

    fn define(&mut self, skips: &mut Skips) -> Result<(), LedgerError> {
        let mut by_id: Vec<(rusqlite::types::Value, SeriesKey)> = Vec::new();
        let mut statement = self
            .conn
            .prepare("SELECT id, eid, lclass, instance, counter FROM log_def WHERE lclass IN (?1, ?2)")?;
        let mut rows = statement.query(LCLASSES)?;
        while let Some(row) = rows.next()? {
            let id: rusqlite::types::Value = row.get(0)?;
            let text = |at| row.get_ref(at).map(|value| text_of(&value));
            let (eid, lclass, instance, counter) = (text(1)?, text(2)?, text(3)?, text(4)?);
            let what = || format!("number {id:?}: {counter} of {eid}, instance {instance:?}");
            let Some(value) = (0..).zip(VALUES).find_map(|(at, name)| (name == counter).then_some(at)) else {
                skips.note(SkipReason::UnknownCounter, what);
                continue;
            };
            let class = match instance.as_str() {
                "" => None,
                class => match class.parse().ok().filter(|&class: &u8| class < u8::MAX) {
                    Some(class) => Some(class),
                    None => {
                        skips.note(SkipReason::BadClass, what);
                        continue;
                    }
                },
            };
            let owner = match ContainerId::new(&eid) {
                Ok(owner) => owner.as_str().to_owned(),
                Err(error) => {
                    skips.note(SkipReason::BadContainerId, || format!("{}: {error}", what()));
                    continue;
                }
            };
            let is_vm = lclass == LCLASSES[1];
            self.owners.entry(owner.clone()).and_modify(|vm| *vm &= is_vm).or_insert(is_vm);
            by_id.push((id, SeriesKey { owner, class, value }));
        }
        self.series = by_id.iter().map(|(_, key)| key.clone()).collect();
        self.series.sort();
        self.series.dedup();
        let places: HashMap<&SeriesKey, usize> = self.series.iter().zip(0..).collect();
        self.conn.execute_batch("CREATE TEMP TABLE series_of (id PRIMARY KEY, series INTEGER NOT NULL)")?;
        let mut insert = self.conn.prepare("INSERT OR IGNORE INTO temp.series_of VALUES (?1, ?2)")?;
        for (id, key) in &by_id {
            let place = i64::try_from(places[key]).unwrap_or(i64::MAX);
            if insert.execute(rusqlite::params![id, place])? == 0 {
                skips.note(SkipReason::DuplicateDefinition, || format!("number {id:?}: {key}"));
            }
        }
        Ok(())
    }

    /// Gives the usable samples of one counter after the other, each sorted by time. `progress` is told the number of rows
    /// read so far.
    ///
    /// # Errors
    /// When the file cannot be read, or the receiver's.
    pub fn each_series(
        &self,
        skips: &mut Skips,
        progress: &mut dyn FnMut(u64),
        mut each: impl FnMut(&SeriesKey, &[Sample], &mut Skips) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        self.undefined(skips)?;
        let mut statement = self.conn.prepare(
            "SELECT m.series, CASE typeof(l.startTime) WHEN 'text' THEN CAST(l.startTime AS NUMERIC) ELSE l.startTime END,
                 l.avg
             FROM log_data l JOIN temp.series_of m ON l.id = m.id ORDER BY 1, 2",
        )?;
        let mut rows = statement.query([])?;
        let mut samples: Vec<Sample> = Vec::new();
        let mut current = None;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            let place = row.get::<_, u32>(0)? as usize;
            if current != Some(place) {
                if let Some(before) = current.replace(place) {
                    each(&self.series[before], &samples, skips)?;
                }
                samples.clear();
            }
            read += 1;
            progress(read);
            match sample_of(&row.get_ref(1)?, &row.get_ref(2)?) {
                Ok(sample) => samples.push(sample),
                Err(reason) => {
                    let (start, avg) = (text_of(&row.get_ref(1)?), text_of(&row.get_ref(2)?));
                    skips.note(reason, || format!("{} at {start}: {avg}", self.series[place]));
                }
            }
        }
        match current {
            Some(last) => each(&self.series[last], &samples, skips),
            None => Ok(()),
        }
    }

    fn undefined(&self, skips: &mut Skips) -> Result<(), LedgerError> {
        let (count, first): (i64, Option<String>) = self.conn.query_row(
            "SELECT count(*), min('number ' || coalesce(id, 'NULL') || ' at ' || coalesce(startTime, 'NULL'))
             FROM log_data WHERE id IS NULL OR id NOT IN (SELECT id FROM log_def WHERE id IS NOT NULL)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let first = first.unwrap_or_default();
        skips.note_many(SkipReason::UndefinedCounter, None, count.unsigned_abs(), || first);
        Ok(())
    }
}

/// A value as people would read it; empty for none.
fn text_of(value: &ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(blob) => format!("{} bytes of no text", blob.len()),
    }
}

fn sample_of(start: &ValueRef<'_>, avg: &ValueRef<'_>) -> Result<Sample, SkipReason> {
    let start = match start {
        ValueRef::Integer(seconds) => Some(*seconds),
        ValueRef::Real(seconds) => whole(seconds.floor()),
        _ => None,
    };
    let start = start.filter(|start| CENTURY.contains(start)).ok_or(SkipReason::BadTime)?;
    let amount = match avg {
        ValueRef::Integer(amount) => Some(*amount),
        ValueRef::Real(amount) => whole(amount.round()),
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text);
            text.parse().ok().or_else(|| text.parse::<f64>().ok().and_then(|amount| whole(amount.round())))
        }
        ValueRef::Null | ValueRef::Blob(_) => None,
    };
    match amount {
        None => Err(SkipReason::NotANumber),
        Some(..0) => Err(SkipReason::Negative),
        Some(amount) if amount > LARGEST => Err(SkipReason::TooLarge),
        Some(amount) => Ok(Sample { start, amount }),
    }
}

/// A whole number; the nearest end for what is out of range, `None` for what is no number.
fn whole(number: f64) -> Option<i64> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a value out of range becomes the nearest end, and is refused"
    )]
    let whole = (!number.is_nan()).then_some(number as i64);
    whole
}
