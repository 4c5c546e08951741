//! History from PVA's database, as what was before the switch-over.
//!
//! It is read (`source`), digested counter by counter (`series`, `ranges`) into sums of five minutes in a temporary file
//! (`staging`), and booked in one transaction (`book`) as rows of a stream of their own. Each counter's stretches that were
//! imported are remembered, so that a second file adds only what is new, and what it has differently is said.
//!
//! PVA knew no families: everything becomes IPv4. Where the counters of single classes add up to the total they are
//! taken, otherwise the total is, under a class of the operator's choice.

mod ranges;
mod series;
mod skips;
mod source;
mod staging;
mod write;

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use serde::Serialize;
use traffic_model::calendar::Level;

use crate::{error::LedgerError, ids, schema, store::Ledger};
use series::Already;
use skips::Skips;
use source::Source;
use staging::{Staging, Sums};
use write::RowWriter;

pub use skips::{SkipReason, Skipped};

/// How to take PVA's history over.
#[derive(Clone, Debug)]
pub struct PvaImport {
    /// Name of the node it was counted on.
    pub node: String,
    /// The class that totals of all classes are booked under.
    pub class: u8,
    /// Only what was over before this is taken; `None` for the begin of this ledger's own counting.
    pub until: Option<Timestamp>,
    /// Only find out what would be done.
    pub dry_run: bool,
    /// The present time.
    pub now: Timestamp,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PvaProgress {
    /// So many samples were read.
    Read(u64),
    /// So many sums of five minutes were booked, of all.
    Booked(u64, u64),
}

/// What was taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PvaImported {
    /// True when nothing was written.
    pub dry_run: bool,
    /// Only what was over before this was taken.
    pub until: Timestamp,
    /// New samples.
    pub samples: u64,
    /// Samples that an earlier import took; they changed nothing.
    pub samples_imported_before: u64,
    /// Rows that were written or added to: of five minutes where those are still kept, of hours or days where not.
    pub rows: PvaRows,
    /// What was taken over, by container.
    pub containers: Vec<PvaContainer>,
    /// What was left out, by reason.
    pub skipped: Vec<Skipped>,
    /// Five minutes in which the classes do not add up to the total, so that the total was taken.
    pub totals_taken: PvaTotals,
    /// Samples imported before that are not what the ledger holds. It stays as it is.
    pub conflicts: PvaConflicts,
}

/// Rows by level.
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

/// What was taken over of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PvaContainer {
    /// Its label in the ledger: the id, or that of who had it then and is retired since.
    pub container: String,
    /// Its id in PVA's database.
    pub eid: String,
    /// True when it is not the one that has the id now.
    pub retired: bool,
    /// Begin of the first five minutes with something new.
    pub first: Option<Timestamp>,
    /// Begin of the last ones.
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

/// Five minutes in which totals were taken although there were classes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PvaTotals {
    /// How many, over all containers and values.
    pub count: u64,
    /// The first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
}

/// Rows that an earlier import wrote and that this file has differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PvaConflicts {
    /// How many.
    pub count: u64,
    /// The first ones.
    pub first: Vec<String>,
}

