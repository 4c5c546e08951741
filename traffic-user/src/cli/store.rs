//! `trafctl store`: creates and checks the store of many nodes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde::Serialize;
use traffic_store::postgres::{self, PasswordFile, Postgres, Target};

use crate::{
    cli::{Done, Format, Global, print},
    render::json,
};

/// Create or check the database that ledgers are shipped to
///
/// A store is a schema in a PostgreSQL database (13 or later), with the rows of all nodes and views for people who
/// write SQL. `trafctl ship` fills it. Passwords come from a file in PostgreSQL's format, never from the URL.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl store init postgresql://postgres@db.example/traffic\n  \
    trafctl store check postgresql://node7@db.example/traffic")]
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

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let (Action::Init(at) | Action::Check(at)) = &options.action;
    let configured = global.config_to_show().0.ship.password_file;
    let target = at.passwords.target(&at.url, configured.as_deref())?;
    let mut store = Postgres::connect(&target).await?;
    let created = match options.action {
        Action::Init(_) => postgres::init(&mut store).await,
        Action::Check(_) => Ok(false),
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
