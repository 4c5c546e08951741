//! The package for rpm, installed by rpm with its scripts. The systems are Debian's, which has rpm: no distribution
//! that is made of such packages is at hand. So what the package depends on is not looked up.

use std::fs;
use std::process::Output;

use anyhow::{Result, ensure};
use traffic_tests::check::output;
use traffic_tests::process::run_ok;

use super::node::{CONTAINER, Node, Version};
use super::{LARGER, Life, WITNESS};
use crate::evidence::Evidence;

/// Runs rpm, whatever its exit status. In Debian 12, it wants to be forced; in Debian 13, there is no such option.
fn rpm(node: &Node, arguments: &[&str]) -> Result<Output> {
    let wants_force = output(node.command("rpm").args(["--force-debian", "--version"]))?.status.success();
    let forced = wants_force.then_some("--force-debian");
    output(node.command("rpm").arg("--nodeps").args(forced).args(arguments))
}

/// Installed, upgraded under a ping, refused in an older version, and erased.
pub(super) fn run(life: &mut Life, evidence: &mut Evidence) -> Result<()> {
    let node = &life.node;
    let [previous, current] = [Version::Previous, Version::Current].map(|version| node.rpm_file(version));
    let done = rpm(node, &["--install", &previous])?;
    ensure!(
        done.status.success(),
        "rpm cannot install {previous}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let was_active = node.is_active()?;
    run_ok(node.command("systemctl").args(["enable", "--now", "trafctl"]))?;
    life.counted_from = life.node.wire()?;
    let node = &life.node;
    let sent = node.exchange(43)?;
    let row = life.compared(life.row("by rpm: installed, and enabled by hand", sent, WITNESS))?;
    let row = row
        .fact("rpm does not start the service", !was_active)
        .fact("the service is active", node.is_active()?)
        .fact("`status` reports no problem", node.status()?.contains("no problems"));
    evidence.row(row);

    fs::write(node.path("etc/trafctl/trafctl.toml"), LARGER)?;
    let process = node.process()?;
    let (wire, ping) = (node.wire()?, node.ping()?);
    node.flows(200)?;
    let done = rpm(node, &["--upgrade", &current])?;
    node.flows(200)?;
    let requests = ping.stop()?;
    let pinged = node.wire()?.since(&wire).of(|_| true).out_packets;
    let row = life.row(
        "by rpm: upgraded under a ping, with larger limits",
        format!("{requests} echo requests"),
        WITNESS,
    );
    let configuration = fs::read_to_string(node.path("etc/trafctl/trafctl.toml"))?;
    evidence.row(
        life.compared(row)?
            .count("echo requests", requests, pinged)
            .fact("rpm succeeds", done.status.success())
            .fact("another process", node.is_active()? && node.process()? != process)
            .fact("the configuration is kept", configuration == LARGER)
            .fact("the larger limits are in force", node.status()?.contains("/4096")),
    );

    let (done, process) = (rpm(node, &["--upgrade", &previous])?, node.process()?);
    let sent = node.exchange(11)?;
    let row = life.compared(life.row("by rpm: a refused downgrade", sent, WITNESS))?;
    evidence.row(
        row.fact("rpm fails", !done.status.success())
            .fact("the service is active", node.is_active()? && node.process()? == process),
    );

    let done = rpm(node, &["--erase", "trafctl"])?;
    let kept = fs::read_to_string(node.path("etc/trafctl/trafctl.toml.rpmsave")).unwrap_or_default();
    // The program from outside wants the file that it is given.
    fs::write(node.path("etc/trafctl/trafctl.toml"), &kept)?;
    let wire = node.wire()?.since(&life.counted_from).of(|_| true);
    let dump: traffic_tests::Counters =
        serde_json::from_str(&node.seen_outside(&["dump", "--format", "json"])?)?;
    let row = life.row("by rpm: erased, the counters stay", "nothing more", WITNESS);
    evidence.row(
        row.amounts(wire, dump.container_or_zero(CONTAINER))
            .fact("rpm succeeds", done.status.success())
            .fact("a changed configuration is kept aside", kept == LARGER)
            .count("programs on the interfaces, by the kernel's list", 0, node.attached()?)
            .fact("the service is not active", !node.is_active()?)
            .fact("no unit failed", node.failed_units()?.is_empty()),
    );
    let row = life.row("by rpm: erased, the ledger stays", "nothing more", WITNESS);
    evidence.row(row.amounts(wire, node.booked_seen_outside()?));
    Ok(())
}
