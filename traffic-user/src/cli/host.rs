//! `trafctl host`

use clap::Args;

use crate::{
    cli::{Done, Format, Global, output::print},
    node::host_report,
    render::host as render,
};

/// Show which container platforms are on this host, and whose each interface is
///
/// Lists the platforms that were found and what shows them, each interface with its container and what assigns
/// it, what is counted for an owner who is not known yet, and what is not counted: what looks like a container's
/// interface, and devices in containers that have no end on this host. Needs no counters. Status 1 if anything is
/// not counted, or if a platform's file cannot be used.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl host\n  \
    trafctl host --format json | jq '.interfaces[] | {interface, container, name}'")]
pub struct Options {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let mut host = global.host_to_show(global.pinned())?;
    let interfaces = host.netlink.interfaces()?;
    host.survey(&interfaces);
    host.ask_if_needed(&interfaces).await;
    let counted_for = host_report::counted_for(&host, &interfaces)?;
    let report = host_report::describe(&host.policy, &interfaces, &counted_for);
    print(&match options.format {
        Format::Table => render::table(&report),
        Format::Json => render::json(&report)?,
    })?;
    Ok(Done::success_if(report.is_good()))
}
