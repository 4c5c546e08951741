//! Files that change while `trafctl run` runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Container, Counters, Lab};

use crate::daemon::Daemon;
use crate::node::{at, eventually, hooks, node, output, pair, problems, stderr, trafctl};

const UUID: &str = "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f";

/// A class file with the containers' networks in the given class.
fn classes(class: u8) -> String {
    format!("1 0.0.0.0/0\n1 ::/0\n{class} 10.1.0.0/16\n{class} fd00:1::/32\n")
}

fn hash(lab: &Lab) -> Result<String> {
    Ok(Counters::read(lab)?.class_table.hash)
}

/// Makes a change and waits until another class table is in force. Without resync only the file watch can
/// notice it.
fn changes_table(lab: &Lab, what: &str, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = hash(lab)?;
    change()?;
    eventually(what, || Ok(hash(lab)? != before))
}

fn counts_in(lab: &Lab, a: &Container, b: &Container, class: u8) -> Result<()> {
    let before = Counters::at_rest(lab)?.class_or_zero("101", class, "ipv4");
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 10 + u64::from(class), 200)?;
    let since = Counters::at_rest(lab)?.class("101", class, "ipv4").since(before);
    assert_eq!(since, Amounts::outgoing(sent.packets, sent.l3_bytes), "class {class}");
    Ok(())
}

#[test]
fn a_changed_class_file_takes_effect_at_once() -> Result<()> {
    let lab = node("class-file")?;
    let directory = lab.path("vz/conf");
    fs::create_dir_all(&directory)?;
    let file = directory.join("networks_classes");
    fs::write(&file, classes(2))?;
    lab.configure(&format!("class_file = {file:?}\n"))?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    counts_in(&lab, &a, &b, 2)?;

    changes_table(&lab, "the file is written in place", || Ok(fs::write(&file, classes(3))?))?;
    counts_in(&lab, &a, &b, 3)?;
    changes_table(&lab, "the file is replaced by rename", || {
        fs::write(directory.join(".networks_classes.swp"), classes(4))?;
        Ok(fs::rename(directory.join(".networks_classes.swp"), &file)?)
    })?;
    counts_in(&lab, &a, &b, 4)?;
    // As `git checkout`, configuration management and package managers do.
    changes_table(&lab, "the directory is replaced", || {
        fs::rename(lab.path("vz"), lab.path("old"))?;
        fs::create_dir_all(&directory)?;
        Ok(fs::write(&file, classes(5))?)
    })?;
    counts_in(&lab, &a, &b, 5)?;
    changes_table(&lab, "the file becomes a link to another file", || {
        lab.write("elsewhere", &classes(6))?;
        fs::remove_file(&file)?;
        Ok(symlink(lab.path("elsewhere"), &file)?)
    })?;
    changes_table(&lab, "the target of the link is written", || {
        lab.write("elsewhere", &classes(7)).map(drop)
    })?;
    counts_in(&lab, &a, &b, 7)?;

    let good = hash(&lab)?;
    lab.write("elsewhere", "1 0.0.0.0/0\n16777 10.0.0.0/8\n")?;
    daemon.logs("networks_classes:2")?;
    // Logged once: other events do not repeat it.
    fs::write(directory.join("networks_classes.bak"), "")?;
    fs::rename(&file, directory.join("away"))?;
    daemon.logs("the class file is gone: there is none at")?;
    assert_eq!(hash(&lab)?, good);
    assert_eq!(daemon.log().matches("the class file is refused").count(), 1, "{}", daemon.log());
    counts_in(&lab, &a, &b, 7)?;
    changes_table(&lab, "the file is correct again", || {
        fs::rename(directory.join("away"), &file)?;
        lab.write("elsewhere", &classes(8)).map(drop)
    })?;
    counts_in(&lab, &a, &b, 8)?;
    // The daemon publishes each second that the file is good again.
    eventually("no problem is left", || Ok(problems(&lab)?.is_empty()))?;
    daemon.stop_after_errors()
}

#[test]
fn a_bad_class_file_at_boot_restores_the_last_table() -> Result<()> {
    let lab = node("boot-classes")?;
    let file = lab.write("boot", &classes(2))?;
    lab.configure(&format!("class_file = {file:?}\nclass_order = \"last-line\"\n"))?;
    let (a, b) = pair(&lab)?;
    let daemon = Daemon::start(&lab)?;
    eventually("the ledger keeps the table", || {
        let ledger = lab.state_dir().join("ledger.sqlite");
        let query = "select count(*) from class_table where content is not null";
        let output = output(Command::new("sqlite3").arg(ledger).arg(query))?;
        Ok(output.stdout == b"1\n")
    })?;
    daemon.stop()?;
    let good = hash(&lab)?;
    for bad in ["1 0.0.0.0/0\n2 10.0.0.0/33\n", "", "# nothing\n"] {
        // A reboot discards the maps.
        lab.run_ok(&["detach", "--purge", "--yes"])?;
        fs::write(&file, bad)?;
        let mut daemon = Daemon::start(&lab)?;
        daemon.logs("the table last in force is used")?;
        assert_eq!(hash(&lab)?, good, "with {bad:?}");
        counts_in(&lab, &a, &b, 2)?;
        daemon.stop_after_errors()?;
    }
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    changes_table(&lab, "the file is corrected", || Ok(fs::write(&file, classes(3))?))?;
    counts_in(&lab, &a, &b, 3)?;
    daemon.stop()?;

    // Without a ledger the last table is unknown.
    lab.run_ok(&["detach", "--purge", "--yes"])?;
    fs::remove_dir_all(lab.state_dir())?;
    fs::write(&file, "2 10.0.0.0/33\n")?;
    let output = trafctl(&lab, &["attach"])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    ensure!(stderr(&output).contains("boot:1"), "{}", stderr(&output));
    // Nothing is billed by a table that nobody wrote.
    counts_in(&lab, &a, &b, 0)
}

