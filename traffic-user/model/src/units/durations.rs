//! Durations, and numbers of days and months.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};

use crate::units::InvalidAmount;

const DURATION_UNITS: &str = "write a number of seconds, or numbers with the units ms, s, m, h, d, such as \
                              0.5, 500ms, 10s, \"1m 30s\" or 7d";
const DAY_UNITS: &str = "write a whole number of days from 1d to 65535d, such as 35d";
const MONTH_UNITS: &str =
    "write a whole number of months from \"1 month\" to \"65535 months\", such as \"13 months\"";

/// Parses a duration: seconds without a unit (`0.5`), or numbers with units (`500ms`, `1m 30s`, `7d`). A day
/// has 24 hours.
///
/// # Errors
/// When the text is not a duration, is negative, or exceeds what the type can hold.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidAmount> {
    let signed = exact_duration(text).map_err(|why| InvalidAmount::new(text, why, DURATION_UNITS))?;
    Duration::try_from(signed).map_err(|_| InvalidAmount::new(text, "is negative", DURATION_UNITS))
}

fn exact_duration(text: &str) -> Result<SignedDuration, &'static str> {
    const NOT_A_DURATION: &str = "is not a duration";
    let text = text.trim();
    if !only_decimal_points(text) {
        return Err(NOT_A_DURATION);
    }
    let without_unit = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b".+-".contains(&b));
    let with_unit = if without_unit { format!("{text}s") } else { text.to_owned() };
    let parsed =
        with_unit.parse::<Span>().map_err(|_| match with_unit.bytes().any(|b| b.is_ascii_digit()) {
            // The parser's error does not distinguish syntax from range. Digits with one known unit are good
            // syntax.
            true if with_unit.bytes().all(|b| b.is_ascii_alphanumeric()) && has_known_unit(&with_unit) => {
                "is too long"
            }
            _ => NOT_A_DURATION,
        })?;
    parsed.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| "has a unit without a fixed length")
}

fn has_known_unit(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    matches!(unit, "ms" | "s" | "m" | "h" | "d")
}

/// `1,5s` is refused as `1,5GB` is: whether a comma separates decimals or thousands depends on the reader.
fn only_decimal_points(text: &str) -> bool {
    !text.as_bytes().windows(2).any(|pair| pair[0] == b',' && pair[1].is_ascii_digit())
}

/// Formats a duration in the units that [`parse_duration`] reads, such as `1m 30s`.
pub fn format_duration(duration: Duration) -> String {
    match SignedDuration::try_from(duration) {
        Ok(duration) => format!("{duration:#}"),
        Err(_) => format!("{}s", duration.as_secs()),
    }
}

/// The shortest and the longest duration that an option accepts.
#[derive(Clone, Copy, Debug)]
pub struct DurationRange {
    /// The shortest duration accepted.
    pub shortest: Duration,
    /// The longest duration accepted.
    pub longest: Duration,
}

impl DurationRange {
    /// The range of intervals at which a command repeats its output.
    pub const REPEAT: Self =
        Self { shortest: Duration::from_millis(100), longest: Duration::from_secs(24 * 60 * 60) };

    /// Parses a duration as [`parse_duration`] does and checks it against the range.
    ///
    /// # Errors
    /// As [`parse_duration`], and when the duration is outside the range.
    pub fn parse(self, text: &str) -> Result<Duration, InvalidAmount> {
        let range =
            || format!("write {} to {}", format_duration(self.shortest), format_duration(self.longest));
        let parsed = parse_duration(text).map_err(|error| match error.problem {
            // Of the right form, so that the range says more than the list of units.
            "is too long" | "is negative" => InvalidAmount::new(text, error.problem, range()),
            _ => error,
        });
        match parsed? {
            duration if duration < self.shortest => Err(InvalidAmount::new(text, "is too short", range())),
            duration if duration > self.longest => Err(InvalidAmount::new(text, "is too long", range())),
            duration => Ok(duration),
        }
    }
}

/// Parses the interval at which a command repeats its output: 100 ms to 24 hours.
///
/// # Errors
/// As [`DurationRange::parse`].
pub fn parse_repeat_interval(text: &str) -> Result<Duration, InvalidAmount> {
    DurationRange::REPEAT.parse(text)
}

