//! Instants as text in the time zone of a report.

use jiff::{Timestamp, tz::TimeZone};

use crate::calendar::Calendar;

/// Formats instants in one time zone.
#[derive(Clone, Debug)]
pub struct LocalTime {
    zone: TimeZone,
}

impl LocalTime {
    /// For the zone with this name. A name that the system no longer knows becomes UTC, which the offset
    /// shows.
    pub fn named(zone_name: &str) -> Self {
        match Calendar::new(zone_name, 1) {
            Ok(calendar) => Self::of(&calendar),
            Err(_) => Self { zone: TimeZone::UTC },
        }
    }

    /// For the zone of a calendar.
    pub fn of(calendar: &Calendar) -> Self {
        Self { zone: calendar.zone().clone() }
    }

    /// The instant with its offset from UTC: `2026-11-10T07:00:00-05:00`, or `...Z` in UTC.
    pub fn text(&self, time: Timestamp) -> String {
        if self.zone == TimeZone::UTC {
            return time.to_string();
        }
        time.to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_have_the_offset_of_their_zone() {
        let time: Timestamp = "2026-11-10T12:00:00.25Z".parse().unwrap();
        let text = |zone| LocalTime::named(zone).text(time);
        assert_eq!(text("America/New_York"), "2026-11-10T07:00:00.25-05:00");
        assert_eq!(text("Asia/Kolkata"), "2026-11-10T17:30:00.25+05:30");
        assert_eq!(text("UTC"), "2026-11-10T12:00:00.25Z");
        assert_eq!(text("Mars/Olympus"), "2026-11-10T12:00:00.25Z");
    }
}
