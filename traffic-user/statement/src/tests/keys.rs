//! Statements of a log whose key changed, and what must not pass for one.

use super::*;
use crate::{Verified, revocation, rotation};

const LEAKED: &str = "2026-11-20T00:00:00Z";
const MADE: &str = "2026-11-30T17:00:00Z";

fn key_of(seed: u8) -> SecretKey {
    SecretKey::new("node1.example.com/statements", [seed; 32]).unwrap()
}

fn rotated(from: u8, to: u8) -> Record {
    Record::Key { note: rotation(&key_of(from), &key_of(to), MADE).unwrap() }
}

fn revoked(by: u8, key: u8) -> Record {
    let note = revocation(&key_of(by), key_of(key).public(), (LEAKED, MADE), "laptop stolen").unwrap();
    Record::Key { note }
}

/// The chain of the other tests, and these changes of the key, which begins as [`key`].
fn issuing(changes: &[Record], made: &str) -> Issuing {
    let facts = Facts { made: made.to_owned(), ..facts(3) };
    let mut issuing = chain(issue(Log::new(Salts::of([9; 32])), facts));
    for (at, change) in changes.iter().enumerate() {
        issuing.entry((Kind::Key, None, &format!("ff{at}")), std::slice::from_ref(change)).unwrap();
    }
    issuing
}

fn by(seed: u8, changes: &[Record]) -> String {
    issuing(changes, MADE).finish(&key_of(seed), None).unwrap()
}

fn verified(note: &str) -> Verified {
    verify(note, None).unwrap()
}

#[test]
fn a_reader_with_an_old_key_accepts_one_that_followed_it() {
    let changes = [rotated(7, 8), rotated(8, 9)];
    let note = by(9, &changes);
    for seed in [7, 8, 9] {
        let found = verify(&note, Some(key_of(seed).public())).unwrap();
        assert_eq!((&found.key, found.log_size), (key_of(9).public(), 7));
        assert!(passes_independently(&note, key_of(seed).public()));
    }
    let error = verify(&note, Some(key_of(10).public())).unwrap_err();
    assert!(matches!(error, StatementError::OtherKey { .. }), "{error}");
    // Only the last key signs.
    for seed in [7, 8, 10] {
        let error = issuing(&changes, MADE).finish(&key_of(seed), None).unwrap_err().to_string();
        assert!(error.contains("another key signs by now"), "{error}");
    }
    // What cannot be a change is not stated either.
    let wrong =
        issuing(&[rotated(7, 8), rotated(7, 9)], MADE).finish(&key_of(9), None).unwrap_err().to_string();
    assert!(wrong.contains("another key than the one before it"), "{wrong}");
}

#[test]
fn a_revoked_key_is_refused_with_the_reason() {
    let changes = [rotated(7, 8), revoked(8, 7)];
    let later = by(8, &changes);
    let error = verify(&later, Some(key_of(7).public())).unwrap_err().to_string();
    assert!(
        error.contains("was revoked from 2026-11-20T00:00:00Z on: laptop stolen; take the key"),
        "{error}"
    );
    assert!(verify(&later, Some(key_of(8).public())).is_ok());
    // One that says that it was made since.
    let stolen = verified(&by(7, &[]));
    let error = stolen.check_with(&verified(&later)).unwrap_err().to_string();
    assert!(error.contains("laptop stolen, and this was made 2026-11-30T17:00:00Z"), "{error}");
    let at_that_moment = verified(&issuing(&[], LEAKED).finish(&key_of(7), None).unwrap());
    assert!(at_that_moment.check_with(&verified(&later)).is_err());
    let without_time = verified(&issuing(&[], "2026").finish(&key_of(7), None).unwrap());
    assert!(without_time.check_with(&verified(&later)).is_err());
    let before = verified(&issuing(&[], "2026-11-19T23:59:59Z").finish(&key_of(7), None).unwrap());
    assert_eq!(before.check_with(&verified(&later)).unwrap().unwrap().reason, "laptop stolen");
    // A key that was only replaced is as good as ever.
    let kept = by(8, &changes[..1]);
    assert_eq!(stolen.check_with(&verified(&kept)).unwrap(), None);
}

