//! The five-minute sums to import, in a temporary file: a year of a large node does not fit into memory.
//! Counters are added one after the other and returned in order of time.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Connection, Rows, Statement, params};

use crate::{
    error::LedgerError,
    ids,
    import::{
        PvaImport,
        counter::{Digest, Sample},
        ranges::{self, Range},
        skips::{SkipReason, Skips},
        source::{CounterKey, ONE},
    },
    write::gaps::{self, Gap, GapLinks, GapReason},
};

/// One five-minute sum.
#[derive(Clone, Debug)]
pub struct Staged {
    pub start: i64,
    /// Index in [`Staging::owners`].
    pub owner: usize,
    pub value: u8,
    /// The class; `None` for the total.
    pub class: Option<u8>,
    /// Number and sum of the new samples.
    pub new_samples: (u64, i64),
    /// Number and sum of the samples imported before.
    pub known: (u64, i64),
    /// Whether a part of it is a share of a longer sample.
    pub split: bool,
}

/// All sums, sorted by start, owner and value.
pub struct Sums<'a> {
    rows: Rows<'a>,
    next: Option<Staged>,
}

impl<'a> Sums<'a> {
    /// Sorts the sums. This takes as long as writing them, so it is done before the ledger is locked.
    pub fn sort(query: &'a mut Statement<'_>) -> Result<Self, LedgerError> {
        let mut sums = Self { rows: query.query([])?, next: None };
        sums.next = sums.read()?;
        Ok(sums)
    }

    /// The next sum.
    pub fn next(&mut self) -> Result<Option<Staged>, LedgerError> {
        let following = self.read()?;
        Ok(std::mem::replace(&mut self.next, following))
    }

    fn read(&mut self) -> Result<Option<Staged>, LedgerError> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        let count = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
        Ok(Some(Staged {
            start: row.get(0)?,
            owner: row.get::<_, u32>(1)? as usize,
            value: row.get(2)?,
            class: row.get(3)?,
            new_samples: (count(4)?, row.get(5)?),
            known: (count(6)?, row.get(7)?),
            split: row.get(8)?,
        }))
    }
}

/// The staged sums, and what else the import writes.
#[derive(Debug)]
pub struct Staging {
    conn: Connection,
    /// Ids of the containers that have sums.
    pub owners: Vec<String>,
    /// Imported ranges that this file does not contain, by owner and value.
    missing: HashMap<(usize, usize), Vec<Range>>,
    ranges: Vec<(CounterKey, Vec<Range>)>,
    /// Longest usual distance between two samples, in seconds.
    pub interval: i64,
    pub sums: u64,
    end: Option<i64>,
    over_begin: OverBegin,
}

/// The samples that span the start of the ledger's own counting.
#[derive(Clone, Copy, Debug, Default)]
struct OverBegin {
    samples: u64,
    /// Bytes in and out: of totals, and of single classes, which the totals contain as well.
    totals: [i64; 2],
    classes: [i64; 2],
}

