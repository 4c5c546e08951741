//! `trafctl web`

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use traffic_ledger::Ledger;
use traffic_model::calendar::Calendar;

use crate::{
    api::{self, Access, AskedCalendar, Bound, LedgerClasses, Reader, Server, Source, StoreView},
    class_source,
    cli::{Done, Global, output::print, store::Passwords},
    config::Listen,
    queries::{IdsOf, QuotaFiles},
};

/// Show a ledger or a store in a browser, without a daemon
///
/// Opens the file for reading only, prints the address of the page, and serves it until it is interrupted. The
/// ledger may be in use, or a copy of another node's. There are no live figures; `trafctl run` with `[api] listen`
/// serves the same page with them. Every user of this machine can reach a port; with --token-file, only those who
/// know the token see figures.
///
/// With the URL of a store, the page shows all of its nodes, or those of --node, and with --by-tenant tenants instead
/// of containers. The user of the URL needs to read only.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl web /var/lib/trafctl/ledger.sqlite\n  \
    trafctl web copy.sqlite --listen 127.0.0.1:8080\n  \
    trafctl web copy.sqlite --listen unix:/run/trafctl/web.sock\n  \
    trafctl web postgresql://billing@db.example/traffic --by-tenant\n  \
    trafctl web postgresql://billing@db.example/traffic --tz UTC --billing-day 1")]
pub struct Options {
    /// The ledger, or the URL of a store
    #[arg(value_name = "FILE|URL")]
    file: PathBuf,
    /// Only this node of the store; may be repeated
    #[arg(long = "node", value_name = "NAME")]
    nodes: Vec<String>,
    /// Show the tenants of the store instead of containers: see `trafctl store assign`
    #[arg(long)]
    by_tenant: bool,
    /// Time zone of the page [default: the ledger's]
    ///
    /// Must be chosen where the nodes of a store have several.
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// First day of billing months [default: the ledger's]
    ///
    /// Must be chosen where the nodes of a store have several.
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u8).range(1..=31))]
    billing_day: Option<u8>,
    #[command(flatten)]
    passwords: Passwords,
    /// Address to listen on: of this machine only, or a Unix socket. Port 0 is any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9178")]
    listen: Listen,
    /// File with a token that requests for figures must carry
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Options {
    fn calendar(&self) -> AskedCalendar {
        AskedCalendar { zone: self.tz.clone(), billing_day: self.billing_day }
    }
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    if let Some(zone) = &options.tz {
        Calendar::new(zone, options.billing_day.unwrap_or(1)).context("cannot use --tz")?;
    }
    let source = match options.file.to_str().filter(|text| text.contains("://")) {
        Some(url) => of_store(global, url, options).await?,
        None => of_file(global, options)?,
    };
    let access = Access::default();
    access.follow(options.token_file.as_deref()).map_err(|unusable| unusable.error)?;
    let bound = api::bind_to(&options.listen)?;
    let address = match &bound {
        Bound::Tcp(listener) => format!("http://{}/", listener.local_addr()?),
        Bound::Unix(..) => options.listen.to_string(),
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let server = Server::start(bound, source, access)?;
    print(&format!("{address}\n"))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop().await;
    Ok(Done::Success)
}

/// The page of a store. One that cannot be read is refused here, and not in the browser.
async fn of_store(global: &Global, url: &str, options: &Options) -> anyhow::Result<Source> {
    let config = global.config_to_show().0;
    let target = options.passwords.target(url, config.ship.password_file.as_deref())?;
    let checked = target.check().await.with_context(|| format!("cannot read the store {}", target.name()))?;
    if !checked.may_read {
        bail!(
            "cannot read the store {}: this user may not; `GRANT trafctl_read` to it, or name another user in the URL",
            target.name()
        );
    }
    let names = global.class_names();
    let view = StoreView { target, nodes: options.nodes.clone(), by_tenant: options.by_tenant };
    let name = view.target.name().to_owned();
    let reader =
        Reader::of_store(view).naming(Arc::new(move || names.clone())).in_calendar(options.calendar());
    // On a thread of its own: the connection has its own event loop.
    let opened = tokio::task::spawn_blocking({
        let reader = reader.clone();
        move || reader.open().map(drop)
    });
    opened.await?.with_context(|| format!("cannot show the store {name}"))?;
    // Quotas are those of nodes: a file that is not there has none.
    let quotas = QuotaFiles { file: PathBuf::new(), state_dir: PathBuf::new(), ids: Box::new(by_one_id) };
    Ok(Source::of_ledger(reader).with_quota_files(Arc::new(quotas)))
}

fn of_file(global: &Global, options: &Options) -> anyhow::Result<Source> {
    let file = &options.file;
    if options.by_tenant || !options.nodes.is_empty() {
        bail!("a ledger has one node and no tenants; use --node and --by-tenant with the URL of a store");
    }
    if !file.try_exists().unwrap_or(true) {
        bail!("cannot open the ledger {}: it does not exist; name the file of a ledger", file.display());
    }
    // A file that is none is refused here, and not in the browser.
    drop(Ledger::open_read_only(file).with_context(|| format!("cannot open the ledger {}", file.display()))?);
    Ok(source(global, file, options.calendar()))
}

/// Whoever else the containers are is not known beside a copy or a store.
fn by_one_id() -> IdsOf {
    Box::new(|container| vec![container.to_owned()])
}

fn source(global: &Global, file: &Path, calendar: AskedCalendar) -> Source {
    let config = global.config_to_show().0;
    // What was known beside a ledger of this machine.
    let state_dir = file.parent().map_or_else(PathBuf::new, PathBuf::from);
    let quotas =
        QuotaFiles { file: global.quota_file(), state_dir: state_dir.clone(), ids: Box::new(by_one_id) };
    let names = Arc::new(move || class_source::class_names(&config, &state_dir));
    let reader = Reader::of_file(file).naming(names.clone()).in_calendar(calendar);
    let classes = LedgerClasses { reader: reader.clone(), names };
    Source::of_ledger(reader).with_classes(classes).with_quota_files(Arc::new(quotas))
}
