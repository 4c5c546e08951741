//! The time spans that the ledger sums over: five minutes, hours, days and billing months, and how long each
//! is kept.
//!
//! Five-minute buckets are aligned to UTC. Hours, days and months are those of the billing zone. An hour
//! begins when the zone's clock shows a full hour (in India at half past by UTC) or jumps. A day begins at
//! its first instant in the zone, so it may have 23 or 25 hours. Starts are seconds since the Unix epoch;
//! ends are exclusive. Every start of a level is a start of all finer levels.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::zones;

/// Why a calendar or one of its periods cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum CalendarError {
    /// The system's time zone database has no such zone.
    #[error("this system's time zone database has no zone {name:?}; write a name such as \"Europe/Berlin\"")]
    UnknownZone {
        /// The name.
        name: String,
    },
    /// The billing day is not a day of a month.
    #[error("billing day {0} is not within 1 to 31")]
    BillingDay(u8),
    /// A date or an instant is outside the years that can be represented.
    #[error("the time is outside the years -9999 to 9999, or is not a date")]
    Time(#[from] jiff::Error),
}

/// Length of the finest bucket in seconds.
pub const FIVE_MINUTES_S: i64 = 300;

/// Start of the five-minute bucket that contains an instant; both in seconds since the Unix epoch.
pub const fn five_minutes_of(unix_s: i64) -> i64 {
    unix_s - unix_s.rem_euclid(FIVE_MINUTES_S)
}

/// The length of the buckets of one table, from fine to coarse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Five minutes.
    FiveMinutes = 0,
    /// An hour of the billing zone.
    Hour = 1,
    /// A calendar day of the billing zone.
    Day = 2,
    /// A billing month.
    Month = 3,
}

impl Level {
    /// All levels, from fine to coarse.
    pub const ALL: [Self; 4] = [Self::FiveMinutes, Self::Hour, Self::Day, Self::Month];

    /// The name in table names and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5min",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The next finer level.
    pub const fn finer(self) -> Option<Self> {
        match self {
            Self::FiveMinutes => None,
            Self::Hour => Some(Self::FiveMinutes),
            Self::Day => Some(Self::Hour),
            Self::Month => Some(Self::Day),
        }
    }
}

/// How long the finer levels are kept. Days and months are kept forever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days of five-minute rows.
    pub five_minutes_days: u16,
    /// Months of hourly rows. They are kept at least as long as five-minute rows.
    pub hours_months: u16,
}

impl Default for Retention {
    /// 35 days and 13 months.
    fn default() -> Self {
        Self { five_minutes_days: 35, hours_months: 13 }
    }
}

/// A time zone and the day of the month on which its billing months begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    zone: TimeZone,
    zone_name: String,
    billing_day: u8,
    zone_is_known: bool,
}

impl Calendar {
    /// Takes the IANA name of a time zone and a day from 1 to 31. A month without that day begins on its last
    /// day.
    ///
    /// # Errors
    /// When this system does not know the zone, or the day is out of range.
    pub fn new(zone_name: &str, billing_day: u8) -> Result<Self, CalendarError> {
        if !(1..=31).contains(&billing_day) {
            return Err(CalendarError::BillingDay(billing_day));
        }
        let zone = zones::find(zone_name)
            .ok_or_else(|| CalendarError::UnknownZone { name: zone_name.to_owned() })?;
        Ok(Self { zone, zone_name: zone_name.to_owned(), billing_day, zone_is_known: true })
    }

    /// As [`Calendar::new`], but a zone that nobody knows is not an error: until it is known again, a
    /// substitute stands in for its rules, which [`Calendar::zone_is_known`] shows. It is UTC, unless
    /// [`Calendar::with_substitute`] gives a better one.
    ///
    /// # Errors
    /// When the day is out of range.
    pub fn new_or_unknown(zone_name: &str, billing_day: u8) -> Result<Self, CalendarError> {
        match Self::new(zone_name, billing_day) {
            Err(CalendarError::UnknownZone { name }) => {
                Ok(Self { zone_name: name, zone_is_known: false, ..Self::new("UTC", billing_day)? })
            }
            other => other,
        }
    }

