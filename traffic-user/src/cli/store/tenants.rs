//! `trafctl store assign`, `unassign` and `tenants`: which tenant has which container, for reports by tenant.

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use traffic_store::Assignment;

use super::{Passwords, target_of};
use crate::{
    cli::{Done, Format, Global, print},
    queries::{SheetFormat, parse_time},
    render::{json, rows as table},
};

/// The store, and how to read and write times.
#[derive(Debug, Args)]
struct Store {
    /// The database: `postgresql://USER@HOST/DATABASE`, or `clickhouse+https://USER@HOST/DATABASE`
    #[arg(value_name = "URL")]
    url: String,
}

#[derive(Debug, Args)]
pub struct AssignOptions {
    #[command(flatten)]
    store: Store,
    /// Name of the tenant
    #[arg(value_name = "TENANT")]
    tenant: String,
    /// The container's id, as its node knows it
    #[arg(long, value_name = "ID")]
    container: String,
    /// The container of this node only
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// From when on: 2026-11-01, 2026-11-01T12:00, or with an offset [default: ever before]
    #[arg(long, value_name = "T")]
    from: Option<String>,
    /// Until when, exclusive [default: ever after]
    #[arg(long, value_name = "T")]
    until: Option<String>,
    /// Time zone of these times
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    #[command(flatten)]
    passwords: Passwords,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
pub struct UnassignOptions {
    #[command(flatten)]
    store: Store,
    /// Number of the assignment
    #[arg(value_name = "NUMBER")]
    number: i32,
    /// Until when, exclusive [default: now]
    #[arg(long, value_name = "T")]
    until: Option<String>,
    /// Time zone of this time
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    #[command(flatten)]
    passwords: Passwords,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
pub struct ListOptions {
    #[command(flatten)]
    store: Store,
    /// Only this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    passwords: Passwords,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

/// An assignment in documents.
#[derive(Serialize)]
struct Shown {
    number: i32,
    tenant: String,
    container: String,
    /// Null: the container of this id on any node.
    node: Option<String>,
    /// Null: ever before.
    from: Option<Timestamp>,
    /// Null: ever after.
    until: Option<Timestamp>,
}

impl Shown {
    fn new(assignment: Assignment) -> anyhow::Result<Self> {
        let Assignment { number, tenant, container, node, from, until } = assignment;
        let from = (from != 0).then_some(from);
        let time = |second: Option<i64>| second.map(Timestamp::from_second).transpose();
        Ok(Self { number, tenant, container, node, from: time(from)?, until: time(until)? })
    }

    fn fields(&self) -> Vec<String> {
        let time = |time: Option<Timestamp>| time.map_or_else(String::new, |time| time.to_string());
        vec![
            self.number.to_string(),
            self.tenant.clone(),
            self.container.clone(),
            self.node.clone().unwrap_or_default(),
            time(self.from),
            time(self.until),
        ]
    }
}

/// What an assignment became.
#[derive(Serialize)]
struct Made {
    assignment: Shown,
    /// Nodes that have such a container now; empty before its first traffic.
    known_on: Vec<String>,
}

/// What became of an assignment that ended.
#[derive(Serialize)]
struct Ended {
    number: i32,
    /// Null if it was removed, because it would end before it begins.
    assignment: Option<Shown>,
}

fn time(text: Option<&str>, zone: &str) -> anyhow::Result<Option<i64>> {
    let zone = TimeZone::get(zone).with_context(|| format!("cannot use --tz {zone}"))?;
    Ok(text.map(|text| parse_time(text, &zone)).transpose()?.map(Timestamp::as_second))
}

/// `trafctl store assign`.
pub(super) async fn assign(global: &Global, options: &AssignOptions) -> anyhow::Result<Done> {
    let from = time(options.from.as_deref(), &options.tz)?;
    if from.is_some_and(|from| from <= 0) {
        bail!("--from is before 1970; leave it out for ever before");
    }
    let new = Assignment {
        number: 0,
        tenant: options.tenant.clone(),
        container: options.container.clone(),
        node: options.node.clone(),
        from: from.unwrap_or(0),
        until: time(options.until.as_deref(), &options.tz)?,
    };
    let target = target_of(global, &options.store.url, &options.passwords)?;
    let name = target.name();
    let made = target
        .assign(&new)
        .await
        .with_context(|| format!("cannot assign container {} in {name}", new.container))?;
    let text =
        format!("{} has container {} ({})\n", made.assignment.tenant, new.container, made.assignment.text());
    let is_known = !made.nodes.is_empty();
    print(&match options.format {
        Format::Json => {
            json::document(&Made { assignment: Shown::new(made.assignment)?, known_on: made.nodes })?
        }
        Format::Table if is_known => text,
        Format::Table => text + "the store has no such container yet\n",
    })?;
    Ok(Done::Success)
}

/// `trafctl store unassign`.
pub(super) async fn unassign(global: &Global, options: &UnassignOptions) -> anyhow::Result<Done> {
    let until = match time(options.until.as_deref(), &options.tz)? {
        Some(until) => until,
        None => crate::time::now()?.as_second(),
    };
    let target = target_of(global, &options.store.url, &options.passwords)?;
    let name = target.name();
    let number = options.number;
    let ended = target
        .unassign(number, until)
        .await
        .with_context(|| format!("cannot end assignment {number} in {name}"))?;
    print(&match (options.format, ended) {
        (Format::Json, ended) => {
            json::document(&Ended { number, assignment: ended.map(Shown::new).transpose()? })?
        }
        (Format::Table, Some(ended)) => {
            format!("{} had container {} ({})\n", ended.tenant, ended.container, ended.text())
        }
        (Format::Table, None) => format!("assignment {number} would end before it begins: it was removed\n"),
    })?;
    Ok(Done::Success)
}

/// `trafctl store tenants`.
pub(super) async fn list(global: &Global, options: &ListOptions) -> anyhow::Result<Done> {
    let target = target_of(global, &options.store.url, &options.passwords)?;
    let name = target.name();
    let found = target
        .assignments(options.tenant.as_deref())
        .await
        .with_context(|| format!("cannot use the store {name}"))?;
    let all: Vec<Shown> = found.into_iter().map(Shown::new).collect::<anyhow::Result<_>>()?;
    print(&match options.format {
        SheetFormat::Json => json::list("assignments", &all)?,
        SheetFormat::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["number", "tenant", "container", "node", "from", "until"])?;
            all.iter().try_for_each(|one| writer.write_record(one.fields()))?;
            String::from_utf8(writer.into_inner().context("cannot format the tenants")?)?
        }
        SheetFormat::Table if all.is_empty() => "nobody has a container yet\n".to_owned(),
        SheetFormat::Table => {
            let header = ["NUMBER", "TENANT", "CONTAINER", "NODE", "FROM", "UNTIL"];
            table(&header, all.iter().map(Shown::fields))
        }
    })?;
    Ok(Done::Success)
}
