//! `trafctl classes check`

use std::path::PathBuf;

use clap::Args;
use traffic_classes::{Candidate, CheckContext, CheckReport, Diagnostic, Severity};

use crate::{
    class_source::{self, Known},
    cli::{Done, Format, Global, output::print},
    kernel::load,
    render::json,
};

/// Check a class file: its problems, what each class covers, and what would not be billed
///
/// Checks under the configuration in force: its class order and its limits. Lists lines without effect, and
/// the difference to the table in force if that can be read, and whether the file would be held. Text lists
/// the first 20 problems of a kind, JSON lists up to 1,000 refused lines of each kind. The status is 2 if the
/// file is refused; with --strict it is 1 if there are warnings.
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

pub(super) fn run(global: &Global, options: &CheckOptions) -> anyhow::Result<Done> {
    let (config, is_usable) = global.config_to_show();
    let bytes = class_source::read_bytes(&options.file)?;
    let file = traffic_classes::parse(&bytes);
    let known = in_force(global);
    let mut report = CheckReport::new(
        &file,
        CheckContext {
            order: config.class_order,
            most_classes: usize::try_from(config.limits.classes).ok(),
            in_force: known.as_ref().map(Known::rows),
            names: Some(&config.class_names),
        },
    );
    let table = traffic_classes::compile(&file.entries, config.class_order);
    let held = known
        .unwrap_or_default()
        .holds(Candidate { bytes: &bytes, file: &file, table: &table }, config.hold_limit);
    if let Some(hold) = held.filter(|_| report.is_acceptable()) {
        let message = format!("the file would be held: {hold}; `trafctl classes load --yes` loads it");
        report.warnings.insert(0, Diagnostic { line: 0, severity: Severity::Warning, message });
    }
    if report.is_acceptable() && table.is_all_unclassified() {
        let message = "nothing would load the file, because every address would be class 0; `trafctl classes \
                       load --yes` loads it";
        let message = message.to_owned();
        report.warnings.insert(0, Diagnostic { line: 0, severity: Severity::Warning, message });
    }
    print(&match options.format {
        Format::Table => report.to_string(),
        Format::Json => json::document(&report)?,
    })?;
    Ok(if !report.is_acceptable() {
        Done::Status(REFUSED)
    } else {
        Done::success_if(is_usable && (!options.strict || !report.has_warnings()))
    })
}

/// The table in force. Without counters, or for a user who may not read them, there is nothing to compare.
fn in_force(global: &Global) -> Option<Known> {
    let maps = load::open(&global.pinned()).ok()?;
    Some(Known::of_kernel(&maps, &global.state_dir)).filter(|known| known.hash().is_some())
}
