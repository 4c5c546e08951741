//! Each kind of host with its interface names, and containers by all their ids.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use traffic_tests::container::introduce;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Container, Counters, Lab};

use crate::daemon::Daemon;
use crate::node::{at, eventually, hooks, is_well, node, pair, problems, refused, trafctl};

const UUID: &str = "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f";
const UUID_AS_TYPED: &str = "{2B2A3D9C-6F2E-4A77-9C15-0A1B2C3D4E5F}";

/// A node as [`node`] with more configuration: top-level keys, then tables.
fn host(name: &str, keys: &str, tables: &str) -> Result<Lab> {
    let lab = node(name)?;
    fs::create_dir(lab.path("vz"))?;
    let classes = lab.path("classes");
    lab.configure(&format!(
        "class_file = {classes:?}\nvz_conf_dir = {:?}\n{keys}\n{tables}\n",
        lab.path("vz")
    ))?;
    Ok(lab)
}

/// Containers with these interface names, which know each other.
fn behind(lab: &Lab, names: &[&str]) -> Result<Vec<Container>> {
    let mut containers = Vec::new();
    for (number, name) in (1u8..).zip(names) {
        let v6 = format!("fd00:1::{number}").parse()?;
        containers.push(lab.bridged_as(name, [10, 1, 0, number].into(), v6)?);
    }
    introduce(&containers.iter().collect::<Vec<_>>())?;
    Ok(containers)
}

/// Each container sends a different number of datagrams to the next, and must be counted under the expected
/// id. `-` marks an interface that is not watched.
fn names_are_known(name: &str, tables: &str, expected: &[(&str, &str)]) -> Result<()> {
    let lab = host(name, "", tables)?;
    let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    let containers = behind(&lab, &names)?;
    lab.run_ok(&["attach"])?;
    let mut sent = Vec::new();
    for (at_index, from) in containers.iter().enumerate() {
        let to = &containers[(at_index + 1) % containers.len()];
        sent.push(udp_send(from.namespace(), to.namespace(), at(to.v4()), 11 + 7 * at_index as u64, 300)?);
    }
    let counters = Counters::at_rest(&lab)?;
    let last = sent.len() - 1;
    for (index, (interface, id)) in expected.iter().enumerate() {
        if *id == "-" {
            ensure!(hooks(&lab, interface)?.is_empty(), "{interface} is watched");
            continue;
        }
        let received = &sent[if index == 0 { last } else { index - 1 }];
        let amounts =
            Amounts::both((received.packets, received.l3_bytes), (sent[index].packets, sent[index].l3_bytes));
        assert_eq!(counters.class(id, 2, "ipv4"), amounts, "{interface} is {id}'s");
    }
    let watched = expected.iter().filter(|(_, id)| *id != "-").count();
    assert_eq!(counters.interfaces.len(), watched, "{:?}", counters.interfaces);
    // The bridge has watched ports beside those that no rule knows.
    let is_unwatched_port = |problem: &String| {
        let mut unwatched = expected.iter().filter(|(_, id)| *id == "-");
        unwatched.any(|(name, _)| problem.starts_with(&format!("{name}: a port of br0 that nothing watches")))
    };
    let problems = problems(&lab)?;
    ensure!(problems.iter().all(is_unwatched_port), "{problems:#?}");
    Ok(())
}

#[test]
fn interface_names_of_virtuozzo() -> Result<()> {
    names_are_known(
        "virtuozzo",
        "[host]\npreset = 'virtuozzo'",
        &[("veth101.0", "101"), ("vme7.1", "7"), ("veth-x", "-"), ("veth101", "-")],
    )
}

#[test]
fn interface_names_of_proxmox() -> Result<()> {
    let expected = [
        ("veth100i0", "100"),
        ("tap101i1", "101"),
        ("fwpr100p0", "-"),
        ("fwln100i0", "-"),
        ("fwbr100i0", "-"),
        ("veth101.0", "-"),
    ];
    names_are_known("proxmox", "[host]\npreset = 'proxmox'", &expected)
}

#[test]
fn interface_names_of_lxc() -> Result<()> {
    names_are_known(
        "lxc",
        "[host]\npreset = 'lxc'",
        &[("veth101", "101"), ("veth102.0", "102"), ("lxcbr9", "-")],
    )
}

#[test]
fn interface_names_of_nspawn() -> Result<()> {
    // Of 15 bytes, the last ones may be a hash in place of the rest of the name.
    let expected = [("ve-web", "web"), ("vb-mail", "mail"), ("veth101.0", "-")];
    names_are_known("nspawn", "[host]\npreset = 'nspawn'", &expected)
}

