//! `trafctl store`: creates, checks and updates the store of many nodes. `nodes` lists them, `tenants` says who has
//! which container.

mod nodes;
mod tenants;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde::Serialize;
use traffic_store::{PasswordFile, Target};

use crate::{
    cli::{Done, Format, Global, print},
    render::json,
};

/// Create, check and update the database that ledgers are shipped to; its nodes and tenants
///
/// A store is a schema in a PostgreSQL database (13 or later), or a database in ClickHouse (18.16 or later), with the
/// rows of all nodes and views for people who write SQL. `trafctl ship` fills it. Passwords come from a file in
/// PostgreSQL's format, never from the URL.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl store init postgresql://postgres@db.example/traffic\n  \
    trafctl store init clickhouse+https://default@db.example/traffic --cluster fleet\n  \
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
    /// In ClickHouse, it creates the database of the URL instead, and `trafctl_ship` may also read.
    /// A store of this version is left as it is.
    #[command(after_long_help = "Example:\n  trafctl store init postgresql://postgres@db.example/traffic")]
    Init(InitOptions),
    /// Check the schema, and what this user may do; status 1 if anything is wrong
    #[command(after_long_help = "Example:\n  trafctl store check postgresql://node7@db.example/traffic")]
    Check(At),
    /// Bring the schema to this version, as the owner of the database
    ///
    /// In one transaction, and one process at a time. Shippers of an older trafctl ship on. A store of this version is
    /// left as it is, and one of a newer version is refused.
    #[command(after_long_help = "Example:\n  trafctl store migrate postgresql://postgres@db.example/traffic")]
    Migrate(MigrateOptions),
    /// List the nodes, and how far each has shipped; status 1 if one is behind
    ///
    /// The lag is the time since the last reading of the node's counters that the store knows of. While all is well, it
    /// is no longer than the intervals of `[drain]` and `[ship]` together.
    #[command(after_long_help = "Examples:\n  \
        trafctl store nodes postgresql://billing@db.example/traffic\n  \
        trafctl store nodes postgresql://billing@db.example/traffic --max-lag 2h --format json")]
    Nodes(nodes::Options),
    /// Say that a tenant has a container, for reports by tenant
    ///
    /// The container is that of an id, on one node or on any, from a time on. Times are on borders of five minutes, so
    /// that every row has one tenant. An assignment of a container that somebody has at that time is refused.
    #[command(after_long_help = "Examples:\n  \
        trafctl store assign postgresql://postgres@db.example/traffic acme --container 101 --node n7\n  \
        trafctl store assign postgresql://postgres@db.example/traffic acme --container 101 --from 2026-11-01 --tz UTC")]
    Assign(tenants::AssignOptions),
    /// End an assignment; one that would end before it begins is removed
    #[command(
        after_long_help = "Example:\n  trafctl store unassign postgresql://postgres@db.example/traffic 7 --until 2026-12-01"
    )]
    Unassign(tenants::UnassignOptions),
    /// List which tenant has which container
    #[command(after_long_help = "Examples:\n  \
        trafctl store tenants postgresql://billing@db.example/traffic\n  \
        trafctl store tenants postgresql://billing@db.example/traffic --tenant acme --format csv")]
    Tenants(tenants::ListOptions),
}

