//! The report, and its parts against the wording of the rule.

use proptest::prelude::*;

use super::*;
use crate::parse;

#[test]
fn report_names_every_finding() {
    let file =
        parse(b"1 0.0.0.0/0\n2 10.1.0.0/16\n0 10.0.0.0/8\n0 10.2.0.0/16\n16 10.2.3.4/24\n300 ::/0\n3 ::/0");
    let report = CheckReport::new(&file, CheckContext::default());
    assert!(!report.is_acceptable());
    assert_eq!(
        report.to_string(),
        "line 6: refused: class 300 is out of range; write a number from 0 to 254\n\
         line 5: warning: 10.2.3.4/24 has host bits set; it is taken as 10.2.3.0/24\n\
         line 2: 2 10.1.0.0/16: class 0 under virtuozzo, because line 3 (0 10.0.0.0/8) covers it; class 2 under \
         longest-prefix\n\
         line 5: 16 10.2.3.0/24: class 0 under virtuozzo, because line 3 (0 10.0.0.0/8) covers it; class 16 \
         under longest-prefix\n\
         line 4: 0 10.2.0.0/16: no effect: the class-0 network of line 3 covers it\n\
         class 0 (counted, not billed): 1 IPv4 and 0 IPv6 prefixes, 16,777,216 IPv4 addresses, 0 IPv6 networks \
         of /64\n\
         class 1: 1 IPv4 and 0 IPv6 prefixes, 4,278,190,080 IPv4 addresses, 0 IPv6 networks of /64\n\
         class 3: 0 IPv4 and 1 IPv6 prefixes, 0 IPv4 addresses, 18446744073709551616 IPv6 networks of /64\n\
         5 IPv4 and 1 IPv6 prefixes, classes 0 1 2 3 16; 1 refused, 1 warning, 2 differences between virtuozzo \
         and longest-prefix, 3 lines without effect under virtuozzo\n\
         1 MiB of kernel memory (indexes 1, prefixes 1); twice that while it replaces another table\n"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["refused"][0]["severity"], "refused");
    assert_eq!(json["differences"][0]["covered_by"]["line"], 3);
    assert_eq!(json["prefixes_v4"], 5);
}

#[test]
fn text_stops_at_20_problems() {
    let text = "300 ::/0\n".repeat(15) + &"1 10.0.0.1/8\n".repeat(10);
    let report = CheckReport::new(&parse(text.as_bytes()), CheckContext::default());
    let shown = report.to_string();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), SHOWN_PROBLEMS + 5, "{shown}");
    // 15 refused, 10 with host bits, 9 repeated.
    assert_eq!(lines[SHOWN_PROBLEMS], "... and 14 more; --format json lists all");
    assert!(lines[SHOWN_PROBLEMS + 3].contains("15 refused, 19 warnings"), "{shown}");
    assert_eq!(serde_json::to_value(&report).unwrap()["warnings"].as_array().unwrap().len(), 19);
}

#[test]
fn a_repeated_class_0_line_covers_nothing() {
    let file = parse(b"0 10.0.0.0/8\n2 10.1.0.0/16\n1 10.0.0.0/8\n");
    assert_eq!(differences(&file), []);
}

#[test]
fn a_file_without_networks_causes_a_warning() {
    for text in ["", "# nothing\n\n"] {
        let report = CheckReport::new(&parse(text.as_bytes()), CheckContext::default());
        assert!(report.is_acceptable());
        assert_eq!(report.warnings.len(), 1, "{text:?}");
        assert!(report.to_string().starts_with("warning: the file has no networks"));
    }
    assert!(CheckReport::new(&ClassFile::shipped(), CheckContext::default()).warnings.is_empty());
}

/// The report of a file under an order, with what is in force.
fn checked(text: &str, order: ClassOrder, in_force: Option<&[(IpNet, u8)]>) -> CheckReport {
    CheckReport::new(&parse(text.as_bytes()), CheckContext { order, in_force, ..CheckContext::default() })
}

fn warnings(text: &str, order: ClassOrder) -> Vec<String> {
    checked(text, order, None).warnings.into_iter().map(|warning| warning.message).collect()
}

