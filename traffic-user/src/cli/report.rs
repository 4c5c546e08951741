//! `trafctl report`, `trafctl top-talkers` and `trafctl gaps`: queries to the ledger.

use clap::{Args, ValueEnum};
use traffic_ledger::{Basis, By, Ledger, ReportQuery, Split, TopQuery};
use traffic_model::local_time::LocalTime;
use traffic_model::{ContainerId, calendar::Calendar};

use crate::{
    cli::{Done, Format, Global, SheetFormat, format::parse_class, output::print, period::Period},
    render::ledger as render,
};

/// Report the bytes and packets of each container over time
///
/// Steps are calendar hours, days and months of the time zone, also across daylight-saving changes. Billing
/// months may begin on any day. Class 0 is shown separately and is not part of the total. Notes below the
/// table list known gaps; with --container, only those that affect it.
///
/// Corrections of closed months (`trafctl adjust`) do not change the counted figures. They are shown beside
/// them as corrected and to_bill, in the rows that have the whole month.
///
/// With --show, the rows are about interfaces: what passed them, which part was not classified and why, and
/// whether classes and faults add up to what passed, for each container with interfaces of its own and for
/// the node.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl report --by month\n  \
    trafctl report --by day --container 101 --last 30d --split direction\n  \
    trafctl report --by month --tz Europe/Berlin --billing-day 15 --percentile 95\n  \
    trafctl report --from 2026-11-01 --to 2026-12-01 --basis l2 --format csv\n  \
    trafctl report --show faults --last 7d\n  \
    trafctl report --show balance --by month --container 101")]
pub struct Options {
    /// Step length
    #[arg(long, value_enum, default_value_t)]
    by: Step,
    /// Only this container; may be repeated
    #[arg(long = "container", value_name = "ID")]
    containers: Vec<String>,
    /// Only this class; may be repeated
    #[arg(long = "class", value_name = "N", value_parser = parse_class)]
    classes: Vec<u8>,
    #[command(flatten)]
    period: Period,
    /// First day of billing months [default: the ledger's]
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u8).range(1..=31))]
    billing_day: Option<u8>,
    /// Split into one row per class, direction or family; may be repeated
    #[arg(long, value_enum, value_delimiter = ',')]
    split: Vec<SplitBy>,
    /// Add this percentile of the five-minute rates
    #[arg(long, value_name = "P")]
    percentile: Option<f64>,
    /// Network layer of the byte figures
    #[arg(long, value_enum, default_value_t)]
    basis: Layer,
    /// What the rows are about
    #[arg(long, value_enum, default_value_t)]
    show: Show,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

