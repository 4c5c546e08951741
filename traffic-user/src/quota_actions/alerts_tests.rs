//! Problems that come, stay, change their figures and go.

use std::time::Duration;

use super::*;

fn found(kind: ProblemKind, key: &str, text: &str) -> Found {
    Found { kind, key: key.to_owned(), text: text.to_owned(), is_past: false }
}

fn alert(problems: &[ProblemKind], action: &str, after_s: u64) -> Alert {
    let after = Duration::from_secs(after_s);
    Alert { line: 1, problems: problems.to_vec(), actions: vec![action.to_owned()], after }
}

/// What was told, and what of it is over.
fn told(known: &NodeAlerts) -> Vec<(&str, i64, Option<i64>, usize)> {
    let of = |alert: &'_ NodeAlert| (alert.told_s, alert.over_s, alert.count);
    known.alerts.iter().map(|one| (one.kind.as_str(), of(one).0, of(one).1, of(one).2)).collect()
}

#[test]
fn a_problem_is_told_once_when_it_has_lasted_and_once_when_it_is_over() {
    let alerts = [alert(&[ProblemKind::Disk], "mail", 60)];
    let disk = |text: &str| [found(ProblemKind::Disk, "", text)];
    let mut known = NodeAlerts::default();
    known.look(1000, &disk("9 MiB are free"), &alerts);
    known.look(1059, &disk("8 MiB are free"), &alerts);
    assert_eq!(told(&known), []);
    known.look(1060, &disk("7 MiB are free"), &alerts);
    known.look(1120, &disk("6 MiB are free"), &alerts);
    assert_eq!(told(&known), [("disk", 1060, None, 1)]);
    assert_eq!(known.alerts[0].problems, ["7 MiB are free"]);
    assert_eq!(
        (known.alerts[0].since_s, known.alerts[0].actions.as_slice()),
        (1000, &["mail".to_owned()][..])
    );
    // It flaps: away for less than a minute is not over.
    known.look(1180, &[], &alerts);
    known.look(1230, &disk("again"), &alerts);
    known.look(1290, &[], &alerts);
    known.look(1349, &[], &alerts);
    assert_eq!(told(&known), [("disk", 1060, None, 1)]);
    known.look(1350, &[], &alerts);
    assert_eq!(told(&known), [("disk", 1060, Some(1350), 1)]);
    // Another appearance is another alert.
    known.look(1400, &disk("full"), &alerts);
    known.look(1460, &disk("full"), &alerts);
    assert_eq!(told(&known)[1], ("disk", 1460, None, 1));
    // One that did not last is nobody's business.
    known.look(1461, &[found(ProblemKind::Clock, "", "x")], &alerts);
    known.look(1462, &[], &alerts);
    assert_eq!(known.followed.len(), 1);
}

#[test]
fn what_appears_together_is_one_alert_and_a_later_one_is_another() {
    let alerts =
        [alert(&[ProblemKind::Interfaces], "mail", 0), alert(&[ProblemKind::Interfaces], "hook", 30)];
    let one = |number: usize| {
        found(ProblemKind::Interfaces, &format!("veth{number}"), &format!("veth{number}: no"))
    };
    let all: Vec<Found> = (0..1000).map(one).collect();
    let mut known = NodeAlerts::default();
    known.look(1000, &all, &alerts);
    assert_eq!(told(&known), [("interfaces", 1000, None, 1000)]);
    assert_eq!((known.alerts[0].problems.len(), known.alerts[0].actions.len()), (20, 2));
    known.look(1060, &[&all[..], &[one(1000)]].concat(), &alerts);
    assert_eq!(told(&known)[1..], [("interfaces", 1060, None, 1)]);
    // All but one of the first are well again.
    known.look(1120, &all[7..8], &alerts);
    assert_eq!(told(&known), [("interfaces", 1000, None, 1000), ("interfaces", 1060, Some(1120), 1)]);
    known.look(1180, &[], &alerts);
    assert_eq!(told(&known)[0].2, Some(1180));
}

