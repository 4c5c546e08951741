//! Pins that vanish under a running daemon and come back: the same maps go on counting, once.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;
use traffic_tests::check::{agrees_with_kernel, eventually, is_well, trafctl};
use traffic_tests::evidence::compare;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Container, Counters, Daemon, Lab};

use crate::node::{at, booked, node, node_with, pair};

/// What was sent from container 101 to 102.
struct Sender<'a> {
    lab: &'a Lab,
    a: &'a Container,
    b: &'a Container,
    all: Amounts,
}

impl Sender<'_> {
    /// Sends, and waits until exactly all that was ever sent is in the ledger.
    fn send(&mut self, datagrams: u64) -> Result<()> {
        let sent = udp_send(self.a.namespace(), self.b.namespace(), at(self.b.v4()), datagrams, 300)?;
        self.all = self.all.plus(Amounts::outgoing(sent.packets, sent.l3_bytes));
        self.is_booked()
    }

    fn is_booked(&self) -> Result<()> {
        eventually("the ledger has all, once", || Ok(booked(self.lab, "101")? == self.all))
            .with_context(|| format!("{:?} instead of {:?}", booked(self.lab, "101"), self.all))
    }
}

fn status(lab: &Lab) -> Result<Value> {
    Ok(serde_json::from_slice(&trafctl(lab, &["status", "--format", "json"])?.stdout)?)
}

fn epoch(lab: &Lab) -> Result<Value> {
    Ok(status(lab)?["epoch"].clone())
}

/// Hides the pins under a daemon and brings them back, with traffic before, between and after.
fn hidden(lab: &Lab, hide: impl Fn() -> Result<()>, bring_back: impl Fn() -> Result<()>) -> Result<()> {
    let (a, b) = pair(lab)?;
    let mut daemon = Daemon::start(lab)?;
    let mut sender = Sender { lab, a: &a, b: &b, all: Amounts::default() };
    sender.send(31)?;
    // Their program is loaded beside, and hidden at once: no pass of the daemon has seen it.
    eventually("drops are counted", || Ok(status(lab)?["drops"]["in_force"] == true))?;
    let first = epoch(lab)?;
    for round in 0..2 {
        hide()?;
        eventually("the pins are in place again", || {
            Ok(daemon.log().matches("they are in place again").count() > round && is_well(lab).is_ok())
        })?;
        sender.send(42)?;
        // A start hook finds everything attached, and attaches nothing a second time.
        lab.run_ok(&["attach"])?;
        sender.send(53)?;
        is_well(lab)?;
        bring_back()?;
        eventually("all is well again", || Ok(is_well(lab).is_ok()))?;
        sender.send(64)?;
    }
    assert_eq!(epoch(lab)?, first, "the counters are the same");
    let counters = Counters::at_rest(lab)?;
    compare("datagrams, pins hidden meanwhile", "the sender", sender.all, counters.class("101", 2, "ipv4"))?;
    for interface in [a.interface(), b.interface()] {
        agrees_with_kernel(lab, &counters, interface)?;
    }
    let gaps = lab.run_json(&["gaps", "--format", "json"])?;
    assert_eq!(gaps["gaps"], serde_json::json!([]), "nothing was lost");
    sender.is_booked()?;
    daemon.settled()?;
    daemon.stop_after_errors()
}

fn mount_over(lab: &Lab) -> Result<()> {
    run_ok(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(lab.bpffs())).map(drop)
}

/// Unmounts what [`mount_over`] mounted. It is busy while the daemon holds the lock in it.
fn unmount_it(lab: &Lab) -> Result<()> {
    eventually("it can be unmounted", || match unmount(lab.bpffs(), UnmountFlags::empty()) {
        Err(Errno::BUSY) => Ok(false),
        other => Ok(other.map(|()| true)?),
    })
}

#[test]
fn a_bpffs_mounted_over_ours_and_unmounted_counts_nothing_twice() -> Result<()> {
    let lab = node("over")?;
    hidden(&lab, || mount_over(&lab), || unmount_it(&lab))
}

#[test]
fn the_same_with_filters_instead_of_links() -> Result<()> {
    let lab = node_with("over-clsact", "attach = \"clsact\"")?;
    hidden(&lab, || mount_over(&lab), || unmount_it(&lab))
}

#[test]
fn pins_that_are_renamed_and_renamed_back_count_nothing_twice() -> Result<()> {
    let lab = node("renamed")?;
    let parts: [(PathBuf, PathBuf); 3] = ["maps", "programs", "links"]
        .map(|part| (lab.bpffs().join(part), lab.bpffs().join(format!("{part}_aside"))));
    let hide = || parts.iter().try_for_each(|(from, to)| Ok(fs::rename(from, to)?));
    let bring_back = || {
        for (original, aside) in &parts {
            // In one step: the daemon would pin everything again in between.
            renameat_with(CWD, aside, CWD, original, RenameFlags::EXCHANGE)?;
            fs::remove_dir_all(aside)?;
        }
        Ok(())
    };
    hidden(&lab, hide, bring_back)
}

#[test]
fn a_lazily_unmounted_bpffs_loses_no_count() -> Result<()> {
    let lab = node("lazy")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    let mut sender = Sender { lab: &lab, a: &a, b: &b, all: Amounts::default() };
    sender.send(31)?;
    let first = epoch(&lab)?;
    unmount(lab.bpffs(), UnmountFlags::DETACH)?;
    daemon.logs("they are in place again")?;
    eventually("all is well again", || Ok(is_well(&lab).is_ok()))?;
    sender.send(42)?;
    assert_eq!(epoch(&lab)?, first);
    let counters = Counters::at_rest(&lab)?;
    agrees_with_kernel(&lab, &counters, a.interface())?;
    daemon.stop_after_errors()
}

#[test]
fn classes_loaded_while_pins_are_hidden_stay_in_force() -> Result<()> {
    let lab = node("over-classes")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    mount_over(&lab)?;
    daemon.logs("they are in place again")?;
    lab.write("classes", "1 0.0.0.0/0\n1 ::/0\n3 10.1.0.0/16\n3 fd00:1::/32\n")?;
    lab.run_ok(&["classes", "load"])?;
    daemon.settled()?;
    unmount_it(&lab)?;
    eventually("all is well again", || Ok(is_well(&lab).is_ok()))?;
    // The wait for packets writes the table in force again: it must be this one.
    let c = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    eventually("the new container is attached", || Ok(is_well(&lab).is_ok()))?;
    drop(c);
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 25, 200)?;
    let counters = Counters::read(&lab)?;
    let all = Amounts::outgoing(sent.packets, sent.l3_bytes);
    ensure!(counters.class("101", 3, "ipv4") == all, "{counters:#?}");
    daemon.stop_after_errors()
}
