//! The options of `trafctl report`, `trafctl top-talkers` and `trafctl gaps`, and their answers.

use clap::{Args, ValueEnum};
use traffic_ledger::{By, Ledger, Report, ReportQuery, Split, TopQuery};
use traffic_model::{calendar::Calendar, local_time::LocalTime};

use super::{ANY_DAY, Context, Layer, Period, Query, Resolved, SheetFormat, parse_class, with_forecasts};
use crate::render::{ledger as render, quota_forecasts::Forecasts};

/// What a report is about
#[derive(Debug, Args)]
pub struct ReportOptions {
    /// Step length [default: the whole span; without a span, a table shows this month and last]
    #[arg(long, value_enum)]
    by: Option<Step>,
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
    /// What is shown where neither steps nor a span are asked for.
    #[arg(skip)]
    pub unasked: Unasked,
}

/// What a report shows where neither steps nor a span are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unasked {
    /// The whole ledger in one step: what programs get.
    #[default]
    Total,
    /// This month and last.
    Months,
    /// The days of this month and last.
    Days,
}

/// Which containers are ranked
#[derive(Debug, Args)]
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

/// Which gaps are listed
#[derive(Debug, Args)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    #[value(name = "5min")]
    FiveMinutes,
    Hour,
    Day,
    /// Monday to Sunday, by ISO 8601
    Week,
    Month,
    /// Twelve billing months
    Year,
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
    /// What was dropped behind the hooks and why, and what was delivered
    Drops,
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
            Step::Week => Self::Week,
            Step::Month => Self::Month,
            Step::Year => Self::Year,
            Step::Total => Self::Total,
        }
    }
}

impl ReportOptions {
    /// The figures that the answer shows.
    ///
    /// # Errors
    /// When a value makes no sense for this ledger, or the ledger cannot be read.
    pub fn figures(&self, ledger: &Ledger, context: &Context<'_>) -> anyhow::Result<Report> {
        Ok(ledger.report(&self.query(ledger, context)?)?)
    }

    /// Shows the figures and what quotas come to.
    ///
    /// # Errors
    /// As [`Self::figures`].
    pub fn shown_with_forecasts(
        &self,
        ledger: &Ledger,
        context: &Context<'_>,
        show: impl FnOnce(&Report, Option<&Forecasts<'_>>) -> String,
    ) -> anyhow::Result<String> {
        let query = self.query(ledger, context)?;
        let report = ledger.report(&query)?;
        Ok(with_forecasts(ledger, context.quotas, (&report, &query.containers), |forecasts| {
            show(&report, forecasts)
        }))
    }

    /// Whether the rows are about containers.
    pub fn is_about_containers(&self) -> bool {
        self.show == Show::Containers
    }

    /// Whether a span must be chosen for whoever looks.
    fn is_of_tables(&self) -> bool {
        self.is_about_containers() && self.period.is_open()
    }

    fn query(&self, ledger: &Ledger, context: &Context<'_>) -> anyhow::Result<ReportQuery> {
        let calendar = self.period.calendar(ledger)?;
        let calendar = with_billing_day(&calendar, self.billing_day)?;
        let (from, to) = self.period.bounds(ledger, &calendar)?;
        let (by, from) = match (self.by, self.unasked) {
            (None, Unasked::Months) if self.is_of_tables() => {
                (By::Month, Some(ledger.last_two_months(&calendar)?))
            }
            (by, Unasked::Days) if self.is_of_tables() => {
                (by.map_or(By::Day, By::from), Some(ledger.last_two_months(&calendar)?))
            }
            (None, Unasked::Days) => (By::Day, from),
            (by, _) => (by.map_or(By::Total, By::from), from),
        };
        Ok(ReportQuery {
            by,
            containers: (context.resolve)(ledger, &self.containers)?,
            classes: self.classes.clone(),
            from,
            to,
            calendar: Some(calendar),
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

    fn asked_calendar(&self) -> (Option<&str>, Option<u8>) {
        (self.period.zone(), self.billing_day)
    }

    fn names_interfaces(&self) -> bool {
        !matches!(self.show, Show::Containers | Show::Drops)
    }

    fn shows_quotas(&self) -> bool {
        self.is_about_containers() && self.format != SheetFormat::Csv
    }

    fn resolve<'q>(&'q self, ledger: &Ledger, context: &Context<'_>) -> anyhow::Result<Resolved<'q>> {
        let query = self.query(ledger, context)?;
        let format = self.format.into();
        let part = match self.show {
            Show::Containers => None,
            Show::Drops => {
                return Ok(Box::new(move |ledger, context| {
                    render::drops(&ledger.report_drops(&query)?, format, &context.class_names)
                }));
            }
            Show::Interfaces => Some(render::Part::Interfaces),
            Show::Faults => Some(render::Part::Faults),
            Show::Balance => Some(render::Part::Balance),
        };
        Ok(Box::new(move |ledger, context| match part {
            None => {
                let report = ledger.report(&query)?;
                let quotas = context.quotas.filter(|_| self.shows_quotas());
                with_forecasts(ledger, quotas, (&report, &query.containers), |forecasts| {
                    render::report_with(&report, forecasts, format, &context.class_names)
                })
            }
            Some(part) => render::interfaces(&ledger.report_interfaces(&query)?, part, format),
        }))
    }
}

impl Query for TopOptions {
    fn ends_now(&self) -> bool {
        self.period.ends_now()
    }

    fn asked_calendar(&self) -> (Option<&str>, Option<u8>) {
        (self.period.zone(), ANY_DAY)
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

    fn asked_calendar(&self) -> (Option<&str>, Option<u8>) {
        (self.period.zone(), ANY_DAY)
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
            let names = ledger.container_names()?;
            render::gaps(&gaps, &names, self.format.into(), &LocalTime::of(&calendar))
        }))
    }
}
