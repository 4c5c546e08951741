//! An unavailable ledger, at the start or later: counting continues, and nothing is missing afterwards.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Container, Counters, Lab,
    check::problems,
    small_disk::SmallDisk,
    traffic::{tcp_exchange, udp_send},
};

use super::{check_ledger, daemon, end, gaps, node, recorded, sqlite, started, wait_for};

#[test]
fn a_full_disk_costs_a_gap_but_no_traffic() -> Result<()> {
    let (lab, a, b) = node("ledger-full", "")?;
    let disk = SmallDisk::mount(lab.state_dir())?;
    let running = started(&lab)?;
    let send = || tcp_exchange(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 200_000, 1000);
    send()?;
    wait_for("the first drain", || Ok(recorded(&lab, "101", 2)?.out_packets > 0))?;
    let filler = disk.fill()?;
    let before = recorded(&lab, "101", 2)?;
    // New buckets of new classes need more space. Some rows may still fit into existing pages.
    send()?;
    let classes = lab.write("more", "9 10.1.0.2/32\n8 0.0.0.0/0\n")?;
    let _may_be_refused = lab
        .trafctl(&["classes", "load", "--yes", classes.to_str().context("the path is not UTF-8")?])?
        .output()?;
    for _ in 0..5 {
        send()?;
        thread::sleep(Duration::from_millis(150));
    }
    fs::remove_file(filler)?;
    wait_for("a drain after the disk had room again", || {
        let live = Counters::read(&lab)?.container("101").out_packets;
        let recorded = [0, 1, 2, 3, 8, 9].into_iter().try_fold(0, |sum, class| {
            Ok::<_, anyhow::Error>(sum + recorded(&lab, "101", class)?.out_packets)
        })?;
        Ok(recorded == live && recorded > before.out_packets)
    })?;
    end(&lab, running)?;
    assert!(gaps(&lab)?.iter().any(|reason| reason == "disk_full"), "{:?}", gaps(&lab)?);
    Ok(())
}

/// Everything that the daemons of a node have logged.
fn log(lab: &Lab) -> Result<String> {
    Ok(fs::read_to_string(lab.path("daemon.log"))?)
}

/// Sends datagrams from 101 to 102. Returns their number.
fn send(a: &Container, b: &Container, datagrams: u64) -> Result<u64> {
    Ok(udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), datagrams, 100)?.packets)
}

/// Starts a daemon whose ledger cannot be opened, and waits until it counts and has logged the reason.
fn daemon_without_ledger(lab: &Lab, reason: &str) -> Result<traffic_tests::process::Process> {
    let running = daemon(lab)?;
    // Everything is attached, and the ledger is the only problem.
    wait_for("the ledger's failure in the status", || {
        let problems = problems(lab).unwrap_or_default();
        Ok(matches!(&problems[..], [only] if only.starts_with("ledger: ") && only.contains(reason)))
    })?;
    wait_for("the daemon's complaint", || {
        let log = log(lab)?;
        Ok(log.contains("counting continues without the ledger") && log.contains(reason))
    })?;
    Ok(running)
}

#[test]
fn a_disk_that_is_full_at_the_start_does_not_stop_counting() -> Result<()> {
    let (lab, a, b) = node("ledger-full-start", "")?;
    // The first daemon leaves a ledger with a reading. After a reboot the disk may be full.
    let disk = SmallDisk::mount(lab.state_dir())?;
    let first = started(&lab)?;
    let mut sent = send(&a, &b, 31)?;
    end(&lab, first)?;
    lab.run_ok(&["detach"])?;

    let filler = disk.fill()?;
    let running = daemon_without_ledger(&lab, "ledger")?;
    sent += send(&a, &b, 47)?;
    fs::remove_file(filler)?;
    wait_for("a drain after the disk had room", || Ok(recorded(&lab, "101", 2)?.out_packets == sent))?;
    end(&lab, running)?;
    let gaps = gaps(&lab)?;
    ensure!(gaps.iter().any(|reason| reason == "disk_full" || reason == "ledger_unwritable"), "{gaps:?}");
    check_ledger(&lab)?;
    Ok(())
}

