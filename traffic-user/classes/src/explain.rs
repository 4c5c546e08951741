//! Why an address has its class: the line that decides, and for every other matching line why it does not.
//!
//! Applies the rule to the matching lines themselves. A compiled table no longer contains the lines that were
//! dropped. `explain_prefix` answers for whole prefixes.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::Serialize;

use crate::{
    compile::ClassOrder,
    parse::{ClassFile, Entry, UNCLASSIFIED},
};

/// Why a matching line does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reason {
    /// The same network is repeated on a later line.
    SamePrefixAgain {
        /// The last line with that network.
        line: u32,
    },
    /// A class-0 network contains this one (order `virtuozzo`).
    CoveredByClassZero {
        /// The line of the class-0 network.
        line: u32,
    },
    /// The deciding network has a longer prefix.
    ShorterPrefix {
        /// The deciding line.
        line: u32,
    },
    /// The deciding line comes later (order `last-line`).
    EarlierLine {
        /// The deciding line.
        line: u32,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SamePrefixAgain { line } => write!(f, "the same prefix is repeated on line {line}"),
            Self::CoveredByClassZero { line } => write!(f, "covered by the class-0 network of line {line}"),
            Self::ShorterPrefix { line } => write!(f, "shorter prefix than line {line}"),
            Self::EarlierLine { line } => write!(f, "earlier than line {line}"),
        }
    }
}

/// What is known about the file and the classes besides the lines. An explanation shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExplainContext {
    /// The file that the lines are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Names of classes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<u8, String>,
}

impl ExplainContext {
    /// The class as text: `class 2 "UA-IX"`.
    pub(crate) fn class(&self, class: u8) -> String {
        match self.names.get(&class) {
            Some(name) => format!("class {class} \"{name}\""),
            None => format!("class {class}"),
        }
    }

    /// The line as text: `line 4 of /etc/vz/conf/networks_classes`.
    pub(crate) fn line(&self, line: u32) -> String {
        match &self.file {
            Some(file) => format!("line {line} of {file}"),
            None => format!("line {line}"),
        }
    }
}

/// The rule by which a line decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// It has the longest of the matching prefixes.
    LongestPrefix,
    /// It is class 0, which goes before longer prefixes (order `virtuozzo`).
    ClassZeroFirst,
    /// It is the last matching line (order `last-line`).
    LastLine,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LongestPrefix => "the longest matching prefix",
            Self::ClassZeroFirst => "class 0 goes before longer prefixes",
            Self::LastLine => "the last matching line",
        })
    }
}

/// What class 0 means for the bill, as the end of a sentence.
pub(crate) const fn billing(class: u8) -> &'static str {
    if class == UNCLASSIFIED { ": counted, not billed" } else { "" }
}

/// The comment of a line: what stands behind `#`, or else behind the network.
pub fn comment(bytes: &[u8], line: u32) -> Option<String> {
    let at = usize::try_from(line.checked_sub(1)?).ok()?;
    let text = String::from_utf8_lossy(bytes.split(|&byte| byte == b'\n').nth(at)?).into_owned();
    let comment = match text.split_once('#') {
        Some((_, comment)) => comment.trim().to_owned(),
        None => text.split_whitespace().skip(2).collect::<Vec<_>>().join(" "),
    };
    let comment: String = comment.chars().filter(|character| !character.is_control()).take(200).collect();
    (!comment.is_empty()).then_some(comment)
}

/// A line that matches an address and does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shadow {
    /// The line.
    pub entry: Entry,
    /// Why it does not decide.
    pub reason: Reason,
}

/// Why an address has its class. Its `Display` is a few lines of text, each ended by a line feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The address in question.
    pub addr: IpAddr,
    /// The order that was applied.
    pub order: ClassOrder,
    /// Its class.
    pub class: u8,
    /// The line that decides; `None` if no line matches, which is class 0.
    pub decided_by: Option<Entry>,
    /// The rule by which it decides; `None` if no line matches.
    pub rule: Option<Rule>,
    /// The comment of that line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The other matching lines, in the order of lines.
    pub shadows: Vec<Shadow>,
    /// What else is known.
    #[serde(flatten)]
    pub context: ExplainContext,
}

impl Explanation {
    /// With what is known about the file: its text, its name and its classes' names.
    #[must_use]
    pub fn with_context(mut self, bytes: &[u8], context: ExplainContext) -> Self {
        self.comment = self.decided_by.and_then(|entry| comment(bytes, entry.line));
        self.context = context;
        self
    }
}

