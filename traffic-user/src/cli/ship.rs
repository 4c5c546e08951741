//! `trafctl ship`: keeps stores equal to the ledger. The rounds and their pauses are in [`crate::shipping`].

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use traffic_store::{Store as _, Takeover, Target, Verified};

use crate::{
    cli::{Done, Format, Global, confirm::Confirm, print, print_error, store::Passwords},
    render::json,
    shipping::{self, Shipping},
};

/// Ship the ledger to a database of many nodes
///
/// Ships whatever changed to the stores of `[ship] to` and then waits for more, until it is stopped. What a store
/// already has is not sent again. A store that is down costs nothing: the ledger keeps everything that was not
/// shipped, and the backlog follows, the oldest rows first. A ledger that was restored from a copy, or that another
/// machine ships as well, is refused with what to do.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_long_help = "Examples:\n  \
    trafctl ship --once\n  \
    trafctl ship --to postgresql://node7@db.example/traffic --once\n  \
    trafctl ship verify --repair")]
pub struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    to: To,
    /// Ship what is there, and exit; status 1 if a store did not get everything
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Let this ledger replace what the store holds of it, after a restore or on a new machine
    ///
    /// After a restore, the store's rows of this ledger are replaced by those that the ledger holds now. Five-minute
    /// rows that the ledger has dropped by its retention stay. If the ledger is the adopted copy of one that the
    /// store knows, it takes its place, and the other one is refused from then on. Needs the owner of the schema.
    #[command(after_long_help = "Examples:\n  \
        trafctl ship adopt --to postgresql://postgres@db.example/traffic         show what would be replaced\n  \
        trafctl ship adopt --to postgresql://postgres@db.example/traffic --yes")]
    Adopt {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Compare stores with the ledger by digests of each day; status 1 if any row differs
    ///
    /// Ledger and store compute the same digest, each from its own rows. What changed since the last shipment is left
    /// out.
    #[command(
        after_long_help = "Examples:\n  trafctl ship verify\n  trafctl ship verify --repair --format json"
    )]
    Verify {
        #[command(flatten)]
        to: To,
        /// Ship again what differs, and compare it once more
        #[arg(long)]
        repair: bool,
    },
}

