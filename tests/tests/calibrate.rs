//! `trafctl calibrate`: known traffic through a throwaway container, and what was counted of it.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use serde_json::Value;
use traffic_tests::{Daemon, Lab, check::eventually, process::run_ok, traffic::send_raw};

const CLASSES: &str = "1 10.0.0.0/8\n2 10.1.0.0/16\n3 192.0.2.0/24\n3 2001:db8:3::/48\n4 2001:db8:3:4::/64\n";

/// The same prefixes in other classes.
const OTHER_CLASSES: &str =
    "7 10.0.0.0/8\n7 10.1.0.0/16\n8 192.0.2.0/24\n8 2001:db8:3::/48\n8 2001:db8:3:4::/64\n";

fn lab(name: &str) -> Result<Lab> {
    let lab = Lab::new(name)?;
    let classes = lab.write("classes", CLASSES)?;
    lab.configure(&format!("class_file = {classes:?}\n"))?;
    Ok(lab)
}

fn calibrate(lab: &Lab) -> Result<(bool, Value, String)> {
    let output = lab.trafctl(&["calibrate", "--format", "json"])?.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_slice(&output.stdout).with_context(|| said.clone())?;
    Ok((output.status.success(), document, said))
}

#[test]
fn known_traffic_is_counted_to_the_byte() -> Result<()> {
    let lab = lab("calibrate")?;
    let daemon = Daemon::start(&lab)?;
    let (exact, document, said) = calibrate(&lab)?;
    ensure!(exact, "{document:#} {said}");
    assert_eq!(document["exact"], true);
    assert_eq!(document["sent"], document["counted"]);
    let places: Vec<(u64, &str)> = document["by_class"]
        .as_array()
        .context("no classes")?
        .iter()
        .map(|line| (line["class"].as_u64().unwrap(), line["family"].as_str().unwrap()))
        .collect();
    let both = [(0, "ipv4"), (0, "ipv6"), (1, "ipv4"), (2, "ipv4"), (3, "ipv4"), (3, "ipv6"), (4, "ipv6")];
    assert_eq!(places, both);
    // Again: the container is new, and its counters go on.
    let (exact, again, _) = calibrate(&lab)?;
    ensure!(exact, "{again:#}");
    assert_eq!(again["sent"], document["sent"]);

    // What was sent is with its container, and nowhere else.
    let dump = lab.run_json(&["dump", "--format", "json"])?;
    let sums = dump["counters"].as_array().context("no counters")?.iter().try_fold(0, |sum, counter| {
        ensure!(counter["container"] == "trafctl-calibration", "{counter}");
        Ok(sum + counter["out_bytes"].as_u64().unwrap())
    })?;
    assert_eq!(sums, 2 * document["sent"]["out_bytes"].as_u64().unwrap());
    assert_eq!(dump["faults"], serde_json::json!([]));
    eventually("nothing of it is left", || Ok(!lab.host().ip("-o link")?.contains("trafctl-cal")))?;
    let status = lab.trafctl(&["status", "--format", "json"])?.output()?;
    let status: Value = serde_json::from_slice(&status.stdout)?;
    assert_eq!(status["problems"], serde_json::json!([]), "{status:#}");
    daemon.stop()
}

/// Adds bytes that no packet had to the first column of each slot that may be the container's, in the part of a
/// counter that the kernel program does not write.
fn add_bytes(carried: &mut Array<MapData, [u64; 8]>, done: &AtomicBool) -> Result<u64> {
    let mut added = 0;
    while !done.load(Ordering::Acquire) {
        added += 1;
        for slot in 0..4 {
            // Packets and bytes of IPv4 to the container are the first of four pairs.
            let mut value = [0; 8];
            value[1] = added;
            carried.set(slot * 16, value, 0)?;
        }
    }
    Ok(added)
}

#[test]
fn one_byte_too_many_is_found() -> Result<()> {
    let lab = lab("calibrate_byte")?;
    let daemon = Daemon::start(&lab)?;
    ensure!(calibrate(&lab)?.0);
    let pin = lab.bpffs().join("maps/CLASS_CARRIED");
    let map = Map::Array(MapData::from_pin(&pin).with_context(|| pin.display().to_string())?);
    let mut carried = Array::try_from(map)?;
    let done = AtomicBool::new(false);
    let (added, calibrated) = thread::scope(|scope| {
        let adding = scope.spawn(|| add_bytes(&mut carried, &done));
        let calibrated = calibrate(&lab);
        done.store(true, Ordering::Release);
        (adding.join(), calibrated)
    });
    ensure!(added.expect("it adds")? > 0);
    let (exact, document, _) = calibrated?;
    ensure!(!exact, "{document:#}");
    assert_eq!(document["exact"], false);
    let differing: Vec<&Value> = document["by_class"]
        .as_array()
        .context("no classes")?
        .iter()
        .filter(|line| line["exact"] == false)
        .collect();
    ensure!(
        differing.len() == 1 && differing[0]["class"] == 0 && differing[0]["family"] == "ipv4",
        "{differing:?}"
    );
    daemon.stop()
}

