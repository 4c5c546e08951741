//! Changes of the key of statements: its rotation and the revocation of an earlier one, as entries of the ledger's chain.
//!
//! A rotation has three steps: the new key is written beside the present one, the entry is appended, and the new file takes
//! the place of the present one. After an interruption, the same command goes on from where it was: the new key that is
//! there is used, and an entry that is there is not appended again.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use traffic_ledger::{Frozen, Ledger};
use traffic_statement::{KeyHistory, PublicKey, revocation, rotation};

use super::{Keys, from_ledger::seconds};

/// What the name of the file with the next key ends with, until it takes the place of the present one.
const NEXT: &str = ".next";

/// The keys of a ledger's log, and the number of its entries.
fn history(ledger: &Ledger) -> anyhow::Result<(KeyHistory, u64)> {
    let (mut history, mut entries) = (KeyHistory::default(), 0);
    ledger.frozen_entries(|entry| -> anyhow::Result<()> {
        entries += 1;
        if let Frozen::KeyChange(note) = entry.content {
            history.take(&note, entries)?;
        }
        Ok(())
    })?;
    Ok((history, entries))
}

/// Checks that a key is the one that signs by now.
///
/// # Errors
/// When another one does, or the ledger cannot be read.
pub fn check_signer(ledger: &Ledger, keys: &Keys) -> anyhow::Result<()> {
    Ok(history(ledger)?.0.check_signer(keys.key.public())?)
}

fn next_path(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(NEXT);
    name.into()
}

/// The next key, if an interrupted rotation has left one.
fn next(path: &Path) -> anyhow::Result<Option<Keys>> {
    let path = next_path(path);
    if fs::symlink_metadata(&path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    Keys::read(&path).map(Some)
}

/// Where a rotation is.
struct Rotating {
    present: Keys,
    next: Option<Keys>,
    entries: u64,
    /// Whether the log has the entry.
    is_entered: bool,
}

fn rotating(ledger: &Ledger, path: &Path) -> anyhow::Result<Rotating> {
    let (present, next) = (Keys::read(path)?, next(path)?);
    let (history, entries) = history(ledger)?;
    let is_entered = next.as_ref().is_some_and(|next| history.current() == Some(next.key.public()));
    if !is_entered {
        history.check_signer(present.key.public())?;
    }
    Ok(Rotating { present, next, entries, is_entered })
}

/// What a rotation would do.
///
/// # Errors
/// When there is no key, another one signs by now, or the ledger cannot be read.
pub fn preview_rotation(ledger: &Ledger, path: &Path) -> anyhow::Result<String> {
    let Rotating { present, entries, is_entered, .. } = rotating(ledger, path)?;
    let key = present.key.public();
    Ok(match is_entered {
        true => format!("an interrupted rotation would be completed: {key} is replaced by now"),
        false => format!(
            "would replace {key} by a new key, as entry {} of the log: from then on, only the new one signs",
            entries + 1
        ),
    })
}

/// Replaces the key by a new one of the same name, and appends that to the chain. Returns the new key.
///
/// # Errors
/// When another key signs by now, or a file or the ledger cannot be read or written.
pub fn rotate(ledger: &mut Ledger, path: &Path, made: Timestamp) -> anyhow::Result<PublicKey> {
    let Rotating { present, next, entries, is_entered } = rotating(ledger, path)?;
    let next = match next {
        Some(next) => next,
        None => {
            let next = present.successor()?;
            next.replace(&next_path(path))?;
            next
        }
    };
    if !is_entered {
        let note = rotation(&present.key, &next.key, &seconds(made))?;
        ledger.append_key_change(&note, made, entries)?;
    }
    let done = fs::rename(next_path(path), path).and_then(|()| super::key_file::sync_directory(path));
    done.with_context(|| {
        format!("cannot replace {}; run `trafctl statement key --rotate --yes` again", path.display())
    })?;
    Ok(next.key.public().clone())
}

/// The note of a revocation, the number of entries before it, and what it does as text.
fn revoking(
    ledger: &Ledger,
    path: &Path,
    key: &PublicKey,
    (from, made): (Timestamp, Timestamp),
    reason: &str,
) -> anyhow::Result<(String, u64, String)> {
    let keys = Keys::read(path)?;
    let (mut history, entries) = history(ledger)?;
    history.check_signer(keys.key.public())?;
    if keys.key.public() == key {
        bail!("{key} is the key that signs; replace it first: `trafctl statement key --rotate --yes`");
    }
    if !history.former_keys().any(|former| former == key) {
        bail!("{key} is no earlier key of this log, so nothing is revoked");
    }
    if let Some(revoked) = history.revocation(key) {
        bail!("{key} was revoked already, from {} on: {}", revoked.from, revoked.reason);
    }
    if from > made {
        bail!("cannot revoke a key from {} on, which is still to come", seconds(from));
    }
    let (from, made) = (seconds(from), seconds(made));
    let note = revocation(&keys.key, key, (&from, &made), reason.trim())?;
    // As whoever checks a statement will.
    history.take(&note, entries + 1)?;
    let text = format!(
        "statements of {key} that say they were made from {from} on are refused by whoever has a statement from now on: {}\n",
        reason.trim()
    );
    Ok((note, entries, text))
}

/// What a revocation would do.
///
/// # Errors
/// When the key is not an earlier one, was revoked already, or a file cannot be read.
pub fn preview_revocation(
    ledger: &Ledger,
    path: &Path,
    key: &PublicKey,
    times: (Timestamp, Timestamp),
    reason: &str,
) -> anyhow::Result<String> {
    revoking(ledger, path, key, times, reason).map(|(.., text)| text)
}

/// Revokes an earlier key, for statements that say that they were made from a time on. Returns what it did as text.
///
/// # Errors
/// As [`preview_revocation`], and when the ledger cannot be written.
pub fn revoke(
    ledger: &mut Ledger,
    path: &Path,
    key: &PublicKey,
    times: (Timestamp, Timestamp),
    reason: &str,
) -> anyhow::Result<String> {
    let (note, entries, text) = revoking(ledger, path, key, times, reason)?;
    let entry = ledger.append_key_change(&note, times.1, entries)?;
    Ok(format!("{text}written as entry {} of the chain, hash {}\n", entry.seq, entry.hash))
}