/// Explains the class of an address, as [`compile`](crate::compile()) would decide it. One pass over the
/// file.
pub fn explain(file: &ClassFile, order: ClassOrder, addr: IpAddr) -> Explanation {
    let matching: Vec<Entry> =
        file.entries.iter().filter(|entry| entry.prefix.contains(&addr)).copied().collect();
    // All match the same address, so networks of equal length are the same network.
    let mut last_lines = [0_u32; 129];
    for entry in &matching {
        let last = &mut last_lines[usize::from(entry.prefix.prefix_len())];
        *last = entry.line.max(*last);
    }
    let last_of_prefix = |entry: &Entry| last_lines[usize::from(entry.prefix.prefix_len())];
    let standing = || matching.iter().filter(|entry| last_of_prefix(entry) == entry.line);
    let longest = || standing().max_by_key(|entry| entry.prefix.prefix_len());
    let decided_by = match order {
        ClassOrder::LongestPrefix => longest(),
        ClassOrder::Virtuozzo => standing()
            .filter(|entry| entry.class == UNCLASSIFIED)
            .min_by_key(|entry| entry.prefix.prefix_len())
            .or_else(longest),
        ClassOrder::LastLine => standing().max_by_key(|entry| entry.line),
    }
    .copied();

    let shadows = decided_by.map_or_else(Vec::new, |deciding| {
        let others = matching.iter().filter(|entry| entry.line != deciding.line);
        others
            .map(|&entry| Shadow { entry, reason: reason(&entry, last_of_prefix(&entry), &deciding, order) })
            .collect()
    });
    Explanation {
        addr,
        order,
        class: decided_by.map_or(UNCLASSIFIED, |entry| entry.class),
        decided_by,
        rule: decided_by.map(|entry| rule(order, entry.class)),
        comment: None,
        shadows,
        context: ExplainContext::default(),
    }
}

const fn rule(order: ClassOrder, class: u8) -> Rule {
    match order {
        ClassOrder::LastLine => Rule::LastLine,
        ClassOrder::Virtuozzo if class == UNCLASSIFIED => Rule::ClassZeroFirst,
        ClassOrder::Virtuozzo | ClassOrder::LongestPrefix => Rule::LongestPrefix,
    }
}

