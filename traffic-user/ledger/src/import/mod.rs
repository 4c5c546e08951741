//! Imports history from PVA's database, as the time before this ledger.
//!
//! `source` reads the file. `counter` and `ranges` digest it counter by counter into five-minute sums, which
//! `staging` keeps in a temporary file. `write` then writes them in one transaction, as rows of a series of
//! their own, and `compare` checks what was imported before. The imported ranges of each counter are stored,
//! so that a second file adds only what is new, and differences are reported.
//!
//! PVA did not distinguish IPv4 and IPv6: everything becomes IPv4. If the counters of single classes add up
//! to the total, the classes are used; otherwise the total, under a class that the operator chooses.

mod compare;
mod counter;
mod owners;
mod ranges;
mod skips;
mod source;
mod staging;
mod write;

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use serde::Serialize;
use traffic_model::calendar::{Calendar, Level, Retention};

use crate::digest;
use crate::{error::LedgerError, ids, schema, store::Ledger, time::borders::Borders, write::clock};
use counter::{KnownState, Splitting};
use skips::Skips;
use source::Source;
use staging::{Staging, Sums};
use write::RowWriter;

pub use skips::{SkipReason, Skipped};

/// Options of an import.
#[derive(Clone, Debug)]
pub struct PvaImport {
    /// Name of the node that the history belongs to.
    pub node: String,
    /// Class for totals over all classes.
    pub class: u8,
    /// End of the imported history; `None` for the start of this ledger's own counting.
    pub until: Option<Timestamp>,
    /// Report what would be imported, without writing anything.
    pub dry_run: bool,
    /// The current time.
    pub now: Timestamp,
}

/// Progress of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PvaProgress {
    /// Number of samples read.
    Read(u64),
    /// Number of five-minute sums written, and their total number.
    Written(u64, u64),
}

/// The result of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PvaImported {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// End of the imported history.
    pub until: Timestamp,
    /// New samples.
    pub samples: u64,
    /// Samples that an earlier import took. They change nothing.
    pub samples_imported_before: u64,
    /// Rows written or added to. Where five-minute rows were dropped, hours or days are written instead.
    pub rows: PvaRows,
    /// Imported history, by container.
    pub containers: Vec<PvaContainer>,
    /// What was skipped, by reason.
    pub skipped: Vec<Skipped>,
    /// Five-minute sums whose classes do not add up to the total, so that the total was used.
    pub totals_taken: PvaTotals,
    /// Earlier imported samples that differ from the ledger. The ledger keeps its values.
    pub conflicts: PvaConflicts,
}

/// Number of rows by level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PvaRows {
    /// Five minutes.
    pub five_minutes: u64,
    /// Hours.
    pub hours: u64,
    /// Days.
    pub days: u64,
}

impl PvaRows {
    fn of(&mut self, level: Level) -> &mut u64 {
        match level {
            Level::FiveMinutes => &mut self.five_minutes,
            Level::Hour => &mut self.hours,
            Level::Day | Level::Month => &mut self.days,
        }
    }
}

/// Imported history of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PvaContainer {
    /// Label in the ledger: the id, or the label of the retired container that had the id at that time.
    pub container: String,
    /// Id in PVA's database.
    pub eid: String,
    /// Whether it is a retired container rather than the current owner of the id.
    pub retired: bool,
    /// Start of the first five minutes with new samples.
    pub first: Option<Timestamp>,
    /// Start of the last ones.
    pub last: Option<Timestamp>,
    /// New packets in.
    pub in_packets: u64,
    /// New layer-3 bytes in, as PVA counted them.
    pub in_bytes: u64,
    /// New packets out.
    pub out_packets: u64,
    /// New bytes out.
    pub out_bytes: u64,
}

/// Five-minute sums for which the total was used although there were classes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PvaTotals {
    /// Their number, over all containers and values.
    pub count: u64,
    /// The first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
}

/// Earlier imported rows that this file has differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PvaConflicts {
    /// Their number.
    pub count: u64,
    /// The first ones.
    pub first: Vec<String>,
}

