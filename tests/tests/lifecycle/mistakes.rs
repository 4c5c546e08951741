//! Mistakes in the configuration, the class file and the rules: what was known stays in force, everything is
//! counted, and the mistake is named.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use traffic_tests::container::introduce;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Container, Counters, Lab};

use crate::daemon::Daemon;
use crate::node::{
    CLASSES, at, eventually, hooks, is_well, is_well_but, node, pair, problems, refused, stderr, trafctl,
};

/// Two containers whose interfaces only the configuration assigns, so that the defaults would not count them.
fn listed(name: &str) -> Result<(Lab, String, Container, Container)> {
    let lab = Lab::new(name)?;
    let classes = lab.write("classes", CLASSES)?;
    let good = format!(
        "class_file = {classes:?}\n[host]\npreset = \"custom\"\n[[container]]\nid = \"web\"\ninterfaces = [\"odd1\"]\n\
         [[container]]\nid = \"db\"\ninterfaces = [\"odd2\"]\n"
    );
    lab.configure(&good)?;
    let a = lab.bridged_as("odd1", [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged_as("odd2", [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    Ok((lab, good, a, b))
}

/// Checks that what `a` sends now is counted for it, in this class.
fn counts(lab: &Lab, (a, id, class): (&Container, &str, u8), b: &Container, datagrams: u64) -> Result<()> {
    let count = || anyhow::Ok(Counters::at_rest(lab)?.class_or_zero(id, class, "ipv4"));
    let before = count()?;
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), datagrams, 200)?;
    let since = count()?.since(before);
    assert_eq!(since, Amounts::outgoing(sent.packets, sent.l3_bytes));
    Ok(())
}

/// Puts a mistake in the place of the configuration.
fn spoil(lab: &Lab, kind: &str) -> Result<()> {
    let file = lab.config();
    if file.is_dir() {
        fs::remove_dir(&file)?;
    } else if file.symlink_metadata().is_ok() {
        fs::remove_file(&file)?;
    }
    match kind {
        "bad line" => fs::write(&file, "node = \"n1\"\nclas_file = \"/etc/classes\"\n")?,
        "bad value" => fs::write(&file, "[limits]\n\nclasses = 0\n")?,
        "not UTF-8" => fs::write(&file, b"node = \"n1\"\n# caf\xe9\n")?,
        "zeros" => fs::write(&file, [0; 4096])?,
        "too large" => fs::File::create(&file)?.set_len(1 << 30)?,
        "FIFO" => drop(run_ok(Command::new("mkfifo").arg(&file))?),
        "directory" => fs::create_dir(&file)?,
        "loop" => symlink(&file, &file)?,
        _ => {}
    }
    Ok(())
}

#[test]
fn a_mistake_in_the_configuration_stops_neither_hooks_nor_reports_nor_the_daemon() -> Result<()> {
    let (lab, good, a, b) = listed("config-mistakes")?;
    let daemon = Daemon::start(&lab)?;
    counts(&lab, (&a, "web", 2), &b, 11)?;
    daemon.stop()?;
    let kinds = [
        ("bad line", "trafctl.toml:2:1: unknown field `clas_file`"),
        ("bad value", "trafctl.toml:3:11: classes = 0 is out of range"),
        ("not UTF-8", "it is not UTF-8 text (byte 17)"),
        ("zeros", "trafctl.toml:1:"),
        ("too large", "it is larger than"),
        ("FIFO", "it is a FIFO"),
        ("directory", "it is a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("missing", "No such file or directory"),
    ];
    for (number, (kind, reason)) in (20..).zip(kinds) {
        let before = Counters::at_rest(&lab)?.class_or_zero("web", 2, "ipv4");
        spoil(&lab, kind)?;
        // A container stops and starts.
        lab.run_ok(&["detach", "odd1"])?;
        let attached = trafctl(&lab, &["attach", "odd1"])?;
        ensure!(attached.status.success(), "{kind}: {}", stderr(&attached));
        ensure!(stderr(&attached).contains(reason), "{kind}: {}", stderr(&attached));
        assert_eq!(hooks(&lab, "odd1")?.len(), 2, "{kind}");
        let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), number, 200)?;
        let dumped = trafctl(&lab, &["dump"])?;
        assert_eq!(dumped.status.code(), Some(1), "{kind}");
        ensure!(String::from_utf8_lossy(&dumped.stdout).contains("web"), "{kind}: no figures");
        ensure!(stderr(&dumped).contains(reason), "{kind}: {}", stderr(&dumped));
        is_well_but(&lab, &[reason])?;
        // What only tells whether a file is right still fails.
        ensure!(trafctl(&lab, &["classes", "load"])?.status.code() == Some(1), "{kind}: load");
        spoil(&lab, "")?;
        lab.configure(&good)?;
        let since = Counters::at_rest(&lab)?.class("web", 2, "ipv4").since(before);
        assert_eq!(since, Amounts::outgoing(sent.packets, sent.l3_bytes), "{kind}");
    }
    // A restart with a mistake.
    let before = Counters::at_rest(&lab)?.class("web", 2, "ipv4");
    lab.run_ok(&["detach"])?;
    spoil(&lab, "bad line")?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.logs("clas_file")?;
    daemon.settled()?;
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 41, 200)?;
    // The daemon publishes its state each second.
    eventually("the daemon reports the mistake", || Ok(is_well_but(&lab, &["configuration: "]).is_ok()))?;
    daemon.signal(Signal::HUP)?;
    eventually("the reload fails too", || {
        Ok(problems(&lab)?.iter().any(|problem| problem.contains("(failed 2 times")))
    })?;
    lab.configure(&good)?;
    let told = "the file has no mistake now: `systemctl reload trafctl`";
    ensure!(problems(&lab)?.iter().any(|it| it.starts_with("configuration: ") && it.contains(told)));
    daemon.signal(Signal::HUP)?;
    eventually("the correction is read", || Ok(problems(&lab)?.is_empty()))?;
    let since = Counters::at_rest(&lab)?.class("web", 2, "ipv4").since(before);
    assert_eq!(since, Amounts::outgoing(sent.packets, sent.l3_bytes));
    counts(&lab, (&a, "web", 2), &b, 43)?;
    daemon.stop_after_errors()
}

