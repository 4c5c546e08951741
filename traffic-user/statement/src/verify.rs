//! From a statement back to its figures, with all checks.

use crate::{
    canonical,
    document::{Document, FORMAT, Proven, Record},
    error::StatementError,
    issue::sums_of,
    log::{Checkpoint, Kind, tlog_proof},
    note::PublicKey,
};

/// A statement of which everything was checked.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What it says.
    pub document: Document,
    /// The key that signed it. Unless it was compared with one from elsewhere, it only says that the text was not
    /// changed since.
    pub key: PublicKey,
    /// Number of closed months and corrections in the log that was signed.
    pub log_size: u64,
    /// The proof that the closed month is in the log, for other tools (C2SP tlog-proof).
    pub tlog_proof: String,
}

/// Checks a statement: its signature, by this key if one is given; that the log of its checkpoint has its records; and
/// that its sums are theirs.
///
/// # Errors
/// When any of that is not so. The error says what.
pub fn verify(note: &str, expected: Option<&PublicKey>) -> Result<Verified, StatementError> {
    let line = note.lines().next().unwrap_or_default();
    let document: Document = serde_json::from_str(line)
        .map_err(|error| StatementError::form(format!("its first line: {error}")))?;
    if document.format != FORMAT {
        return Err(StatementError::form(format!(
            "its format is {:?}, and this version of trafctl reads {FORMAT}",
            document.format
        )));
    }
    let named = PublicKey::parse(&document.issuer)?;
    if let Some(expected) = expected.filter(|expected| **expected != named) {
        return Err(StatementError::OtherKey { found: document.issuer, expected: expected.to_string() });
    }
    let text = named.open(note)?;
    if text.strip_suffix('\n') != Some(line) || text != canonical::text(&document)? + "\n" {
        return Err(StatementError::form("its document has another text than the canonical one"));
    }
    let checkpoint = Checkpoint::open(&document.checkpoint, &named)?;
    check(&document, &checkpoint)?;
    let Proven { entry, proof, .. } = &document.figures;
    let tlog_proof = tlog_proof(entry, proof, &document.checkpoint)?;
    Ok(Verified { key: named, log_size: checkpoint.size, tlog_proof, document })
}

fn check(document: &Document, checkpoint: &Checkpoint) -> Result<(), StatementError> {
    let not = |what: &str| Err(StatementError::Contradiction(what.to_owned()));
    let period = document.period.name.as_str();
    let (_, number) = document.figures.record.subject();
    let all = [(&document.figures, Kind::Period)].into_iter();
    let all = all.chain(document.corrections.iter().map(|one| (one, Kind::Correction)));
    let mut last = 0;
    for (Proven { record, entry, proof }, kind) in all {
        let is_of_kind = match record {
            Record::Figures { .. } => kind == Kind::Period,
            Record::Correction { .. } => kind == Kind::Correction,
        };
        if !is_of_kind || entry.kind != kind {
            return not("a record is of another kind than its place");
        }
        if record.subject() != (period, number) {
            return not("a record is of another month or container");
        }
        // Corrections come after the month, and each once.
        if entry.entry <= last {
            return not("its records are not in the order of the log");
        }
        last = entry.entry;
        checkpoint.check(record, entry, proof)?;
    }
    let sums = sums_of(&document.figures.record, document.corrections());
    let stated: Vec<_> = document.sums.iter().map(|sum| (sum.class, sum.counts)).collect();
    if stated != sums.into_iter().collect::<Vec<_>>() {
        return not("its sums are not those of its rows and corrections");
    }
    Ok(())
}
