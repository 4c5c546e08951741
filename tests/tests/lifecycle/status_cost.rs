//! What `trafctl status` costs on a node with many interfaces.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use traffic_tests::Lab;

use crate::node::node;

/// Enough that each of them is visible in the sum.
const INTERFACES: u32 = 150;
/// For both ends of a veth, which are both in the lab's namespace, and looked at: 240 microseconds in a debug build.
/// Asking the kernel for each interface by itself costs 250 and more for each end.
const COST_OF_PAIR: Duration = Duration::from_micros(350);

/// Runs of the command, so that the kernel's clock ticks suffice to measure them.
const RUNS: u32 = 5;
/// Measurements, of which the least counts: other tests and their containers only add to it.
const ROUNDS: u32 = 5;

/// Processor time of all ended children.
fn spent() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("the end of the name")?;
    let mut fields = fields.split_whitespace().skip(13);
    let mut ticks = || anyhow::Ok(fields.next().context("times of children")?.parse::<u64>()?);
    Ok(Duration::from_secs(ticks()? + ticks()?) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}

/// Processor time of one run.
fn cost(lab: &Lab) -> Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let before = spent()?;
        for _ in 0..RUNS {
            lab.run_ok(&["status"])?;
        }
        least = least.min((spent()? - before) / RUNS);
    }
    Ok(least)
}

/// Each interface used to cost status a reading of all slots and a netlink request.
#[test]
fn status_reads_what_all_interfaces_share_once() -> Result<()> {
    let lab = node("cost")?;
    lab.run_ok(&["attach"])?;
    let alone = cost(&lab)?;
    let lines = (0..INTERFACES).map(|n| {
        let (container, number) = (101 + n / 3, n % 3);
        format!("link add veth{container}.{number} type veth peer name peer{n}\n")
    });
    lab.host().ip_batch(&lines.collect::<String>())?;
    lab.run_ok(&["attach"])?;
    let status = lab.run_json(&["status", "--format", "json"])?;
    let attached = status["attachments"].as_array().context("attachments")?.len();
    ensure!(attached == INTERFACES as usize, "{attached} interfaces");
    let many = cost(&lab)?;
    let each = many.saturating_sub(alone) / INTERFACES;
    ensure!(
        each < COST_OF_PAIR,
        "{each:?} for each interface: {alone:?} without, {many:?} with {INTERFACES}"
    );
    Ok(())
}
