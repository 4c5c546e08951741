//! Comparisons with a witness. Each is an assertion and, if requested, a line of a report.
//!
//! With `TRAFCTL_EVIDENCE=FILE`, each comparison is appended to the file as a line of JSON. The proof runs
//! tests in this way and reports what they compared.

use std::env;
use std::fs::File;
use std::io::Write as _;
use std::thread;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::Amounts;

/// One comparison.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// The name of the test.
    case: &'a str,
    sent: &'a str,
    witness: &'a str,
    by_witness: Amounts,
    by_trafctl: Amounts,
}

/// Checks that trafctl counted what a witness counted, and records the comparison.
///
/// # Errors
///
/// When the figures differ, or the record cannot be written.
pub fn compare(sent: &str, witness: &str, by_witness: Amounts, by_trafctl: Amounts) -> Result<()> {
    if let Some(path) = env::var_os("TRAFCTL_EVIDENCE") {
        let thread = thread::current();
        let line = Line { case: thread.name().unwrap_or("?"), sent, witness, by_witness, by_trafctl };
        let text = serde_json::to_string(&line)? + "\n";
        // One write in append mode, so that lines of several processes do not mix.
        let mut file = File::options().create(true).append(true).open(&path)?;
        file.write_all(text.as_bytes()).with_context(|| format!("cannot write to {}", path.display()))?;
    }
    ensure!(by_witness == by_trafctl, "{sent}: {witness} counted {by_witness:?}, trafctl {by_trafctl:?}");
    Ok(())
}
