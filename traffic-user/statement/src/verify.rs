//! From a statement back to its figures, with all checks.

use crate::{
    canonical,
    checkpoint::Checkpoint,
    document::{Document, FORMAT, Proven, Record},
    error::StatementError,
    issue::sums_of,
    keys::{KeyHistory, Revoked, is_time},
    log::{Entry, Kind, tlog_proof},
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
    /// Number of entries in the log that was signed.
    pub log_size: u64,
    /// The keys that signed before, as the log has them.
    pub keys: KeyHistory,
    /// The state of the log that was signed, with its cosignatures.
    pub checkpoint: Checkpoint,
    /// The proof that the closed month is in the log, for other tools (C2SP tlog-proof).
    pub tlog_proof: String,
}

/// Checks a statement: its signature, by this key if one is given, or one that followed it in the log; that the log of its
/// checkpoint has its records; and that its sums are theirs.
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
    // A key from elsewhere says at once whether anything follows from the rest.
    let other_key = |expected: &PublicKey| StatementError::OtherKey {
        found: named.to_string(),
        expected: expected.to_string(),
    };
    if let Some(expected) = expected.filter(|expected| **expected != named && document.keys.is_empty()) {
        return Err(other_key(expected));
    }
    let text = named.open(note)?;
    if text.strip_suffix('\n') != Some(line) || text != canonical::text(&document)? + "\n" {
        return Err(StatementError::form("its document has another text than the canonical one"));
    }
    let checkpoint = Checkpoint::open(&document.checkpoint, &[&named])?;
    check(&document, &checkpoint)?;
    let keys = key_history(&document, &checkpoint, &named)?;
    if let Some(expected) = expected.filter(|expected| **expected != named) {
        if let Some(revoked) = keys.revocation(expected) {
            return Err(revoked.refusal(format!(
                "; take the key that the issuer publishes now: this is signed by {named}"
            )));
        }
        if !keys.former_keys().any(|former| former == expected) {
            return Err(other_key(expected));
        }
    }
    let Proven { entry, proof, .. } = &document.figures;
    let tlog_proof = tlog_proof(entry, proof, &document.checkpoint)?;
    let log_size = checkpoint.size;
    Ok(Verified { key: named, log_size, keys, checkpoint, tlog_proof, document })
}

/// The keys of the log, of which the last one is the issuer.
fn key_history(
    document: &Document,
    checkpoint: &Checkpoint,
    issuer: &PublicKey,
) -> Result<KeyHistory, StatementError> {
    let not = |what: &str| Err(StatementError::Contradiction(what.to_owned()));
    let (mut history, mut last) = (KeyHistory::default(), 0);
    for Proven { record, entry, proof } in &document.keys {
        let Record::Key { note } = record else { return not("a record is of another kind than its place") };
        if entry.entry <= last {
            return not("the changes of its key are not in the order of the log");
        }
        last = entry.entry;
        checkpoint.check(record, entry, proof)?;
        history.take(note, last)?;
    }
    match history.current() {
        Some(current) if current != issuer => {
            not("the changes of its key do not lead to the key that signed it")
        }
        None if !document.keys.is_empty() => {
            not("the changes of its key do not lead to the key that signed it")
        }
        _ => Ok(history),
    }
}

impl Verified {
    /// Checks that a later statement of the same issuer continues the log of this one, and that no key was revoked that
    /// signed this one. Returns the revocation of its key if this statement says that it was made before that: whoever
    /// has the key could write that as well.
    ///
    /// # Errors
    /// When it is not so.
    pub fn check_with(&self, later: &Self) -> Result<Option<Revoked>, StatementError> {
        let two = |what: String| Err(StatementError::TwoHistories(what));
        if later.log_size < self.log_size {
            return Err(StatementError::Contradiction(format!(
                "the log of the statement to compare with has {} entries, and this one has {} already; give the later one \
                 with --with",
                later.log_size, self.log_size
            )));
        }
        let place = later.keys.former().iter().position(|former| former.key == self.key);
        if place.is_none() && later.key != self.key {
            let (found, expected) = (self.key.to_string(), later.key.to_string());
            return Err(StatementError::OtherKey { found, expected });
        }
        let (before, after) = later.keys.former().split_at(place.unwrap_or(later.keys.former().len()));
        if self.keys.former() != before {
            return two("the keys before this one are others in each".to_owned());
        }
        if later.log_size == self.log_size && later.checkpoint.root != self.checkpoint.root {
            return two(format!("the log of {} entries has another root in each", self.log_size));
        }
        for entry in self.entries() {
            if later.entries().any(|other| other.entry == entry.entry && other != entry) {
                return two(format!("entry {} is another one in each", entry.entry));
            }
        }
        let Some(former) = after.first() else { return Ok(None) };
        if self.log_size >= former.replaced {
            return two(format!(
                "this one has {} entries, and entry {} replaced its key",
                self.log_size, former.replaced
            ));
        }
        match later.keys.revocation(&self.key) {
            Some(revoked) if !is_time(&self.document.made) || self.document.made >= revoked.from => {
                Err(revoked.refusal(format!(", and this was made {}", self.document.made)))
            }
            revoked => Ok(revoked.cloned()),
        }
    }

    /// The entries of the log that it shows.
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let document = &self.document;
        let all = std::iter::once(&document.figures).chain(&document.corrections).chain(&document.keys);
        all.map(|proven| &proven.entry)
    }
}

impl Revoked {
    fn refusal(&self, then: String) -> StatementError {
        StatementError::Revoked {
            key: self.key.to_string(),
            from: self.from.clone(),
            reason: self.reason.clone(),
            then,
        }
    }
}

fn check(document: &Document, checkpoint: &Checkpoint) -> Result<(), StatementError> {
    let not = |what: &str| Err(StatementError::Contradiction(what.to_owned()));
    let period = Some(document.period.name.as_str());
    let (_, number) = document.figures.record.subject();
    let all = [(&document.figures, Kind::Period)].into_iter();
    let all = all.chain(document.corrections.iter().map(|one| (one, Kind::Correction)));
    let mut last = 0;
    for (Proven { record, entry, proof }, kind) in all {
        if record.kind() != kind || entry.kind != kind {
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
