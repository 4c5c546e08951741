//! What people and programs do to the files of a ledger: remove, empty, link, copy and plant them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use rusqlite::Connection;
use traffic_model::ContainerId;

use crate::{
    AdjustmentRequest, Ledger, LedgerConfig, LedgerError, set_aside_anothers_log, testing::*,
    wal_guard::beside,
};

/// The file that a child process works on.
const FILE: &str = "TRAFCTL_TEST_FILE";

fn open(path: &Path) -> Result<Ledger, LedgerError> {
    Ledger::open(path, LedgerConfig::default())
}

fn on_machine(path: &Path, machine: &str, adopt: bool) -> Result<Ledger, LedgerError> {
    Ledger::open(path, LedgerConfig { machine: Some(machine.to_owned()), adopt, ..LedgerConfig::default() })
}

/// A ledger with one drain, and its node.
fn drained() -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic("101", 1, [1, 100, 2, 200]).pass(60).drain(&mut file.ledger);
    (file, node)
}

fn reasons(ledger: &Ledger) -> Vec<&'static str> {
    ledger.gaps(None, None).unwrap().iter().map(|gap| gap.reason.name()).collect()
}

/// Runs a test of this program in a child process, on a file. Returns what it printed.
fn child(test: &str, path: &Path) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("tests::files::{test}"), "--nocapture"]).env(FILE, path);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn a_fifo_in_the_place_of_a_ledger_in_use_is_refused_at_once() {
    let mut file = ledger();
    Node::new(NOON).traffic("101", 1, [1, 2, 3, 4]).pass(60).drain(&mut file.ledger);
    let path = file.ledger.path().to_owned();
    drop(file.ledger);
    // The note about its log is still there, so that the file's locks are looked at.
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    for opened in [Ledger::open(&path, LedgerConfig::default()), Ledger::open_read_only(&path)] {
        assert!(matches!(opened, Err(LedgerError::Open { .. })), "{opened:?}");
    }
}

#[test]
fn child_retires() {
    let Some(path) = std::env::var_os(FILE) else { return };
    match open(Path::new(&path)).and_then(|ledger| ledger.retire("101", time(NOON + 3600))) {
        Ok(label) => println!("result: {label}"),
        Err(error) => println!("result: {error}"),
    }
}

/// A log whose index is removed would be written by two processes that do not see each other.
#[test]
fn a_removed_log_or_index_is_noticed_before_anything_is_written() {
    let removals: [&[&str]; 3] = [&["-shm"], &["-wal"], &["-wal", "-shm"]];
    for removed in removals {
        let (mut file, mut node) = drained();
        let path = file.ledger.path().to_owned();
        for suffix in removed {
            fs::remove_file(beside(&path, suffix)).unwrap();
        }
        // Another process waits until the one that has the ledger open has noticed.
        let refused = child("child_retires", &path);
        assert!(refused.contains("was removed while another process uses it"), "{removed:?}: {refused}");

        node.traffic("101", 1, [1, 100, 0, 0]).pass(60);
        let error = node.try_drain(&mut file.ledger).unwrap_err();
        assert!(matches!(error, LedgerError::Replaced { .. }), "{removed:?}: {error}");
        assert!(matches!(file.ledger.retire("101", time(NOON)), Err(LedgerError::Replaced { .. })));
        let noticed = file.ledger.replaced_file().unwrap().to_owned();
        assert_eq!(noticed, beside(&path, removed[0]));
        file.ledger.close_without_log();

        let mut ledger = open(&path).unwrap();
        node.drain(&mut ledger);
        assert_eq!(sums(&ledger, "traffic_5min"), node.truth);
        let retired = child("child_retires", &path);
        assert!(retired.contains("result: 101@"), "{removed:?}: {retired}");
        assert_eq!(ledger.audit().unwrap().problems, [""; 0]);
    }
}

/// What a command made known while the daemon has the file open, and then somebody removes the log. Returns the
/// ledger as the daemon opens it again.
fn after_removal<T>(file: File, command: impl FnOnce(&mut Ledger) -> T) -> (File, T) {
    let path = file.ledger.path().to_owned();
    let done = command(&mut open(&path).unwrap());
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside(&path, suffix)).unwrap();
    }
    assert!(file.ledger.replaced_file().is_some());
    let File { ledger, dir } = file;
    ledger.close_without_log();
    let ledger = open(&path).unwrap();
    assert_eq!(ledger.audit().unwrap().problems, [""; 0]);
    (File { ledger, dir }, done)
}

