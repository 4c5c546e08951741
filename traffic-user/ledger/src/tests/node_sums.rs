//! Sums of the node that are kept between queries: the same as without, whatever happens to the ledger meanwhile.

use rusqlite::Connection;

use crate::{
    By, Ledger, NodeSums, ReportQuery, Series, SeriesQuery,
    testing::{self, NOON, Node},
};

fn query(by: By, classes: &[u8]) -> SeriesQuery {
    let of = ReportQuery { classes: classes.to_vec(), ..ReportQuery::default() };
    SeriesQuery { of, by: Some(by), most_points: 5000 }
}

/// The answer with and without what is kept must be the same; returns it.
fn same(ledger: &Ledger, kept: &NodeSums) -> Series {
    for query in [query(By::Hour, &[]), query(By::Total, &[]), query(By::FiveMinutes, &[2])] {
        assert_eq!(ledger.series_keeping(&query, Some(kept)).unwrap(), ledger.series(&query).unwrap());
    }
    let query = query(By::FiveMinutes, &[]);
    let series = ledger.series(&query).unwrap();
    assert_eq!(ledger.series_keeping(&query, Some(kept)).unwrap(), series);
    // And as a reader that kept nothing before.
    assert_eq!(ledger.series_keeping(&query, Some(&NodeSums::default())).unwrap(), series);
    series
}

#[test]
fn whatever_changes_the_ledger_changes_the_answer() {
    let mut file = testing::ledger();
    let mut node = Node::new(NOON);
    let kept = NodeSums::default();
    node.drain(&mut file.ledger);
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((seed >> 33) % below).unwrap()
    };
    for at in 0_i64..220 {
        let (class, bytes) = ([0, 1, 2, 200][random(4)], random(5000) as u64);
        node.traffic(["101", "102", "vm-3"][random(3)], class, [1, bytes, 2, 3 * bytes]);
        // Steps of a minute, late readings, hours that are over, days that are packed, a clock that jumps.
        node.pass([60, 60, 60, 299, 900, 3700][random(6)]);
        if at % 70 == 69 {
            node.pass(86_400);
        }
        if at % 50 == 49 {
            node.set_clock(if at % 100 == 49 { -1800 } else { 4000 });
        }
        node.drain(&mut file.ledger);
        if at % 3 == 0 {
            same(&file.ledger, &kept);
        }
        if at % 40 == 20 {
            file.ledger.maintain(node.wall).unwrap();
            same(&file.ledger, &kept);
        }
        if at % 25 == 0 {
            Ledger::open_beside_writer(file.ledger.path()).unwrap().keep_last_day(&kept).unwrap();
        }
    }
    let all = same(&file.ledger, &kept);
    assert!(all.classes.len() == 4 && all.starts.len() > 288, "{} {}", all.classes.len(), all.starts.len());
}

#[test]
fn what_is_kept_is_not_read_again() {
    let mut file = testing::ledger();
    let mut node = Node::new(NOON);
    for _ in 0..20 {
        node.traffic("101", 1, [1, 100, 2, 200]).pass(60).drain(&mut file.ledger);
    }
    let kept = NodeSums::default();
    file.ledger.keep_last_day(&kept).unwrap();
    let bytes = |ledger: &Ledger, kept: &NodeSums| {
        ledger.series_keeping(&query(By::FiveMinutes, &[]), Some(kept)).unwrap().total.total.bytes
    };
    let before = bytes(&file.ledger, &kept);
    // A stranger changes rows without noting it, so that it shows which rows are read.
    let stranger = Connection::open(file.ledger.path()).unwrap();
    stranger.execute("UPDATE traffic_5min_rows SET in_bytes = in_bytes + 1000000", []).unwrap();
    assert_eq!(bytes(&file.ledger, &kept), before);
    // Only the five minutes of the next drain are read again.
    let units: i64 = stranger
        .query_row("SELECT count(DISTINCT start) FROM traffic_5min_rows", [], |row| row.get(0))
        .unwrap();
    let units = units.unsigned_abs();
    assert!(units > 3, "{units}");
    node.traffic("101", 1, [1, 100, 2, 200]).pass(1).drain(&mut file.ledger);
    let after = bytes(&file.ledger, &kept) - before;
    assert!((300..=2_000_400).contains(&after), "{after}");
    // Another process that went back to an earlier state wrote the same numbers with other rows.
    let lineage = "UPDATE lineage SET token = 'another'";
    stranger.execute(lineage, []).unwrap();
    assert!(bytes(&file.ledger, &kept) >= before + (units - 1) * 1_000_000);
    // Another ledger.
    let mut other = testing::ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 7, 2, 9]).pass(60).drain(&mut other.ledger);
    assert_eq!(bytes(&other.ledger, &kept), 16);
}
