//! `contrib/billing/trafctl_billing.py` on reports that no example shows: what it refuses, and that it then writes
//! nothing. docs/billing.md runs it on a real ledger.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use traffic_tests::check::{output, stderr};

use crate::markdown::repository;

const HEADER: &str = "container,client,class,included_gb,price\n";

/// A row of container, class and bytes to bill; class 0 is not billed.
fn row(container: &str, class: u8, bytes: i64) -> Value {
    let mut row = json!({
        "period": "2026-10", "start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z",
        "container": container, "class": class, "billed": class != 0,
    });
    if class != 0 {
        row["billing"] = json!({"to_bill": {"total": {"packets": 1, "bytes": bytes}}});
    }
    row
}

fn report(rows: &[Value]) -> Value {
    json!({
        "version": 1, "by": "month", "last_reading": "2026-11-02T00:00:00Z", "gaps": [], "rows": rows,
        "closed": [{"name": "2026-10", "end": "2026-11-01T00:00:00Z", "hash": "abc"}],
    })
}

/// Runs the program in a directory with these two files.
fn run(directory: &Path, command: &str, report: &Value, prices: &str) -> Result<Output> {
    fs::write(directory.join("report.json"), report.to_string())?;
    fs::write(directory.join("prices.csv"), format!("{HEADER}{prices}"))?;
    let mut program = Command::new("python3");
    program.arg(repository().canonicalize()?.join("contrib/billing/trafctl_billing.py")).arg(command);
    if command != "usage" {
        program.args(["--prices", "prices.csv", "--out", "out"]);
    }
    output(program.arg("report.json").current_dir(directory))
}

/// The program refuses with this reason and writes nothing.
fn refuses(report: &Value, prices: &str, reason: &str) -> Result<()> {
    let directory = TempDir::new()?;
    let output = run(directory.path(), "fossbilling", report, prices)?;
    let said = stderr(&output);
    ensure!(output.status.code() == Some(2) && said.contains(reason), "{}: {said}", output.status);
    ensure!(!said.contains("Traceback") && !directory.path().join("out").exists(), "{said}");
    Ok(())
}

#[test]
fn what_would_make_a_wrong_bill_is_refused() -> Result<()> {
    let good = report(&[row("101", 1, 2_000_000_000)]);
    let prices = "101,17,1,0,0.05\n";
    let with = |key: &str, value: Value| {
        let mut report = good.clone();
        report[key] = value;
        report
    };
    refuses(&good, "", "there is no price for container 101 class 1")?;
    refuses(&good, "102,17,*,0,1\n", "there is no price for container 101 class 1")?;
    refuses(&with("closed", json!([])), prices, "2026-10 is not closed")?;
    // By another time zone, or cut short.
    refuses(
        &with("closed", json!([{"name": "2026-10", "end": "2026-10-31T23:00:00Z"}])),
        prices,
        "is not closed",
    )?;
    refuses(&with("by", json!("day")), prices, "make it with --by month")?;
    refuses(&with("version", json!(2)), prices, "no report of version 1")?;
    refuses(&with("rows", json!([])), prices, "0 months with billed traffic")?;
    let mut whole = row("101", 1, 5);
    whole.as_object_mut().context("a row")?.remove("class");
    refuses(&report(&[whole]), prices, "make it with --split class")?;
    let mut split = row("101", 1, 5);
    split["direction"] = json!("in");
    refuses(&report(&[split]), prices, "split by direction")?;
    let mut other = row("101", 1, 5);
    other["period"] = json!("2026-09");
    refuses(&report(&[row("101", 1, 5), other]), prices, "2 months with billed traffic")?;
    for (prices, reason) in [
        ("101,17,1,0,0.05\n101,18,1,0,1\n", "prices.csv:3: a second price"),
        ("101,17,1,0,-1\n", "prices.csv:2: the price is '-1'"),
        ("101,17,1,0,\"0,05\"\n", "the price is '0,05'"),
        ("101,17,1,0,NaN\n", "the price is 'NaN'"),
        ("101,17,0,0,1\n", "the class is '0'"),
        ("101,seventeen,1,0,1\n", "the client is 'seventeen'"),
        ("101,17,1,0\n", "a line has 5 fields"),
    ] {
        refuses(&good, prices, reason)?;
    }
    Ok(())
}

#[test]
fn amounts_are_exact_and_nothing_is_written_twice() -> Result<()> {
    let directory = TempDir::new()?;
    let rows = [
        row("101", 1, 1_999_000_001),
        row("101", 2, 700_000_000),
        row("101", 3, 300_000_000),
        row("101", 0, 9_000_000_000),
        row("102", 1, 5),
        row("ab/../c", 1, 3_000_000_000),
    ];
    // Classes 2 and 3 together have the free GB of `*`; 102 costs less than half a cent.
    let prices = "101,17,1,1,0.105\n101,17,*,1,5\n102,18,*,0,0.1\nab/../c,19,1,0,0.335\n";
    let mut report = report(&rows);
    report["class_names"] = json!({"1": "World"});
    let done = run(directory.path(), "whmcs", &report, prices)?;
    ensure!(done.status.success(), "{}", stderr(&done));
    let names = String::from_utf8(done.stdout)?;
    assert_eq!(names, "out/2026-10-17-101-1.form\nout/2026-10-19-ab_.._c-1.form\n");
    // 0.999000001 GB at 0.105, and 3 GB at 0.335.
    for (name, amount) in [
        ("17-101-1", "+2026-10%2C+101+World%3A+1.999+GB+%281+GB+included%29&amount=0.10&"),
        ("19-ab_.._c-1", "&amount=1.01&"),
    ] {
        let text = fs::read_to_string(directory.path().join(format!("out/2026-10-{name}.form")))?;
        ensure!(text.contains(amount), "{text}");
    }
    let again = run(directory.path(), "whmcs", &report, prices)?;
    ensure!(again.status.code() == Some(2) && stderr(&again).contains("this month was written before"));
    let sent = directory.path().join("out/2026-10-17-101-1.form");
    fs::rename(&sent, sent.with_extension("form.sent"))?;
    fs::remove_file(directory.path().join("out/2026-10-19-ab_.._c-1.form"))?;
    let again = run(directory.path(), "whmcs", &report, prices)?;
    ensure!(again.status.code() == Some(2) && !sent.exists(), "what was sent is not written again");
    Ok(())
}

#[test]
fn usage_is_that_of_the_running_month() -> Result<()> {
    let directory = TempDir::new()?;
    let mut idle = row("103", 1, 77_000_000);
    idle["period"] = json!("2026-09");
    let rows = [idle, row("101", 1, 1_048_577), row("101", 2, 1), row("102", 0, 5)];
    let usage = |report: &Value| -> Result<Value> {
        let output = run(directory.path(), "usage", report, "")?;
        ensure!(output.status.success(), "{}", stderr(&output));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let mut report = report(&rows);
    let first = usage(&report)?;
    assert_eq!(first, json!({"until": "2026-11-02T00:00:00Z", "mb": {"101": 2, "103": 0}}));
    // Nothing has passed in the new month.
    report["last_until"] = json!({"period": "2026-11", "at": "2026-11-02T00:00:00Z"});
    assert_eq!(usage(&report)?["mb"], json!({"101": 0, "103": 0}));
    Ok(())
}
