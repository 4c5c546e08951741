//! Crossings of quotas: in the drain that saw them, once, and the same as those of a naive reference over months of
//! random histories.

mod reference;

use traffic_quota::{Change, Direction, Period, PeriodKind, Span, Used};

use crate::{Extent, Ledger, LedgerConfig, QuotaCrossing, QuotaLook, ReportQuery, testing::*};

const DAY: u64 = 86_400;

/// A quota of all containers.
struct Rule {
    quota: &'static str,
    period: PeriodKind,
    direction: Direction,
    classes: &'static [u8],
    allowance: u64,
}

const RULES: [Rule; 4] = [
    Rule {
        quota: "month",
        period: PeriodKind::Month(Some(3)),
        direction: Direction::Sum,
        classes: &[],
        allowance: 2000,
    },
    Rule {
        quota: "week",
        period: PeriodKind::Week,
        direction: Direction::Out,
        classes: &[1, 2],
        allowance: 301,
    },
    Rule {
        quota: "day",
        period: PeriodKind::Day,
        direction: Direction::Larger,
        classes: &[0, 2],
        allowance: 97,
    },
    Rule {
        quota: "moves",
        period: PeriodKind::Days(3),
        direction: Direction::In,
        classes: &[],
        allowance: 333,
    },
];
const PERCENTS: [u16; 3] = [50, 80, 100];

fn used(ledger: &Ledger, container: &str, span: Span, classes: &[u8]) -> Used {
    let query = ReportQuery {
        classes: classes.to_vec(),
        from: Some(time(span.start_s)),
        to: Some(time(span.end_s)),
        ..ReportQuery::default()
    };
    let mut used = Used::default();
    for row in ledger.report(&query).unwrap().rows {
        if row.container == container && (row.billed || classes.contains(&0)) {
            let bytes = |volume: Option<crate::SignedVolume>| u64::try_from(volume.unwrap().bytes).unwrap();
            let (incoming, outgoing) = match row.billing {
                Some(billing) => (bytes(billing.to_bill.incoming), bytes(billing.to_bill.outgoing)),
                None => (row.figures.incoming.unwrap().bytes, row.figures.outgoing.unwrap().bytes),
            };
            used.incoming += incoming;
            used.outgoing += outgoing;
        }
    }
    used
}

fn look(ledger: &Ledger, rule: &Rule, container: &str, at_s: i64) -> QuotaLook {
    let period = Period { kind: rule.period, zone: None };
    let span = period.span(ledger.calendar(), at_s).unwrap();
    QuotaLook {
        quota: rule.quota.to_owned(),
        container: container.to_owned(),
        span,
        label: period.label(ledger.calendar(), at_s).unwrap(),
        moves: period.moves(),
        direction: rule.direction,
        classes: rule.classes.to_vec(),
        is_rate: false,
        is_shared: false,
        allowance: Some(rule.allowance),
        thresholds: PERCENTS.map(|percent| (percent, vec![format!("a{percent}")])).to_vec(),
        used: Some(used(ledger, container, span, rule.classes)),
    }
}

/// The looks at all periods since the last one that was followed.
fn looks(ledger: &Ledger, rules: &[&Rule]) -> Vec<QuotaLook> {
    let Extent { last_reading: Some(at), .. } = ledger.extent().unwrap() else { return Vec::new() };
    let at_s = at.as_second();
    let followed_s = ledger.quota_state().unwrap().followed_s.unwrap_or(at_s).min(at_s);
    let known = ledger.containers().unwrap().into_iter().filter(|known| known.retired.is_none());
    let labels: Vec<String> = known.map(|known| known.container).collect();
    let mut all = Vec::new();
    for (rule, label) in rules.iter().flat_map(|rule| labels.iter().map(move |label| (rule, label))) {
        let moves = matches!(rule.period, PeriodKind::Days(_));
        let mut from_s = if moves { at_s } else { followed_s };
        loop {
            let look = look(ledger, rule, label, from_s);
            from_s = look.span.end_s;
            all.push(look);
            if from_s > at_s {
                break;
            }
        }
    }
    all.sort_by_key(|look| look.span.end_s);
    all
}

/// What the daemon does after drains.
fn follow(ledger: &mut Ledger, rules: &[&Rule]) {
    let state = ledger.quota_state().unwrap();
    let past: Vec<(i64, Used)> = state
        .past
        .iter()
        .map(|past| (past.track, used(ledger, &past.container, past.span, &past.classes)))
        .collect();
    let looks = looks(ledger, rules);
    assert!(ledger.follow_quotas(&state, &looks, &past).unwrap());
    assert!(ledger.quota_state().unwrap().is_current);
}

/// All quotas of these tests.
pub fn follow_all(ledger: &mut Ledger) {
    follow(ledger, &RULES.iter().collect::<Vec<_>>());
}

fn crossings(ledger: &Ledger) -> Vec<QuotaCrossing> {
    ledger.quota_crossings(0, u32::MAX).unwrap()
}