fn reason(entry: &Entry, last_of_prefix: u32, deciding: &Entry, order: ClassOrder) -> Reason {
    let line = deciding.line;
    if last_of_prefix != entry.line {
        Reason::SamePrefixAgain { line: last_of_prefix }
    } else if order == ClassOrder::LastLine {
        Reason::EarlierLine { line }
    } else if entry.prefix.prefix_len() > deciding.prefix.prefix_len() {
        Reason::CoveredByClassZero { line }
    } else {
        Reason::ShorterPrefix { line }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { addr, order, class, decided_by, rule, comment, shadows, context } = self;
        writeln!(f, "{addr} is {} (class order {order}){}", context.class(*class), billing(*class))?;
        match decided_by {
            Some(entry) => {
                write!(f, "decided by {}: {entry}", context.line(entry.line))?;
                if let Some(comment) = comment {
                    write!(f, "  # {comment}")?;
                }
                writeln!(f)?;
                if let Some(rule) = rule {
                    writeln!(f, "rule: {rule}")?;
                }
            }
            None => writeln!(f, "decided by no line: addresses that match nothing are class {UNCLASSIFIED}")?,
        }
        for Shadow { entry, reason } in shadows {
            writeln!(f, "not by line {}: {entry} ({reason})", entry.line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    const FILE: &[u8] = b"# an example\n\
        1 0.0.0.0/0\n\
        5 10.0.0.0/8\n\
        2 10.0.0.0/8\n\
        0 10.1.0.0/16\n\
        0 10.1.2.0/24\n\
        3 10.1.2.3/32\n\
        4 10.0.0.0/9\n\
        1 ::/0\n";

    fn lines(order: ClassOrder, addr: &str) -> (u8, u32, Vec<(u32, Reason)>) {
        let explanation = explain(&parse(FILE), order, addr.parse().unwrap());
        let shadows = explanation.shadows.iter().map(|shadow| (shadow.entry.line, shadow.reason)).collect();
        (explanation.class, explanation.decided_by.unwrap().line, shadows)
    }

    #[test]
    fn every_matching_line_has_a_reason() {
        let again = (3, Reason::SamePrefixAgain { line: 4 });
        let shorter = |at, line| (at, Reason::ShorterPrefix { line });
        let covered = |at| (at, Reason::CoveredByClassZero { line: 5 });
        let earlier = |at| (at, Reason::EarlierLine { line: 8 });
        assert_eq!(
            lines(ClassOrder::Virtuozzo, "10.1.2.3"),
            (0, 5, vec![shorter(2, 5), again, shorter(4, 5), covered(6), covered(7), shorter(8, 5)])
        );
        assert_eq!(
            lines(ClassOrder::LongestPrefix, "10.1.2.3"),
            (3, 7, vec![shorter(2, 7), again, shorter(4, 7), shorter(5, 7), shorter(6, 7), shorter(8, 7)])
        );
        assert_eq!(
            lines(ClassOrder::LastLine, "10.1.2.3"),
            (4, 8, vec![earlier(2), again, earlier(4), earlier(5), earlier(6), earlier(7)])
        );
        assert_eq!(lines(ClassOrder::Virtuozzo, "2001:db8::1"), (1, 9, vec![]));
    }

    #[test]
    fn text_lists_the_lines() {
        let explain = |order, addr: &str| explain(&parse(FILE), order, addr.parse().unwrap()).to_string();
        assert_eq!(
            explain(ClassOrder::Virtuozzo, "10.200.0.1"),
            "10.200.0.1 is class 2 (class order virtuozzo)\n\
             decided by line 4: 2 10.0.0.0/8\n\
             rule: the longest matching prefix\n\
             not by line 2: 1 0.0.0.0/0 (shorter prefix than line 4)\n\
             not by line 3: 5 10.0.0.0/8 (the same prefix is repeated on line 4)\n"
        );
        let nothing = crate::explain(&parse(b"1 ::/0"), ClassOrder::LastLine, "10.0.0.1".parse().unwrap());
        assert_eq!(
            nothing.to_string(),
            "10.0.0.1 is class 0 (class order last-line): counted, not billed\n\
             decided by no line: addresses that match nothing are class 0\n"
        );
    }

    #[test]
    fn file_comment_and_names_are_shown() {
        let bytes =
            b"1 0.0.0.0/0\n2 10.0.0.0/8 # exchange \x1b[31m\n3 11.0.0.0/8 the office\n0 12.0.0.0/8#\n";
        let context = || ExplainContext {
            file: Some("/etc/c".to_owned()),
            names: BTreeMap::from([(2, "UA-IX".to_owned())]),
        };
        let text = |addr: &str| {
            let explanation = explain(&parse(bytes), ClassOrder::Virtuozzo, addr.parse().unwrap());
            explanation.with_context(bytes, context()).to_string()
        };
        assert_eq!(
            text("10.0.0.1"),
            "10.0.0.1 is class 2 \"UA-IX\" (class order virtuozzo)\n\
             decided by line 2 of /etc/c: 2 10.0.0.0/8  # exchange [31m\n\
             rule: the longest matching prefix\n\
             not by line 1: 1 0.0.0.0/0 (shorter prefix than line 2)\n"
        );
        assert!(text("11.0.0.1").contains("decided by line 3 of /etc/c: 3 11.0.0.0/8  # the office\n"));
        assert!(text("12.0.0.1").starts_with(
            "12.0.0.1 is class 0 (class order virtuozzo): counted, not billed\n\
             decided by line 4 of /etc/c: 0 12.0.0.0/8\nrule: class 0 goes before longer prefixes\n"
        ));
        let explanation = explain(&parse(bytes), ClassOrder::Virtuozzo, "10.0.0.1".parse().unwrap());
        let json = serde_json::to_value(explanation.with_context(bytes, context())).unwrap();
        assert_eq!((&json["file"], &json["names"]["2"]), (&"/etc/c".into(), &"UA-IX".into()));
        assert_eq!(json["rule"], "longest-prefix");
    }

    #[test]
    fn serializes_for_machines() {
        let explanation = explain(&parse(b"1 ::/0\n0 ::/8"), ClassOrder::Virtuozzo, "::1".parse().unwrap());
        assert_eq!(
            serde_json::to_value(explanation).unwrap(),
            serde_json::json!({
                "addr": "::1",
                "order": "virtuozzo",
                "class": 0,
                "decided_by": {"line": 2, "class": 0, "prefix": "::/8"},
                "rule": "class-zero-first",
                "shadows": [{
                    "entry": {"line": 1, "class": 1, "prefix": "::/0"},
                    "reason": {"kind": "shorter-prefix", "line": 2},
                }],
            })
        );
    }
}
