//! The notations of values in `quotas.toml`. A refusal says what is accepted instead.

use std::time::Duration;

use traffic_model::units;

use crate::{
    period::PeriodKind,
    quota::{Direction, Limit},
    scope::NamePattern,
};

/// Most days of a period that moves.
const MOST_DAYS: u16 = 366;
/// The highest threshold, in percent.
const HIGHEST_PERCENT: u16 = 1000;
/// Longest name of a quota, in bytes.
const LONGEST_NAME: usize = 63;

/// The longest time of a command.
const LONGEST_TIMEOUT: Duration = Duration::from_mins(10);
/// The shortest time after which a command runs again.
const SHORTEST_AGAIN: Duration = Duration::from_mins(1);
/// The longest time that a problem may last before it counts, and after which a command runs again.
const LONGEST_LASTING: Duration = Duration::from_hours(24);

/// A result whose error is a sentence for people.
type Parsed<T> = Result<T, String>;

/// The name of a quota. It is part of ids, so it has no blanks.
pub(crate) fn name(text: &str) -> Parsed<String> {
    let is_usable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > LONGEST_NAME || !text.chars().all(is_usable) {
        return Err(format!(
            "{text:?} is not a name; write 1 to {LONGEST_NAME} letters, digits and - _ . such as \"traffic\""
        ));
    }
    Ok(text.to_owned())
}

/// A pattern of names.
pub(crate) fn pattern(text: &str) -> Parsed<NamePattern> {
    if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        return Err(format!("{text:?} is not a pattern of names; write 1 to 255 bytes such as \"shop-*\""));
    }
    if text.contains(['[', ']', '{', '}', '\\', '^', '$', '|']) || text.contains(".*") {
        return Err(format!(
            "{text:?} looks like a regular expression; in a pattern, * is any text and ? any character"
        ));
    }
    Ok(NamePattern(text.to_owned()))
}

/// An allowance in bytes.
pub(crate) fn allowance(text: &str) -> Parsed<Limit> {
    match units::parse_bytes(text).map_err(|error| error.to_string())? {
        0 => Err(format!("{text:?} is nothing; write at least 1, or unlimited = true for no limit")),
        bytes => Ok(Limit::Volume(bytes)),
    }
}

const RATE_UNITS: &str = "write a number with a unit of bit/s, kbit/s, Mbit/s, Gbit/s or Tbit/s (powers of \
                          1000), such as 100Mbit/s";

/// A rate in bits per second. Decimal arithmetic without floating point.
pub(crate) fn rate(text: &str) -> Parsed<u64> {
    let invalid = |problem: &str| format!("{text:?} {problem}; {RATE_UNITS}");
    let trimmed = text.trim();
    let length = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(length);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.contains('.') {
        return Err(invalid("is not a rate"));
    }
    let scale: u128 = match unit.trim_start() {
        "bit/s" => 1,
        "kbit/s" => 1_000,
        "Mbit/s" => 1_000_000,
        "Gbit/s" => 1_000_000_000,
        "Tbit/s" => 1_000_000_000_000,
        "" => return Err(invalid("has no unit")),
        _ => return Err(invalid("has an unknown unit")),
    };
    if whole.len() > 20 || fraction.len() > 12 {
        return Err(invalid("has too many digits"));
    }
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| invalid("is not a rate"))?;
    let divisor = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    if !(digits * scale).is_multiple_of(divisor) {
        return Err(invalid("is not a whole number of bits"));
    }
    match u64::try_from(digits * scale / divisor) {
        Ok(0) => Err(invalid("is nothing")),
        Ok(bits_per_s) => Ok(bits_per_s),
        Err(_) => Err(invalid("is too large")),
    }
}

/// What counts.
pub(crate) fn direction(text: &str) -> Parsed<Direction> {
    Direction::ALL.iter().find(|(_, name)| *name == text).map(|(direction, _)| *direction).ok_or_else(|| {
        let known = Direction::ALL.map(|(_, name)| format!("{name:?}"));
        format!("{text:?} is not a direction; write one of {}", known.join(", "))
    })
}

/// A period. The billing day of a month is a key of its own.
pub(crate) fn period(text: &str) -> Parsed<PeriodKind> {
    let invalid = |problem: &str| {
        format!("{text:?} {problem}; write \"month\", \"week\", \"day\" or \"30 days\" (2 to {MOST_DAYS})")
    };
    Ok(match text {
        "month" => PeriodKind::Month(None),
        "week" => PeriodKind::Week,
        "day" => PeriodKind::Day,
        _ => {
            let number =
                text.strip_suffix("days").map(str::trim).ok_or_else(|| invalid("is not a period"))?;
            if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
                return Err(invalid("is not a period"));
            }
            let days = number.parse().ok().filter(|days| (2..=MOST_DAYS).contains(days));
            PeriodKind::Days(days.ok_or_else(|| invalid("is out of range"))?)
        }
    })
}

