//! `trafctl store`: creates and checks the store of many nodes.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use traffic_model::{
    calendar::FIVE_MINUTES_S,
    units::{DurationRange, InvalidAmount, format_duration},
};
use traffic_store::postgres::{self, NodeState, PasswordFile, Postgres, Target};

use crate::{
    cli::{Done, Format, Global, print},
    queries::SheetFormat,
    render::{json, rows as table},
};

/// Create, check and update the database that ledgers are shipped to, and list its nodes
///
/// A store is a schema in a PostgreSQL database (13 or later), with the rows of all nodes and views for people who
/// write SQL. `trafctl ship` fills it. Passwords come from a file in PostgreSQL's format, never from the URL.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl store init postgresql://postgres@db.example/traffic\n  \
    trafctl store check postgresql://node7@db.example/traffic\n  \
    trafctl store nodes postgresql://billing@db.example/traffic")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create the schema, as the owner of the database
    ///
    /// Creates the schema `trafctl` with its tables, functions and views, and two roles without login where they do
    /// not exist: `trafctl_ship` may add rows and newer versions of them, and nothing else; `trafctl_read` may read.
    /// A store of this version is left as it is.
    #[command(after_long_help = "Example:\n  trafctl store init postgresql://postgres@db.example/traffic")]
    Init(At),
    /// Check the schema, and what this user may do; status 1 if anything is wrong
    #[command(after_long_help = "Example:\n  trafctl store check postgresql://node7@db.example/traffic")]
    Check(At),
    /// Bring the schema to this version, as the owner of the database
    ///
    /// In one transaction, and one process at a time. Shippers of an older trafctl ship on. A store of this version is
    /// left as it is, and one of a newer version is refused.
    #[command(after_long_help = "Example:\n  trafctl store migrate postgresql://postgres@db.example/traffic")]
    Migrate(At),
    /// List the nodes, and how far each has shipped; status 1 if one is behind
    ///
    /// The lag is the time since the end of the last five minutes that arrived. It is about twice `[ship] interval` and
    /// five minutes while all is well.
    #[command(after_long_help = "Examples:\n  \
        trafctl store nodes postgresql://billing@db.example/traffic\n  \
        trafctl store nodes postgresql://billing@db.example/traffic --max-lag 2h --format json")]
    Nodes(NodesOf),
}

#[derive(Debug, Args)]
struct NodesOf {
    /// The database: `postgresql://USER@HOST/DATABASE`
    #[arg(value_name = "URL")]
    url: String,
    /// The longest lag of a node that is not behind
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = max_lag)]
    max_lag: Duration,
    #[command(flatten)]
    passwords: Passwords,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

fn max_lag(text: &str) -> Result<Duration, InvalidAmount> {
    const RANGE: DurationRange =
        DurationRange { shortest: Duration::from_secs(1), longest: Duration::from_hours(24 * 366) };
    RANGE.parse(text)
}

#[derive(Debug, Args)]
struct At {
    /// The database: `postgresql://USER@HOST/DATABASE`
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    passwords: Passwords,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Where passwords come from.
#[derive(Clone, Debug, Args)]
pub(super) struct Passwords {
    /// File with passwords, in the format of .pgpass
    ///
    /// Each line is HOST:PORT:DATABASE:USER:PASSWORD. Without this option: `[ship] password_file`, the systemd
    /// credential `pgpass`, the file that PGPASSFILE names, and ~/.pgpass, whichever has a line that fits.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Passwords {
    /// The files in the order in which they are searched. Those that need not exist are left out if they do not.
    fn files(&self, configured: Option<&Path>) -> Vec<PasswordFile> {
        if let Some(file) = &self.password_file {
            return vec![PasswordFile(file.clone())];
        }
        let of =
            |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let mut files: Vec<PathBuf> = configured.map(Path::to_path_buf).into_iter().collect();
        let credential = of("CREDENTIALS_DIRECTORY").map(|directory| directory.join("pgpass"));
        let home = of("HOME").map(|home| home.join(".pgpass"));
        files.extend(credential.filter(|file| file.exists()));
        files.extend(of("PGPASSFILE"));
        files.extend(home.filter(|file| file.exists()));
        files.into_iter().map(PasswordFile).collect()
    }

