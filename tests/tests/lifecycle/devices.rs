//! Which device is which: devices that are made again, and devices that leave and come back.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use traffic_tests::namespace::Namespace;
use traffic_tests::traffic::RawSocket;
use traffic_tests::witness::InterfaceStatistics;
use traffic_tests::{Counters, Lab};

use crate::daemon::Daemon;
use crate::node::{CLASSES, eventually, is_well, problems};

const NAME: &str = "veth110.0";

fn node(name: &str, attach: &str) -> Result<Lab> {
    let lab = Lab::new(name)?;
    let classes = lab.write("classes", CLASSES)?;
    lab.configure(&format!(
        "class_file = {classes:?}\nattach = \"{attach}\"\n[drain]\ninterval = \"100ms\"\n"
    ))?;
    Ok(lab)
}

/// Makes the device under this index, with its other end beside it.
fn make(lab: &Lab, index: u32) -> Result<()> {
    lab.host().ip_batch(&format!(
        "link add {NAME} index {index} type veth peer name other\nlink set other up\nlink set {NAME} up"
    ))
}

/// Sends frames that nothing answers.
fn send(lab: &Lab, frames: u32) -> Result<()> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 253, 0, 0]);
    frame.extend([10, 1, 0, 110, 10, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    let socket = RawSocket::open(lab.host(), "other")?;
    (0..frames).try_for_each(|_| socket.send(&frame))
}

fn missed(lab: &Lab) -> Result<u64> {
    Ok(Counters::read(lab)?.interface(NAME).out_unseen_skbs)
}

fn gaps(lab: &Lab) -> Result<Vec<Value>> {
    Ok(lab.run_json(&["gaps", "--format", "json"])?["gaps"].as_array().cloned().unwrap_or_default())
}

fn made_again(attach: &str) -> Result<()> {
    let lab = node(&format!("again-{attach}"), attach)?;
    make(&lab, 4000)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let before = missed(&lab)?;
    send(&lab, 100)?;
    // The daemon is late: what passes meanwhile is more than the former device has ever counted.
    daemon.signal(Signal::STOP)?;
    lab.host().ip(&format!("link delete {NAME}"))?;
    make(&lab, 4000)?;
    send(&lab, 600)?;
    let passed = InterfaceStatistics::read(lab.host(), NAME)?.rx_packets;
    ensure!(passed >= 600);
    daemon.signal(Signal::CONT)?;
    eventually("the new device is attached", || Ok(missed(&lab)? > before && is_well(&lab).is_ok()))?;
    let row = Counters::read(&lab)?.interface(NAME);
    assert_eq!(row.out_unseen_skbs - before, passed, "all that passed the new device was missed");
    send(&lab, 30)?;
    assert_eq!(Counters::read(&lab)?.interface(NAME).out_skbs - row.out_skbs, 30);
    eventually("the gap has that size", || {
        let all: u64 = gaps(&lab)?.iter().filter_map(|gap| gap["size"]["out_skbs"].as_u64()).sum();
        Ok(all == before + passed)
    })?;
    daemon.stop()
}

#[test]
fn a_device_made_again_under_its_name_and_index_is_a_new_one() -> Result<()> {
    made_again("tcx")
}

#[test]
fn a_device_with_filters_made_again_under_its_name_and_index_is_a_new_one() -> Result<()> {
    made_again("clsact")
}

fn moves(attach: &str) -> Result<()> {
    let lab = node(&format!("moves-{attach}"), attach)?;
    make(&lab, 4000)?;
    let elsewhere = [Namespace::new("moves-x")?, Namespace::new("moves-y")?];
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let before = missed(&lab)?;
    send(&lab, 1000)?;
    for round in 0..4 {
        let [x, y] = elsewhere.each_ref().map(Namespace::name);
        lab.host().ip(&format!("link set {NAME} netns {x}"))?;
        if round % 2 == 1 {
            // Through a second namespace, under another name, and its index is taken meanwhile.
            elsewhere[0].ip(&format!("link set {NAME} name other{round}"))?;
            elsewhere[0].ip(&format!("link set other{round} netns {y}"))?;
            elsewhere[1].ip(&format!("link set other{round} name {NAME}"))?;
        }
        let from = &elsewhere[round % 2];
        if round == 2 {
            eventually("the daemon has seen it go", || Ok(daemon.log().contains(": gone")))?;
        }
        from.ip(&format!("link set {NAME} netns {}", lab.host().name()))?;
        lab.host().ip(&format!("link set {NAME} up"))?;
        eventually("it is attached", || {
            Ok(!problems(&lab)?.iter().any(|problem| problem.contains("not attached")))
        })?;
        daemon.settled()?;
        send(&lab, 10)?;
    }
    eventually("everything is counted or missed", || {
        let row = Counters::read(&lab)?.interface(NAME);
        let kernel = InterfaceStatistics::read(lab.host(), NAME)?.rx_packets;
        // Multicast noise of an interface that comes up may pass while it is not attached.
        Ok(row.out_skbs + row.out_unseen_skbs == kernel)
    })
    .with_context(|| format!("{:?}", Counters::read(&lab).map(|counters| counters.interface(NAME))))?;
    let lost = missed(&lab)? - before;
    ensure!(lost < 50, "what was counted before must not be a gap: {lost}");
    daemon.stop()
}

#[test]
fn a_device_that_leaves_and_returns_leaves_no_gap_of_what_was_counted() -> Result<()> {
    moves("tcx")
}

#[test]
fn a_device_with_filters_that_leaves_and_returns_leaves_no_gap_of_what_was_counted() -> Result<()> {
    moves("clsact")
}

#[test]
fn an_unwatched_port_beside_watched_ones_is_a_problem_unless_ignored() -> Result<()> {
    let lab = node("ports", "tcx")?;
    let config = fs::read_to_string(lab.config())?;
    lab.configure(&format!("{config}[host]\npreset = \"virtuozzo\"\n"))?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    lab.run_ok(&["attach"])?;
    is_well(&lab)?;
    // As a container does that is root on the host, from its own namespace.
    let outside = Namespace::new("ports-evil")?;
    lab.host().ip(&format!("link add evil0 type veth peer name evil1 netns {}", outside.name()))?;
    lab.host()
        .ip_batch("link set evil0 master br0 up\nlink add uplink9 type vxlan id 9 dstport 4789 dev br0")?;
    let found = problems(&lab)?;
    let about = |text: &str| found.iter().filter(|problem| problem.starts_with(text)).count();
    assert_eq!(about("evil0: a port of br0 that nothing watches"), 1, "{found:?}");
    assert_eq!(found.len(), 1, "{found:?}");
    // A pair that joins two bridges of the host is none.
    lab.host().ip_batch(
        "link add br9 type bridge\nlink add join0 type veth peer name join1\nlink set join0 master br0 up\n\
         link set join1 master br9 up",
    )?;
    assert_eq!(problems(&lab)?.len(), 1);
    let config = fs::read_to_string(lab.config())?;
    lab.configure(&format!("{config}[[interfaces.rule]]\npattern = 'evil.*'\nkind = \"ignore\"\n"))?;
    assert_eq!(problems(&lab)?, [""; 0]);
    drop(a);
    Ok(())
}

/// Containers beyond the limit must not make the start, a drain or the stop slow.
#[test]
fn ten_thousand_containers_with_addresses_start_in_seconds_and_stop_at_once() -> Result<()> {
    let lab = Lab::new("many-files")?;
    let vz = lab.path("vz");
    fs::create_dir(&vz)?;
    for id in 0..10_000_u32 {
        let text = format!("IP_ADDRESS=\"10.{}.{}.{}\"\n", 20 + id / 65_536, id / 256 % 256, id % 256);
        fs::write(vz.join(format!("{}.conf", 1000 + id)), text)?;
    }
    let classes = lab.write("classes", CLASSES)?;
    lab.configure(&format!(
        "class_file = {classes:?}\nvz_conf_dir = {vz:?}\n[drain]\ninterval = \"500ms\"\n[limits]\ncontainers = 1000\n"
    ))?;
    let venet = lab.venet()?;
    let begin = Instant::now();
    let mut daemon = Daemon::start(&lab)?;
    let start = begin.elapsed();
    daemon.settled()?;
    let found = problems(&lab)?;
    ensure!(found.len() == 1 && found[0].starts_with("9000 containers have no counter slot ("), "{found:?}");
    let begin = Instant::now();
    daemon.stop_after_errors()?;
    let stop = begin.elapsed();
    println!("start {start:?}, stop {stop:?}");
    // Minutes before; the bounds leave room for a busy machine.
    ensure!(start < Duration::from_secs(15), "the start took {start:?}");
    ensure!(stop < Duration::from_secs(5), "the stop took {stop:?}");
    drop(venet);
    Ok(())
}

/// A gap of an interface that came and went: name, container, and buffers in and out; `None` if unknown.
type Unseen = (String, String, Option<[u64; 2]>);

fn unseen(lab: &Lab) -> Result<Vec<Unseen>> {
    let gaps = gaps(lab)?.into_iter();
    let gaps = gaps
        .filter(|gap| gap["detail"].as_str().is_some_and(|detail| detail.starts_with("it came and went")));
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    Ok(gaps
        .map(|gap| {
            let size = ["in_skbs", "out_skbs"].map(|field| gap["size"][field].as_u64());
            (text(&gap["interface"]), text(&gap["container"]), size[0].zip(size[1]).map(|(a, b)| [a, b]))
        })
        .collect())
}

#[test]
fn an_interface_that_came_and_went_while_the_daemon_was_late_is_a_gap() -> Result<()> {
    let lab = node("unseen", "tcx")?;
    make(&lab, 4000)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    send(&lab, 100)?;
    daemon.signal(Signal::STOP)?;
    // One that never had a carrier, and one that nobody watches.
    for name in ["veth333.0", "other333"] {
        lab.host().ip(&format!("link add {name} type veth peer name peer333"))?;
        lab.host().ip(&format!("link delete {name}"))?;
    }
    lab.host().ip("link add veth334.0 type veth peer name peer334")?;
    for name in ["veth334.0", "peer334"] {
        lab.host().ip(&format!("link set {name} up"))?;
    }
    lab.host().ip("link delete veth334.0")?;
    // A tap has its whole statistics at its end.
    lab.host().ip("tuntap add vme335.0 mode tap")?;
    lab.host().ip("tuntap delete vme335.0 mode tap")?;
    // The attached one ends, one of its name and index comes and goes, and another one stays.
    lab.host().ip(&format!("link delete {NAME}"))?;
    make(&lab, 4000)?;
    send(&lab, 600)?;
    lab.host().ip(&format!("link delete {NAME}"))?;
    make(&lab, 4000)?;
    send(&lab, 50)?;
    daemon.signal(Signal::CONT)?;
    eventually("both gaps are recorded", || Ok(unseen(&lab)?.len() >= 2))?;
    let container = Counters::read(&lab)?.interface(NAME).container.clone().context("it has no container")?;
    let mut found = unseen(&lab)?;
    found.sort();
    let mut expected =
        vec![(NAME.to_owned(), container, None), ("veth334.0".to_owned(), "334".to_owned(), None)];
    expected.sort();
    assert_eq!(found, expected);
    eventually("the last one is attached", || Ok(is_well(&lab).is_ok()))?;
    daemon.stop()
}
