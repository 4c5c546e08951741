//! Runs of actions against ledgers of a simulated node.

use std::fs;

use traffic_ledger::{
    QuotaLook,
    testing::{EVERY_MINUTE, File, NOON, Node, ledger},
};
use traffic_quota::{Direction, Span, Used};

use super::*;
use crate::quota_actions::Found;

const DAY_S: i64 = 86_400;
const START_S: i64 = NOON - DAY_S / 2;

pub fn look(quota: &str, day: i64, allowance: Option<u64>, used: u64) -> QuotaLook {
    QuotaLook {
        quota: quota.to_owned(),
        container: "101".to_owned(),
        span: Span { start_s: START_S + day * DAY_S, end_s: START_S + (day + 1) * DAY_S },
        label: format!("day {day}"),
        moves: false,
        direction: Direction::Sum,
        classes: Vec::new(),
        is_rate: false,
        is_shared: false,
        allowance,
        thresholds: vec![(100, vec!["act".to_owned()])],
        used: Some(Used { incoming: used, outgoing: 0, together: None }),
    }
}

/// Has the ledger follow looks, a while after the last reading.
pub fn follow(file: &mut File, node: &mut Node, seconds: u64, looks: &[QuotaLook]) {
    node.traffic("101", 1, [1, 10, 1, 10]).pass(seconds);
    file.ledger.drain(&node.snapshot(), EVERY_MINUTE).unwrap();
    let state = file.ledger.quota_state().unwrap();
    assert!(file.ledger.follow_quotas(&state, looks, &[]).unwrap());
}

/// Writes the file with one action, which adds its id and event to a file.
fn write_quotas(file: &File) {
    let text = "[[action]]\nname = 'act'\n\
        command = ['/bin/sh', '-c', 'echo on $TRAFCTL_QUOTA >>DIR/ran']\n\
        lift = ['/bin/sh', '-c', 'echo off $TRAFCTL_QUOTA $TRAFCTL_EVENT >>DIR/ran']\n";
    let text = text.replace("DIR", &file.dir.path().display().to_string());
    fs::write(file.dir.path().join("quotas.toml"), text).unwrap();
}

pub fn begin() -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    write_quotas(&file);
    follow(&mut file, &mut node, 60, &[look("a", 0, Some(1000), 10), look("b", 0, Some(1000), 10)]);
    (file, node)
}

/// Runs everything that is due; what is left, and what ran so far.
pub fn run(file: &File) -> (Vec<(String, String)>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = Runner::new(file.dir.path(), file.dir.path().join("quotas.toml")).unwrap();
    let left = runtime.block_on(runner.run_once());
    let ran = fs::read_to_string(file.dir.path().join("ran")).unwrap_or_default();
    (left, ran.lines().map(str::to_owned).collect())
}

#[test]
fn a_lift_waits_until_no_other_quota_keeps_the_action_in_force() {
    let (mut file, mut node) = begin();
    assert_eq!(run(&file), (vec![], vec![]));
    follow(&mut file, &mut node, 60, &[look("a", 0, Some(1000), 1000), look("b", 0, Some(1000), 2000)]);
    assert_eq!(run(&file).1, ["on a", "on b"]);
    assert_eq!(run(&file).1.len(), 2, "once");
    follow(&mut file, &mut node, 60, &[look("a", 0, Some(1000), 1000), look("b", 0, Some(9000), 2000)]);
    assert_eq!(run(&file), (vec![], vec!["on a".to_owned(), "on b".to_owned()]));
    follow(&mut file, &mut node, 13 * 3600, &[look("a", 1, Some(1000), 0), look("b", 1, Some(1000), 0)]);
    assert_eq!(run(&file).1, ["on a", "on b", "off a ended"]);
}