impl Ledger {
    /// Imports the history in a PVA database (`log_def` and `log_data`, joined by `id`), in one transaction.
    ///
    /// Reading and sorting the file does not lock the ledger, and a dry run never locks it. Writing does, at
    /// more than half a million five-minute sums per second. Another process's drains fail if that takes over
    /// five seconds, and the first one afterwards catches up. Call [`Ledger::maintain`] afterwards.
    ///
    /// # Errors
    /// When either file cannot be used, or the end of the history is unknown. Then nothing is written.
    /// Unusable rows are counted, not errors.
    pub fn import_pva(
        &mut self,
        file: &Path,
        import: &PvaImport,
        progress: &mut dyn FnMut(PvaProgress),
    ) -> Result<PvaImported, LedgerError> {
        let state = State::read(&self.conn, self.retention, import)?;
        let splits = state.splits;
        let months = if splits { Some(months_until(&self.conn, &self.calendar, state.until)?) } else { None };
        let mut skips = Skips::default();
        let source = Source::open(file, &mut skips)?;
        let mut staging = Staging::new()?;
        let closed: Vec<(i64, i64)> = state.closed.iter().map(|period| (period.0, period.1)).collect();
        let mut of_owner: Option<(String, i64)> = None;
        source.each_counter(
            &mut skips,
            &mut |read| progress(PvaProgress::Read(read)),
            |key, samples, skips| {
                let imported = imported(&self.conn, key)?;
                let already = KnownState {
                    imported: &imported,
                    closed: &closed,
                    until: state.until,
                    interval: of_owner.as_ref().filter(|(owner, _)| *owner == key.owner).map(|of| of.1),
                    split: months.as_deref().map(|months| Splitting { months, fine_from: state.fine_from }),
                };
                let digest = counter::digest(samples, &already);
                of_owner = Some((key.owner.clone(), digest.interval));
                staging::count_skips(&digest, key, &state.closed, skips);
                staging.add(key, &digest)
            },
        )?;
        staging.finish()?;
        let mut query = staging.query()?;
        let mut sums = Sums::sort(&mut query)?;
        let behavior =
            if import.dry_run { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
        self.check_files()?;
        let transaction = self.conn.transaction_with_behavior(behavior)?;
        if State::read(&transaction, self.retention, import)? != state {
            return Err(LedgerError::Query(
                "another import or a closing changed the ledger in the meantime; repeat the import"
                    .to_owned(),
            ));
        }
        let mut imported = RowWriter::new(
            &transaction,
            &self.calendar,
            (import, splits.then_some(state.fine_from)),
            &source.owners,
        )?
        .write_all(&staging, &mut sums, &mut |done, all| progress(PvaProgress::Written(done, all)))?;
        imported.until = Timestamp::from_second(state.until)?;
        imported.skipped = skips.into_list();
        refuse_others_file(&transaction, &import.node, &imported)?;
        if import.dry_run {
            return Ok(imported);
        }
        staging.store_ranges(&transaction, &import.node)?;
        staging.record_switch_over(&transaction, import, state.begin)?;
        ids::set_meta(&transaction, "pva_imports", state.imports + 1)?;
        ids::set_meta(&transaction, "pva_splits", i64::from(splits))?;
        ids::set_meta(&transaction, "pva_fine_from", state.fine_from)?;
        digest::commit(transaction)?;
        self.keep_for_good()?;
        Ok(imported)
    }
}

/// What an import relies on. It must not change before the rows are written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// Start of the ledger's own counting.
    begin: Option<i64>,
    /// End of the imported history.
    until: i64,
    /// Start, end and name of the closed periods.
    closed: Vec<(i64, i64, String)>,
    /// Number of earlier imports.
    imports: i64,
    /// Before this, long samples are split into hours, not into five minutes. Fixed by the first import.
    fine_from: i64,
    /// Whether samples longer than a bucket are split. The first import decides, because later ones compare
    /// with its rows.
    splits: bool,
}

/// Starts of the billing months from 2000 to the end of the history.
fn months_until(conn: &Connection, calendar: &Calendar, until: i64) -> Result<Vec<i64>, LedgerError> {
    let covered = Borders::new(conn, calendar).cover(
        Level::Month,
        source::CENTURY.start,
        until.min(source::CENTURY.end),
    )?;
    Ok(covered.into_iter().map(|month| month.0).collect())
}