#[test]
fn container_files_take_effect_when_they_appear() -> Result<()> {
    let lab = node("conf-files")?;
    let directory = lab.path("later/conf");
    lab.configure(&format!("class_file = {:?}\nvz_conf_dir = {directory:?}\n", lab.path("classes")))?;
    let venet = lab.venet()?;
    let routed = venet.container("301", [10, 3, 0, 1].into(), "fd00:3::1".parse()?)?;
    let other = venet.container("302", [10, 3, 0, 2].into(), "fd00:3::2".parse()?)?;
    let bridged = lab.bridged_as("veth42001122", [10, 1, 0, 7].into(), "fd00:1::7".parse()?)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    daemon.logs("veth42001122: counted as pending:")?;

    // The directory appears with a file in it, as when a package is installed.
    fs::create_dir_all(&directory)?;
    fs::write(
        directory.join(format!("{UUID}.conf")),
        "VEID=777\nNETIF=\"host_ifname=veth42001122\"\nodd line\n",
    )?;
    daemon.logs("veth42001122: pending:")?;
    assert_eq!(hooks(&lab, bridged.interface())?.len(), 2);
    daemon.logs(&format!("{UUID}.conf:3: the line is not an assignment"))?;

    // Virtuozzo's file is a link into the private area of the container, and its target is replaced.
    fs::create_dir_all(lab.path("private/301"))?;
    let target = lab.path("private/301/ve.conf");
    fs::write(&target, "IP_ADDRESS=\"10.3.9.9\"\n")?;
    symlink(&target, directory.join("301.conf"))?;
    eventually("the address in the link's target is known", || owns(&lab, "10.3.9.9/32", "301"))?;
    fs::write(lab.path("private/301/new"), "IP_ADDRESS=\"10.3.0.1\"\n")?;
    fs::rename(lab.path("private/301/new"), &target)?;
    eventually("the address in the new target is known", || owns(&lab, "10.3.0.1/32", "301"))?;
    let before = Counters::at_rest(&lab)?;
    let sent = udp_send(routed.namespace(), other.namespace(), at(other.v4()), 17, 300)?;
    let counters = Counters::at_rest(&lab)?;
    let since = counters.class("301", 1, "ipv4").since(before.class_or_zero("301", 1, "ipv4"));
    assert_eq!(since, Amounts::outgoing(sent.packets, sent.l3_bytes));
    assert_eq!(daemon.log().matches("the line is not an assignment").count(), 1, "{}", daemon.log());
    daemon.stop()
}

/// Whether the kernel has the address as the container's: the prefix with a slot, and the slot with the
/// container's name.
fn owns(lab: &Lab, prefix: &str, container: &str) -> Result<bool> {
    let maps = lab.bpffs().join("maps");
    let read = |name: &str| -> Result<serde_json::Value> {
        let mut command = Command::new("bpftool");
        command.args(["-j", "map", "dump", "pinned"]).arg(maps.join(name));
        Ok(serde_json::from_str(&traffic_tests::process::run_ok(&mut command)?)?)
    };
    let bytes = |value: &serde_json::Value| -> Vec<u8> {
        let digits = value.as_array().into_iter().flatten().filter_map(|byte| byte.as_str());
        digits.filter_map(|digits| u8::from_str_radix(digits.trim_start_matches("0x"), 16).ok()).collect()
    };
    let (address, len) = prefix.split_once('/').context("a prefix")?;
    let address: std::net::Ipv4Addr = address.parse()?;
    let key = [&u32::to_ne_bytes(len.parse()?)[..], &address.octets()[..]].concat();
    let addresses = read("ADDRESSES_V4")?;
    let found = addresses.as_array().into_iter().flatten().find(|row| bytes(&row["key"]) == key);
    let Some(slot) = found.and_then(|row| <[u8; 4]>::try_from(bytes(&row["value"])).ok()) else {
        return Ok(false);
    };
    let containers = read("CONTAINERS")?;
    let rows: Vec<_> = containers.as_array().into_iter().flatten().collect();
    let record = bytes(&rows.get(u32::from_ne_bytes(slot) as usize).context("the slot")?["value"]);
    Ok(record[16..].starts_with(container.as_bytes()))
}
