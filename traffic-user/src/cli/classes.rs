//! `trafctl classes`

mod check;
mod convert;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::Serialize;
use traffic_classes::{ClassFile, ClassOrder, ClassTable};
use traffic_model::notation::parse_network;

use crate::{
    class_source::{self, ALL_UNBILLED},
    cli::{Done, Format, Global, output::print, progress::Progress},
    config::Config,
    drain::{self, Drainer},
    kernel::{
        counters, load,
        tables::{self, LoadLock},
    },
    privileges,
    render::{self, json},
};

/// Convert, check, load, list and explain network classes
///
/// A class file has Virtuozzo's `networks_classes` format: one `CLASS ADDRESS/PREFIX` per line, and `#` for
/// comments. The configuration's `class_order` decides between several matching lines.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl classes convert --class 2 --from plain ua-ix.txt > ua-ix\n  \
    trafctl classes check new_classes && trafctl classes load new_classes\n  \
    trafctl classes list\n  \
    trafctl classes explain 203.0.113.7\n  \
    trafctl classes explain 10.0.0.0/8")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Check(check::CheckOptions),
    Convert(convert::ConvertOptions),
    /// Load a class file into the kernel, as a whole or not at all
    ///
    /// Every packet is counted under either the old table or the new one. `trafctl run` loads the configured
    /// file again when that file changes.
    #[command(after_long_help = "Examples:\n  trafctl classes load\n  trafctl classes load new_classes")]
    Load {
        /// Class file [default: the configured file]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Load it although it puts every address into class 0, so that nothing is billed
        #[arg(long)]
        force: bool,
    },
    /// List the prefixes in force, or those that a file would put in force
    #[command(
        after_long_help = "Examples:\n  trafctl classes list\n  trafctl classes list --file new_classes \
                           --format json"
    )]
    List {
        /// Class file [default: the table in the kernel]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Explain which class an address or a prefix has, and which line decides
    ///
    /// For an address, also lists the other matching lines and why they do not decide. For a prefix, lists
    /// its parts with class, deciding line and share; the largest parts come first. While the configured file
    /// cannot be used, explains by the table in force, with status 1.
    #[command(after_long_help = "Examples:\n  \
        trafctl classes explain 10.10.16.7\n  \
        trafctl classes explain 10.0.0.0/8\n  \
        trafctl classes explain 2001:db8::1 --file new_classes")]
    Explain {
        /// Address or prefix of the remote side
        #[arg(value_name = "ADDRESS", value_parser = parse_network)]
        peer: IpNet,
        /// Class file [default: the configured file]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    match &options.action {
        Action::Check(options) => check::run(global, &global.config_to_show().0, options),
        // A filter needs no configuration.
        Action::Convert(options) => convert::run(options),
        Action::Load { file, force } => load_file(global, &global.config()?, file.as_deref(), *force),
        Action::List { file, format } => {
            let (config, is_usable) = global.config_to_show();
            list(global, &config, file.as_deref(), *format)?;
            Ok(Done::success_if(is_usable))
        }
        Action::Explain { peer, file, format } => {
            let (config, is_usable) = global.config_to_show();
            let (text, is_by_file) = explain(global, &config, *peer, (file.as_deref(), *format))?;
            print(&text)?;
            Ok(Done::success_if(is_usable && is_by_file))
        }
    }
}

/// What a failed load leaves behind.
const UNCHANGED: &str = "nothing was loaded, and the table in force stays in force";

fn load_file(global: &Global, config: &Config, path: Option<&Path>, force: bool) -> anyhow::Result<Done> {
    let table = match path {
        Some(path) => {
            class_source::read(path).map(|file| traffic_classes::compile(&file.entries, config.class_order))
        }
        None => class_source::configured_table(config),
    };
    let table = table.context(UNCHANGED)?;
    ensure!(
        force || !table.is_all_unclassified(),
        "{ALL_UNBILLED}: {UNCHANGED}; give the right file, or --force"
    );
    print(&put_in_force(global, config, path, table)?)?;
    Ok(Done::Success)
}

