//! The log: a leaf for each closed month, each correction and each change of the key, in the order of the ledger's chain.
//!
//! A leaf covers the chain's hash, and the root of a tree of records: one for each container of the month, with a salt
//! in front of each, in the order of their hashes. So a proof shows of the other containers how many there are, and
//! nothing else. The salts follow from a secret, so the log is the same whenever it is built.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;
use serde::{Deserialize, Serialize};
use traffic_model::hex;

use crate::{
    canonical,
    checkpoint::{Checkpoint, Update},
    document::Record,
    error::StatementError,
    merkle::{self, Hash},
    note::{self, SecretKey},
};

/// What the text of the secret begins with.
const SALTS: &str = "SALTS+";
/// The first line of a proof (C2SP tlog-proof).
const PROOF: &str = "c2sp.org/tlog-proof@v1";

/// The secret from which salts follow. It must stay the same as long as the log.
pub struct Salts([u8; 32]);

impl std::fmt::Debug for Salts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salts")
    }
}

impl Salts {
    /// A new secret.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn generate() -> Result<Self, StatementError> {
        Ok(Self(note::random()?))
    }

    #[cfg(test)]
    pub(crate) const fn of(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// Parses its text.
    ///
    /// # Errors
    /// When it is not one. No error shows any of it.
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let bytes = text.trim().strip_prefix(SALTS).and_then(|text| STANDARD.decode(text).ok());
        let secret = bytes.and_then(|bytes| bytes.try_into().ok());
        secret.map(Self).ok_or_else(|| StatementError::Key("this is no secret for salts".to_owned()))
    }

    /// The text with the secret.
    pub fn secret_text(&self) -> String {
        format!("{SALTS}{}", STANDARD.encode(self.0))
    }

    /// The salt of a container's record under an entry.
    fn salt(&self, chain: &str, number: i64) -> Hash {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let tag = hmac::sign(&key, format!("trafctl-statement/1\n{chain}\n{number}\n").as_bytes());
        let mut salt = [0; 32];
        salt.copy_from_slice(tag.as_ref());
        salt
    }
}

/// What an entry of the chain is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A closed month.
    Period,
    /// A correction.
    Correction,
    /// A change of the key that signs.
    Key,
}

/// What a leaf of the log covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Number in the ledger's chain, from 1.
    pub(crate) entry: u64,
    pub(crate) kind: Kind,
    /// The month; absent for a change of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) period: Option<String>,
    /// The chain's hash up to here.
    pub(crate) chain: String,
    /// Number of records.
    pub(crate) records: u64,
    /// Root of the tree of the records, in hexadecimal.
    pub(crate) root: String,
}

/// That a record is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof {
    /// The record's salt, in hexadecimal.
    pub salt: String,
    /// Place of the record in its tree.
    pub index: u64,
    /// The hashes beside its way to the entry's root, in hexadecimal.
    pub path: Vec<String>,
    /// The hashes beside the entry's way to the log's root.
    pub log: Vec<String>,
}

/// The log of a ledger.
#[derive(Debug)]
pub struct Log {
    salts: Salts,
    leaves: Vec<Hash>,
}

/// Where a record is in the log.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub entry: Entry,
    salt: Hash,
    index: usize,
    path: Vec<Hash>,
}

impl Log {
    /// An empty log.
    pub const fn new(salts: Salts) -> Self {
        Self { salts, leaves: Vec::new() }
    }

    /// Appends the next entry of the chain with its records. Returns the places of those of a container.
    ///
    /// # Errors
    /// When the entry has no records, or an amount cannot be written.
    pub(crate) fn append(
        &mut self,
        (kind, period, chain): (Kind, Option<&str>, &str),
        records: &[Record],
        wanted: i64,
    ) -> Result<Option<Place>, StatementError> {
        let mut hashes = Vec::with_capacity(records.len());
        for record in records {
            let number = record.subject().1;
            let salt = self.salts.salt(chain, number);
            hashes.push((record_hash(record, &salt)?, number, salt));
        }
        hashes.sort_unstable();
        let tree: Vec<Hash> = hashes.iter().map(|(hash, ..)| *hash).collect();
        let entry = Entry {
            entry: self.leaves.len() as u64 + 1,
            kind,
            period: period.map(str::to_owned),
            chain: chain.to_owned(),
            records: tree.len() as u64,
            root: hex(&merkle::root(&tree)),
        };
        self.leaves.push(entry.leaf()?);
        let found = hashes.iter().enumerate().find(|(_, (_, number, _))| *number == wanted);
        Ok(found.map(|(index, (_, _, salt))| Place {
            entry,
            salt: *salt,
            index,
            path: merkle::path(&tree, index),
        }))
    }