/// Parses a whole number of days, such as `35d`: 1 to 65535.
///
/// # Errors
/// When the text is not a duration of whole days within this range.
pub fn parse_days(text: &str) -> Result<u16, InvalidAmount> {
    let invalid = |problem| InvalidAmount::new(text, problem, DAY_UNITS);
    let duration = parse_duration(text).map_err(|error| invalid(error.problem))?;
    let (days, rest) = (duration.as_secs() / 86_400, duration.as_secs() % 86_400);
    if rest != 0 || duration.subsec_nanos() != 0 {
        return Err(invalid("is not a whole number of days"));
    }
    u16::try_from(days).ok().filter(|&days| days > 0).ok_or_else(|| invalid("is out of range"))
}

/// Parses a whole number of months, such as `13 months`: 1 to 65535. Other units are not converted.
///
/// # Errors
/// When the text is not a number of months within this range.
pub fn parse_months(text: &str) -> Result<u16, InvalidAmount> {
    let invalid = |problem| InvalidAmount::new(text, problem, MONTH_UNITS);
    let text = text.trim();
    let number_len = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    if number.is_empty() || !matches!(unit.trim_start(), "month" | "months") {
        return Err(invalid("is not a number of months"));
    }
    number.parse().ok().filter(|&months| months > 0).ok_or_else(|| invalid("is out of range"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_with_and_without_units() {
        for (text, millis) in [
            ("0.5", 500),
            ("500ms", 500),
            ("10", 10_000),
            ("10s", 10_000),
            ("10 s", 10_000),
            ("1.5s", 1500),
            ("5m", 300_000),
            ("1m 30s", 90_000),
            ("1m30s", 90_000),
            ("1 minute 30 seconds", 90_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("35d", 3_024_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refused_durations_list_the_accepted_units() {
        for (text, problem) in [
            ("", "is not a duration"),
            ("soon", "is not a duration"),
            ("NaN", "is not a duration"),
            ("inf", "is not a duration"),
            ("1e3", "is not a duration"),
            ("1,5s", "is not a duration"),
            ("5 GB", "is not a duration"),
            ("1.2.3", "is not a duration"),
            ("-5s", "is negative"),
            ("-0.5", "is negative"),
            ("13 months", "has a unit without a fixed length"),
            ("1000000000h", "is too long"),
            ("99999999999999999999s", "is too long"),
        ] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(error.contains("500ms") && error.contains("ms, s, m, h, d"), "{text}: {error}");
        }
    }

    #[test]
    fn a_range_names_its_ends() {
        let range = DurationRange { shortest: Duration::from_millis(100), longest: Duration::from_mins(90) };
        assert_eq!(range.parse("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(range.parse("1h 30m"), Ok(Duration::from_mins(90)));
        for (text, problem) in [
            ("0", "too short"),
            ("99ms", "too short"),
            ("91m", "too long"),
            ("1000000000h", "too long"),
            ("99999999999999999999s", "too long"),
            ("-5s", "negative"),
        ] {
            let error = range.parse(text).unwrap_err().to_string();
            assert_eq!(error, format!("{text:?} is {problem}; write 100ms to 1h 30m"));
        }
    }

    #[test]
    fn days_and_months_are_whole_and_not_converted() {
        assert_eq!(parse_days("35d"), Ok(35));
        assert_eq!(parse_days("7 days"), Ok(7));
        assert_eq!(parse_days("65535d"), Ok(65_535));
        assert_eq!(parse_months("13 months"), Ok(13));
        assert_eq!(parse_months("1month"), Ok(1));
        for (text, problem) in [
            ("0d", "out of range"),
            ("65536d", "out of range"),
            ("35", "not a whole number of days"),
            ("1.5h", "not a whole number of days"),
            ("13 months", "without a fixed length"),
            ("", "not a duration"),
            ("-1d", "negative"),
        ] {
            let error = parse_days(text).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("35d"), "{text}: {error}");
        }
        for text in
            ["", "13", "13m", "2 years", "1 year", "1.5 months", "-1 months", "0 months", "70000 months"]
        {
            let error = parse_months(text).unwrap_err().to_string();
            assert!(error.contains("13 months"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn formatted_durations_parse_back(millis in 0_u64..10_000_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*|[-+0-9.,mshdont ]{0,30}") {
            let _either = (parse_duration(&text), parse_days(&text), parse_months(&text));
        }
    }
}
