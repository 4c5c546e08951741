use std::collections::BTreeSet;

use insta::assert_snapshot;
use proptest::prelude::*;
use traffic_common::Family;
use traffic_model::sample::{self, UUID};

use crate::vz::netstat::*;

fn request(words: &[&str]) -> Request {
    match parse(words.iter().map(OsString::from)) {
        Ok(Asked::Show(request, _)) => request,
        other => panic!("{words:?} gave {other:?}"),
    }
}

/// The output of a command line, with classes 0 to 2 configured, class 2 for IPv4 only.
fn shown(words: &[&str]) -> String {
    let request = request(words);
    let configured = match request.family {
        Some(Family::Ipv6) => BTreeSet::from([0, 1]),
        _ => BTreeSet::from([0, 1, 2]),
    };
    render(&sample::snapshot(), &configured, &request)
}

#[test]
fn golden_default() {
    assert_snapshot!(shown(&[]));
}

#[test]
fn golden_ipv4() {
    assert_snapshot!(shown(&["-4"]));
}

#[test]
fn golden_ipv6() {
    assert_snapshot!(shown(&["-6"]));
}

#[test]
fn golden_one_container() {
    assert_snapshot!(shown(&["-v", "101"]));
}

#[test]
fn golden_two_containers_of_which_one_in_braces() {
    assert_snapshot!(shown(&["-v", "101", "-v", &format!("{{{}}}", UUID.to_uppercase())]));
}

#[test]
fn golden_one_class() {
    assert_snapshot!(shown(&["-c", "1"]));
}

#[test]
fn golden_all_classes() {
    assert_snapshot!(shown(&["-a", "-v", "101"]));
}

#[test]
fn golden_rounded() {
    assert_snapshot!(shown(&["-r"]));
}

#[test]
fn golden_containers_only() {
    assert_snapshot!(shown(&["-t", "ct"]));
}

#[test]
fn golden_machines_only() {
    assert_snapshot!(shown(&["-t", "vm"]));
}

#[test]
fn golden_help() {
    assert_snapshot!("usage_vznetstat", usage(Name::Vznetstat));
    assert_snapshot!("usage_pnetstat", usage(Name::Pnetstat));
}

#[test]
fn options_in_every_form_that_getopt_accepts() {
    let id = |text: &str| ContainerId::new(text).unwrap();
    let expected = Request {
        family: Some(Family::Ipv4),
        containers: vec![id("101")],
        classes: BTreeSet::from([1, 2]),
        all_classes: true,
        rounded: true,
        kind: Kind::Machines,
    };
    let ways: [&[&str]; 4] = [
        &["-4", "-v", "101", "-c", "1", "-c", "2", "-a", "-r", "-t", "vm"],
        &["-4arv101", "-c1", "-c2", "-tvm"],
        &["-c", "01", "-c", " 2", "-ra4", "-tv", "-v", "101"],
        &["-64arv", "101", "-c1", "-c+2", "-t", "virtual"],
    ];
    for words in ways {
        assert_eq!(request(words), expected, "{words:?}");
    }
    assert_eq!(request(&["-t", "all"]), Request::default());
    assert_eq!(
        parse(["-a", "-h", "-x"].map(OsString::from)),
        Ok(Asked::Help),
        "-h ends the parsing, as in Virtuozzo's getopt loop"
    );
    let words = ["stray", "-4", "--", "-6"].map(OsString::from);
    let ipv4 = Request { family: Some(Family::Ipv4), ..Request::default() };
    assert_eq!(parse(words), Ok(Asked::Show(ipv4, vec!["stray".to_owned(), "-6".to_owned()])));
}

