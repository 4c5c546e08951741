//! The time span of a query, as typed.

use anyhow::Context as _;
use clap::Args;
use jiff::{
    Span, Timestamp, Zoned,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use traffic_ledger::Ledger;
use traffic_model::calendar::Calendar;

use crate::time;

/// A time span.
#[derive(Clone, Debug, Default, Args)]
pub struct Period {
    /// Start: 2026-11-01, 2026-11-01T12:00, or with an offset [default: the ledger's start]
    #[arg(long, value_name = "T", conflicts_with = "last")]
    from: Option<String>,
    /// End, exclusive [default: the ledger's end]
    #[arg(long, value_name = "T", conflicts_with = "last")]
    to: Option<String>,
    /// The time span until now, such as 30d, 12h or 3mo
    #[arg(long, value_name = "SPAN")]
    last: Option<String>,
    /// Time zone for input and output [default: the ledger's]
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
}

/// Start and end of a time span, where given.
pub type Bounds = (Option<Timestamp>, Option<Timestamp>);

impl Period {
    /// No span, in a zone.
    pub(super) fn in_zone(tz: Option<String>) -> Self {
        Self { tz, ..Self::default() }
    }

    /// Whether no span is asked for.
    pub const fn is_open(&self) -> bool {
        self.from.is_none() && self.to.is_none() && self.last.is_none()
    }

    /// The time zone that is asked for.
    pub fn zone(&self) -> Option<&str> {
        self.tz.as_deref()
    }

    /// Whether the span ends now, so that the answer changes with the clock.
    pub const fn ends_now(&self) -> bool {
        self.last.is_some()
    }

    /// The ledger's calendar, with the zone that was asked for.
    ///
    /// # Errors
    /// When nobody knows the zone.
    pub fn calendar(&self, ledger: &Ledger) -> anyhow::Result<Calendar> {
        let own = ledger.calendar();
        let Some(zone) = &self.tz else { return Ok(own.clone()) };
        Calendar::new(zone, own.billing_day()).context("cannot use --tz")
    }

    /// In the ledger's own zone, a date begins where the ledger booked it.
    ///
    /// # Errors
    /// When a time or a span cannot be read.
    pub fn bounds(&self, ledger: &Ledger, calendar: &Calendar) -> anyhow::Result<Bounds> {
        let own = ledger.calendar();
        let zone = calendar.zone();
        if let Some(last) = &self.last {
            let now = Zoned::new(time::now()?, zone.clone());
            let from = now.checked_sub(parse_span(last)?).with_context(|| {
                format!("cannot use --last {last}: it reaches beyond the year -9999; use a shorter span")
            })?;
            return Ok((Some(from.timestamp()), None));
        }
        let is_own = own.is_same(calendar.zone_name(), own.billing_day());
        let instant = |text: &Option<String>| -> anyhow::Result<Option<Timestamp>> {
            let Some(text) = text.as_deref() else { return Ok(None) };
            match text.parse::<Date>() {
                Ok(date) if is_own && text.len() == "2026-11-01".len() => Ok(Some(ledger.date_start(date)?)),
                _ => parse_time(text, zone).map(Some),
            }
        };
        Ok((instant(&self.from)?, instant(&self.to)?))
    }
}

/// A time span in calendar units, so that days keep their length across clock changes. A number alone is
/// refused: whoever writes `7` means days more often than seconds.
fn parse_span(text: &str) -> anyhow::Result<Span> {
    text.parse().ok().with_context(|| {
        let problem = if text.trim().parse::<f64>().is_ok() { "has no unit" } else { "is not a time span" };
        format!(
            "cannot use --last: {text:?} {problem}; write numbers with the units s, m, h, d, w, mo, y, such as \
             30d, 12h or 3mo"
        )
    })
}

/// An instant with its offset, or a local date and optional time in the zone.
///
/// # Errors
/// When the text is not a time.
pub fn parse_time(text: &str, zone: &TimeZone) -> anyhow::Result<Timestamp> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant);
    }
    let civil: DateTime = text.parse().ok().with_context(|| {
        format!("{text:?} is not a time; write 2026-11-01, 2026-11-01T12:00 or 2026-11-01T12:00Z")
    })?;
    let instant = civil.to_zoned(zone.clone()).ok();
    let instant =
        instant.with_context(|| format!("{text:?} is outside the years -9999 to 9999; write another"))?;
    Ok(instant.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_local_unless_they_have_an_offset() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let parse = |text| parse_time(text, &zone).map(|time| time.to_string());
        assert_eq!(parse("2026-11-01").unwrap(), "2026-10-31T23:00:00Z");
        assert_eq!(parse("2026-07-01T12:30").unwrap(), "2026-07-01T10:30:00Z");
        assert_eq!(parse("2026-07-01T12:30:00+02:00").unwrap(), "2026-07-01T10:30:00Z");
        let refused = format!("{:#}", parse("yesterday").unwrap_err());
        assert_eq!(
            refused,
            "\"yesterday\" is not a time; write 2026-11-01, 2026-11-01T12:00 or 2026-11-01T12:00Z"
        );
    }

    #[test]
    fn spans_have_calendar_units_and_a_refused_one_lists_the_accepted_units() {
        let from = |last: &str| {
            let zone = TimeZone::get("Europe/Berlin").unwrap();
            let now = Zoned::new("2026-11-01T12:00:00Z".parse().unwrap(), zone);
            now.checked_sub(parse_span(last).unwrap()).unwrap().timestamp().to_string()
        };
        // Summer time ended on October 25: 30 days are an hour longer than 30 times 24 hours.
        assert_eq!(from("30d"), "2026-10-02T11:00:00Z");
        assert_eq!(from("720h"), "2026-10-02T12:00:00Z");
        assert_eq!(from("3mo"), "2026-08-01T11:00:00Z");
        assert_eq!(from("90s"), "2026-11-01T11:58:30Z");
        assert_eq!(from("2w"), from("14d"));
        assert_eq!(from("1y"), from("12mo"));
        let refused = |text| format!("{:#}", parse_span(text).unwrap_err());
        let units = "write numbers with the units s, m, h, d, w, mo, y, such as 30d, 12h or 3mo";
        assert_eq!(
            refused("5 parsecs"),
            format!("cannot use --last: \"5 parsecs\" is not a time span; {units}")
        );
        assert_eq!(refused("7"), format!("cannot use --last: \"7\" has no unit; {units}"));
        assert_eq!(refused("0.5"), format!("cannot use --last: \"0.5\" has no unit; {units}"));
    }

    #[test]
    fn an_unknown_zone_is_named() {
        let file = traffic_ledger::testing::ledger();
        let period = Period { tz: Some("Europe/Berlino".to_owned()), ..Period::default() };
        let refused = format!("{:#}", period.calendar(&file.ledger).unwrap_err());
        assert!(
            refused.starts_with("cannot use --tz: ") && refused.contains("\"Europe/Berlino\""),
            "{refused}"
        );
    }
}
