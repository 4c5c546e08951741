//! The problems of a class file, summed up where very many are alike: 300,000 lines of something else must
//! fill neither the memory nor the terminal.

use std::collections::BTreeMap;

use super::{
    Diagnostic, Severity,
    foreign::{self, Format},
};

/// Most refused lines of one kind that are listed each.
const LISTED_EACH: usize = 1000;

/// Why a line is refused, in a few words that many lines can share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Bytes that a text file does not have, or characters that look like others.
    Characters,
    /// A comment that does not begin with `#`.
    Comment,
    /// The class is missing or wrong.
    Class,
    /// A network without a class: a line of a plain list.
    NoClass,
    /// Commas, semicolons, brackets or quotation marks.
    Punctuation,
    /// The network is missing, wrong, or written in another way.
    Network,
    /// More than one network.
    SecondNetwork,
    /// A line of another format.
    Foreign(Format),
    /// A part of the file is missing.
    CutShort,
}

/// Why a line is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: Kind,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// How often a kind occurs.
#[derive(Debug, Default)]
struct Count {
    lines: usize,
    first_unlisted: u32,
}

/// Collects the problems.
#[derive(Debug, Default)]
pub(super) struct Problems {
    listed: Vec<Diagnostic>,
    refused: usize,
    counts: BTreeMap<Kind, Count>,
    /// The first format that a refused line was recognised as.
    format: Option<Format>,
}

impl Problems {
    pub(super) fn warn(&mut self, line: u32, message: String) {
        self.listed.push(Diagnostic { line, severity: Severity::Warning, message });
    }

    pub(super) fn refuse(&mut self, line: u32, Refusal { kind, message }: Refusal) {
        if let Kind::Foreign(format) = kind {
            self.format.get_or_insert(format);
        }
        self.refused += 1;
        let count = self.counts.entry(kind).or_default();
        count.lines += 1;
        if count.lines <= LISTED_EACH {
            self.listed.push(Diagnostic { line, severity: Severity::Refused, message });
        } else if count.lines == LISTED_EACH + 1 {
            count.first_unlisted = line;
        }
    }

    /// The number of refused lines.
    pub(super) fn refused(&self) -> usize {
        self.refused
    }

    /// The lines behind this one are not read.
    pub(super) fn stop(&mut self, line: u32) {
        let message = format!(
            "{} lines are refused; the lines after this one are not checked",
            foreign::grouped(self.refused)
        );
        self.listed.push(Diagnostic { line, severity: Severity::Refused, message });
    }

    /// The problems of a file with this many usable lines. A file of another kind has one problem.
    pub(super) fn into_diagnostics(mut self, bytes: &[u8], usable: usize) -> Vec<Diagnostic> {
        // A wrong line in a file that is otherwise good concerns only itself.
        if self.refused > usable
            && let Some(message) = foreign::not_text(bytes).or_else(|| self.of_another_format())
        {
            return vec![Diagnostic { line: 0, severity: Severity::Refused, message }];
        }
        for count in self.counts.values().filter(|count| count.lines > LISTED_EACH) {
            let more = foreign::grouped(count.lines - LISTED_EACH);
            let message = format!("{more} more lines from here on are refused for a reason as above");
            self.listed.push(Diagnostic { line: count.first_unlisted, severity: Severity::Refused, message });
        }
        self.listed
    }

    /// What a file mostly of lines in another format is, with the command that converts it.
    fn of_another_format(&self) -> Option<String> {
        let lines = |kind| self.counts.get(&kind).map_or(0, |count| count.lines);
        // A file of few lines is more likely a class file with a mistake in each.
        if self.refused < 2 {
            return None;
        }
        if let Some(format) = self.format {
            return Some(format.of_file(lines(Kind::Foreign(format))));
        }
        let without_class = lines(Kind::NoClass);
        (without_class > 2 && without_class * 2 > self.refused).then(|| foreign::plain_list(without_class))
    }
}