    /// The target of a URL, with its password.
    pub(super) fn target(&self, url: &str, configured: Option<&Path>) -> anyhow::Result<Target> {
        let target =
            Target::parse(url).map_err(|reason| anyhow!("cannot use the URL of the store: {reason}"))?;
        let target = target.with_password(&self.files(configured));
        target.map_err(|reason| anyhow!("cannot read the password file {reason}"))
    }
}

/// The JSON document of a store.
#[derive(Serialize)]
struct Shown {
    /// The database, without a password.
    store: String,
    /// The server's version.
    server: String,
    /// The schema's version.
    schema_version: i32,
    /// Whether this call created it.
    created: bool,
    /// Whether this user may ship to it.
    may_ship: bool,
    /// Whether this user may read from it.
    may_read: bool,
    /// What is wrong.
    problems: Vec<String>,
}

impl Shown {
    fn text(&self) -> String {
        let created = if self.created { "created " } else { "" };
        let can = |can: bool, what: &str| if can { what.to_owned() } else { format!("may not {what}") };
        let mut text = format!(
            "{created}store {}: PostgreSQL {}, schema version {}, this user: {}, {}\n",
            self.store,
            self.server,
            self.schema_version,
            can(self.may_ship, "ship"),
            can(self.may_read, "read"),
        );
        self.problems.iter().for_each(|problem| text.push_str(&format!("problem: {problem}\n")));
        text
    }
}

/// A node of the store.
#[derive(Serialize)]
struct ShownNode {
    node: String,
    ledger: String,
    version: String,
    kernel: String,
    /// Start of the last five minutes that arrived.
    last_bucket: Option<Timestamp>,
    /// The last reading of its counters that the store knows of.
    last_reading: Option<Timestamp>,
    /// Seconds since the end of the last five minutes; null if none arrived.
    lag_s: Option<i64>,
    /// Gaps that lost traffic, in months that are not closed.
    open_gaps: i64,
    /// Whether the lag is longer than `--max-lag`, or nothing arrived.
    is_behind: bool,
}

impl ShownNode {
    fn new(state: NodeState, now: i64, max_lag: Duration) -> anyhow::Result<Self> {
        let lag_s = state.last_bucket.map(|bucket| (now - bucket - FIVE_MINUTES_S).max(0));
        let time = |second: Option<i64>| second.map(Timestamp::from_second).transpose();
        Ok(Self {
            last_bucket: time(state.last_bucket)?,
            last_reading: time(state.last_reading)?,
            lag_s,
            open_gaps: state.open_gaps,
            is_behind: lag_s.is_none_or(|lag| lag.unsigned_abs() > max_lag.as_secs()),
            node: state.node,
            ledger: state.ledger,
            version: state.version,
            kernel: state.kernel,
        })
    }