#[derive(Debug, Args)]
struct At {
    /// The database: `postgresql://USER@HOST/DATABASE`, or `clickhouse+https://USER@HOST/DATABASE`
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    passwords: Passwords,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct InitOptions {
    #[command(flatten)]
    at: At,
    /// Create replicated tables on all servers of this cluster of ClickHouse, with all rows of a node on one shard
    ///
    /// The servers need the macros `shard` and `replica`, ZooKeeper or ClickHouse Keeper, and `internal_replication`. What is
    /// shipped is acknowledged when all replicas of its shard have it.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Print the statements for this server, and run none
    #[arg(long, conflicts_with = "format")]
    print: bool,
}

#[derive(Debug, Args)]
struct MigrateOptions {
    #[command(flatten)]
    at: At,
    /// Refuse a store that is not on this cluster of ClickHouse; on which cluster it is, is known otherwise
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
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
    /// The files in the order in which they are searched. Some need not exist.
    pub(super) fn files(&self, configured: Option<&Path>) -> Vec<PasswordFile> {
        if let Some(file) = &self.password_file {
            return vec![PasswordFile::required(file)];
        }
        let of =
            |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let credential = of("CREDENTIALS_DIRECTORY").map(|directory| directory.join("pgpass"));
        let home = of("HOME").map(|home| home.join(".pgpass"));
        let all = [
            configured.map(PasswordFile::required),
            credential.map(PasswordFile::usual),
            of("PGPASSFILE").map(PasswordFile::required),
            home.map(PasswordFile::usual),
        ];
        all.into_iter().flatten().collect()
    }

    /// The target of a URL, with its password.
    pub(super) fn target(&self, url: &str, configured: Option<&Path>) -> anyhow::Result<Target> {
        let target =
            Target::parse(url).map_err(|reason| anyhow!("cannot use the URL of the store: {reason}"))?;
        let target = target.with_password(&self.files(configured));
        target.map_err(|reason| anyhow!("cannot read the password file {reason}"))
    }
}

/// The target of a URL, with its password.
fn target_of(global: &Global, url: &str, passwords: &Passwords) -> anyhow::Result<Target> {
    let configured = global.config_to_show().0.ship.password_file;
    passwords.target(url, configured.as_deref())
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
            "{created}store {}: {}{}, schema version {}, this user: {}, {}\n",
            self.store,
            if self.server.starts_with("ClickHouse") { "" } else { "PostgreSQL " },
            self.server,
            self.schema_version,
            can(self.may_ship, "ship"),
            can(self.may_read, "read"),
        );
        self.problems.iter().for_each(|problem| text.push_str(&format!("problem: {problem}\n")));
        text
    }
}

/// What a migration did.
#[derive(Serialize)]
struct ShownMigration<'a> {
    store: &'a str,
    from_version: i32,
    schema_version: i32,
}

async fn migrate(global: &Global, options: &MigrateOptions) -> anyhow::Result<Done> {
    let (at, cluster) = (&options.at, options.cluster.as_deref());
    let target = target_of(global, &at.url, &at.passwords)?;
    let name = target.name();
    let done = target.migrate(cluster).await.with_context(|| format!("cannot migrate the store {name}"))?;
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
        Action::Nodes(options) => return nodes::run(global, options).await,
        Action::Assign(options) => return tenants::assign(global, options).await,
        Action::Unassign(options) => return tenants::unassign(global, options).await,
        Action::Tenants(options) => return tenants::list(global, options).await,
        Action::Migrate(options) => return migrate(global, options).await,
        Action::Init(InitOptions { at, .. }) | Action::Check(at) => at,
    };
    let target = target_of(global, &at.url, &at.passwords)?;
    let created = match &options.action {
        Action::Init(InitOptions { cluster, print: true, .. }) => {
            let statements = target.statements(cluster.as_deref()).await;
            let statements =
                statements.with_context(|| format!("cannot tell what {} needs", target.name()))?;
            print(
                &statements
                    .iter()
                    .map(|sql| format!("{};\n", sql.trim_end().trim_end_matches(';')))
                    .collect::<String>(),
            )?;
            return Ok(Done::Success);
        }
        Action::Init(InitOptions { cluster, .. }) => target.init(cluster.as_deref()).await,
        _ => Ok(false),
    };
    let created = created.with_context(|| format!("cannot create a store in {}", target.name()))?;
    // Also after it was created: reported is what is there.
    let checked = target.check().await.with_context(|| format!("cannot use {}", target.name()))?;
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
