//! `trafctl status`

use clap::Args;

use crate::{
    cli::{Done, Format, Global, output::print},
    kernel::load,
    node::status::{Moment, Status, gather},
    render::status as render,
};

/// Check that everything is attached, and show how full the tables are
///
/// Also shows whether the class file and the table in force differ. Status 1 if an interface that should be
/// attached is not, if another program runs before trafctl's, if a hook counts twice, if packets of an
/// interface are in no counter, or if a file has a mistake. With a mistake in the configuration, it compares
/// with the last one that had none.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  trafctl status\n  trafctl status --format json | jq .problems\n\n\
    The kernel keeps run counts and times while `sysctl kernel.bpf_stats_enabled=1` is set.")]
pub struct Options {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let maps = load::open(&global.pinned())?;
    let mut host = global.host_to_show(global.pinned())?;
    let moment = Moment::read(&host, &maps)?;
    host.survey(moment.interfaces());
    host.ask_if_needed(moment.interfaces()).await;
    let status = gather(&host, &global.state_dir, &maps, moment)?;
    warn_of_unnamed_programs(&status);
    print(&match options.format {
        Format::Table => render::table(&status),
        Format::Json => render::json(&status)?,
    })?;
    Ok(Done::success_if(status.problems.is_empty()))
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
