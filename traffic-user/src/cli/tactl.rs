//! `trafctl vztactl`, and the program under this name.

use std::ffi::OsString;

use anyhow::Context as _;
use clap::Args;
use traffic_model::ContainerId;

use crate::{
    class_source::{self, Barred, Loaded, Wanted, Word},
    cli::{
        Done, Global,
        classes::{AfterLoad, put_in_force},
        netstat::counted_ids,
        output::{print, print_error, print_message, print_plain},
    },
    kernel::{counters, load, tables},
    ownership::UnknownContainer,
    vz::{
        reset_baseline::BaselineFile,
        tactl::{self, Asked, status},
    },
};

/// Load classes and reset counters as Virtuozzo's `vztactl` does
///
/// Commands: class_load [-s] FILE, class_unload, class_list, reset_ve_stat ID, reset_all_stat, event NAME.
/// Texts and exit statuses are Virtuozzo's: 2 for a file, 6 for an option, 10 for a command. The program also
/// runs under the name `vztactl`.
///
/// With -s the longest prefix decides, and class 0 goes first; without it the last matching line decides. A
/// reset leaves the counters alone: it stores a reading (marks.json in the state directory), and vznetstat
/// shows what came since. The ledger and `trafctl dump` are not affected; `trafctl dump --since-mark` shows
/// what vznetstat does. An event is accepted and has no effect.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl vztactl class_load -s /etc/vz/conf/networks_classes\n  \
    trafctl vztactl reset_ve_stat 101\n  \
    ln -s /usr/sbin/trafctl /usr/sbin/vztactl && vztactl class_list")]
pub struct Options {
    /// Virtuozzo's command and its options
    #[arg(value_name = "VZ_COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) arguments: Vec<OsString>,
}

/// A failure with the exit status that Virtuozzo gives it.
struct Failure {
    status: u8,
    error: anyhow::Error,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { status: status::REFUSED, error }
    }
}

fn with_status(status: u8) -> impl Fn(anyhow::Error) -> Failure {
    move |error| Failure { status, error }
}

pub(super) fn run(global: &Global, arguments: &[OsString]) -> anyhow::Result<Done> {
    let asked = match tactl::parse(arguments) {
        Ok(asked) => asked,
        Err(misuse) => {
            match misuse.message {
                Some(message) => print_message(&message),
                None => print_plain(tactl::USAGE),
            }
            return Ok(Done::Status(misuse.status));
        }
    };
    match act(global, &asked) {
        Ok(text) => print(&text).map(|()| Done::Success),
        Err(Failure { status, error }) => {
            print_error(&error);
            Ok(Done::Status(status))
        }
    }
}

/// A file that is held or empty is unusable, as one with a wrong line is.
fn barred_as_file(error: anyhow::Error) -> Failure {
    let status = if error.is::<Barred>() { status::FILE } else { status::REFUSED };
    Failure { status, error }
}

/// Gives the text to print.
fn act(global: &Global, asked: &Asked) -> Result<String, Failure> {
    if let Asked::Event(unknown) = asked {
        if let Some(name) = unknown {
            tracing::warn!("Unknown event: {name}");
        }
        return Ok(String::new());
    }
    let maps = load::open(&global.pinned()).map_err(with_status(status::NO_COUNTERS))?;
    match asked {
        Asked::ClassLoad(path, order) => {
            let config = global.config()?;
            let loaded = class_source::compiled(&config, Wanted::Named(path, *order));
            let loaded = loaded.map_err(with_status(status::FILE))?;
            // Scripts expect no more on stderr.
            class_source::log_line_warnings(path, &loaded.file);
            put_in_force(global, &config, loaded, Word::None, AfterLoad::RenewShadow)
                .map_err(barred_as_file)?;
            Ok("Classes loaded successfully.\n".to_owned())
        }
        Asked::ClassUnload => {
            let config = global.config()?;
            put_in_force(
                global,
                &config,
                Loaded::nothing(config.class_order),
                Word::Given,
                AfterLoad::RenewShadow,
            )?;
            Ok("Classes unloaded successfully.\n".to_owned())
        }
        Asked::ClassList => Ok(tactl::class_list(&tables::in_force(&maps)?)),
        Asked::ResetOne(id) => {
            reset(global, Some(id)).context("Reset failed")?;
            Ok(format!("Counters for Container {id} reseted.\n"))
        }
        Asked::ResetAll => {
            reset(global, None).context("Reset failed")?;
            Ok("Counters reseted.\n".to_owned())
        }
        Asked::Event(_) => Ok(String::new()),
    }
}

/// Stores a reading of all counters, or of one container's, as the new reset baseline.
fn reset(global: &Global, only: Option<&ContainerId>) -> anyhow::Result<()> {
    let bpffs = global.pinned();
    let _lock = bpffs.lock()?;
    let snapshot = counters::read(&load::open(&bpffs)?, "")?;
    let counted = snapshot.containers();
    let ids = only.map(|id| counted_ids(global, &counted, std::slice::from_ref(id))).transpose()?;
    if let Some([id]) = ids.as_deref()
        && !counted.contains(id)
        && id.as_str() != crate::vz::NODE
    {
        return Err(UnknownContainer {
            name: id.to_string(),
            why: "nothing has been counted for it",
            advice: "`vznetstat` lists the ids that are counted",
        }
        .into());
    }
    let file = BaselineFile::new(&global.state_dir);
    let mut baselines = file.read()?;
    match ids {
        None => baselines.set(&snapshot, None),
        Some(ids) => ids.iter().for_each(|id| baselines.set(&snapshot, Some(id))),
    }
    file.write(&baselines)
}
