//! The optional parts of the daemon: whatever fails, it counts, and reports what fails until it works again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::inotify;
use rustix::process::Signal;
use serde_json::Value;
use traffic_tests::lab::trafctl_program;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Container, Counters, Lab};

use crate::daemon::{Daemon, Resync};
use crate::node::{CLASSES, at, eventually, is_well, node, pair, problems};

/// Asks the API on a socket; returns the body of the answer.
fn ask(socket: &Path, path: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(body.to_owned())
}

/// The states of the parts by name, in a list of a document.
fn states(list: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let parts = list.as_array().into_iter().flatten();
    parts.map(|part| (text(&part["name"]), text(&part["state"]))).collect()
}

/// What `trafctl status` says of the daemon, with or without problems.
fn daemon_status(lab: &Lab) -> Result<Value> {
    let output = lab.trafctl(&["status", "--format", "json"])?.output()?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    Ok(status["daemon"].clone())
}

/// Sends from 101 to 102, and checks that every packet was counted.
fn counts(lab: &Lab, a: &Container, b: &Container, datagrams: u64) -> Result<()> {
    let before = Counters::at_rest(lab)?.class_or_zero("101", 2, "ipv4");
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), datagrams, 300)?;
    let since = Counters::at_rest(lab)?.class("101", 2, "ipv4").since(before);
    assert_eq!(since, Amounts::outgoing(sent.packets, sent.l3_bytes));
    Ok(())
}

