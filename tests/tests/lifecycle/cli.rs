//! Wrong input, which must change nothing, and the options of `trafctl dump`.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use serde_json::Value;
use traffic_tests::process::{Process, run_ok};
use traffic_tests::traffic::{UdpCount, tcp_exchange, udp_send};
use traffic_tests::{Container, Counters, Lab};

use crate::node::{
    PATIENCE, agrees_with_kernel, at, exchanged, files, hooks, is_well, links, node, output, pair, refused,
    stderr, trafctl,
};

#[test]
fn before_any_attach_there_is_one_error_line() -> Result<()> {
    let lab = node("nothing-yet")?;
    let (a, b) = pair(&lab)?;
    for command in [&["dump"][..], &["dump", "--format", "json"], &["status"], &["classes", "load"]] {
        let output = trafctl(&lab, command)?;
        let error = refused(&output)?;
        ensure!(
            error.contains("nothing is loaded") && error.contains("trafctl attach"),
            "{command:?}: {error}"
        );
        ensure!(output.stdout.is_empty(), "{command:?}: {}", String::from_utf8_lossy(&output.stdout));
    }
    // A detach with nothing attached succeeds.
    lab.run_ok(&["detach"])?;
    lab.run_ok(&["detach", "--purge", "--yes"])?;
    assert_eq!(files(lab.bpffs())?, [""; 0]);

    lab.run_ok(&["attach"])?;
    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 100_000, 0)?;
    assert_eq!(Counters::at_rest(&lab)?.class("101", 2, "ipv4"), exchanged(&count));
    is_well(&lab)
}

#[test]
fn wrong_names_are_refused_and_change_nothing() -> Result<()> {
    let lab = node("wrong")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach", "veth101.0"])?;
    let state = || anyhow::Ok((files(lab.bpffs())?, links(&lab)?, hooks(&lab, "veth102.0")?));
    let before = state()?;
    let cases: [(&[&str], &str); 7] = [
        (&["attach", "veth999.0"], "no interface veth999.0"),
        (&["attach", "veth102.0", "veth999.0"], "no interface veth999.0"),
        (&["attach", "br0"], "br0"),
        (&["detach", "veth999.0"], "no interface veth999.0"),
        (&["detach", "br0"], "br0"),
        (&["detach", "veth101.0", "veth999.0"], "no interface veth999.0"),
        (&["classes", "load", "/proc/self/mem/classes"], "/proc/self/mem/classes"),
    ];
    for (arguments, place) in cases {
        let error = refused(&trafctl(&lab, arguments)?).with_context(|| format!("{arguments:?}"))?;
        ensure!(error.contains(place), "{arguments:?}: {error}");
        ensure!(state()? == before, "{arguments:?} changed something");
    }
    // A wrong command line has its own status.
    for arguments in [
        &["explode"][..],
        &["dump", "-4", "-6"],
        &["dump", "--container", "a b"],
        &["dump", "--class", "999"],
    ] {
        let output = trafctl(&lab, arguments)?;
        ensure!(output.status.code() == Some(2), "{arguments:?}: {}: {}", output.status, stderr(&output));
        ensure!(state()? == before, "{arguments:?} changed something");
    }
    lab.run_ok(&["attach"])?;
    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v6()), 100_000, 0)?;
    assert_eq!(Counters::at_rest(&lab)?.class("101", 2, "ipv6"), exchanged(&count));
    is_well(&lab)
}

