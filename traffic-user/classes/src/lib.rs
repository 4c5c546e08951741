//! Network classes: from the bytes of a `networks_classes` file to the table that decides a peer's class.
//!
//! - `parse`: the file's grammar. One diagnostic for each line that is wrong or doubtful.
//! - `notation`: networks in the other ways in which people write them.
//! - [`ranges`]: ranges of addresses, and the fewest networks that cover them.
//! - `compile`: the rule that picks one class among several matching prefixes ([`ClassOrder`]), and the
//!   resulting [`ClassTable`].
//! - `explain`: why an address has its class, and which parts of a prefix have which class.
//! - `check`: everything an operator should know about a file before loading it ([`CheckReport`]).
//! - `order`: entries sorted by their networks.
//! - `overlay`: two tables laid over each other, and the lines that differ ([`Overlay`]).
//! - `hold`: files that look cut short, which need a person's word ([`Hold`]).
//! - `segments`: a table as spans of addresses, for sums and differences.
//! - [`convert`]: lists in other formats to lines of a class file.
//! - [`index`]: the table as the kernel program reads it.
//! - [`stored_rows`]: the prefixes as they are kept beside it.
//! - `table_memory`: the kernel memory that a table needs ([`KernelMemory`]).
//!
//! Everything here is pure: bytes and addresses in, plain data out. Which file is read and when is decided in
//! `class_source` of the binary; `kernel/tables` writes a compiled table into the maps.
//!
//! A compiled table is always queried by longest matching prefix. Other orders are resolved at compile time,
//! by dropping the entries that an enclosing prefix overrides. So the kernel knows only one rule.

mod check;
mod compile;
pub mod convert;
mod explain;
mod explain_prefix;
mod hold;
pub mod index;
mod notation;
mod order;
mod overlay;
mod parse;
pub mod ranges;
mod segments;
pub mod stored_rows;
mod table_memory;
#[cfg(test)]
mod tests;

pub use check::{
    CheckContext, CheckReport, ClassSummary, Difference, Moved, NoEffect, NoEffectReason, TableChange,
    billing_warnings, differences,
};
pub use compile::{ClassOrder, ClassTable, CompiledPrefix, compile};
pub use explain::{ExplainContext, Explanation, Reason, Rule, Shadow, comment, explain};
pub use explain_prefix::{ClassShare, Part, PrefixExplanation, explain_prefix};
pub use hold::{Candidate, Hold, HoldLimit, InForce, hold};
pub use overlay::{ChangedLines, Overlay, Pair, TooManyPairs, changed_lines};
pub use parse::directives::{END_COMMENT, MOST_NAME_CHARS, begin_comment, check_name};
pub use parse::{ClassFile, Diagnostic, Entry, MAX_CLASS, Severity, UNCLASSIFIED, Unfinished, parse};
pub use table_memory::{ARRAY_BYTES, KernelMemory};

/// Most problems of a class file that are printed as text. `--format json` lists all.
pub const SHOWN_PROBLEMS: usize = 20;