#[test]
fn what_is_not_billed_is_said_in_terms_of_money() {
    use ClassOrder::{LastLine, LongestPrefix, Virtuozzo};
    let v6 =
        "IPv6 traffic is not billed: no line names an address of it; write `1 ::/0` to bill it as class 1";
    for (text, order, expected) in [
        ("1 0.0.0.0/0\n1 ::/0\n", Virtuozzo, vec![]),
        ("1 0.0.0.0/0\n", Virtuozzo, vec![v6]),
        ("1 0.0.0.0/0\n1 2000::/3\n", Virtuozzo, vec![]),
        (
            "1 0.0.0.0/0\n0 ::/0\n",
            Virtuozzo,
            vec![
                "IPv6 traffic is not billed: all of it is class 0, by line 2 and others like it; write `1 ::/0` to \
                  bill it as class 1",
            ],
        ),
        (
            "2 64.0.0.0/2\n1 ::/0\n",
            LongestPrefix,
            vec![
                "IPv4 traffic that matches no line is not billed: it is class 0, and 71.30 % of the addresses match \
                  none; write `1 0.0.0.0/0` to bill it as class 1",
            ],
        ),
        (
            "2 10.0.0.0/8\n3 11.0.0.0/8\n1 0.0.0.0/0\n1 ::/0\n",
            LastLine,
            vec![
                "line 3 comes last and decides: 2 lines above it have no effect under the order last-line; write \
                  larger networks first",
            ],
        ),
        (
            "1 0.0.0.0/0\n1 ::/0\n0 10.0.0.0/8\n2 10.1.0.0/16\n",
            Virtuozzo,
            vec![
                "line 3 is class 0 and goes before longer prefixes: 1 line is not billed as written; set \
                  class_order = \"longest-prefix\" if that is not meant",
            ],
        ),
        (
            "1 ::/0\n1 0.0.0.0/0",
            Virtuozzo,
            vec!["line 2, the last one, has no line feed, as if the file was cut short; end it with one"],
        ),
    ] {
        assert_eq!(warnings(text, order), expected, "{text:?}");
    }
    // Everything is class 0: both families.
    assert_eq!(warnings("0 0.0.0.0/0\n0 ::/0\n", Virtuozzo).len(), 2);
    assert!(checked("1 0.0.0.0/0\n", Virtuozzo, None).has_warnings());
    assert!(!checked("1 0.0.0.0/0\n1 ::/0\n1 10.0.0.0/8\n", Virtuozzo, None).has_warnings());
}

#[test]
fn the_limit_of_classes_is_checked() {
    let text: String = (0..20).map(|class| format!("{class} 10.{class}.0.0/16\n")).collect();
    let context = CheckContext { most_classes: Some(16), ..CheckContext::default() };
    let report = CheckReport::new(&parse(text.as_bytes()), context);
    assert!(!report.is_acceptable());
    assert_eq!(
        report.refused[0].to_string(),
        "refused: 20 classes are in use, class 0 included, and [limits] classes = 16; raise the limit, or use \
         fewer classes"
    );
    let context = CheckContext { most_classes: Some(20), ..CheckContext::default() };
    assert!(CheckReport::new(&parse(text.as_bytes()), context).is_acceptable());
}

#[test]
fn the_difference_to_the_table_in_force_counts_prefixes_and_addresses() {
    let in_force: Vec<(IpNet, u8)> =
        [("0.0.0.0/0", 1), ("10.0.0.0/8", 2), ("11.0.0.0/8", 2), ("2001:db8::/32", 3)]
            .map(|(prefix, class)| (prefix.parse().unwrap(), class))
            .to_vec();
    let report = checked(
        "1 0.0.0.0/0\n2 10.0.0.0/8\n4 10.1.0.0/16\n5 2001:db8::/32\n",
        ClassOrder::Virtuozzo,
        Some(&in_force),
    );
    let change = report.change.clone().unwrap();
    assert_eq!((change.added, change.removed, change.changed), (1, 1, 1));
    assert!(
        report.to_string().contains(
            "compared with the table in force: 1 prefixes added, 1 removed, 1 with another class\n\
         from class 2 to 1: 16,777,216 IPv4 addresses, 0 IPv6 networks of /64\n\
         from class 2 to 4: 65,536 IPv4 addresses, 0 IPv6 networks of /64\n\
         from class 3 to 5: 0 IPv4 addresses, 4,294,967,296 IPv6 networks of /64\n"
        ),
        "{report}"
    );
    let same = checked("2 10.0.0.0/8\n", ClassOrder::Virtuozzo, Some(&[("10.0.0.0/8".parse().unwrap(), 2)]));
    assert!(same.to_string().contains("the same prefixes as in force\n"));
    let split = checked(
        "2 10.0.0.0/9\n2 10.128.0.0/9\n",
        ClassOrder::Virtuozzo,
        Some(&[("10.0.0.0/8".parse().unwrap(), 2)]),
    );
    assert!(split.change.unwrap().is_none());
}

