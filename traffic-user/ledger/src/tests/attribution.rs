//! Pending owners whose container becomes known, at any time after their first packet.

use traffic_common::Fault;
use traffic_model::ContainerId;

use crate::{
    By, Ledger, LedgerError, ReportQuery, query::query_plan::Split, testing::*,
    write::attribution::has_open_rows,
};

const PENDING: &str = "pending:veth7:7:20261110T120000Z";
/// Of the slot that was pending. No other slot has had it.
const GENERATION: u32 = 9;

/// The figures of each container and step: packets and bytes in, packets and bytes out.
fn figures(ledger: &Ledger, by: By) -> Vec<(String, String, u8, Sums)> {
    let split = Split { class: true, ..Split::default() };
    let report = ledger.report(&ReportQuery { by, split, ..ReportQuery::default() }).unwrap();
    let rows = report.rows.into_iter().map(|row| {
        let (incoming, outgoing) = (row.figures.incoming.unwrap(), row.figures.outgoing.unwrap());
        let sums = [incoming.packets, incoming.bytes, outgoing.packets, outgoing.bytes];
        (row.period, row.container, row.class.unwrap(), sums)
    });
    rows.filter(|(.., sums)| *sums != [0; 4]).collect()
}

/// The counters have another owner's name from now on.
fn rename(node: &mut Node, to: &str) {
    let counters = std::mem::take(&mut node.counters).into_iter();
    node.counters = counters
        .map(|((name, generation, class), sums)| {
            let name = if generation == GENERATION { to.to_owned() } else { name };
            ((name, generation, class), sums)
        })
        .collect();
    for interface in node.interfaces.iter_mut().filter(|interface| interface.interface == "veth7") {
        interface.container = Some(id(to));
    }
}

fn is_sound(ledger: &Ledger) {
    let audit = ledger.audit().unwrap();
    assert_eq!(audit.problems, Vec::<String>::new());
}

#[test]
fn everything_since_the_first_packet_becomes_the_containers() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic("101", 1, [5, 500, 0, 0])
        .traffic_in(PENDING, GENERATION, 1, [10, 1000, 20, 3000])
        .traffic_in(PENDING, GENERATION, 2, [0, 0, 1, 77])
        .fault("veth7", Fault::NotIp, 4)
        .interface("veth7", Some(PENDING), 0, 0)
        .pass(60)
        .drain(&mut file.ledger);
    node.traffic_in(PENDING, GENERATION, 1, [1, 100, 0, 0]).pass(60).drain(&mut file.ledger);
    let pending = file.ledger.pending_owners().unwrap();
    assert_eq!((pending.len(), pending[0].pending.as_str()), (1, PENDING));
    assert_eq!(pending[0].total.incoming.unwrap().packets, 11);

    // It goes on in the same counters, under the name of the container.
    rename(&mut node, "101");
    node.traffic_in("101", GENERATION, 1, [2, 200, 0, 0]).pass(60);
    let attributed = node.drain(&mut file.ledger).attributed;
    assert_eq!(attributed.len(), 1);
    assert_eq!((attributed[0].pending.as_str(), attributed[0].owner.as_str()), (PENDING, "101"));
    assert_eq!(attributed[0].recorded, [11, 1100, 21, 3077]);
    assert_eq!(node.pass(60).drain(&mut file.ledger).attributed, []);
    let of_both = |by| {
        let all = figures(&file.ledger, by);
        all.into_iter().map(|(_, container, class, sums)| (container, class, sums)).collect::<Vec<_>>()
    };
    let expected = [("101".to_owned(), 1, [18, 1800, 20, 3000]), ("101".to_owned(), 2, [0, 0, 1, 77])];
    assert_eq!(of_both(By::Total), expected);
    assert_eq!(of_both(By::FiveMinutes), expected);
    assert_eq!(file.ledger.pending_owners().unwrap(), []);
    let interfaces = file.ledger.report_interfaces(&ReportQuery::default()).unwrap();
    let of_faults: Vec<_> = interfaces.faults.iter().map(|row| (&row.interface, &row.container)).collect();
    assert_eq!(of_faults, [(&"veth7".to_owned(), &"101".to_owned())]);
    is_sound(&file.ledger);
}