#[test]
fn wrong_addresses_are_refused_and_change_nothing() -> Result<()> {
    let lab = node("addresses")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    lab.run_ok(&["address", "add", "7", "192.0.2.7"])?;
    let before = lab.run_ok(&["address", "list"])?;
    ensure!(before.contains("192.0.2.7"), "{before}");
    let cases: [&[&str]; 5] = [
        &["add", "7", "192.0.2.300"],
        &["add", "7", "192.0.2.0/33"],
        &["add", "a b", "192.0.2.8"],
        // The address has an owner.
        &["add", "8", "192.0.2.7"],
        &["remove", "192.0.2.99"],
    ];
    for case in cases {
        let mut arguments = vec!["address"];
        arguments.extend(case);
        let output = trafctl(&lab, &arguments)?;
        let told = stderr(&output);
        ensure!(matches!(output.status.code(), Some(1 | 2)), "{case:?}: {}: {told}", output.status);
        let is_error = |line: &&str| line.starts_with("trafctl: ");
        ensure!(told.lines().filter(is_error).count() == 1, "{case:?}: {told}");
        assert_eq!(lab.run_ok(&["address", "list"])?, before, "{case:?}");
    }
    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 100_000, 0)?;
    assert_eq!(Counters::at_rest(&lab)?.class("101", 2, "ipv4"), exchanged(&count));
    is_well(&lab)
}

#[test]
fn without_root_there_is_one_error_line() -> Result<()> {
    let lab = node("nobody")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let state = || anyhow::Ok((files(lab.bpffs())?, links(&lab)?));
    let before = state()?;
    // A copy of the program that any user may run.
    let program = lab.path("trafctl");
    std::fs::copy(traffic_tests::lab::trafctl_program()?, &program)?;
    let root = program.parent().context("the lab's directory")?;
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755))?;
    for arguments in
        [&["attach"][..], &["run"], &["detach"], &["detach", "--purge", "--yes"], &["dump"], &["status"]]
    {
        let mut command = lab.host().command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program);
        command.arg("--bpffs").arg(lab.bpffs()).arg("--state-dir").arg(lab.state_dir());
        command.arg("--config").arg(lab.config()).args(arguments);
        let output = output(&mut command)?;
        let error = refused(&output).with_context(|| format!("{arguments:?}"))?;
        if arguments == ["dump"] {
            let expected = format!("cannot open {}: permission denied; run as root", lab.bpffs().display());
            ensure!(error.contains(&expected), "{error}");
        }
        ensure!(error.contains("root") || error.to_lowercase().contains("permi"), "{arguments:?}: {error}");
        ensure!(state()? == before, "{arguments:?} changed something");
    }
    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 100_000, 0)?;
    assert_eq!(Counters::at_rest(&lab)?.class("101", 2, "ipv4"), exchanged(&count));
    is_well(&lab)
}

#[test]
fn an_unusable_configuration_is_named_and_changes_no_bill() -> Result<()> {
    let lab = node("config")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let good = std::fs::read_to_string(lab.config())?;
    let before = (files(lab.bpffs())?, links(&lab)?);
    lab.configure("# fine\nclass_file = \n")?;
    // What only attaches and shows goes by the last good configuration: see `mistakes`.
    for command in [&["classes", "load"][..], &["container", "retire", "101", "--yes"]] {
        let output = trafctl(&lab, command)?;
        refused(&output).with_context(|| command.join(" "))?;
        ensure!(stderr(&output).contains("trafctl.toml:2:"), "{command:?}: {}", stderr(&output));
        assert_eq!((files(lab.bpffs())?, links(&lab)?), before, "{command:?}");
    }
    // A named file that is missing does not count as an empty one.
    std::fs::remove_file(lab.config())?;
    let error = refused(&trafctl(&lab, &["classes", "load"])?)?;
    ensure!(error.contains("trafctl.toml"), "{error}");
    let attached = trafctl(&lab, &["attach"])?;
    ensure!(stderr(&attached).contains("trafctl.toml: No such file"), "{}", stderr(&attached));
    assert_eq!((files(lab.bpffs())?, links(&lab)?), before);
    lab.configure(&good)?;
    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 100_000, 0)?;
    assert_eq!(Counters::at_rest(&lab)?.class("101", 2, "ipv4"), exchanged(&count));
    is_well(&lab)
}

