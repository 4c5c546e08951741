//! `trafctl statement` and `trafctl verify`: what a container carried in a closed month, signed, and checked.

mod checkpoint;
mod consistent;
mod key;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use traffic_statement::{
    InPage, PAGE, PublicKey, StatementError, Verified, WitnessKey, page_of, statement_in, verify,
};

use crate::{
    cli::{Done, Format, Global, output::print_bytes, picture, print},
    files,
    render::statement as render,
    statement::{self, Keys, cosigned},
    time,
};

/// Print a signed statement of a container and a closed month
///
/// The statement has the frozen figures, the corrections, what is missing, and the proof that the log of this ledger
/// has them. Whoever receives it checks it with `trafctl verify`, or with other tools by docs/statement.md. Of other
/// containers, it says how many there are.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_long_help = "Examples:\n  \
    trafctl statement key --new billing.example.com\n  \
    trafctl statement 2026-10 --container 101 --out 101.statement\n  \
    trafctl statement 2026-10 --container 101 --html --out 101.html\n  \
    trafctl verify 101.statement"
)]
pub struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    /// The closed billing month
    #[arg(value_name = "YYYY-MM", required = true)]
    month: Option<String>,
    /// Id of the container, in the closed month or now
    #[arg(long, value_name = "ID", required = true)]
    container: Option<String>,
    /// Write it to this file; - is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// Make a page for people, which has the statement in it
    #[arg(long)]
    html: bool,
    /// File of the key [default: statement.key in the state directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    Key(key::Options),
    Checkpoint(checkpoint::CheckpointOptions),
    Cosign(checkpoint::CosignOptions),
}

/// Check a statement, without root and without a ledger
///
/// Checks the signature, that the log has the figures and corrections, and that the sums are theirs. The error says
/// what is wrong. Compare the key with the one that the issuer publishes, or give that one with --key. An earlier key that
/// was not revoked will do: the statement proves that its own key followed it.
///
/// A later statement of the same issuer, given with --with, shows whether the key was revoked since, and whether both are
/// of one log.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl verify 101.statement\n  \
    trafctl verify 101.statement --key billing.example.com+0123abcd+AZZj...\n  \
    trafctl verify 101-october.statement --with 101-november.statement\n  \
    trafctl verify 101.statement --proof   print the proof for other tools (C2SP tlog-proof)\n  \
    trafctl verify --html > verify.html    write a page that checks statements in a browser, offline")]
pub struct VerifyOptions {
    /// The statement, or the page with it; - is standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["html", "consistent"])]
    file: Option<PathBuf>,
    /// The public key that must have signed it, or a file with it; for --consistent that of each checkpoint
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// A later statement of the same issuer, or the page with it: refuse what it contradicts
    #[arg(long = "with", value_name = "LATER")]
    later: Option<PathBuf>,
    /// The public key of a witness that must have seen the log, or a file with it; may be repeated
    #[arg(long, value_name = "KEY")]
    witness: Vec<String>,
    /// Check that the log of OLD is the beginning of that of NEW, which `trafctl statement checkpoint --since` wrote
    #[arg(long, value_names = ["OLD", "NEW"], num_args = 2, conflicts_with_all = ["file", "later", "proof", "html"])]
    consistent: Option<Vec<PathBuf>>,
    /// Print the proof that the log has the month
    #[arg(long, conflicts_with = "format")]
    proof: bool,
    /// Print a page that checks statements in a browser, without a network
    #[arg(long, conflicts_with_all = ["file", "key", "later", "witness", "proof", "format"])]
    html: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A statement has some kilobytes. One with a correction for each minute of a month is far below this.
const MOST_BYTES: u64 = 64 << 20;

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    match &options.action {
        Some(Action::Key(options)) => return key::run(global, options),
        Some(Action::Checkpoint(options)) => return checkpoint::run(global, options),
        Some(Action::Cosign(options)) => return checkpoint::cosign(global, options),
        None => {}
    }
    let (Some(month), Some(container)) = (&options.month, &options.container) else {
        anyhow::bail!("a statement needs a month and --container");
    };
    let path = options.key.clone().unwrap_or_else(|| statement::default_path(&global.state_dir));
    let keys = Keys::read(&path)?;
    let public = keys.key.public().clone();
    let ledger = global.ledger()?;
    let cosigned = cosigned::read(&global.state_dir, &public)?;
    let keys = (keys, cosigned.as_deref());
    let text = statement::make(&ledger, (month, container), &global.class_names(), keys, time::now()?)?;
    // Whoever receives it will do the same.
    verify(&text, Some(&public)).context("the new statement does not pass its own check")?;
    let text = if options.html { page_of(&text) } else { text };
    picture::write(&options.out, text.as_bytes(), print_bytes)?;
    Ok(Done::Success)
}

