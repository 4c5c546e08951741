//! `trafctl config`: checks the configuration, and shows what is in force and where it comes from.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use traffic_ledger::Ledger;

use crate::{
    class_source::{self, Known, Wanted, Word},
    cli::{Done, Format, Global, output::print},
    config::{Config, DEFAULT_PATH, mistakes},
    drain::ledger_path,
    files,
    kernel::load,
    net::netlink::Netlink,
    ownership::Ownership,
    render::config::{self as render, Checked, Shown},
};

/// Check the configuration, and show what is in force and where it comes from
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl config check && systemctl reload trafctl\n  \
    trafctl config show\n  \
    trafctl config show --format json | jq .settings")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check a configuration file, and how it fits this node
    ///
    /// Lists every mistake in the file with its line, unknown keys among them. If there is none, it compares
    /// the configuration with the node: the class file, the files that name owners, an address that two
    /// containers claim, uplinks that do not exist, limits that differ from the maps, and a time zone or
    /// billing day that differs from the ledger. Changes nothing. The status is 2 if the file has a mistake,
    /// and 1 if something does not fit.
    #[command(after_long_help = "Examples:\n  \
        trafctl config check\n  \
        trafctl config check new.toml && mv new.toml /etc/trafctl/trafctl.toml")]
    Check {
        /// Configuration file [default: the one that every command uses]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show every setting in force, and the line that sets it
    ///
    /// While the file has a mistake, the settings are those of the last configuration without one, and the
    /// status is 1.
    #[command(after_long_help = "Examples:\n  trafctl config show\n  trafctl config show --format json")]
    Show {
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// The status of a file with a mistake.
const REFUSED: u8 = 2;

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    match &options.action {
        Action::Check { file, format } => {
            check(global, file.as_deref().or(global.config.as_deref()), *format)
        }
        Action::Show { format } => show(global, *format),
    }
}

fn check(global: &Global, file: Option<&Path>, format: Format) -> anyhow::Result<Done> {
    let path = file.unwrap_or(Path::new(DEFAULT_PATH));
    let mut checked =
        Checked { file: path.to_owned(), exists: true, mistakes: Vec::new(), problems: Vec::new() };
    match Config::load(file) {
        Ok(config) => {
            checked.exists = path.exists();
            checked.problems = problems(global, &config);
        }
        Err(error) => {
            let text = files::read_text(path, files::MOST_CONFIG_BYTES);
            checked.mistakes = text.map(|text| mistakes(&text)).unwrap_or_default();
            if checked.mistakes.is_empty() {
                // The file cannot be read.
                checked.problems.push(format!("{:#}", anyhow::Error::new(error)));
                print(&render::checked(&checked, format.into())?)?;
                return Ok(Done::Status(REFUSED));
            }
        }
    }
    print(&render::checked(&checked, format.into())?)?;
    Ok(match (checked.mistakes.is_empty(), checked.problems.is_empty()) {
        (false, _) => Done::Status(REFUSED),
        (true, is_good) => Done::success_if(is_good),
    })
}

/// What of a configuration without a mistake does not fit this node.
fn problems(global: &Global, config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(config.renamed_key_hint().map(str::to_owned));
    found.extend(class_file(global, config));
    match Ownership::read(config, &global.state_dir, None) {
        Ok(ownership) => found.extend(ownership.problems()),
        Err(error) => found.push(format!("cannot read who owns which interface and address: {error:#}")),
    }
    found.extend(missing_uplinks(config));
    found.extend(identity_command(config));
    found.extend(limits(global, config));
    found.extend(calendar(global, config));
    found
}

/// Why the class file would not be loaded.
fn class_file(global: &Global, config: &Config) -> Option<String> {
    if config.class_file.is_none() && class_source::locate(config).is_none() {
        // All traffic is class 1, as with Virtuozzo.
        return None;
    }
    let loaded = match class_source::compiled(config, Wanted::Configured) {
        Ok(loaded) => loaded,
        Err(error) => return Some(format!("{error:#}")),
    };
    let known = load::open(&global.pinned()).map(|maps| Known::of_kernel(&maps, &global.state_dir));
    let barred = loaded.admit(&known.unwrap_or_default(), config.hold_limit, Word::None).err();
    barred.map(|barred| barred.to_string())
}

fn missing_uplinks(config: &Config) -> Option<String> {
    if config.uplinks.is_empty() {
        return None;
    }
    let interfaces = match Netlink::connect().and_then(|netlink| netlink.interfaces()) {
        Ok(interfaces) => interfaces,
        Err(error) => return Some(format!("cannot list the interfaces to find the uplinks: {error:#}")),
    };
    let is_missing = |uplink: &&String| !interfaces.iter().any(|interface| interface.is_called(uplink));
    let missing: Vec<_> = config.uplinks.iter().filter(is_missing).map(String::as_str).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "[node] uplinks: no interface is called {}; correct the name, or the node's own traffic is not counted \
             there",
            missing.join(" or ")
        )
    })
}

fn identity_command(config: &Config) -> Option<String> {
    let program = config.identity_command.as_ref()?.words.first()?;
    let why = match fs::metadata(program) {
        Err(error) => error.to_string(),
        Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => return None,
        Ok(_) => "it is no program".to_owned(),
    };
    Some(format!("[identities] command: {program} cannot be run: {why}; correct the path"))
}

/// Limits that are not those of the maps. Without counters they take effect with the first start.
fn limits(global: &Global, config: &Config) -> Option<String> {
    let maps = load::open(&global.pinned()).ok()?;
    let in_force =
        maps.meta.get(0).ok().and_then(|meta| load::limits_in_force(&global.pinned(), &meta).ok())?;
    let difference = config.limits.difference(&in_force)?;
    Some(format!(
        "[limits] has {difference}; larger limits take effect with `trafctl attach` or a reload, smaller ones only \
         when the counters start over"
    ))
}

/// A calendar that is not the ledger's, which keeps the one that it was created with.
fn calendar(global: &Global, config: &Config) -> Option<String> {
    let ledger = Ledger::open_read_only(&ledger_path(&global.state_dir)).ok()?;
    let kept = ledger.calendar();
    let (zone, day) = (config.calendar.zone_name(), config.calendar.billing_day());
    (!kept.is_same(zone, day)).then(|| {
        format!(
            "[ledger] has time_zone = {zone:?} and billing_day = {day}, but the ledger was created with {:?} and {}, \
             which are fixed; set those",
            kept.zone_name(),
            kept.billing_day()
        )
    })
}

fn show(global: &Global, format: Format) -> anyhow::Result<Done> {
    let chosen = Config::load_to_show(global.config.as_deref(), &global.state_dir);
    let source = chosen.origin.source();
    let text = source.map_or("", |source| source.text.as_str());
    let shown = Shown {
        file: global.config.clone().unwrap_or_else(|| DEFAULT_PATH.into()),
        mistake: chosen.origin.mistake.as_ref().map(ToString::to_string),
        source: source.map(|source| source.path.clone()),
        class_file: class_source::locate(&chosen.config),
        settings: chosen.config.settings(text),
    };
    print(&render::shown(&shown, format.into())?)?;
    Ok(Done::success_if(shown.mistake.is_none()))
}