fn texts(ledger: &Ledger) -> Vec<String> {
    let text = |one: QuotaCrossing| {
        format!(
            "{} {} {} {}% {:?} {}",
            one.container, one.quota, one.label, one.percent, one.change, one.used
        )
    };
    crossings(ledger).into_iter().map(text).collect()
}

fn sound(ledger: &Ledger) {
    assert_eq!(ledger.audit().unwrap().problems, [""; 0]);
}

#[test]
fn a_drain_writes_the_crossing_that_it_sees() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic("101", 1, [1, 400, 1, 500]).traffic("102", 1, [1, 1, 1, 1]).pass(60).drain(&mut file.ledger);
    assert!(texts(&file.ledger).is_empty());
    let month = &[&RULES[0]][..];
    follow(&mut file.ledger, month);
    assert!(texts(&file.ledger).is_empty(), "900 of 2000");
    node.traffic("101", 1, [1, 99, 1, 0]).traffic("101", 0, [1, 5000, 0, 0]).pass(60).drain(&mut file.ledger);
    assert!(texts(&file.ledger).is_empty(), "class 0 is not billed");
    node.traffic("101", 2, [1, 1, 0, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(texts(&file.ledger), ["101 month 2026-11 50% Reached 1000"]);
    let found = crossings(&file.ledger).remove(0);
    assert_eq!((found.actions, found.allowance), (vec!["a50".to_owned()], 2000));
    assert_eq!(found.made, node.wall);
    node.traffic("101", 2, [1, 1000, 0, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(
        texts(&file.ledger)[1..],
        ["101 month 2026-11 80% Reached 2000", "101 month 2026-11 100% Reached 2000"]
    );
    // A rollup of a day is another change than a drain's, after which the sums come from a report again.
    node.pass(DAY).traffic("101", 1, [1, 1, 1, 1]).drain(&mut file.ledger);
    file.ledger.maintain(node.wall).unwrap();
    assert!(!file.ledger.quota_state().unwrap().is_current);
    node.traffic("102", 1, [1, 998, 1, 0]).pass(60).drain(&mut file.ledger);
    assert_eq!(texts(&file.ledger).len(), 3);
    follow(&mut file.ledger, month);
    assert_eq!(texts(&file.ledger)[3..], ["102 month 2026-11 50% Reached 1000"]);
    sound(&file.ledger);
}

#[test]
fn the_end_of_a_period_and_the_end_of_a_quota_are_noted_with_the_actions_that_had_run() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic("101", 1, [1, 1, 1, 1]).pass(60).drain(&mut file.ledger);
    let both = [&RULES[0], &RULES[1]];
    follow(&mut file.ledger, &both);
    node.traffic("101", 1, [1, 1700, 1, 300]).pass(60).drain(&mut file.ledger);
    // The daemon is away from November to January, and the counters go on.
    node.traffic("101", 1, [1, 1999, 1, 1]).pass(70 * DAY).drain(&mut file.ledger);
    follow(&mut file.ledger, &both);
    let all = texts(&file.ledger);
    assert_eq!(
        all[6..],
        [
            "101 week 2026-W46 100% Ended 301",
            "101 week 2026-W46 80% Ended 301",
            "101 week 2026-W46 50% Ended 301",
            "101 month 2026-11 100% Ended 2002",
            "101 month 2026-11 80% Ended 2002",
            "101 month 2026-11 50% Ended 2002",
            "101 month 2027-01 50% Reached 2000",
            "101 month 2027-01 80% Reached 2000",
            "101 month 2027-01 100% Reached 2000",
        ],
        "{all:#?}"
    );
    assert!(crossings(&file.ledger).iter().all(|one| one.actions == [format!("a{}", one.percent)]));
    // The quota is removed from the file.
    follow(&mut file.ledger, &[&RULES[1]]);
    let undone = crossings(&file.ledger).split_off(15);
    assert!(undone.iter().all(|one| one.change == Change::Undone && one.actions.len() == 1), "{undone:#?}");
    assert_eq!(undone.iter().map(|one| one.percent).collect::<Vec<_>>(), [100, 80, 50]);
    follow(&mut file.ledger, &[&RULES[1]]);
    assert_eq!(crossings(&file.ledger).len(), 18);
    // It is a quota again, as another crossing of its thresholds.
    follow(&mut file.ledger, &both);
    let again = crossings(&file.ledger).split_off(18);
    assert!(again.iter().all(|one| one.id.ends_with("/reached/2")), "{again:#?}");
    sound(&file.ledger);
}

#[test]
fn an_older_ledger_finds_the_same_crossings_under_the_same_ids() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic("101", 1, [1, 1, 1, 1]).pass(60).drain(&mut file.ledger);
    follow(&mut file.ledger, &[&RULES[0]]);
    let copy = file.dir.path().join("copy.sqlite");
    file.ledger.backup(&copy).unwrap();
    for _ in 0..3 {
        node.traffic("101", 1, [1, 700, 1, 0]).pass(600).drain(&mut file.ledger);
    }
    let ids = |ledger: &Ledger| crossings(ledger).into_iter().map(|one| one.id).collect::<Vec<_>>();
    let mut restored = Ledger::open(&copy, LedgerConfig::default()).unwrap();
    node.pass(60).drain(&mut restored);
    assert_eq!(ids(&restored).len(), 3);
    assert_eq!(ids(&restored), ids(&file.ledger));
}

#[test]
fn figures_that_change_under_a_look_are_looked_at_again() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.traffic("101", 1, [1, 1, 1, 1]).pass(60).drain(&mut file.ledger);
    let state = file.ledger.quota_state().unwrap();
    let seen = looks(&file.ledger, &[&RULES[0]]);
    node.traffic("101", 1, [1, 5000, 1, 1]).pass(60).drain(&mut file.ledger);
    assert!(!file.ledger.follow_quotas(&state, &seen, &[]).unwrap());
    assert_eq!(file.ledger.quota_state().unwrap().open, 0);
    follow(&mut file.ledger, &[&RULES[0]]);
    assert_eq!(crossings(&file.ledger).len(), 3);
}

