//! Periods against a naive reference: the calendar day of each instant is asked, hour by hour, and the rules
//! are written down a second time, with other arithmetic.

use jiff::tz::Offset;
use proptest::prelude::*;

use super::*;

/// Zones with daylight saving at midnight, half hours, quarter hours, a skipped day, none at all, and half an
/// hour of daylight saving.
const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/Santiago",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
];

fn period(kind: PeriodKind, zone: &str) -> Period {
    Period { kind, zone: Some(zone.to_owned()) }
}

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

fn span_of(kind: PeriodKind, zone: &str, instant: &str) -> (String, String) {
    let span = period(kind, zone).span(&Calendar::utc(), at(instant)).unwrap();
    let text = |unix_s| Timestamp::from_second(unix_s).unwrap().to_string();
    (text(span.start_s), text(span.end_s))
}

#[test]
fn a_short_month_begins_on_its_last_day() {
    let month = |day, instant| span_of(PeriodKind::Month(Some(day)), "UTC", instant);
    let midnight = |date: &str| format!("{date}T00:00:00Z");
    for (day, instant, from, to) in [
        (31, "2026-02-15T00:00:00Z", "2026-01-31", "2026-02-28"),
        (31, "2026-02-28T00:00:00Z", "2026-02-28", "2026-03-31"),
        (31, "2026-03-30T23:59:59Z", "2026-02-28", "2026-03-31"),
        (31, "2026-04-30T00:00:00Z", "2026-04-30", "2026-05-31"),
        // The day is not lost in a short month: the 30th is the 30th again.
        (30, "2026-03-29T00:00:00Z", "2026-02-28", "2026-03-30"),
        (30, "2026-03-30T00:00:00Z", "2026-03-30", "2026-04-30"),
        (29, "2028-02-29T00:00:00Z", "2028-02-29", "2028-03-29"),
        (29, "2026-02-28T00:00:00Z", "2026-02-28", "2026-03-29"),
        (1, "2026-12-31T23:59:59Z", "2026-12-01", "2027-01-01"),
        (15, "2027-01-14T23:59:59Z", "2026-12-15", "2027-01-15"),
    ] {
        assert_eq!(month(day, instant), (midnight(from), midnight(to)), "{day} {instant}");
    }
}

#[test]
fn days_and_weeks_follow_the_clock_of_the_zone() {
    let berlin = |kind, instant| span_of(kind, "Europe/Berlin", instant);
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    // 23 and 25 hours.
    assert_eq!(
        berlin(PeriodKind::Day, "2026-03-29T12:00:00Z"),
        pair("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z")
    );
    assert_eq!(
        berlin(PeriodKind::Day, "2026-10-25T12:00:00Z"),
        pair("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z")
    );
    assert_eq!(
        berlin(PeriodKind::Week, "2026-03-29T21:59:59Z"),
        pair("2026-03-22T23:00:00Z", "2026-03-29T22:00:00Z")
    );
    assert_eq!(
        berlin(PeriodKind::Days(30), "2026-11-29T05:00:00Z"),
        pair("2026-10-30T23:00:00Z", "2026-11-29T23:00:00Z")
    );
    // No midnight: the day begins at one.
    assert_eq!(
        span_of(PeriodKind::Day, "America/Santiago", "2026-09-06T12:00:00Z").0,
        "2026-09-06T04:00:00Z"
    );
}

#[test]
fn labels_name_the_period() {
    let label = |kind, instant| period(kind, "UTC").label(&Calendar::utc(), at(instant)).unwrap();
    assert_eq!(label(PeriodKind::Month(Some(15)), "2027-01-10T00:00:00Z"), "2026-12");
    assert_eq!(label(PeriodKind::Week, "2027-01-02T00:00:00Z"), "2026-W53");
    assert_eq!(label(PeriodKind::Day, "2026-11-29T23:59:59Z"), "2026-11-29");
    assert_eq!(label(PeriodKind::Days(7), "2026-11-29T00:00:00Z"), "2026-11-23 to 2026-11-29");
}

#[test]
fn without_a_zone_and_a_day_the_ledgers_own_count() {
    let ledger = Calendar::new("Asia/Kathmandu", 7).unwrap();
    let own = Period { kind: PeriodKind::Month(None), zone: None };
    let span = own.span(&ledger, at("2026-11-06T18:14:59Z")).unwrap();
    assert_eq!((span.start_s, span.end_s), (at("2026-10-06T18:15:00Z"), at("2026-11-06T18:15:00Z")));
    let first = Period { kind: PeriodKind::Month(Some(1)), zone: None };
    assert_eq!(first.span(&ledger, at("2026-11-06T18:14:59Z")).unwrap().start_s, at("2026-10-31T18:15:00Z"));
}

