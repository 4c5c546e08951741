//! Actions with failures and kills: each is done, in order, and at least once.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

fn pending(sequence: i64, subject: i64) -> Pending {
    Pending { sequence, subject: subject.to_string(), attempts: 0, begun_s: 0 }
}

fn sequences(due: &[&Pending]) -> Vec<i64> {
    due.iter().map(|action| action.sequence).collect()
}

#[test]
fn the_next_of_a_subject_waits_for_the_one_before_it() {
    let all = [pending(3, 1), pending(1, 1), pending(2, 2)];
    assert_eq!(sequences(&due(&all, &BTreeSet::new(), 50)), [1, 2]);
    assert_eq!(
        sequences(&due(&all, &BTreeSet::from(["1".to_owned()]), 50)),
        [2],
        "the third waits while the first runs"
    );
    let failed = [Pending { attempts: 1, begun_s: 45, ..pending(1, 1) }, pending(3, 1)];
    assert_eq!(sequences(&due(&failed, &BTreeSet::new(), 54)), [0; 0]);
    assert_eq!(sequences(&due(&failed, &BTreeSet::new(), 55)), [1]);
}

#[test]
fn retries_back_off_and_never_stop() {
    let wait = |attempts| Pending { attempts, ..pending(1, 1) }.retry_s();
    assert_eq!([0, 1, 2, 3, 9, 10, 40, u32::MAX].map(wait), [0, 10, 20, 40, 2560, 3600, 3600, 3600]);
    // The clock was a year ahead when it was begun.
    let ahead = Pending { attempts: 40, begun_s: 31_536_000, ..pending(1, 1) };
    assert!(ahead.is_due(0));
}

proptest! {
    /// Some attempts fail, some are killed before they report. Every action is done in the end, none before
    /// the one before it of its subject, and each that was begun has run.
    #[test]
    fn every_action_is_done_in_its_order(
        subjects in proptest::collection::vec(0_i64..4, 1..20),
        outcomes in proptest::collection::vec(0_u8..3, 0..40),
    ) {
        let numbered = (0..).zip(&subjects);
        let mut rows: Vec<Pending> = numbered.map(|(sequence, subject)| pending(sequence, *subject)).collect();
        let mut outcomes: VecDeque<u8> = outcomes.into();
        let mut done: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut now_s = 0;
        for _ in 0..20_000 {
            let Some(next) = due(&rows, &BTreeSet::new(), now_s).first().map(|action| action.sequence) else {
                now_s += 60;
                continue;
            };
            let at = rows.iter().position(|row| row.sequence == next).unwrap();
            // Written before it is started.
            rows[at].attempts += 1;
            rows[at].begun_s = now_s;
            match outcomes.pop_front().unwrap_or(0) {
                0 => done.entry(rows[at].subject.clone()).or_default().push(rows.remove(at).sequence),
                // It failed, or nobody was left to see what became of it.
                _ => now_s += 1,
            }
            if rows.is_empty() {
                break;
            }
        }
        prop_assert!(rows.is_empty(), "{rows:?} were never done");
        for of_subject in done.values() {
            prop_assert!(of_subject.is_sorted());
        }
        prop_assert_eq!(done.values().map(Vec::len).sum::<usize>(), subjects.len());
    }
}
