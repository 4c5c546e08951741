//! Reads PVA's database: the definitions of its network counters, and the samples of each, ordered by time.
//!
//! Unusable rows are counted by reason and skipped. Only an unreadable file is an error. The file is opened
//! for reading only.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use traffic_model::ContainerId;

use crate::{
    error::LedgerError,
    import::{
        counter::Sample,
        skips::{SkipReason, Skips},
    },
    migrate, schema,
};

/// Names of the values, in the order of the ledger's columns.
pub const VALUES: [&str; 4] = [
    "counter_net_incoming_packets",
    "counter_net_incoming_bytes",
    "counter_net_outgoing_packets",
    "counter_net_outgoing_bytes",
];

/// PVA's names for the owner of a counter: a container or a virtual machine.
const LCLASSES: [&str; 2] = ["counters_vz_net", "counters_vzp_net"];

/// Valid times, from 2000 to 2100. Seconds since the Unix epoch.
pub const CENTURY: std::ops::Range<i64> = 946_684_800..4_102_444_800;
/// Amounts are counted in parts of this size, so that fractions can be added before they are rounded.
pub const ONE: i64 = 256;
const ONE_F: f64 = 256.0;
/// Largest valid sample. A month of one-minute samples then stays below 2^63.
const LARGEST: i64 = 1 << 47;

/// Identifies a PVA counter: one of the four values of a container, in one class or over all classes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterKey {
    /// The container's id.
    pub owner: String,
    /// The class; `None` for all classes together.
    pub class: Option<u8>,
    /// Index in [`VALUES`].
    pub value: u8,
}

impl std::fmt::Display for CounterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", VALUES[usize::from(self.value)], self.owner)?;
        self.class.map_or(Ok(()), |class| write!(f, " class {class}"))
    }
}

/// An open PVA database.
#[derive(Debug)]
pub struct Source {
    conn: Connection,
    /// The defined counters, sorted. Samples refer to them by index.
    pub counters: Vec<CounterKey>,
    /// All owners, and whether they are virtual machines.
    pub owners: BTreeMap<String, bool>,
}

