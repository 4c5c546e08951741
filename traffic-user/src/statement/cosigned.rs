//! The file with the last checkpoint of the log that witnesses have seen, and their cosignatures. Nothing of it is secret.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use traffic_statement::{Checkpoint, Log, PublicKey, SecretKey, WitnessKey};

use crate::state_file;

/// The name of the file in the state directory.
const NAME: &str = "statement.cosigned";
/// A checkpoint has some hundred bytes, and each cosignature as many.
const MOST_BYTES: u64 = 1 << 20;

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// Reads the file. `None` if there is none, or what is in it was signed by another key: it is of no use then.
///
/// # Errors
/// When it cannot be read.
pub fn read(state_dir: &Path, key: &PublicKey) -> anyhow::Result<Option<String>> {
    let Some(bytes) = state_file::read(&path(state_dir), MOST_BYTES)? else { return Ok(None) };
    let note = String::from_utf8(bytes).ok();
    Ok(note.filter(|note| Checkpoint::open(note, &[key]).is_ok()))
}

/// The present checkpoint of the log, with the cosignatures that it has.
///
/// # Errors
/// When the file cannot be read.
pub fn present(state_dir: &Path, log: &Log, key: &SecretKey) -> anyhow::Result<String> {
    let note = log.checkpoint(key);
    let stored = read(state_dir, key.public())?;
    // The same text has the same signature.
    Ok(stored.filter(|stored| stored.starts_with(&note)).unwrap_or(note))
}

/// Keeps the cosignatures of these witnesses: lines alone are those of the present checkpoint, lines after a checkpoint
/// those of that one. Returns the cosigned checkpoint.
///
/// # Errors
/// When no line is a cosignature by one of them, the checkpoint is none of this log, or the file cannot be written.
pub fn add(
    state_dir: &Path,
    (log, key): (&Log, &SecretKey),
    given: &str,
    witnesses: &[WitnessKey],
) -> anyhow::Result<String> {
    let (note, lines) = match given.rsplit_once("\n\n") {
        None => (log.checkpoint(key), given),
        Some((text, lines)) => {
            let (first, lines) = lines.split_once('\n').context("it has no signature of the log's key")?;
            (format!("{text}\n\n{first}\n"), lines)
        }
    };
    let mut checkpoint =
        Checkpoint::open(&note, &[key.public()]).context("it is no checkpoint of this log")?;
    if !log.begins_with(&checkpoint) {
        bail!("it is a checkpoint of another log than that of this ledger");
    }
    let lines: Vec<&str> = lines.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        bail!("it has no cosignatures");
    }
    if let Some(stored) = read(state_dir, key.public())? {
        let stored = Checkpoint::open(&stored, &[key.public()])?;
        if stored.size > checkpoint.size {
            bail!("a later checkpoint of {} entries is cosigned already", stored.size);
        }
        if stored.has_text_of(&checkpoint) {
            checkpoint = stored;
        }
    }
    checkpoint.cosign(&lines, witnesses)?;
    let cosigned = checkpoint.with_cosignatures(&note);
    state_file::replace(&path(state_dir), cosigned.as_bytes(), MOST_BYTES)?;
    Ok(cosigned)
}
