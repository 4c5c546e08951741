//! A time zone that is gone from the system's data, in every way that it can go: the daemon counts on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use traffic_tests::{
    Amounts, Lab,
    container::introduce,
    daemon::{Daemon, Resync},
    process::run_ok,
    traffic::udp_send,
};

use crate::{CLASSES, wait_for};

/// A fault, the time zone data under it, and what makes it.
type Fault<'a> = (&'static str, &'a Path, &'a (dyn Fn() -> Result<()> + 'a));

/// Runs a command under some time zone data; returns its output if it ends as expected.
fn under(lab: &Lab, zones: &Path, arguments: &[&str], status: i32) -> Result<Output> {
    let output = lab.trafctl(arguments)?.env("TZDIR", zones).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(status), "{arguments:?}: {}: {text}", output.status);
    Ok(output)
}

fn json(lab: &Lab, zones: &Path, arguments: &[&str]) -> Result<Value> {
    let output = under(lab, zones, &[arguments, &["--format", "json"]].concat(), 0)?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The system's time zone data, as a directory of its own with a zone of nine hours.
fn data(lab: &Lab) -> Result<(PathBuf, PathBuf)> {
    let zones = lab.path("zones");
    fs::create_dir_all(zones.join("Test"))?;
    let city = zones.join("Test/City");
    fs::copy("/usr/share/zoneinfo/Asia/Tokyo", &city).context("this test needs the package tzdata")?;
    fs::copy("/usr/share/zoneinfo/UTC", zones.join("UTC"))?;
    Ok((zones, city))
}

#[test]
fn a_zone_that_is_gone_stops_nothing_and_is_reported() -> Result<()> {
    let lab = Lab::new("zone-gone")?;
    let classes = lab.write("networks_classes", CLASSES)?;
    let socket = lab.path("api.sock");
    lab.configure(&format!(
        "class_file = {classes:?}\n[drain]\ninterval = \"100ms\"\n[ledger]\ntime_zone = \"Test/City\"\n\
         [api]\nlisten = \"unix:{}\"\n",
        socket.display()
    ))?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let (zones, city) = data(&lab)?;
    let whole = fs::read(&city)?;
    let start = |zones: &Path| -> Result<Daemon> {
        let mut daemon = Daemon::spawn(lab.trafctl(&["run"])?.env("TZDIR", zones), Resync::Off)?;
        daemon.ready()?;
        Ok(daemon)
    };
    let mut expected = Amounts::default();
    let counts = |zones: &Path, expected: &mut Amounts| -> Result<()> {
        let sent = udp_send(a.namespace(), b.namespace(), (b.v4(), 4000).into(), 17, 333)?;
        *expected = expected.plus(Amounts::outgoing(sent.packets, sent.l3_bytes));
        wait_for("what was sent in the ledger", || {
            let mut command =
                lab.trafctl(&["report", "--by", "day", "--container", "101", "--format", "json"])?;
            let output = command.env("TZDIR", zones).output()?;
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let rows = report["rows"].as_array().cloned().unwrap_or_default();
            let bytes: u64 = rows.iter().filter_map(|row| row["out"]["bytes"].as_u64()).sum();
            Ok(bytes == expected.out_bytes)
        })
    };
    let borders = || {
        let sql = "SELECT start, end, name FROM border ORDER BY level, start";
        run_ok(Command::new("sqlite3").arg(lab.state_dir().join("ledger.sqlite")).arg(sql))
    };
    let daemon = start(&zones)?;
    counts(&zones, &mut expected)?;
    daemon.stop()?;
    let booked = borders()?;
    ensure!(booked.lines().count() >= 2, "{booked}");

    let bare = lab.path("nowhere");
    let remove = || fs::remove_file(&city).or_else(|_| fs::remove_dir(&city));
    let faults: [Fault<'_>; 6] = [
        ("another directory, which does not exist", &bare, &|| Ok(())),
        ("removed", &zones, &|| Ok(remove()?)),
        ("empty", &zones, &|| Ok(fs::write(&city, "")?)),
        ("cut off", &zones, &|| Ok(fs::write(&city, &whole[..whole.len() / 2])?)),
        ("garbage", &zones, &|| Ok(fs::write(&city, "TZif? not at all".repeat(99))?)),
        ("a directory", &zones, &|| Ok(remove().and_then(|()| fs::create_dir(&city))?)),
    ];
    for (number, (fault, zones, make)) in faults.into_iter().enumerate() {
        make()?;
        let daemon = start(zones).context(fault)?;
        counts(zones, &mut expected).with_context(|| format!("{fault}: {}", daemon.log()))?;
        // The same problem in every place.
        wait_for("the problem in status", || {
            let mut status = lab.trafctl(&["status", "--format", "json"])?;
            let status = status.env("TZDIR", zones).output()?;
            let document: Value = serde_json::from_slice(&status.stdout)?;
            let problems = document["problems"].to_string();
            let is_named = problems.contains("time_zone: ") && problems.contains("Test/City");
            Ok(is_named && status.status.code() == Some(1))
        })
        .with_context(|| format!("{fault}: {}", daemon.log()))?;
        let metrics = run_ok(
            Command::new("curl").args(["-s", "--unix-socket"]).arg(&socket).arg("http://localhost/metrics"),
        )?;
        ensure!(metrics.contains("trafctl_component_works{component=\"time_zone\"} 0\n"), "{fault}");
        assert_eq!(borders()?, booked, "{fault}");
        assert_eq!(json(&lab, zones, &["audit"])?["problems"], serde_json::json!([]), "{fault}");
        let backup = lab.path(&format!("backup{number}"));
        under(&lab, zones, &["ledger", "backup", backup.to_str().context("UTF-8")?], 0)?;
        under(&lab, zones, &["gaps"], 0)?;
        under(&lab, zones, &["close"], 0)?;
        daemon.stop_after_errors()?;
    }

    // It is back while a daemon runs.
    let daemon = start(&zones)?;
    fs::remove_dir(&city)?;
    fs::write(&city, &whole)?;
    wait_for("the zone's rules", || Ok(daemon.log().contains("time_zone works again")))?;
    counts(&zones, &mut expected)?;
    assert_eq!(borders()?, booked);
    // And it goes while the daemon runs, which keeps the rules that it knows.
    fs::remove_file(&city)?;
    counts(&zones, &mut expected)?;
    assert_eq!(borders()?, booked);
    daemon.stop_after_errors()
}
