//! `trafctl adjust`: corrections of closed months.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use traffic_common::Family;
use traffic_ledger::AdjustmentRequest;
use traffic_model::units;

use crate::{
    cli::{Done, Format, Global, print},
    render,
};

/// Correct a closed month: a row of its own beside the frozen figures, which stay as they are
///
/// Without --yes it only shows what the correction would come to. It cannot be taken back, only corrected by another
/// one. `trafctl report` shows frozen figures, corrections and what is to be billed; `trafctl audit` checks them.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl adjust 2026-10 --container 101 --class 1 --in -1.5GB --reason \"flood of October 12, ticket 4711\"\n  \
    trafctl adjust 2026-10 --container 101 --class 1 --in -1.5GB --reason \"flood of October 12, ticket 4711\" --yes\n  \
    trafctl adjust 2026-10 --container 7 --class 2 --out 200MiB --out-packets 150000 --reason \"gap of October 3\" --yes")]
pub struct Options {
    /// The closed billing month
    #[arg(value_name = "YYYY-MM")]
    month: String,
    /// The container, as the closed month has it
    #[arg(long, value_name = "ID")]
    container: String,
    /// The class
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=254))]
    class: u8,
    /// IPv4 or IPv6 [default: the one that the closed month has]
    #[arg(long, value_enum)]
    family: Option<FamilyName>,
    /// Layer-3 bytes to the container to add, or to take: -1.5GB, 200MiB, 1048576
    #[arg(long = "in", value_name = "BYTES", default_value = "0", allow_hyphen_values = true,
        value_parser = units::parse_signed_bytes)]
    in_bytes: i64,
    /// The same from the container
    #[arg(long = "out", value_name = "BYTES", default_value = "0", allow_hyphen_values = true,
        value_parser = units::parse_signed_bytes)]
    out_bytes: i64,
    /// Packets to the container to add, or to take
    #[arg(long, value_name = "N", default_value_t = 0, allow_hyphen_values = true)]
    in_packets: i64,
    /// The same from the container
    #[arg(long, value_name = "N", default_value_t = 0, allow_hyphen_values = true)]
    out_packets: i64,
    /// Why, in one line: it is kept for ever and shown in reports
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Write it
    #[arg(long)]
    yes: bool,
    /// How to write the result
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

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let request = AdjustmentRequest {
        period: options.month.clone(),
        container: options.container.clone(),
        class: options.class,
        family: options.family.map(Family::from),
        packets: [options.in_packets, options.out_packets],
        bytes: [options.in_bytes, options.out_bytes],
        reason: options.reason.clone(),
        made: Timestamp::now(),
    };
    let adjusted = if options.yes {
        global.ledger_for_writing()?.adjust(&request)
    } else {
        global.ledger()?.preview_adjustment(&request)
    };
    let adjusted = adjusted.context("nothing was corrected")?;
    let format = match options.format {
        Format::Table => render::ledger::Format::Table,
        Format::Json => render::ledger::Format::Json,
    };
    print(&render::ledger::adjusted(&adjusted, format)?)?;
    if !options.yes {
        tracing::warn!("nothing was written yet; repeat it with --yes");
    }
    Ok(Done::Success)
}
