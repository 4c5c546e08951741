//! What people complained of in quotas and estimates of other tools, with where they did.
#![expect(clippy::unwrap_used, reason = "a test; clippy does not count helpers as such")]

use jiff::Timestamp;
use traffic_model::calendar::Calendar;
use traffic_quota::{
    Direction, Forecast, Limit, Quota, Quotas, Recent, Span, Used, allowance_in, forecast, reached,
};

const DAY: u64 = 86_400;

fn quota(lines: &str) -> Quota {
    Quotas::parse(&format!("[[quota]]\nname = 'q'\ndefault = true\n{lines}\n")).unwrap().quotas.remove(0)
}

fn at(text: &str) -> i64 {
    format!("{text}Z").parse::<Timestamp>().unwrap().as_second()
}

/// The first and the last date of a period, and its name.
fn period(lines: &str, instant: &str) -> (String, String, String) {
    let quota = quota(&format!("allowance = '1TB'\n{lines}"));
    let span = quota.period.span(&Calendar::utc(), at(instant)).unwrap();
    let date = |unix_s| Calendar::utc().date(unix_s).unwrap().to_string();
    let label = quota.period.label(&Calendar::utc(), at(instant)).unwrap();
    (date(span.start_s), date(span.end_s - 1), label)
}

fn of(first: &str, last: &str, label: &str) -> (String, String, String) {
    (first.to_owned(), last.to_owned(), label.to_owned())
}

fn expected(lines: &str, used: u64, recent: u64, instant: &str) -> Option<Forecast> {
    let quota = quota(&format!("allowance = '1TB'\n{lines}"));
    let span = quota.period.span(&Calendar::utc(), at(instant)).unwrap();
    let outgoing = |outgoing| Used { outgoing, ..Used::default() };
    let recent = Recent { used: outgoing(recent), seconds: 7 * DAY };
    forecast((Direction::Sum, 1_000_000), span, at(instant), (outgoing(used), recent))
}

/// vnstat #113: 351 PiB were estimated for a month of 142 GiB, soon after the month had changed.
#[test]
fn a_new_month_does_not_multiply_its_first_minutes() {
    for second in ["00:00:00", "00:00:01", "00:05:00"] {
        let found = expected("", 5, 7_000, &format!("2026-11-01T{second}")).unwrap();
        assert_eq!(found.expected / 10, 30_000 / 10, "{second}: thirty days of a thousand");
    }
}

/// vnstat #233: more was estimated for the day than for the month that has it.
#[test]
fn a_day_never_comes_to_more_than_its_month() {
    for hour in ["00:00:01", "09:00:00", "23:59:59"] {
        for day in [1, 17, 30] {
            let instant = format!("2026-11-{day:02}T{hour}");
            let of_day = expected("period = 'day'", 900, 70_000, &instant).unwrap();
            let of_month = expected("", 900, 70_000, &instant).unwrap();
            assert!(of_day.expected <= of_month.expected, "{instant}: {of_day:?} {of_month:?}");
        }
    }
}

/// vnstat #87: a billing day that was changed to the 28th had no effect until February.
#[test]
fn a_changed_billing_day_holds_at_once() {
    assert_eq!(period("billing_day = 1", "2018-01-30T12:00:00"), of("2018-01-01", "2018-01-31", "2018-01"));
    assert_eq!(period("billing_day = 28", "2018-01-30T12:00:00"), of("2018-01-28", "2018-02-27", "2018-01"));
}

/// ServerStatus-Rust #99: from the 1st to the billing day, the month had nothing.
#[test]
fn before_the_billing_day_the_month_is_the_former_one() {
    assert_eq!(period("billing_day = 7", "2022-11-06T23:59:59"), of("2022-10-07", "2022-11-06", "2022-10"));
    assert_eq!(period("billing_day = 7", "2022-11-07T00:00:00"), of("2022-11-07", "2022-12-06", "2022-11"));
}

/// v2board #315: who bought on 30 January got new months on the 2nd, because February has no 30th.
#[test]
fn day_thirty_is_not_the_second() {
    assert_eq!(period("billing_day = 30", "2026-02-03T00:00:00"), of("2026-01-30", "2026-02-27", "2026-01"));
    assert_eq!(period("billing_day = 30", "2026-02-28T00:00:00"), of("2026-02-28", "2026-03-29", "2026-02"));
    assert_eq!(period("billing_day = 30", "2026-03-30T00:00:00"), of("2026-03-30", "2026-04-29", "2026-03"));
}

/// vnstat #174: one billing day for the whole host.
#[test]
fn each_container_has_its_own_billing_day() {
    let two = "[[quota]]\nname = 'q'\ncontainer = '1'\nallowance = '1GB'\nbilling_day = 5\n\
               [[quota]]\nname = 'q'\ncontainer = '2'\nallowance = '1GB'\nbilling_day = 20\n";
    let quotas = Quotas::parse(two).unwrap().quotas;
    let start =
        |quota: &Quota| quota.period.span(&Calendar::utc(), at("2026-11-10T00:00:00")).unwrap().start_s;
    assert_eq!(
        (start(&quotas[0]), start(&quotas[1])),
        (at("2026-11-05T00:00:00"), at("2026-10-20T00:00:00"))
    );
}

/// Outline #1860 and 3x-ui #1192: thirty days stood for a month.
#[test]
fn thirty_days_are_no_month() {
    assert_eq!(period("period = 'month'", "2026-03-31T00:00:00"), of("2026-03-01", "2026-03-31", "2026-03"));
    let thirty = period("period = '30 days'", "2026-03-31T00:00:00");
    assert_eq!(thirty, of("2026-03-02", "2026-03-31", "2026-03-02 to 2026-03-31"));
}

/// WHMCS counts 1 GB as 1024 MB, so that its overage differs from the node's by 7 %.
#[test]
fn a_unit_means_what_it_says() {
    for (text, bytes) in [("1TB", 1_000_000_000_000), ("1TiB", 1_099_511_627_776), ("1.5GiB", 1_610_612_736)]
    {
        assert_eq!(quota(&format!("allowance = '{text}'")).limit, Limit::Volume(bytes), "{text}");
    }
}

/// Tenantos suspends a server again each day after the allowance was raised.
#[test]
fn a_raised_allowance_counts_at_once() {
    let span = Span { start_s: 0, end_s: 30 * 86_400 };
    let is_reached = |lines: &str| {
        let quota = quota(lines);
        let allowance = allowance_in(&quota, span, None);
        allowance.map(|allowance| reached(&quota.thresholds, 1_200_000_000, allowance))
    };
    assert_eq!(is_reached("allowance = '1GB'"), Some(vec![80, 100]));
    assert_eq!(is_reached("allowance = '2GB'"), Some(vec![]));
    assert_eq!(is_reached("unlimited = true"), None);
}

/// Panels that keep traffic in mebibytes as floating-point numbers lose bytes, and never reach 100 %.
#[test]
fn the_last_byte_counts_at_any_size() {
    for allowance in [1_u64, 1_000_000_007, 9_007_199_254_740_993, u64::MAX / 100] {
        assert_eq!(reached(&[100], allowance - 1, allowance), [0; 0], "{allowance}");
        assert_eq!(reached(&[100], allowance, allowance), [100], "{allowance}");
    }
}