impl Source {
    /// Opens the file and reads the definitions.
    ///
    /// # Errors
    /// When the file cannot be read or does not have PVA's tables.
    pub fn open(path: &Path, skips: &mut Skips) -> Result<Self, LedgerError> {
        // SQLite reads it as an empty database, and would wait for what the kernel writes to /proc/kmsg.
        if fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == 0) {
            return Err(LedgerError::Query("it is not a PVA database: it is empty".to_owned()));
        }
        let conn = crate::read_only::open(path).map_err(|source| migrate::open_error(path, source))?;
        refuse_ledger(&conn)?;
        for (table, columns) in
            [("log_def", "id, eid, lclass, instance, counter"), ("log_data", "id, startTime, avg")]
        {
            conn.prepare(&format!("SELECT {columns} FROM {table}"))
                .map_err(|error| LedgerError::Query(format!("it is not a PVA database: {error}")))?;
        }
        let mut source = Self { conn, counters: Vec::new(), owners: BTreeMap::new() };
        source.define(skips)?;
        Ok(source)
    }

    fn define(&mut self, skips: &mut Skips) -> Result<(), LedgerError> {
        let mut by_id: Vec<(rusqlite::types::Value, CounterKey)> = Vec::new();
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
            by_id.push((id, CounterKey { owner, class, value }));
        }
        self.counters = by_id.iter().map(|(_, key)| key.clone()).collect();
        self.counters.sort();
        self.counters.dedup();
        let places: HashMap<&CounterKey, usize> = self.counters.iter().zip(0..).collect();
        self.conn.execute_batch("CREATE TEMP TABLE counter_of (id PRIMARY KEY, counter INTEGER NOT NULL)")?;
        let mut insert = self.conn.prepare("INSERT OR IGNORE INTO temp.counter_of VALUES (?1, ?2)")?;
        for (id, key) in &by_id {
            let place = i64::try_from(places[key]).unwrap_or(i64::MAX);
            if insert.execute(rusqlite::params![id, place])? == 0 {
                skips.note(SkipReason::DuplicateDefinition, || format!("number {id:?}: {key}"));
            }
        }
        Ok(())
    }

    /// Passes on the usable samples of each counter, sorted by time. `progress` receives the number of rows
    /// read so far.
    ///
    /// # Errors
    /// When the file cannot be read, or `each` fails.
    pub fn each_counter(
        &self,
        skips: &mut Skips,
        progress: &mut dyn FnMut(u64),
        mut each: impl FnMut(&CounterKey, &[Sample], &mut Skips) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        self.undefined(skips)?;
        let mut statement = self.conn.prepare(
            "SELECT m.counter, CASE typeof(l.startTime) WHEN 'text' THEN CAST(l.startTime AS NUMERIC) ELSE
             l.startTime END,
                 l.avg
             FROM log_data l JOIN temp.counter_of m ON l.id = m.id ORDER BY 1, 2",
        )?;
        let mut rows = statement.query([])?;
        let mut samples: Vec<Sample> = Vec::new();
        let mut current = None;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            let place = row.get::<_, u32>(0)? as usize;
            if current != Some(place) {
                if let Some(before) = current.replace(place) {
                    each(&self.counters[before], &samples, skips)?;
                }
                samples.clear();
            }
            read += 1;
            progress(read);
            match sample_of(&row.get_ref(1)?, &row.get_ref(2)?) {
                Ok(sample) => samples.push(sample),
                Err(reason) => {
                    let (start, avg) = (text_of(&row.get_ref(1)?), text_of(&row.get_ref(2)?));
                    skips.note(reason, || format!("{} at {start}: {avg}", self.counters[place]));
                }
            }
        }
        match current {
            Some(last) => each(&self.counters[last], &samples, skips),
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

/// Refuses a ledger, which has views in the form of PVA's tables: its figures would count twice. A copy that was
/// made by way of SQL has lost the application's id.
fn refuse_ledger(conn: &Connection) -> Result<(), LedgerError> {
    // A file that is no database, or has no such tables, is refused afterwards with its own reason.
    let id: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0)).unwrap_or(0);
    let own = "SELECT count(*) FROM sqlite_schema WHERE name IN ('pva_counter', 'traffic_5min', 'meta')";
    let own: i64 = conn.query_row(own, [], |row| row.get(0)).unwrap_or(0);
    if id == schema::APPLICATION_ID || own == 3 {
        return Err(LedgerError::Query(
            "it is not a PVA database but a ledger of trafctl, whose figures would count twice; give the database of \
             the PVA agent"
                .to_owned(),
        ));
    }
    Ok(())
}

/// A value as text; empty for NULL.
fn text_of(value: &ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(blob) => format!("a blob of {} bytes", blob.len()),
    }
}

fn sample_of(start: &ValueRef<'_>, avg: &ValueRef<'_>) -> Result<Sample, SkipReason> {
    let start = match start {
        ValueRef::Integer(seconds) => Some(*seconds),
        ValueRef::Real(seconds) => whole(seconds.floor()),
        _ => None,
    };
    let start = start.filter(|start| CENTURY.contains(start)).ok_or(SkipReason::BadTime)?;
    // Fractions are kept: the counters of single classes are rounded together.
    let scaled = |amount: f64| whole((amount * ONE_F).round());
    let of_whole = |amount: i64| amount.saturating_mul(ONE);
    let amount = match avg {
        ValueRef::Integer(amount) => Some(of_whole(*amount)),
        ValueRef::Real(amount) => scaled(*amount),
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text);
            text.parse().ok().map(of_whole).or_else(|| text.parse::<f64>().ok().and_then(scaled))
        }
        ValueRef::Null | ValueRef::Blob(_) => None,
    };
    match amount {
        None => Err(SkipReason::NotANumber),
        Some(..0) => Err(SkipReason::Negative),
        Some(amount) if amount > LARGEST * ONE => Err(SkipReason::TooLarge),
        Some(amount) => Ok(Sample { start, amount }),
    }
}

/// Converts to a whole number; the nearest end if out of range, `None` if NaN.
fn whole(number: f64) -> Option<i64> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a value out of range becomes the nearest end, which the caller refuses"
    )]
    let whole = (!number.is_nan()).then_some(number as i64);
    whole
}
