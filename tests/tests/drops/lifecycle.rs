//! The drop program's attachment: without a daemon, off and on, taken over, and purged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use traffic_tests::check::{self, eventually, is_well};
use traffic_tests::traffic::udp_send;
use traffic_tests::{Daemon, Lab, Resync};

use crate::node::{
    CLASSES, PAYLOAD, all_attributed, at, bridged, counts, dump, figure, host, load_program, node, received,
    sent, settles,
};

/// How often the daemon looks whether drops are counted, in tests of that.
const OFTEN: Resync = Resync::Every(Duration::from_millis(200));

/// The pins of links, of which there is one while drops are counted.
fn links(lab: &Lab) -> Result<Vec<String>> {
    let directory = lab.bpffs().join("drops");
    let mut names = Vec::new();
    if directory.exists() {
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.starts_with("link-").then_some(name));
        }
    }
    Ok(names)
}

fn configure(lab: &Lab, more: &str) -> Result<()> {
    lab.configure(&format!("class_file = {:?}\n{more}", lab.path("classes")))
}

#[test]
fn it_is_on_by_default_and_off_leaves_nothing() -> Result<()> {
    let lab = node("drops-off", "")?;
    let [a, b] = bridged(&lab)?;
    ensure!(links(&lab)?.len() == 1, "{:?}", links(&lab)?);
    let status = lab.run_json(&["status", "--format", "json"])?;
    ensure!(
        status["drops"]["in_force"] == true && status["drops"]["lacks"] == serde_json::json!([]),
        "{status}"
    );

    configure(&lab, "[drops]\nenabled = false\n")?;
    lab.run_ok(&["attach"])?;
    ensure!(links(&lab)?.is_empty(), "{:?}", links(&lab)?);
    let refused = check::trafctl(&lab, &["dump", "--drops"])?;
    let said = check::stderr(&refused);
    ensure!(!refused.status.success() && said.contains("drops are not counted"), "{said}");
    let status = lab.run_json(&["status", "--format", "json"])?;
    ensure!(status["drops"]["configured"] == false && status["drops"]["in_force"] == false, "{status}");
    is_well(&lab)?;
    // Everything else is as before.
    let count = udp_send(a.namespace(), b.namespace(), at(b.v4()), 10, PAYLOAD)?;
    ensure!(count.packets_received == 10, "{count:?}");

    configure(&lab, "")?;
    lab.run_ok(&["attach"])?;
    load_program(&lab)?;
    host(&lab, "tc qdisc add dev veth102.0 root tbf rate 10mbit burst 5000 limit 12000")?;
    let to = b.v6();
    let count = udp_send(a.namespace(), b.namespace(), at(to), 900, PAYLOAD)?;
    settles(&lab, ("101", 2, to, "out"), sent(&count), received(&count, to))?;

    lab.run_ok(&["detach", "--purge", "--yes"])?;
    ensure!(
        links(&lab)?.is_empty() && !lab.bpffs().join("drops/DROP_COUNTERS").exists(),
        "{:?}",
        links(&lab)?
    );
    Ok(())
}

/// A start hook waits for `attach`, and the verifier takes its time.
#[test]
fn only_the_daemon_loads_the_program() -> Result<()> {
    let lab = node("drops-hook", "")?;
    let _container = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    lab.run_ok(&["attach"])?;
    ensure!(!lab.bpffs().join("drops/DROP_CONTROL").exists() && links(&lab)?.is_empty());
    let drops = lab.run_json(&["status", "--format", "json"])?["drops"].take();
    let reason = drops["reason"].as_str().unwrap_or_default();
    ensure!(drops["in_force"] == false && drops["loading"] == false && reason.contains("daemon"), "{drops}");
    let refused = check::trafctl(&lab, &["dump", "--drops"])?;
    ensure!(!refused.status.success() && check::stderr(&refused).contains("trafctl run"), "{refused:?}");
    is_well(&lab)?;

    // A daemon that is stopped while it loads ends at once, and the next one completes the load.
    for _ in 0..3 {
        Daemon::start(&lab)?.stop()?;
    }
    load_program(&lab)?;
    let loaded = links(&lab)?;
    ensure!(loaded.len() == 1, "{loaded:?}");
    // It is found by the next start.
    load_program(&lab)?;
    ensure!(links(&lab)? == loaded, "{loaded:?} {:?}", links(&lab)?);
    Ok(())
}

