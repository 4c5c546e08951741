use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan as _};
use proptest::prelude::*;
use traffic_model::calendar::{Calendar, FIVE_MINUTES_S, Level};

use crate::{Basis, By, Ledger, LedgerConfig, LedgerError, ReportQuery, Split, TopQuery, testing::*};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn in_zone(zone: &str) -> LedgerConfig {
    LedgerConfig { calendar: Calendar::new(zone, 1).unwrap(), ..LedgerConfig::default() }
}

/// Bytes in, by step name.
fn steps(ledger: &Ledger, query: &ReportQuery) -> Vec<(String, u64)> {
    let report = ledger.report(query).unwrap();
    report.rows.iter().map(|row| (row.period.clone(), row.figures.incoming.unwrap().bytes)).collect()
}

/// One byte per minute over three local days around a clock change, drained every quarter of an hour.
fn three_days(zone: &str, from: &str) -> Vec<(String, u64)> {
    let mut file = ledger_with(in_zone(zone));
    let start: Timestamp = at(from);
    let mut node = Node::new(start.as_second());
    let end = start.to_zoned(jiff::tz::TimeZone::get(zone).unwrap()) + 3.days();
    while node.wall < end.timestamp() {
        node.traffic("101", 1, [15, 15, 0, 0]).pass(900).drain(&mut file.ledger);
    }
    let query = ReportQuery { by: By::Day, ..ReportQuery::default() };
    let before = steps(&file.ledger, &query);
    file.ledger.maintain(node.wall).unwrap();
    assert_eq!(steps(&file.ledger, &query), before, "summed up or not");
    // Steps of another zone come from finer rows, and their sum is the same.
    let kolkata = Calendar::new("Asia/Kolkata", 1).unwrap();
    for by in [By::FiveMinutes, By::Hour, By::Day, By::Month, By::Total] {
        let query = ReportQuery { by, calendar: Some(kolkata.clone()), ..ReportQuery::default() };
        let report = file.ledger.report(&query).unwrap();
        assert_eq!(report.total.total.bytes, node.truth[&("101".to_owned(), 1)][1], "{by:?}");
        assert_eq!(
            report.rows.iter().map(|row| row.figures.total.bytes).sum::<u64>(),
            report.total.total.bytes
        );
    }
    before
}

#[test]
fn days_around_a_clock_change_have_their_hours() {
    let day = |name: &str, hours: u64| (name.to_owned(), hours * 60);
    assert_eq!(
        three_days("Europe/Berlin", "2026-03-27T23:00:00Z"),
        [day("2026-03-28", 24), day("2026-03-29", 23), day("2026-03-30", 24)]
    );
    assert_eq!(
        three_days("America/New_York", "2026-10-31T04:00:00Z"),
        [day("2026-10-31", 24), day("2026-11-01", 25), day("2026-11-02", 24)]
    );
}

#[test]
fn class_zero_is_separate_and_splits_add_up() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 0, [1, 10, 2, 20]).traffic("101", 1, [3, 300, 4, 400]).traffic(
        "101",
        2,
        [5, 5000, 6, 6000],
    );
    node.traffic("9", 1, [1, 1, 1, 1]).pass(60).drain(&mut file.ledger);
    let whole = file.ledger.report(&ReportQuery::default()).unwrap();
    let lines: Vec<_> =
        whole.rows.iter().map(|row| (row.container.as_str(), row.class, row.figures.total.bytes)).collect();
    assert_eq!(lines, [("9", None, 2), ("101", None, 11_700), ("101", Some(0), 30)]);
    assert_eq!((whole.total.total.bytes, whole.total.total.packets), (11_702, 20));
    assert_eq!(whole.class_zero.total.bytes, 30);
    let split = Split { class: true, direction: true, family: true };
    let query = ReportQuery { split, containers: vec!["101".to_owned()], ..ReportQuery::default() };
    let report = file.ledger.report(&query).unwrap();
    assert_eq!(report.rows.len(), 6);
    assert_eq!(
        (report.rows[0].class, report.rows[0].direction, report.rows[0].family),
        (Some(1), Some("in"), Some("ipv4"))
    );
    let billed: u64 = report.rows.iter().filter(|row| row.billed).map(|row| row.figures.total.bytes).sum();
    assert_eq!(billed, 11_700);
    let query = ReportQuery { classes: vec![2], ..ReportQuery::default() };
    assert_eq!(file.ledger.report(&query).unwrap().total.total.bytes, 11_000);
    let nobody = ReportQuery { containers: vec!["5".to_owned()], ..ReportQuery::default() };
    assert!(matches!(file.ledger.report(&nobody), Err(LedgerError::NoSuchContainer(id)) if id == "5"));
}

