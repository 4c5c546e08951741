//! `trafctl report`, `trafctl top-talkers`, `trafctl gaps`: questions to the ledger.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use jiff::{Span, Timestamp, Zoned, civil::DateTime, tz::TimeZone};
use traffic_ledger::{Basis, By, Ledger, ReportQuery, Split, TopQuery};
use traffic_model::{ContainerId, calendar::Calendar};

use crate::{
    cli::{Done, Global, SheetFormat, print},
    render,
};

/// Bytes and packets per container over time, from the ledger
///
/// Days and months are calendar ones in the time zone, right across daylight-saving changes; a billing month may begin
/// on any day. Class 0 stands apart and is not in the total. Whatever is known to be missing is said below.
///
/// With --show the lines are about interfaces: what passed them, what of it is in no class and why, and whether classes
/// and faults come to what passed, for each container that has interfaces of its own and for the node.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl report --by month\n  \
    trafctl report --by day --container 101 --last 30d --split direction\n  \
    trafctl report --by month --tz Europe/Berlin --billing-day 15 --percentile 95\n  \
    trafctl report --from 2026-11-01 --to 2026-12-01 --basis l2 --format csv\n  \
    trafctl report --show faults --last 7d\n  \
    trafctl report --show balance --by month --container 101")]
pub struct Options {
    /// Length of a step
    #[arg(long, value_enum, default_value_t)]
    by: Step,
    /// Only this container; may be repeated
    #[arg(long = "container", value_name = "ID")]
    containers: Vec<String>,
    /// Only this class; may be repeated
    #[arg(long = "class", value_name = "N")]
    classes: Vec<u8>,
    #[command(flatten)]
    period: Period,
    /// First day of a billing month [default: the ledger's]
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u8).range(1..=31))]
    billing_day: Option<u8>,
    /// What gets rows of its own; may be repeated
    #[arg(long, value_enum, value_delimiter = ',')]
    split: Vec<SplitBy>,
    /// A percentile over five-minute rates
    #[arg(long, value_name = "P")]
    percentile: Option<f64>,
    /// What bytes are measured on
    #[arg(long, value_enum, default_value_t)]
    basis: Layer,
    /// What the lines are about
    #[arg(long, value_enum, default_value_t)]
    show: Show,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

/// The largest containers of a period
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  trafctl top-talkers --last 7d\n  trafctl top-talkers --count 20 --by-class"
)]
pub struct TopOptions {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 10)]
    count: usize,
    /// Each class for itself
    #[arg(long)]
    by_class: bool,
    /// Only this class; may be repeated
    #[arg(long = "class", value_name = "N")]
    classes: Vec<u8>,
    #[command(flatten)]
    period: Period,
    /// What bytes are measured on
    #[arg(long, value_enum, default_value_t)]
    basis: Layer,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

