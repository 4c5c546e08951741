//! Questions that tests ask: does `trafctl` find anything wrong, and does the kernel agree with it?

use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::witness::InterfaceStatistics;
use crate::{Amounts, Counters, Lab};

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often to repeat something: the first number in everyday tests, the second where `TRAFCTL_THOROUGH` is set, as for the
/// proof, which has the time.
#[must_use]
pub fn rounds(everyday: u32, thorough: u32) -> u32 {
    if std::env::var_os("TRAFCTL_THOROUGH").is_some() { thorough } else { everyday }
}

/// Runs a command to its end, whatever that is.
///
/// # Errors
///
/// When a command fails, or it is not so.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))
}

/// Runs `trafctl` to its end, whatever that is.
///
/// # Errors
///
/// When a command fails, or it is not so.
pub fn trafctl(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    output(&mut lab.trafctl(arguments)?)
}

/// What a command said on stderr.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `trafctl status` says is wrong; it must say so with its exit status too.
///
/// # Errors
///
/// When a command fails, or it is not so.
pub fn problems(lab: &Lab) -> Result<Vec<String>> {
    let output = trafctl(lab, &["status", "--format", "json"])?;
    let status: Value = serde_json::from_slice(&output.stdout).with_context(|| stderr(&output))?;
    let problems: Vec<String> = serde_json::from_value(status["problems"].clone())?;
    let expected = i32::from(!problems.is_empty());
    ensure!(output.status.code() == Some(expected), "{} with the problems {problems:?}", output.status);
    Ok(problems)
}

/// Checks that `trafctl status` finds nothing wrong.
///
/// # Errors
///
/// When a command fails, or it is not so.
pub fn is_well(lab: &Lab) -> Result<()> {
    let problems = problems(lab)?;
    ensure!(problems.is_empty(), "{problems:#?}");
    Ok(())
}

/// Waits until something is so.
///
/// # Errors
///
/// When a command fails, or it is not so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > deadline {
            bail!("{what}: not after {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Checks an interface against the kernel's own statistics of it since it was made: a buffer was either counted or is
/// in the gap that is written down.
///
/// # Errors
///
/// When a command fails, or it is not so.
pub fn agrees_with_kernel(lab: &Lab, counters: &Counters, interface: &str) -> Result<()> {
    let row = counters.interface(interface);
    let kernel = InterfaceStatistics::read(lab.host(), interface)?;
    // The host receives what the container sends.
    let expected = [kernel.tx_packets, kernel.tx_bytes, kernel.rx_packets, kernel.rx_bytes];
    let ours = [
        row.in_skbs + row.in_unseen_skbs,
        row.in_skb_bytes + row.in_unseen_skb_bytes,
        row.out_skbs + row.out_unseen_skbs,
        row.out_skb_bytes + row.out_unseen_skb_bytes,
    ];
    ensure!(ours == expected, "{interface}: {ours:?}, and by the kernel {expected:?}: {row:?}");
    Ok(())
}

/// What the ledger has of a container, all classes and families.
///
/// # Errors
///
/// When there is no ledger yet, or it can't be read.
pub fn booked(lab: &Lab, container: &str) -> Result<Amounts> {
    reported(&lab.run_json(&["report", "--split", "class", "--format", "json"])?, container)
}

/// What a `report --format json` has of a container.
///
/// # Errors
///
/// When it is no report.
pub fn reported(report: &Value, container: &str) -> Result<Amounts> {
    let rows = report["rows"].as_array().with_context(|| format!("no rows in {report}"))?;
    let mut sum = Amounts::default();
    for row in rows.iter().filter(|row| row["container"] == container) {
        let value =
            |way: &str, what: &str| row[way][what].as_u64().with_context(|| format!("{way} {what} in {row}"));
        sum = sum.plus(Amounts {
            in_bytes: value("in", "bytes")?,
            in_packets: value("in", "packets")?,
            out_bytes: value("out", "bytes")?,
            out_packets: value("out", "packets")?,
        });
    }
    Ok(sum)
}
