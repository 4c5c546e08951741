//! States of the log that its key has signed (C2SP tlog-checkpoint), with cosignatures, and proofs that one continues
//! another, in the form in which witnesses take them (C2SP tlog-witness).

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    cosignature::{Cosignature, WitnessKey},
    error::StatementError,
    merkle::{self, Hash},
    note::{self, PublicKey},
};

/// A state of the log that a key has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of entries.
    pub size: u64,
    /// The key that signed it.
    pub key: PublicKey,
    /// By whom and when it was cosigned. Nothing of these was checked.
    pub cosignatures: Vec<Cosignature>,
    pub(crate) root: Hash,
    text: String,
}

impl Checkpoint {
    /// Reads one that one of these keys has signed. After its signature, only cosignatures may follow, one of each
    /// witness.
    ///
    /// # Errors
    /// When it is none, or another key signed it.
    pub fn open(note: &str, keys: &[&PublicKey]) -> Result<Self, StatementError> {
        let wrong = || StatementError::form("the checkpoint is none");
        let (text, key, others) = note::open_first(note, keys)?;
        let mut lines = text.lines();
        if lines.next() != Some(key.name()) {
            return Err(wrong());
        }
        let size = lines.next().and_then(|size| Some((size, size.parse::<u64>().ok()?)));
        let size = size.filter(|(text, size)| size.to_string() == *text).map(|(_, size)| size);
        let root = lines.next().and_then(hash_of_base64);
        let (Some(size), Some(root), None) = (size, root, lines.next()) else { return Err(wrong()) };
        let mut cosignatures: Vec<Cosignature> = Vec::new();
        for line in others {
            let cosignature = Cosignature::parse(line)?;
            if cosignatures.iter().any(|other| other.has_witness_of(&cosignature)) {
                return Err(StatementError::form("a witness has cosigned its checkpoint twice"));
            }
            cosignatures.push(cosignature);
        }
        Ok(Self { size, key: key.clone(), cosignatures, root, text: text.to_owned() })
    }

    /// When a witness saw it, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// When it did not, or its cosignature is not that of its key.
    pub fn seen_by(&self, witness: &WitnessKey) -> Result<u64, StatementError> {
        let of_name: Vec<&Cosignature> =
            self.cosignatures.iter().filter(|cosignature| cosignature.name == witness.name()).collect();
        if of_name.is_empty() {
            return Err(StatementError::Witness(format!("{witness} has not cosigned it")));
        }
        let valid = of_name.iter().find(|cosignature| cosignature.is_by(witness, &self.text));
        valid.map(|cosignature| cosignature.time).ok_or_else(|| {
            StatementError::Witness(format!(
                "a cosignature of {} is not that of the key {witness}",
                witness.name()
            ))
        })
    }

    /// Whether one of its cosignatures is by a key.
    pub fn is_seen_by(&self, cosignature: &Cosignature, witness: &WitnessKey) -> bool {
        cosignature.is_by(witness, &self.text)
    }

    /// Adds cosignatures of these witnesses, from a cosigned checkpoint with the same text or from lines alone. A later
    /// one of the same witness takes the place of the earlier one. Lines of other keys are skipped.
    ///
    /// # Errors
    /// When no line is a cosignature by one of them.
    pub fn cosign(&mut self, lines: &[&str], witnesses: &[WitnessKey]) -> Result<(), StatementError> {
        let mut is_any_taken = false;
        for line in lines {
            // A witness may have other keys, and other kinds of them, than those that are known here.
            let Ok(cosignature) = Cosignature::parse(line) else { continue };
            if !witnesses.iter().any(|witness| cosignature.is_by(witness, &self.text)) {
                continue;
            }
            is_any_taken = true;
            match self.cosignatures.iter_mut().find(|other| other.has_witness_of(&cosignature)) {
                Some(same) if same.time >= cosignature.time => {}
                Some(same) => *same = cosignature,
                None => self.cosignatures.push(cosignature),
            }
        }
        if is_any_taken {
            return Ok(());
        }
        Err(StatementError::Witness(
            "no line is a cosignature of this checkpoint by a key that was given; lines of an earlier checkpoint are \
             taken together with it"
                .to_owned(),
        ))
    }

    /// Whether two checkpoints are of the same text, whoever has cosigned them.
    pub fn has_text_of(&self, other: &Self) -> bool {
        self.text == other.text
    }

    /// The note with all cosignatures, from the note of the key alone.
    pub fn with_cosignatures(&self, note: &str) -> String {
        self.cosignatures.iter().fold(note.to_owned(), |note, cosignature| note + &cosignature.line() + "\n")
    }
}

fn hash_of_base64(text: &str) -> Option<Hash> {
    let hash: Hash = STANDARD.decode(text).ok()?.try_into().ok()?;
    (STANDARD.encode(hash) == text).then_some(hash)
}

/// A later checkpoint, with the proof that its log continues that of an earlier one (RFC 9162, section 2.1.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    old: u64,
    path: Vec<Hash>,
    /// The later checkpoint, as a note.
    pub checkpoint: String,
}

impl Update {
    pub(crate) const fn new(old: u64, path: Vec<Hash>, checkpoint: String) -> Self {
        Self { old, path, checkpoint }
    }

    /// Its text, which is what witnesses are sent (C2SP tlog-witness, add-checkpoint).
    pub fn text(&self) -> String {
        let mut text = format!("old {}\n", self.old);
        for hash in &self.path {
            text += &STANDARD.encode(hash);
            text.push('\n');
        }
        text + "\n" + &self.checkpoint
    }

    /// Reads its text; `None` if it does not begin like one.
    ///
    /// # Errors
    /// When it begins like one and is none.
    pub fn parse(text: &str) -> Result<Option<Self>, StatementError> {
        let Some(rest) = text.strip_prefix("old ") else { return Ok(None) };
        let wrong = || StatementError::form("its proof of consistency is none");
        let (proof, checkpoint) = rest.split_once("\n\n").ok_or_else(wrong)?;
        let mut lines = proof.split('\n');
        let old =
            lines.next().and_then(|size| size.parse::<u64>().ok().filter(|old| old.to_string() == size));
        let path: Option<Vec<Hash>> = lines.map(hash_of_base64).collect();
        let (Some(old), Some(path)) = (old, path) else { return Err(wrong()) };
        Ok(Some(Self { old, path, checkpoint: checkpoint.to_owned() }))
    }

    /// Checks that the log of the later checkpoint begins with that of the earlier one.
    ///
    /// # Errors
    /// When it is not proved.
    pub fn check(&self, old: &Checkpoint, new: &Checkpoint) -> Result<(), StatementError> {
        if self.old != old.size {
            return Err(StatementError::Contradiction(format!(
                "the proof continues a log of {} entries, and the earlier one has {}; ask for one with \
                 `trafctl statement checkpoint --since {}`",
                self.old, old.size, old.size
            )));
        }
        if old.key.name() != new.key.name() {
            let (old, new) = (old.key.name(), new.key.name());
            return Err(StatementError::Contradiction(format!(
                "one is of the log {old}, and the other of {new}"
            )));
        }
        if merkle::is_consistent((old.size, &old.root), (new.size, &new.root), &self.path) {
            return Ok(());
        }
        Err(StatementError::TwoHistories(format!(
            "the log of {} entries is not the beginning of that of {}, or the proof is not that of these two",
            old.size, new.size
        )))
    }
}