/// What is known to be missing from the ledger, or booked late
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  trafctl gaps --last 30d\n  trafctl gaps --format json")]
pub struct GapOptions {
    #[command(flatten)]
    period: Period,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

/// A span of time.
#[derive(Clone, Debug, Default, Args)]
struct Period {
    /// Begin: 2026-11-01, 2026-11-01T12:00, or with an offset
    #[arg(long, value_name = "T", conflicts_with = "last")]
    from: Option<String>,
    /// End, not included
    #[arg(long, value_name = "T", conflicts_with = "last")]
    to: Option<String>,
    /// The time until now, such as 30d or 12h
    #[arg(long, value_name = "SPAN")]
    last: Option<String>,
    /// Time zone of what is typed and shown [default: the ledger's]
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
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
    /// What is in no class, by interface and reason
    Faults,
    /// Whether classes and faults come to what passed
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
    /// Layer 3: as counted
    #[default]
    L3,
    /// Ethernet frames
    L2,
    /// The line, with preamble and gap
    L1,
}

impl From<SheetFormat> for render::ledger::Format {
    fn from(format: SheetFormat) -> Self {
        match format {
            SheetFormat::Table => Self::Table,
            SheetFormat::Json => Self::Json,
            SheetFormat::Csv => Self::Csv,
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

impl Period {
    /// Begin and end, where given.
    fn bounds(&self, ledger: &Ledger) -> anyhow::Result<(Option<Timestamp>, Option<Timestamp>)> {
        let zone = match &self.tz {
            Some(name) => {
                TimeZone::get(name).with_context(|| format!("{name:?} is no time zone known here"))?
            }
            None => ledger.calendar().zone().clone(),
        };
        if let Some(last) = &self.last {
            let span: Span = last
                .parse()
                .with_context(|| format!("{last:?} is no span of time: write 30d, 12h or 3mo"))?;
            let now = Zoned::new(Timestamp::now(), zone);
            let from = now.checked_sub(span).with_context(|| format!("{last:?} reaches too far back"))?;
            return Ok((Some(from.timestamp()), None));
        }
        let time = |text: &Option<String>| text.as_deref().map(|text| parse_time(text, &zone)).transpose();
        Ok((time(&self.from)?, time(&self.to)?))
    }
}

/// An instant with its offset, or a date and perhaps a time in the zone.
fn parse_time(text: &str, zone: &TimeZone) -> anyhow::Result<Timestamp> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant);
    }
    let civil: DateTime = text.parse().with_context(|| {
        format!("{text:?} is no time: write 2026-11-01, 2026-11-01T12:00 or 2026-11-01T12:00Z")
    })?;
    Ok(civil.to_zoned(zone.clone())?.timestamp())
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let ledger = global.ledger()?;
    let (from, to) = options.period.bounds(&ledger)?;
    let containers = known_names(global, &ledger, &options.containers)?;
    let calendar = match (&options.period.tz, options.billing_day) {
        (None, None) => None,
        (zone, day) => {
            let stored = ledger.calendar();
            let zone = zone.as_deref().unwrap_or(stored.zone_name());
            Some(Calendar::new(zone, day.unwrap_or(stored.billing_day()))?)
        }
    };
    let query = ReportQuery {
        by: match options.by {
            Step::FiveMinutes => By::FiveMinutes,
            Step::Hour => By::Hour,
            Step::Day => By::Day,
            Step::Month => By::Month,
            Step::Total => By::Total,
        },
        containers,
        classes: options.classes.clone(),
        from,
        to,
        calendar,
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
        Show::Interfaces => Some(render::ledger::Part::Interfaces),
        Show::Faults => Some(render::ledger::Part::Faults),
        Show::Balance => Some(render::ledger::Part::Balance),
    };
    let (text, notes) = match part {
        None => {
            let report = ledger.report(&query)?;
            (render::ledger::report(&report, format)?, render::ledger::notes(&report))
        }
        Some(part) => {
            let report = ledger.report_interfaces(&query)?;
            (
                render::ledger::interfaces(&report, part, format)?,
                render::ledger::interface_notes(&report, part),
            )
        }
    };
    print(&text)?;
    if options.format == SheetFormat::Csv {
        // A spreadsheet takes the lines; the person who asked for it still learns what they mean.
        for note in notes {
            tracing::info!("{note}");
        }
    }
    Ok(Done::Success)
}

/// The containers asked for, as the ledger knows them: the number finds what is under the UUID, and the other way round.
/// The label of a retired one is no id, and stands for itself.
fn known_names(global: &Global, ledger: &Ledger, typed: &[String]) -> anyhow::Result<Vec<String>> {
    let config = global.config()?;
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
    let (from, to) = options.period.bounds(&ledger)?;
    let top = ledger.top_talkers(&TopQuery {
        count: options.count,
        from,
        to,
        classes: options.classes.clone(),
        by_class: options.by_class,
        basis: options.basis.into(),
    })?;
    print(&render::ledger::top(&top, options.format.into())?)?;
    if options.format == SheetFormat::Csv {
        for note in render::ledger::top_notes(&top) {
            tracing::info!("{note}");
        }
    }
    Ok(Done::Success)
}

pub(super) fn gaps(global: &Global, options: &GapOptions) -> anyhow::Result<Done> {
    let ledger = global.ledger()?;
    let (from, to) = options.period.bounds(&ledger)?;
    print(&render::ledger::gaps(&ledger.gaps(from, to)?, options.format.into())?)?;
    Ok(Done::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_type_them() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let parse = |text| parse_time(text, &zone).map(|time| time.to_string());
        assert_eq!(parse("2026-11-01").unwrap(), "2026-10-31T23:00:00Z");
        assert_eq!(parse("2026-07-01T12:30").unwrap(), "2026-07-01T10:30:00Z");
        assert_eq!(parse("2026-07-01T12:30:00+02:00").unwrap(), "2026-07-01T10:30:00Z");
        assert!(parse("yesterday").unwrap_err().to_string().contains("is no time"));
    }
}