#[test]
fn a_bpffs_is_mounted_on_an_ordinary_directory() -> Result<()> {
    let lab = node("mount")?;
    let (a, b) = pair(&lab)?;
    let elsewhere = lab.path("elsewhere");
    let with = |arguments: &[&str]| -> Result<String> {
        let mut command = lab.host().command(traffic_tests::lab::trafctl_program()?);
        command.arg("--bpffs").arg(&elsewhere).arg("--state-dir").arg(lab.state_dir());
        run_ok(command.arg("--config").arg(lab.config()).args(arguments))
    };
    // Runs in the test's own mount namespace, where the mount stays until it is unmounted.
    let tried = (|| {
        with(&["attach"])?;
        let kind = run_ok(std::process::Command::new("stat").args(["-f", "-c", "%t"]).arg(&elsewhere))?;
        ensure!(kind.trim() == "cafe4a11", "{kind}");
        let count = udp_send(a.namespace(), b.namespace(), at(b.v4()), 30, 100)?;
        with(&["attach"])?;
        let dump: Value = serde_json::from_str(&with(&["dump", "--container", "101", "--format", "json"])?)?;
        ensure!(dump["counters"][0]["out_bytes"] == count.l3_bytes, "{dump:#}");
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let mounted = mounts.lines().filter(|line| line.contains(&*elsewhere.to_string_lossy())).count();
        ensure!(mounted == 1, "{mounts}");
        with(&["detach", "--purge", "--yes"]).map(drop)
    })();
    unmount(&elsewhere, UnmountFlags::DETACH)?;
    tried?;
    // A file cannot become a mount point.
    let file = lab.write("file", "")?;
    let mut command = lab.host().command(traffic_tests::lab::trafctl_program()?);
    command.arg("--bpffs").arg(&file).arg("--config").arg(lab.config()).arg("attach");
    let error = refused(&output(&mut command)?)?;
    ensure!(error.contains(&*file.to_string_lossy()), "{error}");
    assert_eq!(hooks(&lab, "veth101.0")?, [""; 0]);

    lab.run_ok(&["attach"])?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(
        counters.interface("veth101.0").out_unseen_skbs,
        30,
        "counted under the other directory, not here"
    );
    agrees_with_kernel(&lab, &counters, a.interface())?;
    is_well(&lab)
}

/// Traffic of two containers, both families, classes 1 and 2.
fn mixed(lab: &Lab) -> Result<(Container, Container, [UdpCount; 3])> {
    let (mut a, mut b) = pair(lab)?;
    // Addresses in class 1, besides the containers' own in class 2.
    a.add_address([192, 0, 2, 1].into())?;
    b.add_address([192, 0, 2, 2].into())?;
    traffic_tests::container::introduce(&[&a, &b])?;
    lab.run_ok(&["attach"])?;
    let own = udp_send(a.namespace(), b.namespace(), at(b.v4()), 10, 100)?;
    let six = udp_send(a.namespace(), b.namespace(), at(b.v6()), 20, 200)?;
    let one = udp_send(a.namespace(), b.namespace(), at([192, 0, 2, 2].into()), 30, 300)?;
    Ok((a, b, [own, six, one]))
}