#[test]
fn a_damaged_ledger_can_be_moved_away_while_the_daemon_runs() -> Result<()> {
    let (lab, a, b) = node("ledger-damaged", "")?;
    let ledger = lab.state_dir().join("ledger.sqlite");
    let mut garbage = b"SQLite format 3\0".to_vec();
    garbage.resize(8192, 0xa5);
    fs::create_dir_all(lab.state_dir())?;
    fs::write(&ledger, &garbage)?;
    let running = daemon_without_ledger(&lab, "ledger.sqlite")?;
    let sent = send(&a, &b, 53)?;
    ensure!(fs::read(&ledger)? == garbage, "the damaged file was written to");

    fs::rename(&ledger, lab.path("damaged"))?;
    wait_for("a drain into a new ledger", || {
        Ok(ledger.exists() && recorded(&lab, "101", 2).is_ok_and(|all| all.out_packets == sent))
    })?;
    end(&lab, running)?;
    check_ledger(&lab)?;
    Ok(())
}

#[test]
fn the_daemon_switches_to_a_ledger_that_replaces_the_open_one() -> Result<()> {
    let (lab, a, b) = node("ledger-exchanged", "")?;
    let running = started(&lab)?;
    let mut sent = send(&a, &b, 29)?;
    wait_for("a drain", || Ok(recorded(&lab, "101", 2)?.out_packets == sent))?;
    let copy = lab.path("copy.sqlite");
    lab.run_ok(&["ledger", "backup", copy.to_str().context("the path is not UTF-8")?])?;
    sent += send(&a, &b, 37)?;
    wait_for("another drain", || Ok(recorded(&lab, "101", 2)?.out_packets == sent))?;

    // Traffic recorded since the copy was made is recorded in the copy again.
    fs::rename(&copy, lab.state_dir().join("ledger.sqlite"))?;
    sent += send(&a, &b, 41)?;
    // Until the daemon switches, a report refuses the copy: the log of the previous file is still beside it.
    wait_for("a drain into the copy", || {
        Ok(recorded(&lab, "101", 2).is_ok_and(|all| all.out_packets == sent))
    })?;
    ensure!(log(&lab)?.contains("was replaced or removed; opening the ledger again"), "{}", log(&lab)?);
    end(&lab, running)?;
    check_ledger(&lab)?;
    Ok(())
}

#[test]
fn a_reader_that_keeps_the_log_from_being_moved_is_reported() -> Result<()> {
    let (lab, a, b) = node("ledger-reader", "")?;
    let running = started(&lab)?;
    let mut sent = send(&a, &b, 29)?;
    wait_for("a drain", || Ok(recorded(&lab, "101", 2)?.out_packets == sent))?;
    let is_reported = || -> Result<bool> {
        Ok(problems(&lab)?
            .iter()
            .any(|problem| problem.starts_with("ledger_checkpoint: cannot move the log")))
    };
    let file = lab.state_dir().join("ledger.sqlite");
    let mut reader =
        Command::new("sqlite3").arg(&file).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut input = reader.stdin.take().context("no stdin")?;
    input.write_all(b"BEGIN; SELECT count(*) FROM epoch;\n")?;
    sent += send(&a, &b, 31)?;
    wait_for("the problem", is_reported)?;
    // Figures are recorded meanwhile. A copy of the main file lacks them, as the problem says.
    ensure!(recorded(&lab, "101", 2)?.out_packets == sent);
    let copy = lab.path("copy.sqlite");
    fs::copy(&file, &copy)?;
    let query = "SELECT sum(out_packets) FROM traffic_5min";
    ensure!(sqlite(&copy, query)? != sqlite(&file, query)?);
    // The end of its input ends it.
    drop(input);
    ensure!(reader.wait()?.success());
    wait_for("a drain", || Ok(!is_reported()?))?;
    lab.run_ok(&["status"])?;
    end(&lab, running)?;
    ensure!(log(&lab)?.matches("cannot move the log").count() == 1, "{}", log(&lab)?);
    check_ledger(&lab)?;
    Ok(())
}
