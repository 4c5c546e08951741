//! The ledger as an outbox: what changes the change number, and what does not.

use std::path::Path;

use super::simulator::shipping::Store;
use crate::{Changes, Ledger, LedgerConfig, TABLES, testing::*};

fn number(ledger: &Ledger) -> i64 {
    ledger.shipping_identity().unwrap().changes
}

fn changed(ledger: &Ledger, after: i64, units: bool) -> Vec<(&'static str, i64)> {
    let changes = ledger.changes(Changes { after, until: i64::MAX, units }).unwrap();
    assert!(changes.is_sorted_by_key(|change| change.2));
    changes.into_iter().map(|change| (change.0, change.1)).collect()
}

#[test]
fn a_drain_changes_its_bucket_and_only_that() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 100, 2, 200]).pass(60).drain(&mut file.ledger);
    let first = number(&file.ledger);
    assert!(first > 0);
    node.traffic("101", 1, [3, 300, 4, 400]).pass(60).drain(&mut file.ledger);
    assert_eq!(number(&file.ledger), first + 1);
    assert_eq!(changed(&file.ledger, first, true), [("5min", NOON)]);
    assert_eq!(changed(&file.ledger, first, false), []);
    let content = file.ledger.contents(&[("5min", NOON)]).unwrap().remove(0);
    assert_eq!(content.rev, first + 1);
    let traffic = content.counted_rows().find(|row| TABLES[row.0].name == "traffic").unwrap();
    // Absolute values: both drains.
    assert_eq!(traffic.1[6..], [4, 400, 6, 600]);
    node.pass(60).drain(&mut file.ledger);
    assert_eq!(number(&file.ledger), first + 1, "a drain in which nothing moved changes nothing");
}

#[test]
fn sums_packed_days_and_retention_change_no_five_minutes() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..50 {
        node.traffic("101", 1, [1, 100, 1, 10]).pass(3600).drain(&mut file.ledger);
    }
    let before = number(&file.ledger);
    let mut store = Store::default();
    store.check(&file.ledger);
    file.ledger.maintain(node.wall).unwrap();
    let after = changed(&file.ledger, before, true);
    assert!(after.len() >= 2 && after.iter().all(|part| part.0 == "day"), "{after:?}");
    store.check(&file.ledger);
    node.pass(90 * 86_400).traffic("101", 1, [1, 1, 1, 1]).drain(&mut file.ledger);
    let before = number(&file.ledger);
    let done = file.ledger.maintain(node.wall).unwrap();
    assert!(done.dropped_rows > 0, "{done:?}");
    assert!(changed(&file.ledger, before, true).iter().all(|part| part.0 == "day"));
    store.check(&file.ledger);
    assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
}

#[test]
fn an_attribution_changes_the_units_whose_rows_it_moves() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    let pending = "pending:veth7:7:20261110T120000Z";
    node.traffic_in(pending, 9, 1, [10, 1000, 20, 3000]).pass(60).drain(&mut file.ledger);
    for _ in 0..30 {
        node.traffic("101", 1, [1, 100, 1, 10]).pass(3600).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    let mut store = Store::default();
    store.check(&file.ledger);
    let before = number(&file.ledger);
    file.ledger.attribute(pending, &id("102"), "found", node.wall).unwrap().unwrap();
    let day = NOON - NOON % 86_400;
    assert_eq!(changed(&file.ledger, before, true), [("5min", NOON), ("day", day)]);
    store.check(&file.ledger);
}

