//! `trafctl classes`

mod check;
mod convert;
mod explain;
mod shadow;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::Serialize;

use crate::{
    class_source::{self, Known, Loaded, Wanted, Word},
    cli::{Done, Format, Global, output::print, progress::Progress},
    config::Config,
    drain::{self, Drainer},
    kernel::{
        load,
        tables::{self, LoadLock},
    },
    privileges,
    render::{self, json},
};

/// Convert, check, load, list and explain network classes, and try others out
///
/// A class file has Virtuozzo's `networks_classes` format: one `CLASS ADDRESS/PREFIX` per line, and `#` for
/// comments. The configuration's `class_order` decides between several matching lines.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl classes convert --class 2 --from plain ua-ix.txt > ua-ix\n  \
    trafctl classes check new_classes && trafctl classes load new_classes\n  \
    trafctl classes list\n  \
    trafctl classes explain 203.0.113.7\n  \
    trafctl classes explain 10.0.0.0/8\n  \
    trafctl classes shadow new_classes && trafctl classes shadow --report")]
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
        /// Class file; - is standard input [default: the configured file]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Load it although it is held, or puts every address into class 0, so that nothing is billed
        ///
        /// A file is held if it looks cut short, or if more of the prefixes in force would vanish than
        /// `[classes] hold_if_removed` allows.
        #[arg(long, alias = "force")]
        yes: bool,
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
    Explain(explain::ExplainOptions),
    Shadow(shadow::ShadowOptions),
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    match &options.action {
        Action::Check(options) => check::run(global, options),
        // A filter needs no configuration.
        Action::Convert(options) => convert::run(options),
        Action::Load { file, yes } => load_file(global, &global.config()?, file.as_deref(), *yes),
        Action::List { file, format } => {
            let (config, is_usable) = global.config_to_show();
            list(global, &config, file.as_deref(), *format)?;
            Ok(Done::success_if(is_usable))
        }
        Action::Explain(options) => explain::run(global, options),
        Action::Shadow(options) => shadow::run(global, options),
    }
}

/// What a failed load leaves behind.
const UNCHANGED: &str = "nothing was loaded, and the table in force stays in force";

fn load_file(global: &Global, config: &Config, path: Option<&Path>, yes: bool) -> anyhow::Result<Done> {
    let wanted = path.map_or(Wanted::Configured, |path| Wanted::Named(path, config.class_order));
    let loaded = class_source::compiled(config, wanted).context(UNCHANGED)?;
    loaded.log_warnings();
    let word = if yes { Word::Given } else { Word::None };
    print(&put_in_force(global, config, loaded, word, AfterLoad::RenewShadow)?)?;
    Ok(Done::Success)
}

/// What becomes of a shadow class table, whose pairs of classes do not hold any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterLoad {
    /// It begins anew.
    RenewShadow,
    /// It has done what it was for.
    EndShadow,
}

/// Replaces the table in force, after the gate and a drain and under the lock, stores the table in the ledger,
/// and records where it came from. Returns the line to print.
pub(super) fn put_in_force(
    global: &Global,
    config: &Config,
    loaded: Loaded,
    word: Word,
    after: AfterLoad,
) -> anyhow::Result<String> {
    privileges::require()?;
    let bpffs = global.pinned();
    // Before waiting for another loader: if nothing is loaded, there is no need to wait.
    load::open(&bpffs)?;
    global.migrate_ledger();
    let loading = LoadLock::take(&bpffs).context(UNCHANGED)?;
    let maps = load::open(&bpffs)?;
    let known = Known::of_kernel(&maps, &global.state_dir);
    let loaded = loaded.admit(&known, config.hold_limit, word).context(UNCHANGED)?;
    let progress = Progress::start("loading classes");
    let prepared = tables::prepare(&maps, &loaded.table, &|done, of| progress.set(done, of));
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
    let result = class_source::in_force(&loaded.table) + "\n";
    // The record only adds to what is reported, so the load succeeds without it.
    class_source::keep(&global.state_dir, &loaded);
    let stored = Drainer::open_existing(config, &global.state_dir).and_then(|drainer| match drainer {
        Some(drainer) => drainer.store_class_table(&maps, || Ok(loaded.table)),
        None => Ok(()),
    });
    drop(maps);
    // The switch has ended the shadow. Its memory and whatever follows are not worth failing a load that succeeded.
    match after {
        AfterLoad::RenewShadow => class_source::shadow::renew_or_log(&bpffs, &global.state_dir, &loading),
        AfterLoad::EndShadow => {
            if let Err(error) = class_source::shadow::end(&bpffs, &global.state_dir, &loading) {
                tracing::warn!("cannot clear away the shadow class table: {error:#}");
            }
        }
    }
    stored?;
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
            let file = class_source::read(path)?.0;
            class_source::log_line_warnings(path, &file);
            let table = traffic_classes::compile(&file.entries, config.class_order);
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
