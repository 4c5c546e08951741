//! Ledgers of older versions: the migration lets others write, can be killed, and leaves digests to be computed.

use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use rusqlite::Connection;

use crate::{Ledger, LedgerConfig, LedgerError, MigrationProgress, testing::*};

/// A ledger of version 3 in which `days` days are summed and none is packed, as its writer left it.
fn older(days: u32) -> (File, Node) {
    let (mut file, mut node) = (ledger(), Node::balanced(NOON));
    for _ in 0..days * 24 {
        node.traffic("101", 1, [1, 100, 1, 10]).traffic("102", 0, [1, 7, 1, 7]);
        node.pass(3600).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    Connection::open(file.ledger.path()).unwrap().execute_batch(&as_version_3()).unwrap();
    (file, node)
}

fn reopen(file: &mut File) {
    file.ledger = Ledger::open(file.ledger.path(), LedgerConfig::default()).unwrap();
}

fn assert_audited(ledger: &Ledger) -> u64 {
    let audit = ledger.audit().unwrap();
    assert_eq!(audit.problems, [""; 0]);
    audit.rows_skipped
}

#[test]
fn digests_are_computed_little_by_little_while_drains_continue() {
    let (mut file, mut node) = older(4);
    reopen(&mut file);
    let all = assert_audited(&file.ledger);
    assert!(all > 500, "{all}");
    let (mut left, mut rounds) = (all, 0);
    while file.ledger.maintain_for(node.wall, Duration::ZERO).unwrap().unfinished {
        node.traffic("101", 1, [1, 5, 1, 6]).pass(10).drain(&mut file.ledger);
        // Another process begins where this one is.
        if rounds % 3 == 0 {
            reopen(&mut file);
        }
        let now = assert_audited(&file.ledger);
        assert!(now <= left + 20, "{now} after {left}");
        (left, rounds) = (now, rounds + 1);
        assert!(rounds < 2000);
    }
    assert!(rounds > 12, "{rounds}");
    assert_eq!(assert_audited(&file.ledger), 0);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    for table in ["traffic_day", "passed_day", "passed_5min_days", "traffic_hour_days"] {
        let copy = file.dir.path().join(table);
        file.ledger.backup(&copy).unwrap();
        Connection::open(&copy)
            .unwrap()
            .execute_batch(&format!("UPDATE {table} SET start = start + 1"))
            .unwrap();
        assert_ne!(Ledger::open_read_only(&copy).unwrap().audit().unwrap().problems, [""; 0], "{table}");
    }
}

#[test]
fn a_part_that_changes_while_it_is_read_is_read_again() {
    let (mut file, mut node) = older(2);
    reopen(&mut file);
    // Every step is one slice, and every slice is followed by a change of the open day and of an older one.
    let mut rounds = 0;
    while file.ledger.digests.step(&file.ledger.conn).unwrap() {
        node.traffic("101", 1, [1, 5, 1, 6]).pass(1).drain(&mut file.ledger);
        let change = "UPDATE traffic_day SET in_bytes = in_bytes + 1 WHERE start = (SELECT min(start) FROM traffic_day)";
        crate::digest::change(&file.ledger.conn, |transaction| Ok(transaction.execute_batch(change)?))
            .unwrap();
        rounds += 1;
        assert!(rounds < 500);
    }
    let problems = file.ledger.audit().unwrap().problems;
    assert!(problems.iter().all(|problem| !problem.contains("something else")), "{problems:?}");
}

#[test]
fn whoever_writes_the_older_version_continues_while_it_is_copied() {
    let (file, node) = older(1);
    let path = file.ledger.path().to_owned();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let (seen, beside) = (Arc::clone(&steps), path.clone());
    let progress = move |step: MigrationProgress| {
        let mut seen = seen.lock().unwrap();
        if let MigrationProgress::Copying { .. } = step {
            let former = Connection::open(&beside).unwrap();
            former.busy_timeout(Duration::ZERO).unwrap();
            let insert = "INSERT INTO gap (recorded, end, reason) VALUES (1, 1, 'missed_drain')";
            former.execute_batch(insert).unwrap();
        }
        seen.push(step);
    };
    drop(file.ledger);
    let migrated =
        Ledger::open_with_progress(&path, LedgerConfig::default(), &(Arc::new(progress) as _)).unwrap();
    let seen = steps.lock().unwrap();
    assert!(matches!(seen[0], MigrationProgress::Copying { done: 0, total } if total > 50_000), "{seen:?}");
    assert_eq!(seen.last(), Some(&MigrationProgress::Changing));
    let written = seen.len() - 1;
    let gaps = "SELECT count(*) FROM gap WHERE end = 1";
    let found: i64 = migrated.conn.query_row(gaps, [], |row| row.get(0)).unwrap();
    assert_eq!(usize::try_from(found).unwrap(), written, "what was written meanwhile is kept");
    assert_eq!(sums(&migrated, "traffic_5min"), node.truth);
    assert_audited(&migrated);
}

#[test]
fn a_process_that_waits_for_another_migration_ends() {
    let (file, _) = older(1);
    let path = file.ledger.path().to_owned();
    drop(file.ledger);
    let copying = crate::backup::Partial::create(&path.with_extension("sqlite.v3-backup")).unwrap();
    let error = Ledger::open(&path, LedgerConfig::default()).unwrap_err();
    assert!(matches!(error, LedgerError::Migrating { known: 13 }), "{error}");
    drop(copying);
    Ledger::open(&path, LedgerConfig::default()).unwrap();
}

const FILE: &str = "TRAFCTL_TEST_MIGRATE";

/// The child of the test below: is killed at the given step of a migration, or within a step of the digests.
#[test]
fn child_migrates() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let at: usize = std::env::var("TRAFCTL_TEST_AT").unwrap().parse().unwrap();
    let count = Mutex::new(0);
    let progress = move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count == at {
            std::process::abort();
        }
    };
    let opened =
        Ledger::open_with_progress(Path::new(&path), LedgerConfig::default(), &(Arc::new(progress) as _));
    let mut ledger = opened.unwrap();
    for _ in 0..at {
        ledger.digests.step(&ledger.conn).unwrap();
    }
    std::process::abort();
}

#[test]
fn a_migration_that_is_killed_at_any_step_goes_on_next_time() {
    let (file, node) = older(2);
    let path = file.ledger.path().to_owned();
    drop(file.ledger);
    for at in 1..30 {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "tests::migration::child_migrates"]);
        let output = child.env(FILE, &path).env("TRAFCTL_TEST_AT", at.to_string()).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        let copy = path.with_extension("sqlite.v3-backup");
        if let Ok(ledger) = Ledger::open_read_only(&path) {
            assert_audited(&ledger);
            assert_eq!(sums(&ledger, "traffic_5min"), node.truth);
            // The copy was whole before anything was changed.
            let version = Connection::open(&copy).unwrap();
            assert_eq!(version.pragma_query_value(None, "user_version", |row| row.get(0)), Ok(3));
        }
    }
    let mut ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
    ledger.maintain(node.wall).unwrap();
    assert_eq!(assert_audited(&ledger), 0);
    assert_eq!(sums(&ledger, "traffic_5min"), node.truth);
}
