//! Names of containers with their validity in time, and changes of owners.

use std::collections::BTreeMap;

use crate::{Basis, By, ReportQuery, TopQuery, testing::*};

fn called(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(id, name)| ((*id).to_owned(), (*name).to_owned())).collect()
}

#[test]
fn a_report_has_the_names_of_its_time() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    file.ledger.note_names(called(&[("101", "shop"), ("nobody", "x")]));
    node.traffic("101", 1, [5, 500, 0, 0]).traffic("102", 1, [1, 100, 0, 0]).pass(60).drain(&mut file.ledger);
    // Nothing is known of it for a while, as when its platform does not answer.
    file.ledger.note_names(BTreeMap::new());
    node.traffic("101", 1, [5, 500, 0, 0]).pass(3600).drain(&mut file.ledger);
    file.ledger.note_names(called(&[("102", "mail")]));
    node.traffic("101", 1, [5, 500, 0, 0]).pass(3600).drain(&mut file.ledger);
    file.ledger.note_names(called(&[("101", "shop-2"), ("102", "mail")]));
    for _ in 0..2 {
        node.traffic("101", 1, [5, 500, 0, 0]).pass(3600).drain(&mut file.ledger);
    }
    let query = ReportQuery { by: By::Hour, containers: vec!["101".to_owned()], ..ReportQuery::default() };
    let report = file.ledger.report(&query).unwrap();
    let rows: Vec<_> = report.rows.iter().map(|row| row.name.as_deref()).collect();
    assert_eq!(rows, [Some("shop"), Some("shop"), Some("shop"), Some("shop-2"), Some("shop-2")]);
    let query = TopQuery {
        count: 2,
        from: None,
        to: None,
        classes: Vec::new(),
        by_class: false,
        calendar: None,
        basis: Basis::L3,
    };
    let top = file.ledger.top_talkers(&query).unwrap();
    assert_eq!(
        top.rows.iter().map(|row| row.name.as_deref()).collect::<Vec<_>>(),
        [Some("shop-2"), Some("mail")]
    );

    let containers = file.ledger.containers().unwrap();
    assert_eq!(containers[0].name.as_deref(), Some("shop-2"));
    let spans: Vec<_> = containers[0]
        .names
        .iter()
        .map(|one| {
            let until = one.until.map(|until| until.as_second() - NOON);
            (one.name.as_str(), one.since.as_second() - NOON, until)
        })
        .collect();
    assert_eq!(spans, [("shop", 60, Some(60 + 3 * 3600)), ("shop-2", 60 + 3 * 3600, None)]);
    assert_eq!(file.ledger.labels_named("mail").unwrap(), ["102"]);
    assert_eq!(file.ledger.labels_named("shop").unwrap(), ["101"], "nobody has it now");
    assert_eq!(file.ledger.labels_named("x").unwrap(), [""; 0], "it has no figures");
    assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
}

#[test]
fn a_name_goes_with_the_customer() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    file.ledger.note_names(called(&[("101", "meier")]));
    node.traffic("101", 1, [5, 500, 0, 0]).pass(60).drain(&mut file.ledger);
    let label = file.ledger.retire("101", time(NOON + 100)).unwrap();
    node.give_away("101");
    // The next customer may have the same name, and another container as well.
    file.ledger.note_names(called(&[("101", "schulz"), ("102", "meier")]));
    node.traffic_in("101", 7, 1, [1, 100, 0, 0])
        .traffic("102", 1, [1, 100, 0, 0])
        .pass(60)
        .drain(&mut file.ledger);
    let names: Vec<_> =
        file.ledger.containers().unwrap().into_iter().map(|one| (one.container, one.name)).collect();
    let named = |container: &str, name: &str| (container.to_owned(), Some(name.to_owned()));
    assert_eq!(names, [named("101", "schulz"), named(&label, "meier"), named("102", "meier")]);
    assert_eq!(file.ledger.labels_named("meier").unwrap(), ["102"], "the other one has it no more");
}

#[test]
fn a_change_of_owner_is_dated() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    let owned = |node: &mut Node, owner: &str| {
        for interface in &mut node.interfaces {
            interface.container = Some(id(owner));
            interface.ifindex = Some(7);
        }
    };
    node.traffic("a", 1, [5, 500, 0, 0]).traffic("b", 1, [1, 100, 0, 0]).interface("veth7", Some("a"), 0, 0);
    owned(&mut node, "a");
    node.pass(60).drain(&mut file.ledger);
    node.pass(60).drain(&mut file.ledger);
    assert_eq!(file.ledger.owner_changes(None).unwrap(), []);
    owned(&mut node, "b");
    for _ in 0..2 {
        node.pass(60).drain(&mut file.ledger);
    }
    let changes = file.ledger.owner_changes(Some("b")).unwrap();
    assert_eq!(changes, file.ledger.owner_changes(Some("a")).unwrap());
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].made, time(NOON + 180));
    assert_eq!(
        (changes[0].interface.as_str(), changes[0].former.as_deref(), changes[0].owner.as_deref()),
        ("veth7", Some("a"), Some("b"))
    );
    // Another device of the name, after a reboot with the same index: nothing changed hands.
    node.reboot(10);
    node.interface("veth7", Some("a"), 0, 0);
    owned(&mut node, "a");
    node.pass(60).drain(&mut file.ledger);
    // That a pending owner becomes known is no change.
    owned(&mut node, "pending:veth7:7:20261110T120000Z");
    assert_eq!(file.ledger.owner_changes(None).unwrap().len(), 1);
    assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
}

#[test]
fn an_older_ledger_has_no_names_yet() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic("101", 1, [5, 500, 0, 0]).pass(60).drain(&mut file.ledger);
    let path = file.ledger.path().to_owned();
    let before = sums(&file.ledger, TRAFFIC_5MIN);
    from_outside(&file.ledger, &as_version_3());
    drop(file.ledger);
    let mut migrated = crate::Ledger::open(&path, crate::LedgerConfig::default()).unwrap();
    assert_eq!(sums(&migrated, TRAFFIC_5MIN), before);
    migrated.note_names(called(&[("101", "shop")]));
    node.traffic("101", 1, [5, 500, 0, 0]).pass(60).drain(&mut migrated);
    assert_eq!(migrated.containers().unwrap()[0].name.as_deref(), Some("shop"));
}

const TRAFFIC_5MIN: &str = "traffic_5min";
