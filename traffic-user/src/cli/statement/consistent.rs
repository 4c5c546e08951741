//! `trafctl verify --consistent`: that one checkpoint continues another.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use traffic_statement::{Checkpoint, PublicKey, Update, WitnessKey, statement_in, verify};

use super::{VerifyOptions, checkpoint::checkpoint_in, public_key, read, witness_key};
use crate::{
    cli::{Done, Format, print},
    render::json,
};

/// The document of the check.
#[derive(Serialize)]
struct Checked {
    /// Always true: anything else is an error.
    valid: bool,
    old_size: u64,
    new_size: u64,
    old_key: String,
    new_key: String,
}

/// A file with a checkpoint: its text, and the keys that a statement in it proves, if it is one that passes its check by
/// one of the given keys.
fn opened(file: &Path, given: &[PublicKey]) -> anyhow::Result<(String, Vec<PublicKey>)> {
    let text = read(file)?;
    let text = statement_in(&text).map_or(text, |found| found.note);
    if !text.starts_with('{') {
        return Ok((text, Vec::new()));
    }
    let passed = given.iter().map(|key| verify(&text, Some(key))).reduce(Result::or);
    let verified =
        passed.unwrap_or_else(|| verify(&text, None)).with_context(|| format!("{}", file.display()))?;
    let former = verified.keys.former_keys().filter(|key| verified.keys.revocation(key).is_none());
    let keys = former.cloned().chain([verified.key.clone()]).collect();
    Ok((text, keys))
}

pub(super) fn run(options: &VerifyOptions, old: &Path, new: &Path) -> anyhow::Result<Done> {
    let witnesses: Vec<WitnessKey> =
        options.witness.iter().map(|given| witness_key(given)).collect::<anyhow::Result<_>>()?;
    let given: Vec<PublicKey> =
        options.key.iter().map(|given| public_key(given)).collect::<anyhow::Result<_>>()?;
    let (old_text, of_old) = opened(old, &given)?;
    let (new_text, of_new) = opened(new, &given)?;
    let update = Update::parse(&new_text).with_context(|| format!("{}", new.display()))?;
    let update = update.with_context(|| {
        format!(
            "{} has no proof of consistency; ask the issuer for `trafctl statement checkpoint --since EARLIER`",
            new.display()
        )
    })?;
    let keys: Vec<&PublicKey> = given.iter().chain(&of_old).chain(&of_new).collect();
    anyhow::ensure!(!keys.is_empty(), "a checkpoint does not name its key; give it with --key");
    let open = |text: &str, file: &Path| {
        Checkpoint::open(&checkpoint_in(text)?, &keys).with_context(|| format!("{}", file.display()))
    };
    let (earlier, later) = (open(&old_text, old)?, open(&new_text, new)?);
    update.check(&earlier, &later).with_context(|| format!("{} and {}", old.display(), new.display()))?;
    for witness in &witnesses {
        later.seen_by(witness).with_context(|| format!("{}", new.display()))?;
    }
    let checked = Checked {
        valid: true,
        old_size: earlier.size,
        new_size: later.size,
        old_key: earlier.key.to_string(),
        new_key: later.key.to_string(),
    };
    print(&match options.format {
        Format::Json => json::document(&checked)?,
        Format::Table => format!(
            "consistent: the log of {} entries is the beginning of that of {}\nkeys: {}\n      {}\n{}",
            checked.old_size,
            checked.new_size,
            checked.old_key,
            checked.new_key,
            match given.is_empty() {
                true => "compare these keys with those that the issuer publishes, or give those with --key\n",
                false => "",
            }
        ),
    })?;
    Ok(Done::Success)
}