#[test]
fn a_zone_that_cuts_buckets_is_refused() {
    for name in ZONES {
        assert_eq!(zone_of(name), Ok(()), "{name}");
    }
    assert!(zone_of("Mars/Olympus").unwrap_err().0.contains("has no zone \"Mars/Olympus\""));
    let odd = TimeZone::fixed(Offset::from_seconds(-2670).unwrap());
    let error = require_buckets(&odd, "Test/Odd").unwrap_err().0;
    assert!(error.contains("is -2670 s from UTC") && error.contains("multiple of 300 s"), "{error}");
    let minutes = TimeZone::fixed(Offset::from_seconds(60).unwrap());
    assert!(require_buckets(&minutes, "Test/Minutes").is_err());
    // Rules that are odd in one part of the year only.
    let later = TimeZone::posix("XXX0YYY-0:00:30,M3.2.0,M11.1.0").unwrap();
    assert!(require_buckets(&later, "Test/Later").is_err());
    let quarter = TimeZone::fixed(Offset::from_seconds(20_700).unwrap());
    assert_eq!(require_buckets(&quarter, "Test/Quarter"), Ok(()));
}

/// The same rules with other arithmetic: a date begins a period, or it does not.
fn begins_naively(kind: PeriodKind, date: Date) -> bool {
    match kind {
        PeriodKind::Month(day) => {
            let day = i8::try_from(day.unwrap_or(1)).unwrap();
            date.day() == day || (date.day() == date.days_in_month() && date.day() < day)
        }
        PeriodKind::Week => date.weekday() == jiff::civil::Weekday::Monday,
        PeriodKind::Day | PeriodKind::Days(_) => true,
    }
}

/// Walks in steps of a bucket until the local date changes.
fn next_change(zone: &TimeZone, mut unix_s: i64, step_s: i64) -> i64 {
    let date = |unix_s| Timestamp::from_second(unix_s).unwrap().to_zoned(zone.clone()).date();
    let today = date(unix_s);
    while date(unix_s) == today {
        unix_s += step_s;
    }
    if step_s < 0 { unix_s - step_s } else { unix_s }
}

fn kinds() -> impl Strategy<Value = PeriodKind> {
    prop_oneof![
        (1_u8..=31).prop_map(|day| PeriodKind::Month(Some(day))),
        Just(PeriodKind::Week),
        Just(PeriodKind::Day),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// From 2011, when Samoa skipped a day, to 2037.
    #[test]
    fn every_instant_is_in_the_period_of_the_naive_reference(
        kind in kinds(),
        zone in 0..ZONES.len(),
        bucket in 1_293_840_000_i64 / 300..2_114_380_800 / 300,
        within in 0_i64..300,
    ) {
        let found = period(kind, ZONES[zone]).span(&Calendar::utc(), bucket * 300 + within).unwrap();
        let zone = Calendar::new(ZONES[zone], 1).unwrap().zone().clone();
        let date = |unix_s| Timestamp::from_second(unix_s).unwrap().to_zoned(zone.clone()).date();
        let mut start_s = next_change(&zone, bucket * 300, -300);
        let mut dates = date(start_s);
        // A skipped day would have begun the period on the next one that exists.
        while !begins_naively(kind, dates) {
            start_s = next_change(&zone, start_s - 300, -300);
            let before = date(start_s);
            let tomorrow = before.tomorrow().unwrap();
            let skipped = tomorrow != dates && begins_naively(kind, tomorrow);
            if skipped {
                start_s = next_change(&zone, start_s, 300);
                break;
            }
            dates = before;
        }
        prop_assert_eq!(found.start_s, start_s);
        prop_assert!(found.start_s <= bucket * 300 && bucket * 300 < found.end_s);
    }

    /// No instant is in two periods or in none, and every border is that of a bucket.
    #[test]
    fn periods_follow_each_other_without_a_hole(
        kind in kinds(), zone in 0..ZONES.len(), start in 1_577_836_800_i64..2_114_380_800
    ) {
        let period = period(kind, ZONES[zone]);
        let mut span = period.span(&Calendar::utc(), start).unwrap();
        for _ in 0..14 {
            prop_assert!(span.start_s % 300 == 0 && span.end_s % 300 == 0 && span.start_s < span.end_s);
            prop_assert_eq!(period.span(&Calendar::utc(), span.start_s).unwrap(), span);
            prop_assert_eq!(period.span(&Calendar::utc(), span.end_s - 1).unwrap(), span);
            let next = period.span(&Calendar::utc(), span.end_s).unwrap();
            prop_assert_eq!(next.start_s, span.end_s);
            span = next;
        }
    }
}