/// Whoever removes the log of a ledger in use removes what is only there. A drain is repeated, these are not.
#[test]
fn what_cannot_be_undone_outlives_the_log() {
    let (mut file, mut node) = drained();
    let pending = ContainerId::pending("veth1", 7, node.wall.as_second().unsigned_abs());
    for _ in 0..30 {
        node.traffic("101", 1, [1, 100, 2, 200]).traffic_in(pending.as_str(), 7, 1, [1, 50, 0, 0]);
        node.pass(86_400).drain(&mut file.ledger);
    }
    let now = node.wall;
    let (file, label) = after_removal(file, |ledger| ledger.retire("101", now).unwrap());
    assert!(file.ledger.has_label(&label).unwrap(), "the retirement");
    let (file, closed) = after_removal(file, |ledger| ledger.close_anyway("2026-11", now).unwrap());
    assert_eq!(file.ledger.closed_periods().unwrap(), [closed]);
    let request = AdjustmentRequest {
        period: "2026-11".to_owned(),
        container: label,
        class: 1,
        family: None,
        packets: [0, 1],
        bytes: [5, 0],
        reason: "found".to_owned(),
        made: now,
    };
    let (file, adjusted) = after_removal(file, |ledger| ledger.adjust(&request).unwrap());
    let chain_hash = file.ledger.audit().unwrap().chain_hash;
    assert_eq!(chain_hash, adjusted.chained.map(|entry| entry.hash), "the correction");
    let attribute = |ledger: &mut Ledger| {
        ledger.attribute(pending.as_str(), &id("102"), "found", now).unwrap().unwrap();
    };
    let (file, ()) = after_removal(file, attribute);
    assert!(file.ledger.knows_container("102").unwrap(), "the attribution");
}

/// The same while a report is read, which keeps the log from being moved: the command waits for it.
#[test]
fn what_cannot_be_undone_waits_for_readers() {
    let (file, node) = drained();
    let path = file.ledger.path().to_owned();
    let reader = Ledger::open_beside_writer(&path).unwrap();
    reader.conn.execute_batch("BEGIN; SELECT count(*) FROM epoch").unwrap();
    let reading = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(reader);
    });
    let (file, label) = after_removal(file, |ledger| ledger.retire("101", node.wall).unwrap());
    reading.join().unwrap();
    assert!(file.ledger.has_label(&label).unwrap());
}

#[test]
fn what_cannot_be_undone_is_not_reported_as_done_when_the_log_was_removed() {
    let (file, _) = drained();
    fs::remove_file(beside(file.ledger.path(), "-wal")).unwrap();
    assert!(matches!(file.ledger.keep_for_good(), Err(LedgerError::Replaced { .. })));
}

/// What a process that does not check wrote into a log with a new index survives the end of the old
/// connection.
#[test]
fn closing_without_the_log_keeps_what_others_wrote() {
    let (file, _) = drained();
    let path = file.ledger.path().to_owned();
    // The log is not empty, so that the other process appends to it.
    file.ledger.conn.execute_batch("UPDATE container SET since = since + 1").unwrap();
    fs::remove_file(beside(&path, "-shm")).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA wal_autocheckpoint = 0; UPDATE container SET label = 'changed'").unwrap();
    file.ledger.close_without_log();
    let label: String =
        open(&path).unwrap().conn.query_row("SELECT label FROM container", [], |row| row.get(0)).unwrap();
    assert_eq!(label, "changed");
}

#[test]
fn an_emptied_or_removed_ledger_leaves_a_gap_in_the_new_one() {
    let lose: [fn(&Path); 3] = [
        |path| fs::write(path, "").unwrap(),
        |path| fs::remove_file(path).unwrap(),
        |path| fs::rename(path, path.with_extension("old")).unwrap(),
    ];
    for lose in lose {
        let (file, node) = drained();
        let path = file.ledger.path().to_owned();
        drop(file.ledger);
        assert_eq!(reasons(&open(&path).unwrap()), [""; 0]);
        lose(&path);
        set_aside_anothers_log(&path).unwrap();
        if path.exists() {
            assert!(matches!(Ledger::open_read_only(&path), Err(LedgerError::Empty)));
        }
        let mut ledger = open(&path).unwrap();
        assert_eq!(reasons(&ledger), ["ledger_lost"]);
        node.drain(&mut ledger);
        drop(ledger);
        assert_eq!(reasons(&open(&path).unwrap()), ["ledger_lost"], "once");
    }
}

#[test]
fn a_link_to_a_ledger_is_as_good_as_the_ledger() {
    let (file, node) = drained();
    let real = file.ledger.path().to_owned();
    let backup = file.dir.path().join("backup");
    file.ledger.backup(&backup).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("ledger.sqlite");
    let middle = elsewhere.path().join("middle");
    symlink(&real, &middle).unwrap();
    symlink("middle", &link).unwrap();

    // A daemon that was killed leaves rows in the log. Then the backup replaces the file.
    let mut through = open(&link).unwrap();
    let reader = Connection::open(&real).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM traffic_5min").unwrap();
    let mut later = Node { counters: node.counters.clone(), ..Node::balanced(NOON) };
    later.pass(120).drain(&mut through);
    std::mem::forget(through);
    fs::rename(&backup, &real).unwrap();
    for path in [&link, &real] {
        assert!(matches!(open(path), Err(LedgerError::LogOfAnother { .. })), "{}", path.display());
    }
    drop(reader);
    let aside = set_aside_anothers_log(&link).unwrap().unwrap();
    assert_eq!(aside, beside(&real, "-wal-of-another"));
    assert_eq!(sums(&open(&link).unwrap(), "traffic_5min"), node.truth);
    let left: Vec<PathBuf> =
        fs::read_dir(elsewhere.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 2, "nothing is written beside a link: {left:?}");
}

