//! Looks at live counters between two drains: they find a threshold in time, and ask for no drain in vain.

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use traffic_tests::{Container, Daemon, Lab, check::eventually, container::introduce, traffic::udp_send};

use super::{PATIENCE, crossings, lines, node, quotas, runner, send};

#[test]
fn a_threshold_is_found_between_two_drains() -> Result<()> {
    let (lab, a, b) = node("quota-live")?;
    let text = fs::read_to_string(lab.config())?;
    // The next drains are those at the ends of five-minute buckets.
    fs::write(lab.config(), text.replace("100ms", "1h"))?;
    let log = lab.path("ran");
    quotas(&lab, 100_000, &format!("command = ['/bin/sh', '-c', 'cat >>{}']", log.display()))?;
    let daemon = Daemon::start(&lab)?;
    let mut actions = runner(&lab)?;
    let found = || {
        let all = crossings(&lab)?.into_iter().map(|(percent, event, _)| (percent, event));
        anyhow::Ok(all.collect::<Vec<_>>())
    };
    let reached = |percent: u64| (percent, "reached".to_owned());
    send(&a, &b, 30)?;
    ensure!(found()?.is_empty(), "no threshold is reached");
    send(&a, &b, 25)?;
    eventually("the half is reached", || Ok(found()? == [reached(50)])).with_context(|| daemon.log())?;
    send(&a, &b, 30)?;
    ensure!(found()? == [reached(50)], "nothing else is reached");
    send(&a, &b, 20)?;
    eventually("the action has run", || Ok(!lines(&log).is_empty())).with_context(|| daemon.log())?;
    let document: serde_json::Value = serde_json::from_str(&lines(&log)[0])?;
    ensure!(document["used"].as_u64() >= Some(100_000) && document["threshold_percent"] == 100, "{document}");
    ensure!(found()? == [reached(50), reached(100)]);
    actions.signal(Signal::TERM)?;
    actions.wait(PATIENCE)?;
    daemon.stop()?;
    Ok(())
}

/// The quotas of three containers, of which each counts something else.
const QUOTAS: &str = "\
[[quota]]
name = 'second'
container = '101'
classes = [2]
direction = 'in'
allowance = '100kB'
thresholds = ['100%']

[[quota]]
name = 'third'
container = '102'
classes = [3]
direction = 'out'
allowance = '100kB'
thresholds = ['50%', '100%']

[[quota]]
name = 'billed'
container = '103'
direction = 'sum'
allowance = '100kB'
thresholds = ['100%']
";

/// What a look would count wrongly makes it ask for a drain in vain, after which it leaves the container alone: then the
/// real crossing is not found. That another container's crossing was found shows that there was a look meanwhile.
#[test]
fn looks_count_the_classes_and_directions_of_each_quota_alone() -> Result<()> {
    let lab = Lab::new("quota-looks")?;
    let text = "1 0.0.0.0/0\n1 ::/0\n2 198.51.100.0/24\n3 203.0.113.0/24\n0 192.0.2.0/24\n";
    let classes = lab.write("networks_classes", text)?;
    // The next drains are those at the ends of five-minute buckets.
    lab.configure(&format!("class_file = {classes:?}\n[drain]\ninterval = '1h'\n"))?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    let c = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    let peer = |name: &str, v4: [u8; 4], v6: &str| lab.bridged_as(name, v4.into(), v6.parse()?);
    let first = peer("eth1", [10, 9, 0, 9], "fd00:9::1")?;
    let second = peer("eth2", [198, 51, 100, 7], "fd00:9::2")?;
    let third = peer("eth3", [203, 0, 113, 7], "fd00:9::3")?;
    let unbilled = peer("eth4", [192, 0, 2, 7], "fd00:9::4")?;
    introduce(&[&a, &b, &c, &first, &second, &third, &unbilled])?;
    lab.write("quotas.toml", QUOTAS)?;
    let daemon = Daemon::start(&lab)?;
    let udp = |from: &Container, to: &Container, datagrams: u64| {
        udp_send(from.namespace(), to.namespace(), SocketAddr::new(to.v4(), 0), datagrams, 972).map(drop)
    };
    let found = || {
        let document = lab.run_json(&["quota", "crossings", "--format", "json"])?;
        let rows = document["crossings"].as_array().context("crossings")?.iter();
        let text = |row: &serde_json::Value| {
            format!("{} {}", row["quota"].as_str().unwrap_or_default(), row["threshold_percent"])
        };
        anyhow::Ok(rows.map(text).collect::<Vec<_>>())
    };
    // One datagram is missing of each, and of what does not count there is more.
    for (container, noise) in [(&a, &third), (&b, &second), (&c, &unbilled)] {
        udp(container, noise, 120)?;
        udp(noise, container, 120)?;
    }
    udp(&a, &second, 120)?;
    udp(&third, &b, 120)?;
    udp(&second, &a, 99)?;
    udp(&c, &first, 59)?;
    udp(&second, &c, 40)?;
    udp(&b, &third, 50)?;
    eventually("a look finds the half of one", || Ok(found()? == ["third 50"]))
        .with_context(|| daemon.log())?;
    // As many looks as it takes: those of all three are as close.
    udp(&b, &third, 50)?;
    eventually("a look finds the whole of it", || Ok(found()? == ["third 50", "third 100"]))
        .with_context(|| daemon.log())?;
    udp(&second, &a, 1)?;
    eventually("a look finds the second class", || Ok(found()?.contains(&"second 100".to_owned())))
        .with_context(|| daemon.log())?;
    ensure!(found()?.len() == 3, "{:?}", found()?);
    udp(&c, &third, 1)?;
    eventually("a look finds the sum", || Ok(found()?.contains(&"billed 100".to_owned())))
        .with_context(|| daemon.log())?;
    ensure!(found()?.len() == 4, "{:?}", found()?);
    daemon.stop()?;
    Ok(())
}