#[derive(Debug, Args)]
struct To {
    /// Store to ship to, instead of those of `[ship] to`
    #[arg(long = "to", value_name = "URL")]
    urls: Vec<String>,
    #[command(flatten)]
    passwords: Passwords,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl To {
    fn shipping(&self, global: &Global) -> anyhow::Result<Shipping> {
        let config = global.config_or_last_good()?;
        let urls = if self.urls.is_empty() { &config.ship.to } else { &self.urls };
        if urls.is_empty() {
            bail!(
                "no store to ship to; set `[ship] to = [\"postgresql://USER@HOST/DATABASE\"]`, or use --to; \
                 clickhouse+https:// is the other kind"
            );
        }
        let password_file = config.ship.password_file.as_deref();
        // Once with the passwords, so that a file that cannot be read is said at once.
        let targets = urls
            .iter()
            .map(|url| self.passwords.target(url, password_file))
            .collect::<anyhow::Result<_>>()?;
        let stores = (targets, self.passwords.files(password_file));
        // Stores of other commands are nobody's concern.
        Ok(Shipping::new(&global.state_dir, &config, stores, self.urls.is_empty()))
    }
}

/// What one store got.
#[derive(Serialize)]
struct Sent {
    store: String,
    parts: u64,
    rows: u64,
    /// Why it did not get everything.
    error: Option<String>,
}

/// The comparison with one store.
#[derive(Serialize)]
struct Compared {
    store: String,
    days: usize,
    parts: usize,
    differences: Vec<ComparedPart>,
    repaired: usize,
}

/// A part that differs.
#[derive(Serialize)]
struct ComparedPart {
    part: String,
    number: i64,
    table: &'static str,
    rows_in_ledger: i64,
    rows_in_store: i64,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    match &options.action {
        Some(Action::Adopt { to, confirm }) => adopt(global, to, *confirm).await,
        Some(Action::Verify { to, repair }) => verify(global, to, *repair).await,
        None => {
            let shipping = options.to.shipping(global)?;
            // A ledger that cannot be read is said at once, and not in each round.
            drop(global.ledger()?);
            if options.once { once(&shipping, options.to.format).await } else { serve(&shipping).await }
        }
    }
}

async fn serve(shipping: &Shipping) -> anyhow::Result<Done> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    tokio::select! {
        () = shipping.run() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(Done::Success)
}

async fn once(shipping: &Shipping, format: Format) -> anyhow::Result<Done> {
    let mut sent = Vec::new();
    for target in &shipping.targets {
        let (result, store) = (shipping.round(target).await, target.name().to_owned());
        sent.push(match result {
            Ok(shipped) => Sent { store, parts: shipped.parts, rows: shipped.rows, error: None },
            Err(error) => {
                let error = error.context(format!("cannot ship to {store}"));
                print_error(&error);
                Sent { store, parts: 0, rows: 0, error: Some(format!("{error:#}")) }
            }
        });
    }
    let success = sent.iter().all(|sent| sent.error.is_none());
    print(&match format {
        Format::Json => json::list("stores", &sent)?,
        Format::Table => sent
            .iter()
            .filter(|sent| sent.error.is_none())
            .map(|sent| format!("shipped {} rows in {} parts to {}\n", sent.rows, sent.parts, sent.store))
            .collect(),
    })?;
    Ok(Done::success_if(success))
}

async fn adopt(global: &Global, to: &To, confirm: Confirm) -> anyhow::Result<Done> {
    let shipping = to.shipping(global)?;
    let mut adopted = Vec::new();
    for target in &shipping.targets {
        let name = target.name();
        let ledger = global.ledger()?;
        let mut store = shipping.connect(target).await?;
        let takeover = shipping.shipper(&ledger, target).takeover(&mut store).await?;
        let mut rows = None;
        if confirm.yes {
            store.take_over(&takeover).await.with_context(|| format!("cannot adopt in {name}"))?;
            rows = Some(shipping.round(target).await?.rows);
        }
        let Takeover { ledger, place, .. } = takeover;
        adopted.push(Adopted { store: name.to_owned(), ledger, replaced_ledger: place, rows });
    }
    print(&match to.format {
        Format::Json => json::list("stores", &adopted)?,
        Format::Table => {
            let mut text: String = adopted.iter().map(Adopted::text).collect();
            if !confirm.yes {
                text.push_str("nothing was written; repeat the command with --yes to write it\n");
            }
            text
        }
    })?;
    Ok(confirm.done())
}

/// What an adoption replaces in one store.
#[derive(Serialize)]
struct Adopted {
    store: String,
    ledger: String,
    /// The ledger in the store whose rows are replaced; often the same.
    replaced_ledger: String,
    /// Rows that were shipped afterwards; null in a preview.
    rows: Option<u64>,
}

impl Adopted {
    fn text(&self) -> String {
        let Self { store, ledger, replaced_ledger, rows } = self;
        let whose = if ledger == replaced_ledger {
            "its former rows".to_owned()
        } else {
            format!("the rows of ledger {replaced_ledger}, whose place it takes,")
        };
        match rows {
            Some(rows) => format!("replaced in {store}: {whose} by {rows} rows of ledger {ledger}\n"),
            None => format!("would replace in {store}: {whose} by those of ledger {ledger}\n"),
        }
    }
}

async fn verify(global: &Global, to: &To, repair: bool) -> anyhow::Result<Done> {
    let shipping = to.shipping(global)?;
    let mut compared = Vec::new();
    for target in &shipping.targets {
        let verified = verify_one(&shipping, target, repair).await?;
        shipping.note_comparison(target, &verified)?;
        compared.push((target.name().to_owned(), verified));
    }
    let is_equal = compared.iter().all(|(_, verified)| verified.differences.len() == verified.repaired);
    print(&match to.format {
        Format::Json => json::list("stores", &compared.iter().map(document).collect::<Vec<_>>())?,
        Format::Table => compared.iter().map(text).collect(),
    })?;
    Ok(Done::success_if(is_equal))
}

async fn verify_one(shipping: &Shipping, target: &Target, repair: bool) -> anyhow::Result<Verified> {
    let ledger = shipping.ledger()?;
    let mut store = shipping.connect(target).await?;
    Ok(traffic_store::verify(&shipping.shipper(&ledger, target), &mut store, repair).await?)
}

fn document((store, verified): &(String, Verified)) -> Compared {
    let differences = verified.differences.iter().map(|differing| ComparedPart {
        part: differing.name.clone(),
        number: differing.number,
        table: differing.table,
        rows_in_ledger: differing.in_ledger,
        rows_in_store: differing.in_store,
    });
    Compared {
        store: store.clone(),
        days: verified.days,
        parts: verified.parts,
        differences: differences.collect(),
        repaired: verified.repaired,
    }
}

fn text((store, verified): &(String, Verified)) -> String {
    let Verified { days, parts, differences, repaired, .. } = verified;
    let mut text = format!("{store}: {parts} parts of {days} days compared, {} differ", differences.len());
    if *repaired > 0 {
        text.push_str(&format!(", {repaired} repaired"));
    }
    text.push('\n');
    for differing in differences {
        text.push_str(&format!(
            "  {}: table {} has {} rows in the ledger, {} in the store{}\n",
            shipping::part_text(&differing.name, differing.number),
            differing.table,
            differing.in_ledger,
            differing.in_store,
            if differing.in_ledger == differing.in_store { ", with other values" } else { "" },
        ));
    }
    text
}
