use traffic_common::Fault;
use traffic_model::calendar::Calendar;

use crate::{Gap, GapReason, GapSize, Ledger, LedgerConfig, LedgerError, testing::*};

fn reasons(ledger: &Ledger) -> Vec<GapReason> {
    ledger.gaps(None, None).unwrap().iter().map(|gap| gap.reason).collect()
}

#[test]
fn differences_add_up_in_their_bucket() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for minute in 1..=10 {
        node.traffic("101", 1, [1, 100 * minute, 2, 7]).pass(60).drain(&mut file.ledger);
    }
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    assert_eq!(buckets(&file.ledger), [(NOON, 1500), (NOON + 300, 4000)]);
    assert_eq!(reasons(&file.ledger), []);
}

#[test]
fn the_same_reading_twice_adds_nothing_and_an_older_one_is_refused() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 2, 3, 4]).pass(60);
    let old = node.snapshot();
    node.drain(&mut file.ledger);
    assert_eq!(node.drain(&mut file.ledger).traffic_rows, 0);
    // Two readers at once are at most moments apart. A reading older than that is a reverted node's.
    node.traffic("101", 1, [1, 2, 3, 4]).pass(9).drain(&mut file.ledger);
    assert!(matches!(file.ledger.drain(&old, EVERY_MINUTE), Err(LedgerError::StaleReading { .. })));
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
}

#[test]
fn traffic_before_the_first_drain_counts_and_its_bucket_is_mixed() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(7200);
    let outcome = node.drain(&mut file.ledger);
    assert_eq!(outcome.span_start, time(NOON));
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    let span: (i64, i64) = file
        .ledger
        .conn
        .query_row("SELECT start, end FROM span WHERE bucket = ?1", [outcome.bucket.as_second()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(span, (NOON, NOON + 7200));
}

#[test]
fn a_reboot_starts_new_counters_and_records_a_gap() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(60).drain(&mut file.ledger);
    node.reboot(600).pass(60).traffic("101", 1, [1, 50, 1, 50]).drain(&mut file.ledger);
    node.traffic("101", 1, [100, 5000, 1, 50]).pass(60).drain(&mut file.ledger);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    let gaps = file.ledger.gaps(None, None).unwrap();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!((gaps[0].reason, gaps[0].start), (GapReason::Reboot, Some(time(NOON + 60))));
    assert_eq!(gaps[0].end, time(NOON + 660));
    assert!(gaps[0].reason.loses_traffic());
}

#[test]
fn replaced_maps_are_distinguished_from_a_reboot() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(60).drain(&mut file.ledger);
    node.pass(20).renew_maps().traffic("101", 1, [1, 1, 1, 1]).pass(40).drain(&mut file.ledger);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    assert_eq!(reasons(&file.ledger), [GapReason::CountersRenewed]);
}

#[test]
fn a_daemon_that_was_down_loses_nothing() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(60).drain(&mut file.ledger);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(3600);
    let outcome = file.ledger.drain(&node.snapshot(), STARTED).unwrap();
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    assert_eq!(outcome.gaps[0].reason, GapReason::DaemonDown);
    assert!(!outcome.gaps[0].reason.loses_traffic());
    assert_eq!((outcome.gaps[0].start, outcome.gaps[0].end), (Some(time(NOON + 60)), time(NOON + 3660)));
}

#[test]
fn a_falling_counter_records_a_gap_instead_of_traffic() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(60).drain(&mut file.ledger);
    node.counters.insert(("101".to_owned(), 1, 1), [5, 500, 21, 2100]);
    let outcome = node.pass(60).drain(&mut file.ledger);
    assert_eq!(outcome.gaps[0].reason, GapReason::CounterLost);
    assert_eq!(outcome.gaps[0].container.as_deref(), Some("101"));
    assert!(outcome.gaps[0].detail.as_ref().unwrap().contains("incoming"));
    node.traffic("101", 1, [1, 10, 0, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(sums(&file.ledger, "traffic_5min")[&("101".to_owned(), 1)], [11, 1010, 21, 2100]);
}

#[test]
fn a_new_generation_counts_from_zero() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(60).drain(&mut file.ledger);
    node.counters.clear();
    node.traffic("102", 1, [1, 1, 1, 1]).pass(60).drain(&mut file.ledger);
    node.traffic_in("101", 7, 1, [50, 5000, 60, 6000]).pass(60).drain(&mut file.ledger);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    assert_eq!(reasons(&file.ledger), []);
}

