//! `trafctl detach`: removes what is ours and nothing else.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::{tcp_exchange, udp_send};
use traffic_tests::{Amounts, Counters, Lab};

use crate::node::{
    agrees_with_kernel, at, exchanged, files, hooks, is_well, node, output, pair, pins, problems, refused,
    stderr, trafctl,
};

const MEGABYTE: u64 = 1 << 20;

/// Runs `tc` in the host with its arguments as one string.
pub fn tc(lab: &Lab, arguments: &str) -> Result<String> {
    run_ok(lab.host().command("tc").args(arguments.split_whitespace()))
}

/// Filters on both hooks of an interface, without ours. They must be the same before and after.
pub fn foreign_filters(lab: &Lab, interface: &str) -> Result<Vec<Value>> {
    let mut filters = Vec::new();
    for hook in ["ingress", "egress"] {
        let text = tc(lab, &format!("-j filter show dev {interface} {hook}"))?;
        let all: Vec<Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
        // An entry without options only begins the list of a priority.
        let foreign =
            |filter: &Value| filter.get("options").is_some() && !filter.to_string().contains("trafctl_");
        filters.extend(all.into_iter().filter(foreign));
    }
    Ok(filters)
}

/// Adds foreign filters to an interface. All of them end the chain and accept the packet.
pub fn add_foreign_filters(lab: &Lab, interface: &str) -> Result<Vec<Value>> {
    tc(lab, &format!("qdisc add dev {interface} clsact"))?;
    let u32 = "protocol ip u32 match ip dst 10.1.0.0/16 flowid 1:1";
    tc(lab, &format!("filter add dev {interface} ingress pref 5 {u32}"))?;
    tc(lab, &format!("filter add dev {interface} egress pref 7 {u32}"))?;
    // A classic BPF program of one instruction: accept.
    let mut command = lab.host().command("tc");
    command.args(["filter", "add", "dev", interface, "egress", "pref", "5"]);
    run_ok(command.args(["bpf", "bytecode", "1,6 0 0 4294967295", "flowid", "1:1"]))?;
    let filters = foreign_filters(lab, interface)?;
    ensure!(filters.len() >= 3, "{filters:?}");
    Ok(filters)
}

#[test]
fn foreign_filters_stay_in_place() -> Result<()> {
    let lab = node("foreign")?;
    let (a, b) = pair(&lab)?;
    let foreign = add_foreign_filters(&lab, "veth101.0")?;
    lab.run_ok(&["attach"])?;
    assert_eq!(foreign_filters(&lab, "veth101.0")?, foreign);
    is_well(&lab)?;
    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), MEGABYTE, MEGABYTE)?;
    lab.run_ok(&["detach", "veth101.0"])?;
    assert_eq!(foreign_filters(&lab, "veth101.0")?, foreign);
    assert_eq!(hooks(&lab, "veth101.0")?, [""; 0]);
    lab.run_ok(&["attach"])?;
    assert_eq!(foreign_filters(&lab, "veth101.0")?, foreign);

    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), exchanged(&count));
    agrees_with_kernel(&lab, &counters, a.interface())?;
    is_well(&lab)
}

#[test]
fn two_installations_on_one_hook_are_reported_and_detach_only_their_own() -> Result<()> {
    let lab = node("two")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    is_well(&lab)?;
    // Another directory of pins: a second installation on the same interfaces.
    let other = lab.bpffs().join("other");
    let with_other = |arguments: &[&str]| -> Result<_> {
        let mut command = lab.host().command(traffic_tests::lab::trafctl_program()?);
        command.arg("--bpffs").arg(&other).arg("--state-dir").arg(lab.path("other-state"));
        command.arg("--config").arg(lab.config()).args(arguments);
        output(&mut command)
    };
    let attached = with_other(&["attach", "veth101.0"])?;
    ensure!(attached.status.success(), "{}", stderr(&attached));
    assert_eq!(hooks(&lab, "veth101.0")?.len(), 4);

    let reported = problems(&lab)?;
    ensure!(
        reported.iter().filter(|problem| problem.starts_with("veth101.0: 2 trafctl programs")).count() == 2,
        "{reported:?}"
    );
    ensure!(!reported.iter().any(|problem| problem.contains("veth102.0")), "{reported:?}");
    // Each detaches only its own programs.
    lab.run_ok(&["detach"])?;
    assert_eq!(hooks(&lab, "veth101.0")?, ["trafctl_egress", "trafctl_ingress"]);
    assert_eq!(hooks(&lab, "veth102.0")?, [""; 0]);
    lab.run_ok(&["attach"])?;
    let detached = with_other(&["detach", "--purge", "--yes"])?;
    ensure!(detached.status.success(), "{}", stderr(&detached));
    assert_eq!(hooks(&lab, "veth101.0")?, ["trafctl_egress", "trafctl_ingress"]);

    let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v6()), MEGABYTE, MEGABYTE)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv6"), exchanged(&count));
    agrees_with_kernel(&lab, &counters, a.interface())?;
    is_well(&lab)
}

