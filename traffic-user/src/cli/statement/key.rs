//! `trafctl statement key`: makes the key of statements, replaces it, and revokes an earlier one.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::public_key;
use crate::{
    cli::{Done, Global, confirm::Confirm, print},
    queries::parse_time,
    state_file::StateLock,
    statement::{self, Keys, changes},
    time,
};

/// Print the public key of statements, make a new key, replace it or revoke an earlier one
///
/// Publish the public key where your customers find it, such as on your web site. The secret key is in a file
/// that nobody else may read. Keep a copy of it.
///
/// --rotate makes another key. The present one signs that, and it becomes an entry of the log: later statements prove to
/// whoever has the earlier key that the new one followed it. If a key leaked, rotate it, then --revoke it.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl statement key --new billing.example.com   make a key\n  \
    trafctl statement key                             print its public key\n  \
    trafctl statement key --rotate                    show what replacing it would do\n  \
    trafctl statement key --rotate --yes              replace it, and print the new public key\n  \
    trafctl statement key --revoke billing.example.com+0123abcd+AZZj... --from 2026-11-20 --reason \"laptop stolen\" --yes")]
pub(super) struct Options {
    /// Make a new key of this name, which says who signs
    #[arg(long, value_name = "NAME", conflicts_with_all = ["rotate", "revoke", "yes"])]
    new: Option<String>,
    /// Replace the key by a new one of the same name
    #[arg(long, conflicts_with = "revoke")]
    rotate: bool,
    /// Have statements of this earlier public key refused; the key, or a file with it
    #[arg(long, value_name = "KEY", requires = "reason")]
    revoke: Option<String>,
    /// Refuse those that say that they were made from this time on [default: now]
    #[arg(long, value_name = "TIME", requires = "revoke")]
    from: Option<String>,
    /// Reason in one line; it is kept forever, and shown to whoever checks a statement
    #[arg(long, value_name = "TEXT", requires = "revoke")]
    reason: Option<String>,
    #[command(flatten)]
    confirm: Confirm,
    /// File of the key [default: statement.key in the state directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// How a preview ends.
const NOTHING_WRITTEN: &str = "nothing was written; repeat the command with --yes to write it";

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let path = options.key.clone().unwrap_or_else(|| statement::default_path(&global.state_dir));
    if options.rotate {
        return rotate(global, &path, options.confirm);
    }
    if let (Some(key), Some(reason)) = (&options.revoke, &options.reason) {
        return revoke(global, &path, (key, reason), options);
    }
    if options.confirm.yes {
        anyhow::bail!("--yes confirms --rotate or --revoke");
    }
    if let Some(name) = &options.new {
        Keys::generate(name)?.write(&path)?;
    }
    // What is in the file counts.
    print(&format!("{}\n", Keys::read(&path)?.key.public()))?;
    Ok(Done::Success)
}

fn rotate(global: &Global, path: &Path, confirm: Confirm) -> anyhow::Result<Done> {
    if !confirm.yes {
        let preview = changes::preview_rotation(&global.ledger()?, path)?;
        print(&format!("{preview}\n{NOTHING_WRITTEN}\n"))?;
        return Ok(confirm.done());
    }
    let mut ledger = global.ledger_for_writing()?;
    let _lock = StateLock::take(&global.state_dir)?;
    let public = changes::rotate(&mut ledger, path, time::now()?)?;
    print(&format!("{public}\n"))?;
    tracing::warn!(
        "publish the new key beside the earlier one, and keep a copy of {}: copies of the earlier file sign nothing any more",
        path.display()
    );
    Ok(confirm.done())
}

fn revoke(
    global: &Global,
    path: &Path,
    (key, reason): (&str, &str),
    options: &Options,
) -> anyhow::Result<Done> {
    let key = public_key(key)?;
    let now = time::now()?;
    let from = |ledger: &traffic_ledger::Ledger| match &options.from {
        Some(text) => parse_time(text, ledger.calendar().zone()).context("cannot use --from"),
        None => Ok(now),
    };
    let text = if options.confirm.yes {
        let mut ledger = global.ledger_for_writing()?;
        let _lock = StateLock::take(&global.state_dir)?;
        let from = from(&ledger)?;
        changes::revoke(&mut ledger, path, &key, (from, now), reason)?
    } else {
        let ledger = global.ledger()?;
        let preview = changes::preview_revocation(&ledger, path, &key, (from(&ledger)?, now), reason)?;
        format!("{preview}{NOTHING_WRITTEN}\n")
    };
    print(&text)?;
    Ok(options.confirm.done())
}
