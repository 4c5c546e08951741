//! PVA's history is imported into a running ledger, and its months are closed and corrected.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use traffic_tests::{
    Lab,
    container::introduce,
    process::{Process, run_ok},
    traffic::udp_send,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn number(value: &Value, path: &str) -> Result<u64> {
    value.pointer(path).and_then(Value::as_u64).with_context(|| format!("{path} in {value}"))
}

/// Waits for a condition.
fn wait_for(what: &str, mut there: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !there()? {
        ensure!(Instant::now() < deadline, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Bytes from 101 to class 2, which only this test sends.
fn bytes_out(lab: &Lab) -> Result<u64> {
    let report = lab.run_json(&["report", "--container", "101", "--class", "2", "--format", "json"])?;
    number(&report, "/total/out/bytes")
}

#[test]
fn pva_history_is_imported_closed_and_corrected() -> Result<()> {
    let lab = Lab::new("ledger-history")?;
    let classes = lab.write("networks_classes", "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.2/32\n")?;
    lab.configure(&format!("class_file = {classes:?}\n[drain]\ninterval = \"100ms\"\n"))?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let mut command = lab.trafctl(&["run"])?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let daemon = Process::spawn(&mut command)?;
    let file = lab.path("pva.db");
    let import = |more: &[&str]| -> Result<std::process::Output> {
        let path = file.to_str().context("the path is not UTF-8")?;
        Ok(lab
            .trafctl(&[&["ledger", "import-pva", path, "--class", "2", "--format", "json"], more].concat())?
            .output()?)
    };
    wait_for("the first drain", || {
        Ok(lab.state_dir().join("ledger.sqlite").exists()
            && lab
                .run_json(&["report", "--format", "json"])
                .is_ok_and(|report| report["to"] != "1970-01-01T00:00:00Z"))
    })?;
    let ledger = lab.state_dir().join("ledger.sqlite");
    let begin: i64 =
        run_ok(Command::new("sqlite3").arg(&ledger).arg("SELECT min(created) FROM epoch"))?.trim().parse()?;
    // Ten minutes that end just after the ledger's start, one sample 300 days ago, and one invalid sample.
    let mut sql = "CREATE TABLE log_def (id, eid, lclass, instance, counter);
        CREATE TABLE log_data (id, startTime, avg);
        INSERT INTO log_def VALUES (7, '101', 'counters_vz_net', '', 'counter_net_outgoing_bytes');
        INSERT INTO log_data VALUES (7, 'never', 1);"
        .to_owned();
    for minute in -10..=0 {
        write!(sql, "INSERT INTO log_data VALUES (7, {begin} + 20 + 60 * {minute}, 1000);")?;
    }
    write!(sql, "INSERT INTO log_data VALUES (7, {begin} - 300 * 86400, 500000);")?;
    run_ok(Command::new("sqlite3").arg(&file).arg(&sql))?;

    let sent = udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 100, 100)?;
    // Without --yes, an import shows what it would do, and a script does not take it for done.
    for (more, status, samples) in
        [(&["--dry-run"][..], 0, 10), (&[], 1, 10), (&["--yes"], 0, 10), (&["--yes"], 0, 0)]
    {
        let output = import(more)?;
        assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
        let result: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!(number(&result, "/samples")?, samples, "{result}");
        let skipped = result["skipped"].as_array().context("skipped")?;
        let reasons: Vec<_> = skipped.iter().filter_map(|skipped| skipped["reason"].as_str()).collect();
        assert_eq!(reasons, ["bad_time", "after_until", "over_begin"], "{result}");
    }
    wait_for("the traffic in the ledger beside its history", || {
        Ok(bytes_out(&lab)? == sent.l3_bytes + 9 * 1000 + 500_000)
    })?;
    ensure!(daemon.terminate(PATIENCE)?.success());
    let gaps = lab.run_json(&["gaps", "--format", "json"])?;
    let details: Vec<_> =
        gaps["gaps"].as_array().context("gaps")?.iter().filter_map(|gap| gap["detail"].as_str()).collect();
    ensure!(details.iter().any(|detail| detail.contains("out 1000 bytes")), "{gaps}");
    let audit = lab.run_json(&["audit", "--format", "json"])?;
    ensure!(audit["problems"].as_array().is_some_and(Vec::is_empty), "{audit}");

    // Interface traffic is in a class or a fault. Imported history is in neither.
    let balance = lab.run_json(&["report", "--show", "balance", "--container", "101", "--format", "json"])?;
    assert_eq!(balance["balance"][0]["container"], "101");
    for direction in ["in", "out"] {
        let line = &balance["balance"][0][direction];
        assert_eq!(
            (&line["difference_packets"], &line["difference_bytes"]),
            (&0.into(), &0.into()),
            "{balance}"
        );
    }
    ensure!(number(&balance, "/balance/0/out/passed/bytes")? >= sent.l3_bytes, "{balance}");

    // A changed value is reported, and the ledger keeps its own.
    run_ok(Command::new("sqlite3").arg(&file).arg("UPDATE log_data SET avg = 3 WHERE avg = 500000"))?;
    let output = import(&["--yes"])?;
    assert_eq!(output.status.code(), Some(1));
    let result: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(number(&result, "/conflicts/count")?, 1, "{result}");
    assert_eq!(bytes_out(&lab)?, sent.l3_bytes + 9 * 1000 + 500_000);

    // The month of that day is closed, and a part of it is credited.
    let month = format!("SELECT strftime('%Y-%m', {begin} - 300 * 86400, 'unixepoch')");
    let month = run_ok(Command::new("sqlite3").arg(&ledger).arg(month))?;
    let month = month.trim();
    let adjust = |more: &[&str]| -> Result<Value> {
        let correction = ["adjust", month, "--container", "101", "--class", "2", "--out", "-0.1MB"];
        lab.run_json(&[&correction[..], &["--reason", "credited", "--format", "json"], more].concat())
    };
    ensure!(adjust(&["--yes"]).is_err(), "the month is not closed yet");
    let preview = |arguments: &[&str]| -> Result<Value> {
        let output = lab.trafctl(&[arguments, &["--format", "json"]].concat())?.output()?;
        assert_eq!(
            output.status.code(),
            Some(1),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let would_close = preview(&["close", month])?;
    assert_eq!(number(&would_close, "/would_close/total/out/bytes")?, 500_000, "{would_close}");
    assert_eq!(lab.run_json(&["close", "--format", "json"])?["closed"], Value::Array(Vec::new()));
    lab.run_ok(&["close", month, "--yes"])?;
    let correction = ["adjust", month, "--container", "101", "--class", "2", "--out", "-0.1MB"];
    assert_eq!(preview(&[&correction[..], &["--reason", "credited"]].concat())?["to_bill"][3], 400_000);
    assert_eq!(number(&lab.run_json(&["audit", "--format", "json"])?, "/chain_entries")?, 1);
    assert_eq!(number(&adjust(&["--yes"])?, "/chained/seq")?, 2);
    ensure!(adjust(&["--yes"]).is_err(), "the same correction twice");
    let report = lab.run_json(&["report", "--by", "month", "--container", "101", "--format", "json"])?;
    assert_eq!(report["corrected"][0]["frozen"][3], 500_000);
    assert_eq!(report["corrected"][0]["to_bill"][3], 400_000);
    let frozen = report["rows"].as_array().context("rows")?.iter().find(|row| row["period"] == month);
    assert_eq!(number(frozen.context("the month's line")?, "/out/bytes")?, 500_000);
    let audit = lab.run_json(&["audit", "--format", "json"])?;
    ensure!(audit["problems"].as_array().is_some_and(Vec::is_empty), "{audit}");
    assert_eq!(number(&audit, "/chain_entries")?, 2);
    Ok(())
}