#[test]
fn a_retired_id_starts_as_a_new_container() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [10, 1000, 20, 2000]).pass(60).drain(&mut file.ledger);
    let label = file.ledger.retire("101", node.wall).unwrap();
    assert!(label.starts_with("101@2026-11-10T"), "{label}");
    assert!(matches!(file.ledger.retire("101", node.wall), Err(LedgerError::UnknownContainer(_))));
    // The old slot is still visible and still the old customer's; the new slot has another generation.
    node.traffic("101", 1, [1, 1, 1, 1])
        .traffic_in("101", 2, 1, [7, 700, 7, 700])
        .pass(60)
        .drain(&mut file.ledger);
    let sums = sums(&file.ledger, "traffic_5min");
    assert_eq!(sums[&(label, 1)], [11, 1001, 21, 2001]);
    assert_eq!(sums[&("101".to_owned(), 1)], [7, 700, 7, 700]);
}

#[test]
fn a_clock_set_forward_and_back_loses_nothing() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for step in [0, 7200, 0, 0, -3 * 3600, 0, 0, 5 * 3600, -5 * 3600] {
        node.traffic("101", 1, [1, 100, 1, 100]).pass(60).set_clock(step).drain(&mut file.ledger);
        file.ledger.maintain(node.wall).unwrap();
    }
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    assert_eq!(reasons(&file.ledger).len(), 4);
    assert!(reasons(&file.ledger).iter().all(|&reason| reason == GapReason::ClockStepped));
    let hours = sums(&file.ledger, "traffic_hour")[&("101".to_owned(), 1)][1];
    assert!(hours >= 300, "{hours}: hours that were left are summed up");
}

#[test]
fn a_clock_in_1970_does_not_move_traffic_out_of_the_bill() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    file.ledger
        .conn
        .execute("INSERT INTO meta VALUES ('dropped_before_5min', ?1)", [NOON - 35 * 86_400])
        .unwrap();
    node.set_clock(-NOON).traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    assert_eq!(buckets(&file.ledger), [(NOON, 200)]);
    assert_eq!(reasons(&file.ledger), [GapReason::ClockStepped]);
}

#[test]
fn traffic_before_attachment_is_recorded_once_with_its_size() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 1, 1, 1]).interface("veth101.0", Some("101"), 5, 3);
    let outcome = node.pass(60).drain(&mut file.ledger);
    assert_eq!(outcome.gaps.len(), 1);
    assert_eq!(outcome.gaps[0].size, Some(GapSize { in_skbs: 3, in_skb_bytes: 342, ..GapSize::default() }));
    assert!(node.pass(60).drain(&mut file.ledger).gaps.is_empty());
    let listed = file.ledger.gaps(Some(time(NOON - 10)), Some(time(NOON + 10))).unwrap();
    assert_eq!(listed, outcome.gaps);
    assert!(file.ledger.gaps(Some(time(NOON + 10)), None).unwrap().is_empty());
}

#[test]
fn faults_and_interfaces_are_written_like_classes() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [4, 400, 0, 0]).interface("veth101.0", Some("101"), 4, 0);
    node.fault("veth101.0", Fault::NotIp, 9).fault("gone0", Fault::Truncated, 2);
    let outcome = node.pass(60).drain(&mut file.ledger);
    assert_eq!((outcome.traffic_rows, outcome.fault_rows, outcome.interface_rows), (1, 2, 1));
    assert_eq!(node.pass(60).drain(&mut file.ledger).fault_rows, 0);
    let bytes: i64 =
        file.ledger.conn.query_row("SELECT sum(out_bytes) FROM fault_5min", [], |row| row.get(0)).unwrap();
    assert_eq!(bytes, 11 * 60);
    let skb_bytes: i64 = file
        .ledger
        .conn
        .query_row("SELECT sum(in_skb_bytes) FROM passed_5min", [], |row| row.get(0))
        .unwrap();
    assert_eq!(skb_bytes, 4 * 114);
}

#[test]
fn the_class_table_is_part_of_the_key_and_a_late_change_records_a_gap() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    node.table = 2;
    node.table_loaded = node.wall;
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    assert_eq!(reasons(&file.ledger), []);
    node.table = 3;
    node.pass(30);
    node.table_loaded = node.wall;
    node.traffic("101", 1, [1, 100, 1, 100]).pass(30).drain(&mut file.ledger);
    assert_eq!(reasons(&file.ledger), [GapReason::ClassTableMixed]);
    let series_count: i64 = file
        .ledger
        .conn
        .query_row("SELECT count(DISTINCT stream) FROM traffic_5min", [], |row| row.get(0))
        .unwrap();
    assert_eq!(series_count, 3);
    let table = node.snapshot().class_table;
    file.ledger.store_class_table(&table, b"1 0.0.0.0/0").unwrap();
    assert_eq!(file.ledger.class_table(&table.hash_hex()).unwrap().as_deref(), Some(&b"1 0.0.0.0/0"[..]));
}