/// The counters move to larger maps while packets are dropped: another program takes over, and neither loses a
/// drop nor counts one twice.
#[test]
fn a_program_takes_over_between_two_drops() -> Result<()> {
    let lab = node("drops-take-over", "")?;
    let [a, b] = bridged(&lab)?;
    let to = b.v4();
    host(&lab, "tc qdisc add dev veth102.0 root tbf rate 10mbit burst 5000 limit 12000")?;
    let before = links(&lab)?;
    let daemon = Daemon::start_with(&lab, OFTEN)?;
    let is_done = AtomicBool::new(false);
    let (sent, changes) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut counts = Vec::new();
            while !is_done.load(Ordering::Acquire) {
                counts.push(udp_send(a.namespace(), b.namespace(), at(to), 400, PAYLOAD)?);
            }
            anyhow::Ok(counts)
        });
        let change = || -> Result<()> {
            for containers in [2_100, 2_200, 2_300] {
                configure(&lab, &format!("[limits]\ncontainers = {containers}\n"))?;
                let former = links(&lab)?;
                lab.run_ok(&["attach"])?;
                eventually("another program takes over", || {
                    let now = links(&lab)?;
                    Ok(now.len() == 1 && now != former && counts(&lab)?)
                })?;
            }
            Ok(())
        };
        let changes = change();
        is_done.store(true, Ordering::Release);
        (sender.join(), changes)
    });
    changes?;
    daemon.stop()?;
    let sent = sent.map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    let after = links(&lab)?;
    ensure!(before.len() == 1 && after.len() == 1 && before != after, "{before:?} {after:?}");
    let sum = |each: fn(&traffic_tests::traffic::UdpCount) -> u64| sent.iter().map(each).sum::<u64>();
    let packets = sum(|count| count.packets);
    let got = sum(|count| count.packets_received);
    ensure!(got < packets, "no loss: {sent:?}");
    let of = |packets| crate::node::Amount { packets, bytes: packets * (PAYLOAD as u64 + 28) };
    for line in [("101", 2, to, "out"), ("102", 1, to, "in")] {
        settles(&lab, line, of(packets), of(got))?;
    }
    all_attributed(&dump(&lab)?)
}

#[test]
fn the_daemon_attaches_it_again_and_its_end_changes_nothing() -> Result<()> {
    let lab = node("drops-daemon", "")?;
    let [a, b] = bridged(&lab)?;
    host(&lab, "tc qdisc add dev veth102.0 root tbf rate 10mbit burst 5000 limit 12000")?;
    let to = b.v4();
    let daemon = Daemon::start_with(&lab, OFTEN)?;
    for name in links(&lab)? {
        std::fs::remove_file(lab.bpffs().join("drops").join(name))?;
    }
    // A program is attached before it is the one that counts.
    eventually("the daemon attaches the drop program", || Ok(links(&lab)?.len() == 1 && counts(&lab)?))?;
    let count = udp_send(a.namespace(), b.namespace(), at(to), 600, PAYLOAD)?;
    daemon.stop()?;
    let line = ("101", 2, to, "out");
    settles(&lab, line, sent(&count), received(&count, to))?;
    let had = figure(&dump(&lab)?, line, "dropped");
    ensure!(had.packets > 0, "{had:?}");
    // No daemon is needed to count.
    let more = udp_send(a.namespace(), b.namespace(), at(to), 600, PAYLOAD)?;
    let now = figure(&dump(&lab)?, line, "dropped");
    ensure!(now.packets > had.packets && more.packets_received < more.packets, "{had:?} {now:?}");
    ensure!(std::fs::read_to_string(lab.path("classes")).context("classes")? == CLASSES);
    Ok(())
}
