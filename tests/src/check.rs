//! Checks that many tests share: `trafctl status` reports no problem, the kernel's statistics agree, the
//! ledger holds an amount.

use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::{Value, json};

use crate::witness::InterfaceStatistics;
use crate::{Amounts, Counters, Lab, Namespace, interrupt};

/// The limit of every wait.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The number of repetitions: the first number in everyday tests, the second when `TRAFCTL_THOROUGH` is set,
/// as in the proof. `TRAFCTL_ROUNDS` sets another number.
#[must_use]
pub fn rounds(everyday: u32, thorough: u32) -> u32 {
    let chosen = std::env::var("TRAFCTL_ROUNDS").ok().and_then(|text| text.parse().ok());
    if let Some(chosen) = chosen {
        return chosen;
    }
    if std::env::var_os("TRAFCTL_THOROUGH").is_some() { thorough } else { everyday }
}

/// Runs a command to its end, whatever its exit status.
///
/// # Errors
///
/// When the command cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))
}

/// Runs `trafctl` to its end, whatever its exit status.
///
/// # Errors
///
/// When the program is missing or cannot be started.
pub fn trafctl(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    output(&mut lab.trafctl(arguments)?)
}

/// The stderr of a command.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The names of the programs on an interface's hooks, from the kernel: those for traffic to the container first.
///
/// # Errors
///
/// When there is no such interface.
pub fn hooks(lab: &Lab, interface: &str) -> Result<Vec<String>> {
    let interface = interface.to_owned();
    lab.host().enter(move || {
        let mut names = Vec::new();
        for hook in [TcAttachType::Egress, TcAttachType::Ingress] {
            let (_revision, programs) = SchedClassifier::query_tcx(&interface, hook)?;
            names.extend(programs.iter().map(|program| program.name_as_str().unwrap_or_default().to_owned()));
        }
        Ok(names)
    })
}

/// The problems that `trafctl status` reports. Its exit status must agree with them.
///
/// # Errors
///
/// When the output is not JSON, or the exit status is not 1 with problems and 0 without.
pub fn problems(lab: &Lab) -> Result<Vec<String>> {
    let output = trafctl(lab, &["status", "--format", "json"])?;
    let status: Value = serde_json::from_slice(&output.stdout).with_context(|| stderr(&output))?;
    let problems: Vec<String> = serde_json::from_value(status["problems"].clone())?;
    let expected = i32::from(!problems.is_empty());
    ensure!(output.status.code() == Some(expected), "{} with the problems {problems:?}", output.status);
    Ok(problems)
}

/// Checks that `trafctl status` reports no problem.
///
/// # Errors
///
/// When it does.
pub fn is_well(lab: &Lab) -> Result<()> {
    let problems = problems(lab)?;
    ensure!(problems.is_empty(), "{problems:#?}");
    Ok(())
}

/// Waits until `trafctl status` shows that everything that passed is in a class or a fault.
///
/// # Errors
///
/// When it does not: packets are in no counter, or in two.
pub fn is_balanced(lab: &Lab) -> Result<()> {
    let balanced = json!({ "in_packets": 0, "in_bytes": 0, "out_packets": 0, "out_bytes": 0 });
    eventually("the status balances", || {
        let status: Value = serde_json::from_slice(&trafctl(lab, &["status", "--format", "json"])?.stdout)?;
        Ok(status["unaccounted"] == balanced)
    })
}

/// Checks that `trafctl status` reports these problems and no other. Each is named by a part of it.
///
/// # Errors
///
/// When it reports others, or not each of them.
pub fn is_well_but(lab: &Lab, expected: &[&str]) -> Result<()> {
    let problems = problems(lab)?;
    let is_expected = |problem: &String| expected.iter().any(|part| problem.contains(part));
    let is_reported = |part: &&str| problems.iter().any(|problem| problem.contains(part));
    ensure!(problems.iter().all(is_expected) && expected.iter().all(is_reported), "{problems:#?}");
    Ok(())
}

/// Waits until a condition holds.
///
/// # Errors
///
/// When the condition fails, does not hold within [`PATIENCE`], or the process is to end.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        interrupt::check()?;
        if Instant::now() > deadline {
            bail!("{what}: not after {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Compares an interface with the kernel's statistics since it was created. Each buffer must be counted, or
/// be in the recorded gap of missed traffic.
///
/// # Errors
///
/// When they differ.
pub fn agrees_with_kernel(lab: &Lab, counters: &Counters, interface: &str) -> Result<()> {
    let row = counters.interface(interface);
    let kernel = InterfaceStatistics::read(lab.host(), interface)?;
    // What the host receives on the interface, the container sent.
    let expected = [kernel.tx_packets, kernel.tx_bytes, kernel.rx_packets, kernel.rx_bytes];
    let ours = [
        row.in_skbs + row.in_unseen_skbs,
        row.in_skb_bytes + row.in_unseen_skb_bytes,
        row.out_skbs + row.out_unseen_skbs,
        row.out_skb_bytes + row.out_unseen_skb_bytes,
    ];
    ensure!(ours == expected, "{interface}: counted {ours:?}, the kernel has {expected:?}: {row:?}");
    Ok(())
}

/// The sum of an interface's gaps of traffic that took a path around the hook, in the kernel's units: buffers and
/// bytes to the container, then from it.
///
/// # Errors
///
/// When the gaps cannot be read.
pub fn bypassed(lab: &Lab, interface: &str) -> Result<[u64; 4]> {
    let document = lab.run_json(&["gaps", "--format", "json"])?;
    let all = document["gaps"].as_array().context("no list of gaps")?;
    let of_it = all.iter().filter(|gap| gap["interface"] == interface && gap["reason"] == "bypassed");
    let mut sum = [0; 4];
    for gap in of_it {
        for (at, name) in ["in_skbs", "in_skb_bytes", "out_skbs", "out_skb_bytes"].into_iter().enumerate() {
            sum[at] += gap["size"][name].as_u64().context("a size")?;
        }
    }
    Ok(sum)
}

/// What the kernel counted on an interface in a container, in the order of [`bypassed`].
///
/// # Errors
///
/// When there is no such interface.
pub fn carried(inside: &Namespace, interface: &str) -> Result<[u64; 4]> {
    let of = InterfaceStatistics::read(inside, interface)?;
    Ok([of.rx_packets, of.rx_bytes, of.tx_packets, of.tx_bytes])
}

/// Waits until the gaps `label` are what the kernel counted on a device in a container, which must be something.
///
/// # Errors
///
/// When they are not.
pub fn is_a_gap(lab: &Lab, label: &str, inside: &Namespace, interface: &str) -> Result<()> {
    eventually("the gap has its size", || {
        let is = carried(inside, interface)?;
        Ok(is != [0; 4] && bypassed(lab, label)? == is)
    })
    .with_context(|| {
        format!("{label}: gaps {:?}, the kernel has {:?}", bypassed(lab, label), carried(inside, interface))
    })
}

/// The total of a container in the ledger, over all classes and families.
///
/// # Errors
///
/// When there is no ledger or it cannot be read.
pub fn booked(lab: &Lab, container: &str) -> Result<Amounts> {
    reported(&lab.run_json(&["report", "--split", "class", "--format", "json"])?, container)
}

/// The total of a container in a `report --format json`.
///
/// # Errors
///
/// When the document is not a report.
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
