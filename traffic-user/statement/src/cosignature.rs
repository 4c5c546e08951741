//! Cosignatures of checkpoints by witnesses, with the time at which each saw it (C2SP tlog-cosignature,
//! `cosignature/v1`). A witness signs only a log that continues the one that it signed before, so that nobody is shown
//! another history.

use std::fmt;

use ring::signature::{ED25519, UnparsedPublicKey};

use crate::{
    error::StatementError,
    note::{self, ID_BYTES, KEY_BYTES},
};

/// The type of keys and signatures, as the format of signed notes numbers them.
const TYPE: u8 = 4;
const TIME_BYTES: usize = 8;
const SIGNATURE_BYTES: usize = 64;

/// A key that checks cosignatures. Its text is `NAME+ID+KEY`, like that of a public key of statements, with another type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    key: [u8; KEY_BYTES],
}

impl WitnessKey {
    /// Parses the text of a key.
    ///
    /// # Errors
    /// When it is not one of cosignatures, or its parts contradict each other.
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let (name, key) = note::parse_key(text, TYPE)?;
        Ok(Self { name, key })
    }

    /// The name of the witness.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&note::key_text(&self.name, TYPE, &self.key))
    }
}

/// A cosignature, which only a key can check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// The name of the witness.
    pub name: String,
    /// When it saw the checkpoint, in seconds since the Unix epoch.
    pub time: u64,
    id: [u8; ID_BYTES],
    signature: [u8; SIGNATURE_BYTES],
}

impl Cosignature {
    /// Reads a line with a signature of a note.
    ///
    /// # Errors
    /// When it is none, or has not the size of a cosignature.
    pub(crate) fn parse(line: &str) -> Result<Self, StatementError> {
        let (name, bytes) = note::signature_of(line)?;
        note::check_name(name)?;
        let wrong = || StatementError::form(format!("{line:?} is no cosignature"));
        let (id, rest) = bytes.split_first_chunk::<ID_BYTES>().ok_or_else(wrong)?;
        let (time, rest) = rest.split_first_chunk::<TIME_BYTES>().ok_or_else(wrong)?;
        let signature = rest.try_into().map_err(|_| wrong())?;
        let found = Self { name: name.to_owned(), time: u64::from_be_bytes(*time), id: *id, signature };
        // A time that people can read. One value has one text, as well.
        if found.time > MOST_TIME || found.line() != line {
            return Err(wrong());
        }
        Ok(found)
    }

    /// Its line in a note.
    pub(crate) fn line(&self) -> String {
        let bytes = [&self.id[..], &self.time.to_be_bytes(), &self.signature].concat();
        note::signature_line(&self.name, &bytes)
    }

    /// Whether this is the signature of a checkpoint's text by a witness.
    pub(crate) fn is_by(&self, witness: &WitnessKey, text: &str) -> bool {
        let message = format!("cosignature/v1\ntime {}\n{text}", self.time);
        self.name == witness.name
            && self.id == note::key_id(&witness.name, TYPE, &witness.key)
            && UnparsedPublicKey::new(&ED25519, &witness.key)
                .verify(message.as_bytes(), &self.signature)
                .is_ok()
    }

    /// Whether two are of one witness.
    pub(crate) fn has_witness_of(&self, other: &Self) -> bool {
        (&self.name, self.id) == (&other.name, other.id)
    }
}

/// The end of the year 9999.
const MOST_TIME: u64 = 253_402_300_799;