    /// Whether the rules are those of the zone, and not a substitute.
    pub const fn zone_is_known(&self) -> bool {
        self.zone_is_known
    }

    /// The same calendar with a fixed offset in place of the rules of an unknown zone.
    #[must_use]
    pub fn with_substitute(&self, offset: jiff::tz::Offset) -> Self {
        if self.zone_is_known { self.clone() } else { Self { zone: TimeZone::fixed(offset), ..self.clone() } }
    }

    /// Takes rules that are not in the system's time zone data.
    ///
    /// # Errors
    /// When the day is out of range.
    pub fn with_rules(zone: TimeZone, zone_name: &str, billing_day: u8) -> Result<Self, CalendarError> {
        Ok(Self { zone, zone_name: zone_name.to_owned(), ..Self::new("UTC", billing_day)? })
    }

    /// The same calendar with the rules that the system's time zone data has now. Rules that are gone are
    /// kept.
    #[must_use]
    pub fn with_current_rules(&self) -> Self {
        if !self.zone_is_known {
            // Its list of names is minutes old otherwise.
            jiff::tz::db().reset();
        }
        match zones::find(&self.zone_name) {
            Some(zone) => Self { zone, zone_is_known: true, ..self.clone() },
            None => self.clone(),
        }
    }

    /// Whether days and months of the other calendar are the same: the same zone, perhaps under its former
    /// name, and the same billing day.
    pub fn is_same(&self, zone_name: &str, billing_day: u8) -> bool {
        self.billing_day == billing_day && zones::are_same(&self.zone_name, zone_name)
    }

    /// UTC, with months that begin on the first.
    pub fn utc() -> Self {
        Self { zone: TimeZone::UTC, zone_name: "UTC".to_owned(), billing_day: 1, zone_is_known: true }
    }

    /// The time zone.
    pub const fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The zone's name as passed to [`Calendar::new`].
    pub fn zone_name(&self) -> &str {
        &self.zone_name
    }

    /// The day on which months begin.
    pub const fn billing_day(&self) -> u8 {
        self.billing_day
    }

    /// Start of the bucket that contains an instant.
    ///
    /// # Errors
    /// When the instant is outside the years that can be represented.
    pub fn start(&self, level: Level, unix_s: i64) -> Result<i64, CalendarError> {
        match level {
            Level::FiveMinutes => Ok(five_minutes_of(unix_s)),
            Level::Hour => self.hour_start(unix_s),
            Level::Day => self.date_start(self.date(unix_s)?),
            Level::Month => self.date_start(self.month_date(self.date(unix_s)?)?),
        }
    }

    /// End of the bucket that begins at `start_s`: the start of the next one.
    ///
    /// # Errors
    /// As for [`Calendar::start`].
    pub fn end(&self, level: Level, start_s: i64) -> Result<i64, CalendarError> {
        match level {
            Level::FiveMinutes => Ok(start_s + FIVE_MINUTES_S),
            Level::Hour => self.hour_end(start_s),
            Level::Day => self.date_start(self.date(start_s)?.tomorrow()?),
            Level::Month => self.date_start(self.next_month_date(self.date(start_s)?)?),
        }
    }

    /// Whether a bucket of this level begins at the instant.
    ///
    /// # Errors
    /// As for [`Calendar::start`].
    pub fn is_start(&self, level: Level, unix_s: i64) -> Result<bool, CalendarError> {
        Ok(self.start(level, unix_s)? == unix_s)
    }

    /// The buckets that cover `from_s` to `to_s`, as (start, end). The first begins at or before `from_s`.
    ///
    /// # Errors
    /// As for [`Calendar::start`].
    pub fn cover(&self, level: Level, from_s: i64, to_s: i64) -> Result<Vec<(i64, i64)>, CalendarError> {
        let mut buckets = Vec::new();
        let mut start_s = self.start(level, from_s)?;
        while start_s < to_s {
            let end_s = self.end(level, start_s)?;
            buckets.push((start_s, end_s));
            start_s = end_s;
        }
        Ok(buckets)
    }

