//! The chain's hashes as `docs/ledger-hashes.md` describes them: others can compute them from a copy of the file.

use std::{path::Path, process::Command};

use rusqlite::params;
use traffic_model::calendar::Retention;

use crate::{
    AdjustmentRequest, Frozen, FrozenEntry, Ledger, LedgerConfig, LedgerError,
    closing::chain::{Entry, hash_v1},
    digest,
    testing::*,
};

/// The verifier that is part of the documentation, which shares nothing with this program.
const VERIFIER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/verify_ledger.py");

/// Runs the independent verifier. Returns whether it found no problem, and what it printed.
fn verify(path: &Path) -> (bool, String) {
    let output = Command::new("python3")
        .arg(VERIFIER)
        .arg(path)
        .output()
        .expect("this test needs python3, which verifies the ledger independently");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// As this program writes it, so that its digest is right too.
fn set_hash(ledger: &Ledger, seq: i64, hash: &str) {
    digest::change(&ledger.conn, |conn| {
        Ok(conn.execute("UPDATE chain SET hash = ?2 WHERE seq = ?1", params![seq, hash])?)
    })
    .unwrap();
}

/// Two closed months with a correction of each, whose texts need care. The first month and its correction have
/// hashes of version 1, as earlier versions wrote them.
fn of_both_versions() -> File {
    // Five-minute rows are kept until both months are closed, so that percentiles are frozen.
    let retention = Retention { five_minutes_days: 300, ..Retention::default() };
    let mut file = ledger_with(LedgerConfig { retention, ..LedgerConfig::default() });
    let mut node = Node::balanced(NOON);
    for _ in 0..60 {
        node.traffic("101", 1, [1, 100, 1, 10]).traffic("102", 0, [1, 7, 1, 7]).traffic(
            "1-a",
            2,
            [9, 8, 7, 6],
        );
        node.pass(86_400).drain(&mut file.ledger);
    }
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let reason = "\"flood\"\\ of M\u{fc}nchen\u{2014}\u{1f600}";
    let first = AdjustmentRequest { reason: reason.to_owned(), ..adjustment(node.wall) };
    file.ledger.adjust(&first).unwrap();
    let mut previous: Option<String> = None;
    for (seq, kind) in [(1, "period"), (2, "adjustment")] {
        let entry = Entry { seq, kind, subject: 1, previous: previous.as_deref() };
        let former = hash_v1(&file.ledger.conn, &entry, false).unwrap();
        set_hash(&file.ledger, seq, &former);
        previous = Some(former);
    }
    file.ledger.close_anyway("2026-12", node.wall).unwrap();
    let second = AdjustmentRequest { period: "2026-12".to_owned(), ..first };
    file.ledger.adjust(&second).unwrap();
    file
}

fn chain_problems(ledger: &Ledger) -> Vec<String> {
    ledger.audit().unwrap().problems.into_iter().filter(|problem| problem.starts_with("chain")).collect()
}

/// Checks that the audit and the independent program find each of these changes of a ledger.
fn find_each(file: &File, changes: &[impl AsRef<str>]) {
    for (at, change) in changes.iter().map(AsRef::as_ref).enumerate() {
        let copy = file.dir.path().join(format!("changed.{at}"));
        file.ledger.backup(&copy).unwrap();
        rusqlite::Connection::open(&copy).unwrap().execute_batch(change).unwrap();
        let changed = Ledger::open_read_only(&copy).unwrap();
        assert_ne!(chain_problems(&changed), [""; 0], "{change}");
        let (verified, printed) = verify(&copy);
        assert!(!verified && printed.contains("PROBLEM"), "{change}: {printed}");
    }
}

#[test]
fn an_independent_program_verifies_old_and_new_entries_from_the_file_alone() {
    let file = of_both_versions();
    assert_eq!(chain_problems(&file.ledger), [""; 0]);
    let copy = file.dir.path().join("copy");
    file.ledger.backup(&copy).unwrap();
    let (verified, printed) = verify(&copy);
    assert!(verified, "{printed}");
    let versions: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.split_once(": version "))
        .map(|(_, version)| version)
        .collect();
    assert_eq!(versions, ["1", "1", "2", "2"], "{printed}");
    let last = file.ledger.audit().unwrap().chain_hash.unwrap();
    assert!(printed.ends_with(&format!("last hash: {last}\n")), "{printed}");
}

