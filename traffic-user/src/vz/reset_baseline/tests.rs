//! Tests of baselines and of their file.

use std::fs;

use serde_json::Value;
use traffic_model::sample;

use super::*;

fn id(text: &str) -> ContainerId {
    ContainerId::new(text).unwrap()
}

/// The sample after more traffic: each figure grew by a different number.
fn later(by: u64) -> Snapshot {
    let mut snapshot = sample::snapshot();
    for (at, counter) in (0..).zip(&mut snapshot.counters) {
        let grow = |tally: &mut Tally, step: u64| {
            tally.bytes = tally.bytes.wrapping_add(by * (at + 1) * 10 + step);
            tally.packets += by + step;
        };
        grow(&mut counter.tally.incoming, 1);
        grow(&mut counter.tally.outgoing, 2);
    }
    snapshot.counters.retain(|counter| counter.container.as_str() != sample::UUID);
    snapshot
}

fn since(baselines: &ResetBaselines, snapshot: &Snapshot) -> Vec<[u64; 4]> {
    let mut snapshot = snapshot.clone();
    baselines.subtract_from(&mut snapshot);
    let figures = |tally: &ByDirection<Tally>| {
        [tally.incoming.bytes, tally.incoming.packets, tally.outgoing.bytes, tally.outgoing.packets]
    };
    snapshot.counters.iter().map(|counter| figures(&counter.tally)).collect()
}

#[test]
fn after_a_reset_only_the_growth_is_shown() {
    let mut baselines = ResetBaselines::default();
    let first = sample::snapshot();
    let whole = since(&baselines, &first);
    baselines.set(&first, None);
    assert!(since(&baselines, &first).iter().all(|row| *row == [0; 4]));
    let grown = since(&baselines, &later(3));
    assert_eq!(grown[0], [31, 4, 32, 5]);
    assert_eq!(grown[2], [91, 4, 92, 5]);
    assert!(since(&ResetBaselines::default(), &first) == whole, "without a baseline nothing is subtracted");
}

#[test]
fn one_container_is_reset_and_the_others_are_not() {
    let mut baselines = ResetBaselines::default();
    let (first, second) = (sample::snapshot(), later(3));
    baselines.set(&first, Some(&id("102")));
    let of_101 = first.counters.iter().filter(|counter| counter.container == id("101")).count();
    assert_eq!(since(&baselines, &first)[..of_101], since(&ResetBaselines::default(), &first)[..of_101]);
    assert_eq!(since(&baselines, &first)[of_101], [0; 4]);
    // Each container has its own baseline.
    baselines.set(&second, Some(&id("101")));
    assert!(since(&baselines, &second)[..of_101].iter().all(|row| *row == [0; 4]));
    assert_eq!(since(&baselines, &second)[of_101], [3 * 80 + 1, 4, 3 * 80 + 2, 5]);
    baselines.set(&second, Some(&id("102")));
    assert!(since(&baselines, &second).iter().all(|row| *row == [0; 4]));
}

#[test]
fn baselines_of_another_boot_set_or_generation_are_void() {
    let mut baselines = ResetBaselines::default();
    let first = sample::snapshot();
    baselines.set(&first, None);
    let changes: [fn(&mut Snapshot); 3] = [
        |snapshot| snapshot.boot_id.push('x'),
        |snapshot| snapshot.epoch += 1,
        |snapshot| snapshot.counters.iter_mut().for_each(|counter| counter.generation += 1),
    ];
    for change in changes {
        let mut other = first.clone();
        change(&mut other);
        assert_eq!(since(&baselines, &other), since(&ResetBaselines::default(), &other));
        // A new reset belongs to the new counters, and the old baselines are gone for good.
        let mut again = baselines.clone();
        again.set(&other, Some(&id("102")));
        assert_eq!(since(&again, &first), since(&ResetBaselines::default(), &first));
    }
}

#[test]
fn a_reading_from_before_the_reset_shows_zero() {
    let mut baselines = ResetBaselines::default();
    baselines.set(&later(3), None);
    let mut earlier = sample::snapshot();
    earlier.counters.truncate(9);
    assert!(since(&baselines, &earlier).iter().all(|row| *row == [0; 4]));
}

#[test]
fn baselines_are_stored_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = BaselineFile::new(directory.path());
    assert_eq!(file.read().unwrap(), ResetBaselines::default());
    let mut baselines = ResetBaselines::default();
    baselines.set(&sample::snapshot(), None);
    file.write(&baselines).unwrap();
    assert_eq!(file.read().unwrap(), baselines);

    for (text, reason) in [
        ("", "EOF"),
        ("{\"version\":2}", "version 2, this trafctl reads version 1"),
        ("{\"version\":1,\"boot_id\":\"b\",\"epoch\":\"x\",\"marks\":[]}", "not a number"),
    ] {
        fs::write(directory.path().join(FILE_NAME), text).unwrap();
        let error = format!("{:#}", file.read().unwrap_err());
        assert!(error.starts_with("cannot use the reset baselines in ") && error.contains(reason), "{error}");
    }
}

#[test]
fn a_damaged_entry_costs_only_that_entry() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let file = BaselineFile::new(directory.path());
    let mut all = ResetBaselines::default();
    all.set(&sample::snapshot(), None);
    file.write(&all).unwrap();
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let at = good["marks"].as_array().unwrap().iter().position(|mark| mark["container"] == "101").unwrap();
    type Damage = fn(&mut Value);
    let damages: [(Damage, &str); 6] = [
        (|mark| mark["counters"][0]["in_bytes"] = Value::from(-5), "invalid value: integer `-5`"),
        (|mark| mark["counters"][0]["family"] = Value::from("ipv5"), "family \"ipv5\" is unknown"),
        (|mark| mark["container"] = Value::from("a b"), "container \"a b\""),
        (|mark| mark["taken"] = Value::from("+10000-01-01T00:00:00Z"), "container \"101\""),
        (|mark| mark["generation"] = Value::from(1_u64 << 40), "expected u32"),
        (|mark| *mark = Value::from(7), "container \"?\""),
    ];
    for (damage, shown) in damages {
        let mut damaged = good.clone();
        damage(&mut damaged["marks"][at]);
        fs::write(&path, damaged.to_string()).unwrap();
        let (read, problems) = file.load().unwrap();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems, file.problems());
        assert!(problems[0].contains(shown) && problems[0].contains("is skipped: "), "{problems:?}");
        let mut expected = all.clone();
        expected.by_owner.retain(|(container, _), _| *container != id("101"));
        assert_eq!(read, expected);
    }
}

#[test]
fn what_is_not_a_file_of_sane_size_is_a_problem_and_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    for (at, reason) in crate::files::tests::odd_files(directory.path()) {
        let state = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&at, state.path().join(FILE_NAME)).unwrap();
        let file = BaselineFile::new(state.path());
        let problems = crate::files::tests::at_once(reason, move || file.problems());
        assert!(problems.len() == 1 && problems[0].contains(reason), "{problems:?}");
    }
}