#[test]
fn interface_names_by_custom_rules() -> Result<()> {
    let tables = "[host]\npreset = 'custom'\n\
        [[interfaces.rule]]\npattern = '^ct-(?<container>[a-z]+)$'\nkind = 'container'\n\
        [[interfaces.rule]]\npattern = '^if[0-9]+$'\nkind = 'mapped'\n\
        [[container]]\nid = 'db'\ninterfaces = ['if7']\n";
    names_are_known("custom", tables, &[("ct-web", "web"), ("if7", "db"), ("veth101.0", "-")])
}

#[test]
fn an_lxc_interface_with_a_random_name_is_reported_with_the_reason() -> Result<()> {
    let lab = host("lxc-random", "", "[host]\npreset = 'lxc'")?;
    let _containers = behind(&lab, &["veth101", "vethQ7x2Ab", "tap0"])?;
    lab.run_ok(&["attach"])?;
    // It has half a minute to become known.
    let problems = problems(&lab)?;
    let is_expected = |problem: &String| {
        problem.contains("tap0: a port of br0 that nothing watches") || problem.starts_with("vethQ7x2Ab: ")
    };
    ensure!(
        problems.iter().all(is_expected) && problems.iter().any(|it| it.contains("tap0")),
        "{problems:?}"
    );
    let output = trafctl(&lab, &["status", "--format", "json"])?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let not_watched = status["not_watched"].as_array().context("not_watched")?;
    let reason = |name: &str| {
        not_watched.iter().find(|row| row["interface"] == name).map(|row| row["reason"].to_string())
    };
    let pending = &status["pending"][0];
    ensure!(pending["interface"] == "vethQ7x2Ab", "{pending}");
    ensure!(pending["reason"].to_string().contains("nor [[container]]"), "{pending}");
    ensure!(pending["pending"].to_string().contains("pending:vethQ7x2Ab:"), "{pending}");
    assert_eq!(hooks(&lab, "vethQ7x2Ab")?.len(), 2);
    ensure!(reason("tap0").is_some_and(|reason| reason.contains("no rule matches its name (preset lxc)")));
    ensure!(reason("veth101").is_none(), "{not_watched:?}");
    Ok(())
}

#[test]
fn a_container_is_found_by_number_and_by_uuid() -> Result<()> {
    let lab = host("ids", "", "")?;
    fs::write(lab.path("vz").join(format!("{UUID}.conf")), "VEID=\"101\"\nIP_ADDRESS=\"10.9.0.1\"\n")?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let (a, b) = pair(&lab)?;
    for container in [&a, &b] {
        eventually(container.interface(), || Ok(hooks(&lab, container.interface())?.len() == 2))?;
    }
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 21, 400)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class(UUID, 2, "ipv4"), Amounts::outgoing(sent.packets, sent.l3_bytes));
    daemon.stop()?;

    let typed = ["101", UUID, UUID_AS_TYPED];
    for id in typed {
        let rows = lab.run_json(&["dump", "--format", "json", "--container", id])?;
        let out = rows["counters"][0]["out_packets"].as_u64();
        assert_eq!(
            (rows["counters"].as_array().map(Vec::len), out),
            (Some(1), Some(sent.packets)),
            "dump {id}"
        );
        let report = lab.run_ok(&["report", "--format", "csv", "--container", id])?;
        ensure!(
            report.contains(UUID) && report.contains(&sent.l3_bytes.to_string()),
            "report {id}: {report}"
        );
    }
    for id in typed {
        lab.run_ok(&["address", "add", id, "10.9.0.7"])?;
    }
    let listed = lab.run_json(&["address", "list", "--format", "json"])?;
    let owners: Vec<_> =
        listed["addresses"].as_array().context("rows")?.iter().map(|row| row["container"].as_str()).collect();
    assert_eq!(owners, [Some(UUID), Some(UUID)]);
    refused(&trafctl(&lab, &["address", "add", "102", "10.9.0.7"])?)?;
    refused(&trafctl(&lab, &["report", "--container", "77"])?)?;

    lab.run_ok(&["container", "retire", "101", "--yes"])?;
    let later = udp_send(a.namespace(), b.namespace(), at(b.v4()), 5, 100)?;
    let counters = Counters::at_rest(&lab)?;
    let of_new: Vec<_> = counters.counters.iter().filter(|row| row.container == UUID).collect();
    ensure!(of_new.iter().any(|row| row.amounts.out_packets == later.packets), "{of_new:?}");
    is_well(&lab)
}

