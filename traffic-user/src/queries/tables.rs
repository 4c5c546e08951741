//! The options of `trafctl report`, `trafctl top-talkers` and `trafctl gaps`, and their answers.

use clap::{Args, ValueEnum};
use traffic_ledger::{By, Ledger, ReportQuery, Split, TopQuery};
use traffic_model::{calendar::Calendar, local_time::LocalTime};

use super::{Context, Layer, Period, Query, Resolved, SheetFormat, parse_class};
use crate::render::ledger as render;

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
pub struct ReportOptions {
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
    pub format: SheetFormat,
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
    pub format: SheetFormat,
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
    pub format: SheetFormat,
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

impl From<Step> for By {
    fn from(step: Step) -> Self {
        match step {
            Step::FiveMinutes => Self::FiveMinutes,
            Step::Hour => Self::Hour,
            Step::Day => Self::Day,
            Step::Month => Self::Month,
            Step::Total => Self::Total,
        }
    }
}

impl ReportOptions {
    fn query(&self, ledger: &Ledger, context: &Context<'_>) -> anyhow::Result<ReportQuery> {
        let calendar = self.period.calendar(ledger)?;
        let (from, to) = self.period.bounds(ledger, &calendar)?;
        Ok(ReportQuery {
            by: self.by.into(),
            containers: (context.resolve)(ledger, &self.containers)?,
            classes: self.classes.clone(),
            from,
            to,
            calendar: Some(with_billing_day(&calendar, self.billing_day)?),
            split: Split {
                class: self.split.contains(&SplitBy::Class),
                direction: self.split.contains(&SplitBy::Direction),
                family: self.split.contains(&SplitBy::Family),
            },
            percentile: self.percentile,
            basis: self.basis.into(),
        })
    }
}

/// A calendar with another billing day, if one is asked for.
pub(super) fn with_billing_day(calendar: &Calendar, day: Option<u8>) -> anyhow::Result<Calendar> {
    let day = day.unwrap_or(calendar.billing_day());
    Ok(Calendar::with_rules(calendar.zone().clone(), calendar.zone_name(), day)?)
}

impl Query for ReportOptions {
    fn ends_now(&self) -> bool {
        self.period.ends_now()
    }

    fn resolve<'q>(&'q self, ledger: &Ledger, context: &Context<'_>) -> anyhow::Result<Resolved<'q>> {
        let query = self.query(ledger, context)?;
        let part = match self.show {
            Show::Containers => None,
            Show::Interfaces => Some(render::Part::Interfaces),
            Show::Faults => Some(render::Part::Faults),
            Show::Balance => Some(render::Part::Balance),
        };
        let format = self.format.into();
        Ok(Box::new(move |ledger, context| match part {
            None => render::report_with(&ledger.report(&query)?, format, &context.class_names),
            Some(part) => render::interfaces(&ledger.report_interfaces(&query)?, part, format),
        }))
    }
}

impl Query for TopOptions {
    fn ends_now(&self) -> bool {
        self.period.ends_now()
    }

    fn resolve<'q>(&'q self, ledger: &Ledger, _: &Context<'_>) -> anyhow::Result<Resolved<'q>> {
        let calendar = self.period.calendar(ledger)?;
        let (from, to) = self.period.bounds(ledger, &calendar)?;
        let query = TopQuery {
            count: self.count,
            from,
            to,
            classes: self.classes.clone(),
            by_class: self.by_class,
            calendar: Some(calendar),
            basis: self.basis.into(),
        };
        Ok(Box::new(move |ledger, context| {
            render::top_with(&ledger.top_talkers(&query)?, self.format.into(), &context.class_names)
        }))
    }
}

impl Query for GapOptions {
    fn ends_now(&self) -> bool {
        self.period.ends_now()
    }

    fn resolve<'q>(&'q self, ledger: &Ledger, context: &Context<'_>) -> anyhow::Result<Resolved<'q>> {
        let calendar = self.period.calendar(ledger)?;
        let (from, to) = self.period.bounds(ledger, &calendar)?;
        let containers = (context.resolve)(ledger, &self.containers)?;
        Ok(Box::new(move |ledger, _| {
            let gaps = match containers.is_empty() {
                true => ledger.gaps(from, to)?,
                false => ledger.gaps_of(&containers, from, to)?,
            };
            render::gaps(&gaps, self.format.into(), &LocalTime::of(&calendar))
        }))
    }
}
