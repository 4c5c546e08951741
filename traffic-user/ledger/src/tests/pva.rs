use std::process::Command;

use traffic_model::calendar::Retention;

use crate::testing::*;

fn sqlite3(file: &std::path::Path, sql: &str) -> String {
    let output = Command::new("sqlite3").env("TZ", "UTC").arg(file).arg(sql).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn article(format: &str, eid: &str) -> String {
    format!(
        "select strftime('{format}', datetime(ldat.startTime,'unixepoch','localtime')) as period,
         ldef.counter,
         sum(ldat.avg) from log_def ldef join log_data ldat on ldef.id = ldat.id
         where ldef.eid = '{eid}' and ldef.lclass = 'counters_vz_net' and ldef.instance = ''
         and ldef.counter like '%_bytes' group by period, ldef.counter order by period, ldef.counter;"
    )
}

#[test]
fn the_queries_written_for_pva_run_on_a_plain_copy() {
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
    // Before and after the rows are summed and the fine ones dropped.
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
