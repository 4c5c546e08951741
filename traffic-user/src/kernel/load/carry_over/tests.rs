use super::*;

#[test]
fn every_interruption_is_completed_in_its_own_way() {
    use Unfinished::{Complete, Created, Exchanged, Moving, No};
    use set_state::{CREATING, MOVING, READY, REPLACED};

    let cases = [
        (Some(READY), None, No),
        (Some(READY), Some(CREATING), Created),
        (Some(READY), Some(MOVING), Moving),
        (Some(READY), Some(READY), Complete),
        (Some(REPLACED), Some(READY), Complete),
        // Between the two renames of a kernel that cannot exchange.
        (None, Some(READY), Complete),
        (None, Some(MOVING), Complete),
        (Some(READY), Some(REPLACED), Exchanged),
    ];
    for (in_use, other, expected) in cases {
        assert_eq!(unfinished(in_use, other), expected, "{in_use:?} {other:?}");
    }
}

#[test]
fn a_row_keeps_its_slot_and_columns_when_rows_grow() {
    let moved: Vec<_> = rows(vec!["0.0", "0.1", "1.0", "1.1", "2.0"], 2, 5).collect();
    assert_eq!(moved, [(0, "0.0"), (1, "0.1"), (5, "1.0"), (6, "1.1"), (10, "2.0")]);
}
