//! Random histories of months, compared with a naive reference that computes everything anew.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, test_runner::RngSeed};
use traffic_quota::{Change, PeriodKind, Span, reached};

use super::{DAY, PERCENTS, RULES, Rule, crossings, follow, looks, sound, used};
use crate::{AdjustmentRequest, Ledger, LedgerConfig, QuotaLook, testing::*};

type Key = (&'static str, String, i64);

/// What the events must be: everything is computed anew from reports at each look.
#[derive(Default)]
struct Reference {
    /// What is crossed in each period that was ever seen, and whether it has ended.
    known: BTreeMap<Key, (QuotaLook, BTreeSet<u16>, bool)>,
    events: BTreeMap<(Key, u16, Change), u32>,
    /// Whether figures of periods that are over may have changed since the last look.
    is_corrected: bool,
}

impl Reference {
    fn note(&mut self, key: &Key, percent: u16, change: Change) {
        *self.events.entry((key.clone(), percent, change)).or_default() += 1;
    }

    fn compare(&mut self, key: &Key, now: &QuotaLook, is_wanted: bool) {
        let amounts = now.direction.of(now.used.unwrap());
        let now_reached: BTreeSet<u16> = match is_wanted {
            true => reached(&PERCENTS, amounts, now.allowance.unwrap()).into_iter().collect(),
            false => BTreeSet::new(),
        };
        let before = self.known.get(key).map(|(_, crossed, _)| crossed.clone()).unwrap_or_default();
        before.difference(&now_reached).for_each(|percent| self.note(key, *percent, Change::Undone));
        now_reached.difference(&before).for_each(|percent| self.note(key, *percent, Change::Reached));
        self.known.get_mut(key).unwrap().1 = now_reached;
    }

    /// A period that is over, of which the end may not have been seen yet.
    fn over(&mut self, look: &QuotaLook) {
        let rule = RULES.iter().find(|rule| rule.quota == look.quota).unwrap();
        let key = (rule.quota, look.container.clone(), look.span.start_s);
        if self.known.get(&key).is_some_and(|(.., ended)| *ended) {
            return;
        }
        self.known.entry(key.clone()).or_insert((look.clone(), BTreeSet::new(), false));
        self.compare(&key, look, true);
        for percent in self.known[&key].1.clone() {
            self.note(&key, percent, Change::Ended);
        }
        self.known.get_mut(&key).unwrap().2 = true;
    }

    fn look(&mut self, ledger: &Ledger, seen: Vec<QuotaLook>) {
        let now_s = ledger.extent().unwrap().last_reading.unwrap().as_second();
        let mut wanted: BTreeMap<Key, QuotaLook> = BTreeMap::new();
        // Before anybody follows, so that there are all periods since then.
        for look in seen {
            if !look.moves && look.span.end_s <= now_s {
                self.over(&look);
                continue;
            }
            let rule = RULES.iter().find(|rule| rule.quota == look.quota).unwrap();
            let start_s = if look.moves { 0 } else { look.span.start_s };
            wanted.insert((rule.quota, look.container.clone(), start_s), look);
        }
        let is_corrected = std::mem::take(&mut self.is_corrected);
        let known = self.known.iter().filter(|(_, (.., ended))| is_corrected || !ended);
        let known: Vec<_> = known.map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, (look, crossed, ended)) in known {
            let is_wanted = wanted.contains_key(&key);
            if ended && !look.moves && look.allowance.is_some() {
                // Corrected later. A retired container keeps its figures under another label.
                let label = ledger.has_label(&look.container).unwrap();
                if label {
                    let used = used(ledger, &look.container, look.span, &look.classes);
                    self.compare(&key, &QuotaLook { used: Some(used), ..look.clone() }, true);
                }
            } else if !ended && !is_wanted {
                if !look.moves && look.span.end_s <= now_s {
                    crossed.iter().for_each(|percent| self.note(&key, *percent, Change::Ended));
                } else {
                    self.compare(&key, &look, false);
                    self.known.get_mut(&key).unwrap().0.allowance = None;
                }
                self.known.get_mut(&key).unwrap().2 = true;
            }
        }
        for (key, look) in wanted {
            let known = self.known.entry(key.clone()).or_insert((look.clone(), BTreeSet::new(), false));
            known.0 = look.clone();
            if std::mem::take(&mut known.2) {
                known.1.clear();
            }
            self.compare(&key, &look, true);
        }
    }
}