#[test]
fn both_find_every_change_of_what_is_hashed() {
    let file = of_both_versions();
    let rates: i64 =
        file.ledger.conn.query_row("SELECT count(*) FROM closed_rate", [], |row| row.get(0)).unwrap();
    assert!(rates > 0, "percentiles are frozen");
    let closed = "(SELECT id FROM period WHERE name = '2026-12')";
    let changes = [
        format!("UPDATE closed_rate SET in_bits = in_bits + 1 WHERE period = {closed}"),
        format!("UPDATE closed_rate SET spread_buckets = 7 WHERE period = {closed}"),
        format!("DELETE FROM closed_rate WHERE period = {closed}"),
        format!("UPDATE closed_row SET out_bytes = out_bytes + 1 WHERE period = {closed} AND class = 2"),
        format!("UPDATE closed_row SET container = '103' WHERE period = {closed} AND class = 2"),
        "UPDATE closed_row SET in_bytes = in_bytes - 1 WHERE class = 1".to_owned(),
        "UPDATE period SET closed = closed + 1 WHERE id = 1".to_owned(),
        "UPDATE adjustment SET reason = reason || ' ' WHERE id = 1".to_owned(),
        "UPDATE adjustment SET number = number + 1 WHERE id = 2".to_owned(),
        "DELETE FROM chain WHERE seq = 2".to_owned(),
        "DELETE FROM chain WHERE seq = 4".to_owned(),
    ];
    find_each(&file, &changes);
}

#[test]
fn after_an_entry_of_version_2_none_of_version_1_is_accepted() {
    let file = of_both_versions();
    let third: String =
        file.ledger.conn.query_row("SELECT hash FROM chain WHERE seq = 3", [], |row| row.get(0)).unwrap();
    let entry = Entry { seq: 4, kind: "adjustment", subject: 2, previous: Some(&third) };
    let former = hash_v1(&file.ledger.conn, &entry, false).unwrap();
    set_hash(&file.ledger, 4, &former);
    let problems = chain_problems(&file.ledger);
    assert_eq!(
        problems,
        ["chain: the hash of entry 4 (adjustment 2) is of version 1, after an entry of version 2"]
    );
    let copy = file.dir.path().join("copy");
    file.ledger.backup(&copy).unwrap();
    assert!(!verify(&copy).0);
}

#[test]
fn a_change_of_the_key_is_an_entry_of_its_own() {
    let mut file = of_both_versions();
    let made = time(NOON + 60 * 86_400);
    let stale = file.ledger.append_key_change("a note\n", made, 3).unwrap_err().to_string();
    assert!(stale.contains("meanwhile; try again"), "{stale}");
    let entry = file.ledger.append_key_change("a note\nof M\u{fc}nchen\n\n\u{2014} x y\n", made, 4).unwrap();
    assert_eq!(entry.seq, 5);
    assert_eq!(chain_problems(&file.ledger), [""; 0]);
    let mut entries = Vec::new();
    let read = file.ledger.frozen_entries(|entry| -> Result<(), LedgerError> {
        entries.push(entry);
        Ok(())
    });
    read.unwrap();
    let expected = Frozen::KeyChange("a note\nof M\u{fc}nchen\n\n\u{2014} x y\n".to_owned());
    assert_eq!(entries.last(), Some(&FrozenEntry { hash: entry.hash, content: expected }));
    let copy = file.dir.path().join("copy");
    file.ledger.backup(&copy).unwrap();
    let (verified, printed) = verify(&copy);
    assert!(verified && printed.contains("5 key 1: version 2"), "{printed}");
    let changes = [
        "UPDATE key_change SET note = note || ' '",
        "UPDATE key_change SET made = made + 1",
        "DELETE FROM key_change",
        "INSERT INTO key_change (made, note) VALUES (1, 'x')",
        "UPDATE chain SET kind = 'adjustment', subject = 2 WHERE seq = 5",
    ];
    find_each(&file, &changes);
}

/// The chain of a ledger of version 12 continues.
#[test]
fn a_migrated_chain_takes_changes_of_the_key() {
    let mut file = of_both_versions();
    let before = file.ledger.audit().unwrap().chain_hash;
    let schema = |ledger: &Ledger| -> String {
        let find = "SELECT group_concat(sql) FROM sqlite_schema WHERE name IN ('chain', 'key_change')";
        ledger.conn.query_row(find, [], |row| row.get(0)).unwrap()
    };
    let present = schema(&file.ledger);
    let former = WITHOUT_KEYS.to_owned()
        + "ALTER TABLE chain RENAME TO old;
           CREATE TABLE chain (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('period', 'adjustment')),
               subject INTEGER NOT NULL, hash TEXT NOT NULL) STRICT;
           INSERT INTO chain SELECT * FROM old; DROP TABLE old; PRAGMA user_version = 12";
    from_outside(&file.ledger, &former);
    let path = file.ledger.path().to_owned();
    file.ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
    assert_eq!(schema(&file.ledger), present);
    assert_eq!(file.ledger.audit().unwrap().chain_hash, before);
    file.ledger.append_key_change("a note\n", time(NOON + 60 * 86_400), 4).unwrap();
    let audit = file.ledger.audit().unwrap();
    assert_eq!((audit.problems, audit.chain_entries), (vec![], 5));
}
