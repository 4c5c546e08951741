//! `trafctl adjust`: corrects closed months.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use traffic_common::Family;
use traffic_ledger::AdjustmentRequest;
use traffic_model::{ContainerId, units};

use crate::{
    cli::{Done, Format, Global, confirm::Confirm, format::parse_class, print},
    render::ledger as render,
    time,
};

/// Correct a closed month without changing its frozen figures
///
/// A correction is a row of its own. Without --yes, the command only shows its effect. A correction cannot be
/// removed, only followed by another one. `trafctl report` shows frozen figures, corrections and the amounts
/// to bill; `trafctl audit` checks them.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl adjust 2026-10 --container 101 --class 1 --family ipv4 --in -1.5GB --reason \"flood of October 12, ticket 4711\"\n  \
    trafctl adjust 2026-10 --container 101 --class 1 --family ipv4 --in -1.5GB --reason \"flood of October 12, ticket 4711\" --yes\n  \
    trafctl adjust 2026-10 --container 7 --class 2 --family ipv6 --out 200MiB --out-packets 150000 --reason \"gap of October 3\" --yes")]
pub struct Options {
    /// The closed billing month
    #[arg(value_name = "YYYY-MM")]
    month: String,
    /// Id or label of the container in the closed month; without --yes, also its name
    #[arg(long, value_name = "ID")]
    container: String,
    /// The class
    #[arg(long, value_name = "N", value_parser = parse_class)]
    class: u8,
    /// IPv4 or IPv6 [default: the one in the closed month, if it has only one]
    #[arg(long, value_enum)]
    family: Option<FamilyName>,
    /// Layer-3 bytes to the container to add, or to subtract: -1.5GB, 200MiB, 1048576
    #[arg(long = "in", value_name = "BYTES", default_value = "0", allow_hyphen_values = true,
        value_parser = units::parse_signed_bytes)]
    in_bytes: i64,
    /// Layer-3 bytes from the container to add, or to subtract
    #[arg(long = "out", value_name = "BYTES", default_value = "0", allow_hyphen_values = true,
        value_parser = units::parse_signed_bytes)]
    out_bytes: i64,
    /// Packets to the container to add, or to subtract
    #[arg(long, value_name = "N", default_value_t = 0, allow_hyphen_values = true)]
    in_packets: i64,
    /// Packets from the container to add, or to subtract
    #[arg(long, value_name = "N", default_value_t = 0, allow_hyphen_values = true)]
    out_packets: i64,
    /// Reason in one line; it is kept forever and shown in reports
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    confirm: Confirm,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FamilyName {
    Ipv4,
    Ipv6,
}

impl From<FamilyName> for Family {
    fn from(name: FamilyName) -> Self {
        match name {
            FamilyName::Ipv4 => Self::Ipv4,
            FamilyName::Ipv6 => Self::Ipv6,
        }
    }
}

/// The container as the closed month has it: the label as it is, and for a name the id.
fn container_of(global: &Global, options: &Options) -> anyhow::Result<String> {
    match ContainerId::new(&options.container) {
        Ok(typed) => Ok(global.meant(&global.config_to_show().0, &typed, options.confirm)?.to_string()),
        Err(_) => Ok(options.container.clone()),
    }
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let request = AdjustmentRequest {
        period: options.month.clone(),
        container: container_of(global, options)?,
        class: options.class,
        family: options.family.map(Family::from),
        packets: [options.in_packets, options.out_packets],
        bytes: [options.in_bytes, options.out_bytes],
        reason: options.reason.clone(),
        made: time::now()?,
    };
    let adjusted = if options.confirm.yes {
        global.ledger_for_writing()?.adjust(&request)
    } else {
        global.ledger()?.preview_adjustment(&request)
    };
    let adjusted = adjusted.with_context(|| format!("cannot correct {}", options.month))?;
    print(&render::adjusted(&adjusted, options.format.into(), &global.class_names())?)?;
    Ok(options.confirm.done())
}
