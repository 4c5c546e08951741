//! `trafctl classes check`

use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use traffic_classes::{CheckContext, CheckReport};

use crate::{
    class_source,
    cli::{Done, Format, Global, output::print},
    config::Config,
    kernel::{load, tables},
    render::json,
};

/// Check a class file: its problems, what each class covers, and what would not be billed
///
/// Checks under the configuration in force: its class order and its limits. Lists lines without effect, and
/// the difference to the table in force if that can be read. Text lists the first 20 problems of a kind, JSON
/// lists up to 1,000 refused lines of each kind. The status is 2 if the file is refused; with --strict it is 1
/// if there are warnings.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:\n  trafctl classes check /etc/vz/conf/networks_classes\n  \
                             trafctl classes convert --class 2 --from plain list | trafctl classes check -")]
pub(super) struct CheckOptions {
    /// Class file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// End with status 1 if there are warnings
    #[arg(long)]
    strict: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The status of a file that is refused.
const REFUSED: u8 = 2;

pub(super) fn run(global: &Global, config: &Config, options: &CheckOptions) -> anyhow::Result<Done> {
    let file = traffic_classes::parse(&class_source::read_bytes(&options.file)?);
    let in_force = in_force(global);
    let report = CheckReport::new(
        &file,
        CheckContext {
            order: config.class_order,
            most_classes: usize::try_from(config.limits.classes).ok(),
            in_force: in_force.as_deref(),
            names: Some(&config.class_names),
        },
    );
    print(&match options.format {
        Format::Table => report.to_string(),
        Format::Json => json::document(&report)?,
    })?;
    Ok(if !report.is_acceptable() {
        Done::Status(REFUSED)
    } else {
        Done::success_if(!options.strict || !report.has_warnings())
    })
}

/// The prefixes in force. Without counters, or for a user who may not read them, there is nothing to compare.
fn in_force(global: &Global) -> Option<Vec<(IpNet, u8)>> {
    let maps = load::open(&global.pinned()).ok()?;
    tables::in_force(&maps).ok()
}