#[test]
fn a_first_start_with_a_mistake_in_the_configuration_changes_nothing() -> Result<()> {
    let (lab, good, a, b) = listed("first-mistake")?;
    spoil(&lab, "bad line")?;
    for command in ["attach", "run"] {
        let output = trafctl(&lab, &[command])?;
        ensure!(refused(&output)?.contains("trafctl.toml:2:1: unknown field"), "{}", stderr(&output));
        assert_eq!(hooks(&lab, "odd1")?, [""; 0]);
    }
    // Counters of an earlier version, which kept no good configuration, are shown all the same.
    lab.configure(&good)?;
    lab.run_ok(&["attach"])?;
    counts(&lab, (&a, "web", 2), &b, 7)?;
    fs::remove_dir_all(lab.state_dir())?;
    spoil(&lab, "bad line")?;
    let dumped = trafctl(&lab, &["dump"])?;
    assert_eq!(dumped.status.code(), Some(1));
    ensure!(String::from_utf8_lossy(&dumped.stdout).contains("web"), "no figures");
    let found = problems(&lab)?;
    ensure!(found.iter().any(|problem| problem.contains("trafctl.toml:2:1: unknown field")), "{found:#?}");
    // A container that starts now is counted by the default rules, and the others as before.
    let c = lab.bridged(101, 0, [10, 1, 0, 6].into(), "fd00:1::6".parse()?)?;
    let d = lab.bridged(102, 0, [10, 1, 0, 7].into(), "fd00:1::7".parse()?)?;
    introduce(&[&c, &d])?;
    for arguments in [&["attach", "veth101.0"][..], &["attach"], &["attach", "odd1"]] {
        let attached = trafctl(&lab, arguments)?;
        ensure!(attached.status.success(), "{}", stderr(&attached));
        ensure!(stderr(&attached).contains("only the default rules assign"), "{}", stderr(&attached));
    }
    // What they do not name is counted until it is known whose it is.
    let _odd3 = lab.bridged_as("odd3", [10, 1, 0, 5].into(), "fd00:1::5".parse()?)?;
    let attached = trafctl(&lab, &["attach", "odd3"])?;
    ensure!(attached.status.success(), "{}", stderr(&attached));
    ensure!(stderr(&attached).contains("pending:odd3:"), "{}", stderr(&attached));
    lab.configure(&good)?;
    counts(&lab, (&c, "101", 2), &d, 11)?;
    counts(&lab, (&a, "web", 2), &b, 5)?;
    Ok(())
}

