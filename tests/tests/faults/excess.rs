//! More counted than the kernel's own statistics show: found where it happens, and nowhere else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use traffic_tests::check::{eventually, is_well, is_well_but, problems, trafctl};
use traffic_tests::process::run_ok;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Container, Daemon, Lab};

use crate::node::{at, node, pair};

/// Above what a comparison takes for its own uncertainty.
const MANY: u64 = 4000;

fn tc(lab: &Lab, arguments: &str) -> Result<String> {
    run_ok(lab.host().command("tc").args(arguments.split_whitespace()))
}

/// Runs a check while the second container sends to the first without pause.
fn under_traffic(a: &Container, b: &Container, check: impl FnOnce() -> Result<()>) -> Result<()> {
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                udp_send(b.namespace(), a.namespace(), at(a.v4()), 500, 300)?;
            }
            anyhow::Ok(())
        });
        let checked = check();
        ends.store(true, Ordering::Relaxed);
        match sender.join() {
            Ok(sent) => checked.and(sent),
            Err(_) => bail!("the sender panicked"),
        }
    })
}

fn gaps_counted_twice(lab: &Lab) -> Result<Vec<Value>> {
    let gaps = lab.run_json(&["gaps", "--format", "json"])?;
    let all = gaps.as_array().or_else(|| gaps["gaps"].as_array()).context("no list of gaps")?;
    Ok(all.iter().filter(|gap| gap["reason"] == "counted_twice").cloned().collect())
}

#[test]
fn packets_that_another_tool_puts_on_an_interface_are_reported() -> Result<()> {
    let lab = node("put-on")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    udp_send(b.namespace(), a.namespace(), at(a.v4()), MANY, 300)?;
    udp_send(a.namespace(), b.namespace(), at(b.v4()), MANY, 300)?;
    is_well(&lab)?;
    // A copy of everything that 102 sends passes as if 101 had sent it.
    tc(&lab, "qdisc add dev veth102.0 handle ffff: ingress")?;
    tc(
        &lab,
        "filter add dev veth102.0 parent ffff: protocol all u32 match u32 0 0 action mirred ingress mirror dev veth101.0",
    )?;
    udp_send(b.namespace(), a.namespace(), at(a.v4()), MANY, 300)?;
    is_well_but(&lab, &["veth101.0"])?;
    let problem = problems(&lab)?.join("\n");
    ensure!(problem.contains(&format!("{} buffers out counted where the kernel has", 2 * MANY)), "{problem}");
    eventually("the excess is in the ledger", || Ok(!gaps_counted_twice(&lab)?.is_empty()))?;
    tc(&lab, "qdisc del dev veth102.0 ingress")?;
    udp_send(a.namespace(), b.namespace(), at(b.v4()), 100, 300)?;
    daemon.kill()?;
    let gaps = gaps_counted_twice(&lab)?;
    let [gap] = gaps.as_slice() else { bail!("{gaps:?}") };
    ensure!(gap["interface"] == "veth101.0" && gap["container"] == "101", "{gap}");
    let out = gap["size"]["out_skbs"].as_u64().context("no size")?;
    ensure!((MANY..MANY + 50).contains(&out) && gap["size"]["in_skbs"] == 0, "{gap}");
    let audit = trafctl(&lab, &["audit"])?;
    let text = String::from_utf8_lossy(&audit.stdout).into_owned();
    ensure!(audit.status.code() == Some(1) && text.contains("counted too often"), "{text}");
    Ok(())
}

#[test]
fn a_program_that_runs_twice_on_a_hook_is_found_by_its_count() -> Result<()> {
    let lab = node("runs-twice")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    tc(&lab, "qdisc add dev veth101.0 clsact")?;
    for (hook, program) in [("ingress", "trafctl_ingress"), ("egress", "trafctl_egress")] {
        let path = lab.bpffs().join("programs").join(program);
        ensure!(path.exists(), "{path:?}: {}", run_ok(lab.host().command("find").arg(lab.bpffs()))?);
        tc(
            &lab,
            &format!("filter add dev veth101.0 {hook} bpf direct-action object-pinned {}", path.display()),
        )?;
    }
    udp_send(a.namespace(), b.namespace(), at(b.v4()), MANY, 300)?;
    udp_send(b.namespace(), a.namespace(), at(a.v4()), MANY, 300)?;
    under_traffic(&a, &b, || {
        let all = problems(&lab)?;
        for direction in ["in", "out"] {
            let found = all.iter().any(|problem| {
                problem.starts_with("veth101.0: ")
                    && problem.contains(&format!(" {direction} counted where the kernel"))
            });
            ensure!(found, "{direction}: {all:#?}");
        }
        ensure!(all.iter().all(|problem| !problem.starts_with("veth102.0")), "{all:#?}");
        Ok(())
    })
}

#[test]
fn what_a_shaper_drops_behind_the_hook_is_no_excess() -> Result<()> {
    let lab = node("drops-behind")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    tc(&lab, "qdisc add dev veth101.0 root tbf rate 1mbit burst 10kb limit 20kb")?;
    udp_send(b.namespace(), a.namespace(), at(a.v4()), 2 * MANY, 300)?;
    under_traffic(&a, &b, || is_well(&lab))?;
    // Without the shaper, nothing shows any more what it dropped.
    tc(&lab, "qdisc del dev veth101.0 root")?;
    under_traffic(&a, &b, || {
        for _ in 0..3 {
            is_well(&lab)?;
        }
        Ok(())
    })?;
    ensure!(gaps_counted_twice(&lab)?.is_empty(), "{:?}", gaps_counted_twice(&lab)?);
    ensure!(trafctl(&lab, &["audit"])?.status.success());
    daemon.kill()
}