#[test]
fn a_detach_keeps_the_counters() -> Result<()> {
    let lab = node("keep")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 60, 250)?;
    lab.run_ok(&["detach"])?;
    assert_eq!(pins(&lab)?, [""; 0]);
    udp_send(a.namespace(), b.namespace(), at(b.v4()), 10, 250)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), Amounts::outgoing(first.packets, first.l3_bytes));
    assert_eq!(problems(&lab)?.len(), 4, "both hooks of both interfaces");
    // A second detach has nothing to do. With a name, it is an error.
    lab.run_ok(&["detach"])?;
    let error = refused(&trafctl(&lab, &["detach", "veth101.0"])?)?;
    ensure!(error.contains("veth101.0"), "{error}");
    Ok(())
}

#[test]
fn a_purge_reports_what_is_lost_and_removes_everything() -> Result<()> {
    let lab = node("purge")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let count = udp_send(a.namespace(), b.namespace(), at(b.v4()), 60, 250)?;
    Counters::at_rest(&lab)?;
    for command in ["detach", "attach"] {
        let preview = lab.trafctl(&[command, "--purge", "--format", "json"])?.output()?;
        assert_eq!(preview.status.code(), Some(1), "{command}");
        let preview: Value = serde_json::from_slice(&preview.stdout)?;
        ensure!(preview["would_purge"]["counters"]["containers"].as_u64() >= Some(1), "{preview}");
        lab.run_ok(&["status"])?;
    }
    let output = trafctl(&lab, &["detach", "--purge", "--yes"])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let lost = String::from_utf8_lossy(&output.stdout);
    // One container sent it, the other received it.
    ensure!(lost.contains("deleted the counters of 2 containers"), "{lost}");
    ensure!(!stderr(&output).contains("2 containers"), "the result was printed twice");
    ensure!(lost.contains(&format!("{} bytes in, {} bytes out", count.l3_bytes, count.l3_bytes)), "{lost}");
    assert_eq!(files(lab.bpffs())?, [""; 0]);
    for interface in [a.interface(), b.interface()] {
        assert_eq!(hooks(&lab, interface)?, [""; 0]);
    }
    for command in ["dump", "status"] {
        let error = refused(&trafctl(&lab, &[command])?)?;
        ensure!(error.contains("nothing is loaded") && error.contains("trafctl attach"), "{error}");
    }
    // A purge of nothing is not an error. The counters start at zero afterwards.
    lab.run_ok(&["detach", "--purge", "--yes"])?;
    lab.run_ok(&["attach", "--purge", "--yes"])?;
    let again = udp_send(a.namespace(), b.namespace(), at(b.v4()), 5, 25)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), Amounts::outgoing(again.packets, again.l3_bytes));
    assert_eq!(counters.interface("veth101.0").out_unseen_skbs, 60, "sent before the new counters existed");
    is_well(&lab)
}

#[test]
fn a_removed_pin_is_reported_and_repaired() -> Result<()> {
    let lab = node("pin")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let first = udp_send(a.namespace(), b.namespace(), at(b.v4()), 11, 250)?;
    let pin = pins(&lab)?.into_iter().find(|name| name.ends_with("-out")).context("a pin")?;
    fs::remove_file(lab.bpffs().join("links").join(&pin))?;
    // The lower index belongs to the container that was created first.
    let reported = problems(&lab)?;
    ensure!(reported.len() == 1 && reported[0].starts_with("veth101.0: not attached (out)"), "{reported:?}");
    let missed = udp_send(a.namespace(), b.namespace(), at(b.v4()), 22, 250)?;
    lab.run_ok(&["attach"])?;
    let last = udp_send(a.namespace(), b.namespace(), at(b.v4()), 33, 250)?;

    let counters = Counters::at_rest(&lab)?;
    let seen = Amounts::outgoing(first.packets + last.packets, first.l3_bytes + last.l3_bytes);
    assert_eq!(counters.class("101", 2, "ipv4"), seen);
    assert_eq!(counters.interface("veth101.0").out_unseen_skbs, missed.packets);
    agrees_with_kernel(&lab, &counters, a.interface())?;
    is_well(&lab)
}
