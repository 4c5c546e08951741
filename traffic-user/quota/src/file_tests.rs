//! Files as people write them.

use proptest::prelude::*;

use super::*;
use crate::{
    action::{Action, Means},
    period::{Period, PeriodKind},
    quota::{Direction, FirstPeriod, Limit},
    scope::NamePattern,
};

/// A quota for all with one more line.
pub(crate) fn only(line: &str) -> Quota {
    let text = format!("[[quota]]\nname = 'traffic'\ndefault = true\n{line}\n");
    Quotas::parse(&text).unwrap().quotas.remove(0)
}

pub(crate) fn mistakes(text: &str) -> Vec<(usize, usize, String)> {
    let found = Quotas::parse(text).unwrap_err();
    found.into_iter().map(|mistake| (mistake.line, mistake.column, mistake.message)).collect()
}

#[test]
fn every_key_has_its_value() {
    let text = "\
# Kept by hand.
[[quota]]
name = 'traffic'
pattern = 'shop-*'
allowance = '1.5TB'
direction = 'larger'
classes = [3, 1]
period = 'month'
billing_day = 31
time_zone = 'Europe/Berlin'
first_period = 'share'
thresholds = ['100%', '80%', '150%']
actions = { '100%' = ['throttle', 'notify'], '80%' = ['notify'] }

[[action]]
name = 'notify'
command = ['/usr/bin/logger', '-t', 'quota']

[[action]]
name = 'throttle'
command = ['/sbin/throttle', 'on']
lift = ['/sbin/throttle', 'off']
again = '5m'
timeout = '2m'

[[quota]]
name = 'commit'
container = '{0AB1C2D3-1111-2222-3333-444455556666}'
commit = '100Mbit/s'
percentile = 99.5
period = 'week'
";
    let Quotas { quotas, actions, alerts, tenants } = Quotas::parse(text).unwrap();
    assert_eq!(tenants, []);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        actions,
        [
            Action {
                name: "notify".to_owned(),
                line: 15,
                means: Means::Command {
                    command: words(&["/usr/bin/logger", "-t", "quota"]),
                    lift: vec![],
                    again: None,
                },
                timeout: std::time::Duration::from_secs(30),
            },
            Action {
                name: "throttle".to_owned(),
                line: 19,
                means: Means::Command {
                    command: words(&["/sbin/throttle", "on"]),
                    lift: words(&["/sbin/throttle", "off"]),
                    again: Some(std::time::Duration::from_mins(5)),
                },
                timeout: std::time::Duration::from_mins(2),
            }
        ]
    );
    assert_eq!(alerts, []);
    assert_eq!(
        quotas[0],
        Quota {
            name: "traffic".to_owned(),
            line: 2,
            scope: Scope::Pattern(NamePattern("shop-*".to_owned())),
            limit: Limit::Volume(1_500_000_000_000),
            direction: Direction::Larger,
            classes: vec![1, 3],
            period: Period { kind: PeriodKind::Month(Some(31)), zone: Some("Europe/Berlin".to_owned()) },
            first_period: FirstPeriod::Share,
            thresholds: vec![80, 100, 150],
            actions: vec![
                (80, vec!["notify".to_owned()]),
                (100, vec!["throttle".to_owned(), "notify".to_owned()])
            ],
        }
    );
    assert_eq!(
        quotas[1],
        Quota {
            name: "commit".to_owned(),
            line: 26,
            scope: Scope::Container("0ab1c2d3-1111-2222-3333-444455556666".to_owned()),
            limit: Limit::Rate { bits_per_s: 100_000_000, percentile: 99.5 },
            direction: Direction::Larger,
            classes: vec![],
            period: Period { kind: PeriodKind::Week, zone: None },
            first_period: FirstPeriod::Whole,
            thresholds: vec![80, 100],
            actions: vec![],
        }
    );
    assert_eq!(only("unlimited = true").limit, Limit::Unlimited);
    assert_eq!(only("commit = '1Gbit/s'").limit, Limit::Rate { bits_per_s: 1_000_000_000, percentile: 95.0 });
    assert_eq!(only("allowance = '1GB'").direction, Direction::Sum);
    assert_eq!(only("allowance = '1GB'\nthresholds = []").thresholds, [0; 0]);
    assert_eq!(Quotas::parse("").unwrap(), Quotas::default());
    assert_eq!(Quotas::parse("# nothing yet\n").unwrap().quotas, []);
}

#[test]
fn every_mistake_is_found_at_once_with_its_line() {
    let text = "\
[[quota]]
nmae = 'traffic'
default = false
allowance = '1,5TB'
direction = 'both'
classes = [1, 255, 1]
period = 'monthly'
billing_day = 32
time_zone = 'Europe/Bonn'
thresholds = ['80', '80%', '80%', 100]
[[quota]]
name = 'a'
container = '101'
pattern = 'x*'
percentile = 95
[[quota]]
name = 'b'
default = true
commit = '100Mbps'
percentile = 0
first_period = 'share'
period = '30 days'
billing_day = 3
[quotas]
a = 1
";
    let found = mistakes(text);
    let places: Vec<_> = found.iter().map(|(line, column, _)| (*line, *column)).collect();
    assert_eq!(
        places,
        [
            (1, 1),
            (2, 1),
            (3, 11),
            (4, 13),
            (5, 13),
            (6, 15),
            (6, 20),
            (7, 10),
            (8, 15),
            (9, 13),
            (10, 15),
            (10, 28),
            (10, 35),
            (11, 1),
            (14, 11),
            (19, 10),
            (20, 14),
            (21, 16),
            (23, 15),
            (24, 2)
        ],
        "{found:#?}"
    );
    let message = |at: usize| found[at].2.as_str();
    assert_eq!(message(0), "the quota has no name; add name = \"traffic\"");
    assert_eq!(message(1), "unknown key `nmae`; write `name`");
    assert!(message(3).contains("1.5GB"), "{}", message(3));
    assert_eq!(message(13), "the quota has no limit; write one of allowance, commit, unlimited");
    assert_eq!(message(14), "scope is given twice, by container and pattern; keep one of them");
    assert_eq!(message(19), "unknown key `quotas`; write `quota`");
}

