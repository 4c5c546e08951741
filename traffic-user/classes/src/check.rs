//! What an operator should know about a class file before it is loaded.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use crate::{
    KernelMemory,
    compile::{ClassOrder, compile, overrides, standing},
    parse::{ClassFile, Diagnostic, Entry, Severity, UNCLASSIFIED},
};

/// A line that the orders `virtuozzo` and `longest-prefix` treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The line that has no say under `virtuozzo`; its class is not 0.
    pub entry: Entry,
    /// The largest class-0 network that contains it.
    pub covered_by: Entry,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, covered_by } = self;
        write!(
            f,
            "line {}: {entry}: under virtuozzo class {UNCLASSIFIED}, for line {} ({covered_by}) covers it; \
             under longest-prefix class {}",
            entry.line, covered_by.line, entry.class
        )
    }
}

/// Every line on which the orders `virtuozzo` and `longest-prefix` differ, from top to bottom.
///
/// A class-0 network inside another is not among them, for both orders make it class 0; nor is a line whose network
/// stands again further down, for it has no say in either.
pub fn differences(file: &ClassFile) -> Vec<Difference> {
    let mut found: Vec<Difference> = overrides(standing(&file.entries), ClassOrder::Virtuozzo)
        .filter(|(entry, _)| entry.class != UNCLASSIFIED)
        .filter_map(|(entry, covered_by)| Some(Difference { entry, covered_by: covered_by? }))
        .collect();
    found.sort_unstable_by_key(|difference| difference.entry.line);
    found
}

/// What `classes check` says. Its `Display` is text, a line for each thing found and a line of counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Lines that cannot be taken; if there are any, the file is not loaded.
    pub refused: Vec<Diagnostic>,
    /// Lines that are taken, but perhaps not as they were meant.
    pub warnings: Vec<Diagnostic>,
    /// Lines on which the orders `virtuozzo` and `longest-prefix` differ.
    pub differences: Vec<Difference>,
    /// Different IPv4 networks in the file.
    pub prefixes_v4: usize,
    /// Different IPv6 networks in the file.
    pub prefixes_v6: usize,
    /// The classes of these networks, and 0.
    pub classes: BTreeSet<u8>,
    /// What all of these networks take in the kernel; less where an order leaves some out.
    pub kernel_memory: KernelMemory,
}

impl CheckReport {
    /// Looks through a file.
    pub fn new(file: &ClassFile) -> Self {
        // Under this order every standing line keeps its row, so its table counts the file's networks.
        let table = compile(&file.entries, ClassOrder::LongestPrefix);
        let mut warnings: Vec<Diagnostic> = file.warnings().cloned().collect();
        if table.is_empty() && file.is_acceptable() {
            // The usual cause is a write that was cut short, and class 0 is not billed.
            let message =
                "there is no network in the file, which makes all traffic class 0: write `1 0.0.0.0/0` and \
                           `1 ::/0` for one class of all traffic"
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
        for diagnostic in self.refused.iter().chain(&self.warnings) {
            writeln!(f, "{diagnostic}")?;
        }
        for difference in &self.differences {
            writeln!(f, "{difference}")?;
        }
        let classes: Vec<String> = self.classes.iter().map(u8::to_string).collect();
        writeln!(
            f,
            "{} IPv4 and {} IPv6 prefixes, classes {}; {} refused, {} warnings, {} differences between virtuozzo and \
             longest-prefix",
            self.prefixes_v4,
            self.prefixes_v6,
            classes.join(" "),
            self.refused.len(),
            self.warnings.len(),
            self.differences.len()
        )?;
        writeln!(f, "{}; once more as much while it takes the place of another table", self.kernel_memory)
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
            "line 6: refused: class 300 is out of range: write a number from 0 to 254\n\
             line 5: warning: 10.2.3.4/24 has bits set after its prefix: taken as 10.2.3.0/24\n\
             line 2: 2 10.1.0.0/16: under virtuozzo class 0, for line 3 (0 10.0.0.0/8) covers it; \
             under longest-prefix class 2\n\
             line 5: 16 10.2.3.0/24: under virtuozzo class 0, for line 3 (0 10.0.0.0/8) covers it; \
             under longest-prefix class 16\n\
             5 IPv4 and 1 IPv6 prefixes, classes 0 1 2 3 16; 1 refused, 1 warnings, 2 differences between \
             virtuozzo and longest-prefix\n\
             33 MiB of kernel memory (1 the tries, 32 the indexes); once more as much while it takes the place of \
             another table\n"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["refused"][0]["severity"], "refused");
        assert_eq!(json["differences"][0]["covered_by"]["line"], 3);
        assert_eq!(json["prefixes_v4"], 5);
    }

    #[test]
    fn a_repeated_class_0_line_covers_nothing() {
        let file = parse(b"0 10.0.0.0/8\n2 10.1.0.0/16\n1 10.0.0.0/8\n");
        assert_eq!(differences(&file), []);
    }

    #[test]
    fn a_file_without_networks_is_warned_of() {
        for text in ["", "# nothing\n\n"] {
            let report = CheckReport::new(&parse(text.as_bytes()));
            assert!(report.is_acceptable());
            assert_eq!(report.warnings.len(), 1, "{text:?}");
            assert!(report.to_string().starts_with("warning: there is no network in the file"));
        }
        assert!(CheckReport::new(&ClassFile::shipped()).warnings.is_empty());
    }
}