#[test]
fn a_first_start_with_a_bad_class_file_counts_in_class_0_until_it_is_corrected() -> Result<()> {
    let lab = node("class-0")?;
    let (a, b) = pair(&lab)?;
    let classes = lab.path("classes");
    let many: String = (1..=40).map(|class| format!("{class} 10.{class}.0.0/16\n")).collect();
    let bad = [
        (Some("1 0.0.0.0/0\n1 ::/0\n2 10.1.0.0/\n".to_owned()), "classes:3"),
        (Some(many), "41 classes"),
        (Some(String::new()), "contains no network"),
        (None, "No such file"),
    ];
    for (number, (text, reason)) in (5..).zip(bad) {
        match &text {
            Some(text) => drop(lab.write("classes", text)?),
            None => fs::remove_file(&classes)?,
        }
        let attached = trafctl(&lab, &["attach"])?;
        ensure!(attached.status.success(), "{}", stderr(&attached));
        let said = stderr(&attached);
        ensure!(said.contains(reason) && said.contains("class 0, which is not billed"), "{said}");
        counts(&lab, (&a, "101", 0), &b, number)?;
        let found = problems(&lab)?;
        ensure!(found.iter().any(|problem| problem.contains("class 0, which is not billed")), "{found:#?}");
        if reason != "contains no network" && reason != "41 classes" {
            ensure!(found.iter().any(|problem| problem.contains("is not usable")), "{found:#?}");
            let explained = trafctl(&lab, &["classes", "explain", "10.1.0.2"])?;
            assert_eq!(explained.status.code(), Some(1));
            ensure!(stderr(&explained).contains(reason), "{}", stderr(&explained));
            ensure!(String::from_utf8_lossy(&explained.stdout).contains("class 0"), "{reason}");
        }
        // Without a daemon, the corrected file is loaded by the next hook or cron job.
        lab.write("classes", CLASSES)?;
        let found = problems(&lab)?;
        ensure!(found.iter().any(|problem| problem.contains("class 0, which is not billed")), "{found:#?}");
        lab.run_ok(&["attach"])?;
        counts(&lab, (&a, "101", 2), &b, 30 + number)?;
        is_well(&lab)?;
        lab.run_ok(&["detach", "--purge", "--yes"])?;
    }
    lab.write("classes", "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.0/\n")?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    counts(&lab, (&a, "101", 0), &b, 13)?;
    eventually("the daemon reports the file", || Ok(is_well_but(&lab, &["class_file: "]).is_ok()))?;
    daemon.stop_after_errors()?;
    // So does one that finds these counters, although its file gives their table.
    lab.write("classes", "# moved\n")?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let found = problems(&lab)?;
    ensure!(found.iter().any(|problem| problem.contains("class 0, which is not billed")), "{found:#?}");
    lab.write("classes", CLASSES)?;
    eventually("the corrected file is loaded", || Ok(problems(&lab)?.is_empty()))?;
    counts(&lab, (&a, "101", 2), &b, 17)?;
    daemon.stop_after_errors()
}

#[test]
fn after_a_wrong_preset_what_is_counted_is_shown_as_counted() -> Result<()> {
    let lab = node("wrong-preset")?;
    let (a, b) = pair(&lab)?;
    let class_file = format!("class_file = {:?}\n", lab.path("classes"));
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    lab.configure(&format!("{class_file}[host]\npreset = \"libvirt\"\n"))?;
    daemon.signal(Signal::HUP)?;
    let told = "2 interfaces are counted, but the configuration does not name them any more (veth101.0 for 101, \
                veth102.0 for 102): no rule matches";
    eventually("the wrong preset is a problem", || {
        Ok(problems(&lab)?.iter().any(|problem| problem.starts_with(told)))
    })?;
    is_well_but(&lab, &[told])?;
    counts(&lab, (&a, "101", 2), &b, 19)?;
    // What comes now is not counted, whatever still is.
    let new = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    let others = "no interface matches a rule, so no other container is counted, but veth103.0 looks like";
    is_well_but(&lab, &["veth103.0: a port of br0 that nothing watches", told, others])?;
    let attached = trafctl(&lab, &["attach"])?;
    ensure!(stderr(&attached).contains(others), "{}", stderr(&attached));
    drop(new);
    let status = trafctl(&lab, &["status", "--format", "json"])?;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
    let names = |list: &str| -> Vec<String> {
        let all = status[list].as_array().into_iter().flatten();
        all.filter_map(|one| Some(one["interface"].as_str()?.to_owned())).collect()
    };
    assert_eq!(names("counted_unnamed"), ["veth101.0", "veth102.0"]);
    ensure!(names("not_watched").iter().all(|name| !name.starts_with("veth10")), "{status}");
    lab.configure(&class_file)?;
    daemon.signal(Signal::HUP)?;
    eventually("it is corrected", || Ok(problems(&lab)?.is_empty()))?;
    daemon.stop()?;
    is_well(&lab)
}

