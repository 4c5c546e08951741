//! Full disks and killed processes.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;

use crate::{GapReason, Ledger, LedgerConfig, LedgerError, testing::*};

/// A small tmpfs, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let option = format!("size={size}");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "tmpfs"])
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(status.success(), "mounting a tmpfs needs root");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Runs one test of this program again as root of a new user namespace, which may mount a tmpfs.
fn run_in_user_namespace(test: &str) {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]).arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test]).output().unwrap();
    assert!(output.status.success(), "as root of a user namespace: {output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[test]
fn a_full_disk_loses_no_traffic() {
    if !rustix::process::geteuid().is_root() {
        return run_in_user_namespace("tests::crashes::a_full_disk_loses_no_traffic");
    }
    let disk = SmallDisk::new("2M");
    let path = disk.0.path().join("ledger.sqlite");
    let mut ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut ledger);
    let filler = disk.0.path().join("filler");
    assert!(std::fs::write(&filler, vec![0; 4 << 20]).is_err());
    for container in 0..500 {
        node.traffic(&container.to_string(), 1, [1, 100, 1, 100]);
    }
    node.pass(60);
    assert!(matches!(node.try_drain(&mut ledger), Err(LedgerError::Full(_))));
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60);
    assert!(matches!(node.try_drain(&mut ledger), Err(LedgerError::Full(_))));
    std::fs::remove_file(filler).unwrap();
    node.pass(60).drain(&mut ledger);
    assert_eq!(sums(&ledger, "traffic_5min"), node.truth);
    let gaps = ledger.gaps(None, None).unwrap();
    assert_eq!(gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(), [GapReason::DiskFull]);
}

const KILLS: u64 = 200;
const CONTAINERS: u64 = 40;
/// The file that the child drains into, and when its counters began.
const CHILD_FILE: &str = "TRAFCTL_TEST_LEDGER";
const CHILD_BEGIN: &str = "TRAFCTL_TEST_BEGIN";

/// Counters that grow like those in the kernel, independent of the process that reads them.
fn living_counters(begin: Timestamp) -> Node {
    let mut node = Node::new(begin.as_second());
    let now = Timestamp::now();
    let age = now.duration_since(begin);
    node.wall = now;
    node.boottime = Duration::try_from(age).unwrap() + Duration::from_secs(100);
    let microseconds = u64::try_from(age.as_micros()).unwrap();
    for container in 0..CONTAINERS {
        let sums = [microseconds, microseconds * 100 + container, microseconds / 2, microseconds * 7];
        node.traffic(&container.to_string(), 1, sums);
    }
    node
}

/// Checks that the rows hold exactly what the last readings show.
fn rows_agree_with_readings(path: &Path) {
    let ledger = Ledger::open_read_only(path).unwrap();
    let sum = |table: &str| -> Option<i64> {
        let sql =
            format!("SELECT sum(in_packets + in_bytes * 3 + out_packets * 5 + out_bytes * 7) FROM {table}");
        ledger.conn.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(sum("traffic_5min"), sum("class_reading"));
}

#[test]
#[ignore = "the child of a_killed_writer_neither_loses_nor_repeats_traffic; never returns"]
fn child_that_drains_until_it_is_killed() {
    let path = std::env::var(CHILD_FILE).unwrap();
    let begin: Timestamp = std::env::var(CHILD_BEGIN).unwrap().parse().unwrap();
    let mut ledger = Ledger::open(Path::new(&path), LedgerConfig::default()).unwrap();
    loop {
        living_counters(begin).drain(&mut ledger);
        // Not with a macro: the test runner captures its output.
        std::io::stderr().write_all(b".").unwrap();
        ledger.maintain(Timestamp::now()).unwrap();
    }
}

#[test]
fn a_killed_writer_neither_loses_nor_repeats_traffic() {
    let file = ledger();
    let path = file.ledger.path().to_owned();
    drop(file.ledger);
    let begin = Timestamp::now();
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "tests::crashes::child_that_drains_until_it_is_killed"])
            .env(CHILD_FILE, &path)
            .env(CHILD_BEGIN, begin.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Every other child is killed at any point, even during start or recovery. The rest are killed after
        // their first drain, so that a slow machine drains too. The instants spread over drains and
        // checkpoints.
        if kill % 2 == 1 {
            let mut drained = [0];
            child.stderr.as_mut().unwrap().read_exact(&mut drained).unwrap();
        }
        std::thread::sleep(Duration::from_micros(kill * 7_919 % 30_000));
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        rows_agree_with_readings(&path);
    }
    let mut ledger = Ledger::open(&path, LedgerConfig::default()).unwrap();
    let drains: i64 = ledger.conn.query_row("SELECT max(drains) FROM epoch", [], |row| row.get(0)).unwrap();
    assert!(drains >= i64::try_from(KILLS).unwrap() / 2, "only {drains} drains happened");
    let node = living_counters(begin);
    node.drain(&mut ledger);
    assert_eq!(sums(&ledger, "traffic_5min"), node.truth);
}