impl Ledger {
    /// Takes over the history in PVA's database (`log_def`, `log_data`, joined by `id`), in one transaction. Reading
    /// the file and sorting what it holds takes no lock on the ledger, and a dry run takes none at all. Booking does, at well
    /// over half a million sums of five minutes a second: drains of another process fail if that takes more than
    /// five seconds, and the first one afterwards catches up. Call [`Ledger::maintain`] then.
    ///
    /// # Errors
    /// When either file cannot be used, or nothing tells until when the history goes: then nothing is taken. A row that
    /// cannot be used is no error but counted.
    pub fn import_pva(
        &mut self,
        file: &Path,
        import: &PvaImport,
        progress: &mut dyn FnMut(PvaProgress),
    ) -> Result<PvaImported, LedgerError> {
        let state = State::read(&self.conn, import)?;
        let mut skips = Skips::default();
        let source = Source::open(file, &mut skips)?;
        let mut staging = Staging::new()?;
        let closed: Vec<(i64, i64)> = state.closed.iter().map(|period| (period.0, period.1)).collect();
        source.each_series(
            &mut skips,
            &mut |read| progress(PvaProgress::Read(read)),
            |key, samples, skips| {
                let imported = imported(&self.conn, &import.node, key)?;
                let already = Already { imported: &imported, closed: &closed, until: state.until };
                let digest = series::digest(samples, &already);
                staging::note_skips(&digest, key, &state.closed, skips);
                staging.add(key, &digest)
            },
        )?;
        staging.finish()?;
        let mut query = staging.query()?;
        let mut sums = Sums::sort(&mut query)?;
        let behavior =
            if import.dry_run { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
        let transaction = self.conn.transaction_with_behavior(behavior)?;
        if State::read(&transaction, import)? != state {
            return Err(LedgerError::Query(
                "the ledger was changed by another import or a closing meanwhile: repeat the import"
                    .to_owned(),
            ));
        }
        let mut imported = RowWriter::new(&transaction, &self.calendar, import, &source.owners)?.book(
            &staging,
            &mut sums,
            &mut |done, all| progress(PvaProgress::Booked(done, all)),
        )?;
        imported.until = Timestamp::from_second(state.until)?;
        imported.skipped = skips.into_list();
        if import.dry_run {
            return Ok(imported);
        }
        transaction.execute_batch(schema::PVA_RANGES)?;
        staging.store_ranges(&transaction, &import.node)?;
        staging.note_switch_over(&transaction, import, state.begin)?;
        ids::set_meta_integer(&transaction, "pva_imports", state.imports + 1)?;
        transaction.commit()?;
        self.checkpoint()?;
        Ok(imported)
    }
}

/// What an import relies on and must not change before it is booked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// Begin of the ledger's own counting.
    begin: Option<i64>,
    /// What is taken ends here.
    until: i64,
    /// Begin, end and name of closed periods.
    closed: Vec<(i64, i64, String)>,
    /// Number of imports before.
    imports: i64,
}

impl State {
    fn read(conn: &Connection, import: &PvaImport) -> Result<Self, LedgerError> {
        let sql = "SELECT min(created) FROM epoch WHERE drains > 0";
        let begin: Option<i64> = conn.query_row(sql, [], |row| row.get(0))?;
        let until = match (import.until.map(Timestamp::as_second), begin) {
            (Some(until), Some(begin)) if until > begin => {
                return Err(LedgerError::Query(format!(
                    "this ledger's own counting began at {}: history until {} would count twice",
                    Timestamp::from_second(begin)?,
                    Timestamp::from_second(until)?,
                )));
            }
            (Some(until), _) => until,
            (None, Some(begin)) => begin,
            (None, None) => {
                return Err(LedgerError::Query(
                    "this ledger has no reading yet, so nothing tells where its own counting begins: start `trafctl run` \
                     first, or say with --until when counting begins"
                        .to_owned(),
                ));
            }
        };
        let imports = ids::meta_integer(conn, "pva_imports")?.unwrap_or(0);
        let of_before =
            "SELECT 1 FROM stream s JOIN epoch e ON e.id = s.epoch WHERE e.boot_id = 'pva-import'";
        if imports == 0 && conn.query_row(of_before, [], |_| Ok(())).optional()?.is_some() {
            return Err(LedgerError::Query(
                "this ledger holds history of PVA from an import that did not record its extent: a second one could count \
                 twice"
                    .to_owned(),
            ));
        }
        let mut statement = conn.prepare("SELECT start, end, name FROM period ORDER BY start")?;
        let closed = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(Self { begin, until, closed: closed.collect::<Result<_, _>>()?, imports })
    }
}

/// The stretches of a counter that earlier imports took.
fn imported(
    conn: &Connection,
    node: &str,
    key: &source::SeriesKey,
) -> Result<Vec<ranges::Range>, LedgerError> {
    let exists = "SELECT 1 FROM sqlite_schema WHERE name = 'pva_range'";
    if conn.prepare_cached(exists)?.query_row([], |_| Ok(())).optional()?.is_none() {
        return Ok(Vec::new());
    }
    let mut statement = conn.prepare_cached(
        "SELECT first, last FROM pva_range WHERE node = ?1 AND eid = ?2 AND class = ?3 AND value = ?4 ORDER BY first",
    )?;
    let class = key.class.map_or(-1, i64::from);
    let ranges = statement.query_map(rusqlite::params![node, key.owner, class, key.value], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    Ok(ranges.collect::<Result<_, _>>()?)
}
