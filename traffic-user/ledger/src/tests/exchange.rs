//! Another file replaces a ledger in use, and the old file's log is still there.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::{Ledger, LedgerConfig, LedgerError, set_aside_anothers_log, testing::*};

/// A ledger whose log holds a drain that a reader keeps out of the main file, and a backup from before that
/// drain.
struct Exchange {
    dir: tempfile::TempDir,
    ledger: Ledger,
    reader: Connection,
    node: Node,
    /// The state of the backup.
    before: Node,
}

impl Exchange {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.sqlite");
        let mut ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
        let (mut node, mut before) = (Node::balanced(NOON), Node::balanced(NOON));
        for node in [&mut node, &mut before] {
            // Enough for several pages per tree, which a backup lays out differently.
            for container in 0..200 {
                node.traffic(&container.to_string(), 1, [1, 100 + container, 2, 300]);
            }
        }
        node.pass(60).drain(&mut ledger);
        ledger.backup(&dir.path().join("backup")).unwrap();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM traffic_5min").unwrap();
        node.traffic("101", 2, [3, 1000, 5, 7000]).pass(300).drain(&mut ledger);
        Self { dir, ledger, reader, node, before }
    }

    fn path(&self) -> PathBuf {
        self.ledger.path().to_owned()
    }

    /// Replaces the ledger by the backup. Returns the old ledger's new path.
    fn exchange(&self) -> PathBuf {
        let old = self.dir.path().join("old");
        fs::rename(self.path(), &old).unwrap();
        fs::rename(self.dir.path().join("backup"), self.path()).unwrap();
        old
    }
}

fn is_refused(path: &Path) {
    for opened in [Ledger::open(path, LedgerConfig::default()), Ledger::open_read_only(path)] {
        let error = opened.unwrap_err();
        assert!(matches!(error, LedgerError::LogOfAnother { .. }), "{error:?}");
    }
}

#[test]
fn a_file_with_another_files_log_opens_only_after_the_log_is_moved() {
    let exchange = Exchange::new();
    let path = exchange.path();
    let old = exchange.exchange();
    is_refused(&path);
    // As after a crash: nothing is cleaned up.
    drop(exchange.ledger);
    drop(exchange.reader);
    is_refused(&path);

    let aside = set_aside_anothers_log(&path).unwrap().unwrap();
    assert_eq!(set_aside_anothers_log(&path).unwrap(), None);
    let mut node = exchange.node;
    let mut ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
    assert_eq!(sums(&ledger, "traffic_5min"), exchange.before.truth);
    node.pass(60).drain(&mut ledger);
    assert_eq!(sums(&ledger, "traffic_5min"), node.truth);
    drop(ledger);
    assert_eq!(sums(&Ledger::open_read_only(&path).unwrap(), "traffic_5min"), node.truth);

    // The log still completes the file that it belongs to.
    fs::rename(aside, old.with_file_name("old-wal")).unwrap();
    assert_eq!(sums(&Ledger::open_read_only(&old).unwrap(), "traffic_5min"), node.truth);
}

#[test]
fn a_moved_ledger_receives_the_content_of_its_log() {
    let exchange = Exchange::new();
    let path = exchange.path();
    let old = exchange.exchange();
    drop(exchange.reader);
    assert!(exchange.ledger.checkpoint().unwrap());
    drop(exchange.ledger);
    is_refused(&path);
    assert_eq!(set_aside_anothers_log(&path).unwrap(), None, "an empty log is kept");
    assert_eq!(sums(&Ledger::open_read_only(&old).unwrap(), "traffic_5min"), exchange.node.truth);
    let ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
    assert_eq!(sums(&ledger, "traffic_5min"), exchange.before.truth);
}

#[test]
fn a_ledger_keeps_its_own_log() {
    let exchange = Exchange::new();
    let path = exchange.path();
    let directory = exchange.dir.path();
    assert_eq!(set_aside_anothers_log(&path).unwrap(), None);
    assert_eq!(sums(&Ledger::open_read_only(&path).unwrap(), "traffic_5min"), exchange.node.truth);
    // In a copy of the directory all files have other identities, and the copy still works.
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let path = copy.path().join("ledger.sqlite");
    assert_eq!(set_aside_anothers_log(&path).unwrap(), None);
    let ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
    assert_eq!(sums(&ledger, "traffic_5min"), exchange.node.truth);
}
