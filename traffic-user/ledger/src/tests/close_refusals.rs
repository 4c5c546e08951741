//! Months whose figures are doubtful.

use crate::{Ledger, testing::*};

const DAY: i64 = 86_400;
/// 1 December, midnight.
const DECEMBER: i64 = NOON + 20 * DAY + DAY / 2;

fn read_until(node: &mut Node, ledger: &mut Ledger, until: i64) {
    while node.wall.as_second() < until {
        node.traffic("101", 1, [1, 100, 1, 100]).pass(300).drain(ledger);
    }
}

fn begun() -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::balanced(NOON + 10 * DAY);
    read_until(&mut node, &mut file.ledger, NOON + 18 * DAY);
    (file, node)
}

/// Whether November is refused for this reason, and closes with force.
fn refused(file: &mut File, node: &Node, reason: &str) {
    let refusal = file.ledger.close("2026-11", node.wall).unwrap_err().to_string();
    assert!(refusal.contains(reason) && refusal.contains("--force"), "{refusal}");
    assert_eq!(file.ledger.close_anyway("2026-11", node.wall).unwrap().name, "2026-11");
    assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_month_with_all_its_readings_closes() {
    let (mut file, mut node) = begun();
    read_until(&mut node, &mut file.ledger, DECEMBER + 600);
    file.ledger.close("2026-11", node.wall).unwrap();
}

#[test]
fn the_daemon_was_down_at_the_end() {
    let (mut file, mut node) = begun();
    read_until(&mut node, &mut file.ledger, DECEMBER - 7200);
    node.traffic("101", 1, [9, 900, 9, 900]).pass(4 * 3600);
    file.ledger.drain(&node.snapshot(), STARTED).unwrap();
    read_until(&mut node, &mut file.ledger, DECEMBER + 4 * 3600);
    refused(&mut file, &node, "daemon_down");
}

#[test]
fn a_backup_was_restored() {
    let (mut file, mut node) = begun();
    let backup = file.dir.path().join("backup.sqlite");
    file.ledger.backup(&backup).unwrap();
    read_until(&mut node, &mut file.ledger, DECEMBER + 600);
    let mut restored = Ledger::open(&backup, crate::LedgerConfig::default()).unwrap();
    node.drain(&mut restored);
    read_until(&mut node, &mut restored, DECEMBER + 3600);
    file.ledger = restored;
    refused(&mut file, &node, "if a backup was restored");
    // The node was even rebooted in between.
    let (mut file, mut node) = begun();
    node.reboot(5 * DAY).set_clock(-3 * DAY);
    read_until(&mut node, &mut file.ledger, DECEMBER + 3600);
    refused(&mut file, &node, "jumped");
}

#[test]
fn the_clock_is_wrong() {
    // A clock that is followed on trial, after a reboot.
    let (mut file, mut node) = begun();
    node.reboot(60).set_clock(20 * DAY);
    node.renew_maps();
    let until = node.wall.as_second() + DAY;
    read_until(&mut node, &mut file.ledger, until);
    refused(&mut file, &node, "jumped");
    // A clock that is not followed: the month is not over.
    let (mut file, mut node) = begun();
    read_until(&mut node, &mut file.ledger, NOON + 19 * DAY);
    node.set_clock(60 * DAY);
    let until = node.wall.as_second() + DAY / 2;
    read_until(&mut node, &mut file.ledger, until);
    let early = file.ledger.close_anyway("2026-11", node.wall).unwrap_err().to_string();
    assert!(early.contains("the last drain was before its end"), "{early}");
}

#[test]
fn the_month_is_empty() {
    let (mut file, mut node) = begun();
    read_until(&mut node, &mut file.ledger, DECEMBER + 600);
    file.ledger.close("2026-11", node.wall).unwrap();
    let refusal = file.ledger.close("2026-09", node.wall).unwrap_err().to_string();
    assert!(refusal.contains("holds no figures") && refusal.contains("--force"), "{refusal}");
    assert_eq!(file.ledger.close_anyway("2026-09", node.wall).unwrap().rows, 0);
    assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
}
