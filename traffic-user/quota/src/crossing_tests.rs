//! Crossings against a naive reference, with kills at every step.

use proptest::prelude::*;

use super::*;

const SPAN: Span = Span { start_s: 1000, end_s: 2000 };

fn subject(span: Span) -> Subject<'static> {
    Subject { quota: "traffic", container: 7, id: "c", ledger: "l1", span }
}

fn look(used: u64) -> Option<Look> {
    Some(Look { used, allowance: 1000 })
}

fn changes(track: &mut Track, look: Option<Look>) -> Vec<(u16, Change)> {
    let found = track.follow(subject(SPAN), &[50, 80, 100], look);
    found.into_iter().map(|crossing| (crossing.percent, crossing.change)).collect()
}

#[test]
fn all_thresholds_of_one_look_are_crossed_in_order_and_once() {
    let mut track = Track::default();
    assert_eq!(changes(&mut track, look(499)), []);
    let all = [50, 80, 100].map(|percent| (percent, Change::Reached));
    assert_eq!(changes(&mut track, look(1000)), all);
    assert_eq!(changes(&mut track, look(1000)), []);
    assert_eq!(changes(&mut track, look(5000)), []);
}

#[test]
fn a_correction_undoes_and_the_next_crossing_has_an_id_of_its_own() {
    let mut track = Track::default();
    let ids = |track: &mut Track, used| {
        let found = track.follow(subject(SPAN), &[50, 80, 100], look(used));
        found.into_iter().map(|crossing| crossing.id).collect::<Vec<_>>()
    };
    assert_eq!(
        ids(&mut track, 900),
        ["l1/traffic/c/7/1000/50/reached/1", "l1/traffic/c/7/1000/80/reached/1"]
    );
    assert_eq!(ids(&mut track, 100), ["l1/traffic/c/7/1000/80/undone/1", "l1/traffic/c/7/1000/50/undone/1"]);
    assert_eq!(ids(&mut track, 600), ["l1/traffic/c/7/1000/50/reached/2"]);
}

#[test]
fn a_changed_allowance_or_threshold_counts_at_once() {
    let mut track = Track::default();
    changes(&mut track, look(900));
    let raised = Some(Look { used: 900, allowance: 2000 });
    assert_eq!(changes(&mut track, raised), [(80, Change::Undone), (50, Change::Undone)]);
    assert_eq!(changes(&mut track, look(900)), [(50, Change::Reached), (80, Change::Reached)]);
    let fewer = track.follow(subject(SPAN), &[80], look(900));
    assert_eq!((fewer.len(), fewer[0].percent, fewer[0].change), (1, 50, Change::Undone));
    assert_eq!(changes(&mut track, None), [(80, Change::Undone)], "the limit is gone");
}

#[test]
fn what_is_crossed_ends_with_its_period_and_begins_again_when_the_clock_goes_back() {
    let mut track = Track::default();
    changes(&mut track, look(900));
    let ended = |track: &Track| {
        let found = track.end(subject(SPAN), Look { used: 900, allowance: 1000 });
        found.into_iter().map(|crossing| (crossing.percent, crossing.change)).collect::<Vec<_>>()
    };
    assert_eq!(ended(&track), [(80, Change::Ended), (50, Change::Ended)]);
    assert_eq!(changes(&mut track, look(700)), [(80, Change::Undone)], "corrected later");
    track.reopen();
    assert_eq!(changes(&mut track, look(700)), [(50, Change::Reached)]);
    assert_eq!(track.end(subject(SPAN), Look::default())[0].id, "l1/traffic/c/7/1000/50/ended/2");
}

#[test]
fn nothing_is_found_below_the_next_amount_and_something_at_it() {
    for allowance in [1, 3, 99, 100, 1000, u64::MAX] {
        let mut track = Track::default();
        for _ in 0..3 {
            let next = track.next_amount(&[50, 80, 100], allowance).unwrap();
            let follow = |track: &mut Track, used| {
                track.follow(subject(SPAN), &[50, 80, 100], Some(Look { used, allowance })).len()
            };
            assert_eq!(follow(&mut track, next - 1), 0, "{allowance}");
            assert!(follow(&mut track, next) > 0, "{allowance}");
            if track.next_amount(&[50, 80, 100], allowance).is_none() {
                break;
            }
        }
        assert_eq!(track.next_amount(&[50, 80, 100], allowance), None);
    }
}

/// The whole history again after each look: the thresholds that are reached now, and were not before.
fn naively(looks: &[(usize, u64)]) -> Vec<(usize, u16, Change)> {
    let mut events = Vec::new();
    for at in 0..looks.len() {
        let (period, used) = looks[at];
        let before =
            looks[..at].iter().rev().find(|(other, _)| *other == period).map_or(0, |(_, used)| *used);
        for percent in [100, 80, 50] {
            if before >= percent * 10 && used < percent * 10 {
                events.push((period, u16::try_from(percent).unwrap(), Change::Undone));
            }
        }
        for percent in [50, 80, 100] {
            if before < percent * 10 && used >= percent * 10 {
                events.push((period, u16::try_from(percent).unwrap(), Change::Reached));
            }
        }
    }
    events
}

proptest! {
    /// Periods come in any order, as by a clock that is set back and forth. A kill loses the track that was
    /// not written yet together with its crossings, and the look is taken again.
    #[test]
    fn crossings_are_those_of_the_naive_reference(
        looks in proptest::collection::vec((0_usize..3, 0_u64..1500, any::<bool>()), 0..40)
    ) {
        let span = |period: usize| {
            let start_s = i64::try_from(period).unwrap() * 1000;
            Span { start_s, end_s: start_s + 1000 }
        };
        let mut written = [Track::default(), Track::default(), Track::default()];
        let (mut found, mut ids) = (Vec::new(), std::collections::BTreeSet::new());
        for (period, used, is_killed) in &looks {
            let subject = subject(span(*period));
            let follow = |track: &mut Track| track.follow(subject, &[50, 80, 100], look(*used));
            if *is_killed {
                // The transaction is not written: neither the track nor the crossings.
                let lost = follow(&mut written[*period].clone());
                let again = follow(&mut written[*period].clone());
                prop_assert_eq!(lost, again, "the same ids");
            }
            let crossings = follow(&mut written[*period]);
            written[*period] = Track::from_rows(written[*period].rows().collect::<Vec<_>>());
            for crossing in crossings {
                prop_assert!(ids.insert(crossing.id.clone()), "{} twice", crossing.id);
                found.push((*period, crossing.percent, crossing.change));
            }
        }
        let looks: Vec<_> = looks.iter().map(|(period, used, _)| (*period, *used)).collect();
        prop_assert_eq!(found, naively(&looks));
    }
}
