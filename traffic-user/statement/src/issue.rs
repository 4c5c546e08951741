//! From figures to a statement.

use std::collections::BTreeMap;

use crate::{
    canonical,
    checkpoint::Checkpoint,
    document::{
        Calibration, ClassTable, Day, Document, Dropped, FORMAT, FaultRow, GapLine, Period, Proven, Record,
        SignedCounts, Sum,
    },
    error::StatementError,
    keys::KeyHistory,
    log::{Kind, Log, Place},
    note::SecretKey,
};

/// What a statement is about, besides what the chain has.
#[derive(Debug)]
pub struct Facts {
    /// The version of trafctl.
    pub trafctl: String,
    /// When it is made.
    pub made: String,
    /// The month.
    pub period: Period,
    /// The container's number in the ledger.
    pub number: i64,
    /// The container's id now, where it is another one.
    pub container_now: Option<String>,
    /// Names of classes.
    pub class_names: BTreeMap<u8, String>,
    /// What is missing.
    pub gaps: Vec<GapLine>,
    /// What was counted on each day with traffic, in billed classes.
    pub days: Vec<Day>,
    /// What was dropped; `None` where drops were never recorded.
    pub dropped: Option<Dropped>,
    /// What is in no class, by reason.
    pub faults: Vec<FaultRow>,
    /// The latest calibration; `None` if there was none.
    pub calibration: Option<Calibration>,
    /// The class tables of its rows.
    pub class_tables: Vec<ClassTable>,
}

/// Collects the entries of a chain in their order, and makes the statement of one container and month.
#[derive(Debug)]
pub struct Issuing {
    log: Log,
    facts: Facts,
    figures: Option<(Record, Place)>,
    corrections: Vec<(Record, Place)>,
    keys: Vec<(Record, Place)>,
}

/// Begins a statement. `log` is empty.
pub const fn issue(log: Log, facts: Facts) -> Issuing {
    Issuing { log, facts, figures: None, corrections: Vec::new(), keys: Vec::new() }
}

impl Issuing {
    /// Takes the next entry of the chain: its kind, month and hash, and all its records.
    ///
    /// # Errors
    /// When an amount cannot be written.
    pub fn entry(
        &mut self,
        entry: (Kind, Option<&str>, &str),
        records: &[Record],
    ) -> Result<(), StatementError> {
        let (kind, period, _) = entry;
        // A change of the key concerns everybody.
        let wanted = match kind {
            Kind::Key => (None, 0),
            Kind::Period | Kind::Correction => (Some(self.facts.period.name.as_str()), self.facts.number),
        };
        let Some(place) = self.log.append(entry, records, wanted.1)? else { return Ok(()) };
        let own = records.iter().find(|record| record.subject() == wanted);
        if let Some(own) = own.filter(|_| period == wanted.0) {
            match kind {
                Kind::Period => self.figures = Some((own.clone(), place)),
                Kind::Correction => self.corrections.push((own.clone(), place)),
                Kind::Key => self.keys.push((own.clone(), place)),
            }
        }
        Ok(())
    }

    /// The statement, signed: a note whose text is one line of JSON. `cosigned` is a checkpoint with cosignatures, which is
    /// taken where it is one of this log and covers everything that is stated.
    ///
    /// # Errors
    /// When the month has no figures of the container, or another key signs by now.
    pub fn finish(self, key: &SecretKey, cosigned: Option<&str>) -> Result<String, StatementError> {
        let Self { mut log, facts, figures, corrections, keys } = self;
        let mut history = KeyHistory::default();
        for (record, place) in &keys {
            if let Record::Key { note } = record {
                history.take(note, place.entry.entry)?;
            }
        }
        history.check_signer(key.public())?;
        let (figures, place) = figures.ok_or_else(|| {
            StatementError::Facts(format!("the container has no figures in {}", facts.period.name))
        })?;
        let places = std::iter::once(&place).chain(corrections.iter().chain(&keys).map(|(_, place)| place));
        let needed = places.map(|place| place.entry.entry).max().unwrap_or_default();
        let seen = cosigned.and_then(|note| Some((note, Checkpoint::open(note, &[key.public()]).ok()?)));
        let seen = seen.filter(|(_, seen)| seen.size >= needed && log.go_back(seen));
        let checkpoint = seen.map_or_else(|| log.checkpoint(key), |(note, _)| note.to_owned());
        let proven = |(record, place): (Record, Place)| {
            let proof = log.proof(&place);
            Proven { record, entry: place.entry, proof }
        };
        let corrections: Vec<Proven> = corrections.into_iter().map(proven).collect();
        let keys = keys.into_iter().map(proven).collect();
        let figures = proven((figures, place));
        let sums = sums_of(&figures.record, corrections.iter().map(|one| &one.record))
            .into_iter()
            .map(|(class, counts)| Sum { class, name: facts.class_names.get(&class).cloned(), counts })
            .collect();
        let document = Document {
            format: FORMAT.to_owned(),
            issuer: key.public().to_string(),
            trafctl: facts.trafctl,
            made: facts.made,
            period: facts.period,
            container_now: facts.container_now,
            sums,
            figures,
            corrections,
            keys,
            gaps: facts.gaps,
            days: facts.days,
            dropped: facts.dropped,
            faults: facts.faults,
            calibration: facts.calibration,
            class_tables: facts.class_tables,
            checkpoint,
        };
        Ok(key.sign(&(canonical::text(&document)? + "\n")))
    }
}

/// The sums by class of what was frozen, with its corrections.
pub(crate) fn sums_of<'r>(
    figures: &Record,
    corrections: impl Iterator<Item = &'r Record>,
) -> BTreeMap<u8, SignedCounts> {
    let mut sums: BTreeMap<u8, SignedCounts> = BTreeMap::new();
    let mut add = |class: u8, counts: [i128; 4]| {
        let sum = sums.entry(class).or_default();
        *sum = sum.plus(counts);
    };
    if let Record::Figures { rows, .. } = figures {
        for row in rows {
            add(row.class, row.counts.values().map(i128::from));
        }
    }
    for correction in corrections {
        if let Record::Correction { class, counts, .. } = correction {
            add(*class, counts.values());
        }
    }
    sums
}
