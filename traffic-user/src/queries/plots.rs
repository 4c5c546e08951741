//! Queries that only the API answers: columns for plots, the last day, and the table of months.

use clap::{Args, ValueEnum};
use traffic_ledger::{By, Ledger, OverviewQuery, ReportQuery, SeriesQuery};
use traffic_model::local_time::LocalTime;

use super::{Context, Layer, Period, Query, Resolved, parse_class, tables::with_billing_day};
use crate::render::plots as render;

/// Columns for a plot
#[derive(Debug, Args)]
pub struct SeriesOptions {
    /// Only this container; may be repeated
    #[arg(long = "container", value_name = "ID")]
    containers: Vec<String>,
    /// Only this class; may be repeated
    #[arg(long = "class", value_name = "N", value_parser = parse_class)]
    classes: Vec<u8>,
    #[command(flatten)]
    period: Period,
    /// First day of billing months
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u8).range(1..=31))]
    billing_day: Option<u8>,
    /// Network layer of the byte figures
    #[arg(long, value_enum, default_value_t)]
    basis: Layer,
    /// Step length
    #[arg(long, value_enum, default_value_t)]
    by: Step,
    /// Most steps
    #[arg(long, value_name = "N", default_value_t = 1500, value_parser = clap::value_parser!(i64).range(1..=5000))]
    points: i64,
    /// Add this percentile of the five-minute rates
    #[arg(long, value_name = "P")]
    percentile: Option<f64>,
}

/// The length of a step, or the shortest that fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Step {
    #[default]
    Auto,
    #[value(name = "5min")]
    FiveMinutes,
    Hour,
    Day,
    Month,
}

impl From<Step> for Option<By> {
    fn from(step: Step) -> Self {
        match step {
            Step::Auto => None,
            Step::FiveMinutes => Some(By::FiveMinutes),
            Step::Hour => Some(By::Hour),
            Step::Day => Some(By::Day),
            Step::Month => Some(By::Month),
        }
    }
}

impl Query for SeriesOptions {
    fn asked_calendar(&self) -> (Option<&str>, Option<u8>) {
        (self.period.zone(), self.billing_day)
    }

    fn ends_now(&self) -> bool {
        self.period.ends_now()
    }

    fn resolve<'q>(&'q self, ledger: &Ledger, context: &Context<'_>) -> anyhow::Result<Resolved<'q>> {
        let calendar = self.period.calendar(ledger)?;
        let (from, to) = self.period.bounds(ledger, &calendar)?;
        let query = SeriesQuery {
            of: ReportQuery {
                containers: (context.resolve)(ledger, &self.containers)?,
                classes: self.classes.clone(),
                from,
                to,
                calendar: Some(with_billing_day(&calendar, self.billing_day)?),
                percentile: self.percentile,
                basis: self.basis.into(),
                ..ReportQuery::default()
            },
            by: self.by.into(),
            most_points: self.points,
        };
        Ok(Box::new(move |ledger, context| {
            let names = (&context.class_names, &ledger.container_names()?);
            render::series(&ledger.series_keeping(&query, context.kept)?, &LocalTime::of(&calendar), names)
        }))
    }
}

/// The months of a container or of the node
#[derive(Debug, Args)]
pub struct MonthOptions {
    /// Only this container; may be repeated
    #[arg(long = "container", value_name = "ID")]
    containers: Vec<String>,
    /// Number of months
    #[arg(long, value_name = "N", default_value_t = 13, value_parser = clap::value_parser!(u16).range(1..=1200))]
    months: u16,
    #[command(flatten)]
    zone: Zone,
    /// First day of billing months
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u8).range(1..=31))]
    billing_day: Option<u8>,
    /// Network layer of the byte figures
    #[arg(long, value_enum, default_value_t)]
    basis: Layer,
}

/// A time zone without a span.
#[derive(Debug, Args)]
struct Zone {
    /// Time zone [default: the ledger's]
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
}

impl Zone {
    fn period(&self) -> Period {
        Period::in_zone(self.tz.clone())
    }
}

impl Query for MonthOptions {
    fn asked_calendar(&self) -> (Option<&str>, Option<u8>) {
        (self.zone.tz.as_deref(), self.billing_day)
    }

    fn ends_now(&self) -> bool {
        false
    }

    fn resolve<'q>(&'q self, ledger: &Ledger, context: &Context<'_>) -> anyhow::Result<Resolved<'q>> {
        let calendar = self.zone.period().calendar(ledger)?;
        let query = ReportQuery {
            containers: (context.resolve)(ledger, &self.containers)?,
            calendar: Some(with_billing_day(&calendar, self.billing_day)?),
            basis: self.basis.into(),
            ..ReportQuery::default()
        };
        Ok(Box::new(move |ledger, context| {
            let names = (&context.class_names, &ledger.container_names()?);
            render::months(&ledger.months(&query, self.months.into())?, names)
        }))
    }
}

/// The last day of the node
#[derive(Debug, Args)]
pub struct OverviewOptions {
    /// Number of containers
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    count: u16,
    #[command(flatten)]
    zone: Zone,
    /// Network layer of the byte figures
    #[arg(long, value_enum, default_value_t)]
    basis: Layer,
}

impl OverviewOptions {
    /// The time zone that is asked for.
    pub fn zone(&self) -> Option<&str> {
        self.zone.tz.as_deref()
    }

    /// Asks the ledger, and formats the answer with what is known of the node.
    ///
    /// # Errors
    /// When a value makes no sense for this ledger, or the ledger cannot be read.
    pub fn answer(
        &self,
        ledger: &Ledger,
        context: &Context<'_>,
        node: &render::NodeFacts<'_>,
    ) -> anyhow::Result<String> {
        let calendar = self.zone.period().calendar(ledger)?;
        let local_time = LocalTime::of(&calendar);
        let query =
            OverviewQuery { count: self.count.into(), calendar: Some(calendar), basis: self.basis.into() };
        let overview = ledger.overview(&query)?;
        let named = ledger.node()?;
        let node = render::NodeFacts { node: node.node.or(named.as_deref()), ..*node };
        let names = (&context.class_names, &ledger.container_names()?);
        render::overview(&overview, (&node, &ledger.extent()?), &local_time, names)
    }
}
