//! Pins removed under a running daemon: it logs this, creates them again, and records how much it missed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use traffic_tests::check::{agrees_with_kernel, eventually, is_well};
use traffic_tests::evidence::compare;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::{Load, udp_send};
use traffic_tests::witness::InterfaceStatistics;
use traffic_tests::{Amounts, Container, Counters, Daemon, Lab, Resync};

use crate::node::{at, booked, node, node_with, pair};

/// Buffers in and out of an interface.
type Buffers = (u64, u64);

/// The ledger's figures of an interface: buffers counted, and buffers in gaps.
fn in_ledger(lab: &Lab, interface: &str) -> Result<(Buffers, Buffers)> {
    let query = format!(
        "select coalesce(sum(in_skbs), 0), coalesce(sum(out_skbs), 0) from passed_5min
         where interface in (select id from interface where name = '{interface}');
         select coalesce(sum(in_skbs), 0), coalesce(sum(out_skbs), 0) from gap where interface = '{interface}'"
    );
    let text = run_ok(Command::new("sqlite3").arg(lab.state_dir().join("ledger.sqlite")).arg(query))?;
    let rows: Vec<Buffers> = text
        .lines()
        .map(|line| {
            let (incoming, outgoing) = line.split_once('|').context("two columns")?;
            Ok((incoming.parse()?, outgoing.parse()?))
        })
        .collect::<Result<_>>()?;
    ensure!(rows.len() == 2, "{text}");
    Ok((rows[0], rows[1]))
}

/// Waits until every buffer that the kernel saw on an interface is in the ledger or in a gap, exactly once.
fn nothing_vanished(lab: &Lab, container: &Container) -> Result<(Buffers, Buffers)> {
    let mut last = None;
    eventually("every buffer is in the ledger or in a gap", || {
        let kernel = InterfaceStatistics::read(lab.host(), container.interface())?;
        let found = in_ledger(lab, container.interface())?;
        let (booked, gaps) = found;
        last = Some((kernel, found));
        Ok((booked.0 + gaps.0, booked.1 + gaps.1) == (kernel.tx_packets, kernel.rx_packets))
    })
    .with_context(|| format!("{last:?}"))?;
    Ok(last.context("a reading")?.1)
}

fn wipe(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            wipe(&entry.path())?;
            fs::remove_dir(entry.path())?;
        } else if !["maps.debug", "progs.debug"].contains(&entry.file_name().to_str().unwrap_or_default()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[test]
fn a_wiped_bpffs_is_restored_and_the_gap_has_its_exact_size() -> Result<()> {
    wiped(&node("wipe")?, false)
}

/// Filters outlive the pins, and keep counting in the maps that the daemon holds.
#[test]
fn a_wiped_bpffs_with_filters_is_restored_and_nothing_is_lost() -> Result<()> {
    wiped(&node_with("wipe-clsact", "attach = \"clsact\"")?, true)
}

fn wiped(lab: &Lab, goes_on: bool) -> Result<()> {
    let (a, b) = pair(lab)?;
    let mut daemon = Daemon::start(lab)?;
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 300, 400)?;
    eventually("the ledger has the first part", || Ok(booked(lab, "101")?.out_packets == first.packets))?;

    // Packets that are counted but not drained, then packets that only filters count. The daemon is stopped
    // meanwhile, so that both numbers are known.
    daemon.signal(Signal::STOP)?;
    let undrained = udp_send(a.namespace(), b.namespace(), at(b.v6()), 150, 700)?;
    wipe(lab.bpffs())?;
    let missed = udp_send(a.namespace(), b.namespace(), at(b.v4()), 250, 300)?;
    daemon.signal(Signal::CONT)?;
    daemon.logs("they are in place again")?;
    eventually("status reports no problem", || Ok(is_well(lab).is_ok()))?;
    let last = udp_send(a.namespace(), b.namespace(), at(b.v4()), 200, 500)?;

    let (_, gap) = nothing_vanished(lab, &a)?;
    nothing_vanished(lab, &b)?;
    // The kernel detaches a link some time after its last pin is gone, and until then it counts.
    let most = if goes_on { 0 } else { missed.packets };
    ensure!(gap.0 == 0 && gap.1 <= most, "{gap:?}, not up to {most}");
    let booked = booked(lab, "101")?;
    let what = format!("datagrams in the ledger, less {} while all pins were wiped, which are a gap", gap.1);
    let in_gap = Amounts::outgoing(gap.1, gap.1 * missed.l3_bytes / missed.packets);
    let sent = [first, undrained, missed, last].into_iter();
    let all =
        sent.fold(Amounts::default(), |all, sent| all.plus(Amounts::outgoing(sent.packets, sent.l3_bytes)));
    let all = all.since(in_gap);
    compare(&what, "the sender", all, booked)?;
    let counters = Counters::at_rest(lab)?;
    agrees_with_kernel(lab, &counters, a.interface())?;

    let gaps = lab.run_json(&["gaps", "--format", "json"])?;
    let of = |reason: &str, interface: Option<&str>| -> Vec<Value> {
        let all = gaps["gaps"].as_array().into_iter().flatten();
        all.filter(|gap| gap["reason"] == reason && gap["interface"].as_str() == interface).cloned().collect()
    };
    assert_eq!(of("counters_renewed", None).len(), 0, "{gaps:#}");
    let sized = of("before_attach", Some("veth101.0"));
    assert_eq!(sized.len(), usize::from(gap.1 > 0), "{gaps:#}");
    daemon.stop_after_errors()
}