#[test]
fn the_basis_adds_overhead_per_packet() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(60).drain(&mut file.ledger);
    for (basis, bytes) in [(Basis::L3, 3000), (Basis::L2, 3540), (Basis::L1, 4140)] {
        let report = file.ledger.report(&ReportQuery { basis, ..ReportQuery::default() }).unwrap();
        assert_eq!((report.total.total.bytes, report.total.total.packets), (bytes, 30));
    }
}

#[test]
fn spans_that_begin_and_end_anywhere_are_exact_to_five_minutes() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for _ in 0..2 * 24 * 12 {
        node.traffic("101", 1, [1, 1, 0, 0]).pass(300).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    for (from, to) in [(0, 300), (450, 2000), (3600, 7200), (4000, 100_000), (0, 172_800), (43_200, 129_600)]
    {
        let query = ReportQuery {
            from: Some(time(NOON + from)),
            to: Some(time(NOON + to)),
            ..ReportQuery::default()
        };
        let report = file.ledger.report(&query).unwrap();
        let buckets = (to + FIVE_MINUTES_S - 1).div_euclid(FIVE_MINUTES_S) - from.div_euclid(FIVE_MINUTES_S);
        assert_eq!(report.total.total.bytes, buckets.unsigned_abs(), "{from} {to}");
    }
    let refusal = |from: Option<i64>, to: i64| {
        let query = ReportQuery { from: from.map(time), to: Some(time(to)), ..ReportQuery::default() };
        file.ledger.report(&query).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(Some(NOON + 900), NOON),
        "the span ends at 2026-11-10T12:00+00:00, before it begins at 2026-11-10T12:15+00:00; exchange them"
    );
    assert_eq!(
        refusal(None, NOON - 86_400),
        "the span ends at 2026-11-09T12:00+00:00, before the ledger begins at 2026-11-10T12:00+00:00; give a \
         later end"
    );
    assert_eq!(
        refusal(Some(NOON + 3 * 86_400), NOON + 4 * 86_400),
        "the span begins at 2026-11-13T12:00+00:00, after the last reading at 2026-11-12T12:00+00:00; give an \
         earlier start"
    );
    let early = ReportQuery { from: Some(time(NOON - 600)), ..ReportQuery::default() };
    assert_eq!(file.ledger.report(&early).unwrap().ledger_begin, Some(time(NOON)));
    assert_eq!(file.ledger.report(&ReportQuery::default()).unwrap().ledger_begin, None);
}

#[test]
fn queries_that_need_dropped_rows_are_refused() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for _ in 0..60 {
        node.traffic("101", 1, [1, 1, 0, 0]).pass(86_400).drain(&mut file.ledger);
    }
    let all = node.truth[&("101".to_owned(), 1)][1];
    let dropped = file.ledger.maintain(node.wall).unwrap().dropped_rows;
    assert!((20..=26).contains(&dropped), "{dropped}");
    let report = |query: &ReportQuery| file.ledger.report(query);
    assert_eq!(
        report(&ReportQuery { by: By::Day, ..ReportQuery::default() }).unwrap().total.total.bytes,
        all
    );
    assert_eq!(report(&ReportQuery::default()).unwrap().total.total.bytes, all);
    let fine = report(&ReportQuery { by: By::FiveMinutes, ..ReportQuery::default() });
    assert!(matches!(fine, Err(LedgerError::Query(_))), "{fine:?}");
    let percentile = report(&ReportQuery { percentile: Some(95.0), ..ReportQuery::default() });
    assert!(matches!(percentile, Err(LedgerError::Query(_))));
    let recent = Some(node.wall.checked_sub(jiff::SignedDuration::from_hours(240)).unwrap());
    let fine = report(&ReportQuery { by: By::FiveMinutes, from: recent, ..ReportQuery::default() }).unwrap();
    assert_eq!(fine.total.total.bytes, 10);
}

#[test]
fn a_clock_in_the_wrong_century_drops_nothing() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for _ in 0..3 {
        node.traffic("101", 1, [1, 1, 0, 0]).pass(86_400).drain(&mut file.ledger);
    }
    node.set_clock(100 * 365 * 86_400).pass(60).traffic("101", 1, [1, 1, 0, 0]).drain(&mut file.ledger);
    assert_eq!(file.ledger.maintain(node.wall).unwrap().dropped_rows, 0);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
}

