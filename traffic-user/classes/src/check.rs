//! What an operator should know about a class file before loading it.
//!
//! - `summary`: what each class covers, and what would not be billed.
//! - `effect`: lines without effect.
//! - `change`: the difference to the table in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    KernelMemory, SHOWN_PROBLEMS,
    compile::{ClassOrder, ClassTable, compile, overrides, standing},
    parse::{ClassFile, Diagnostic, Entry, Severity, UNCLASSIFIED},
};

pub use change::{Moved, TableChange};
pub use effect::{NoEffect, NoEffectReason};
pub use summary::ClassSummary;

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
    let mut found: Vec<Difference> = overrides(&standing(&file.entries), ClassOrder::Virtuozzo)
        .filter(|(entry, _)| entry.class != UNCLASSIFIED)
        .filter_map(|(entry, covered_by)| Some(Difference { entry, covered_by: covered_by? }))
        .collect();
    found.sort_unstable_by_key(|difference| difference.entry.line);
    found
}

/// What a file is checked against.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckContext<'a> {
    /// The order under which it would be loaded.
    pub order: ClassOrder,
    /// The most classes in use, class 0 included; `None`: any number.
    pub most_classes: Option<usize>,
    /// The prefixes in force, if they are known.
    pub in_force: Option<&'a [(IpNet, u8)]>,
    /// Names of classes that go before those of the file.
    pub names: Option<&'a BTreeMap<u8, String>>,
}

/// The result of `classes check`. Its `Display` lists the first [`SHOWN_PROBLEMS`] problems and the counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckReport {
    /// The order under which the file was checked.
    pub order: ClassOrder,
    /// Refused lines. If there are any, the file is not loaded.
    pub refused: Vec<Diagnostic>,
    /// The number of refused lines, with those that are summed up.
    pub refused_lines: usize,
    /// Lines that are used, but perhaps not as intended, and what would not be billed.
    pub warnings: Vec<Diagnostic>,
    /// Lines on which the orders `virtuozzo` and `longest-prefix` differ.
    pub differences: Vec<Difference>,
    /// Lines without effect under the order.
    pub no_effect: Vec<NoEffect>,
    /// Distinct IPv4 networks in the file.
    pub prefixes_v4: usize,
    /// Distinct IPv6 networks in the file.
    pub prefixes_v6: usize,
    /// The classes of these networks, and class 0.
    pub classes: BTreeSet<u8>,
    /// What each class covers under the order.
    pub summaries: Vec<ClassSummary>,
    /// How the table differs from the one in force, if that is known.
    pub change: Option<TableChange>,
    /// The kernel memory that all of these networks need. Less under an order that drops some of them.
    pub kernel_memory: KernelMemory,
}

/// What would not be billed, and what somebody may not have meant, as sentences: WHAT: WHY; WHAT TO DO. At
/// most five, however long the file is: one about each family, order, class 0 and the end of the file.
///
/// None about a refused file, of which only the lines matter. `table` is the table of the file.
pub fn billing_warnings(file: &ClassFile, table: &ClassTable) -> Vec<String> {
    if !file.is_acceptable() {
        return Vec::new();
    }
    let mut found = Vec::new();
    if file.entries.is_empty() {
        // The usual cause is an interrupted write, and class 0 is not billed.
        found.push(
            "the file has no networks, so all traffic would be class 0, which is not billed; write `1 \
             0.0.0.0/0` and `1 ::/0` to put all traffic into class 1"
                .to_owned(),
        );
    } else {
        found.extend(summary::not_billed(table));
    }
    found.extend(effect::largest_override(file, table));
    if let Some(unfinished) = file.unfinished {
        found.push(format!(
            "line {}, the last one, has no line feed, as if the file was cut short; end it with one",
            unfinished.line
        ));
    }
    found
}