pub(super) fn check(options: &VerifyOptions) -> anyhow::Result<Done> {
    if let Some([old, new]) = options.consistent.as_deref() {
        return consistent::run(options, old, new);
    }
    let Some(file) = &options.file else {
        print(PAGE)?;
        return Ok(Done::Success);
    };
    anyhow::ensure!(options.key.len() < 2, "a statement is signed by one key; give one --key");
    let key = options.key.first().map(|given| public_key(given)).transpose()?;
    let given = key.as_ref();
    let witnesses: Vec<WitnessKey> =
        options.witness.iter().map(|given| witness_key(given)).collect::<anyhow::Result<_>>()?;
    let (verified, own_page, with) = match &options.later {
        None => {
            let (verified, own_page) = checked(file, given)?;
            (verified, own_page, None)
        }
        Some(later) => {
            // The later one says which keys may have signed the other.
            let (later, _) = checked(later, given)?;
            let (verified, own_page) = checked(file, None)?;
            let revoked = verified.check_with(&later).with_context(|| format!("{}", file.display()))?;
            (verified, own_page, Some(render::With { later, revoked }))
        }
    };
    for witness in &witnesses {
        verified.checkpoint.seen_by(witness).with_context(|| format!("{}", file.display()))?;
    }
    print(&match options.format {
        _ if options.proof => verified.tlog_proof,
        Format::Table => render::text(&verified, given, with.as_ref(), &witnesses),
        Format::Json => render::document(&verified, given, with.as_ref(), (own_page, &witnesses))?,
    })?;
    Ok(Done::Success)
}

/// The text of a file; - is standard input.
fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let bytes =
            files::read_bounded(std::io::stdin().lock(), MOST_BYTES).context("cannot read standard input")?;
        return String::from_utf8(bytes).context("standard input is no statement");
    }
    let bytes = files::read(file, MOST_BYTES).with_context(|| format!("cannot read {}", file.display()))?;
    String::from_utf8(bytes).with_context(|| format!("{} is no statement", file.display()))
}

/// Reads and checks a statement, by a key if one was given. Also whether the page that it is in is our own.
fn checked(file: &Path, key: Option<&PublicKey>) -> anyhow::Result<(Verified, Option<bool>)> {
    let text = read(file)?;
    let (note, own_page) = match statement_in(&text) {
        Some(InPage { note, is_own_page }) => (note, Some(is_own_page)),
        None => (text, None),
    };
    let verified = verify(&note, key).with_context(|| format!("{}", file.display()))?;
    if own_page == Some(false) {
        tracing::warn!(
            "{} is not the page that this version of trafctl makes, but one of another version, or a changed one: what \
             it shows in a browser may differ from the statement in it, which was checked",
            file.display()
        );
    }
    Ok((verified, own_page))
}

/// A key as its text, or the path of a file with it.
fn public_key(given: &str) -> anyhow::Result<PublicKey> {
    key_of(given, PublicKey::parse)
}

/// The same of a witness.
fn witness_key(given: &str) -> anyhow::Result<WitnessKey> {
    key_of(given, WitnessKey::parse)
}

fn key_of<K>(given: &str, parse: impl Fn(&str) -> Result<K, StatementError>) -> anyhow::Result<K> {
    match parse(given) {
        Ok(key) => Ok(key),
        Err(error) if given.contains('+') && !Path::new(given).exists() => Err(error.into()),
        Err(_) => {
            let text = files::read_text(Path::new(given), MOST_BYTES)
                .with_context(|| format!("cannot read the public key {given}"))?;
            parse(&text).with_context(|| format!("cannot use {given}"))
        }
    }
}