#[test]
fn planted_files_are_neither_followed_nor_believed() {
    let (file, _) = drained();
    let path = file.ledger.path().to_owned();
    let victim = file.dir.path().join("victim");
    fs::write(&victim, "kept").unwrap();
    for planted in ["-log-of", "-log-of.new"] {
        let planted = beside(&path, planted);
        drop(fs::remove_file(&planted));
        symlink(&victim, &planted).unwrap();
    }
    drop(open(&path).unwrap());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
    assert!(fs::symlink_metadata(beside(&path, "-log-of")).unwrap().is_file());

    // A note of somebody else would make the ledger's own log look like another's.
    let note =
        fs::read_to_string(beside(&path, "-log-of")).unwrap().replace("ledger device", "ledger of device");
    fs::write(beside(&path, "-log-of"), note).unwrap();
    assert!(matches!(open(&path), Err(LedgerError::LogOfAnother { .. })));
    std::os::unix::fs::chown(beside(&path, "-log-of"), Some(65534), None).unwrap();
    drop(open(&path).unwrap());
}

#[test]
fn a_copy_is_audited_before_it_is_used() {
    let (mut file, mut node) = drained();
    let path = file.dir.path().join("copy");
    fs::copy(file.ledger.path(), &path).unwrap();
    // Another page of the copy is of a later moment: the row is newer than the last reading.
    Connection::open(&path)
        .unwrap()
        .execute_batch("UPDATE traffic_5min_rows SET in_bytes = in_bytes + 7")
        .unwrap();
    for _ in 0..2 {
        let error = open(&path).unwrap_err();
        assert!(matches!(error, LedgerError::IncompleteCopy { .. }), "{error}");
    }
    let adopting = LedgerConfig { adopt: true, ..LedgerConfig::default() };
    drop(Ledger::open(&path, adopting).unwrap());
    drop(open(&path).unwrap());

    fs::remove_file(&path).unwrap();
    fs::copy(file.ledger.path(), &path).unwrap();
    node.traffic("101", 1, [0, 0, 3, 300]).pass(60).drain(&mut file.ledger);
    let mut copy = open(&path).unwrap();
    node.drain(&mut copy);
    assert_eq!(sums(&copy, "traffic_5min"), node.truth);
}

#[test]
fn a_ledger_stays_with_its_machine_until_it_is_adopted() {
    let (file, mut node) = drained();
    let path = file.ledger.path().to_owned();
    let id = file.ledger.id().unwrap();
    drop(file.ledger);
    drop(on_machine(&path, "original", false).unwrap());
    drop(open(&path).unwrap());
    let error = on_machine(&path, "clone", false).unwrap_err();
    assert!(matches!(error, LedgerError::OtherMachine), "{error}");
    assert_eq!(on_machine(&path, "original", true).unwrap().id().unwrap(), id);

    let adopted = on_machine(&path, "clone", true).unwrap().id().unwrap();
    assert_ne!(adopted, id, "two ledgers of one id would be one in a store");
    let mut ledger = on_machine(&path, "clone", false).unwrap();
    assert_eq!(ledger.id().unwrap(), adopted);
    let find = "SELECT value FROM meta WHERE key = 'parent_id'";
    assert_eq!(ledger.conn.query_row(find, [], |row| row.get::<_, String>(0)).unwrap(), id);
    node.pass(60).drain(&mut ledger);
    assert!(matches!(on_machine(&path, "original", false), Err(LedgerError::OtherMachine)));
}

#[test]
fn an_id_that_was_retired_just_now_is_named() {
    let (mut file, mut node) = drained();
    assert_eq!(file.ledger.retire("101", time(NOON)).unwrap(), "101@2026-11-10T12:00:00Z");
    node.traffic_in("101", 2, 1, [1, 1, 1, 1]).pass(60).drain(&mut file.ledger);
    let error = file.ledger.retire("101", time(NOON)).unwrap_err();
    assert!(error.to_string().contains("was retired within the last second; try again"), "{error}");
    file.ledger.retire("101", time(NOON + 1)).unwrap();
}

#[test]
fn what_is_not_a_regular_file_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("ledger.sqlite");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    symlink(&fifo, directory.path().join("link")).unwrap();
    let paths = [fifo, directory.path().join("link"), directory.path().to_owned(), "/dev/null".into()];
    for path in paths {
        let (sender, receiver) = std::sync::mpsc::channel();
        let at = path.clone();
        std::thread::spawn(move || {
            let results = [Ledger::open(&at, LedgerConfig::default()), Ledger::open_read_only(&at)];
            sender.send(results.map(|result| result.unwrap_err().to_string()))
        });
        let errors = receiver.recv_timeout(std::time::Duration::from_secs(20));
        for error in errors.unwrap_or_else(|_| panic!("opening {} does not end", path.display())) {
            assert!(error.contains("it is not a regular file; name a database file"), "{error}");
        }
    }
}