#[test]
fn a_preset_of_another_kind_of_host_is_a_problem_from_the_start() -> Result<()> {
    let lab = node("other-host")?;
    let class_file = format!("class_file = {:?}\n", lab.path("classes"));
    lab.configure(&format!("{class_file}[host]\npreset = \"proxmox\"\n"))?;
    lab.run_ok(&["attach"])?;
    is_well(&lab)?;
    let (a, b) = pair(&lab)?;
    let attached = trafctl(&lab, &["attach"])?;
    let told = "no interface matches a rule, so no container is counted, but veth101.0 and 1 other look like";
    ensure!(attached.status.success() && stderr(&attached).contains(told), "{}", stderr(&attached));
    is_well_but(&lab, &[told])?;
    lab.configure(&class_file)?;
    lab.run_ok(&["attach"])?;
    is_well(&lab)?;
    counts(&lab, (&a, "101", 2), &b, 29)
}

#[test]
fn the_loopback_is_refused_as_an_uplink_with_the_reason() -> Result<()> {
    let lab = node("lo-uplink")?;
    let (a, b) = pair(&lab)?;
    let class_file = format!("class_file = {:?}\n", lab.path("classes"));
    lab.configure(&format!("{class_file}[node]\nuplinks = [\"lo\", \"br0\"]\n"))?;
    let attached = trafctl(&lab, &["attach"])?;
    ensure!(attached.status.success(), "{}", stderr(&attached));
    ensure!(stderr(&attached).contains("lo: not attached: it is the loopback"), "{}", stderr(&attached));
    assert_eq!((hooks(&lab, "lo")?.len(), hooks(&lab, "br0")?.len()), (0, 2));
    is_well_but(&lab, &["lo: not attached: it is the loopback"])?;
    let named = trafctl(&lab, &["attach", "lo"])?;
    let told = refused(&named)?;
    ensure!(told.contains("cannot attach to lo: it is the loopback"), "{told}");
    counts(&lab, (&a, "101", 2), &b, 23)
}

#[test]
fn an_address_of_two_containers_and_a_lost_list_are_problems() -> Result<()> {
    let lab = node("addresses-lost")?;
    let vz = lab.path("conf");
    fs::create_dir_all(&vz)?;
    lab.configure(&format!("class_file = {:?}\nvz_conf_dir = {vz:?}\n", lab.path("classes")))?;
    lab.run_ok(&["attach"])?;
    lab.run_ok(&["address", "add", "701", "10.77.0.1"])?;
    fs::write(vz.join("702.conf"), "IP_ADDRESS=\"10.77.0.2\"\n")?;
    fs::write(vz.join("703.conf"), "IP_ADDRESS=\"10.77.0.2 10.77.0.3\"\n")?;
    let daemon = Daemon::start(&lab)?;
    let both = "10.77.0.2/32 is claimed by container 702 (Virtuozzo's file) and container 703";
    is_well_but(&lab, &[both])?;
    eventually("the daemon's part says so", || {
        let status = trafctl(&lab, &["status", "--format", "json"])?;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
        let mut parts = status["daemon"]["components"].as_array().into_iter().flatten();
        Ok(parts.any(|part| part["name"] == "owners" && part["state"] == "failing"))
    })?;
    fs::remove_file(vz.join("702.conf"))?;
    daemon.signal(Signal::HUP)?;
    eventually("one claim is withdrawn", || Ok(problems(&lab)?.is_empty()))?;

    let list = lab.state_dir().join("addresses");
    fs::remove_file(&list)?;
    daemon.signal(Signal::HUP)?;
    // A hook of another container must not take the address from the kernel.
    lab.run_ok(&["attach"])?;
    is_well_but(&lab, &["addresses: the list is gone; the addresses that were read before are used"])?;
    let known = trafctl(&lab, &["address", "list"])?;
    ensure!(String::from_utf8_lossy(&known.stdout).contains("10.77.0.1"), "{}", stderr(&known));
    // A file that only this process cannot read.
    fs::remove_file(vz.join("703.conf"))?;
    symlink(vz.join("703.conf"), vz.join("703.conf"))?;
    lab.run_ok(&["attach"])?;
    is_well_but(&lab, &["the list is gone", "703.conf: cannot read it: Too many levels of symbolic links"])?;
    let held = run_ok(
        lab.host()
            .command("bpftool")
            .args(["-j", "map", "dump", "pinned"])
            .arg(lab.bpffs().join("maps").join("ADDRESSES_V4")),
    )?;
    for last in ["01", "02", "03"] {
        ensure!(held.contains(&format!("\"0x0a\",\"0x4d\",\"0x00\",\"0x{last}\"")), "{last}: {held}");
    }
    lab.run_ok(&["address", "add", "704", "10.77.0.4"])?;
    ensure!(fs::read_to_string(&list)?.contains("10.77.0.1/32 701"), "the list is not restored");
    daemon.stop_after_errors()
}
