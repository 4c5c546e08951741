//! `trafctl vznetstat` and `trafctl pnetstat`, and the program under these names.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
};

use clap::Args;
use traffic_model::{ContainerId, Snapshot};

use crate::{
    cli::{
        Done, Global,
        output::{print, print_error, print_message, print_plain},
    },
    config::Config,
    kernel::{counters, load, tables},
    ownership::vz_conf,
    vz::{
        self,
        netstat::{self, Asked, Misuse, Name, Request},
        reset_baseline::BaselineFile,
    },
};

/// Exit statuses, as Virtuozzo's.
const USAGE: u8 = 1;
const NO_COUNTERS: u8 = 7;
const INVALID_VALUE: u8 = 250;

/// Print the counters as Virtuozzo's `vznetstat` does
///
/// Options, columns and exit statuses are the same; the program also runs under the name `vznetstat`.
/// Options: -4 or -6 for one family; -v ID for one container, may be repeated; -c CLASS for one class, may be
/// repeated; -a for all classes; -r for bytes in K, M and G; -h for the usage. Status 1 for a wrong option,
/// 250 for a wrong value, 7 while nothing is counted.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl vznetstat\n  \
    trafctl vznetstat -v 101 -c 1 | tail -n 1\n  \
    ln -s /usr/sbin/trafctl /usr/sbin/vznetstat && vznetstat -4a\n\n\
    Under the name vznetstat, TRAFCTL_BPFFS, TRAFCTL_STATE_DIR and TRAFCTL_CONFIG replace the global options.")]
pub struct VznetstatOptions {
    /// Virtuozzo's options
    #[arg(value_name = "VZ_OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) arguments: Vec<OsString>,
}

/// Print the counters as Virtuozzo's `pnetstat` does
///
/// The options of vznetstat and one more: -t ct, vm or all. The program also runs under the name `pnetstat`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl pnetstat -t vm\n  \
    trafctl pnetstat -t ct -c 1")]
pub struct PnetstatOptions {
    /// Virtuozzo's options
    #[arg(value_name = "VZ_OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) arguments: Vec<OsString>,
}

pub(super) fn run(global: &Global, name: Name, arguments: Vec<OsString>) -> anyhow::Result<Done> {
    let (mut request, ignored) = match netstat::parse(arguments) {
        Ok(Asked::Show(request, ignored)) => (request, ignored),
        Ok(Asked::Help) => return print(&netstat::usage(name)).map(|()| Done::Success),
        Err(misuse) => return Ok(refuse(name, &misuse)),
    };
    if !ignored.is_empty() {
        tracing::warn!("ignored, because no option takes it: {}", ignored.join(" "));
    }
    let maps = match load::open(&global.pinned()) {
        Ok(maps) => maps,
        Err(error) => {
            print_error(&error);
            return Ok(Done::Status(NO_COUNTERS));
        }
    };
    // The node's name is not shown.
    let mut snapshot = counters::read(&maps, "")?;
    // After the counters: of a reset in between, nothing is shown rather than everything.
    BaselineFile::new(&global.state_dir).read()?.subtract_from(&mut snapshot);
    let in_use: BTreeSet<u8> = snapshot.counters.iter().map(|counter| counter.class).collect();
    if let Err(misuse) = request.check_classes(&in_use) {
        return Ok(refuse(name, &misuse));
    }
    resolve(global, &snapshot, &mut request)?;
    let configured = tables::classes_in_force(&maps, request.family)?;
    print(&netstat::render(&snapshot, &configured, &request))?;
    Ok(Done::Success)
}

fn refuse(name: Name, misuse: &Misuse) -> Done {
    print_message(&misuse.to_string());
    match misuse {
        Misuse::Usage(_) => {
            print_plain(&netstat::usage(name));
            Done::Status(USAGE)
        }
        Misuse::Value(_) => Done::Status(INVALID_VALUE),
    }
}

/// Replaces the ids that were typed by those that the containers are counted under.
fn resolve(global: &Global, snapshot: &Snapshot, request: &mut Request) -> anyhow::Result<()> {
    if request.containers.is_empty() {
        return Ok(());
    }
    let counted = snapshot.containers();
    let typed = std::mem::take(&mut request.containers);
    request.containers = counted_ids(global, &counted, &typed)?;
    Ok(())
}

/// See [`vz::counted_ids`]. Figures that are counted under the very id that was typed are shown even if the
/// configuration cannot be read.
pub(super) fn counted_ids(
    global: &Global,
    counted: &BTreeSet<&ContainerId>,
    typed: &[ContainerId],
) -> anyhow::Result<Vec<ContainerId>> {
    let aliases = match global.config_or_last_good() {
        Ok(config) => aliases(&config),
        Err(error) if typed.iter().all(|id| counted.contains(id)) => {
            tracing::warn!("other ids of the containers are not looked up: {error:#}");
            HashMap::new()
        }
        Err(error) => return Err(error.context("cannot look up other ids of the containers")),
    };
    Ok(typed.iter().flat_map(|id| vz::counted_ids(id, counted, &aliases)).collect())
}

/// The other ids of each container, by Virtuozzo's files.
pub(super) fn aliases(config: &Config) -> HashMap<ContainerId, ContainerId> {
    vz_conf::scan(&config.vz_conf_dir, None).aliases()
}
