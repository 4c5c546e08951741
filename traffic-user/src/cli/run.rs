//! `trafctl run`

use clap::Args;

use crate::{
    cli::{Done, Global},
    daemon,
    kernel::bpffs::Bpffs,
    privileges,
};

/// Attach, then follow interfaces as they appear and disappear
///
/// For a service manager (`Type=notify`). Changes of the class file and of Virtuozzo's container files take
/// effect at once. SIGHUP rereads everything, the configuration included; SIGTERM ends the process, and the
/// kernel keeps counting. Nothing is lost when the process is killed.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl run\n  \
    trafctl run --log-faults -v    show which packets are in no class, and why")]
pub struct Options {
    /// Log the reason for each packet that is counted as a fault (slow; for debugging)
    ///
    /// By number: direction 0 is in, 1 is out; fault 0 not_ip, 1 truncated, 2 malformed, 3 vlan_depth, 4
    /// no_container, 5 container_table_full, 6 unknown_interface, 7 no_class_table, 8 no_counter. Packets on
    /// uplinks are not logged.
    #[arg(long)]
    log_faults: bool,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    privileges::require()?;
    let bpffs = Bpffs::prepare(&global.bpffs)?;
    let (to_make, pinned) = (global.clone(), bpffs.clone());
    let make_host = move || to_make.host(pinned.clone());
    let (to_look, looked_at) = (global.clone(), bpffs.clone());
    let look = move || to_look.host_silently(looked_at.clone());
    daemon::run(&global.state_dir, &bpffs, (make_host, look), options.log_faults, global.quota_file())
        .await?;
    Ok(Done::Success)
}
