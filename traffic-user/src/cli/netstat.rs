//! `trafctl vznetstat` and `trafctl pnetstat`, and the names themselves.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
};

use clap::Args;
use traffic_model::{ContainerId, Snapshot};

use crate::{
    cli::{Done, Global, print, say},
    config::Config,
    kernel::{counters, load, tables},
    ownership::vz_conf,
    vz::{
        self,
        netstat::{self, Asked, Misuse, Name, Request},
        reset_baseline::MarkFile,
    },
};

/// Statuses that are Virtuozzo's.
const USAGE: u8 = 1;
const NO_COUNTERS: u8 = 7;
const INVALID_VALUE: u8 = 250;

/// Show the counters as Virtuozzo's `vznetstat` does
///
/// The same options, columns and statuses; also under the name `vznetstat`. Options: -4, -6 one family; -v ID this
/// container, may be repeated; -c CLASS this class, may be repeated; -a all classes; -r bytes in K, M, G; -h usage.
/// Status 1 for a wrong option, 250 for a wrong value, 7 when nothing is counted yet.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl vznetstat\n  \
    trafctl vznetstat -v 101 -c 1 | tail -n 1\n  \
    ln -s /usr/sbin/trafctl /usr/sbin/vznetstat && vznetstat -4a\n\n\
    Under its own name it is told by TRAFCTL_BPFFS, TRAFCTL_STATE_DIR and TRAFCTL_CONFIG where things are.")]
pub struct VznetstatOptions {
    /// Virtuozzo's options
    #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) arguments: Vec<OsString>,
}

/// Show the counters as Virtuozzo's `pnetstat` does
///
/// As vznetstat, with one option more: -t ct, vm or all. Also under the name `pnetstat`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl pnetstat -t vm\n  \
    trafctl pnetstat -t ct -c 1")]
pub struct PnetstatOptions {
    /// Virtuozzo's options
    #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) arguments: Vec<OsString>,
}

pub(super) fn run(global: &Global, name: Name, arguments: Vec<OsString>) -> anyhow::Result<Done> {
    let (mut request, ignored) = match netstat::parse(arguments) {
        Ok(Asked::Show(request, ignored)) => (request, ignored),
        Ok(Asked::Help) => return print(&netstat::usage(name)).map(|()| Done::Success),
        Err(misuse) => return Ok(refuse(name, &misuse)),
    };
    if !ignored.is_empty() {
        tracing::warn!("ignored, as no option takes it: {}", ignored.join(" "));
    }
    let maps = match load::open(&global.pinned()) {
        Ok(maps) => maps,
        Err(error) => {
            say(&error);
            return Ok(Done::Status(NO_COUNTERS));
        }
    };
    // The node's name is not shown.
    let mut snapshot = counters::read(&maps, "")?;
    // After the counters: a mark taken in between leaves nothing, and not everything.
    MarkFile::new(&global.state_dir).read()?.subtract_from(&mut snapshot);
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
    tracing::error!("{misuse}");
    match misuse {
        Misuse::Usage(_) => {
            eprint!("{}", netstat::usage(name));
            Done::Status(USAGE)
        }
        Misuse::Value(_) => Done::Status(INVALID_VALUE),
    }
}

/// Takes any id of a container for those that it is counted under.
fn resolve(global: &Global, snapshot: &Snapshot, request: &mut Request) -> anyhow::Result<()> {
    if request.containers.is_empty() {
        return Ok(());
    }
    let counted = snapshot.containers();
    let typed = std::mem::take(&mut request.containers);
    request.containers = counted_ids(global, &counted, &typed)?;
    Ok(())
}

/// See [`vz::counted_ids`]. A configuration that can't be read keeps nobody from figures that are there under the very id.
pub(super) fn counted_ids(
    global: &Global,
    counted: &BTreeSet<&ContainerId>,
    typed: &[ContainerId],
) -> anyhow::Result<Vec<ContainerId>> {
    let aliases = match global.config() {
        Ok(config) => aliases(&config),
        Err(error) if typed.iter().all(|id| counted.contains(id)) => {
            tracing::warn!("other ids of the containers are not looked for: {error:#}");
            HashMap::new()
        }
        Err(error) => return Err(error.context("cannot look for other ids of the containers")),
    };
    Ok(typed.iter().flat_map(|id| vz::counted_ids(id, counted, &aliases)).collect())
}

/// The ids that are of one container, as Virtuozzo's files tell.
pub(super) fn aliases(config: &Config) -> HashMap<ContainerId, ContainerId> {
    vz_conf::scan(&config.vz_conf_dir, None).aliases()
}