#[test]
fn what_ran_for_a_retired_container_is_lifted_under_the_id_that_the_platform_knows() {
    let (mut file, mut node) = begin();
    run(&file);
    follow(&mut file, &mut node, 60, &[look("a", 0, Some(1000), 1000)]);
    assert_eq!(run(&file).1, ["on a"]);
    file.ledger.retire("101", node.wall).unwrap();
    let state = file.ledger.quota_state().unwrap();
    assert!(file.ledger.follow_quotas(&state, &[], &[]).unwrap());
    let crossings = file.ledger.quota_crossings(0, 9).unwrap();
    let undone = orders(&crossings[1]).next().unwrap();
    assert!(undone.whom().starts_with("101@"), "{undone:?}");
    assert_eq!(undone.subject(), "101/act");
    assert_eq!(run(&file).1, ["on a", "off a undone"]);
}

#[test]
fn without_a_journal_only_what_is_in_force_runs() {
    let (mut file, mut node) = begin();
    follow(&mut file, &mut node, 60, &[look("a", 0, Some(1000), 1000), look("b", 0, Some(1000), 10)]);
    // The next day.
    follow(&mut file, &mut node, 13 * 3600, &[look("a", 1, Some(1000), 0), look("b", 1, Some(1000), 5000)]);
    assert_eq!(run(&file).1, ["on b"]);
    // Lost: what is in force runs once more, and nothing older.
    fs::remove_file(file.dir.path().join("quota-actions.jsonl")).unwrap();
    assert_eq!(run(&file).1, ["on b", "on b"]);
    assert_eq!(run(&file).1.len(), 2);
    // It was there before anything was crossed, so that later crossings are never taken for old ones.
    follow(&mut file, &mut node, 60, &[look("a", 1, Some(1000), 1000), look("b", 1, Some(1000), 5000)]);
    follow(&mut file, &mut node, 60, &[look("a", 1, Some(9000), 1000), look("b", 1, Some(1000), 5000)]);
    assert_eq!(run(&file).1, ["on b", "on b", "on a"], "although it is undone, and the lift is not due");
}

#[test]
fn a_file_with_a_mistake_runs_nothing_and_an_action_that_is_gone_is_dropped() {
    let (mut file, mut node) = begin();
    run(&file);
    follow(&mut file, &mut node, 60, &[look("a", 0, Some(1000), 1000), look("b", 0, Some(1000), 10)]);
    let quotas = file.dir.path().join("quotas.toml");
    fs::write(&quotas, "[[action]]\n").unwrap();
    let (left, ran) = run(&file);
    assert_eq!((left.len(), ran.len()), (1, 0));
    assert!(left[0].1.contains("quotas.toml:1:1: the action has no name"), "{left:?}");
    fs::remove_file(&quotas).unwrap();
    assert!(run(&file).0[0].1.contains("No such file"));
    fs::write(&quotas, "").unwrap();
    assert_eq!(run(&file), (vec![], vec![]));
    write_quotas(&file);
    assert_eq!(run(&file), (vec![], vec![]), "it was dropped");
}

#[test]
fn a_run_whose_end_nobody_saw_runs_again_at_once_and_one_that_failed_waits() {
    let (mut file, mut node) = begin();
    run(&file);
    follow(&mut file, &mut node, 60, &[look("a", 0, Some(1000), 1000), look("b", 0, Some(1000), 10)]);
    let id = {
        let crossing = &file.ledger.quota_crossings(0, 9).unwrap()[0];
        orders(crossing).next().unwrap().id
    };
    let note = |state| {
        let mut journal = Journal::open(file.dir.path(), 0).unwrap();
        let message = Some("no shaper".to_owned());
        journal.note(&id, Run { state, attempts: 5, begun_s: now_s(), message }).unwrap();
    };
    note(RunState::Failed);
    assert_eq!(run(&file), (vec![(id.clone(), "no shaper".to_owned())], vec![]));
    note(RunState::Begun);
    assert_eq!(run(&file), (vec![], vec!["on a".to_owned()]));
    assert_eq!(Journal::read(file.dir.path()).unwrap().run(&id).unwrap().attempts, 6);
}