#[test]
fn the_options_of_dump_select_rows() -> Result<()> {
    let lab = node("dump")?;
    let (_a, _b, [own, six, one]) = mixed(&lab)?;
    let counters = Counters::at_rest(&lab)?;
    let sent = |count: &UdpCount| traffic_tests::Amounts::outgoing(count.packets, count.l3_bytes);
    assert_eq!(counters.class("101", 2, "ipv4"), sent(&own));
    assert_eq!(counters.class("101", 2, "ipv6"), sent(&six));
    assert_eq!(counters.class("101", 1, "ipv4"), sent(&one));

    // The rows of a dump, as "container class family".
    let rows = |options: &[&str]| -> Result<Vec<String>> {
        let mut arguments = vec!["dump", "--format", "json"];
        arguments.extend(options);
        let dump = lab.run_json(&arguments)?;
        let rows = dump["counters"].as_array().context("counters")?;
        let text =
            |row: &Value| format!("{} {} {}", row["container"], row["class"], row["family"]).replace('"', "");
        Ok(rows.iter().map(text).collect())
    };
    let everything = rows(&[])?;
    // The class is that of the peer's address, so the two ends need not agree.
    ensure!(everything.contains(&"101 1 ipv4".to_owned()), "{everything:?}");
    let only = |all: &[String], part: &str| -> Vec<String> {
        all.iter().filter(|row| row.contains(part)).cloned().collect()
    };
    assert_eq!(rows(&["-4"])?, only(&everything, "ipv4"));
    assert_eq!(rows(&["-6"])?, only(&everything, "ipv6"));
    assert_eq!(rows(&["-6"])?, ["101 2 ipv6", "102 2 ipv6"]);
    assert_eq!(rows(&["--container", "101"])?, ["101 1 ipv4", "101 2 ipv4", "101 2 ipv6"]);
    assert_eq!(rows(&["--container", "101", "--container", "102"])?, everything);
    assert_eq!(rows(&["--class", "1", "--container", "101"])?, ["101 1 ipv4"]);
    assert_eq!(rows(&["--class", "2", "--class", "1"])?, everything);
    // Two containers, classes 0 to 2, two families.
    assert_eq!(rows(&["--all"])?.len(), 12);

    // With a container, only its interfaces.
    let dump = lab.run_json(&["dump", "--format", "json", "--container", "102"])?;
    assert_eq!(dump["interfaces"].as_array().map(Vec::len), Some(1));
    assert_eq!(dump["interfaces"][0]["interface"], "veth102.0");
    assert_eq!((&dump["version"], &dump["basis"]), (&Value::from(1), &Value::from("l3-wire")));

    let csv = lab.run_ok(&["dump", "--format", "csv", "-6"])?;
    let lines: Vec<&str> = csv.lines().collect();
    let bytes = six.l3_bytes;
    assert_eq!(
        lines,
        [
            "container,class,family,in_bytes,in_packets,out_bytes,out_packets,generation,class_name",
            &format!("101,2,ipv6,0,0,{bytes},20,1,"),
            &format!("102,2,ipv6,{bytes},20,0,0,2,"),
        ]
    );
    let csv = lab.run_ok(&["dump", "--format", "csv", "--class", "77"])?;
    assert_eq!(csv.lines().count(), 1, "the header is printed without rows too");
    let table = lab.run_ok(&["dump", "-6"])?;
    ensure!(table.contains("CONTAINER") && table.contains(&bytes.to_string()), "{table}");
    is_well(&lab)
}

#[test]
fn a_watching_dump_ends_when_interrupted() -> Result<()> {
    let lab = node("watch")?;
    let (a, b, _counts) = mixed(&lab)?;
    for signal in [Signal::INT, Signal::TERM] {
        let mut command = lab.trafctl(&["dump", "--watch=1", "--format", "json"])?;
        let mut watch = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let stdout = watch.child().stdout.take().context("its standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut read =
            || -> Result<Value> { Ok(serde_json::from_str(&lines.next().context("one more document")??)?) };
        let of = |dump: &Value| dump["interfaces"][0]["out_packets"].as_u64().context("packets");
        let first = of(&read()?)?;
        let more = udp_send(a.namespace(), b.namespace(), at(b.v4()), 15, 100)?;
        // The next document may have been read before the packets were sent.
        let mut next = of(&read()?)?;
        if next != first + more.packets {
            next = of(&read()?)?;
        }
        assert_eq!(next, first + more.packets);
        watch.signal(signal)?;
        let status = watch.wait(PATIENCE)?;
        if signal == Signal::INT {
            ensure!(status.code() == Some(0), "{status}");
        }
    }
    // A reader that closes the pipe is not an error.
    let mut command = lab.trafctl(&["dump", "--all"])?;
    let mut dump =
        Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    drop(dump.child().stdout.take());
    let status = dump.wait(PATIENCE)?;
    ensure!(status.code() == Some(0), "{status}");
    let counters = Counters::at_rest(&lab)?;
    agrees_with_kernel(&lab, &counters, a.interface())?;
    is_well(&lab)
}
