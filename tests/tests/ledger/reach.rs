//! A ledger that is out of reach, from the start or under way: counting goes on, and nothing is missing afterwards.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use traffic_tests::{
    Container, Counters, Lab,
    process::run_ok,
    traffic::{tcp_exchange, udp_send},
};

use super::{booked, check_ledger, daemon, end, gaps, node, wait_for};

/// A file system of a few hundred KiB, to be filled.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)?;
        run_ok(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&path))?;
        Ok(Self(path))
    }

    /// Takes all that is left of it.
    fn fill(&self) -> Result<PathBuf> {
        let file = self.0.join("filler");
        let mut size = 1 << 20;
        let mut written = Vec::new();
        while size >= 512 {
            written.resize(written.len() + size, 7);
            if fs::write(&file, &written).is_err() {
                written.truncate(written.len() - size);
                size /= 2;
            }
        }
        // What the last attempt left is short of what fits by less than a block.
        if fs::write(&file, &written).is_err() {
            bail!("the filler does not fit twice");
        }
        Ok(file)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = run_ok(Command::new("umount").arg("--lazy").arg(&self.0)) {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn a_full_disk_costs_a_gap_and_no_byte() -> Result<()> {
    let (lab, a, b) = node("ledger-full", "")?;
    let disk = SmallDisk::mount(lab.state_dir())?;
    let running = daemon(&lab)?;
    let send = || tcp_exchange(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 200_000, 1000);
    wait_for("the daemon", || Ok(lab.run_ok(&["status"]).is_ok()))?;
    send()?;
    wait_for("the first booking", || Ok(booked(&lab, "101", 2)?.out_packets > 0))?;
    let filler = disk.fill()?;
    let before = booked(&lab, "101", 2)?;
    // New buckets of new classes need room that is not there; whatever still fits into pages that are is no matter.
    send()?;
    let classes = lab.write("more", "9 10.1.0.2/32\n8 0.0.0.0/0\n")?;
    let _may_be_refused = lab.trafctl(&["classes", "load", classes.to_str().context("a path")?])?.output()?;
    for _ in 0..5 {
        send()?;
        thread::sleep(Duration::from_millis(150));
    }
    fs::remove_file(filler)?;
    wait_for("the booking after the disk had room again", || {
        let live = Counters::read(&lab)?.container("101").out_packets;
        let booked = [0, 1, 2, 3, 8, 9].into_iter().try_fold(0, |sum, class| {
            Ok::<_, anyhow::Error>(sum + booked(&lab, "101", class)?.out_packets)
        })?;
        Ok(booked == live && booked > before.out_packets)
    })?;
    end(&lab, running)?;
    assert!(gaps(&lab)?.iter().any(|reason| reason == "disk_full"), "{:?}", gaps(&lab)?);
    Ok(())
}

/// What the daemons of a node have said so far.
fn log(lab: &Lab) -> Result<String> {
    Ok(fs::read_to_string(lab.path("daemon.log"))?)
}

/// Sends datagrams from 101 to 102; gives their number.
fn send(a: &Container, b: &Container, datagrams: u64) -> Result<u64> {
    Ok(udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), datagrams, 100)?.packets)
}

/// Starts a daemon whose ledger can't be opened, and waits until it counts nevertheless and has said why it books nothing.
fn daemon_without_reach(lab: &Lab, reason: &str) -> Result<traffic_tests::process::Process> {
    let running = daemon(lab)?;
    wait_for("the interfaces to be attached", || Ok(lab.run_ok(&["status"]).is_ok()))?;
    wait_for("the daemon's complaint", || {
        let said = log(lab)?;
        Ok(said.contains("Counting goes on without the ledger") && said.contains(reason))
    })?;
    Ok(running)
}

#[test]
fn a_disk_that_is_full_at_the_start_keeps_nothing_from_being_counted() -> Result<()> {
    let (lab, a, b) = node("ledger-full-start", "")?;
    // The daemon before leaves a ledger with a reading, and a reboot may well find the disk full.
    let disk = SmallDisk::mount(lab.state_dir())?;
    let first = daemon(&lab)?;
    wait_for("the first daemon", || Ok(lab.run_ok(&["status"]).is_ok()))?;
    let mut sent = send(&a, &b, 31)?;
    end(&lab, first)?;
    lab.run_ok(&["detach"])?;

    let filler = disk.fill()?;
    let running = daemon_without_reach(&lab, "ledger")?;
    sent += send(&a, &b, 47)?;
    fs::remove_file(filler)?;
    wait_for("the booking after the disk had room", || Ok(booked(&lab, "101", 2)?.out_packets == sent))?;
    end(&lab, running)?;
    let gaps = gaps(&lab)?;
    ensure!(gaps.iter().any(|reason| reason == "disk_full" || reason == "ledger_unwritable"), "{gaps:?}");
    check_ledger(&lab)?;
    Ok(())
}

#[test]
fn a_ledger_that_is_damaged_at_the_start_can_be_moved_away_under_the_daemon() -> Result<()> {
    let (lab, a, b) = node("ledger-damaged", "")?;
    let ledger = lab.state_dir().join("ledger.sqlite");
    let mut garbage = b"SQLite format 3\0".to_vec();
    garbage.resize(8192, 0xa5);
    fs::create_dir_all(lab.state_dir())?;
    fs::write(&ledger, &garbage)?;
    let running = daemon_without_reach(&lab, "ledger.sqlite")?;
    let sent = send(&a, &b, 53)?;
    ensure!(fs::read(&ledger)? == garbage, "the damaged file was written to");

    fs::rename(&ledger, lab.path("damaged"))?;
    wait_for("the booking in a new ledger", || {
        Ok(ledger.exists() && booked(&lab, "101", 2).is_ok_and(|all| all.out_packets == sent))
    })?;
    end(&lab, running)?;
    check_ledger(&lab)?;
    Ok(())
}

#[test]
fn a_ledger_that_is_exchanged_under_the_daemon_is_the_one_that_is_kept() -> Result<()> {
    let (lab, a, b) = node("ledger-exchanged", "")?;
    let running = daemon(&lab)?;
    wait_for("the daemon", || Ok(lab.run_ok(&["status"]).is_ok()))?;
    let mut sent = send(&a, &b, 29)?;
    wait_for("a booking", || Ok(booked(&lab, "101", 2)?.out_packets == sent))?;
    let copy = lab.path("copy.sqlite");
    lab.run_ok(&["ledger", "backup", copy.to_str().context("a path")?])?;
    sent += send(&a, &b, 37)?;
    wait_for("one more booking", || Ok(booked(&lab, "101", 2)?.out_packets == sent))?;

    // What was booked since the copy was made is booked in it anew.
    fs::rename(&copy, lab.state_dir().join("ledger.sqlite"))?;
    sent += send(&a, &b, 41)?;
    // Until the daemon has taken it up, a report refuses it: the log of the file before lies beside it.
    wait_for("the booking in the copy", || {
        Ok(booked(&lab, "101", 2).is_ok_and(|all| all.out_packets == sent))
    })?;
    ensure!(log(&lab)?.contains("is not the file any more that was opened"), "{}", log(&lab)?);
    end(&lab, running)?;
    check_ledger(&lab)?;
    Ok(())
}