fn found(ledger: &Ledger) -> BTreeMap<(Key, u16, Change), u32> {
    let mut events = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for one in crossings(ledger) {
        let rule = RULES.iter().find(|rule| rule.quota == one.quota).unwrap();
        let start_s = if matches!(rule.period, PeriodKind::Days(_)) { 0 } else { one.span.start_s };
        let key = (rule.quota, one.container, start_s);
        *events.entry((key, one.percent, one.change)).or_default() += 1;
        assert!(ids.insert(one.id.clone()), "{} twice", one.id);
    }
    events
}

/// Whether each sum that drains add to is that of the report.
fn sums_are_those_of_reports(ledger: &Ledger) {
    let mut statement = ledger
        .conn
        .prepare(
            "SELECT c.label, t.start, t.end, t.classes, u.in_bytes, u.out_bytes FROM quota_track t
             JOIN quota_used u ON u.track = t.id JOIN container c ON c.id = t.container WHERE NOT t.ended",
        )
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let label: String = row.get(0).unwrap();
        let span = Span { start_s: row.get(1).unwrap(), end_s: row.get(2).unwrap() };
        let text: String = row.get(3).unwrap();
        let classes: Vec<u8> = text.split(',').filter_map(|class| class.parse().ok()).collect();
        let kept = [4, 5].map(|at| row.get::<_, i64>(at).unwrap().cast_unsigned());
        let used = used(ledger, &label, span, &classes);
        assert_eq!(kept, [used.incoming, used.outgoing], "{label} {span:?}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Traffic { container: usize, class: u8, bytes: [u64; 2], seconds: u64 },
    Follow,
    Maintain,
    Correct { container: usize, bytes: i64 },
    Retire(usize),
    Clock(i64),
    Reboot,
    Reopen,
    Rules(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let seconds = prop_oneof![
        8 => 1_u64..7200,
        4 => 0..2 * DAY,
        1 => 0..40 * DAY
    ];
    prop_oneof![
        20 => (0_usize..3, 0_u8..3, [0_u64..120, 0..120], seconds).prop_map(|(container, class, bytes, seconds)| {
            Step::Traffic { container, class, bytes, seconds }
        }),
        8 => Just(Step::Follow),
        2 => Just(Step::Maintain),
        2 => (0_usize..3, -900_i64..900).prop_map(|(container, bytes)| Step::Correct { container, bytes }),
        1 => (0_usize..3).prop_map(Step::Retire),
        1 => (-80_000_i64..80_000).prop_map(Step::Clock),
        1 => Just(Step::Reboot),
        1 => Just(Step::Reopen),
        1 => (0_usize..RULES.len()).prop_map(Step::Rules),
    ]
}

/// One history: whenever the tracks are brought up to date, everything that was found is what the reference finds,
/// and in between every drain has added right.
///
/// A period that moves gives back what is older, so what a drain finds may be undone before the next look. With such
/// a quota, each drain is followed by a look, as in the daemon.
fn history(steps: &[Step], has_moving: bool) {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    let mut reference = Reference::default();
    let is_used = |rule: &Rule| has_moving || !matches!(rule.period, PeriodKind::Days(_));
    let mut rules: Vec<&'static Rule> = RULES.iter().filter(|rule| is_used(rule)).collect();
    let mut months = 0;
    // No owner ever has a slot of a former owner's generation.
    let mut generations = [1_u32; 3];
    node.traffic("101", 1, [1, 1, 1, 1]).pass(60).drain(&mut file.ledger);
    let catch_up = |ledger: &mut Ledger, reference: &mut Reference, rules: &[&'static Rule]| {
        let seen = looks(ledger, rules);
        follow(ledger, rules);
        reference.look(ledger, seen);
        sums_are_those_of_reports(ledger);
        assert_eq!(found(ledger), reference.events);
    };
    for step in steps {
        match step {
            Step::Traffic { container, class, bytes, seconds } => {
                let name = format!("10{}", container + 1);
                let sums = [1, bytes[0], 1, bytes[1]];
                node.traffic_in(&name, generations[*container], *class, sums).pass(*seconds);
                node.drain(&mut file.ledger);
                if has_moving {
                    catch_up(&mut file.ledger, &mut reference, &rules);
                } else if file.ledger.quota_state().unwrap().is_current {
                    let now_s = file.ledger.extent().unwrap().last_reading.unwrap().as_second();
                    let next = file.ledger.quota_state().unwrap().next_end_s;
                    if next.is_none_or(|next_s| now_s < next_s) {
                        sums_are_those_of_reports(&file.ledger);
                    }
                }
            }
            Step::Follow => catch_up(&mut file.ledger, &mut reference, &rules),
            Step::Maintain => drop(file.ledger.maintain(node.wall).unwrap()),
            Step::Correct { container, bytes } => {
                // What was crossed so far is known before anything is taken back.
                catch_up(&mut file.ledger, &mut reference, &rules);
                let name = ["2026-11", "2026-12", "2027-01", "2027-02"][months % 4];
                if file.ledger.close_anyway(name, node.wall).is_ok() {
                    months += 1;
                }
                let request = AdjustmentRequest {
                    period: "2026-11".to_owned(),
                    container: format!("10{}", container + 1),
                    bytes: [*bytes, 0],
                    packets: [0; 2],
                    ..adjustment(node.wall)
                };
                // What would make the month less than nothing is refused.
                let _either = file.ledger.adjust(&request);
                reference.is_corrected = true;
            }
            Step::Retire(container) => {
                catch_up(&mut file.ledger, &mut reference, &rules);
                let name = format!("10{}", container + 1);
                generations[*container] += 1;
                node.give_away(&name).pass(2);
                node.drain(&mut file.ledger);
                catch_up(&mut file.ledger, &mut reference, &rules);
                if let Ok(label) = file.ledger.retire(&name, node.wall) {
                    // Its figures have another label from now on.
                    let known = std::mem::take(&mut reference.known).into_iter();
                    let rename = |key: Key| (key.0, if key.1 == name { label.clone() } else { key.1 }, key.2);
                    reference.known = known
                        .map(|(key, mut value)| {
                            let key = rename(key);
                            value.0.container.clone_from(&key.1);
                            (key, value)
                        })
                        .collect();
                    let events = std::mem::take(&mut reference.events).into_iter();
                    reference.events = events
                        .map(|((key, percent, change), count)| ((rename(key), percent, change), count))
                        .collect();
                }
            }
            Step::Clock(by_s) => {
                catch_up(&mut file.ledger, &mut reference, &rules);
                node.set_clock(*by_s).pass(60).drain(&mut file.ledger);
                reference.is_corrected = true;
                catch_up(&mut file.ledger, &mut reference, &rules);
            }
            Step::Reboot => {
                node.reboot(300).pass(30).drain(&mut file.ledger);
            }
            Step::Reopen => {
                file.ledger = Ledger::open(file.ledger.path(), LedgerConfig::default()).unwrap();
            }
            Step::Rules(at) => {
                catch_up(&mut file.ledger, &mut reference, &rules);
                let rule = &RULES[*at];
                match rules.iter().position(|known| known.quota == rule.quota) {
                    Some(at) => drop(rules.remove(at)),
                    None if !is_used(rule) => {}
                    None => rules.push(rule),
                }
                // A drain before the next look would still find crossings of a quota that is gone.
                catch_up(&mut file.ledger, &mut reference, &rules);
            }
        }
    }
    catch_up(&mut file.ledger, &mut reference, &rules);
    sound(&file.ledger);
}

/// A few histories that are always the same, or as many random ones as `TRAFCTL_QUOTA_HISTORIES` says.
fn config() -> ProptestConfig {
    match std::env::var("TRAFCTL_QUOTA_HISTORIES").ok().and_then(|count| count.parse().ok()) {
        Some(cases) => ProptestConfig { cases, ..ProptestConfig::default() },
        None => ProptestConfig { cases: 12, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() },
    }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn crossings_are_those_of_the_naive_reference(
        steps in proptest::collection::vec(step(), 1..40), has_moving in any::<bool>()
    ) {
        history(&steps, has_moving);
    }
}

/// A day that begins and ends between two looks.
#[test]
fn a_period_that_nobody_looked_at_while_it_ran_is_caught_up() {
    let traffic = |container, bytes, seconds| Step::Traffic { container, class: 0, bytes, seconds };
    let steps = [
        traffic(0, [0, 0], 108_206),
        traffic(1, [0, 0], 62_680),
        Step::Follow,
        traffic(1, [44, 83], 3034),
        Step::Traffic { container: 1, class: 1, bytes: [0, 63], seconds: 47_831 },
        traffic(1, [90, 7], 200_000),
    ];
    history(&steps, false);
    history(&steps, true);
}
