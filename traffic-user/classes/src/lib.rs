//! Network classes: from the bytes of a `networks_classes` file to the table that decides a peer's class.
//!
//! This module owns the file's grammar ([`parse()`]), the rule that picks one class among several matching
//! prefixes ([`ClassOrder`], applied by [`compile()`]), and the answers to an operator's two questions: why does
//! this address have this class ([`explain()`]), and what is wrong with this file ([`CheckReport`]).
//!
//! What the kernel is given in front of the table's tries is built by [`index`], and what all of it takes there is told
//! beforehand by [`KernelMemory`].
//!
//! Everything here is pure: bytes and addresses in, plain data out. Which file is read and when, and how a
//! compiled table gets into the kernel's maps, is decided elsewhere.
//!
//! Whatever the order, a compiled table is asked in one way only: the longest matching prefix. The other rules are
//! compiled away by leaving out the entries that an enclosing prefix overrides, so the kernel needs to know one rule.

mod check;
mod compile;
mod explain;
pub mod index;
mod memory;
mod parse;
#[cfg(test)]
mod tests;

pub use check::{CheckReport, Difference, differences};
pub use compile::{ClassOrder, ClassTable, CompiledPrefix, compile};
pub use explain::{Explanation, Reason, Shadow, explain};
pub use memory::KernelMemory;
pub use parse::{ClassFile, Diagnostic, Entry, MAX_CLASS, Severity, UNCLASSIFIED, parse};
