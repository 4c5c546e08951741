//! `trafctl classes explain`

use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use traffic_model::notation::parse_network;

use crate::{
    class_source::{self, Basis, InForce},
    cli::{Done, Format, Global, output::print},
    config::Config,
    render::json,
};

/// Explain which class addresses and prefixes have, and which line decides
///
/// Answers from the table in force, and says when the configured file differs from it. For an address, also
/// lists the other matching lines and why they do not decide. For a prefix, lists its parts with class,
/// deciding line and share; the largest parts come first. While the configured file cannot be used, the
/// status is 1.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:\n  \
    trafctl classes explain 10.10.16.7\n  \
    trafctl classes explain 10.0.0.0/8 2001:db8::1\n  \
    trafctl classes explain 2001:db8::1 --file new_classes")]
pub(super) struct ExplainOptions {
    /// Addresses or prefixes of the remote side
    #[arg(value_name = "ADDRESS", required = true, value_parser = parse_network)]
    peers: Vec<IpNet>,
    /// Explain by this class file instead; - is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Output format; JSON has one document for each address
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(global: &Global, options: &ExplainOptions) -> anyhow::Result<Done> {
    let (config, is_config_usable) = global.config_to_show();
    let (basis, is_usable) = match &options.file {
        Some(path) => {
            let basis = Basis::of_file(path, config.class_order)?;
            class_source::log_line_warnings(path, &basis.file);
            (basis, true)
        }
        None => match InForce::of_kernel(&global.pinned(), &config, &global.state_dir) {
            Some(in_force) => {
                let is_usable = report_difference(&config, &in_force);
                (in_force.basis, is_usable)
            }
            None => (Basis::configured(&config)?, true),
        },
    };
    let names = class_source::class_names(&config, &global.state_dir);
    for (at, peer) in options.peers.iter().enumerate() {
        if at > 0 && options.format == Format::Table {
            print("\n")?;
        }
        let explained = basis.explain(*peer, names.clone());
        print(&match options.format {
            Format::Table => explained.to_string(),
            Format::Json => json::document(&explained)?,
        })?;
    }
    Ok(Done::success_if(is_config_usable && is_usable))
}

/// Logs how the configured file differs from the table in force; returns whether it can be used.
fn report_difference(config: &Config, in_force: &InForce) -> bool {
    let difference = in_force.difference.as_ref();
    let is_usable = difference.is_none_or(|difference| difference.refused.is_none());
    if let Some(difference) = difference {
        // A file that cannot be read or has a wrong line is reported with all of its first lines.
        match class_source::compiled(config, class_source::Wanted::Configured) {
            Err(error) => tracing::error!("{error:#}"),
            Ok(_) if is_usable => tracing::warn!("{difference}"),
            Ok(_) => tracing::error!("{difference}"),
        }
    }
    if in_force.only_prefixes {
        tracing::warn!(
            "the lines are those of `trafctl classes list`: the file that was loaded is not known"
        );
    }
    is_usable
}
