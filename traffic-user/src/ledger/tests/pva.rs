use std::process::Command;

use super::node::*;
use crate::ledger::{PvaImport, ReportQuery, Retention};

fn sqlite3(file: &std::path::Path, sql: &str) -> String {
    let output = Command::new("sqlite3").env("TZ", "UTC").arg(file).arg(sql).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn article(format: &str, eid: &str) -> String {
    format!(
        "select strftime('{format}', datetime(ldat.startTime,'unixepoch','localtime')) as period, ldef.counter,
         sum(ldat.avg) from log_def ldef join log_data ldat on ldef.id = ldat.id
         where ldef.eid = '{eid}' and ldef.lclass = 'counters_vz_net' and ldef.instance = ''
         and ldef.counter like '%_bytes' group by period, ldef.counter order by period, ldef.counter;"
    )
}

#[test]
fn the_articles_queries_run_on_a_plain_copy() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for _ in 0..60 {
        for container in ["101", "102"] {
            node.traffic(container, 1, [1, 100, 1, 10]).traffic(container, 2, [1, 1000, 1, 1]);
            node.traffic(container, 0, [1, 7, 1, 7]);
        }
        node.interface("vme5.0", Some("5"), 1, 0).traffic("5", 1, [1, 3, 1, 4]);
        node.pass(86_400).drain(&mut file.ledger);
    }
    let copy = file.dir.path().join("copy.sqlite");
    let months = "2026-11|counter_net_incoming_bytes|22000\n2026-11|counter_net_outgoing_bytes|220\n\
                  2026-12|counter_net_incoming_bytes|34100\n2026-12|counter_net_outgoing_bytes|341\n\
                  2027-01|counter_net_incoming_bytes|9900\n2027-01|counter_net_outgoing_bytes|99\n";
    // Before and after rows were summed up and the fine ones dropped.
    for _ in 0..2 {
        std::fs::copy(file.ledger.path(), &copy).unwrap();
        assert_eq!(sqlite3(&copy, &article("%Y-%m", "101")), months);
        let days = sqlite3(&copy, &article("%Y-%m-%d", "101"));
        assert_eq!(days.lines().count(), 120);
        assert!(days.contains("2026-12-05|counter_net_incoming_bytes|1100\n"), "{days}");
        let hours = sqlite3(&copy, &article("%Y-%m-%d %H:00:00", "101"));
        assert!(hours.contains("2027-01-09 11:00:00|counter_net_incoming_bytes|1100\n"), "{hours}");
        file.ledger.retention = Retention { five_minutes_days: 10, hours_months: 1 };
        let done = file.ledger.maintain(node.wall).unwrap();
        std::fs::remove_file(&copy).unwrap();
        assert!(done.rolled_up == 0 || done.dropped_rows > 100, "{done:?}");
    }
    let instances = sqlite3(
        file.ledger.path(),
        "select instance, sum(avg) from log_def d join log_data l on l.id = d.id
         where eid = '101' and counter = 'counter_net_incoming_bytes' group by 1 order by 1",
    );
    assert_eq!(instances, "|66000\n0|420\n1|6000\n2|60000\n");
    let machines = sqlite3(
        file.ledger.path(),
        "select counter, sum(avg) from log_def d join log_data l on l.id = d.id
         where lclass = 'counters_vzp_net' and eid = '5' and instance = '' group by 1 order by 1",
    );
    assert_eq!(
        machines,
        "counter_net_incoming_bytes|180\ncounter_net_incoming_packets|60\n\
         counter_net_outgoing_bytes|240\ncounter_net_outgoing_packets|60\n"
    );
}

#[test]
fn history_of_pva_is_taken_over_once() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 100, 1, 10]).pass(60).drain(&mut file.ledger);
    let pva = file.dir.path().join("pva.sqlite");
    let old = NOON - 30 * 86_400;
    let sql = format!(
        "CREATE TABLE log_def (id, eid, lclass, instance, counter);
         CREATE TABLE log_data (id, startTime, avg);
         INSERT INTO log_def VALUES
             (1, '101', 'counters_vz_net', '', 'counter_net_incoming_bytes'),
             (2, '101', 'counters_vz_net', '', 'counter_net_outgoing_bytes'),
             (3, '{{FC6E1D2D-3B2C-4F1C-9E2A-000000000007}}', 'counters_vzp_net', '', 'counter_net_incoming_bytes'),
             (4, '102', 'counters_vz_net', '', 'counter_net_incoming_bytes'),
             (5, '102', 'counters_vz_net', '2', 'counter_net_incoming_bytes'),
             (6, '102', 'counters_vz_cpu', '', 'counter_cpu_used');
         INSERT INTO log_data VALUES (1, {old}, 500), (1, {old} + 60, 500), (2, {old}, 70), (3, {old}, 9), (4, {old}, 11),
             (5, {old}, 11), (6, {old}, 99), (1, {NOON} + 30, 12345);"
    );
    sqlite3(&pva, &sql);
    let import = PvaImport { node: "node1".to_owned(), class: 1, until: None };
    for _ in 0..2 {
        let done = file.ledger.import_pva(&pva, &import).unwrap();
        assert_eq!((done.containers, done.rows), (3, 3));
        file.ledger.maintain(node.wall).unwrap();
        let machine = "fc6e1d2d-3b2c-4f1c-9e2a-000000000007".to_owned();
        let expected = [
            (("101".to_owned(), 1), [1, 1100, 1, 80]),
            (("102".to_owned(), 2), [0, 11, 0, 0]),
            ((machine, 1), [0, 9, 0, 0]),
        ];
        assert_eq!(sums(&file.ledger, "traffic_5min").into_iter().collect::<Vec<_>>(), expected);
    }
    assert_eq!(file.ledger.report(&ReportQuery::default()).unwrap().total.total.bytes, 1200);
    assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
}