#[test]
fn a_container_that_nobody_knew_begins_with_its_pending_owner() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic_in(PENDING, GENERATION, 1, [10, 1000, 20, 3000]).pass(60).drain(&mut file.ledger);
    // The daemon was down for two days while its container became known.
    rename(&mut node, "new");
    node.traffic_in("new", GENERATION, 1, [1, 1, 1, 1]).pass(2 * 86_400).drain(&mut file.ledger);
    let all = figures(&file.ledger, By::Day);
    let days: Vec<_> = all.iter().map(|(day, container, ..)| (day.as_str(), container.as_str())).collect();
    assert_eq!(days, [("2026-11-10", "new"), ("2026-11-12", "new")]);
    assert_eq!(all[0].3, [10, 1000, 20, 3000]);
    let since: i64 = file
        .ledger
        .conn
        .query_row("SELECT since FROM container WHERE name = 'new'", [], |row| row.get(0))
        .unwrap();
    assert!(since < NOON + 120, "since its first packet");
    is_sound(&file.ledger);
}

/// Some days under a pending id, packed and with months and rollups.
fn days_of_pending(days: u64) -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for at in 0..days * 6 {
        node.traffic("101", 1, [1, 100 + at, 2, 200])
            .traffic_in(PENDING, GENERATION, 1, [3, 300 + at, 4, 400])
            .traffic_in(PENDING, GENERATION, 0, [0, 0, 1, 50])
            .interface("veth7", Some(PENDING), 3 * (at + 1), 0);
        // What passed there did not pass the shared interface.
        let [packets, bytes, ..] = node.passed.as_mut().unwrap();
        (*packets, *bytes) = (*packets - 3, *bytes - 300);
        node.pass(4 * 3600).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    (file, node)
}

#[test]
fn packed_days_move_and_are_packed_again() {
    let (mut file, mut node) = days_of_pending(9);
    let packed = |ledger: &Ledger| -> i64 {
        let sql = "SELECT count(*) FROM traffic_5min_days d JOIN container c ON c.id = d.container
                   WHERE c.name = '101'";
        ledger.conn.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert!(packed(&file.ledger) > 3, "there is something to move");
    let truth: Sums = figures(&file.ledger, By::Total).into_iter().fold([0; 4], |mut sum, (.., sums)| {
        add(&mut sum, sums);
        sum
    });
    let before = figures(&file.ledger, By::Day);
    rename(&mut node, "101");
    node.pass(60).drain(&mut file.ledger);
    for _ in 0..2 {
        assert_eq!(figures(&file.ledger, By::Total).len(), 2, "class 0 and 1 of one container");
        let after = figures(&file.ledger, By::Day);
        for (day, _, class, sums) in &after {
            let mut both = [0; 4];
            before
                .iter()
                .filter(|row| row.0 == *day && row.2 == *class)
                .for_each(|row| add(&mut both, row.3));
            assert_eq!(*sums, both, "{day} class {class}");
        }
        let all = after.into_iter().fold([0; 4], |mut sum, (.., sums)| {
            add(&mut sum, sums);
            sum
        });
        assert_eq!(all, truth);
        is_sound(&file.ledger);
        file.ledger.maintain(node.wall).unwrap();
    }
    let number: i64 = file
        .ledger
        .conn
        .query_row("SELECT id FROM container WHERE name = ?1", [PENDING], |row| row.get(0))
        .unwrap();
    assert!(!has_open_rows(&file.ledger.conn, number));
    assert!(packed(&file.ledger) > 3, "and packed again");
}

#[test]
fn a_closed_month_is_corrected_and_does_not_change() {
    let (mut file, mut node) = days_of_pending(25);
    let closed = file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let november = |ledger: &Ledger| -> Vec<_> {
        figures(ledger, By::Month).into_iter().filter(|row| row.0 == "2026-11").collect()
    };
    let frozen = november(&file.ledger);
    let of_pending = |class| frozen.iter().find(|row| row.1 == PENDING && row.2 == class).unwrap().3;
    rename(&mut node, "101");
    node.pass(60).drain(&mut file.ledger);
    assert_eq!(november(&file.ledger), frozen, "what was frozen stays");
    assert_eq!(file.ledger.closed_periods().unwrap()[0].hash, closed.hash);
    let query = ReportQuery {
        to: Some("2026-12-01T00:00:00Z".parse().unwrap()),
        split: Split { class: true, ..Split::default() },
        ..ReportQuery::default()
    };
    let report = file.ledger.report(&query).unwrap();
    assert_eq!(report.adjustments.len(), 4, "two classes, from one to the other");
    for corrected in report.corrected.iter().filter(|line| line.container == PENDING) {
        assert_eq!(corrected.to_bill, [0; 4], "{corrected:?}");
    }
    let own = frozen.iter().find(|row| row.1 == "101").unwrap().3;
    let billed = report.corrected.iter().find(|line| line.container == "101" && line.class == 1).unwrap();
    let both: Vec<u64> = own.iter().zip(of_pending(1)).map(|(own, pending)| own + pending).collect();
    assert_eq!(billed.to_bill.map(i64::cast_unsigned).to_vec(), both);
    // December is open: its rows are the container's.
    let later = figures(&file.ledger, By::Month).into_iter().filter(|row| row.0 == "2026-12");
    assert!(later.clone().count() == 2 && later.into_iter().all(|row| row.1 == "101"));
    is_sound(&file.ledger);
    file.ledger.close_anyway("2026-12", time(NOON + 60 * 86_400)).unwrap_err();
}

#[test]
fn what_nobody_can_name_any_more_is_attributed_by_hand() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic_in(PENDING, GENERATION, 1, [10, 1000, 20, 3000]).pass(60).drain(&mut file.ledger);
    node.reboot(300);
    node.traffic("101", 1, [1, 10, 0, 0]).pass(60).drain(&mut file.ledger);
    let owner = id("101");
    let preview = file.ledger.preview_attribution(PENDING, &owner).unwrap().unwrap();
    assert_eq!(preview.total.incoming.unwrap().bytes, 1000);
    let made = node.wall;
    let mut attribute = |pending: &str, owner: &ContainerId, reason: &str| {
        file.ledger.attribute(pending, owner, reason, made)
    };
    let refused = |result: Result<_, LedgerError>| match result {
        Err(LedgerError::Query(what)) => what,
        other => panic!("{other:?}"),
    };
    assert!(refused(attribute("101", &owner, "why")).contains("is not a pending owner"));
    assert!(refused(attribute(PENDING, &id("pending:veth8:8:x"), "why")).contains("pending owner itself"));
    assert!(refused(attribute(PENDING, &owner, " ")).contains("no reason"));
    assert!(refused(attribute(PENDING, &owner, "two\nlines")).contains("no reason"));
    assert_eq!(attribute("pending:veth9:9:x", &owner, "why").unwrap(), None);
    let attributed = attribute(PENDING, &owner, "the customer's test").unwrap().unwrap();
    assert_eq!((attributed.source.as_str(), attributed.recorded), ("hand", [10, 1000, 20, 3000]));
    assert!(attribute(PENDING, &owner, "again").unwrap().unwrap().is_repeated);
    assert!(refused(attribute(PENDING, &id("102"), "no")).contains("was attributed to 101 at"));
    assert_eq!(figures(&file.ledger, By::Total)[0].3, [11, 1010, 20, 3000]);
    let all = file.ledger.attributions().unwrap();
    assert_eq!((all.len(), all[0].reason.as_deref()), (1, Some("the customer's test")));
    is_sound(&file.ledger);
}