#[test]
fn the_gap_of_a_wipe_under_load_covers_the_loss() -> Result<()> {
    let lab = node("wipe-load")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v6()), 700)?;
    for round in 1..=3 {
        load.passes(2000)?;
        wipe(lab.bpffs())?;
        eventually("the daemon logs it", || {
            Ok(daemon.log().matches("they are in place again").count() == round)
        })?;
    }
    load.passes(2000)?;
    let sent = load.stop()?;
    eventually("status reports no problem", || Ok(is_well(&lab).is_ok()))?;
    let counters = Counters::at_rest(&lab)?;
    agrees_with_kernel(&lab, &counters, a.interface())?;
    eventually("the ledger has the rest", || {
        let (booked_now, (_, gap)) = (booked(&lab, "101")?, in_ledger(&lab, a.interface())?);
        // Packets during a reading may be in the sums and in the gap, but never in neither.
        Ok(gap.1 > 0 && booked_now.out_packets > 0 && booked_now.out_packets + gap.1 >= sent.packets)
    })?;
    let (passed, gap) = in_ledger(&lab, a.interface())?;
    ensure!(passed.1 + gap.1 < sent.packets + sent.packets / 10, "{passed:?} and {gap:?} of {sent:?}");
    // The last reading of each lost set of counters may be inconsistent; the audit must not report that.
    let audit = lab.run_json(&["audit", "--format", "json"])?;
    ensure!(audit["problems"] == serde_json::json!([]) && audit["counter_sets"] == 1, "{audit}");
    daemon.logs("following interfaces")?;
    daemon.stop_after_errors()
}

#[test]
fn a_removed_directory_map_or_program_is_restored() -> Result<()> {
    let lab = node("wipe-parts")?;
    let (a, b) = pair(&lab)?;
    let root = lab.bpffs().join("sub");
    let arguments = ["--bpffs", root.to_str().context("the path is not UTF-8")?];
    let run: Vec<&str> = ["run"].into_iter().chain(arguments).collect();
    let mut daemon = Daemon::spawn(&mut lab.trafctl(&run)?, Resync::Off)?;
    daemon.ready()?;
    daemon.settled()?;
    let well = || -> Result<bool> {
        let status: Vec<&str> = ["status"].into_iter().chain(arguments).collect();
        Ok(lab.run_ok(&status).is_ok())
    };
    let mut packets = 0;
    let mut send = |datagrams| -> Result<()> {
        packets += udp_send(a.namespace(), b.namespace(), at(b.v4()), datagrams, 100)?.packets;
        eventually("the ledger has it", || Ok(booked(&lab, "101")?.out_packets == packets))
    };
    send(110)?;
    // The whole directory; one map; one program, without which the counters continue.
    for (round, victim) in ["", "maps/CLASS_COUNTERS", "programs/trafctl_egress"].into_iter().enumerate() {
        if victim.is_empty() {
            // Stopped, or it would pin everything again before the last directory is gone.
            daemon.signal(Signal::STOP)?;
            wipe(&root)?;
            fs::remove_dir(&root)?;
            daemon.signal(Signal::CONT)?;
        } else {
            fs::remove_file(root.join(victim))?;
        }
        if round == 2 {
            // Without resync the daemon notices this at the next interface event.
            lab.host().ip("link add veth104.0 up type veth peer name peer104")?;
        }
        eventually("status reports no problem", well)?;
        send(120 + round as u64)?;
    }
    ensure!(daemon.log().matches("they are in place again").count() == 3, "{}", daemon.log());
    let (_, gap) = nothing_vanished(&lab, &a)?;
    assert_eq!(gap, (0, 0), "nothing was sent meanwhile");
    daemon.stop_after_errors()
}

#[test]
fn a_purge_after_a_drain_causes_no_gap() -> Result<()> {
    let lab = node("wipe-purge")?;
    let (a, b) = pair(&lab)?;
    let daemon = Daemon::start(&lab)?;
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 90, 300)?;
    daemon.stop()?;
    lab.run_ok(&["detach", "--purge", "--yes"])?;
    let missed = udp_send(a.namespace(), b.namespace(), at(b.v4()), 70, 300)?;
    let daemon = Daemon::start(&lab)?;
    let last = udp_send(a.namespace(), b.namespace(), at(b.v4()), 50, 300)?;
    let (seen, gap) = nothing_vanished(&lab, &a)?;
    assert_eq!((seen.1, gap.1), (first.packets + last.packets, missed.packets));
    // The kernel counts the Ethernet header on this interface.
    let gaps = lab.run_json(&["gaps", "--format", "json"])?;
    let all = gaps["gaps"].as_array().context("a list of gaps")?;
    let of_a: Vec<_> = all.iter().filter(|gap| gap["interface"] == a.interface()).collect();
    assert_eq!(of_a.len(), 1, "{gaps:#}");
    assert_eq!(of_a[0]["size"]["out_skb_bytes"], missed.l3_bytes + 14 * missed.packets, "{gaps:#}");
    daemon.stop()
}
