//! Compares output with what a page shows.
//!
//! What differs from run to run may differ: times and dates, hashes, ids of programs and processes, versions,
//! sizes of memory, and the width of columns beside these. `...` stands for any text within a line and, alone, for
//! any number of lines. In a block whose figures vary, any number of three digits and more stands for any other.
//! Everything else must be equal.

use std::sync::LazyLock;

use anyhow::{Context, Result};
use regex::Regex;

/// A hash, unless it has digits only and may be a figure.
const HASH: &str = r"\b[0-9a-f]{12,64}\b";

/// A figure that may vary where the page says so.
const FIGURE: &str = r"\b\d{3,}\b";

/// What varies in a shown line, and the pattern that the output must match in its place.
const VARIABLE: [(&str, &str); 9] = [
    (
        r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)",
        r"\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)",
    ),
    (r"\b\d{4}-\d\d-\d\d\b", r"\d{4}-\d\d-\d\d"),
    (HASH, r"[0-9a-f]{12,}"),
    (r"\b(id|process|pid) \d+", r"(id|process|pid) \d+"),
    (r"\b\d+(\.\d+)? [KMG]iB\b", r"\d+(\.\d+)? [KMG]iB"),
    (r"\b\d+(\.\d+)? (ms|s)\b", r"\d+(\.\d+)? (ms|s)"),
    (r"\.\.\.", ".*"),
    (r"\btrafctl \d+\.\d+\.\d+|\bversion \d+\.\d+\.\d+", r"(trafctl|version) \d+\.\d+\.\d+"),
    (FIGURE, r"\d+"),
];

static SHOWN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let all: Vec<String> = VARIABLE.iter().map(|(shown, _)| format!("({shown})")).collect();
    Regex::new(&all.join("|")).ok()
});

/// The pattern of a shown line; `None` if nothing in it may vary.
fn pattern(line: &str, figures_vary: bool) -> Result<Option<Regex>> {
    let shown = SHOWN.as_ref().context("the patterns are not valid")?;
    let mut text = String::from("^");
    let mut from = 0;
    for found in shown.find_iter(line) {
        let kind = VARIABLE.iter().find(|(shown, _)| {
            Regex::new(&format!("^(?:{shown})$")).is_ok_and(|whole| whole.is_match(found.as_str()))
        });
        let (_, output) = kind.with_context(|| format!("no pattern for {}", found.as_str()))?;
        let is_number = found.as_str().bytes().all(|byte| byte.is_ascii_digit());
        if is_number && !figures_vary {
            continue;
        }
        text += &spaced(&line[from..found.start()]);
        text += output;
        from = found.end();
    }
    if from == 0 && !figures_vary {
        return Ok(None);
    }
    text += &spaced(&line[from..]);
    text += "$";
    Regex::new(&text).map(Some).with_context(|| format!("cannot compare with the line {line}"))
}

/// A pattern for plain text, whose spaces may be more or fewer.
fn spaced(text: &str) -> String {
    let words: Vec<String> = text.split(' ').filter(|word| !word.is_empty()).map(regex::escape).collect();
    let (before, after) = (text.starts_with(' '), text.ends_with(' '));
    let space = |there: bool| if there && !words.is_empty() { " +" } else { "" };
    match words.is_empty() {
        true if text.is_empty() => String::new(),
        true => " +".to_owned(),
        false => format!("{}{}{}", space(before), words.join(" +"), space(after)),
    }
}

fn line_matches(shown: &str, line: &str, figures_vary: bool) -> Result<bool> {
    Ok(match pattern(shown, figures_vary)? {
        Some(pattern) => pattern.is_match(line),
        None => shown == line,
    })
}

/// Compares the lines. Returns the index of the first shown line that the output does not have, or the number of
/// shown lines if the output has more.
///
/// # Errors
///
/// When a shown line cannot be made into a pattern.
pub fn first_difference(shown: &[String], output: &[&str], figures_vary: bool) -> Result<Option<usize>> {
    let Some((first, rest)) = shown.split_first() else {
        return Ok((!output.is_empty()).then_some(0));
    };
    if first == "..." {
        // The shortest part of the output that lets the rest match, or the failure that came furthest.
        let mut furthest = 0;
        for skipped in 0..=output.len() {
            match first_difference(rest, &output[skipped..], figures_vary)? {
                None => return Ok(None),
                Some(at) => furthest = furthest.max(at),
            }
        }
        return Ok(Some(furthest + 1));
    }
    match output.split_first() {
        Some((line, others)) if line_matches(first, line, figures_vary)? => {
            Ok(first_difference(rest, others, figures_vary)?.map(|at| at + 1))
        }
        _ => Ok(Some(0)),
    }
}

#[test]
fn only_what_may_vary_varies() -> Result<()> {
    for (shown, output) in [
        ("a  b", "a  b"),
        ("node h  2026-11-28T23:06:22Z  layer 3", "node h  2027-01-02T03:04:05Z  layer 3"),
        (
            "table bf534539f6de of 2026-11-28T23:06:18Z, 4",
            "table 012345678901 of 2027-01-02T03:04:05+01:00, 4",
        ),
        ("program x (id 8357, version 0.2.0)", "program x (id 4, version 1.10.0)"),
        (
            "node h, trafctl 0.2.0, counters d7a40799b7733a31",
            "node h, trafctl 0.3.0, counters 0000000000000001",
        ),
        ("memory 21.70 MiB", "memory 9 MiB"),
        ("2026-11-28  101", "2026-11-29    101"),
        ("of ... packets", "of 12 or more packets"),
    ] {
        assert!(line_matches(shown, output, false)?, "{shown}: {output}");
    }
    for (shown, output) in [
        ("a  b", "a b"),
        ("20560", "20561"),
        ("203.0.113.7 is class 2", "203.0.113.8 is class 2"),
        ("2026-11-28  101", "2026-11-28  102"),
        ("table bf534539f6de, 4 prefixes", "table bf534539f6de, 5 prefixes"),
        ("table bf534539f6de", "table none"),
        ("program x (id 8357)", "program y (id 8357)"),
        ("4278189824 bytes", "4278189825 bytes"),
        ("123456789012 bytes", "123456789013 bytes"),
    ] {
        assert!(!line_matches(shown, output, false)?, "{shown}: {output}");
    }
    for (output, is_right) in
        [("101  TCP      7 0", true), ("101  TCP  12345 1", false), ("101  UDP  4711 0", false)]
    {
        assert_eq!(line_matches("101  TCP  4711 0", output, true)?, is_right, "{output}");
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let differs = |shown: &str, output: &str| {
        first_difference(&lines(shown), &output.lines().collect::<Vec<_>>(), false)
    };
    assert_eq!(differs("a\nb", "a\nb")?, None);
    assert_eq!(differs("a\nb", "a\nc")?, Some(1));
    assert_eq!(differs("a", "a\nb")?, Some(1));
    assert_eq!(differs("a\nb", "a")?, Some(1));
    assert_eq!(differs("", "a")?, Some(0));
    assert_eq!(differs("a\n...\nd", "a\nb\nc\nd")?, None);
    assert_eq!(differs("a\n...", "a")?, None);
    assert_eq!(differs("...\nd\ne", "c\nd\nf")?, Some(2));
    Ok(())
}