#[test]
fn a_later_statement_shows_another_history() {
    let changes = [rotated(7, 8), revoked(8, 7), rotated(8, 9)];
    let later = verified(&by(9, &changes));
    // Signed by a key that had been replaced in the log by then.
    let two = |one: &Verified, later: &Verified| match one.check_with(later) {
        Err(StatementError::TwoHistories(what)) => what,
        other => panic!("{other:?}"),
    };
    let mut beside = issuing(&[], "2026-11-19T00:00:00Z");
    let more = correction("2026-09", 3, 1, -3);
    beside.entry((Kind::Correction, Some("2026-09"), "ff0"), &[more]).unwrap();
    let beside = verified(&beside.finish(&key_of(7), None).unwrap());
    assert!(two(&beside, &later).contains("entry 6 replaced its key"));
    // Other keys, and another root of the same number of entries.
    let elsewhere = verified(&by(9, &[rotated(7, 6), rotated(6, 8), rotated(8, 9)]));
    assert!(two(&elsewhere, &later).contains("keys before this one"));
    let elsewhere = verified(&by(9, &[rotated(7, 8), rotated(8, 9)]));
    assert!(two(&elsewhere, &later).contains("keys before this one"));
    let same = |last: i128| {
        let mut issuing = chain(issue(Log::new(Salts::of([9; 32])), facts(3)));
        let record = correction("2026-09", 3, 1, last);
        issuing.entry((Kind::Correction, Some("2026-09"), "ff0"), &[record]).unwrap();
        verified(&issuing.finish(&key_of(7), None).unwrap())
    };
    assert!(two(&same(1), &same(2)).contains("the log of 6 entries has another root"));
    assert_eq!(same(1).check_with(&same(1)).unwrap(), None);
    // Other figures of the month, of which the later one has more entries behind them.
    let other = issue(Log::new(Salts::of([10; 32])), facts(3));
    let other = verified(&chain(other).finish(&key_of(7), None).unwrap());
    assert!(two(&other, &same(1)).contains("entry 2 is another one"));
    // The other way round, and a stranger's.
    assert!(later.check_with(&verified(&by(7, &[]))).unwrap_err().to_string().contains("give the later one"));
    let stranger = verified(&by(5, &[]));
    assert!(matches!(stranger.check_with(&later), Err(StatementError::OtherKey { .. })));
}

#[test]
fn every_changed_byte_is_found_where_the_key_changed() {
    let note = by(9, &[rotated(7, 8), revoked(8, 7), rotated(8, 9)]);
    let public = key_of(8).public().clone();
    assert!(verify(&note, Some(&public)).is_ok());
    for at in 0..note.len() {
        let mut bytes = note.clone().into_bytes();
        bytes[at] ^= 1 << (at % 8);
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        assert!(verify(&changed, Some(&public)).is_err(), "byte {at}");
    }
}

/// What whoever has the last key could do.
#[test]
fn changes_of_the_key_are_those_of_the_log() {
    let note = by(9, &[rotated(7, 8), revoked(8, 7), rotated(8, 9)]);
    let again = |change: &dyn Fn(&mut Vec<serde_json::Value>)| {
        let mut document: serde_json::Value = serde_json::from_str(note.lines().next().unwrap()).unwrap();
        change(document["keys"].as_array_mut().unwrap());
        let note = key_of(9).sign(&(crate::canonical::text(&document).unwrap() + "\n"));
        assert!(!passes_independently(&note, key_of(9).public()), "{note}");
        verify(&note, Some(key_of(7).public())).unwrap_err().to_string()
    };
    assert!(again(&|keys| drop(keys.remove(0))).contains("revokes a key that signs"));
    assert!(again(&|keys| drop(keys.pop())).contains("do not lead to the key"));
    assert!(again(&|keys| keys.swap(1, 2)).contains("not in the order of the log"));
    assert!(again(&|keys| keys.push(keys[0].clone())).contains("not in the order of the log"));
    // One that was never in the log, with the proof of another.
    let Record::Key { note: never } = rotated(7, 9) else { panic!() };
    let found = again(&|keys| {
        keys.truncate(1);
        keys[0]["record"]["note"] = never.clone().into();
    });
    assert!(found.contains("not in entry 6"), "{found}");
    let figures: serde_json::Value = serde_json::from_str(note.lines().next().unwrap()).unwrap();
    assert!(again(&|keys| keys[0] = figures["figures"].clone()).contains("another kind than its place"));
    // All of them hidden: it is another key's then.
    let hidden = again(&|keys| keys.clear());
    assert!(hidden.contains("canonical") || hidden.contains("signed by"), "{hidden}");
}

#[test]
fn a_log_without_changes_of_the_key_has_the_statements_of_before() {
    assert!(!by(7, &[]).contains("\"keys\""));
    let note = by(7, &[]);
    let mut document: serde_json::Value = serde_json::from_str(note.lines().next().unwrap()).unwrap();
    document["keys"] = serde_json::json!([]);
    let empty = key().sign(&(crate::canonical::text(&document).unwrap() + "\n"));
    assert!(refusal(&empty).contains("canonical"));
}