#[test]
fn top_talkers_are_ranked() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for (container, bytes) in [("101", 500), ("102", 1000), ("103", 300), ("104", 200)] {
        node.traffic(container, 1, [1, bytes, 0, 0]).traffic(container, 2, [1, 1100 - bytes, 0, 0]);
        node.traffic(container, 0, [1, 1_000_000, 0, 0]);
    }
    node.traffic("104", 1, [0, 0, 1, 2000]).pass(60).drain(&mut file.ledger);
    let query = TopQuery {
        count: 2,
        from: None,
        to: None,
        calendar: None,
        classes: vec![1],
        by_class: false,
        basis: Basis::L3,
    };
    let names = |query: &TopQuery| -> Vec<(usize, String, Option<u8>)> {
        let rows = file.ledger.top_talkers(query).unwrap().rows;
        rows.into_iter().map(|row| (row.place, row.container, row.class)).collect()
    };
    assert_eq!(names(&query), [(1, "104".to_owned(), None), (2, "102".to_owned(), None)]);
    assert_eq!(file.ledger.top_talkers(&query).unwrap().rows[0].permille, 550);
    let shares: Vec<u64> = file
        .ledger
        .top_talkers(&TopQuery { count: 9, ..query.clone() })
        .unwrap()
        .rows
        .iter()
        .map(|row| row.permille)
        .collect();
    assert_eq!(shares.iter().sum::<u64>(), 1000, "{shares:?}");
    let by_class = TopQuery { count: 1, classes: vec![], by_class: true, ..query };
    assert_eq!(names(&by_class), [(1, "104".to_owned(), Some(1)), (1, "104".to_owned(), Some(2))]);
}

#[test]
fn months_with_another_billing_day_are_summed_from_days() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for _ in 0..60 {
        node.traffic("101", 1, [1, 1, 0, 0]).pass(86_400).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    let from_tenth = Calendar::new("UTC", 10).unwrap();
    let query = ReportQuery { by: By::Month, calendar: Some(from_tenth), ..ReportQuery::default() };
    let months = steps(&file.ledger, &query);
    // Drained at noon, one byte each day. The first is from November 11.
    assert_eq!(months, [("2026-11".to_owned(), 29), ("2026-12".to_owned(), 31)]);
    assert_eq!(file.ledger.calendar().label(Level::Month, NOON).unwrap(), "2026-11");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn percentiles_match_a_naive_reference(
        traffic in proptest::collection::vec((0_i64..288, 0_u8..2, 1_u32..1_000_000, 0_u32..1_000_000), 1..80),
        percent in 50_u32..=100,
    ) {
        let mut file = ledger();
        let mut node = Node::new(NOON - 12 * 3600);
        let mut by_bucket: BTreeMap<i64, Vec<_>> = BTreeMap::new();
        for (bucket, class, incoming, outgoing) in traffic {
            by_bucket.entry(bucket).or_default().push((class + 1, u64::from(incoming), u64::from(outgoing)));
        }
        let mut naive = vec![(0_u64, 0_u64); 288];
        for (bucket, entries) in by_bucket {
            let start = NOON - 12 * 3600 + bucket * 300 + 100;
            // Readings are taken at every border.
            let ahead = u64::try_from(start - 100 - node.wall.as_second()).unwrap();
            node.pass(ahead).drain(&mut file.ledger);
            node.pass(100);
            for (class, incoming, outgoing) in entries {
                let slot = &mut naive[usize::try_from(bucket).unwrap()];
                *slot = (slot.0 + incoming, slot.1 + outgoing);
                node.traffic("101", class, [1, incoming, 1, outgoing]);
            }
            node.drain(&mut file.ledger);
        }
        // To the end of the day, so that 288 buckets count.
        let rest = u64::try_from(NOON + 12 * 3600 - node.wall.as_second()).unwrap();
        node.pass(rest).drain(&mut file.ledger);
        let query = ReportQuery {
            from: Some(time(NOON - 12 * 3600)),
            to: Some(time(NOON + 12 * 3600)),
            percentile: Some(percent.into()),
            ..ReportQuery::default()
        };
        let report = file.ledger.report(&query).unwrap();
        let rates = report.rows[0].percentile.unwrap();
        prop_assert_eq!(rates.buckets, 288);
        let rank = usize::try_from((percent * 288).div_ceil(100)).unwrap();
        let reference = |value: fn(&(u64, u64)) -> u64| {
            let mut all: Vec<u64> = naive.iter().map(value).collect();
            all.sort_unstable();
            Some(all[rank - 1] * 8 / 300)
        };
        prop_assert_eq!(rates.incoming, reference(|bucket| bucket.0));
        prop_assert_eq!(rates.outgoing, reference(|bucket| bucket.1));
        prop_assert_eq!(rates.total, reference(|bucket| bucket.0 + bucket.1));
    }
}