#[test]
fn what_happened_is_told_once_and_has_no_end() {
    let alerts = [alert(&[ProblemKind::Gaps], "mail", 3600)];
    let gap = |key: &str| Found { is_past: true, ..found(ProblemKind::Gaps, key, "a reboot") };
    let mut known = NodeAlerts::default();
    known.look(1000, &[gap("a")], &alerts);
    known.look(1060, &[gap("a"), gap("b")], &alerts);
    known.look(1120, &[gap("a"), gap("b")], &alerts);
    assert_eq!(told(&known), [("gaps", 1000, Some(1000), 1), ("gaps", 1060, Some(1060), 1)]);
    assert!(known.alerts.iter().all(|alert| alert.is_past));
}

#[test]
fn without_an_alert_for_its_kind_nothing_is_told_until_there_is_one() {
    let disk = [found(ProblemKind::Disk, "", "full")];
    let mut known = NodeAlerts::default();
    known.look(1000, &disk, &[alert(&[ProblemKind::Drains], "mail", 0)]);
    assert_eq!(told(&known), []);
    known.look(1060, &disk, &[alert(&[ProblemKind::Disk], "mail", 0)]);
    assert_eq!(told(&known), [("disk", 1060, None, 1)]);
}

#[test]
fn a_clock_that_is_set_neither_repeats_nor_swallows_an_alert() {
    let alerts = [alert(&[ProblemKind::Disk], "mail", 60)];
    let disk = [found(ProblemKind::Disk, "", "full")];
    let mut known = NodeAlerts::default();
    // The clock is months ahead, and then right again.
    known.look(9_000_000, &disk, &alerts);
    known.look(9_000_060, &disk, &alerts);
    known.look(1000, &disk, &alerts);
    known.look(1060, &disk, &alerts);
    assert_eq!(told(&known), [("disk", 9_000_060, None, 1)]);
    known.look(1061, &[], &alerts);
    known.look(1121, &[], &alerts);
    assert_eq!(told(&known), [("disk", 9_000_060, Some(1121), 1)]);
    // An alert at the same second of a clock that was set back has an id of its own.
    known.look(9_000_000, &disk, &alerts);
    known.look(9_000_060, &disk, &alerts);
    assert_ne!(known.alerts[0].id, known.alerts[1].id);
}

#[test]
fn a_restart_tells_nothing_twice_and_a_damaged_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let alerts = [alert(&[ProblemKind::Disk], "mail", 0)];
    let disk = [found(ProblemKind::Disk, "", "full")];
    assert_eq!(NodeAlerts::read(directory.path()).unwrap(), None);
    assert_eq!(NodeAlerts::stamp(directory.path()), None);
    let mut known = NodeAlerts { node: "n7".to_owned(), ..NodeAlerts::default() };
    known.look(1000, &disk, &alerts);
    known.write(directory.path()).unwrap();
    let mut read = NodeAlerts::read(directory.path()).unwrap().unwrap();
    assert_eq!(read, known);
    read.look(1060, &disk, &alerts);
    assert_eq!(read.alerts, known.alerts);
    let path = directory.path().join(FILE);
    for (text, why) in [
        ("{\"version\":1", "damaged"),
        ("{\"version\":9,\"looked_s\":0,\"followed\":[],\"alerts\":[]}", "version 9"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = NodeAlerts::read(directory.path()).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("remove it"), "{error}");
    }
}

#[test]
fn old_alerts_are_forgotten_and_those_that_last_are_kept() {
    let alerts = [alert(&[ProblemKind::Disk, ProblemKind::Drains], "mail", 0)];
    let drains = [found(ProblemKind::Drains, "", "late")];
    let mut known = NodeAlerts::default();
    known.look(10, &drains, &alerts);
    for at in 0..1100 {
        let now_s = 1000 + at * 10;
        known.look(now_s, &[&drains[..], &[found(ProblemKind::Disk, "", "full")]].concat(), &alerts);
        known.look(now_s + 5, &drains, &alerts);
    }
    assert_eq!(known.alerts.len(), MOST_OVER + 1);
    assert_eq!((known.alerts[0].kind.as_str(), known.alerts[0].over_s), ("drains", None));
}