/// Rank the containers with the most traffic
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  trafctl top-talkers --last 7d\n  trafctl top-talkers --count 20 --by-class"
)]
pub struct TopOptions {
    /// Number of containers
    #[arg(long, value_name = "N", default_value_t = 10)]
    count: usize,
    /// Rank each class separately
    #[arg(long)]
    by_class: bool,
    /// Only this class; may be repeated
    #[arg(long = "class", value_name = "N", value_parser = parse_class)]
    classes: Vec<u8>,
    #[command(flatten)]
    period: Period,
    /// Network layer of the byte figures
    #[arg(long, value_enum, default_value_t)]
    basis: Layer,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

/// List the gaps: traffic that is missing from the ledger, or was recorded late
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  trafctl gaps --last 30d\n  trafctl gaps --format json")]
pub struct GapOptions {
    /// Only gaps that affect this container; may be repeated
    #[arg(long = "container", value_name = "ID")]
    containers: Vec<String>,
    #[command(flatten)]
    period: Period,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Step {
    #[value(name = "5min")]
    FiveMinutes,
    Hour,
    Day,
    Month,
    #[default]
    Total,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Show {
    /// What each container is billed
    #[default]
    Containers,
    /// What passed each interface, and the faults in it
    Interfaces,
    /// Unclassified traffic, by interface and reason
    Faults,
    /// Whether classes and faults add up to what passed
    Balance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SplitBy {
    Class,
    Direction,
    Family,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Layer {
    /// Layer 3, as counted
    #[default]
    L3,
    /// Ethernet frames
    L2,
    /// The line, including preamble and gap
    L1,
}

impl From<SheetFormat> for render::Format {
    fn from(format: SheetFormat) -> Self {
        match format {
            SheetFormat::Table => Self::Table,
            SheetFormat::Json => Self::Json,
            SheetFormat::Csv => Self::Csv,
        }
    }
}

impl From<Format> for render::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Self::Table,
            Format::Json => Self::Json,
        }
    }
}

impl From<Layer> for Basis {
    fn from(layer: Layer) -> Self {
        match layer {
            Layer::L3 => Self::L3,
            Layer::L2 => Self::L2,
            Layer::L1 => Self::L1,
        }
    }
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let ledger = global.ledger()?;
    let calendar = options.period.calendar(&ledger)?;
    let (from, to) = options.period.bounds(&ledger, &calendar)?;
    let billing_day = options.billing_day.unwrap_or(calendar.billing_day());
    let query = ReportQuery {
        by: match options.by {
            Step::FiveMinutes => By::FiveMinutes,
            Step::Hour => By::Hour,
            Step::Day => By::Day,
            Step::Month => By::Month,
            Step::Total => By::Total,
        },
        containers: known_names(global, &ledger, &options.containers)?,
        classes: options.classes.clone(),
        from,
        to,
        calendar: Some(Calendar::with_rules(calendar.zone().clone(), calendar.zone_name(), billing_day)?),
        split: Split {
            class: options.split.contains(&SplitBy::Class),
            direction: options.split.contains(&SplitBy::Direction),
            family: options.split.contains(&SplitBy::Family),
        },
        percentile: options.percentile,
        basis: options.basis.into(),
    };
    let format = options.format.into();
    let part = match options.show {
        Show::Containers => None,
        Show::Interfaces => Some(render::Part::Interfaces),
        Show::Faults => Some(render::Part::Faults),
        Show::Balance => Some(render::Part::Balance),
    };
    print(&match part {
        None => render::report_with(&ledger.report(&query)?, format, &global.class_names())?,
        Some(part) => render::interfaces(&ledger.report_interfaces(&query)?, part, format)?,
    })?;
    Ok(Done::Success)
}

/// The requested containers as the ledger knows them. A number finds what is recorded under the UUID, and
/// vice versa. The label of a retired container is not an id and is used as it is.
fn known_names(global: &Global, ledger: &Ledger, typed: &[String]) -> anyhow::Result<Vec<String>> {
    if typed.is_empty() {
        return Ok(Vec::new());
    }
    let config = global.config_to_show().0;
    let mut names = Vec::new();
    for text in typed {
        let Ok(id) = ContainerId::new(text) else {
            names.push(text.clone());
            continue;
        };
        let before = names.len();
        for id in global.all_ids(&config, std::slice::from_ref(&id))? {
            if ledger.knows_container(id.as_str())? {
                names.push(id.to_string());
            }
        }
        if names.len() == before {
            names.push(id.to_string());
        }
    }
    Ok(names)
}

pub(super) fn top(global: &Global, options: &TopOptions) -> anyhow::Result<Done> {
    let ledger = global.ledger()?;
    let calendar = options.period.calendar(&ledger)?;
    let (from, to) = options.period.bounds(&ledger, &calendar)?;
    let top = ledger.top_talkers(&TopQuery {
        count: options.count,
        from,
        to,
        classes: options.classes.clone(),
        by_class: options.by_class,
        calendar: Some(calendar),
        basis: options.basis.into(),
    })?;
    print(&render::top_with(&top, options.format.into(), &global.class_names())?)?;
    Ok(Done::Success)
}

pub(super) fn gaps(global: &Global, options: &GapOptions) -> anyhow::Result<Done> {
    let ledger = global.ledger()?;
    let calendar = options.period.calendar(&ledger)?;
    let (from, to) = options.period.bounds(&ledger, &calendar)?;
    let gaps = match known_names(global, &ledger, &options.containers)? {
        all if all.is_empty() => ledger.gaps(from, to)?,
        containers => ledger.gaps_of(&containers, from, to)?,
    };
    print(&render::gaps(&gaps, options.format.into(), &LocalTime::of(&calendar))?)?;
    Ok(Done::Success)
}
