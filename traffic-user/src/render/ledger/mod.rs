//! Formats what the ledger returns: tables for people, JSON and CSV for programs. It does not read the
//! ledger.
//!
//! Times in tables and notes are in the report's time zone. JSON and CSV hold exact instants in UTC.

mod attributed;
#[cfg(test)]
mod billing_tests;
mod closing;
mod drops;
pub(super) mod gaps;
mod history;
mod import;
mod interfaces;
pub mod people;
mod report;
mod sheet;
#[cfg(test)]
mod tests;
mod top;

pub use attributed::{Attributed, attributed};
pub use closing::{Retired, adjusted, audit, close_preview, closed, retired};
pub use drops::drops;
pub use gaps::gaps;
pub use history::{History, histories};
pub use import::imported;
pub use interfaces::{Part, interfaces};
pub use report::{report, report_with};
pub use top::{top, top_with};

/// The last line of a preview.
const NOTHING_WRITTEN: &str = "nothing was written; repeat the command with --yes to write it";

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns and notes.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// A header and comma-separated rows, without notes.
    Csv,
}

/// The notes below a table, one per line.
fn with_notes(table: String, notes: Vec<String>) -> String {
    notes.into_iter().fold(table + "\n", |text, note| text + &note + "\n")
}
