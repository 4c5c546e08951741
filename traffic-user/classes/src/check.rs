//! What an operator should know about a class file before loading it.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use crate::{
    KernelMemory, SHOWN_PROBLEMS,
    compile::{ClassOrder, compile, overrides, standing},
    parse::{ClassFile, Diagnostic, Entry, Severity, UNCLASSIFIED},
};

/// A line that the orders `virtuozzo` and `longest-prefix` treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The line that is overridden under `virtuozzo`. Its class is not 0.
    pub entry: Entry,
    /// The largest class-0 network that contains it.
    pub covered_by: Entry,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, covered_by } = self;
        write!(
            f,
            "line {}: {entry}: class {UNCLASSIFIED} under virtuozzo, because line {} ({covered_by}) covers \
             it; class {} under longest-prefix",
            entry.line, covered_by.line, entry.class
        )
    }
}

/// Every line on which the orders `virtuozzo` and `longest-prefix` differ, in the order of lines.
///
/// A class-0 network inside another is not included, because both orders make it class 0. Nor is a line whose
/// network is repeated later, because it decides nothing in either order.
pub fn differences(file: &ClassFile) -> Vec<Difference> {
    let mut found: Vec<Difference> = overrides(standing(&file.entries), ClassOrder::Virtuozzo)
        .filter(|(entry, _)| entry.class != UNCLASSIFIED)
        .filter_map(|(entry, covered_by)| Some(Difference { entry, covered_by: covered_by? }))
        .collect();
    found.sort_unstable_by_key(|difference| difference.entry.line);
    found
}

/// The result of `classes check`. Its `Display` lists the first [`SHOWN_PROBLEMS`] problems and the counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Refused lines. If there are any, the file is not loaded.
    pub refused: Vec<Diagnostic>,
    /// Lines that are used, but perhaps not as intended.
    pub warnings: Vec<Diagnostic>,
    /// Lines on which the orders `virtuozzo` and `longest-prefix` differ.
    pub differences: Vec<Difference>,
    /// Distinct IPv4 networks in the file.
    pub prefixes_v4: usize,
    /// Distinct IPv6 networks in the file.
    pub prefixes_v6: usize,
    /// The classes of these networks, and class 0.
    pub classes: BTreeSet<u8>,
    /// The kernel memory that all of these networks need. Less under an order that drops some of them.
    pub kernel_memory: KernelMemory,
}

impl CheckReport {
    /// Examines a file.
    pub fn new(file: &ClassFile) -> Self {
        // This order drops no network, so its table has as many rows as the file has distinct networks.
        let table = compile(&file.entries, ClassOrder::LongestPrefix);
        let mut warnings: Vec<Diagnostic> = file.warnings().cloned().collect();
        if table.is_empty() && file.is_acceptable() {
            // The usual cause is an interrupted write, and class 0 is not billed.
            let message =
                "the file has no networks, so all traffic would be class 0; write `1 0.0.0.0/0` and `1 ::/0` \
                 to put all traffic into class 1"
                    .to_owned();
            warnings.insert(0, Diagnostic { line: 0, severity: Severity::Warning, message });
        }
        Self {
            refused: file.refused().cloned().collect(),
            warnings,
            differences: differences(file),
            prefixes_v4: table.v4.len(),
            prefixes_v6: table.v6.len(),
            classes: table.classes_in_use(),
            kernel_memory: KernelMemory::of(&table),
        }
    }

    /// Whether the file can be loaded.
    pub fn is_acceptable(&self) -> bool {
        self.refused.is_empty()
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let diagnostics = self.refused.iter().chain(&self.warnings).map(|one| one as &dyn fmt::Display);
        let problems = diagnostics.chain(self.differences.iter().map(|one| one as &dyn fmt::Display));
        for problem in problems.take(SHOWN_PROBLEMS) {
            writeln!(f, "{problem}")?;
        }
        let found = self.refused.len() + self.warnings.len() + self.differences.len();
        if found > SHOWN_PROBLEMS {
            writeln!(f, "... and {} more; --format json lists all", found - SHOWN_PROBLEMS)?;
        }
        let counted = |number: usize, noun| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
        let classes: Vec<String> = self.classes.iter().map(u8::to_string).collect();
        writeln!(
            f,
            "{} IPv4 and {} IPv6 prefixes, classes {}; {} refused, {}, {} between virtuozzo and longest-prefix",
            self.prefixes_v4,
            self.prefixes_v6,
            classes.join(" "),
            self.refused.len(),
            counted(self.warnings.len(), "warning"),
            counted(self.differences.len(), "difference")
        )?;
        writeln!(f, "{}; twice that while it replaces another table", self.kernel_memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn report_names_every_finding() {
        let file = parse(
            b"1 0.0.0.0/0\n2 10.1.0.0/16\n0 10.0.0.0/8\n0 10.2.0.0/16\n16 10.2.3.4/24\n300 ::/0\n3 ::/0",
        );
        let report = CheckReport::new(&file);
        assert!(!report.is_acceptable());
        assert_eq!(
            report.to_string(),
            "line 6: refused: class 300 is out of range; write a number from 0 to 254\n\
             line 5: warning: 10.2.3.4/24 has host bits set; it is taken as 10.2.3.0/24\n\
             line 2: 2 10.1.0.0/16: class 0 under virtuozzo, because line 3 (0 10.0.0.0/8) covers it; \
             class 2 under longest-prefix\n\
             line 5: 16 10.2.3.0/24: class 0 under virtuozzo, because line 3 (0 10.0.0.0/8) covers it; \
             class 16 under longest-prefix\n\
             5 IPv4 and 1 IPv6 prefixes, classes 0 1 2 3 16; 1 refused, 1 warning, 2 differences between \
             virtuozzo and longest-prefix\n\
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
        let report = CheckReport::new(&parse(text.as_bytes()));
        let shown = report.to_string();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), SHOWN_PROBLEMS + 3, "{shown}");
        // 15 refused, 10 with host bits, 9 repeated.
        assert_eq!(lines[SHOWN_PROBLEMS], "... and 14 more; --format json lists all");
        assert!(lines[SHOWN_PROBLEMS + 1].contains("15 refused, 19 warnings"), "{shown}");
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
            let report = CheckReport::new(&parse(text.as_bytes()));
            assert!(report.is_acceptable());
            assert_eq!(report.warnings.len(), 1, "{text:?}");
            assert!(report.to_string().starts_with("warning: the file has no networks"));
        }
        assert!(CheckReport::new(&ClassFile::shipped()).warnings.is_empty());
    }
}
