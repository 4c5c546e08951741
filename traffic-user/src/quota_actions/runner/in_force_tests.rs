//! Runs that are repeated while they are in force, against ledgers of a simulated node.

use std::fs;

use traffic_ledger::testing::{File, Node};

use super::Repeats;
use crate::quota_actions::{
    Journal, Run, RunState, orders,
    runner::tests::{begin, follow, look, run},
};

/// The action of `begin`, which runs again each minute, and fails while a file is there.
fn write_quotas(file: &File) {
    let text = "[[action]]\nname = 'act'\nagain = '1m'\n\
        command = ['/bin/sh', '-c', '[ ! -e DIR/broken ] || exit 3; echo on $TRAFCTL_QUOTA $TRAFCTL_AGAIN >>DIR/ran']\n\
        lift = ['/bin/sh', '-c', 'echo off $TRAFCTL_QUOTA $TRAFCTL_EVENT >>DIR/ran']\n";
    let text = text.replace("DIR", &file.dir.path().display().to_string());
    fs::write(file.dir.path().join("quotas.toml"), text).unwrap();
}

/// Two quotas that have the action in force, a run of each, and the ids of these.
fn in_force() -> (File, Node, [String; 2]) {
    let (mut file, mut node) = begin();
    write_quotas(&file);
    run(&file);
    follow(&mut file, &mut node, 60, &[look("a", 0, Some(1000), 1000), look("b", 0, Some(1000), 2000)]);
    assert_eq!(run(&file).1, ["on a", "on b"]);
    let crossings = file.ledger.quota_crossings(0, 9).unwrap();
    let id = |at: usize| orders(&crossings[at]).next().unwrap().id;
    let ids = [id(0), id(1)];
    (file, node, ids)
}

/// Whoever runs actions next finds the last runs so many seconds ago.
fn ran_ago(file: &File, seconds: i64) {
    let path = file.dir.path().join("quota-actions.jsonl");
    let now_s = crate::time::now_or_end().as_second();
    let mut lines = String::new();
    for line in fs::read_to_string(&path).unwrap().lines() {
        let mut run: serde_json::Value = serde_json::from_str(line).unwrap();
        run["begun_s"] = (now_s - seconds).into();
        lines += &format!("{run}\n");
    }
    fs::write(path, lines).unwrap();
}

#[test]
fn what_is_in_force_runs_again_after_a_while_once_for_all_quotas() {
    let (mut file, mut node, _) = in_force();
    assert_eq!(run(&file).1.len(), 2, "not before a minute is over");
    ran_ago(&file, 20);
    assert_eq!(run(&file).1.len(), 2, "not before a minute is over");
    ran_ago(&file, 61);
    assert_eq!(run(&file), (vec![], ["on a", "on b", "on a 1"].map(str::to_owned).to_vec()));
    assert_eq!(run(&file).1.len(), 3, "it ran just now");
    // One of both is undone: the other one keeps it in force.
    follow(&mut file, &mut node, 60, &[look("a", 0, Some(9000), 1000), look("b", 0, Some(1000), 2000)]);
    ran_ago(&file, 61);
    assert_eq!(run(&file).1[3..], ["on b 1"]);
    // The next day.
    follow(&mut file, &mut node, 13 * 3600, &[look("a", 1, Some(1000), 0), look("b", 1, Some(1000), 0)]);
    ran_ago(&file, 61);
    assert_eq!(run(&file).1[4..], ["off b ended"]);
    ran_ago(&file, 9999);
    assert_eq!(run(&file).1.len(), 5, "nothing is in force");
}

#[test]
fn a_clock_that_was_set_back_repeats_at_once() {
    let (file, ..) = in_force();
    ran_ago(&file, -3600);
    assert_eq!(run(&file).1[2..], ["on a 1"]);
    assert_eq!(run(&file).1.len(), 3, "it ran just now, whatever the other one's time is");
}

#[test]
fn a_repeated_run_that_fails_is_a_failed_one_and_holds_up_its_lift() {
    let (mut file, mut node, [id, _]) = in_force();
    let state = |id: &str| {
        let journal = Journal::read(file.dir.path()).unwrap();
        let run = journal.run(id).unwrap().clone();
        (run.state, run.attempts, run.message)
    };
    assert_eq!(state(&id), (RunState::Done, 1, None));
    ran_ago(&file, 61);
    let broken = file.dir.path().join("broken");
    fs::write(&broken, "").unwrap();
    let (left, ran) = run(&file);
    assert_eq!((left.len(), left[0].0.as_str(), ran.len()), (1, id.as_str(), 2), "{left:?}");
    let (failed, attempts, message) = state(&id);
    assert_eq!((failed, attempts), (RunState::Failed, 1));
    assert!(message.is_some());
    assert_eq!(crate::quota_actions::failed(&file.ledger, file.dir.path()).unwrap(), 1);
    // It is tried again like any other, and then repeated again.
    fs::remove_file(&broken).unwrap();
    ran_ago(&file, 11);
    assert_eq!(run(&file).1[2..], ["on a"]);
    assert_eq!(state(&id), (RunState::Done, 2, None));
    follow(&mut file, &mut node, 13 * 3600, &[look("a", 1, Some(1000), 0), look("b", 1, Some(1000), 0)]);
    // Both of them end, and what the first lift finds in force is nothing.
    ran_ago(&file, 61);
    assert_eq!(run(&file).1[3..], ["off a ended", "off b ended"]);
}

#[test]
fn without_the_key_nothing_is_repeated_and_a_missing_file_repeats_nothing() {
    let (file, ..) = in_force();
    let path = file.dir.path().join("quotas.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("again = '1m'\n", "")).unwrap();
    ran_ago(&file, 9999);
    assert_eq!(run(&file), (vec![], vec!["on a".to_owned(), "on b".to_owned()]));
    fs::write(&path, "").unwrap();
    assert_eq!(run(&file).1.len(), 2);
    fs::remove_file(&path).unwrap();
    assert_eq!(run(&file).1.len(), 2);
    let mut none = Repeats::default();
    assert!(!none.is_time(), "no file is read for nothing");
}

#[test]
fn the_journal_does_not_grow_with_each_repeated_run() {
    let (file, ..) = in_force();
    let mut journal = Journal::open(file.dir.path(), 0).unwrap();
    let run = journal.run(&orders(&file.ledger.quota_crossings(0, 1).unwrap()[0]).next().unwrap().id);
    let run = run.unwrap().clone();
    let path = file.dir.path().join("quota-actions.jsonl");
    let mut most = 0;
    for at in 0..2500_i64 {
        journal.note("n/a/b", Run { begun_s: at, ..run.clone() }).unwrap();
        most = most.max(fs::read_to_string(&path).unwrap().lines().count());
    }
    assert!((900..1100).contains(&most), "{most} lines");
    drop(journal);
    let journal = Journal::read(file.dir.path()).unwrap();
    assert_eq!((journal.run("n/a/b").unwrap().begun_s, journal.damaged), (2499, 0));
}