#[test]
fn runs_that_wait_keep_no_other_action_waiting() {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    // Waits until the other one has run, which comes after it in the order of crossings.
    let text = "[[action]]\nname = 'slow'\ncommand = ['/bin/sh', '-c', \
        'while ! [ -e DIR/go ]; do sleep 0.05; done; echo slow >>DIR/ran']\ntimeout = '1m'\n\
        [[action]]\nname = 'fast'\ncommand = ['/bin/sh', '-c', 'echo fast >>DIR/ran; : >DIR/go']\n";
    let text = text.replace("DIR", &file.dir.path().display().to_string());
    fs::write(file.dir.path().join("quotas.toml"), text).unwrap();
    let number = 2 * MOST_OF_ACTION + 3;
    let look = |at: usize, used| {
        let action = if at == number { "fast" } else { "slow" };
        let thresholds = vec![(100, vec![action.to_owned()])];
        QuotaLook { container: (100 + at).to_string(), thresholds, ..look("a", 0, Some(1000), used) }
    };
    for used in [10, 2000] {
        for at in 0..=number {
            node.traffic(&(100 + at).to_string(), 1, [1, 10, 1, 10]);
        }
        node.pass(60);
        file.ledger.drain(&node.snapshot(), EVERY_MINUTE).unwrap();
        let state = file.ledger.quota_state().unwrap();
        let looks: Vec<QuotaLook> = (0..=number).map(|at| look(at, used)).collect();
        assert!(file.ledger.follow_quotas(&state, &looks, &[]).unwrap());
    }
    let (left, ran) = run(&file);
    assert_eq!((left, ran.len()), (vec![], number + 1));
    assert_eq!(ran[0], "fast");
}

#[test]
fn the_node_is_told_of_without_a_ledger_and_after_a_mistake_in_the_file() {
    use traffic_quota::{Alert, ProblemKind};
    let directory = tempfile::tempdir().unwrap();
    let (path, ran) = (directory.path().join("quotas.toml"), directory.path().join("ran"));
    let of = directory.path().display();
    let text = format!(
        "[[action]]\nname = 'note'\ncommand = ['/bin/sh', '-c', 'echo $TRAFCTL_EVENT $TRAFCTL_PROBLEM >>{of}/ran']\n\
         lift = ['/bin/sh', '-c', 'echo $TRAFCTL_EVENT $TRAFCTL_PROBLEM >>{of}/ran']\n"
    );
    fs::write(&path, text).unwrap();
    let (problems, actions) = (vec![ProblemKind::Disk], vec!["note".to_owned()]);
    let alerts = [Alert { line: 1, problems, actions, after: Duration::ZERO }];
    let disk = |text: &str| Found {
        kind: ProblemKind::Disk,
        key: String::new(),
        text: text.to_owned(),
        is_past: false,
    };
    let mut known = NodeAlerts::read(directory.path()).unwrap().unwrap_or_default();
    known.node = "n7".to_owned();
    known.look(1000, &[disk("full")], &alerts);
    known.write(directory.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = Runner::new(directory.path(), path.clone()).unwrap();
    runtime.block_on(runner.run_once());
    assert!(runner.problem().unwrap().contains("the ledger"), "{:?}", runner.problem());
    let lines = || fs::read_to_string(&ran).unwrap();
    assert_eq!(lines(), "reached disk\n");
    fs::write(&path, "[[action]]\n").unwrap();
    known.look(1060, &[], &alerts);
    known.write(directory.path()).unwrap();
    runtime.block_on(runner.run_once());
    assert_eq!(lines(), "reached disk\nended disk\n");
    runtime.block_on(runner.run_once());
    assert_eq!(lines(), "reached disk\nended disk\n");
    // Whoever runs actions next finds both done.
    drop(runner);
    let mut runner = Runner::new(directory.path(), path).unwrap();
    runtime.block_on(runner.run_once());
    assert_eq!(lines(), "reached disk\nended disk\n");
}
