//! `trafctl statement checkpoint` and `trafctl statement cosign`: the state of the log for others, and what witnesses
//! have signed of it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use traffic_statement::{Log, Update, WitnessKey, statement_in};

use super::{read, witness_key};
use crate::{
    cli::{Done, Global, print},
    state_file::StateLock,
    statement::{self, Keys, cosigned},
};

/// Print the state of the log, signed, to be published or cosigned
///
/// The checkpoint has the number of entries in the log and its root. Whoever has it can tell whether a statement is of
/// the same log. With --since, it comes with the proof that it continues an earlier one: this is what witnesses are sent
/// (C2SP tlog-witness), and what `trafctl verify --consistent` checks.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl statement checkpoint\n  \
    trafctl statement checkpoint --since 101.statement >update")]
pub(super) struct CheckpointOptions {
    /// Prove that it continues this one: a number of entries, or a file with a checkpoint or statement
    #[arg(long, value_name = "EARLIER")]
    since: Option<String>,
    /// File of the key [default: statement.key in the state directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// Keep the cosignatures of witnesses, for the statements that follow
///
/// FILE has the cosigned checkpoint, or the lines with cosignatures of the present one (C2SP tlog-cosignature). Each must
/// be by a key given with --witness. Statements carry them as long as no later entry of the log concerns them. Prints the
/// cosigned checkpoint.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl statement cosign response --witness witness.example.org+0123abcd+BJZj...")]
pub(super) struct CosignOptions {
    /// What the witness answered; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The public key of a witness, or a file with it; may be repeated
    #[arg(long, value_name = "KEY", required = true)]
    witness: Vec<String>,
    /// File of the key [default: statement.key in the state directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// The keys of the file, and the log.
fn opened(global: &Global, key: Option<&PathBuf>) -> anyhow::Result<(Keys, Log)> {
    let path = key.cloned().unwrap_or_else(|| statement::default_path(&global.state_dir));
    let keys = Keys::read(&path)?;
    let ledger = global.ledger()?;
    statement::changes::check_signer(&ledger, &keys)?;
    let log = statement::log(&ledger, keys.salts()?)?;
    Ok((keys, log))
}

pub(super) fn run(global: &Global, options: &CheckpointOptions) -> anyhow::Result<Done> {
    let (keys, log) = opened(global, options.key.as_ref())?;
    let mut text = cosigned::present(&global.state_dir, &log, &keys.key)?;
    if let Some(since) = &options.since {
        let earlier = size_of(since)?;
        let mut update = log.update(&keys.key, earlier)?;
        update.checkpoint = text;
        text = update.text();
    }
    print(&text)?;
    Ok(Done::Success)
}

pub(super) fn cosign(global: &Global, options: &CosignOptions) -> anyhow::Result<Done> {
    let witnesses: Vec<WitnessKey> =
        options.witness.iter().map(|given| witness_key(given)).collect::<anyhow::Result<_>>()?;
    let (keys, log) = opened(global, options.key.as_ref())?;
    let given = read(&options.file)?;
    let _lock = StateLock::take(&global.state_dir)?;
    let cosigned = cosigned::add(&global.state_dir, (&log, &keys.key), &given, &witnesses)
        .with_context(|| format!("cannot use {}", options.file.display()))?;
    print(&cosigned)?;
    Ok(Done::Success)
}

/// A number of entries, or that of the log in a file.
fn size_of(given: &str) -> anyhow::Result<u64> {
    if let Ok(size) = given.parse() {
        return Ok(size);
    }
    let text = read(Path::new(given))?;
    let text = statement_in(&text).map_or(text, |found| found.note);
    let checkpoint = checkpoint_in(&text)?;
    let size = checkpoint.lines().nth(1).and_then(|size| size.parse().ok());
    size.with_context(|| format!("{given} is neither a number nor a file with a checkpoint or a statement"))
}

/// The checkpoint in a statement, after a proof of consistency, or alone.
pub(super) fn checkpoint_in(text: &str) -> anyhow::Result<String> {
    if let Some(update) = Update::parse(text)? {
        return Ok(update.checkpoint);
    }
    let document: Option<serde_json::Value> =
        serde_json::from_str(text.lines().next().unwrap_or_default()).ok();
    let inside = document.as_ref().and_then(|document| document["checkpoint"].as_str());
    Ok(inside.unwrap_or(text).to_owned())
}
