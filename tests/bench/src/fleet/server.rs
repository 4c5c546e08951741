//! The two kinds of stores, on throwaway servers.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Lab, Namespace,
    clickhouse::ClickHouse,
    postgres::Postgres,
    process::{children, run_ok},
};

/// The longest wait for a statement of the benchmark's own.
const PATIENCE: Duration = Duration::from_mins(30);

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ClickHouse,
    Postgres,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::ClickHouse, Self::Postgres];

    /// What it is called in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClickHouse => super::CLICKHOUSE,
            Self::Postgres => super::POSTGRES,
        }
    }
}

/// A server. It ends with this value.
#[derive(Debug)]
pub enum Server<'n> {
    ClickHouse(ClickHouse<'n>),
    Postgres(Postgres<'n>),
}

impl<'n> Server<'n> {
    pub fn start(kind: Kind, namespace: &'n Namespace) -> Result<Self> {
        Ok(match kind {
            Kind::ClickHouse => Self::ClickHouse(ClickHouse::start(namespace, None)?),
            // As somebody sets it up who keeps millions of rows; what is acknowledged is on the disk.
            Kind::Postgres => Self::Postgres(Postgres::start(
                namespace,
                &["-c", "shared_buffers=1GB", "-c", "max_wal_size=8GB", "-c", "work_mem=64MB"],
            )?),
        })
    }

    pub fn url(&self) -> String {
        match self {
            Self::ClickHouse(server) => server.url("default"),
            Self::Postgres(server) => server.url("postgres"),
        }
    }

    /// A store of which nothing is left.
    pub fn empty_store(&self, lab: &Lab) -> Result<()> {
        match self {
            Self::ClickHouse(_) => self.run("DROP DATABASE IF EXISTS traffic")?,
            Self::Postgres(_) => {
                self.run("SET client_min_messages = warning; DROP SCHEMA IF EXISTS trafctl CASCADE")?
            }
        };
        lab.run_ok(&["store", "init", &self.url()]).map(drop)
    }

    /// Runs a statement as the owner.
    pub fn run(&self, sql: &str) -> Result<String> {
        match self {
            Self::ClickHouse(server) => server.query_within(sql, PATIENCE),
            Self::Postgres(server) => server.query(sql),
        }
    }

    /// Gives all of its threads and processes, and those to come, a low priority.
    pub fn yield_cpu(&self) -> Result<()> {
        let id = match self {
            Self::ClickHouse(server) => server.id(),
            Self::Postgres(server) => server.id(),
        };
        let id = id.context("the server has ended")?;
        let mut tasks = Vec::new();
        for process in std::iter::once(id).chain(children(id)) {
            // A process that has ended takes no CPU, nor does a thread below.
            let listed = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
            tasks.extend(listed.map(|task| task.file_name()));
        }
        let renice = || {
            let mut command = Command::new("renice");
            command.args(["--priority", "10", "--pid"]);
            command
        };
        renice().args(tasks).output().context("cannot run renice")?;
        run_ok(renice().arg(id.to_string())).map(drop)
    }

    /// A number that a statement returns.
    pub fn number(&self, sql: &str) -> Result<u64> {
        Ok(self.run(sql)?.parse()?)
    }

    /// How many rows of five minutes the store has. Fails if any of them is there twice.
    pub fn rows(&self) -> Result<u64> {
        match self {
            Self::ClickHouse(_) => {
                let of = "FROM traffic.units";
                let where_ = "WHERE entity = 'traffic' AND part = '5min'";
                let rows = self.number(&format!("SELECT count() {of} {where_}"))?;
                let counted = self.number("SELECT count() FROM traffic.traffic WHERE level = 0")?;
                ensure!(rows == counted, "{rows} rows are there, and {counted} of them count");
                Ok(rows)
            }
            Self::Postgres(_) => self.number("SELECT count(*) FROM trafctl.traffic WHERE level = 0"),
        }
    }
}