/// Prints what quotas cost a drain of 1,000 containers: `cargo test -p traffic-ledger --release -- --ignored
/// --nocapture what_quotas_cost`.
#[test]
#[ignore = "a measurement"]
fn what_quotas_cost() {
    let mut files = [ledger(), ledger()];
    let mut nodes = [Node::new(NOON), Node::new(NOON)];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..40 {
        for (at, file) in files.iter_mut().enumerate() {
            for container in 0..1000 {
                let name = format!("{}", 1000 + container);
                for class in 0..4 {
                    nodes[at].traffic(&name, class, [1, 1, 1, 1]);
                }
            }
            nodes[at].pass(60);
            let snapshot = nodes[at].snapshot();
            let begun = std::time::Instant::now();
            file.ledger.drain(&snapshot, EVERY_MINUTE).unwrap();
            if round > 1 {
                times[at].push(begun.elapsed());
            }
            if at == 1 && round == 0 {
                let first = look(&file.ledger, &RULES[0], "1000", NOON + 60);
                let label = |container: u64| format!("{}", 1000 + container);
                let all: Vec<QuotaLook> = (0..1000)
                    .map(|at| QuotaLook { container: label(at), allowance: Some(1 << 40), ..first.clone() })
                    .collect();
                let begun = std::time::Instant::now();
                let state = file.ledger.quota_state().unwrap();
                assert!(file.ledger.follow_quotas(&state, &all, &[]).unwrap());
                println!("1,000 tracks made in {:?}", begun.elapsed());
            }
        }
    }
    assert!(files[1].ledger.quota_state().unwrap().is_current);
    for (name, times) in ["without", "with"].iter().zip(&mut times) {
        times.sort();
        println!("{name}: median {:?}, best {:?}", times[times.len() / 2], times[0]);
    }
}

#[test]
fn the_sums_are_those_of_the_last_drain_while_drains_keep_them() {
    let mut file = ledger();
    assert_eq!(file.ledger.quota_sums().unwrap(), []);
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 100, 2, 200]).pass(60).drain(&mut file.ledger);
    let all = |ledger: &Ledger| {
        let sums = ledger.quota_sums().unwrap();
        let of = |sum: traffic_quota::Sum| {
            (sum.container, sum.direction, sum.classes, sum.used.incoming, sum.used.outgoing, sum.next)
        };
        let mut all: Vec<_> = sums.into_iter().map(of).collect();
        all.sort_by_key(|sum| std::cmp::Reverse(sum.5));
        all
    };
    let follow = |ledger: &mut Ledger| {
        let at_s = ledger.extent().unwrap().last_reading.unwrap().as_second();
        let state = ledger.quota_state().unwrap();
        let looks: Vec<_> = RULES[..2].iter().map(|rule| look(ledger, rule, "101", at_s)).collect();
        assert!(ledger.follow_quotas(&state, &looks, &[]).unwrap());
    };
    follow(&mut file.ledger);
    let month =
        |incoming, outgoing, next| ("101".to_owned(), Direction::Sum, Vec::new(), incoming, outgoing, next);
    let week =
        |incoming, outgoing, next| ("101".to_owned(), Direction::Out, vec![1, 2], incoming, outgoing, next);
    assert_eq!(all(&file.ledger), [month(100, 200, 1000), week(100, 200, 241)]);
    node.traffic("101", 2, [1, 10, 1, 40]).pass(60).drain(&mut file.ledger);
    assert_eq!(all(&file.ledger), [month(110, 240, 1000), week(110, 240, 241)]);
    node.traffic("101", 2, [0, 0, 1, 1]).pass(60).drain(&mut file.ledger);
    assert_eq!(all(&file.ledger), [month(110, 241, 1000), week(110, 241, 301)], "80 % are reached");
    // All thresholds of the week are reached, so nothing is looked for.
    node.traffic("101", 2, [0, 0, 1, 100]).pass(60).drain(&mut file.ledger);
    assert_eq!(all(&file.ledger), [month(110, 341, 1000)]);
    // Another customer has the id now, and nothing of these sums.
    file.ledger.retire("101", time(NOON + 600)).unwrap();
    assert_eq!(all(&file.ledger), []);
}
