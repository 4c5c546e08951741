//! Rates over the time that readings really cover.

use crate::{By, Ledger, ReportQuery, query::percentile_report::SHARES_ALWAYS, testing::*};

const DAY: i64 = 86_400;
/// 8 Mbit/s.
const BYTES_PER_S: u64 = 1_000_000;

/// Time passes at a constant rate in both directions.
fn pass(node: &mut Node, seconds: u64) {
    let bytes = BYTES_PER_S * seconds;
    node.traffic("101", 1, [seconds, bytes, seconds, bytes]).pass(seconds);
}

fn query(from: i64, to: i64) -> ReportQuery {
    ReportQuery {
        from: Some(time(from)),
        to: Some(time(to)),
        percentile: Some(95.0),
        ..ReportQuery::default()
    }
}

fn rates(ledger: &Ledger, query: &ReportQuery) -> crate::Rates {
    ledger.report(query).unwrap().rows[0].percentile.unwrap()
}

#[test]
fn a_constant_rate_has_its_own_percentile_at_any_interval() {
    for interval_s in [30, 60, 90, 120, 180, 240, 300, 420, 600, 3600, 4 * 3600] {
        let mut file = ledger();
        let mut node = Node::new(NOON);
        while node.wall.as_second() < NOON + DAY {
            pass(&mut node, interval_s);
            node.drain(&mut file.ledger);
        }
        for percent in [1.0, 50.0, 95.0, 100.0] {
            let query = ReportQuery { percentile: Some(percent), ..query(NOON, NOON + DAY - 4 * 3600) };
            let rates = rates(&file.ledger, &query);
            assert_eq!(rates.incoming, Some(8_000_000), "{interval_s} s, percentile {percent}");
            assert_eq!((rates.outgoing, rates.total), (Some(8_000_000), Some(16_000_000)));
            assert_eq!(rates.spread_buckets > 0, 300 % interval_s != 0, "{interval_s} s");
        }
        assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth, "sums stay as they were counted");
    }
}

#[test]
fn a_daemon_that_is_down_for_a_part_of_every_hour_does_not_raise_the_rate() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for hour in 0..48 {
        for _ in 0..40 {
            pass(&mut node, 60);
            node.drain(&mut file.ledger);
        }
        // Down at any second of a bucket, up at any second of another.
        pass(&mut node, 1200 - hour * 7 % 290);
        node.drain(&mut file.ledger);
        pass(&mut node, hour * 7 % 290);
        node.drain(&mut file.ledger);
    }
    let query = query(NOON, NOON + 2 * DAY);
    let report = file.ledger.report(&query).unwrap();
    let rates = report.rows[0].percentile.unwrap();
    assert_eq!(rates.incoming, Some(8_000_000));
    assert!(rates.spread_buckets >= 4 * 48 && report.mixed_buckets >= 48, "{rates:?}");
    let open = ReportQuery { percentile: Some(100.0), ..query };
    assert_eq!(self::rates(&file.ledger, &open).incoming, Some(8_000_000), "no bucket is above it");
}

#[test]
fn the_percentile_of_a_closed_month_is_frozen() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    let november = query(NOON - 10 * DAY + DAY / 2, NOON + 20 * DAY + DAY / 2);
    let december = NOON + 20 * DAY + DAY / 2;
    while node.wall.as_second() < december + 300 {
        pass(&mut node, 300);
        node.traffic("101", 0, [1, 3000, 1, 3000]).drain(&mut file.ledger);
    }
    let by_class = |split| ReportQuery {
        split: crate::Split { class: split, ..Default::default() },
        by: By::Month,
        ..november.clone()
    };
    let all = |ledger: &Ledger| -> Vec<_> {
        let mut all = Vec::new();
        for basis in [crate::Basis::L3, crate::Basis::L2, crate::Basis::L1] {
            for split in [false, true] {
                let query = ReportQuery { basis, ..by_class(split) };
                all.extend(
                    ledger.report(&query).unwrap().rows.into_iter().map(|row| (row.class, row.percentile)),
                );
            }
        }
        all
    };
    let before = all(&file.ledger);
    assert!(before.iter().all(|(_, rates)| rates.is_some()));
    file.ledger.close("2026-11", node.wall).unwrap();
    assert_eq!(all(&file.ledger), before);
    // Asked long after, when the five-minute rows are gone.
    for _ in 0..70 {
        node.pass(86_400).traffic("101", 1, [1, 1, 1, 1]).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    let left: i64 = file
        .ledger
        .conn
        .query_row("SELECT count(*) FROM traffic_5min WHERE start < ?1", [december], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
    assert_eq!(all(&file.ledger), before);
    let other = ReportQuery { percentile: Some(90.0), ..november };
    assert!(file.ledger.report(&other).unwrap_err().to_string().contains("dropped"));
}

#[test]
fn whoever_closes_months_finds_their_rows_on_the_sixth() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    let read = |node: &mut Node, ledger: &mut Ledger, until: i64| {
        while node.wall.as_second() < until {
            pass(node, 3600);
            node.drain(ledger);
        }
    };
    let day = DAY / 2;
    read(&mut node, &mut file.ledger, NOON + 25 * DAY + day);
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    // 10 January: December began 40 days ago, and five-minute rows are kept for 35.
    read(&mut node, &mut file.ledger, NOON + 61 * DAY + day);
    file.ledger.maintain(node.wall).unwrap();
    file.ledger.close_anyway("2026-12", node.wall).unwrap();
    let december = query(NOON + 20 * DAY + day, NOON + 51 * DAY + day);
    assert_eq!(rates(&file.ledger, &december).incoming, Some(8_000_000));
}

#[test]
fn several_threads_find_what_one_does() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    // Enough for three threads.
    for day in 0..20 {
        for container in 0..30 {
            node.traffic(
                &format!("{}", 101 + container),
                1,
                [1, 1000 * (container + 1) * (day % 7 + 1), 2, 300],
            );
        }
        node.pass(300).drain(&mut file.ledger);
        node.pass(86_100).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    // Of 5,760 five minutes, 20 carried something.
    let query = ReportQuery { percentile: Some(99.9), ..query(NOON, NOON + 20 * DAY) };
    let shared = file.ledger.report(&query).unwrap();
    assert!(
        shared.rows.iter().all(|row| row.percentile.unwrap().incoming > Some(0)) && shared.rows.len() == 30
    );
    for row in &shared.rows {
        // Few containers are read by one thread.
        let one = ReportQuery { containers: vec![row.container.clone()], ..query.clone() };
        assert_eq!(rates(&file.ledger, &one), row.percentile.unwrap(), "{}", row.container);
    }
    SHARES_ALWAYS.set(true);
    assert_eq!(file.ledger.report(&query).unwrap().rows, shared.rows);
    SHARES_ALWAYS.set(false);
}