#[test]
fn an_incomplete_calendar_is_completed() {
    let file = ledger();
    let meta = |sql: &str| file.ledger.conn.execute(sql, []).unwrap();
    // As if the process that created the ledger was killed between two writes.
    assert_eq!(meta("DELETE FROM meta WHERE key = 'billing_day'"), 1);
    let opened = Ledger::open(file.ledger.path(), LedgerConfig::default()).unwrap();
    assert_eq!((opened.calendar().zone_name(), opened.calendar().billing_day()), ("UTC", 1));
    assert_eq!(meta("DELETE FROM meta WHERE key = 'billing_day'"), 1, "it was written again");
}

#[test]
fn a_different_calendar_is_refused() {
    let file = ledger();
    let berlin =
        LedgerConfig { calendar: Calendar::new("Europe/Berlin", 1).unwrap(), ..LedgerConfig::default() };
    let refused = Ledger::open(file.ledger.path(), berlin);
    assert!(matches!(refused, Err(LedgerError::CalendarChanged { .. })));
    let reader = Ledger::open_read_only(file.ledger.path()).unwrap();
    assert_eq!(reader.calendar().zone_name(), "UTC");
}

#[test]
fn a_plain_copy_of_the_main_file_is_complete() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60);
    assert!(node.drain(&mut file.ledger).checkpointed);
    let copy = file.dir.path().join("copy.sqlite");
    std::fs::copy(file.ledger.path(), &copy).unwrap();
    assert_eq!(sums(&Ledger::open_read_only(&copy).unwrap(), "traffic_5min"), node.truth);
    let backup = file.dir.path().join("backup.sqlite");
    file.ledger.backup(&backup).unwrap();
    assert_eq!(sums(&Ledger::open_read_only(&backup).unwrap(), "traffic_5min"), node.truth);
    assert!(matches!(file.ledger.backup(&backup), Err(LedgerError::Backup { .. })));
}

#[test]
fn a_reader_does_not_block_the_drain() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    let mut reader = Ledger::open_read_only(file.ledger.path()).unwrap();
    let reading = reader.conn.transaction().unwrap();
    let rows = |conn: &rusqlite::Connection| -> i64 {
        conn.query_row("SELECT sum(in_bytes) FROM traffic_5min", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(rows(&reading), 100);
    let outcome = node.traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    assert!(!outcome.checkpointed);
    assert_eq!(rows(&reading), 100);
    drop(reading);
    assert!(node.pass(60).drain(&mut file.ledger).checkpointed);
}

#[test]
fn a_drain_after_a_lock_catches_up() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    let other = rusqlite::Connection::open(file.ledger.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    file.ledger.conn.busy_timeout(std::time::Duration::ZERO).unwrap();
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60);
    assert!(matches!(node.try_drain(&mut file.ledger), Err(LedgerError::Busy(_))));
    other.execute_batch("ROLLBACK").unwrap();
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    assert_eq!(reasons(&file.ledger), [GapReason::LedgerUnwritable]);
}

#[test]
fn a_renamed_node_continues_under_its_new_name() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    node.name = "node2".to_owned();
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    assert_eq!(sums(&file.ledger, "traffic_5min"), node.truth);
    assert_eq!(reasons(&file.ledger), []);
    let rows: i64 =
        file.ledger.conn.query_row("SELECT count(*) FROM traffic_5min", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 2, "one for each name");
}

#[test]
fn an_interface_name_reused_by_another_container_counts_separately() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.interface("veth5", Some("101"), 100, 0).pass(60).drain(&mut file.ledger);
    node.interface("veth5", Some("102"), 7, 0);
    node.interfaces[0].generation = 2;
    node.pass(60).drain(&mut file.ledger);
    let mut statement = file
        .ledger
        .conn
        .prepare(
            "SELECT c.label, p.in_packets FROM passed_5min p JOIN interface i ON i.id = p.interface
                  JOIN container c ON c.id = i.container ORDER BY 1",
        )
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let rows: Vec<(String, i64)> = rows.map(Result::unwrap).collect();
    assert_eq!(rows, [("101".to_owned(), 100), ("102".to_owned(), 7)]);
    assert_eq!(reasons(&file.ledger), []);
}

const INTERFACE_READINGS: [&str; 4] = ["interface_life", "passed_reading", "fault_reading", "unseen_reading"];

