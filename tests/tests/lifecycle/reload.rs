//! Class tables that change while traffic flows.

use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use traffic_tests::traffic::tcp_exchange;
use traffic_tests::{Amounts, Container, Counters, Lab};

use crate::daemon::Daemon;
use crate::load::{Load, Sent};
use crate::node::{
    agrees_with_kernel, at, eventually, exchanged, exchanged_by_server, is_well, is_well_but, node, pair,
    refused, stderr, trafctl,
};

const MEGABYTE: u64 = 1 << 20;

/// A class file with the containers' networks in the given class, and all others in class 1.
fn classes(class: u8) -> String {
    format!("1 0.0.0.0/0\n1 ::/0\n{class} 10.1.0.0/16\n{class} fd00:1::/32\n")
}

fn hash(lab: &Lab) -> Result<String> {
    Ok(Counters::read(lab)?.class_table.hash)
}

/// Sends TCP one way and UDP the other while `between` changes the table repeatedly. Checks that every packet
/// is in class 2 or 3.
fn every_packet_is_in_one_class(
    lab: &Lab,
    a: &Container,
    b: &Container,
    mut between: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let load = Load::start(b.namespace(), a.namespace(), at(a.v6()), 700)?;
    let counts = thread::scope(|scope| {
        let mut counts = Vec::new();
        for round in 0..20 {
            let flow = scope
                .spawn(|| tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 6 * MEGABYTE, MEGABYTE));
            load.passes(100)?;
            between(round)?;
            load.passes(100)?;
            counts.push(flow.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        anyhow::Ok(counts)
    })?;
    let sent: Sent = load.stop()?;

    let counters = Counters::at_rest(lab)?;
    let both = |container, family| {
        let [two, three] = [2, 3].map(|class| counters.class(container, class, family));
        ensure!(two != Amounts::default() && three != Amounts::default(), "{two:?} {three:?}");
        anyhow::Ok(two.plus(three))
    };
    let all = |side: fn(&traffic_tests::traffic::TcpCount) -> Amounts| {
        counts.iter().map(side).fold(Amounts::default(), Amounts::plus)
    };
    assert_eq!(both("101", "ipv4")?, all(exchanged));
    assert_eq!(both("102", "ipv4")?, all(exchanged_by_server));
    assert_eq!(both("101", "ipv6")?, Amounts::incoming(sent.packets, sent.bytes));
    assert_eq!(both("102", "ipv6")?, Amounts::outgoing(sent.packets, sent.bytes));
    for class in [0, 1] {
        for (container, family) in [("101", "ipv4"), ("101", "ipv6"), ("102", "ipv4"), ("102", "ipv6")] {
            let others = counters.class_or_zero(container, class, family);
            assert_eq!(others, Amounts::default(), "class {class}");
        }
    }
    assert_eq!(counters.faults, []);
    agrees_with_kernel(lab, &counters, a.interface())?;
    agrees_with_kernel(lab, &counters, b.interface())?;
    // A reload that met the file half written is a problem until the next one is through, which is not over with the
    // switch: the ledger gets the table as well.
    eventually("it is well", || Ok(is_well(lab).is_ok())).or_else(|_| is_well(lab))
}

#[test]
fn loading_classes_during_a_flow_loses_nothing() -> Result<()> {
    let lab = node("load-classes")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let tables = [lab.write("three", &classes(3))?, lab.write("two", &classes(2))?];
    every_packet_is_in_one_class(&lab, &a, &b, |round| {
        let table = tables[round % 2].as_os_str();
        lab.run_ok(&["classes".as_ref(), "load".as_ref(), table]).map(drop)
    })
}

#[test]
fn sighup_reloads_the_classes() -> Result<()> {
    let lab = node("hangup")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    every_packet_is_in_one_class(&lab, &a, &b, |round| {
        let before = hash(&lab)?;
        lab.write("classes", &classes(if round % 2 == 0 { 3 } else { 2 }))?;
        daemon.signal(Signal::HUP)?;
        let loaded = eventually("the other table is in force", || Ok(hash(&lab)? != before));
        loaded.with_context(|| daemon.log())
    })?;

    // A refused file is logged with the line, and changes nothing.
    let before = hash(&lab)?;
    lab.write("classes", "1 0.0.0.0/0\n\n2 10.1.0.0/33\n")?;
    daemon.signal(Signal::HUP)?;
    daemon.logs("classes:3")?;
    assert_eq!(hash(&lab)?, before);
    ensure!(daemon.log().contains("ERROR"), "{}", daemon.log());
    eventually("the problem is shown", || Ok(is_well_but(&lab, &["classes:3"]).is_ok()))?;
    // A file without networks, which a full disk may cause, would put everything into class 0.
    lab.write("classes", "# nothing yet\n")?;
    daemon.signal(Signal::HUP)?;
    daemon.logs("puts every address into class 0, which is not billed")?;
    assert_eq!(hash(&lab)?, before);
    // The daemon continues, and takes the next correct file.
    lab.write("classes", &classes(5))?;
    daemon.signal(Signal::HUP)?;
    eventually("the corrected table is in force", || Ok(hash(&lab)? != before))?;
    eventually("the problem is gone", || Ok(is_well(&lab).is_ok()))?;

    // With another configuration, everything stays as it was, and the configuration is the problem.
    lab.configure("class_file = \"missing\"\n")?;
    let before = hash(&lab)?;
    daemon.signal(Signal::HUP)?;
    eventually("the configuration is refused", || {
        Ok(is_well_but(&lab, &["configuration: reloading", "missing"]).is_ok())
    })?;
    assert_eq!(hash(&lab)?, before);
    daemon.stop_after_errors()
}

#[test]
fn a_bad_class_file_leaves_the_old_table() -> Result<()> {
    let lab = node("bad-classes")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let before = hash(&lab)?;
    let bad = [
        ("letters", "1 0.0.0.0/0\n2 10.0.0.x/8\n", "letters:2"),
        ("too-long", "# comment\n\n2 10.0.0.0/33\n", "too-long:3"),
        ("class", "300 10.0.0.0/8\n", "class:1"),
        ("missing", "1 0.0.0.0/0\n1 ::/0\n2\n", "missing:3"),
    ];
    for (name, text, place) in bad {
        let file = lab.write(name, text)?;
        let file = file.to_str().context("the path is not UTF-8")?;
        let output = trafctl(&lab, &["classes", "load", file])?;
        refused(&output)?;
        ensure!(stderr(&output).contains(place), "no {place} in: {}", stderr(&output));
        assert_eq!(hash(&lab)?, before);
    }
    let output = trafctl(&lab, &["classes", "load", "/nonexistent/classes"])?;
    ensure!(refused(&output)?.contains("/nonexistent/classes"), "{}", stderr(&output));
    // A file with more classes than there is room for is refused as a whole.
    let many: String = (1..=40).map(|class| format!("{class} 10.{class}.0.0/16\n")).collect();
    let many = lab.write("many", &many)?;
    refused(&trafctl(&lab, &["classes", "load", many.to_str().context("the path is not UTF-8")?])?)?;
    assert_eq!(hash(&lab)?, before);

    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), MEGABYTE, MEGABYTE)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), exchanged(&count));
    is_well(&lab)
}

#[test]
fn an_attach_never_changes_the_table() -> Result<()> {
    let lab = node("start-hook")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let before = hash(&lab)?;
    lab.write("classes", &classes(3))?;
    lab.run_ok(&["attach", "veth101.0"])?;
    lab.run_ok(&["attach"])?;
    assert_eq!(hash(&lab)?, before);
    // Even a file that cannot be loaded must not stop a container from starting.
    lab.write("classes", "nonsense\n")?;
    lab.run_ok(&["attach"])?;
    assert_eq!(hash(&lab)?, before);

    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v6()), MEGABYTE, 0)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv6"), exchanged(&count));
    is_well_but(&lab, &["which is not usable: line 1"])
}