/// Replaces the table in force, after a drain and under the lock, stores the table in the ledger, and records
/// the file it came from. `source` is that file, or `None` for the configured one. Returns the line to print.
pub(super) fn put_in_force(
    global: &Global,
    config: &Config,
    source: Option<&Path>,
    table: ClassTable,
) -> anyhow::Result<String> {
    privileges::require()?;
    let bpffs = global.pinned();
    // Before waiting for another loader: if nothing is loaded, there is no need to wait.
    load::open(&bpffs)?;
    global.migrate_ledger();
    let _loading = LoadLock::take(&bpffs).context(UNCHANGED)?;
    let progress = Progress::start("loading classes");
    let prepared = tables::prepare(&load::open(&bpffs)?, &table, &|done, of| progress.set(done, of));
    drop(progress);
    let prepared = prepared.context(UNCHANGED)?;
    let maps = {
        // Only now: while the table was built, interfaces were attached and counters were drained.
        let _lock = bpffs.lock().context(UNCHANGED)?;
        let mut maps = load::open(&bpffs).context(UNCHANGED)?;
        drain::drain_before_change(config, &global.state_dir, &maps).context(UNCHANGED)?;
        prepared.switch(&mut maps).context("cannot switch to the new class table")?;
        maps
    };
    let result = class_source::in_force(&table) + "\n";
    // The record only adds to what `status` reports, so the load succeeds without it.
    if let Err(error) = class_source::record_loaded_file(&global.state_dir, source, &table) {
        tracing::warn!("cannot record where the class table came from: {error:#}");
    }
    if let Some(drainer) = Drainer::open_existing(config, &global.state_dir)? {
        drainer.store_class_table(&maps, || Ok(table))?;
    }
    Ok(result)
}

/// A row of a class table.
#[derive(Debug, Serialize)]
struct Row {
    class: u8,
    prefix: String,
}

fn list(global: &Global, config: &Config, path: Option<&Path>, format: Format) -> anyhow::Result<()> {
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
        Format::Json => json::list("prefixes", &rows)?,
    })
}

/// Warns if the explained file is not the table that packets are counted under.
fn warn_if_not_in_force(global: &Global, config: &Config) {
    let Ok(info) = load::open(&global.pinned()).and_then(|maps| counters::class_table(&maps)) else { return };
    if let Some(difference) =
        class_source::difference_from_table_in_force(config, &global.state_dir, &info.hash)
    {
        tracing::warn!("{difference}");
    }
}

/// The explanation of an address or a prefix, as it is printed.
/// The file to explain by, and the rule by which it is compiled. While the configured file cannot be used,
/// packets are counted by the table in force, so that is taken instead; `false` says so.
fn file_to_explain(
    global: &Global,
    config: &Config,
    path: Option<&Path>,
) -> anyhow::Result<(ClassFile, ClassOrder, bool)> {
    if let Some(path) = path {
        return Ok((class_source::read(path)?, config.class_order, true));
    }
    let error = match class_source::locate(config).or_else(|| config.class_file.clone()) {
        None => {
            warn_if_not_in_force(global, config);
            return Ok((ClassFile::shipped(), config.class_order, true));
        }
        Some(path) => match class_source::read(&path) {
            Ok(file) => {
                warn_if_not_in_force(global, config);
                return Ok((file, config.class_order, true));
            }
            Err(error) => error,
        },
    };
    let Ok(held) = load::open(&global.pinned()).and_then(|maps| tables::in_force(&maps)) else {
        return Err(error);
    };
    tracing::error!("{error:#}");
    tracing::warn!("explained by the table in force instead; its lines are those of `trafctl classes list`");
    let text: String = held.into_iter().map(|(prefix, class)| format!("{class} {prefix}\n")).collect();
    // It is compiled: what an order decides was decided when it was loaded.
    Ok((traffic_classes::parse(text.as_bytes()), ClassOrder::LongestPrefix, false))
}

/// Returns the explanation, and whether it is by the file that was meant.
fn explain(
    global: &Global,
    config: &Config,
    peer: IpNet,
    (path, format): (Option<&Path>, Format),
) -> anyhow::Result<(String, bool)> {
    let (file, order, is_by_file) = file_to_explain(global, config, path)?;
    if peer.prefix_len() == peer.max_prefix_len() {
        let explanation = traffic_classes::explain(&file, order, peer.addr());
        let text = match format {
            Format::Table => explanation.to_string(),
            Format::Json => json::document(&explanation)?,
        };
        return Ok((text, is_by_file));
    }
    let explanation = traffic_classes::explain_prefix(&file, order, peer);
    let text = match format {
        Format::Table => explanation.to_string(),
        Format::Json => json::document(&explanation)?,
    };
    Ok((text, is_by_file))
}
