//! A comparison that is a check and, where a report is wanted, a line of it: what was sent, what a witness counted, what
//! trafctl counted.
//!
//! With `TRAFCTL_EVIDENCE=FILE` every comparison is added to the file as a line of JSON. A proof can run tests so, and show
//! what they compared.

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
    /// The test.
    case: &'a str,
    sent: &'a str,
    witness: &'a str,
    by_witness: Amounts,
    by_trafctl: Amounts,
}

/// Checks that trafctl counted what a witness did, and notes it.
///
/// # Errors
///
/// When it did not, or the note can't be written.
pub fn compare(sent: &str, witness: &str, by_witness: Amounts, by_trafctl: Amounts) -> Result<()> {
    if let Some(path) = env::var_os("TRAFCTL_EVIDENCE") {
        let thread = thread::current();
        let line = Line { case: thread.name().unwrap_or("?"), sent, witness, by_witness, by_trafctl };
        let text = serde_json::to_string(&line)? + "\n";
        // Opened for appending and written at once, so that lines of several processes do not mix.
        let mut file = File::options().create(true).append(true).open(&path)?;
        file.write_all(text.as_bytes()).with_context(|| format!("write to {}", path.display()))?;
    }
    ensure!(by_witness == by_trafctl, "{sent}: by {witness} {by_witness:?}, by trafctl {by_trafctl:?}");
    Ok(())
}