#[test]
fn a_ledger_that_went_back_has_another_token_at_the_same_number() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic("101", 1, [1, 100, 2, 200]).pass(60).drain(&mut file.ledger);
    let copy = file.dir.path().join("copy");
    file.ledger.backup(&copy).unwrap();
    let reopen = |path: &Path| Ledger::open(path, LedgerConfig::default()).unwrap();
    let (mut restored, mut other) = (reopen(&copy), node.clone());
    let fork = number(&file.ledger);
    let token = file.ledger.lineage_at(fork).unwrap();
    assert_eq!(restored.lineage_at(number(&restored).min(fork)).unwrap(), token, "the same past");
    for _ in 0..3 {
        node.traffic("101", 1, [1, 1, 1, 1]).pass(60).drain(&mut file.ledger);
        other.traffic("101", 1, [2, 2, 2, 2]).pass(60).drain(&mut restored);
    }
    let known = number(&file.ledger);
    assert!(number(&restored) >= known);
    assert_ne!(restored.lineage_at(known).unwrap(), file.ledger.lineage_at(known).unwrap());
    // Whoever only opens it again goes on with the same past.
    let again = reopen(file.ledger.path());
    assert_eq!(again.lineage_at(known).unwrap(), file.ledger.lineage_at(known).unwrap());
}

#[test]
fn a_change_that_fails_takes_no_number() {
    let file = ledger();
    let before = number(&file.ledger);
    let failed: Result<(), _> = crate::digest::change(&file.ledger.conn, |transaction| {
        transaction.execute_batch("INSERT INTO container VALUES (7, 'a', 'a', 'ct', 1, NULL)")?;
        Err(crate::LedgerError::StaleReading { boottime_ns: 1, last_ns: 2 })
    });
    assert!(failed.is_err());
    assert_eq!(number(&file.ledger), before);
    assert_eq!(changed(&file.ledger, before, false), []);
    crate::digest::change(&file.ledger.conn, |transaction| {
        // The conflict clause of the statement must not become that of the note.
        Ok(transaction.execute_batch(
            "INSERT OR IGNORE INTO container VALUES (7, 'a', 'a', 'ct', 1, NULL);
             INSERT OR IGNORE INTO container VALUES (7, 'a', 'a', 'ct', 1, NULL);
             UPDATE OR IGNORE container SET since = 2 WHERE id = 7;",
        )?)
    })
    .unwrap();
    assert_eq!(changed(&file.ledger, before, false), [("container", 7)]);
    crate::digest::change(&file.ledger.conn, |transaction| {
        Ok(transaction.execute_batch("UPDATE OR IGNORE container SET since = 3 WHERE id = 7;")?)
    })
    .unwrap();
    assert_eq!(changed(&file.ledger, before + 1, false), [("container", 7)]);
}

/// SQL that makes a ledger one of schema version 8.
const AS_VERSION_8: &str = "
    DROP TABLE outbox; DROP TABLE changes; DROP TABLE lineage; DROP TABLE quota_track; DROP TABLE quota_used;
    DROP TABLE quota_threshold; DROP TABLE quota_crossing;
    DELETE FROM digest WHERE name IN ('outbox', 'changes', 'lineage'); PRAGMA user_version = 8";

#[test]
fn a_migrated_ledger_ships_everything() {
    for (older, has_digests) in [(as_version_3(), false), (without_drops() + AS_VERSION_8, true)] {
        let mut file = ledger();
        let mut node = Node::balanced(NOON);
        for _ in 0..30 {
            node.traffic("101", 1, [1, 100, 1, 10]).traffic("102", 0, [1, 7, 1, 7]);
            node.pass(3600).drain(&mut file.ledger);
        }
        file.ledger.maintain(node.wall).unwrap();
        let path = file.ledger.path().to_owned();
        rusqlite::Connection::open(&path).unwrap().execute_batch(&older).unwrap();
        let mut migrated = Ledger::open(&path, LedgerConfig::default()).unwrap();
        assert!(number(&migrated) >= 1);
        let mut store = Store::default();
        store.check(&migrated);
        let audit = migrated.audit().unwrap();
        assert_eq!((audit.problems, audit.rows_skipped == 0), (Vec::new(), has_digests));
        node.traffic("101", 1, [1, 5, 1, 6]).pass(300).drain(&mut migrated);
        migrated.maintain(node.wall).unwrap();
        store.check(&migrated);
        assert_eq!(migrated.audit().unwrap().problems, [""; 0]);
    }
}