#[test]
fn values_of_another_type_are_refused() {
    for (line, problem) in [
        ("allowance = 5", "not a text"),
        ("allowance = '1GB'\nbilling_day = '3'", "not a number within 1 to 31"),
        ("allowance = '1GB'\nbilling_day = 0", "not a number within 1 to 31"),
        ("allowance = '1GB'\nbilling_day = 1.5", "not a number within 1 to 31"),
        ("allowance = '1GB'\nclasses = 3", "is no list"),
        ("allowance = '1GB'\nclasses = []", "nothing would count"),
        ("allowance = '1GB'\nthresholds = '80%'", "is no list"),
        ("commit = '1Gbit/s'\npercentile = '95'", "not above 0"),
        ("commit = '1Gbit/s'\npercentile = nan", "not above 0"),
        ("commit = '1Gbit/s'\npercentile = 100.1", "not above 0"),
        ("allowance = '1GB'\npercentile = 95", "belongs to a commit"),
        ("commit = '1Gbit/s'\nclasses = [0, 1]", "class 0 is ranked by itself"),
        ("unlimited = 1", "can only be true"),
        ("allowance = '1GB'\nperiod = 'day'\nbilling_day = 1", "only a month"),
        ("allowance = '1GB'\naction = 'warn'", "unknown key `action`; write `actions`"),
        ("allowance = '1GB'\nactions = ['warn']", "is no table"),
        ("allowance = '1GB'\nactions = { '90%' = ['a'] }", "90% is no threshold of this quota"),
        ("allowance = '1GB'\nactions = { 'all' = ['a'] }", "has no %"),
        ("allowance = '1GB'\nactions = { '80%' = 'a' }", "no names of actions"),
        ("allowance = '1GB'\nactions = { '80%' = [1] }", "not the name of an action"),
        ("allowance = '1GB'\nactions = { '80%' = ['warn'] }", "no action is named \"warn\""),
    ] {
        let text = format!("[[quota]]\nname = 'traffic'\ndefault = true\n{line}\n");
        let found = mistakes(&text);
        assert!(found.len() == 1 && found[0].2.contains(problem), "{line}: {found:?}");
    }
    for (line, problem) in [
        ("", "the action has no command, webhook or mail"),
        ("command = '/bin/true'", "not a program and its arguments"),
        ("command = []", "not a program and its arguments"),
        ("command = ['true']", "absolute path"),
        ("command = ['/bin/true', 1]", "not a program and its arguments"),
        ("command = ['/bin/true']\nlift = ['x']", "`lift` is not a program"),
        ("command = ['/bin/true']\ntimeout = '1h'", "is out of range; write 1s to 10m"),
        ("command = ['/bin/true']\nundo = ['/bin/true']", "unknown key `undo`"),
    ] {
        let found = mistakes(&format!("[[action]]\nname = 'warn'\n{line}\n"));
        assert!(found.len() == 1 && found[0].2.contains(problem), "{line}: {found:?}");
    }
    let twice = "[[action]]\nname = 'a'\ncommand = ['/a']\n".repeat(2);
    assert!(mistakes(&twice)[0].2.contains("action \"a\" is on line 1 already"));
    for text in ["quota = 5\n", "[quota]\nname = 'x'\n", "quota = [1]\n"] {
        assert!(mistakes(text)[0].2.contains("[[quota]]"), "{text}");
    }
    assert_eq!(mistakes("[[quota]\n").len(), 1);
}

#[test]
fn one_name_for_the_same_containers_is_refused() {
    let quota = |scope: &str| format!("[[quota]]\nname = 'a'\n{scope}\nallowance = '1GB'\n");
    let text = quota("container = '7'") + &quota("container = '{7}'");
    assert_eq!(
        mistakes(&text),
        [(
            5,
            1,
            "quota \"a\" for container 7 is on line 1 already; remove one of them, or give one another name"
                .to_owned()
        )]
    );
    assert_eq!(mistakes(&(quota("default = true") + &quota("default = true")))[0].0, 5);
    assert!(Quotas::parse(&(quota("default = true") + &quota("pattern = '*'"))).is_ok());
}

#[test]
fn a_file_of_something_else_has_a_bounded_list() {
    let many: String = (0..500).map(|n| format!("x{n} = 1\n")).collect();
    assert_eq!(mistakes(&many).len(), MOST_MISTAKES);
}

proptest! {
    /// Nothing is applied by halves: whatever is written, there are quotas or mistakes within the text.
    #[test]
    fn no_text_makes_the_parser_panic(
        lines in proptest::collection::vec(
            prop_oneof![
                Just("[[quota]]".to_owned()),
                "(name|container|pattern|default|allowance|commit|period|classes) = \
                 ('[a-z0-9 *%]{0,6}'|true|[0-9]{1,4}|\\[1\\])",
                "\\PC{0,20}",
            ],
            0..12,
        )
    ) {
        let text = lines.join("\n");
        if let Err(found) = Quotas::parse(&text) {
            prop_assert!(!found.is_empty());
            prop_assert!(found.iter().all(|mistake| mistake.line <= lines.len().max(1)));
        }
    }
}