/// How long a command may take.
pub(crate) fn timeout(text: &str) -> Parsed<Duration> {
    let parsed = units::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_secs(1)..=LONGEST_TIMEOUT).contains(&parsed) {
        return Ok(parsed);
    }
    Err(format!("{text:?} is out of range; write 1s to 10m, such as \"30s\""))
}

/// How often a command runs again.
pub(crate) fn again(text: &str) -> Parsed<Duration> {
    let parsed = units::parse_duration(text).map_err(|error| error.to_string())?;
    if (SHORTEST_AGAIN..=LONGEST_LASTING).contains(&parsed) {
        return Ok(parsed);
    }
    Err(format!("{text:?} is out of range; write 1m to 1d, such as \"5m\""))
}

/// How long a problem lasts before it counts.
pub(crate) fn lasting(text: &str) -> Parsed<Duration> {
    let parsed = units::parse_duration(text).map_err(|error| error.to_string())?;
    if parsed <= LONGEST_LASTING {
        return Ok(parsed);
    }
    Err(format!("{text:?} is out of range; write 0s to 1d, such as \"5m\""))
}

/// Parses a threshold, such as `80%`.
///
/// # Errors
/// When the text is not a whole number of percent from 1 to 1000.
pub fn percent(text: &str) -> Result<u16, String> {
    let invalid =
        |problem: &str| format!("{text:?} {problem}; write 1% to {HIGHEST_PERCENT}%, such as \"80%\"");
    let number = text.trim().strip_suffix('%').map(str::trim_end).ok_or_else(|| invalid("has no %"))?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid("is not a whole number of percent"));
    }
    let percent = number.parse().ok().filter(|percent| (1..=HIGHEST_PERCENT).contains(percent));
    percent.ok_or_else(|| invalid("is out of range"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_exact_and_never_bytes() {
        for (text, bits_per_s) in [
            ("1bit/s", 1),
            ("100Mbit/s", 100_000_000),
            (" 1.5 Gbit/s ", 1_500_000_000),
            ("0.001kbit/s", 1),
            ("2Tbit/s", 2_000_000_000_000),
        ] {
            assert_eq!(rate(text), Ok(bits_per_s), "{text}");
        }
        for (text, problem) in [
            ("100", "has no unit"),
            ("100M", "has an unknown unit"),
            ("100Mbps", "has an unknown unit"),
            ("100MB/s", "has an unknown unit"),
            ("100mbit/s", "has an unknown unit"),
            ("1,5Gbit/s", "has an unknown unit"),
            ("-1Mbit/s", "is not a rate"),
            ("1.Mbit/s", "is not a rate"),
            ("1.2.3Mbit/s", "is not a rate"),
            ("0Mbit/s", "is nothing"),
            ("0.5bit/s", "is not a whole number of bits"),
            ("99999999999Tbit/s", "is too large"),
            ("999999999999999999999bit/s", "has too many digits"),
        ] {
            let error = rate(text).unwrap_err();
            assert!(error.contains(problem) && error.contains("100Mbit/s"), "{text}: {error}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_write() {
        for (result, problem, instead) in [
            (allowance("0").map(drop), "is nothing", "unlimited = true"),
            (allowance("1,5GB").map(drop), "has an unknown unit", "1.5GB"),
            (allowance("5Gb").map(drop), "has an unknown unit", "1.5GB"),
            (allowance("-1GB").map(drop), "is negative", "1.5GB"),
            (direction("both").map(drop), "is not a direction", "\"larger\""),
            (direction("IN").map(drop), "is not a direction", "\"in\""),
            (period("monthly").map(drop), "is not a period", "\"month\""),
            (period("1 days").map(drop), "is out of range", "\"30 days\""),
            (period("367 days").map(drop), "is out of range", "2 to 366"),
            (period("-3 days").map(drop), "is not a period", "\"30 days\""),
            (percent("80").map(drop), "has no %", "\"80%\""),
            (percent("0%").map(drop), "is out of range", "1%"),
            (percent("1001%").map(drop), "is out of range", "1000%"),
            (percent("79.5%").map(drop), "whole number", "\"80%\""),
            (name("my quota").map(drop), "is not a name", "traffic"),
            (name("").map(drop), "is not a name", "traffic"),
            (pattern("").map(drop), "is not a pattern", "shop-*"),
            (pattern("shop-.*").map(drop), "looks like a regular expression", "* is any text"),
            (pattern("^shop").map(drop), "looks like a regular expression", "* is any text"),
        ] {
            let error = result.unwrap_err();
            assert!(error.contains(problem) && error.contains(instead), "{error}");
        }
        assert_eq!(period("30 days"), Ok(PeriodKind::Days(30)));
        assert_eq!(period("366days"), Ok(PeriodKind::Days(366)));
        assert_eq!([percent("80%"), percent(" 100 %"), percent("1000%")], [Ok(80), Ok(100), Ok(1000)]);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC*|[-+0-9.,%kKMGTbit/s days]{0,24}") {
            let _either = (rate(&text), period(&text), percent(&text), allowance(&text));
            let _either = (name(&text), pattern(&text), direction(&text));
        }
    }
}
