//! More containers than slots, one after another. Each is counted from zero, and the counts of its
//! predecessors are in the ledger.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use traffic_tests::{
    Amounts, Container, Counters, Lab,
    check::{PATIENCE, eventually, is_balanced},
    daemon::Daemon,
    process::Process,
    traffic::RawSocket,
};

/// The peer has a class of its own, so that packets that an interface sends by itself are in another.
const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n5 198.51.100.7/32\n";
const CLASS: u8 = 5;
const CONTAINERS: u32 = 20;

/// A node with fewer slots than containers. One of the interface slots is shared by all interfaces without
/// one.
fn node(name: &str) -> Result<Lab> {
    node_with(name, 3, 4)
}

fn node_with(name: &str, containers: u32, interfaces: u32) -> Result<Lab> {
    let lab = Lab::new(name)?;
    let classes = lab.write("networks_classes", CLASSES)?;
    lab.configure(&format!(
        "class_file = {classes:?}\n[limits]\ncontainers = {containers}\ninterfaces = {interfaces}\n\
         [drain]\ninterval = \"1h\"\n"
    ))?;
    Ok(lab)
}

fn container(lab: &Lab, n: u32) -> Result<Container> {
    let last = u8::try_from(n)?;
    lab.bridged(200 + n, 0, [10, 1, 0, last].into(), format!("fd00:1::{n:x}").parse()?)
}

/// Whether both hooks of an interface are ours. It is registered before that.
fn is_attached(lab: &Lab, interface: &str) -> Result<bool> {
    let output = lab.trafctl(&["status", "--format", "json"])?.output()?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let attachments = status["attachments"].as_array().context("attachments")?;
    Ok(attachments.iter().any(|attachment| {
        attachment["interface"] == interface
            && attachment["in"]["ours"] == 1
            && attachment["out"]["ours"] == 1
    }))
}

/// Sends a number and a size of datagrams that differ for each container. Returns their layer-3 amounts.
fn send(container: &Container, n: u32) -> Result<Amounts> {
    let payload = 40 + n;
    let total = u16::try_from(28 + payload)?;
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45, 0];
    frame.extend(total.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, u8::try_from(n)?, 198, 51, 100, 7]);
    frame.resize(14 + usize::from(total), 0);
    let packets = u64::from(n) * 7 + 3;
    let socket = RawSocket::open(container.namespace(), "eth0")?;
    for _ in 0..packets {
        socket.send(&frame)?;
    }
    Ok(Amounts::outgoing(packets, packets * u64::from(total)))
}

fn counted(lab: &Lab, id: &str) -> Result<Amounts> {
    // A container without a slot, and one that has just got one, has no counter yet.
    Ok(Counters::read(lab)?.class_or_zero(id, CLASS, "ipv4"))
}

/// The ledger's total of a container's traffic with the peer, over all its lives.
fn booked(lab: &Lab, id: &str) -> Result<Amounts> {
    let report = lab.run_json(&["report", "--split", "class", "--container", id, "--format", "json"])?;
    let rows = report["rows"].as_array().context("rows")?;
    let of_class = rows.iter().filter(|row| row["class"] == u64::from(CLASS));
    Ok(of_class.fold(Amounts::default(), |sum, row| {
        let value = |way: &str, what: &str| row[way][what].as_u64().unwrap_or(0);
        sum.plus(Amounts {
            in_bytes: value("in", "bytes"),
            in_packets: value("in", "packets"),
            out_bytes: value("out", "bytes"),
            out_packets: value("out", "packets"),
        })
    }))
}

/// Checks that the ledger has the exact traffic of every container, although few of them still have counters,
/// and that the node's totals balance.
fn everything_is_booked(lab: &Lab, sent: &[(String, Amounts)]) -> Result<()> {
    for (id, sent) in sent {
        let booked = booked(lab, id)?;
        ensure!(booked == *sent, "{id}: the ledger has {booked:?}, sent {sent:?}");
    }
    let counters = Counters::at_rest(lab)?;
    let former = counters.former_owners.classes.out_packets;
    ensure!(former > 0, "no slot was given to another container: {counters:#?}");
    let faults: Vec<_> = counters.faults.iter().filter(|row| row.fault != "not_ip").collect();
    ensure!(faults.is_empty(), "{faults:?}");
    is_balanced(lab)?;
    let audit = lab.run_json(&["audit", "--format", "json"])?;
    ensure!(audit["problems"] == serde_json::json!([]) && audit["counter_sets"] == 1, "{audit}");
    let status = lab.run_json(&["status", "--format", "json"])?;
    let tables = status["tables"].as_array().context("tables")?;
    let containers = tables.iter().find(|table| table["table"] == "containers").context("containers")?;
    assert_eq!((&containers["used"], &containers["gone"]), (&3.into(), &3.into()), "{status:#}");
    Ok(())
}

#[test]
fn slots_of_gone_containers_are_reused_when_none_are_free() -> Result<()> {
    let lab = node("slots-churn")?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let mut sent = Vec::new();
    for n in 1..=CONTAINERS {
        let container = container(&lab, n)?;
        let id = (200 + n).to_string();
        eventually("the interface is attached", || is_attached(&lab, container.interface()))?;
        let amounts = send(&container, n)?;
        eventually("everything is counted", || Ok(counted(&lab, &id)? == amounts))?;
        sent.push((id, amounts));
    }
    eventually("the last one is gone", || {
        let status = lab.run_json(&["status", "--format", "json"])?;
        Ok(status["tables"][0]["gone"] == 3)
    })?;
    daemon.stop()?;
    everything_is_booked(&lab, &sent)
}

