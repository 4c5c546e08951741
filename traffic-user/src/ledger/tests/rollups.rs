use super::node::*;

#[test]
fn levels_hold_the_same_sums() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    for _ in 0..40 {
        node.traffic("101", 1, [1, 100, 2, 7])
            .traffic("102", 0, [3, 30, 1, 1])
            .pass(1800)
            .drain(&mut file.ledger);
    }
    node.pass(40 * 86_400).traffic("103", 1, [1, 1, 1, 1]).drain(&mut file.ledger);
    let rolled = file.ledger.maintain(node.wall).unwrap();
    assert!(rolled.rolled_up > 20, "{rolled:?}");
    let mut over = node.truth.clone();
    over.retain(|(container, _), _| container != "103");
    for table in ["traffic_hour", "traffic_day", "traffic_month"] {
        assert_eq!(sums(&file.ledger, table), over, "{table}");
    }
    assert_eq!(file.ledger.maintain(node.wall).unwrap().rolled_up, 0);
}
