//! The grammar of `networks_classes`: bytes to entries, and one diagnostic for every line that is wrong or
//! doubtful.
//!
//! - `line`: one line, and why it is refused.
//! - `network`: the network of a line, and what to write instead of what is there.
//! - `foreign`: other formats that are taken for class files.
//! - `directives`: comments that mean something, such as the names of classes.
//! - `problems`: collects the problems and sums up those that are alike.
//!
//! Virtuozzo's own parsers disagree about the edge cases and silently ignore most mistakes. Bills depend on
//! this file, so such lines are refused here. The caller decides whether to use a file that has refused
//! lines.

use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use serde::Serialize;

use crate::order::by_network;
use problems::Problems;

/// The class of peers that match no prefix: counted and shown, but not part of billed totals.
pub const UNCLASSIFIED: u8 = 0;

/// The largest class number a file may name.
pub const MAX_CLASS: u8 = 254;

/// The file that Virtuozzo ships: all traffic is class 1.
const SHIPPED: &[u8] = b"1 0.0.0.0/0\n1 ::/0\n";

/// One network of a class file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Entry {
    /// Its line, from 1.
    pub line: u32,
    /// Its class, at most [`MAX_CLASS`].
    pub class: u8,
    /// The network, with host bits zero.
    pub prefix: IpNet,
}

/// As written in the file: `1 192.0.2.0/24`.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.class, self.prefix)
    }
}

/// How severe a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The line is not usable, so the file should not be used.
    Refused,
    /// The line is used, but perhaps not as intended.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "refused",
            Self::Warning => "warning",
        })
    }
}

/// A problem with one line, or with the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The line, from 1; 0 for the file as a whole.
    pub line: u32,
    /// Whether the line is refused.
    pub severity: Severity,
    /// What is wrong; what to write instead.
    pub message: String,
}

/// One line of text: `line 3: refused: ...`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}: {}", self.severity, self.message)
    }
}

/// A parsed class file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassFile {
    /// The networks, in the order of their lines. Repeated prefixes are all included.
    pub entries: Vec<Entry>,
    /// Problems, in the order of their lines. Of very many that are alike, one tells how many more there are.
    pub diagnostics: Vec<Diagnostic>,
    /// The number of refused lines, with those that have no diagnostic of their own.
    pub refused_lines: usize,
    /// Names of classes, from comments such as `# name 2 = "UA-IX"`.
    pub names: BTreeMap<u8, String>,
    /// The last line, if no line feed ends it: a file that was cut short looks like that.
    pub unfinished: Option<Unfinished>,
}

/// A last line that no line feed ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The line, from 1.
    pub line: u32,
    /// The network as written, if the line has one with host bits set: `10.100.0.0/1`, cut from `/16`.
    pub with_host_bits: Option<IpNet>,
}

impl ClassFile {
    /// The file that Virtuozzo ships, for a node without one: all traffic is class 1.
    pub fn shipped() -> Self {
        parse(SHIPPED)
    }

    /// Whether no line is refused. A file that is not acceptable must not replace the table in force.
    pub fn is_acceptable(&self) -> bool {
        self.refused().next().is_none()
    }

    /// The refused lines.
    pub fn refused(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Refused)
    }

    /// The lines that are used, but perhaps not as intended.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Warning)
    }
}

/// Parses a class file. Never fails: a wrong line becomes a diagnostic, and the other lines are parsed.
///
/// A line is `<class> <address>/<prefix length>`. Text after the network and after `#` is ignored, except for
/// another network, which is refused. What `classes list` and `vztactl class_list` print is read as well. A
/// file of another kind gets one diagnostic, not one for each line.
pub fn parse(bytes: &[u8]) -> ClassFile {
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);

    let mut entries = Vec::new();
    let mut problems = Problems::default();
    let mut directives = Directives::default();
    let mut unfinished = None;
    let mut listing = Listing::default();
    let mut line = 0_u32;
    let mut rest = Some(bytes);
    while let Some(left) = rest {
        line = line.saturating_add(1);
        let (text, parsed) = match listing.plain_line(left) {
            Some((network, length)) => {
                rest = left.get(length + 1..);
                (&left[..length], Ok(Some(network)))
            }
            None => {
                let end = left.iter().position(|&byte| byte == b'\n');
                rest = end.and_then(|end| left.get(end + 1..));
                let text = &left[..end.unwrap_or(left.len())];
                let is_unfinished = rest.is_none() && !text.trim_ascii().is_empty();
                unfinished = is_unfinished.then_some(Unfinished { line, with_host_bits: None });
                (text, listing.parse_line(text))
            }
        };
        match parsed {
            Ok(None) => directives.read(line, text, entries.len(), &mut problems),
            Ok(Some((class, written))) => {
                let prefix = written.trunc();
                if prefix != written {
                    let message = format!("{written} has host bits set; it is taken as {prefix}");
                    problems.warn(line, message);
                    unfinished = unfinished.map(|at| Unfinished { with_host_bits: Some(written), ..at });
                }
                entries.push(Entry { line, class, prefix });
            }
            Err(refusal) => problems.refuse(line, refusal),
        }
        if problems.refused() == MOST_REFUSED {
            problems.stop(line);
            break;
        }
    }
    directives.end(entries.len(), &mut problems);
    let refused_lines = problems.refused();
    let mut diagnostics = problems.into_diagnostics(bytes, entries.len());
    diagnostics.extend(repeated(&entries));
    diagnostics.sort_by_key(|diagnostic| diagnostic.line);
    ClassFile { entries, diagnostics, refused_lines, names: directives.names, unfinished }
}

/// After so many refused lines the rest is not read: a file of 64 MiB has 32 million lines.
const MOST_REFUSED: usize = 1_000_000;

/// A byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A warning for every line whose network is repeated on a later line.
fn repeated(entries: &[Entry]) -> Vec<Diagnostic> {
    let sorted = by_network(entries);
    let mut warnings = Vec::new();
    for same in sorted.chunk_by(|a, b| a.prefix == b.prefix) {
        let Some((last, earlier)) = same.split_first() else { continue };
        warnings.extend(earlier.iter().map(|entry| {
            let Entry { line, class, prefix } = entry;
            let message = if *class == last.class {
                format!("lines {line} and {} both give {prefix} class {class}; one is enough", last.line)
            } else {
                format!(
                    "lines {line} and {0} give {prefix} class {class} and class {1}; the last one, line \
                     {0}, counts",
                    last.line, last.class
                )
            };
            Diagnostic { line: *line, severity: Severity::Warning, message }
        }));
    }
    warnings
}

pub(crate) mod directives;
pub(crate) mod foreign;
mod line;
pub(crate) mod network;
mod problems;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod tests;

use directives::Directives;
use line::Listing;