#[test]
fn each_failing_part_is_shown_everywhere_and_none_stops_counting() -> Result<()> {
    let lab = node("parts")?;
    let (a, b) = pair(&lab)?;
    let (socket, classes, command) = (lab.path("api.sock"), lab.path("classes"), lab.path("ids"));
    let good = fs::read_to_string(&classes)?;
    lab.write("ids", "#!/bin/sh\necho no libvirt here >&2\nexit 3\n")?;
    run_ok(Command::new("chmod").arg("755").arg(&command))?;
    lab.configure(&format!(
        "class_file = {classes:?}\n[drain]\ninterval = \"250ms\"\n[api]\nlisten = \"unix:{}\"\n\
         [[interfaces.rule]]\npattern = \"^vnet[0-9]+$\"\nkind = \"mapped\"\n\
         [identities]\ncommand = [{command:?}]\n",
        socket.display()
    ))?;
    // Only the identity command knows whose it is.
    let _asked = lab.bridged_as("vnet7", [10, 1, 0, 4].into(), "fd00:1::4".parse()?)?;
    // A ledger that a newer version wrote.
    let daemon = Daemon::start(&lab)?;
    daemon.stop()?;
    let ledger = lab.state_dir().join("ledger.sqlite");
    let version = |version: &str| {
        run_ok(Command::new("sqlite3").arg(&ledger).arg(format!("pragma user_version = {version}")))
    };
    let known = run_ok(Command::new("sqlite3").arg(&ledger).arg("pragma user_version"))?;
    version("99")?;

    let mut daemon = Daemon::start_with(&lab, Resync::Every(Duration::from_millis(200)))?;
    daemon.settled()?;
    lab.write("classes", "1 0.0.0.0/0\n2 10.0.0.0/33\n")?;
    let expected =
        |list: &Value, part: &str, state: &str| states(list).get(part).map(String::as_str) == Some(state);
    let failing = ["class_file", "identity_command", "ledger"];
    for part in failing {
        eventually(part, || Ok(expected(&daemon_status(&lab)?["components"], part, "failing")))?;
    }
    counts(&lab, &a, &b, 31)?;
    // The same in every place.
    let status = daemon_status(&lab)?;
    ensure!(status["state"] == "running" && status["ledger_accepts_writes"] == false, "{status}");
    ensure!(expected(&status["components"], "api", "ok"), "{status}");
    ensure!(expected(&status["components"], "program_log", "disabled"), "{status}");
    let served: Value = serde_json::from_str(&ask(&socket, "/api/v1/status")?)?;
    assert_eq!(states(&served["components"]), states(&status["components"]));
    let metrics = ask(&socket, "/metrics")?;
    for (part, works) in [("ledger", 0), ("identity_command", 0), ("class_file", 0), ("api", 1)] {
        let line = format!("trafctl_component_works{{component=\"{part}\"}} {works}\n");
        ensure!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    let reported = problems(&lab)?;
    for (part, why) in [("ledger", "version 99"), ("identity_command", "no libvirt"), ("class_file", "33")] {
        let is_reported =
            reported.iter().any(|text| text.starts_with(&format!("{part}: ")) && text.contains(why));
        ensure!(is_reported, "{part}: {reported:#?}");
    }
    // Each was logged once, although it failed again and again.
    for line in ["counting continues without the ledger", "the class file is refused", "no libvirt here"] {
        assert_eq!(daemon.log().matches(line).count(), 1, "{line}: {}", daemon.log());
    }

    // All are corrected, and nothing is restarted.
    version(known.trim())?;
    lab.write("ids", "#!/bin/sh\necho vnet7 104\n")?;
    lab.write("classes", &good)?;
    for part in failing {
        eventually(part, || Ok(expected(&daemon_status(&lab)?["components"], part, "ok")))?;
    }
    counts(&lab, &a, &b, 17)?;
    eventually("no problem is left", || Ok(problems(&lab)?.is_empty()))?;
    let status = daemon_status(&lab)?;
    ensure!(status["ledger_accepts_writes"] == true && status["last_drain"].is_string(), "{status}");
    daemon.stop_after_errors()
}

#[test]
fn a_killed_daemon_is_not_taken_for_a_living_one() -> Result<()> {
    let lab = node("alive")?;
    let _pair = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    ensure!(daemon_status(&lab)?["state"] == "absent");
    let mut daemon = Daemon::start(&lab)?;
    let status = daemon_status(&lab)?;
    ensure!(status["state"] == "running" && status["pid"] == daemon.id(), "{status}");
    is_well(&lab)?;
    daemon.kill()?;
    ensure!(daemon_status(&lab)?["state"] == "dead", "{}", daemon_status(&lab)?);
    let reported = problems(&lab)?;
    ensure!(matches!(&reported[..], [only] if only.contains("without being stopped")), "{reported:?}");
    let daemon = Daemon::start(&lab)?;
    is_well(&lab)?;
    daemon.stop()?;
    ensure!(daemon_status(&lab)?["state"] == "stopped");
    is_well(&lab)?;
    // A command that reads holds nothing that the daemon needs, and what it reads is no file of the disk.
    ensure!(fs::symlink_metadata(lab.bpffs().join("daemon"))?.is_symlink());
    Ok(())
}

#[test]
fn another_place_of_the_api_needs_no_restart() -> Result<()> {
    let lab = node("api-moves")?;
    let configure = |listen: &str| {
        let api = if listen.is_empty() { String::new() } else { format!("[api]\nlisten = {listen:?}\n") };
        lab.configure(&format!("class_file = {:?}\n{api}", lab.path("classes")))
    };
    let place = |name: &str| format!("unix:{}", lab.path(name).display());
    configure("")?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let (first, second) = (lab.path("first.sock"), lab.path("second.sock"));
    configure(&place("first.sock"))?;
    daemon.signal(Signal::HUP)?;
    eventually("the API answers", || Ok(ask(&first, "/metrics").is_ok()))?;
    // While the new place is not free, the old one answers.
    fs::write(&second, "")?;
    configure(&place("second.sock"))?;
    daemon.signal(Signal::HUP)?;
    daemon.logs("second.sock ([api] listen)")?;
    ask(&first, "/metrics")?;
    fs::remove_file(&second)?;
    eventually("the API answers there", || Ok(ask(&second, "/metrics").is_ok() && !first.exists()))?;
    configure("")?;
    daemon.signal(Signal::HUP)?;
    eventually("the socket is gone", || Ok(!second.exists()))?;
    eventually("the daemon publishes that nothing fails", || Ok(is_well(&lab).is_ok()))?;
    daemon.stop_after_errors()
}

/// A user of the machine with nothing else to lose.
const NEIGHBOUR: u32 = 64_321;

/// Takes all inotify instances of a user until the result is dropped.
fn takes_all_instances() -> Result<mpsc::Sender<()>> {
    let (keep, dropped) = mpsc::channel::<()>();
    let (taken, all) = mpsc::channel();
    thread::spawn(move || {
        let user = rustix::process::Uid::from_raw(NEIGHBOUR);
        // Only this thread becomes that user.
        let became = rustix::thread::set_thread_res_uid(user, user, user);
        let mut instances = Vec::new();
        while let Ok(instance) = inotify::init(inotify::CreateFlags::CLOEXEC) {
            instances.push(instance);
        }
        let _ = taken.send(became.map(|()| instances.len()));
        let _ = dropped.recv();
    });
    let count = all.recv().context("the neighbour ended")?.context("the neighbour is nobody")?;
    ensure!(count > 0, "there is no instance to take");
    Ok(keep)
}

#[test]
fn a_neighbour_with_all_inotify_instances_delays_changes_of_files_only() -> Result<()> {
    let lab = node("inotify")?;
    let (a, b) = pair(&lab)?;
    for place in [lab.path(""), lab.bpffs().to_owned()] {
        run_ok(Command::new("chown").arg(NEIGHBOUR.to_string()).arg(place))?;
    }
    let all = takes_all_instances()?;
    let mut command = lab.host().command("setpriv");
    command.arg(format!("--reuid={NEIGHBOUR}"));
    command.args(["--inh-caps=+bpf,+net_admin,+perfmon", "--ambient-caps=+bpf,+net_admin,+perfmon"]);
    command.arg(trafctl_program()?).arg("--bpffs").arg(lab.bpffs().join("of-neighbour"));
    command.arg("--state-dir").arg(lab.path("of-neighbour")).arg("--config").arg(lab.config()).arg("run");
    let mut daemon = Daemon::spawn(&mut command, Resync::Off)?;
    daemon.ready()?;
    daemon.settled()?;
    let other = |arguments: &[&str]| -> Result<Value> {
        let mut command = lab.host().command("env");
        command.arg(trafctl_program()?).arg("--bpffs").arg(lab.bpffs().join("of-neighbour"));
        command.arg("--state-dir").arg(lab.path("of-neighbour")).arg("--config").arg(lab.config());
        command.args(arguments).args(["--format", "json"]);
        let output = command.output()?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let part = || -> Result<Option<String>> {
        Ok(states(&other(&["status"])?["daemon"]["components"]).remove("file_watch"))
    };
    eventually("the part fails", || Ok(part()?.as_deref() == Some("failing")))?;
    let hash = || -> Result<Value> { Ok(other(&["dump"])?["class_table"]["hash"].clone()) };
    let before = hash()?;
    lab.write("classes", &CLASSES.replace("2 10.1.", "3 10.1."))?;
    eventually("the file is noticed all the same", || Ok(hash()? != before)).with_context(|| daemon.log())?;
    // A reload needs no further instance either.
    daemon.signal(Signal::HUP)?;
    let before = hash()?;
    lab.write("classes", &CLASSES.replace("2 10.1.", "4 10.1."))?;
    eventually("the next change is noticed", || Ok(hash()? != before))?;
    udp_send(a.namespace(), b.namespace(), at(b.v4()), 12, 300)?;
    let rows = other(&["dump", "--container", "101", "-4"])?;
    let row = rows["counters"].as_array().into_iter().flatten().find(|row| row["class"] == 4);
    ensure!(row.is_some_and(|row| row["out_packets"] == 12), "{rows}");
    assert_eq!(daemon.log().matches("cannot watch files").count(), 1, "{}", daemon.log());

    drop(all);
    eventually("the part works again", || Ok(part()?.as_deref() == Some("ok")))?;
    daemon.stop()
}
