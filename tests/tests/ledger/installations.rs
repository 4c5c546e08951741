//! Two installations on one node: the counters of one are never drained into the ledger of the other.

use std::{fs, net::SocketAddr, path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{Lab, process::Process, traffic::udp_send};

use super::{PATIENCE, end, node, recorded, started, wait_for};

/// `trafctl` with the lab's pins and another state directory.
fn with_state_dir(lab: &Lab, arguments: &[&str], state_dir: &Path) -> Result<std::process::Command> {
    let state_dir = state_dir.to_str().context("the path is not UTF-8")?;
    lab.trafctl(&[arguments, &["--state-dir", state_dir]].concat())
}

/// Packets out of 101 in class 2, in the ledger of a state directory.
fn recorded_in(lab: &Lab, state_dir: &Path) -> Result<u64> {
    let report = ["report", "--container", "101", "--class", "2", "--format", "json"];
    let output = with_state_dir(lab, &report, state_dir)?.output()?;
    if !output.status.success() {
        return Ok(0);
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    report["total"]["out"]["packets"].as_u64().with_context(|| format!("packets in {report}"))
}

#[test]
fn a_ledger_of_another_installation_is_refused_until_it_adopts_the_counters() -> Result<()> {
    let (lab, a, b) = node("ledger-installations", "")?;
    let send = || {
        Ok::<_, anyhow::Error>(
            udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 40, 60)?.packets,
        )
    };
    let own = started(&lab)?;
    let mut sent = send()?;
    // A daemon that ends before it has made its ledger leaves everything in the counters.
    wait_for("a drain", || Ok(recorded(&lab, "101", 2).is_ok_and(|all| all.out_packets == sent)))?;
    end(&lab, own)?;
    ensure!(recorded(&lab, "101", 2)?.out_packets == sent);

    // A state directory without a ledger must not be taken for a node that keeps none.
    let empty = lab.path("empty");
    let classes = lab.path("other-classes");
    fs::write(&classes, "1 10.99.0.0/16\n")?;
    let classes = classes.to_str().context("the path is not UTF-8")?;
    let changes: [&[&str]; 3] = [
        &["classes", "load", "--yes", classes],
        &["container", "retire", "101", "--yes"],
        &["detach", "--purge", "--yes"],
    ];
    for change in changes {
        let output = with_state_dir(&lab, change, &empty)?.output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{change:?} was not refused");
        ensure!(stderr.contains("they are drained into another ledger"), "{change:?}: {stderr}");
    }
    ensure!(lab.run_ok(&["status"]).is_ok(), "a refused change took effect");

    // The other installation's state directory with this one's pins.
    let other = lab.path("other");
    let log = lab.path("other.log");
    let mut command = with_state_dir(&lab, &["run"], &other)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log)?);
    let running = Process::spawn(&mut command)?;
    wait_for("the refusal", || {
        let log = fs::read_to_string(&log)?;
        Ok(log.contains("they are drained into another ledger") && log.contains("trafctl ledger adopt"))
    })?;
    sent += send()?;
    ensure!(recorded_in(&lab, &other)? == 0, "the counters were drained into another ledger");

    // A purge would lose what the other ledger does not have yet. Under a daemon it is refused before that.
    let purge = with_state_dir(&lab, &["detach", "--purge", "--yes"], &other)?.output()?;
    let stderr = String::from_utf8_lossy(&purge.stderr);
    ensure!(!purge.status.success() && stderr.contains("nothing was purged: a daemon"), "{stderr}");

    let preview = with_state_dir(&lab, &["ledger", "adopt"], &other)?.output()?;
    let stdout = String::from_utf8_lossy(&preview.stdout);
    ensure!(preview.status.code() == Some(1) && stdout.contains("would bind the counters in"), "{stdout}");
    ensure!(recorded_in(&lab, &other)? == 0, "a preview took the counters over");

    // Counting has not stopped, and after the adoption the next drain records everything.
    let adopted = with_state_dir(&lab, &["ledger", "adopt", "--yes"], &other)?.output()?;
    ensure!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    let again = with_state_dir(&lab, &["ledger", "adopt", "--yes"], &other)?.output()?;
    let stdout = String::from_utf8_lossy(&again.stdout);
    ensure!(again.status.success() && stdout.contains(" already belong to the ledger "), "{stdout}");
    wait_for("the drain after the adoption", || Ok(recorded_in(&lab, &other)? == sent))?;
    ensure!(running.terminate(PATIENCE)?.success());

    // A new epoch belongs to the ledger that drains it first.
    lab.run_ok(&["detach", "--purge", "--yes"])?;
    let own = started(&lab)?;
    let again = send()?;
    end(&lab, own)?;
    ensure!(recorded(&lab, "101", 2)?.out_packets == sent + again);
    Ok(())
}

#[test]
fn a_second_set_of_counters_never_reaches_the_ledger_of_the_first() -> Result<()> {
    let (lab, a, b) = node("ledger-second-set", "")?;
    let send = || {
        Ok::<_, anyhow::Error>(
            udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 40, 60)?.packets,
        )
    };
    let own = started(&lab)?;
    let mut sent = send()?;
    let second = lab.bpffs().join("second");
    let second = second.to_str().context("the path is not UTF-8")?;
    let with_second = |arguments: &[&str]| lab.trafctl(&[arguments, &["--bpffs", second]].concat());
    let attached = with_second(&["attach"])?.output()?;
    ensure!(attached.status.success(), "{}", String::from_utf8_lossy(&attached.stderr));
    // Both sets count these.
    sent += send()?;
    let classes = lab.path("other-classes");
    fs::write(&classes, "1 10.99.0.0/16\n")?;
    let classes = classes.to_str().context("the path is not UTF-8")?;
    let changes: [&[&str]; 3] = [
        &["classes", "load", "--yes", classes],
        &["container", "retire", "101", "--yes"],
        &["detach", "--purge", "--yes"],
    ];
    let are_refused = |because: &str| {
        for change in changes {
            let output = with_second(change)?.output()?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            ensure!(!output.status.success() && stderr.contains(because), "{change:?}: {stderr}");
        }
        Ok(())
    };
    are_refused("keeps other counters than those in")?;
    end(&lab, own)?;
    are_refused("which count the same packets")?;
    ensure!(recorded(&lab, "101", 2)?.out_packets == sent);

    // Nobody needs them: with a state directory of their own they can be deleted.
    let empty = lab.path("empty");
    let empty = empty.to_str().context("the path is not UTF-8")?;
    let purged = with_second(&["detach", "--purge", "--yes", "--state-dir", empty])?.output()?;
    ensure!(purged.status.success(), "{}", String::from_utf8_lossy(&purged.stderr));
    sent += send()?;
    lab.run_ok(&["detach", "--purge", "--yes"])?;
    ensure!(recorded(&lab, "101", 2)?.out_packets == sent);
    ensure!(lab.run_ok(&["audit"])?.contains("no problems"));
    Ok(())
}
