//! Interfaces whose container becomes known late, or never: everything since the first packet is counted, under a
//! pending owner until then.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use traffic_tests::{
    Amounts, Container, Counters, Lab,
    check::{agrees_with_kernel, booked, eventually, is_well, problems, rounds, stderr, trafctl},
    container::introduce,
    namespace::Namespace,
    traffic::{UdpCount, udp_send},
};

use crate::daemon::{Daemon, Resync};
use crate::node::{at, hooks, node};

/// A node with libvirt's interface names, a command that names containers, and a peer that is known.
struct Node {
    lab: Lab,
    answers: PathBuf,
    peer: Container,
}

impl Node {
    /// `command` is what the command does before it prints its answers.
    fn new(name: &str, command: &str) -> Result<Self> {
        let lab = node(name)?;
        let answers = lab.write("answers", "")?;
        let script = lab.write("ids", &format!("#!/bin/sh\n{command}\ncat {}\n", answers.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        lab.configure(&format!(
            "class_file = {:?}\n[host]\npreset = 'libvirt'\n[drain]\ninterval = '250ms'\n\
             [identities]\ncommand = [{script:?}]\n[[container]]\nid = 'peer'\ninterfaces = ['vnet99']\n",
            lab.path("classes"),
        ))?;
        let peer = lab.bridged_as("vnet99", [10, 1, 0, 99].into(), "fd00:1::99".parse()?)?;
        Ok(Self { lab, answers, peer })
    }

    fn container(&self, number: u8) -> Result<Container> {
        let v6 = format!("fd00:1::{number}").parse()?;
        let container = self.lab.bridged_as(&format!("vnet{number}"), [10, 1, 0, number].into(), v6)?;
        introduce(&[&container, &self.peer])?;
        Ok(container)
    }

    fn send(&self, from: &Container, datagrams: u64) -> Result<UdpCount> {
        udp_send(from.namespace(), self.peer.namespace(), at(self.peer.v4()), datagrams, 300)
    }

    /// The command's answers from now on, replaced as a whole.
    fn answer(&self, text: &str) -> Result<()> {
        let fresh = self.lab.write("answers.new", text)?;
        Ok(fs::rename(fresh, &self.answers)?)
    }

    /// The only pending owner of an interface in the live counters.
    fn pending(&self, interface: &str) -> Result<String> {
        let found = self.pending_or_none(interface)?;
        found.with_context(|| format!("{interface} is not counted for a pending owner"))
    }

    fn pending_or_none(&self, interface: &str) -> Result<Option<String>> {
        let start = format!("pending:{interface}:");
        let counters = Counters::read(&self.lab)?;
        let mut ids: Vec<String> = counters.counters.into_iter().map(|row| row.container).collect();
        ids.retain(|id| id.starts_with(&start));
        ids.dedup();
        ensure!(ids.len() <= 1, "{ids:?}");
        Ok(ids.pop())
    }

    fn status(&self) -> Result<Value> {
        let output = trafctl(&self.lab, &["status", "--format", "json"])?;
        serde_json::from_slice(&output.stdout).with_context(|| stderr(&output))
    }

    /// No row of the report is pending, and the audit finds nothing.
    fn is_settled(&self) -> Result<()> {
        let report = self.lab.run_json(&["report", "--split", "class", "--format", "json"])?;
        let rows = report["rows"].as_array().context("rows")?;
        let is_pending =
            |row: &&Value| row["container"].as_str().is_some_and(|id| id.starts_with("pending:"));
        ensure!(rows.iter().filter(is_pending).count() == 0, "{report}");
        self.lab.run_ok(&["audit"]).map(drop)
    }
}

fn out(sent: &UdpCount) -> Amounts {
    Amounts::outgoing(sent.packets, sent.l3_bytes)
}

#[test]
fn a_container_that_is_known_three_seconds_late_has_everything_since_its_first_packet() -> Result<()> {
    let node = Node::new("late", "")?;
    let mut daemon = Daemon::start(&node.lab)?;
    daemon.settled()?;
    let begun = Instant::now();
    let container = node.container(1)?;
    eventually("it is attached at once", || Ok(hooks(&node.lab, "vnet1")?.len() == 2))?;
    let first = node.send(&container, 57)?;
    let pending = node.pending("vnet1")?;
    eventually("the ledger has it under its pending name", || {
        Ok(booked(&node.lab, &pending)? == out(&first))
    })?;
    // Not a problem yet, but named.
    is_well(&node.lab)?;
    let status = node.status()?;
    ensure!(status["pending"][0]["pending"] == pending.as_str(), "{status}");
    let table = node.lab.run_ok(&["report"])?;
    ensure!(table.contains("not attributed yet: ") && table.contains(&pending), "{table}");

    thread::sleep(Duration::from_secs(3).saturating_sub(begun.elapsed()));
    node.answer("vnet1 web\n")?;
    daemon.logs(&format!("vnet1: {pending} is web, with everything since its first packet"))?;
    let second = node.send(&container, 13)?;
    let all = out(&first).plus(out(&second));
    let counters = Counters::at_rest(&node.lab)?;
    assert_eq!(counters.class("web", 2, "ipv4"), all);
    agrees_with_kernel(&node.lab, &counters, "vnet1")?;
    eventually("the ledger has all of it for its container", || Ok(booked(&node.lab, "web")? == all))?;
    node.is_settled()?;
    is_well(&node.lab)?;
    // Virtuozzo's commands never showed the pending owner; the container they show.
    let shown = node.lab.run_ok(&["vznetstat", "-a"])?;
    ensure!(!shown.contains("pending"), "{shown}");
    daemon.stop()
}

#[test]
fn what_went_before_it_was_known_stays_by_name_until_it_is_attributed() -> Result<()> {
    let node = Node::new("went", "")?;
    let mut daemon = Daemon::start(&node.lab)?;
    daemon.settled()?;
    let mut container = node.container(1)?;
    eventually("it is attached", || Ok(hooks(&node.lab, "vnet1")?.len() == 2))?;
    let sent = node.send(&container, 1001)?;
    let counted = Counters::at_rest(&node.lab)?;
    let pending = node.pending("vnet1")?;
    assert_eq!(counted.class(&pending, 2, "ipv4"), out(&sent));
    container.stop()?;
    daemon.logs("vnet1: gone")?;
    eventually("the ledger has it", || Ok(booked(&node.lab, &pending)? == out(&sent)))?;
    let found = problems(&node.lab)?;
    ensure!(found.len() == 1 && found[0].contains(&format!("{pending}: 1001 packets")), "{found:?}");
    // Neither a restart nor a kill makes it vanish.
    daemon.kill()?;
    let mut daemon = Daemon::start(&node.lab)?;
    daemon.settled()?;
    assert_eq!(problems(&node.lab)?, found);

    let attribute =
        |more: &[&str]| trafctl(&node.lab, &[&["container", "attribute", &pending, "web"], more].concat());
    let preview = attribute(&[])?;
    let shown = String::from_utf8(preview.stdout)?;
    ensure!(preview.status.code() == Some(1) && shown.contains("would give web what was counted"), "{shown}");
    ensure!(shown.contains("nothing was written") && shown.contains("1001 packets"), "{shown}");
    assert_eq!(booked(&node.lab, &pending)?, out(&sent));
    for repeated in [false, true] {
        let done = attribute(&["--yes", "--reason", "the customer's test"])?;
        let shown = String::from_utf8(done.stdout.clone())?;
        ensure!(done.status.success(), "{shown}{}", stderr(&done));
        ensure!(shown.contains("was attributed to web at") == repeated, "{shown}");
    }
    assert_eq!(booked(&node.lab, "web")?, out(&sent));
    assert_eq!(Counters::at_rest(&node.lab)?.class("web", 2, "ipv4"), out(&sent));
    let other = trafctl(&node.lab, &["container", "attribute", &pending, "mail", "--yes"])?;
    ensure!(stderr(&other).contains("was attributed to web at"), "{}", stderr(&other));
    for (id, what) in [("web", "is not a pending owner"), ("pending:vnet7:7:x", "no container")] {
        let refused = trafctl(&node.lab, &["container", "attribute", id, "mail", "--yes"])?;
        ensure!(!refused.status.success() && stderr(&refused).contains(what), "{}", stderr(&refused));
    }
    node.is_settled()?;
    is_well(&node.lab)?;
    daemon.stop()
}

#[test]
fn kills_between_the_answer_and_the_ledger_neither_lose_nor_double() -> Result<()> {
    let node = Node::new("killed", "")?;
    let short = || Daemon::start_with(&node.lab, Resync::Every(Duration::from_millis(100)));
    let mut daemon = short()?;
    let mut answers = String::new();
    let mut all = Vec::new();
    for round in 1..=rounds(6, 60) {
        let container = node.container(u8::try_from(round)?)?;
        eventually("it is attached", || Ok(hooks(&node.lab, container.interface())?.len() == 2))?;
        let first = node.send(&container, u64::from(10 + round))?;
        if round % 2 == 0 {
            let pending = node.pending(container.interface())?;
            eventually("it is booked as pending", || Ok(booked(&node.lab, &pending)? == out(&first)))?;
        }
        answers += &format!("vnet{round} web{}\n", round % 3);
        node.answer(&answers)?;
        thread::sleep(Duration::from_millis(u64::from(round * 37 % 230)));
        daemon.kill()?;
        let second = node.send(&container, u64::from(round))?;
        daemon = short()?;
        all.push((round % 3, container, out(&first).plus(out(&second))));
    }
    for owner in 0..3 {
        let id = format!("web{owner}");
        let of_it = all.iter().filter(|(of, ..)| *of == owner);
        let sum = of_it.fold(Amounts::default(), |sum, (.., amounts)| sum.plus(*amounts));
        eventually(&id, || Ok(booked(&node.lab, &id)? == sum))?;
        let live = Counters::at_rest(&node.lab)?;
        let of_id = live.counters.iter().filter(|row| row.container == id && row.class == 2);
        let live = of_id.fold(Amounts::default(), |sum, row| sum.plus(row.amounts));
        assert_eq!(live, sum, "{id}");
    }
    node.is_settled()?;
    eventually("nothing is wrong", || Ok(problems(&node.lab)?.is_empty()))?;
    daemon.stop()
}

#[test]
fn two_ends_on_the_host_for_a_moment_are_one_interface() -> Result<()> {
    let node = Node::new("both-ends", "")?;
    node.answer("vnet1 web\n")?;
    let mut daemon = Daemon::start(&node.lab)?;
    daemon.settled()?;
    let host = node.lab.host();
    host.ip("link add vnet1 type veth peer name vnet2")?;
    let inside = Namespace::new("inside")?;
    host.ip_batch("link set vnet1 master br0 up\n")?;
    daemon.settled()?;
    ensure!(hooks(&node.lab, "vnet1")?.is_empty() && hooks(&node.lab, "vnet2")?.is_empty());
    is_well(&node.lab)?;
    host.ip(&format!("link set vnet2 netns {}", inside.name()))?;
    eventually("the end that stayed is attached", || Ok(hooks(&node.lab, "vnet1")?.len() == 2))?;
    daemon.logs(" is web, with everything since its first packet")?;
    let counters = Counters::read(&node.lab)?;
    let interfaces: Vec<&str> = counters.interfaces.iter().map(|row| row.interface.as_str()).collect();
    ensure!(!interfaces.contains(&"vnet2"), "{interfaces:?}");
    node.is_settled()?;
    is_well(&node.lab)?;
    daemon.stop()
}

#[test]
fn a_container_of_a_third_of_a_second_is_counted_or_in_a_gap_of_its_size() -> Result<()> {
    let node = Node::new("short", "")?;
    let mut daemon = Daemon::start(&node.lab)?;
    daemon.settled()?;
    let mut sent = Vec::new();
    for number in 1..=rounds(5, 40) {
        let mut container = node.container(u8::try_from(number)?)?;
        sent.push((format!("vnet{number}"), node.send(&container, u64::from(20 + number))?.packets));
        container.stop()?;
    }
    for (interface, packets) in sent {
        eventually(&format!("the ledger has what {interface} carried"), || {
            accounted(&node, &interface, packets)
        })?;
    }
    node.lab.run_ok(&["audit"])?;
    daemon.stop()
}

/// Whether what an interface sent is counted for its pending owner, or missed traffic of the interface: in a gap of
/// that size, or of an unknown one where it ended before a busy machine let the daemon look at it.
fn accounted(node: &Node, interface: &str, packets: u64) -> Result<bool> {
    let report = node.lab.run_json(&["report", "--split", "class", "--format", "json"])?;
    let list =
        |name: &str| report[name].as_array().cloned().with_context(|| format!("no {name} in {report}"));
    let gaps = list("gaps")?.into_iter().filter(|gap| gap["interface"] == interface);
    let gaps: Vec<Value> = gaps.filter(|gap| gap["reason"] == "before_attach").collect();
    if gaps.iter().any(|gap| gap["size"].is_null()) {
        return Ok(true);
    }
    let missed: u64 = gaps.iter().filter_map(|gap| gap["size"]["out_skbs"].as_u64()).sum();
    let start = format!("pending:{interface}:");
    let rows = list("rows")?.into_iter().filter(|row| {
        row["class"] == 2 && row["container"].as_str().is_some_and(|id| id.starts_with(&start))
    });
    let counted: u64 = rows.filter_map(|row| row["out"]["packets"].as_u64()).sum();
    // A container also sends what nobody asked it for, which may be missed.
    Ok(counted + missed >= packets)
}