#[test]
fn packets_of_others_are_not_taken_for_a_difference() -> Result<()> {
    let lab = lab("calibrate_others")?;
    let daemon = Daemon::start(&lab)?;
    let done = AtomicBool::new(false);
    // A packet that is counted, to nobody.
    let frame =
        [&[2; 12][..], &[8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 1, 17, 0, 0, 10, 9, 9, 9, 10, 1, 1, 1]].concat();
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                // Before there is such an interface, and when it is gone, it fails.
                let _ = send_raw(lab.host(), "trafctl-cal", &frame);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let output = lab.trafctl(&["calibrate"]).and_then(|mut command| Ok(command.output()?));
        done.store(true, Ordering::Release);
        output
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && output.stdout.is_empty(), "{said}");
    ensure!(said.contains("other packets passed") && said.contains("in each of 3 measurements"), "{said}");
    daemon.stop()
}

#[test]
fn two_at_once_do_not_disturb_each_other() -> Result<()> {
    let lab = lab("calibrate_two")?;
    let daemon = Daemon::start(&lab)?;
    let all: Vec<_> = (0..3)
        .map(|_| Ok(lab.trafctl(&["calibrate"])?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?))
        .collect::<Result<_>>()?;
    let mut exact = 0;
    for one in all {
        let output = one.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        exact += u32::from(output.status.success());
        ensure!(output.status.success() || said.contains("another calibration is running"), "{said}");
    }
    ensure!(exact > 0);
    daemon.stop()
}

/// Starts a calibration, and waits until its interface is there.
fn begin(lab: &Lab) -> Result<Child> {
    let mut command = lab.trafctl(&["calibrate", "--format", "json"])?;
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    eventually("the interface is there", || Ok(lab.host().ip("-o link")?.contains("trafctl-cal")))?;
    Ok(running)
}

#[test]
fn a_class_table_that_comes_meanwhile_decides() -> Result<()> {
    let lab = lab("calibrate_table")?;
    lab.run_ok(&["attach"])?;
    // It waits for somebody who attaches.
    let running = begin(&lab)?;
    lab.write("classes", OTHER_CLASSES)?;
    lab.run_ok(&["classes", "load"])?;
    let daemon = Daemon::start(&lab)?;
    let output = running.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stdout));
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let classes: Vec<_> = document["by_class"]
        .as_array()
        .context("no classes")?
        .iter()
        .map(|line| line["class"].as_u64())
        .collect();
    assert_eq!(classes, [0, 0, 7, 8, 8].map(Some));
    daemon.stop()
}

#[test]
fn packets_that_are_segmented_before_they_are_counted_are_as_many() -> Result<()> {
    let lab = lab("calibrate_offload")?;
    lab.run_ok(&["attach"])?;
    let running = begin(&lab)?;
    run_ok(lab.host().command("ethtool").args(["-K", "trafctl-cal", "tso", "off", "gso", "off"]))?;
    let daemon = Daemon::start(&lab)?;
    let output = running.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    daemon.stop()
}

#[test]
fn the_daily_one_ends_at_once_when_it_is_stopped() -> Result<()> {
    let lab = lab("calibrate_daily")?;
    let mut running = lab.trafctl(&["calibrate", "--daily"])?.stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    BufReader::new(running.stderr.take().context("no stderr")?).read_line(&mut said)?;
    ensure!(said.contains("nothing to do: set `at` under [calibration]"), "{said}");
    run_ok(Command::new("kill").args(["-TERM", &running.id().to_string()]))?;
    assert_eq!(running.wait()?.signal(), Some(15));
    Ok(())
}

#[test]
fn without_a_daemon_nothing_is_proved() -> Result<()> {
    let lab = lab("calibrate_alone")?;
    lab.run_ok(&["attach"])?;
    let output = lab.trafctl(&["calibrate"])?.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && output.stdout.is_empty(), "{said}");
    ensure!(said.contains("nobody attached to the new interface trafctl-cal within"), "{said}");
    Ok(())
}
