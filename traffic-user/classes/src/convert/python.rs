//! The arithmetic against Python's `ipaddress`: ranges, counts and aggregation.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use super::*;

/// Reads lists, one per line, of ranges `FIRST-LAST` and of networks; prints the fewest networks that cover
/// them.
const PROGRAM: &str = "\
import ipaddress, sys
for line in sys.stdin:
    found = {4: [], 6: []}
    for text in line.split():
        if '/' in text:
            network = ipaddress.ip_network(text, strict=False)
            found[network.version].append(network)
            continue
        first, last = map(ipaddress.ip_address, text.split('-'))
        found[first.version] += ipaddress.summarize_address_range(first, last)
    print(*(n for v in (4, 6) for n in ipaddress.collapse_addresses(found[v])))
";

pub(super) fn python(lines: &[String]) -> Vec<String> {
    let mut child = Command::new("python3")
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs python3, whose ipaddress is the independent witness");
    let text = lines.join("\n") + "\n";
    let mut stdin = child.stdin.take().unwrap();
    // The answer may fill its pipe before the questions are all written.
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Numbers that meet borders often: few bits set, near the ends, near each other.
pub(super) fn number(random: &mut u64, bits: u32) -> u128 {
    let mut next = || {
        // xorshift64*: the same cases in each run.
        *random ^= *random >> 12;
        *random ^= *random << 25;
        *random ^= *random >> 27;
        random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let all = u128::MAX >> (128 - bits);
    let wide = u128::from(next()) << 64 | u128::from(next());
    let small = u128::from(next() % 5);
    match next() % 5 {
        0 => wide & all,
        1 => (wide & all) >> (next() % u64::from(bits)) << (next() % 8) & all,
        2 => small,
        3 => all - small,
        _ => (all >> (next() % u64::from(bits)) << (next() % 30)).wrapping_add(small) & all,
    }
}

pub(super) fn address(number: u128, is_v4: bool) -> std::net::IpAddr {
    if is_v4 {
        std::net::IpAddr::V4(u32::try_from(number).unwrap().into())
    } else {
        std::net::IpAddr::V6(number.into())
    }
}

#[test]
fn ranges_become_what_python_makes_of_them() {
    let mut random = 0x5eed;
    let mut questions = Vec::new();
    for case in 0..600 {
        let mut ranges = Vec::new();
        for _ in 0..=case % 12 {
            let is_v4 = !number(&mut random, 32).is_multiple_of(3);
            let bits = if is_v4 { 32 } else { 128 };
            let (a, b) = (number(&mut random, bits), number(&mut random, bits));
            // Mapped addresses are turned into IPv4 here, and are not in Python.
            let is_mapped = |number: u128| number >> 32 == 0xffff && !is_v4;
            if is_mapped(a) || is_mapped(b) {
                continue;
            }
            ranges.push(format!("{}-{}", address(a.min(b), is_v4), address(a.max(b), is_v4)));
        }
        if !ranges.is_empty() {
            questions.push(ranges.join(" "));
        }
    }
    let answers = python(&questions);
    assert_eq!(answers.len(), questions.len());
    for (question, answer) in questions.iter().zip(answers) {
        let text = question.replace(' ', "\n");
        let converted = convert(&Source::Plain, Some(2), &[Input { name: "x", bytes: text.as_bytes() }]);
        let networks: Vec<String> = converted.unwrap().classes[&2].iter().map(ToString::to_string).collect();
        assert_eq!(networks.join(" "), answer, "{question}");
    }
}

#[test]
fn counts_become_what_python_makes_of_them() {
    let mut random = 0xc0117;
    let (mut questions, mut texts) = (Vec::new(), Vec::new());
    for _ in 0..600 {
        let first = number(&mut random, 32);
        let count = number(&mut random, 32) % ((1 << 32) - first) + 1;
        questions.push(format!("{}-{}", address(first, true), address(first + count - 1, true)));
        texts.push(format!("ripencc|UA|ipv4|{}|{count}|20100101|allocated\n", address(first, true)));
    }
    for (text, answer) in texts.iter().zip(python(&questions)) {
        let source = Source::Delegated("UA".to_owned());
        let converted = convert(&source, Some(2), &[Input { name: "x", bytes: text.as_bytes() }]);
        let networks: Vec<String> = converted.unwrap().classes[&2].iter().map(ToString::to_string).collect();
        assert_eq!(networks.join(" "), answer, "{text}");
    }
}