/// When the ledger began to count. A clock that was wrong then does not count: its first rows tell.
fn begin(conn: &Connection) -> Result<Option<i64>, LedgerError> {
    let last = clock::load(conn)?.map_or(i64::MAX, |line| line.time_ms() / 1000);
    let sql = "SELECT min(created) FROM epoch WHERE drains > 0 AND created >= ?1 AND created <= ?2";
    let created: Option<i64> = conn.query_row(sql, [source::CENTURY.start, last], |row| row.get(0))?;
    let mut begin = created;
    let wrong = "SELECT 1 FROM epoch WHERE drains > 0 AND (created < ?1 OR created > ?2)";
    if !conn.prepare(wrong)?.exists([source::CENTURY.start, last])? {
        return Ok(begin);
    }
    for level in [Level::FiveMinutes, Level::Hour, Level::Day] {
        let mut forms = vec![(schema::TRAFFIC.rows_table(level), "t.start")];
        forms.extend(schema::TRAFFIC.days_table(level).map(|table| (table, "t.start + 300 * t.first")));
        for (table, start) in forms {
            let sql = format!(
                "SELECT min({start}) FROM {table} t JOIN stream s ON s.id = t.stream
                 JOIN epoch e ON e.id = s.epoch
                 WHERE e.drains > 0 AND {start} >= ?1 AND (e.created < ?1 OR e.created > ?2)"
            );
            let first: Option<i64> = conn.query_row(&sql, [source::CENTURY.start, last], |row| row.get(0))?;
            begin = [begin, first].into_iter().flatten().min();
        }
    }
    Ok(begin)
}

impl State {
    fn read(conn: &Connection, retention: Retention, import: &PvaImport) -> Result<Self, LedgerError> {
        let begin = begin(conn)?;
        let until = match (import.until.map(Timestamp::as_second), begin) {
            (Some(until), Some(begin)) if until > begin => {
                return Err(LedgerError::Query(format!(
                    "this ledger began to count at {}, so history until {} would count twice; give an \
                     earlier --until",
                    Timestamp::from_second(begin)?,
                    Timestamp::from_second(until)?,
                )));
            }
            (Some(until), _) => until,
            (None, Some(begin)) => begin,
            (None, None) => {
                return Err(LedgerError::Query(
                    "this ledger has no reading yet, so the start of its own counting is unknown; start \
                     `trafctl run` first, or give the end of the history with --until"
                        .to_owned(),
                ));
            }
        };
        let imports = ids::meta(conn, "pva_imports")?.unwrap_or(0);
        let of_before =
            "SELECT 1 FROM stream s JOIN epoch e ON e.id = s.epoch WHERE e.boot_id = 'pva-import'";
        if imports == 0 && conn.query_row(of_before, [], |_| Ok(())).optional()?.is_some() {
            return Err(LedgerError::Query(
                "this ledger holds PVA history from an import that did not record its ranges, so a second \
                 import could count samples twice"
                    .to_owned(),
            ));
        }
        let mut statement = conn.prepare("SELECT start, end, name FROM period ORDER BY start")?;
        let closed = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let days = i64::from(retention.five_minutes_days);
        let fine_from = ids::meta(conn, "pva_fine_from")?;
        let fine_from = fine_from.unwrap_or(import.now.as_second() - days * 86_400);
        let splits = imports == 0 || ids::meta(conn, "pva_splits")? == Some(1);
        Ok(Self { begin, until, closed: closed.collect::<Result<_, _>>()?, imports, fine_from, splits })
    }
}

/// The ranges of a counter that earlier imports took, under whichever name the node had then: a node is
/// renamed, and its history remains the same.
fn imported(conn: &Connection, key: &source::CounterKey) -> Result<Vec<ranges::Range>, LedgerError> {
    let mut statement = conn
        .prepare_cached("SELECT first, last FROM pva_range WHERE eid = ?1 AND class = ?2 AND value = ?3")?;
    let class = key.class.map_or(-1, i64::from);
    let ranges = statement
        .query_map(rusqlite::params![key.owner, class, key.value], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(ranges::union(&ranges.collect::<Result<Vec<_>, _>>()?, &[], 0))
}

/// Refuses a file of which everything was imported under another name of the node.
fn refuse_others_file(conn: &Connection, node: &str, imported: &PvaImported) -> Result<(), LedgerError> {
    if imported.samples > 0 || imported.samples_imported_before == 0 {
        return Ok(());
    }
    let mut names = conn.prepare("SELECT DISTINCT node FROM pva_range ORDER BY node")?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    if names.iter().any(|name| name == node) {
        return Ok(());
    }
    Err(LedgerError::Query(format!(
        "its samples were imported before, as the history of {}; a later copy of the file is imported from where \
         this one ends",
        names.join(" and ")
    )))
}
