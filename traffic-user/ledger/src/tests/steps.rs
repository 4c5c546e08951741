//! Weeks and years: their borders, their names, and that their sums are those of days and months.

use jiff::Timestamp;
use traffic_model::calendar::Calendar;

use crate::{By, Report, ReportQuery, testing::*};

const DAY: u64 = 86_400;

/// 500 days from 11 November 2026, with other figures on each day.
fn years() -> File {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for day in 1..=500 {
        node.traffic("101", 1, [1, 1000 + day, 1, 77]).pass(DAY).drain(&mut file.ledger);
        if day % 50 == 0 {
            file.ledger.maintain(node.wall).unwrap();
        }
    }
    file
}

fn by(file: &File, by: By, calendar: Option<Calendar>) -> Report {
    file.ledger.report(&ReportQuery { by, calendar, ..ReportQuery::default() }).unwrap()
}

fn names(report: &Report) -> Vec<&str> {
    report.steps.iter().map(|step| step.period.as_str()).collect()
}

#[test]
fn weeks_begin_on_monday_and_have_the_numbers_of_iso_8601() {
    let file = years();
    let weeks = by(&file, By::Week, None);
    let names = names(&weeks);
    // 2026 has 53 weeks: its last one ends on Sunday, 3 January.
    assert_eq!(names[..2], ["2026-W46", "2026-W47"]);
    assert!(names.contains(&"2026-W53") && names.contains(&"2027-W01") && !names.contains(&"2027-W53"));
    for (step, next) in weeks.steps.iter().zip(&weeks.steps[1..]).skip(1) {
        assert_eq!(step.end, next.start);
        assert_eq!(
            step.start.to_zoned(jiff::tz::TimeZone::UTC).strftime("%A %H:%M").to_string(),
            "Monday 00:00"
        );
    }
    let days = by(&file, By::Day, None);
    for week in &weeks.rows {
        let within = days.rows.iter().filter(|day| week.start <= day.start && day.start < week.end);
        assert_eq!(within.map(|day| day.figures.total.bytes).sum::<u64>(), week.figures.total.bytes);
    }
    assert_eq!(weeks.total, days.total);
}

#[test]
fn a_year_has_twelve_billing_months() {
    let file = years();
    for calendar in [None, Some(Calendar::new("UTC", 17).unwrap())] {
        let years = by(&file, By::Year, calendar.clone());
        assert_eq!(names(&years), ["2026", "2027", "2028"]);
        let months = by(&file, By::Month, calendar);
        for year in &years.rows {
            let within = months.rows.iter().filter(|month| month.period.starts_with(&year.period));
            assert_eq!(within.map(|month| month.figures.total.bytes).sum::<u64>(), year.figures.total.bytes);
        }
    }
    let shifted = by(&file, By::Year, Some(Calendar::new("UTC", 17).unwrap()));
    assert_eq!(shifted.steps[1].start, "2027-01-17T00:00:00Z".parse::<Timestamp>().unwrap());
}

#[test]
fn a_week_across_a_clock_change_is_an_hour_longer() {
    let file = years();
    // Hours are kept for 13 months, and steps of another zone need them.
    let in_berlin = |by| ReportQuery {
        by,
        from: Some("2027-03-07T23:00:00Z".parse().unwrap()),
        calendar: Some(Calendar::new("Europe/Berlin", 1).unwrap()),
        ..ReportQuery::default()
    };
    let berlin = file.ledger.report(&in_berlin(By::Week)).unwrap();
    let hours = |name: &str| {
        let step = berlin.steps.iter().find(|step| step.period == name).unwrap();
        (step.end.as_second() - step.start.as_second()) / 3600
    };
    assert_eq!([hours("2027-W12"), hours("2027-W13"), hours("2027-W43")], [167, 168, 169]);
    assert_eq!(berlin.total, file.ledger.report(&in_berlin(By::Day)).unwrap().total);
}

#[test]
fn a_closed_month_is_the_same_in_its_year() {
    let mut file = years();
    let before = by(&file, By::Year, None);
    file.ledger.close_anyway("2026-11", time(NOON + 501 * DAY.cast_signed())).unwrap();
    let after = by(&file, By::Year, None);
    assert_eq!(before.rows, after.rows);
    assert_eq!(after.closed.len(), 1);
}

#[test]
fn only_a_step_that_goes_on_is_estimated() {
    let file = years();
    for (step, some) in
        [(By::Week, true), (By::Month, true), (By::Year, true), (By::Day, false), (By::Total, false)]
    {
        let report = by(&file, step, None);
        assert_eq!(report.running.is_some(), some, "{step:?}");
        let Some(running) = report.running else { continue };
        let last = report.rows.last().unwrap();
        assert_eq!(running.period, last.period);
        let elapsed = report.last_reading.unwrap().as_second() - last.start.as_second();
        let whole = running.end.as_second() - last.start.as_second();
        let expected = u128::from(last.figures.total.bytes) * u128::from(whole.unsigned_abs())
            / u128::from(elapsed.unsigned_abs());
        assert!(u128::from(running.estimate.figures.total.bytes).abs_diff(expected) <= 2, "{step:?}");
    }
    // As on the web page.
    let months = file.ledger.months(&ReportQuery::default(), 1).unwrap();
    let running = by(&file, By::Month, None).running.unwrap();
    assert_eq!(months.months[0].estimate, Some(running.estimate));
    // A span that ends before the last reading says nothing about the month.
    let cut = ReportQuery {
        by: By::Month,
        to: Some(time(NOON + 490 * DAY.cast_signed())),
        ..ReportQuery::default()
    };
    assert_eq!(file.ledger.report(&cut).unwrap().running, None);
    // Nor does one that begins within it.
    let late = ReportQuery {
        by: By::Month,
        from: Some(time(NOON + 498 * DAY.cast_signed())),
        ..ReportQuery::default()
    };
    assert_eq!(file.ledger.report(&late).unwrap().running, None);
}

#[test]
fn the_last_two_months_begin_with_a_month_or_with_the_ledger() {
    let file = years();
    let start = |calendar: &Calendar| file.ledger.last_two_months(calendar).unwrap().to_string();
    // The last reading is on 24 March 2028.
    assert_eq!(start(file.ledger.calendar()), "2028-02-01T00:00:00Z");
    assert_eq!(start(&Calendar::new("UTC", 28).unwrap()), "2028-01-28T00:00:00Z");
    let young = ledger();
    let mut young = young;
    Node::balanced(NOON).traffic("101", 1, [1; 4]).pass(60).drain(&mut young.ledger);
    let begin = young.ledger.last_two_months(young.ledger.calendar()).unwrap();
    assert_eq!(begin, by(&young, By::Total, None).from);
}
