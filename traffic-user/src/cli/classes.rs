//! `trafctl classes`

use std::{fs, net::IpAddr, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::Serialize;
use traffic_classes::{CheckReport, ClassFile, ClassTable};

use crate::{
    class_source,
    cli::{Done, Format, Global, print, progress::Progress},
    config::Config,
    drain::{self, Drainer},
    kernel::{counters, load, tables},
    privileges, render,
};

/// Check, load and explain the network classes
///
/// The class file is Virtuozzo's `networks_classes`: a line `CLASS ADDRESS/PREFIX` each, `#` for comments. Which line
/// decides is set by `class_order` in the configuration.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl classes check new_classes && trafctl classes load new_classes\n  \
    trafctl classes list\n  \
    trafctl classes explain 203.0.113.7")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say everything that is wrong with a class file; status 1 if a line is refused
    #[command(after_long_help = "Example:\n  trafctl classes check /etc/vz/conf/networks_classes")]
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How to write it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Put a class file in force, whole or not at all, between two packets
    #[command(after_long_help = "Examples:\n  trafctl classes load\n  trafctl classes load new_classes")]
    Load {
        /// The file [default: the configured one]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show the prefixes in force, or those that a file would put in force
    #[command(
        after_long_help = "Examples:\n  trafctl classes list\n  trafctl classes list --file new_classes --format json"
    )]
    List {
        /// The file [default: what the kernel holds]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// How to write it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Say which class an address is in, which line decided, and what it shadows
    #[command(after_long_help = "Examples:\n  \
        trafctl classes explain 10.10.16.7\n  \
        trafctl classes explain 2001:db8::1 --file new_classes")]
    Explain {
        /// The peer's address
        #[arg(value_name = "ADDRESS")]
        address: IpAddr,
        /// The file [default: the configured one]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// How to write it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let config = global.config()?;
    match &options.action {
        Action::Check { file, format } => check(file, *format),
        Action::Load { file } => load_file(global, &config, file.as_ref()),
        Action::List { file, format } => list(global, &config, file.as_ref(), *format),
        Action::Explain { address, file, format } => {
            explain(global, &config, *address, (file.as_ref(), *format))
        }
    }
}

fn check(path: &PathBuf, format: Format) -> anyhow::Result<Done> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = traffic_classes::parse(&bytes);
    let report = CheckReport::new(&file);
    print(&match format {
        Format::Table => report.to_string(),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
    })?;
    Ok(Done::success_if(report.is_acceptable()))
}

fn load_file(global: &Global, config: &Config, path: Option<&PathBuf>) -> anyhow::Result<Done> {
    let table = match path {
        Some(path) => {
            class_source::read(path).map(|file| traffic_classes::compile(&file.entries, config.class_order))
        }
        None => class_source::configured_table(config),
    };
    let table = table.context("the table in force stays in force")?;
    put_in_force(global, config, table)?;
    Ok(Done::Success)
}

/// Puts a table in the place of the one in force, after a drain and under the lock, and keeps it in the ledger.
pub(super) fn put_in_force(global: &Global, config: &Config, table: ClassTable) -> anyhow::Result<()> {
    privileges::require()?;
    let bpffs = global.pinned();
    // Before waiting for the lock: there may be nothing to lock.
    load::open(&bpffs)?;
    let _lock = bpffs.lock()?;
    let mut maps = load::open(&bpffs)?;
    let progress = Progress::start("loading classes");
    let prepared = tables::prepare(&maps, &table, &|done, of| progress.set(done, of))
        .context("the table in force stays in force")?;
    drop(progress);
    drain::drain_before_change(config, &global.state_dir, &maps)
        .context("the table in force stays in force")?;
    prepared.switch(&mut maps).context("cannot put the class table in force")?;
    tracing::info!("{} prefixes in {} classes are in force", table.len(), table.classes_in_use().len());
    if let Some(books) = Drainer::open_existing(config, &global.state_dir)? {
        books.keep_table(&maps, || Ok(table))?;
    }
    Ok(())
}

/// A row of a class table.
#[derive(Debug, Serialize)]
struct Row {
    class: u8,
    prefix: String,
}

fn list(global: &Global, config: &Config, path: Option<&PathBuf>, format: Format) -> anyhow::Result<Done> {
    let row = |prefix: IpNet, class| Row { class, prefix: prefix.to_string() };
    let rows: Vec<Row> = match path {
        Some(path) => {
            let table = traffic_classes::compile(&class_source::read(path)?.entries, config.class_order);
            table.entries().map(|entry| row(entry.prefix, entry.class)).collect()
        }
        None => {
            let held = tables::in_force(&load::open(&global.pinned())?)?;
            held.into_iter().map(|(prefix, class)| row(prefix, class)).collect()
        }
    };
    print(&match format {
        Format::Table => render::rows(
            &["CLASS", "PREFIX"],
            rows.iter().map(|row| vec![row.class.to_string(), row.prefix.clone()]),
        ),
        Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
    })?;
    Ok(Done::Success)
}

/// Says when the file that is explained is not what packets are counted by.
fn warn_if_not_in_force(global: &Global, config: &Config, file: &ClassFile) {
    let Ok(info) = load::open(&global.pinned()).and_then(|maps| counters::class_table(&maps)) else { return };
    if info.hash != traffic_classes::compile(&file.entries, config.class_order).hash() {
        tracing::warn!(
            "the class file differs from the table in force; `trafctl classes load` takes it over"
        );
    }
}

fn explain(
    global: &Global,
    config: &Config,
    address: IpAddr,
    (path, format): (Option<&PathBuf>, Format),
) -> anyhow::Result<Done> {
    let file = match path.cloned().or_else(|| class_source::locate(config)) {
        Some(path) => class_source::read(&path)?,
        None => ClassFile::shipped(),
    };
    if path.is_none() {
        warn_if_not_in_force(global, config, &file);
    }
    let explanation = traffic_classes::explain(&file, config.class_order, address);
    print(&match format {
        Format::Table => explanation.to_string(),
        Format::Json => serde_json::to_string_pretty(&explanation)? + "\n",
    })?;
    Ok(Done::Success)
}