    fn fields(&self, is_csv: bool) -> Vec<String> {
        let time = |time: Option<Timestamp>| time.map_or_else(String::new, |time| time.to_string());
        let lag = match (self.lag_s, is_csv) {
            (Some(lag), true) => lag.to_string(),
            (Some(lag), false) => format_duration(Duration::from_secs(lag.unsigned_abs())),
            (None, _) => String::new(),
        };
        let mut fields = vec![self.node.clone(), time(self.last_bucket), lag, self.version.clone()];
        fields.push(self.open_gaps.to_string());
        fields.push(if is_csv { self.is_behind.to_string() } else { yes(self.is_behind).to_owned() });
        if is_csv {
            fields.extend([self.kernel.clone(), time(self.last_reading), self.ledger.clone()]);
        }
        fields
    }
}

const fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

async fn nodes(global: &Global, of: &NodesOf) -> anyhow::Result<Done> {
    let configured = global.config_to_show().0.ship.password_file;
    let target = of.passwords.target(&of.url, configured.as_deref())?;
    let store = Postgres::connect(&target).await?;
    let found = postgres::nodes(&store).await.with_context(|| format!("cannot use {}", target.name()))?;
    let now = crate::time::now()?.as_second();
    let nodes: Vec<ShownNode> = found
        .into_iter()
        .map(|state| ShownNode::new(state, now, of.max_lag))
        .collect::<anyhow::Result<_>>()?;
    let has_csv = of.format == SheetFormat::Csv;
    let rows = || nodes.iter().map(|node| node.fields(has_csv));
    print(&match of.format {
        SheetFormat::Json => json::list("nodes", &nodes)?,
        SheetFormat::Csv => csv_of(rows())?,
        SheetFormat::Table if nodes.is_empty() => "the store has no nodes yet\n".to_owned(),
        SheetFormat::Table => {
            table(&["NODE", "LAST BUCKET", "LAG", "VERSION", "OPEN GAPS", "BEHIND"], rows())
        }
    })?;
    Ok(Done::success_if(nodes.iter().all(|node| !node.is_behind)))
}

fn csv_of(rows: impl Iterator<Item = Vec<String>>) -> anyhow::Result<String> {
    let columns = [
        "node",
        "last_bucket",
        "lag_s",
        "version",
        "open_gaps",
        "is_behind",
        "kernel",
        "last_reading",
        "ledger",
    ];
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns)?;
    for row in rows {
        writer.write_record(row)?;
    }
    Ok(String::from_utf8(writer.into_inner().context("cannot format the nodes")?)?)
}

/// What a migration did.
#[derive(Serialize)]
struct ShownMigration<'a> {
    store: &'a str,
    from_version: i32,
    schema_version: i32,
}

async fn migrate(global: &Global, at: &At) -> anyhow::Result<Done> {
    let configured = global.config_to_show().0.ship.password_file;
    let target = at.passwords.target(&at.url, configured.as_deref())?;
    let mut store = Postgres::connect(&target).await?;
    let done = postgres::migrate(&mut store)
        .await
        .with_context(|| format!("cannot migrate the store {}", target.name()))?;
    let name = target.name();
    print(&match at.format {
        Format::Json => {
            json::document(&ShownMigration { store: name, from_version: done.from, schema_version: done.to })?
        }
        Format::Table if done.from == done.to => {
            format!("store {name} has schema version {} already; nothing was changed\n", done.to)
        }
        Format::Table => format!("store {name}: schema version {} became {}\n", done.from, done.to),
    })?;
    Ok(Done::Success)
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let at = match &options.action {
        Action::Nodes(of) => return nodes(global, of).await,
        Action::Migrate(at) => return migrate(global, at).await,
        Action::Init(at) | Action::Check(at) => at,
    };
    let configured = global.config_to_show().0.ship.password_file;
    let target = at.passwords.target(&at.url, configured.as_deref())?;
    let mut store = Postgres::connect(&target).await?;
    let created = match options.action {
        Action::Init(_) => postgres::init(&mut store).await,
        _ => Ok(false),
    };
    let created = created.with_context(|| format!("cannot create a store in {}", target.name()))?;
    // Also after it was created: reported is what is there.
    let checked =
        postgres::check(&mut store).await.with_context(|| format!("cannot use {}", target.name()))?;
    let shown = Shown {
        store: target.name().to_owned(),
        server: checked.server,
        schema_version: checked.version,
        created,
        may_ship: checked.may_ship,
        may_read: checked.may_read,
        problems: checked.problems,
    };
    print(&match at.format {
        Format::Table => shown.text(),
        Format::Json => json::document(&shown)?,
    })?;
    Ok(Done::success_if(shown.problems.is_empty()))
}