    /// The billing month named `YYYY-MM`: the one that begins in that calendar month.
    ///
    /// # Errors
    /// When the text is not a month.
    pub fn month_named(&self, name: &str) -> Result<(i64, i64), CalendarError> {
        let first: Date = format!("{name}-01").parse()?;
        let start_s = self.date_start(self.billing_date(first)?)?;
        Ok((start_s, self.end(Level::Month, start_s)?))
    }

    /// The label of the bucket that begins at `start_s`, in the zone's local time.
    ///
    /// # Errors
    /// As for [`Calendar::start`].
    pub fn label(&self, level: Level, start_s: i64) -> Result<String, CalendarError> {
        let local = Timestamp::from_second(start_s)?.to_zoned(self.zone.clone());
        let format = match level {
            Level::FiveMinutes | Level::Hour => "%Y-%m-%dT%H:%M%:z",
            Level::Day => "%Y-%m-%d",
            Level::Month => "%Y-%m",
        };
        Ok(local.strftime(format).to_string())
    }

    /// The date in the zone at an instant.
    ///
    /// # Errors
    /// As for [`Calendar::start`].
    pub fn date(&self, unix_s: i64) -> Result<Date, CalendarError> {
        Ok(Timestamp::from_second(unix_s)?.to_zoned(self.zone.clone()).date())
    }

    /// The first instant of a date. Not midnight where the clock is set forward at midnight.
    ///
    /// # Errors
    /// As for [`Calendar::start`].
    pub fn date_start(&self, date: Date) -> Result<i64, CalendarError> {
        let start = date.to_zoned(self.zone.clone())?.start_of_day()?;
        // Since standard time, every zone's offset is a multiple of five minutes. Earlier days are rounded.
        Ok(five_minutes_of(start.timestamp().as_second()))
    }

    fn billing_date(&self, any_of_month: Date) -> Result<Date, CalendarError> {
        let last = any_of_month.days_in_month();
        let day = i8::try_from(self.billing_day).unwrap_or(last).min(last);
        Ok(any_of_month.with().day(day).build()?)
    }

    /// The first date of the billing month that contains a date.
    ///
    /// # Errors
    /// As for [`Calendar::start`].
    pub fn month_date(&self, date: Date) -> Result<Date, CalendarError> {
        let this = self.billing_date(date)?;
        if date >= this { Ok(this) } else { self.billing_date(date.first_of_month().checked_sub(1.month())?) }
    }

    /// The first date of the billing month after the one that contains a date.
    ///
    /// # Errors
    /// As for [`Calendar::start`].
    pub fn next_month_date(&self, date: Date) -> Result<Date, CalendarError> {
        let begun = self.month_date(date)?;
        self.billing_date(begun.first_of_month().checked_add(1.month())?)
    }

    fn hour_start(&self, unix_s: i64) -> Result<i64, CalendarError> {
        let at = Timestamp::from_second(unix_s)?;
        let offset_s = i64::from(self.zone.to_offset(at).seconds());
        let aligned = unix_s - (unix_s + offset_s).rem_euclid(3600);
        // If the clock jumped within this hour by a part of an hour, the hour begins at the jump.
        let jump = self.zone.preceding(at.checked_add(1.second())?).next();
        let jump_s = jump.map_or(i64::MIN, |transition| transition.timestamp().as_second());
        Ok(five_minutes_of(aligned.max(jump_s)))
    }

    fn hour_end(&self, start_s: i64) -> Result<i64, CalendarError> {
        let at = Timestamp::from_second(start_s)?;
        let offset_s = i64::from(self.zone.to_offset(at).seconds());
        let aligned = start_s - (start_s + offset_s).rem_euclid(3600) + 3600;
        let jump = self.zone.following(at).next();
        let jump_s = jump.map_or(i64::MAX, |transition| five_minutes_of(transition.timestamp().as_second()));
        Ok(aligned.min(jump_s))
    }
}

#[cfg(test)]
mod tests;