fn sum(ledger: &Ledger, what: &str) -> i64 {
    ledger.conn.query_row(&format!("SELECT {what}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn readings_of_interfaces_without_slots_expire() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    let days = 30;
    for day in 0..days {
        node.interfaces.clear();
        node.faults.clear();
        for number in 0..3 {
            let name = format!("vnet{}", day * 3 + number);
            node.interface(&name, Some("101"), 5, 2).fault(&name, Fault::NotIp, 1);
        }
        // This interface has only missed traffic.
        node.interface(&format!("tap{day}"), Some("102"), 0, 2);
        node.pass(86_400).drain(&mut file.ledger);
    }
    for (readings, a_day) in INTERFACE_READINGS.into_iter().zip([4, 3, 3, 4]) {
        let left = sum(&file.ledger, &format!("count(*) FROM {readings}"));
        // The readings of the last day, and of interfaces gone for at most a week.
        assert!((8 * a_day..=10 * a_day).contains(&left), "{readings}: {left}");
    }
    assert_eq!(sum(&file.ledger, "sum(in_packets) FROM passed_5min"), 3 * 5 * days);
    assert_eq!(sum(&file.ledger, "sum(out_packets) FROM fault_5min"), 3 * days);
    let count = |of| reasons(&file.ledger).into_iter().filter(|&reason| reason == of).count();
    // Those of the first drain are the life of interfaces before the counters.
    assert_eq!(count(GapReason::BeforeFirstCounters), 4);
    assert_eq!(count(GapReason::BeforeAttach), 4 * usize::try_from(days - 1).unwrap());
}

#[test]
fn a_reading_is_kept_as_long_as_its_slot_exists() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    // One interface is gone and keeps its slot, and some readings do not show it.
    node.interface("veth1", Some("101"), 5, 2).fault("veth1", Fault::NotIp, 3);
    node.interfaces[0].ifindex = None;
    node.pass(60).drain(&mut file.ledger);
    let idle = (node.interfaces.clone(), node.faults.clone());
    for _ in 0..60 {
        node.pass(86_400).drain(&mut file.ledger);
    }
    node.interfaces.clear();
    node.faults.clear();
    for _ in 0..6 {
        node.pass(86_400).drain(&mut file.ledger);
    }
    (node.interfaces, node.faults) = idle;
    node.pass(86_400).drain(&mut file.ledger);
    // Once it is seen again, its expiry starts over.
    let (interfaces, faults) = (std::mem::take(&mut node.interfaces), std::mem::take(&mut node.faults));
    for _ in 0..3 {
        node.pass(86_400).drain(&mut file.ledger);
    }
    (node.interfaces, node.faults) = (interfaces, faults);
    node.interface("veth1", Some("101"), 6, 3);
    node.pass(60).drain(&mut file.ledger);
    assert_eq!(sum(&file.ledger, "sum(in_packets) FROM passed_5min"), 6);
    assert_eq!(sum(&file.ledger, "sum(out_packets) FROM fault_5min"), 3);
    let gaps = file.ledger.gaps(None, None).unwrap();
    let missed: u64 = gaps.iter().filter_map(|gap| gap.size).map(|size| size.in_skbs).sum();
    assert_eq!(missed, 3);
    for readings in INTERFACE_READINGS {
        assert_eq!(sum(&file.ledger, &format!("count(*) FROM {readings}")), 1, "{readings}");
    }
}

#[test]
fn a_gap_that_no_counter_shows_is_stored_once_by_the_next_drain() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 1, 1, 1]).pass(60).drain(&mut file.ledger);
    let gap = |interface: &str, container: Option<&str>, size| Gap {
        interface: Some(interface.to_owned()),
        container: container.map(str::to_owned),
        size,
        ..Gap::of_node(GapReason::BeforeAttach, time(NOON + 61), time(NOON + 62))
            .with_detail("ended".to_owned())
    };
    let size = GapSize { in_skbs: 3, in_skb_bytes: 342, out_skbs: 5, out_skb_bytes: 570 };
    // The second one is of a container without a counter.
    let noted =
        [gap("veth101.0", Some("101"), None), gap("tap7", Some("7"), Some(size)), gap("tap8", None, None)];
    file.ledger.note_gaps(&noted);
    assert_eq!(node.pass(60).drain(&mut file.ledger).gaps, noted);
    assert!(node.pass(60).drain(&mut file.ledger).gaps.is_empty(), "once");
    assert_eq!(file.ledger.gaps(None, None).unwrap(), noted);
    assert!(file.ledger.gaps(Some(time(NOON + 63)), None).unwrap().is_empty());
}
