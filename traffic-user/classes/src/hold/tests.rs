//! What is held, and that no cut of a file goes unnoticed.

use proptest::prelude::*;

use super::*;
use crate::{ClassOrder, compile, parse};

fn held(before: &str, after: &str, limit: f64) -> Option<Hold> {
    held_with(before, after, limit, true)
}

/// With the bytes of the file in force, or only with its prefixes.
fn held_with(before: &str, after: &str, percent: f64, knows_bytes: bool) -> Option<Hold> {
    let rows: Vec<(IpNet, u8)> = compile(&parse(before.as_bytes()).entries, ClassOrder::Virtuozzo)
        .entries()
        .map(|entry| (entry.prefix, entry.class))
        .collect();
    let file = parse(after.as_bytes());
    let table = compile(&file.entries, ClassOrder::Virtuozzo);
    let in_force = InForce { rows: &rows, file: knows_bytes.then_some(before.as_bytes()) };
    hold(Candidate { bytes: after.as_bytes(), file: &file, table: &table }, in_force, HoldLimit { percent })
}

/// Ten networks of class 2.
fn ten() -> String {
    (0..10).map(|n| format!("2 10.{n}.0.0/16\n")).collect()
}

#[test]
fn a_cut_last_line_is_held_with_and_without_a_table() {
    let cut = "1 0.0.0.0/0\n2 10.100.0.0/1";
    for before in ["", "1 0.0.0.0/0\n"] {
        let hold = held(before, cut, 100.0).unwrap();
        assert_eq!(
            hold.to_string(),
            "it looks cut short: line 2, the last one, has no line feed and reads 10.100.0.0/1, which has host \
             bits set"
        );
    }
    // With a line feed somebody finished the line: that is only a warning.
    assert_eq!(held("", &format!("{cut}\n"), 20.0), None);
    // And without host bits, a file that somebody wrote without the last line feed.
    assert_eq!(held("1 0.0.0.0/0\n", "1 0.0.0.0/0\n2 10.0.0.0/8", 20.0), None);
}

#[test]
fn a_large_part_that_vanishes_is_held() {
    let ten = ten();
    let without = |lines: usize| ten.lines().skip(lines).map(|line| format!("{line}\n")).collect::<String>();
    assert_eq!(held(&ten, &without(2), 20.0), None);
    let hold = held(&ten, &without(3), 20.0).unwrap();
    assert_eq!(
        hold.to_string(),
        "3 of the 10 prefixes in force are missing, more than hold_if_removed = \"20%\" allows"
    );
    assert_eq!(held(&ten, &without(3), 30.0), None);
    assert_eq!(held(&ten, "3 11.0.0.0/8\n", 100.0), None);
    assert!(held(&ten, &without(1), 0.0).is_some());
    // Another class for the same prefixes, or the same addresses in other prefixes.
    assert_eq!(held(&ten, &ten.replace("2 10", "3 10"), 20.0), None);
    assert_eq!(held(&ten, "2 10.0.0.0/12\n", 20.0), None);
    assert_eq!(held("2 10.0.0.0/8\n", "2 10.0.0.0/9\n2 10.128.0.0/9\n", 0.0), None);
    assert!(held("2 10.0.0.0/8\n", "2 10.0.0.0/9\n3 10.128.0.0/9\n", 20.0).is_some());
    // Without a table in force nothing vanishes.
    assert_eq!(held("", &ten, 0.0), None);
}

#[test]
fn the_beginning_of_the_file_in_force_is_held() {
    let ten = ten();
    let nine = &ten[..ten.rfind("2 10").unwrap()];
    let hold = held(&ten, nine, 20.0).unwrap();
    assert_eq!(
        hold.to_string(),
        "it looks cut short: it is the first 126 of the 140 bytes of the file in force"
    );
    // It is not known to be a beginning, and one line of ten may vanish.
    assert_eq!(held_with(&ten, nine, 20.0, false), None);
    // Only comments are missing.
    assert_eq!(held(&format!("{ten}# the end\n"), &ten, 20.0), None);
}

#[test]
fn a_prefix_that_another_order_overrides_has_not_vanished() {
    let text = "2 10.0.0.0/8\n1 0.0.0.0/0\n";
    let rows: Vec<(IpNet, u8)> = vec![("0.0.0.0/0".parse().unwrap(), 1), ("10.0.0.0/8".parse().unwrap(), 2)];
    let file = parse(text.as_bytes());
    let table = compile(&file.entries, ClassOrder::LastLine);
    assert_eq!(table.len(), 1);
    let candidate = Candidate { bytes: text.as_bytes(), file: &file, table: &table };
    assert_eq!(hold(candidate, InForce { rows: &rows, file: None }, HoldLimit::default()), None);
}

/// A valid file: its lines in the ways in which people write them.
fn valid_file() -> impl Strategy<Value = String> {
    let line =
        (0..4_u8, any::<u32>(), 8..=32_u8, any::<u128>(), 0..10_u8).prop_map(|(class, v4, len, v6, kind)| {
            match kind {
                0 => format!("# comment {v4}\n"),
                1 => "\n".to_owned(),
                2 => {
                    format!("{class} {} # 10.0.0.0/8\n", ipnet::Ipv4Net::new(v4.into(), len).unwrap().trunc())
                }
                3 => format!("{class} {}\n", ipnet::Ipv6Net::new(v6.into(), len * 2).unwrap().trunc()),
                4 => format!("{class}\t{}  the office\n", ipnet::Ipv4Net::new(v4.into(), len).unwrap()),
                // Round networks: a digit less of the length leaves no host bits.
                5 => format!("{class} {}.0.0.0/{len}\n", v4 % 2 * 128),
                _ => format!("{class} {}\n", ipnet::Ipv4Net::new(v4.into(), len).unwrap().trunc()),
            }
        });
    proptest::collection::vec(line, 1..60).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    /// With the whole file in force, every cut is refused, held, or decides as the whole does.
    #[test]
    fn no_cut_goes_unnoticed(
        whole in valid_file(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 20),
    ) {
        let file = parse(whole.as_bytes());
        // Mapped networks are refused.
        prop_assert!(file.is_acceptable(), "{:?}", file.diagnostics);
        let table = |file: &ClassFile| compile(&file.entries, ClassOrder::Virtuozzo);
        for at in cuts {
            let cut = &whole[..at.index(whole.len())];
            let after = parse(cut.as_bytes());
            let is_refused = !after.is_acceptable() || after.entries.is_empty();
            let is_held = || held(&whole, cut, 20.0).is_some();
            let is_equal = || table(&after).hash() == table(&file).hash();
            prop_assert!(is_refused || is_held() || is_equal(), "{cut:?}");
        }
    }

    /// Where the file in force is not known, a cut inside the last network is still found, if the file was
    /// converted: its parts announce their size.
    #[test]
    fn no_cut_of_a_converted_list_is_accepted(networks in proptest::collection::vec(any::<u32>(), 1..40), at in any::<prop::sample::Index>()) {
        let list: String = networks.iter().map(|&bits| format!("{}/24\n", std::net::Ipv4Addr::from(bits & !0xff))).collect();
        let input = crate::convert::Input { name: "list", bytes: list.as_bytes() };
        let whole = crate::convert::convert(&crate::convert::Source::Plain, Some(2), &[input]).unwrap().to_string();
        let cut = &whole[..at.index(whole.len())];
        let after = parse(cut.as_bytes());
        let is_whole = after.entries == parse(whole.as_bytes()).entries;
        prop_assert!(!after.is_acceptable() || after.entries.is_empty() || is_whole, "{cut:?}");
    }
}