#[test]
fn names_are_shown_and_those_of_the_configuration_go_first() {
    let names = BTreeMap::from([(2, "Exchange".to_owned())]);
    let context = CheckContext { names: Some(&names), ..CheckContext::default() };
    let file = parse(b"# name 2 = \"UA-IX\"\n# name 3 = \"EU\"\n2 10.0.0.0/8\n3 11.0.0.0/8\n");
    let report = CheckReport::new(&file, context).to_string();
    assert!(
        report.contains("class 2 \"Exchange\": 1 IPv4") && report.contains("class 3 \"EU\": 1 IPv4"),
        "{report}"
    );
}

/// Few networks near each other, so that they cover each other often.
fn lines() -> impl Strategy<Value = Vec<(u8, u32, u8, bool)>> {
    proptest::collection::vec((0..4_u8, 0..8_u32, 0..4_u8, any::<bool>()), 1..14)
}

fn text(lines: &[(u8, u32, u8, bool)]) -> String {
    lines
        .iter()
        .map(|&(class, bits, length, is_v4)| {
            if is_v4 {
                let net = ipnet::Ipv4Net::new((bits << 29).into(), length).unwrap().trunc();
                format!("{class} {net}\n")
            } else {
                let net = ipnet::Ipv6Net::new((u128::from(bits) << 125).into(), length).unwrap().trunc();
                format!("{class} {net}\n")
            }
        })
        .collect()
}

/// The classes of the eighths of both families: everything that these lines can distinguish.
fn classes(text: &str, order: ClassOrder) -> Vec<u8> {
    let table = compile(&parse(text.as_bytes()).entries, order);
    let v4 = (0..8_u32).map(|bits| table.class_of(std::net::Ipv4Addr::from(bits << 29).into()));
    let v6 = (0..8_u128).map(|bits| table.class_of(std::net::Ipv6Addr::from(bits << 125).into()));
    v4.chain(v6).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    /// A line is reported exactly if the file without it decides alike. Class-0 lines that stand for what
    /// matches nothing are not reported.
    #[test]
    fn a_line_without_effect_can_be_removed(lines in lines()) {
        let text = text(&lines);
        let numbered: Vec<&str> = text.lines().collect();
        for order in ClassOrder::ALL {
            let before = classes(&text, order);
            let found = checked(&text, order, None).no_effect;
            for (at, line) in numbered.iter().enumerate() {
                let without: String =
                    numbered.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, line)| format!("{line}\n")).collect();
                let is_reported = found.iter().any(|one| one.entry.line as usize == at + 1);
                let decides_alike = classes(&without, order) == before;
                prop_assert!(!is_reported || decides_alike, "{order}: line {}: {line} in\n{text}", at + 1);
                let network = line.split(' ').nth(1);
                let is_repeated = numbered.iter().filter(|other| other.split(' ').nth(1) == network).count() > 1;
                if order == ClassOrder::LongestPrefix && !line.starts_with('0') && !is_repeated {
                    prop_assert_eq!(is_reported, decides_alike, "line {}: {} in\n{}", at + 1, line, text);
                }
            }
        }
    }

    #[test]
    fn the_addresses_of_classes_add_up(lines in lines()) {
        let text = text(&lines);
        for order in ClassOrder::ALL {
            let classes = classes(&text, order);
            let report = checked(&text, order, None);
            for class in 0..4_u8 {
                let expected = |range: std::ops::Range<usize>| classes[range].iter().filter(|&&one| one == class).count();
                let summary = report.summaries.iter().find(|one| one.class == class);
                let (v4, v6) = summary.map_or((0, 0.0), |one| (one.addresses_v4, one.networks64_v6));
                prop_assert_eq!(v4, (expected(0..8) as u64) << 29, "class {} in\n{}", class, text);
                prop_assert_eq!(v6, expected(8..16) as f64 * 2_f64.powi(61), "class {} in\n{}", class, text);
            }
        }
    }

    #[test]
    fn addresses_that_change_their_class_are_counted(before in lines(), after in lines()) {
        let (before, after) = (text(&before), text(&after));
        let order = ClassOrder::Virtuozzo;
        let in_force: Vec<(IpNet, u8)> = compile(&parse(before.as_bytes()).entries, order)
            .entries().map(|entry| (entry.prefix, entry.class)).collect();
        let change = checked(&after, order, Some(&in_force)).change.unwrap();
        let (old, new) = (classes(&before, order), classes(&after, order));
        let moved = |range: std::ops::Range<usize>| range.filter(|&at| old[at] != new[at]).count();
        let v4: u64 = change.moved.iter().map(|one| one.addresses_v4).sum();
        let v6: f64 = change.moved.iter().map(|one| one.networks64_v6).sum();
        prop_assert_eq!(v4, (moved(0..8) as u64) << 29);
        prop_assert_eq!(v6, moved(8..16) as f64 * 2_f64.powi(61));
    }
}