    /// The proof of a place, in the log as it is now.
    pub(crate) fn proof(&self, place: &Place) -> Proof {
        let of_entry = usize::try_from(place.entry.entry - 1).unwrap_or(usize::MAX);
        let texts = |path: &[Hash]| path.iter().map(|hash| hex(hash)).collect();
        Proof {
            salt: hex(&place.salt),
            index: place.index as u64,
            path: texts(&place.path),
            log: texts(&merkle::path(&self.leaves, of_entry)),
        }
    }

    /// The state of the log, as a note of this key (C2SP tlog-checkpoint).
    pub fn checkpoint(&self, key: &SecretKey) -> String {
        let root = STANDARD.encode(merkle::root(&self.leaves));
        key.sign(&format!("{}\n{}\n{root}\n", key.public().name(), self.leaves.len()))
    }

    /// Appends the next entry of the chain with all its records.
    ///
    /// # Errors
    /// When an amount cannot be written.
    pub fn push(
        &mut self,
        entry: (Kind, Option<&str>, &str),
        records: &[Record],
    ) -> Result<(), StatementError> {
        self.append(entry, records, -1).map(drop)
    }

    /// The state of the log with the proof that it continues its first `old` entries.
    ///
    /// # Errors
    /// When it has fewer.
    pub fn update(&self, key: &SecretKey, old: u64) -> Result<Update, StatementError> {
        let size = usize::try_from(old).ok().filter(|old| *old <= self.leaves.len()).ok_or_else(|| {
            StatementError::Facts(format!("the log has {} entries, and not {old} or more", self.leaves.len()))
        })?;
        Ok(Update::new(old, merkle::consistency(&self.leaves, size), self.checkpoint(key)))
    }

    /// Whether a checkpoint is an earlier state of this log, or the present one.
    pub fn begins_with(&self, checkpoint: &Checkpoint) -> bool {
        let size = usize::try_from(checkpoint.size).unwrap_or(usize::MAX);
        self.leaves.get(..size).is_some_and(|leaves| merkle::root(leaves) == checkpoint.root)
    }

    /// Goes back to a checkpoint of this log, which is the whole log afterwards. Returns whether it is one.
    pub(crate) fn go_back(&mut self, checkpoint: &Checkpoint) -> bool {
        let is_of_log = self.begins_with(checkpoint);
        if is_of_log {
            self.leaves.truncate(usize::try_from(checkpoint.size).unwrap_or(usize::MAX));
        }
        is_of_log
    }
}

fn record_hash(record: &Record, salt: &Hash) -> Result<Hash, StatementError> {
    Ok(merkle::leaf(&[salt, canonical::text(record)?.as_bytes()]))
}

impl Entry {
    fn leaf(&self) -> Result<Hash, StatementError> {
        Ok(merkle::leaf(&[canonical::text(self)?.as_bytes()]))
    }
}

impl Checkpoint {
    /// Checks that a record is under an entry, and the entry in the log.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn check(&self, record: &Record, entry: &Entry, proof: &Proof) -> Result<(), StatementError> {
        let not = |what: String| Err(StatementError::Contradiction(what));
        let (period, number) = record.subject();
        if period != entry.period.as_deref() || record.kind() != entry.kind {
            return not("a record is of another month or kind than its entry".to_owned());
        }
        let leaf = record_hash(record, &hash_of(&proof.salt)?)?;
        let root = merkle::root_of_path(&leaf, proof.index, entry.records, &hashes_of(&proof.path)?);
        if root != Some(hash_of(&entry.root)?) {
            return not(format!("the record of {number} is not in entry {} of the log", entry.entry));
        }
        let index = entry.entry.checked_sub(1).unwrap_or(u64::MAX);
        let root = merkle::root_of_path(&entry.leaf()?, index, self.size, &hashes_of(&proof.log)?);
        if root != Some(self.root) {
            return not(format!("entry {} is not in the log that was signed", entry.entry));
        }
        Ok(())
    }
}

fn hash_of(text: &str) -> Result<Hash, StatementError> {
    let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(digit).collect();
    let hash: Option<Hash> = bytes.and_then(|bytes| bytes.try_into().ok());
    hash.filter(|hash| hex(hash) == text).ok_or_else(|| StatementError::form(format!("{text:?} is no hash")))
}

fn hashes_of(texts: &[String]) -> Result<Vec<Hash>, StatementError> {
    texts.iter().map(|text| hash_of(text)).collect()
}

/// The proof that an entry is in the log, in the format that others read (C2SP tlog-proof).
pub(crate) fn tlog_proof(entry: &Entry, proof: &Proof, checkpoint: &str) -> Result<String, StatementError> {
    let mut text = format!("{PROOF}\nindex {}\n", entry.entry.saturating_sub(1));
    for hash in hashes_of(&proof.log)? {
        text += &STANDARD.encode(hash);
        text.push('\n');
    }
    Ok(text + "\n" + checkpoint)
}