#[test]
fn a_container_that_returns_to_another_slot_is_the_same_in_the_ledger() -> Result<()> {
    let lab = node("slots-return")?;
    Daemon::start(&lab)?.stop()?;
    let mut amounts = Amounts::default();
    for n in [1, 2, 3, 4, 5, 1] {
        let container = container(&lab, n)?;
        lab.run_ok(&["attach"])?;
        let sent = send(&container, n)?;
        assert_eq!(counted(&lab, &(200 + n).to_string())?, sent, "counted from zero");
        if n == 1 {
            amounts = amounts.plus(sent);
        }
    }
    Daemon::start(&lab)?.stop()?;
    assert_eq!(booked(&lab, "201")?, amounts);
    Ok(())
}

#[test]
fn without_a_ledger_no_slot_is_reused() -> Result<()> {
    let lab = node("slots-kept")?;
    for n in 1..=3 {
        let container = container(&lab, n)?;
        lab.run_ok(&["attach"])?;
        send(&container, n)?;
    }
    let fourth = container(&lab, 4)?;
    lab.run_ok(&["attach"])?;
    let amounts = send(&fourth, 4)?;
    let counters = Counters::at_rest(&lab)?;
    for n in 1..=3 {
        assert!(counters.class(&(200 + n).to_string(), CLASS, "ipv4").out_packets > 0);
    }
    assert!(counters.fault("(other)", "container_table_full").out_packets >= amounts.out_packets);

    // With a ledger, the start of the daemon gives it a slot.
    let daemon = Daemon::start(&lab)?;
    let amounts = send(&fourth, 4)?;
    assert_eq!(counted(&lab, "204")?, amounts);
    // The slot is recorded as in use, so that no other container gets it.
    let dump = lab.run_json(&["dump", "--format", "json"])?;
    let interfaces = dump["interfaces"].as_array().context("interfaces")?;
    let row = interfaces.iter().find(|row| row["interface"] == fourth.interface()).context("its row")?;
    assert!(row["ifindex"].is_u64(), "{row}");
    daemon.stop()
}

#[test]
fn a_container_without_an_interface_slot_keeps_its_container_slot() -> Result<()> {
    // One interface slot, and the shared one, in which the second interface is counted. No record shows that
    // it exists.
    let lab = node_with("slots-stranger", 2, 2)?;
    Daemon::start(&lab)?.stop()?;
    let mut there: Vec<_> = (1..=2).map(|n| container(&lab, n)).collect::<Result<_>>()?;
    lab.run_ok(&["attach"])?;
    let second = send(&there[1], 2)?;
    let third = container(&lab, 3)?;
    lab.run_ok(&["attach"])?;
    let amounts = send(&third, 3)?;
    assert_eq!(counted(&lab, "202")?, second, "without traffic of another container");
    assert_eq!(counted(&lab, "203")?, Amounts::default());
    let full = Counters::at_rest(&lab)?.fault("(other)", "container_table_full");
    assert!(full.out_packets >= amounts.out_packets, "{full:?}");

    // Once it is gone, its slot can be reused.
    there.remove(1);
    lab.run_ok(&["attach"])?;
    let amounts = send(&third, 3)?;
    assert_eq!(counted(&lab, "203")?, amounts);
    Daemon::start(&lab)?.stop()?;
    assert_eq!((booked(&lab, "202")?, booked(&lab, "203")?), (second, amounts));
    Ok(())
}

#[test]
fn a_container_keeps_its_slot_while_an_interface_slot_is_reclaimed() -> Result<()> {
    // Containers arrive one after another, so that interface slots run out and container slots do not.
    let lab = node_with("slots-interface", 8, 3)?;
    Daemon::start(&lab)?.stop()?;
    let mut sent = Vec::new();
    let mut there = Vec::new();
    for n in 1..=6 {
        // The first stays. Each of the others ends before the next arrives.
        there.truncate(1);
        there.push(container(&lab, n)?);
        lab.run_ok(&["attach"])?;
        let amounts = send(&there[there.len() - 1], n)?;
        let id = (200 + n).to_string();
        assert_eq!(counted(&lab, &id)?, amounts);
        lab.run_ok(&["attach"])?;
        assert_eq!(counted(&lab, &id)?, amounts, "in the same slot as before");
        sent.push((id, amounts));
    }
    Daemon::start(&lab)?.stop()?;
    for (id, sent) in sent {
        assert_eq!(booked(&lab, &id)?, sent, "{id}");
    }
    Ok(())
}

#[test]
fn a_crash_during_slot_reuse_loses_and_doubles_nothing() -> Result<()> {
    let lab = node("slots-crash")?;
    Daemon::start(&lab)?.stop()?;
    let mut sent = Vec::new();
    for n in 1..=CONTAINERS {
        let container = container(&lab, n)?;
        let mut attach = lab.trafctl(&["attach"])?;
        let mut attach =
            Process::spawn(attach.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
        // From before its first look to after its end.
        std::thread::sleep(std::time::Duration::from_millis(u64::from(n) * 13 % 90));
        attach.signal(Signal::KILL)?;
        attach.wait(PATIENCE)?;
        Counters::at_rest(&lab)?;
        lab.run_ok(&["attach"])?;
        let amounts = send(&container, n)?;
        let id = (200 + n).to_string();
        assert_eq!(counted(&lab, &id)?, amounts);
        sent.push((id, amounts));
    }
    Daemon::start(&lab)?.stop()?;
    everything_is_booked(&lab, &sent)
}