#[test]
fn a_command_that_is_killed_before_it_tells_the_counters_costs_nothing() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic_in(PENDING, GENERATION, 1, [10, 1000, 20, 3000])
        .interface("veth7", Some(PENDING), 0, 0)
        .pass(60)
        .drain(&mut file.ledger);
    file.ledger.attribute(PENDING, &id("101"), "found", node.wall).unwrap().unwrap();
    // The counters still have the pending id. A new interface of it has not been seen before.
    node.traffic_in(PENDING, GENERATION, 1, [1, 10, 0, 0])
        .interface("veth7b", Some(PENDING), 0, 0)
        .pass(60)
        .drain(&mut file.ledger);
    rename(&mut node, "101");
    node.traffic_in("101", GENERATION, 1, [1, 10, 0, 0]).pass(60).drain(&mut file.ledger);
    let all = figures(&file.ledger, By::Total);
    assert_eq!((all.len(), all[0].1.as_str(), all[0].3), (1, "101", [12, 1020, 20, 3000]));
    assert_eq!(file.ledger.pending_owners().unwrap(), []);
    is_sound(&file.ledger);
}

#[test]
fn a_pending_owner_that_was_retired_keeps_its_figures_until_it_is_attributed() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic_in(PENDING, GENERATION, 1, [10, 1000, 20, 3000]).pass(60).drain(&mut file.ledger);
    let label = file.ledger.retire(PENDING, node.wall).unwrap();
    assert_eq!(file.ledger.pending_owners().unwrap(), [], "nobody waits for it any more");
    assert_eq!(figures(&file.ledger, By::Total)[0].1, label);
    file.ledger.attribute(&label, &id("7"), "found after all", node.wall).unwrap().unwrap();
    node.pass(60).drain(&mut file.ledger);
    assert_eq!(figures(&file.ledger, By::Total)[0].1, "7");
    is_sound(&file.ledger);
}