impl CheckReport {
    /// Examines a file.
    pub fn new(file: &ClassFile, context: CheckContext<'_>) -> Self {
        // This order drops no network, so its table has as many rows as the file has distinct networks.
        let all = compile(&file.entries, ClassOrder::LongestPrefix);
        let table = compile(&file.entries, context.order);
        let no_effect = effect::without_effect(&file.entries, &table);
        let classes = all.classes_in_use();
        let of_file = |severity, message| Diagnostic { line: 0, severity, message };
        let mut refused: Vec<Diagnostic> = file.refused().cloned().collect();
        let in_use = table.classes_in_use().len();
        if let Some(most) = context.most_classes.filter(|&most| in_use > most) {
            let message = format!(
                "{in_use} classes are in use, class 0 included, and [limits] classes = {most}; raise the limit, \
                 or use fewer classes"
            );
            refused.insert(0, of_file(Severity::Refused, message));
        }
        let found = billing_warnings(file, &table);
        let mut warnings: Vec<Diagnostic> =
            found.into_iter().map(|message| of_file(Severity::Warning, message)).collect();
        warnings.extend(file.warnings().cloned());
        let mut names = file.names.clone();
        names.extend(context.names.into_iter().flatten().map(|(class, name)| (*class, name.clone())));
        Self {
            order: context.order,
            refused_lines: file.refused_lines.max(refused.len()),
            refused,
            warnings,
            differences: differences(file),
            no_effect,
            prefixes_v4: all.v4.len(),
            prefixes_v6: all.v6.len(),
            classes,
            summaries: summary::summaries(&table, &names),
            change: context.in_force.map(|in_force| TableChange::new(&table, in_force)),
            kernel_memory: KernelMemory::of(&all),
        }
    }

    /// Whether the file can be loaded.
    pub fn is_acceptable(&self) -> bool {
        self.refused.is_empty()
    }

    /// Whether anything is found that somebody may not have meant.
    pub fn has_warnings(&self) -> bool {
        !self.warnings.is_empty() || self.no_effect.iter().any(|one| one.reason.is_doubtful())
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let diagnostics = self.refused.iter().chain(&self.warnings).map(|one| one as &dyn fmt::Display);
        let problems = diagnostics.chain(self.differences.iter().map(|one| one as &dyn fmt::Display));
        list(f, problems)?;
        // Under `virtuozzo`, what a class-0 network covers is a difference above. A repeated line is a warning.
        let is_listed = |one: &&NoEffect| match one.reason {
            NoEffectReason::SamePrefixAgain { .. } => true,
            NoEffectReason::CoveredByClassZero { .. } => one.entry.class != UNCLASSIFIED,
            _ => false,
        };
        list(f, self.no_effect.iter().filter(|one| !is_listed(one)).map(|one| one as &dyn fmt::Display))?;
        for summary in &self.summaries {
            writeln!(f, "{summary}")?;
        }
        if let Some(change) = &self.change {
            write!(f, "{change}")?;
        }
        let counted = |number: usize, noun| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
        let classes: Vec<String> = self.classes.iter().map(u8::to_string).collect();
        writeln!(
            f,
            "{} IPv4 and {} IPv6 prefixes, classes {}; {} refused, {}, {} between virtuozzo and \
             longest-prefix, {} without effect under {}",
            self.prefixes_v4,
            self.prefixes_v6,
            classes.join(" "),
            self.refused_lines,
            counted(self.warnings.len(), "warning"),
            counted(self.differences.len(), "difference"),
            counted(self.no_effect.len(), "line"),
            self.order,
        )?;
        writeln!(f, "{}; twice that while it replaces another table", self.kernel_memory)
    }
}

/// The first [`SHOWN_PROBLEMS`], and how many more there are.
fn list<'a>(f: &mut fmt::Formatter<'_>, problems: impl Iterator<Item = &'a dyn fmt::Display>) -> fmt::Result {
    let mut more = 0_usize;
    for (number, problem) in problems.enumerate() {
        if number < SHOWN_PROBLEMS {
            writeln!(f, "{problem}")?;
        } else {
            more += 1;
        }
    }
    match more {
        0 => Ok(()),
        _ => writeln!(f, "... and {more} more; --format json lists all"),
    }
}

mod change;
mod effect;
mod summary;

#[cfg(test)]
mod tests;
