//! `trafctl status`

use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;

use crate::{
    cli::{Done, Format, Global, output::print},
    kernel::load,
    node::status::{Detail, Readings, Status, gather},
    render::{nagios, status as render},
};

/// Check that everything is attached and recorded, and show how full the tables are
///
/// Also shows whether the class file and the table in force differ, which months are to be closed, and what gaps
/// in them lost. Status 1 if an interface that should be attached is not, if another program runs before
/// trafctl's, if a hook counts twice, if packets of an interface are in no counter, if nothing can be recorded,
/// or if a file has a mistake. With a mistake in the configuration, it compares with the last one that had none.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  trafctl status\n  trafctl status --format json | jq .problems\n  \
    trafctl status --nagios\n\n\
    The kernel keeps run counts and times while `sysctl kernel.bpf_stats_enabled=1` is set.")]
pub struct Options {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print the result of a plugin for Nagios or Icinga, and end with its status
    ///
    /// The first line has a summary and figures, then there is a line for each problem. Status 2 if traffic is
    /// not counted or not recorded, 1 for other problems, 3 if the state cannot be read.
    #[arg(long, conflicts_with = "format")]
    nagios: bool,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let status = read(global).await;
    if options.nagios {
        let (text, severity) = match &status {
            Ok(status) => nagios::result(status, Timestamp::now()),
            Err(error) => nagios::unknown(error),
        };
        print(&text)?;
        return Ok(Done::Status(severity as u8));
    }
    let status = status?;
    warn_of_unnamed_programs(&status);
    print(&match options.format {
        Format::Table => render::table(&status, Timestamp::now()),
        Format::Json => render::json(&status)?,
    })?;
    Ok(Done::success_if(status.problems.is_empty()))
}

async fn read(global: &Global) -> anyhow::Result<Status> {
    let maps = Arc::new(load::open(&global.pinned())?);
    let mut host = global.host_to_show(global.pinned())?;
    let readings = Readings::begin(&host, &global.state_dir, &maps, Detail::Node)?;
    host.survey(readings.interfaces());
    host.ask_if_needed(readings.interfaces()).await;
    gather(&host, &global.state_dir, &maps, readings)
}

fn warn_of_unnamed_programs(status: &Status) {
    let hooks = status.attachments.iter().flat_map(|attachment| [&attachment.incoming, &attachment.outgoing]);
    let unnamed: usize = hooks.map(|hook| hook.unnamed).sum();
    if unnamed > 0 {
        tracing::warn!(
            "the hooks hold {unnamed} programs whose names cannot be read without CAP_SYS_ADMIN: they may \
             belong to a second trafctl"
        );
    }
}
