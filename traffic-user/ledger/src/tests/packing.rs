//! Packing of finished days by two processes at once, and by one that is killed.

use std::{thread, time::Duration};

use jiff::Timestamp;
use rusqlite::types::Value;

use super::simulator::{Random, disk::Disk};
use crate::{Ledger, LedgerConfig, testing::*};

const VIEWS: [&str; 4] = ["traffic_5min", "traffic_hour", "passed_5min", "passed_hour"];

/// A ledger with some days that are summed, but not packed.
fn unpacked(days: u64) -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for bucket in 0..days * 48 {
        node.traffic("101", 1, [1 + bucket % 7, 100 + bucket * 13, 2, 300 + bucket]);
        if bucket % 5 == 0 {
            node.traffic("102", 2, [3, 33 + bucket, 1, 11]);
        }
        node.pass(1800).drain(&mut file.ledger);
    }
    file.ledger.roll_up_only().unwrap();
    (file, node)
}

fn rows(ledger: &Ledger) -> Vec<Vec<Vec<Value>>> {
    let of_view = |view| {
        let sql = format!("SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5");
        let mut statement = ledger.conn.prepare(&sql).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect()).unwrap();
        rows.map(Result::unwrap).collect()
    };
    VIEWS.map(of_view).to_vec()
}

fn rows_of_finished_days(ledger: &Ledger, now: Timestamp) -> i64 {
    let today = now.as_second().div_euclid(86_400) * 86_400;
    let sql = format!("SELECT count(*) FROM traffic_5min_rows WHERE start < {today}");
    ledger.conn.query_row(&sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn two_processes_that_pack_at_the_same_time_lose_and_repeat_nothing() {
    let (mut file, mut node) = unpacked(12);
    let path = file.ledger.path().to_owned();
    let before = rows(&file.ledger);
    let now = node.wall;
    let pack = || {
        let mut ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
        ledger.conn.execute_batch("PRAGMA synchronous = OFF").unwrap();
        let mut packed = 0;
        // One part at a time, so that the two take turns.
        for _ in 0..10_000 {
            let done = ledger.maintain_for(now, Duration::ZERO).unwrap();
            packed += done.packed_series;
            if !done.unfinished {
                return packed;
            }
        }
        panic!("it never ends");
    };
    let packed: Vec<usize> = thread::scope(|scope| {
        let both = [scope.spawn(pack), scope.spawn(pack)];
        both.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(packed.iter().sum::<usize>() > 40, "{packed:?}");
    assert_eq!(rows_of_finished_days(&file.ledger, node.wall), 0);
    assert_eq!(rows(&file.ledger), before);
    node.traffic("101", 1, [1, 100, 1, 100]).pass(300).drain(&mut file.ledger);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
}

#[test]
fn whoever_is_killed_while_packing_loses_and_repeats_nothing() {
    let (file, node) = unpacked(4);
    let before = rows(&file.ledger);
    file.ledger.checkpoint().unwrap();
    let content = std::fs::read(file.ledger.path()).unwrap();
    let (mut random, mut kills) = (Random::new(1), 0);
    for stop_after in (1..).step_by(7) {
        let disk = Disk::new();
        let path = disk.path().join("ledger.sqlite");
        disk.put(&path, content.clone());
        let open = || Ledger::open(&path, LedgerConfig::default());
        let mut ledger = open().unwrap();
        disk.stop_after(stop_after);
        let result = ledger.maintain(node.wall);
        drop(ledger);
        if !disk.is_stopped() {
            result.unwrap();
            break;
        }
        kills += 1;
        if kills % 2 == 0 {
            disk.lose_power(&mut random);
        }
        disk.restart();
        let mut ledger = open().unwrap();
        assert_eq!(rows(&ledger), before, "killed at write {stop_after}");
        ledger.maintain(node.wall).unwrap();
        assert_eq!(rows(&ledger), before, "killed at write {stop_after}, then packed");
        assert_eq!(rows_of_finished_days(&ledger, node.wall), 0);
        assert_eq!(ledger.audit().unwrap().problems, [""; 0]);
    }
    assert!(kills > 20, "only {kills} kills");
}