impl Staging {
    pub fn new() -> Result<Self, LedgerError> {
        // An empty name makes SQLite use a private temporary file.
        let conn = Connection::open("")?;
        conn.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE staged (start INTEGER, owner INTEGER, value INTEGER, class INTEGER,
                 new_samples INTEGER, new_sum INTEGER, known_samples INTEGER, known_sum INTEGER,
                 split INTEGER) STRICT;
             BEGIN",
        )?;
        Ok(Self {
            conn,
            owners: Vec::new(),
            missing: HashMap::new(),
            ranges: Vec::new(),
            interval: 0,
            sums: 0,
            end: None,
            over_begin: OverBegin::default(),
        })
    }

    /// Adds a counter. The counters of one owner come one after the other.
    pub fn add(&mut self, key: &CounterKey, digest: &Digest) -> Result<(), LedgerError> {
        if self.owners.last() != Some(&key.owner) {
            self.owners.push(key.owner.clone());
        }
        let owner = self.owners.len() - 1;
        let mut insert =
            self.conn.prepare_cached("INSERT INTO staged VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
        for bucket in &digest.buckets {
            insert.execute(params![
                bucket.start,
                u32::try_from(owner).unwrap_or(u32::MAX),
                key.value,
                key.class,
                bucket.new_samples.0.cast_signed(),
                bucket.new_samples.1,
                bucket.known.0.cast_signed(),
                bucket.known.1,
                bucket.split,
            ])?;
        }
        self.sums += digest.buckets.len() as u64;
        let missing = self.missing.entry((owner, usize::from(key.value))).or_default();
        *missing = ranges::union(missing, &digest.missing, 0);
        self.ranges.push((key.clone(), digest.imported.clone()));
        self.interval = self.interval.max(digest.interval);
        self.end = self.end.max(digest.end);
        if let Some(sample) = digest.over_begin {
            self.over_begin.add(key, sample);
        }
        Ok(())
    }

    /// Ends adding counters.
    pub fn finish(&self) -> Result<(), LedgerError> {
        Ok(self.conn.execute_batch("COMMIT")?)
    }

    /// The statement for [`Sums`].
    pub fn query(&self) -> Result<Statement<'_>, LedgerError> {
        Ok(self.conn.prepare(
            "SELECT start, owner, value, class, new_samples, new_sum, known_samples,
             known_sum, split FROM staged ORDER BY 1, 2, 3, 4",
        )?)
    }

    /// Whether this file contains everything that was imported of a value in `start..end`, so that both can
    /// be compared.
    pub fn is_whole(&self, owner_and_value: (usize, usize), start: i64, end: i64) -> bool {
        self.missing.get(&owner_and_value).is_none_or(|missing| !ranges::touches(missing, start, end))
    }

    /// Stores the imported ranges.
    pub fn store_ranges(&self, conn: &Connection, node: &str) -> Result<(), LedgerError> {
        for (key, ranges) in &self.ranges {
            let class = key.class.map_or(-1, i64::from);
            conn.prepare_cached(
                "DELETE FROM pva_range WHERE node = ?1 AND eid = ?2 AND class = ?3 AND value = ?4",
            )?
            .execute(params![node, key.owner, class, key.value])?;
            let mut insert = conn.prepare_cached("INSERT INTO pva_range VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
            for (first, last) in ranges {
                insert.execute(params![node, key.owner, class, key.value, first, last])?;
            }
        }
        Ok(())
    }

    /// Records the gap between PVA's last sample and the start of the ledger's own counting.
    pub fn record_switch_over(
        &self,
        conn: &Connection,
        import: &PvaImport,
        begin: Option<i64>,
    ) -> Result<(), LedgerError> {
        let end = ids::meta(conn, "pva_end")?.max(self.end);
        let (Some(begin), Some(end)) = (begin, end) else { return Ok(()) };
        ids::set_meta(conn, "pva_end", end)?;
        let once = "pva-switch-over";
        let OverBegin { samples, totals, classes } = self.over_begin;
        // A file that ends earlier than the recorded gap knows nothing new about it.
        let recorded = "SELECT count(*) FROM gap WHERE once = ?1 AND start = ?2 AND end = ?3";
        if samples == 0
            && conn.query_row(recorded, params![once, end, begin], |row| row.get::<_, i64>(0))? > 0
        {
            return Ok(());
        }
        conn.execute("DELETE FROM gap WHERE once = ?1", [once])?;
        if end >= begin {
            return Ok(());
        }
        let [in_bytes, out_bytes] = [0, 1].map(|at| totals[at].max(classes[at]) / ONE);
        let mut detail = "between PVA's last sample and the start of this ledger's own counting".to_owned();
        if samples > 0 {
            detail += &format!(
                "; {samples} samples of PVA span that start and were skipped: in {in_bytes} bytes, out \
                 {out_bytes} bytes, of which the ledger counted a part"
            );
        }
        let (start, end) = (Timestamp::from_second(end)?, Timestamp::from_second(begin)?);
        let gap = Gap::of_node(GapReason::BeforeAttach, start, end).with_detail(detail);
        gaps::insert(conn, import.now, &gap, GapLinks { container: None, once: Some(once) })?;
        Ok(())
    }
}

impl OverBegin {
    fn add(&mut self, key: &CounterKey, sample: Sample) {
        self.samples += 1;
        let sums = if key.class.is_none() { &mut self.totals } else { &mut self.classes };
        match key.value {
            1 => sums[0] = sums[0].saturating_add(sample.amount),
            3 => sums[1] = sums[1].saturating_add(sample.amount),
            _ => {}
        }
    }
}

/// Counts the samples of a counter that are skipped.
pub fn count_skips(digest: &Digest, key: &CounterKey, closed: &[(i64, i64, String)], skips: &mut Skips) {
    let example = |sample: Option<Sample>| sample.map_or_else(String::new, |sample| describe(key, sample));
    let (count, first) = digest.duplicates;
    skips.note_many(SkipReason::DuplicateSample, None, count, || example(first));
    let (count, first) = digest.after_until;
    skips.note_many(SkipReason::AfterUntil, None, count, || example(first));
    if let Some(sample) = digest.over_begin {
        skips.note(SkipReason::OverBegin, || example(Some(sample)));
    }
    for (&period, &(count, first)) in &digest.closed {
        let name = closed.get(period).map(|period| period.2.as_str());
        skips.note_many(SkipReason::ClosedPeriod, name, count, || example(Some(first)));
    }
}

fn describe(key: &CounterKey, sample: Sample) -> String {
    let start = Timestamp::from_second(sample.start)
        .map_or_else(|_| sample.start.to_string(), |start| start.to_string());
    format!("{key} at {start}: {}", sample.amount / ONE)
}