#[test]
fn kinds_of_misuse_are_distinguished() {
    let misuse = |words: &[&str]| parse(words.iter().map(OsString::from)).unwrap_err();
    for words in [&["-x"][..], &["-v"], &["-4c"], &["--all"], &["-t"]] {
        assert!(matches!(misuse(words), Misuse::Usage(_)), "{words:?}");
    }
    for (words, message) in [
        (&["-v", "a b"][..], "Invalid veid: a b"),
        (&["-v", ""], "Invalid veid: "),
        (&["-c", "x"], "Invalid classid: x"),
        (&["-c", "1x"], "Invalid classid: 1x"),
        (&["-c", "-1"], "Invalid classid: -1"),
        (&["-c", "255"], "Invalid classid: 255"),
        (&["-t", "box"], "An invalid type box specified: write ct, vm or all"),
    ] {
        assert_eq!(misuse(words), Misuse::Value(message.to_owned()), "{words:?}");
    }
    let in_use = BTreeSet::from([0, 1, 99]);
    assert_eq!(request(&["-c", "16"]).check_classes(&in_use), Ok(()));
    assert_eq!(request(&["-c", "99"]).check_classes(&in_use), Ok(()));
    let error = request(&["-c", "1", "-c", "17"]).check_classes(&in_use);
    assert_eq!(error, Err(Misuse::Value("Invalid classid: 17".to_owned())));
}

#[test]
fn only_the_present_owner_of_an_id_is_shown() {
    let mut snapshot = sample::snapshot();
    let mut second_owner = snapshot.counters.clone();
    snapshot.counters.iter_mut().for_each(|counter| counter.is_retired = true);
    for counter in &mut second_owner {
        counter.generation += 1;
        counter.tally = ByDirection::default();
    }
    snapshot.counters.extend(second_owner);
    snapshot.counters.sort_by(|a, b| (&a.container, a.class).cmp(&(&b.container, b.class)));
    let text = render(&snapshot, &BTreeSet::from([0, 1, 2]), &Request::default());
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields[2..], ["0", "0", "0", "0"], "{line}");
    }
}

/// `printf("%-36s %-2u %20llu%1s %10u %20llu%1s %10u\n")`, built from its parts.
fn as_c_prints_it(id: &str, class: u8, amounts: [(u64, &str, u64); 2]) -> String {
    let left = |text: String, width: usize| text.clone() + &" ".repeat(width.saturating_sub(text.len()));
    let right = |text: String, width: usize| " ".repeat(width.saturating_sub(text.len())) + &text;
    let [(in_bytes, in_suffix, in_packets), (out_bytes, out_suffix, out_packets)] = amounts;
    [
        left(id.to_owned(), 36),
        left(class.to_string(), 2),
        right(in_bytes.to_string(), 20) + in_suffix,
        right(in_packets.to_string(), 10),
        right(out_bytes.to_string(), 20) + out_suffix,
        right(out_packets.to_string(), 10),
    ]
    .join(" ")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_has_the_format_of_the_c_program(
        values in prop::array::uniform4(any::<u64>()),
        class in any::<u8>(),
        rounded in any::<bool>(),
    ) {
        let [in_bytes, in_packets, out_bytes, out_packets] = values;
        let sum = ByDirection {
            incoming: Tally { packets: in_packets, bytes: in_bytes },
            outgoing: Tally { packets: out_packets, bytes: out_bytes },
        };
        let mut text = String::new();
        row(&mut text, (&ContainerId::new("101").unwrap(), class), Some(&sum), rounded);
        let shift = |bytes: u64| match bytes {
            _ if !rounded || bytes < 1 << 10 => (bytes, " "),
            _ if bytes < 1 << 20 => (bytes >> 10, "K"),
            _ if bytes < 1 << 30 => (bytes >> 20, "M"),
            _ => (bytes >> 30, "G"),
        };
        let ((in_bytes, in_suffix), (out_bytes, out_suffix)) = (shift(in_bytes), shift(out_bytes));
        let expected =
            as_c_prints_it("101", class, [(in_bytes, in_suffix, in_packets), (out_bytes, out_suffix, out_packets)]);
        prop_assert_eq!(&text, &(expected + "\n"));
        prop_assert_eq!(text.split_whitespace().count(), 6);
        prop_assert_eq!(text.trim_end_matches('\n'), text.trim_end());
    }

    #[test]
    fn no_command_line_makes_it_panic(words in prop::collection::vec("[-46acrhvt 0-9a-z{}=]{0,8}", 0..6)) {
        let _ = parse(words.into_iter().map(OsString::from));
    }
}