#[test]
fn libvirt_with_a_command_that_fails_times_out_and_answers() -> Result<()> {
    let lab = node("libvirt")?;
    let (command, classes) = (lab.path("ids"), lab.path("classes"));
    lab.configure(&format!(
        "class_file = {classes:?}\n[host]\npreset = 'libvirt'\n[identities]\ncommand = [{command:?}]\ntimeout = '300ms'\n\
         [[container]]\nid = 'known'\nmacs = ['02:00:00:00:00:01']\n"
    ))?;
    let script = |text: &str| -> Result<()> {
        // Written beside and renamed, because a running program cannot be written.
        let fresh = lab.write("ids.new", &format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
        Ok(fs::rename(fresh, &command)?)
    };
    script("echo cannot reach the hypervisor >&2; exit 3")?;
    let containers = behind(&lab, &["vnet1", "vnet2", "vnet3"])?;
    // libvirt does this to a tap.
    lab.host().ip("link set vnet1 address fe:00:00:00:00:01")?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.logs("failed (exit status: 3): cannot reach the hypervisor")?;
    // Interfaces that need no answer are counted meanwhile.
    let [a, b, c] = containers.as_slice() else { anyhow::bail!("three") };
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 9, 200)?;
    assert_eq!(
        Counters::at_rest(&lab)?.class("known", 2, "ipv4"),
        Amounts::outgoing(first.packets, first.l3_bytes)
    );
    // So is one whose container is not known yet.
    assert_eq!(hooks(&lab, "vnet2")?.len(), 2);
    script("sleep 60")?;
    daemon.logs("took longer than 300ms")?;
    script("echo '# id'; echo vnet2 web; echo nonsense; echo 02:00:00:00:00:33 db")?;
    lab.host().ip("link set vnet3 address fe:00:00:00:00:33")?;
    daemon.logs(" is web, with everything since its first packet")?;
    daemon.logs(" is db, with everything since its first packet")?;
    daemon.logs("line 3 of its output is ignored")?;
    let second = udp_send(c.namespace(), b.namespace(), at(b.v4()), 13, 250)?;
    let counters = Counters::at_rest(&lab)?;
    let of_web = Amounts::incoming(first.packets + second.packets, first.l3_bytes + second.l3_bytes);
    assert_eq!(counters.class("web", 2, "ipv4"), of_web);
    assert_eq!(counters.class("db", 2, "ipv4"), Amounts::outgoing(second.packets, second.l3_bytes));
    let log = daemon.log();
    assert_eq!(log.matches("cannot reach the hypervisor").count(), 1, "{log}");
    eventually("the daemon publishes that the command answers", || Ok(is_well(&lab).is_ok()))?;
    daemon.stop()
}

#[test]
fn virtuozzos_files_are_read_at_their_usual_paths() -> Result<()> {
    let lab = Lab::new("usual-places")?;
    let etc = lab.path("etc");
    let (vz, scripts) = (etc.join("vz/conf"), etc.join("sysconfig/vz-scripts"));
    fs::create_dir_all(&vz)?;
    fs::create_dir_all(&scripts)?;
    // The command sees another /etc. The configuration names no files.
    let run = |arguments: &[&str]| -> Result<()> {
        let command = lab.trafctl(arguments)?;
        let mut elsewhere = Command::new("unshare");
        elsewhere.args(["--mount", "sh", "-ec", "mount --bind \"$0\" /etc; exec \"$@\""]).arg(&etc);
        run_ok(elsewhere.arg(command.get_program()).args(command.get_args())).map(drop)
    };
    let classes = |class: u8| format!("# as shipped\n1 0.0.0.0/0\n1 ::0/0\n\n{class} 10.1.0.0/16\n");
    fs::write(scripts.join("networks_classes"), classes(5))?;
    fs::write(
        vz.join("777.conf"),
        "NETIF=\"ifname=eth0,mac=00:18:51:00:00:01,host_ifname=veth42001122,host_mac=FE:FF:FF:00:00:01\"\n",
    )?;
    let containers = behind(&lab, &["veth42001122", "veth101.0"])?;
    let [a, b] = containers.as_slice() else { anyhow::bail!("two") };
    run(&["attach"])?;
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 11, 300)?;
    // The other path takes precedence.
    fs::write(vz.join("networks_classes"), classes(6))?;
    run(&["classes", "load"])?;
    let second = udp_send(a.namespace(), b.namespace(), at(b.v4()), 13, 400)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("777", 5, "ipv4"), Amounts::outgoing(first.packets, first.l3_bytes));
    assert_eq!(counters.class("777", 6, "ipv4"), Amounts::outgoing(second.packets, second.l3_bytes));
    Ok(())
}
