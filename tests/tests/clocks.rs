//! The ledger across a reboot and clock steps while the daemon runs. Losses are recorded as gaps, and
//! everything else is billed once.

use std::{fs, net::SocketAddr, process::Command};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Container, Counters, Daemon, Lab, Resync, check::eventually, process::run_ok, traffic::udp_send,
    wall_clock,
};

fn node(name: &str) -> Result<(Lab, Container, Container)> {
    Lab::with_two(name, "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.2/32\n", "[drain]\ninterval = \"100ms\"\n")
}

fn send(a: &Container, b: &Container, datagrams: u64) -> Result<u64> {
    Ok(udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), datagrams, 100)?.l3_bytes)
}

/// One number from the ledger, read with sqlite3.
fn ask(lab: &Lab, query: &str) -> Result<i64> {
    let text = run_ok(Command::new("sqlite3").arg(lab.state_dir().join("ledger.sqlite")).arg(query))?;
    text.trim().parse().with_context(|| format!("{query}: {text:?}"))
}

/// Bytes that 101 sent to 102, in any bucket.
fn recorded(lab: &Lab) -> Result<i64> {
    ask(
        lab,
        "select coalesce(sum(out_bytes), 0) from traffic_5min t join container c on c.id = t.container
         where c.label = '101' and t.class = 2",
    )
}

/// Reasons and details of all gaps.
fn gaps(lab: &Lab) -> Result<Vec<(String, String)>> {
    let gaps = lab.run_json(&["gaps", "--format", "json"])?;
    let text = |gap: &serde_json::Value, field: &str| gap[field].as_str().unwrap_or_default().to_owned();
    let gaps = gaps["gaps"].as_array().context("a list of gaps")?;
    Ok(gaps.iter().map(|gap| (text(gap, "reason"), text(gap, "detail"))).collect())
}

fn audit(lab: &Lab) -> Result<()> {
    let audit = lab.run_json(&["audit", "--format", "json"])?;
    ensure!(audit["problems"].as_array().is_some_and(Vec::is_empty), "{audit}");
    Ok(())
}

#[test]
fn a_reboot_loses_only_what_was_not_drained_and_records_a_gap() -> Result<()> {
    let (lab, mut a, mut b) = node("clocks-reboot")?;
    let mut daemon = Daemon::start(&lab)?;
    let before = i64::try_from(send(&a, &b, 120)?)?;
    eventually("the drain", || Ok(recorded(&lab)? == before))?;
    // A power loss: what was counted after the last drain is lost with the maps.
    daemon.kill()?;
    send(&a, &b, 33)?;
    lab.lose_power([&mut a, &mut b])?;

    let mut daemon = Daemon::spawn(&mut lab.in_another_boot(&["run"])?, Resync::Off)?;
    daemon.ready()?;
    let after = i64::try_from(send(&a, &b, 77)?)?;
    eventually("the drain after the reboot", || Ok(recorded(&lab)? == before + after))?;
    daemon.stop()?;
    let gaps: Vec<_> = gaps(&lab)?.into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(gaps, ["reboot"]);
    assert_eq!(ask(&lab, "select count(distinct boot_id) from epoch")?, 2);
    audit(&lab)
}

#[test]
fn a_clock_set_by_hours_loses_nothing_and_is_recorded() -> Result<()> {
    let (lab, a, b) = node("clocks-step")?;
    let offset = lab.write("offset", "+0")?;
    let mut daemon = Daemon::spawn(&mut wall_clock::of_file(lab.trafctl(&["run"])?, &offset), Resync::Off)?;
    daemon.ready()?;
    let now = wall_clock::seconds_since_1970()?;
    let mut sum = i64::try_from(send(&a, &b, 50)?)?;
    eventually("the drain", || Ok(recorded(&lab)? == sum))?;
    // Five hours forward, eight hours back, and back to the real time.
    for (at, set_to) in ["+18000", "-10800", "+0"].iter().enumerate() {
        fs::write(&offset, set_to)?;
        eventually("the step to be recorded", || Ok(gaps(&lab)?.len() == at + 1))?;
        sum += i64::try_from(send(&a, &b, 60 + u64::try_from(at)?)?)?;
        eventually("the drain after the step", || Ok(recorded(&lab)? == sum))?;
    }
    daemon.stop()?;
    let mut steps = Vec::new();
    for (reason, detail) in gaps(&lab)? {
        assert_eq!(reason, "clock_stepped");
        let seconds = detail.strip_prefix("the clock was set by ").and_then(|rest| rest.strip_suffix(" s"));
        steps.push(seconds.with_context(|| detail.clone())?.parse::<f64>()?);
    }
    steps.sort_by(f64::total_cmp);
    let close = steps.iter().zip([-28_800.0, 10_800.0, 18_000.0]).all(|(step, set)| (step - set).abs() < 1.0);
    ensure!(close && steps.len() == 3, "{steps:?}");
    // Each part is in the bucket that the clock showed.
    let (first, last) = (
        ask(&lab, "select min(start) from traffic_5min")?,
        ask(&lab, "select max(start) from traffic_5min")?,
    );
    ensure!(first < now - 10_000 && last > now + 17_000, "{first} to {last}, and it is {now}");
    let live = Counters::at_rest(&lab)?.class("101", 2, "ipv4");
    assert_eq!(i64::try_from(live.out_bytes)?, sum);
    audit(&lab)
}
