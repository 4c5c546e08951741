//! The packages in each Debian that systemd boots: installed without a configuration, upgraded under a ping, refused
//! in an older version, removed, installed again, and purged. Traffic flows in every state and is compared with a
//! packet socket in the container.
//!
//! - `broken`: installations that do not go well.
//! - `rpm`: the same life of the package for rpm.
//! - `node`, `tree`: the system on which they are installed.

mod broken;
mod node;
mod rpm;
mod tree;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use traffic_tests::Counters;
use traffic_tests::process::run_ok;
use traffic_tests::witness::WireCount;

use crate::bench::Bench;
use crate::evidence::{Evidence, Row};
use node::{CONTAINER, Node, Version};

/// The summary of this part.
pub const ABOUT: &str = "the packages in Debian 12 and 13 under systemd: installed, upgraded under a ping, a refused \
    downgrade, removed, installed again, purged; what goes wrong meanwhile; the same by rpm";

/// The witness of most rows.
const WITNESS: &str = "a packet socket in the container";

/// How long the first exact figure may take after the start of apt.
const FIRST_FIGURE_S: f64 = 10.0;

/// What the upgrade puts in force besides the new version.
const LARGER: &str = "[limits]\ncontainers = 4096\ninterfaces = 8192\n";

/// Places in which the name of a purged package may stay.
const MAY_STAY: [&str; 4] = ["/packages", "/var/log", "/var/cache", "/proc"];

/// Runs the part.
pub fn run(bench: &Bench, evidence: &mut Evidence) -> Result<()> {
    for release in tree::RELEASES {
        bench.step(&format!("Debian {}", release.number));
        let node = Node::boot(bench, release)?;
        let systemd = run_ok(node.command("systemctl").arg("--version"))?;
        evidence.note(format!("Debian {}: {}", release.number, systemd.lines().next().unwrap_or_default()));
        let mut life = Life { node, release: release.number, counted_from: WireCount::default() };
        life.install(evidence)?;
        life.failed_upgrades(evidence)?;
        life.upgrade(evidence)?;
        life.refused_downgrade(evidence)?;
        let missed = life.remove(evidence)?;
        life.install_again(evidence, &missed)?;
        life.purge(evidence)?;
        life.install_previous()?;
        life.interrupted_upgrade(evidence)?;
        life.stubborn_removal(evidence)?;
        life.purge_with_a_mount(evidence)?;
        life.install_with_a_calendar(evidence)?;
        life.purge(evidence)?;
        rpm::run(&mut life, evidence)?;
    }
    Ok(())
}

/// The life of the package on one node.
struct Life {
    node: Node,
    release: u32,
    /// What the witness had seen when counting began.
    counted_from: WireCount,
}

impl Life {
    fn row(&self, case: &str, sent: impl Into<String>, witness: &str) -> Row {
        Row::new(format!("Debian {}: {case}", self.release), sent, witness)
    }

    /// The container's counters beside the witness, both since counting began.
    fn compared(&self, row: Row) -> Result<Row> {
        let wire = self.node.wire()?.since(&self.counted_from);
        let counters = self.node.counters().with_context(|| self.node.log().unwrap_or_default())?;
        Ok(row.amounts(wire.of(|_| true), counters.container_or_zero(CONTAINER)))
    }

    fn install(&mut self, evidence: &mut Evidence) -> Result<()> {
        let node = &self.node;
        node.exchange(11)?;
        self.counted_from = node.wire()?;
        let start = Instant::now();
        node.install(Version::Previous)?;
        let installed_s = start.elapsed().as_secs_f64();
        let sent = node.exchange(40)?;
        let figure_s = node.exact_after(&self.counted_from, start)?;
        evidence.note(format!(
            "Debian {}: installed after {installed_s:.1} s, the first exact figure after {figure_s:.1} s",
            self.release
        ));
        let enabled = run_ok(node.command("systemctl").args(["is-enabled", "trafctl"]))?;
        let row = self.compared(self.row("installed without a configuration", sent, WITNESS))?;
        evidence.row(
            row.fact("the first exact figure within 10 s", figure_s <= FIRST_FIGURE_S)
                .fact("the service is active", node.is_active()?)
                .fact("and starts at each boot", enabled.trim() == "enabled")
                .fact("`status` reports no problem", node.status()?.contains("no problems")),
        );
        Ok(())
    }

    /// Installs the older version where nothing is installed, with the larger limits.
    fn install_previous(&mut self) -> Result<()> {
        fs::create_dir_all(self.node.path("etc/trafctl"))?;
        fs::write(self.node.path("etc/trafctl/trafctl.toml"), LARGER)?;
        self.counted_from = self.node.wire()?;
        self.node.install(Version::Previous)
    }

    fn upgrade(&self, evidence: &mut Evidence) -> Result<()> {
        let node = &self.node;
        // Larger limits need other maps, to which the counts are carried over.
        fs::write(node.path("etc/trafctl/trafctl.toml"), LARGER).context("cannot write the configuration")?;
        let (before, version) = (node.process()?, node.version()?);
        let wire = node.wire()?;
        let ping = node.ping()?;
        node.flows(200)?;
        node.install(Version::Current)?;
        node.flows(200)?;
        let sent = ping.stop()?;
        let pinged = node.wire()?.since(&wire).of(|_| true).out_packets;
        let row = self.row(
            "upgraded under a ping, with larger limits",
            format!("{sent} echo requests and their answers"),
            "a packet socket in the container, and ping's own count of requests",
        );
        let status = node.status()?;
        let configuration = fs::read_to_string(node.path("etc/trafctl/trafctl.toml"))?;
        evidence.row(
            self.compared(row)?
                .count("echo requests", sent, pinged)
                .fact("another version", node.version()? != version && !node.version()?.is_empty())
                .fact("another process", node.is_active()? && node.process()? != before)
                .fact("the configuration is kept", configuration == LARGER)
                .fact(
                    "the larger limits are in force",
                    status.contains("/4096") && status.contains("no problems"),
                ),
        );
        Ok(())
    }

    fn refused_downgrade(&self, evidence: &mut Evidence) -> Result<()> {
        let node = &self.node;
        let version = node.version()?;
        let done = node.apt(&["install", "--allow-downgrades", "/packages/previous/trafctl.deb"])?;
        let text =
            [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        let said: Vec<&str> = text.lines().filter(|line| line.starts_with("trafctl: ")).collect();
        let sent = node.exchange(23)?;
        let row = self.compared(self.row("a refused downgrade", sent, WITNESS))?;
        evidence.row(
            row.fact("apt fails", !done.status.success())
                .count("sentences", 1, said.len() as u64)
                .fact("that say what to do", said.iter().all(|said| said.contains("; remove trafctl first")))
                .fact("the version stays", node.version()? == version)
                .fact("the service is active", node.is_active()?),
        );
        Ok(())
    }

    /// Returns what the witness saw while nothing was counted.
    fn remove(&self, evidence: &mut Evidence) -> Result<WireCount> {
        let node = &self.node;
        let done = node.apt(&["remove", "trafctl"])?;
        if !done.status.success() {
            bail!("apt cannot remove the package: {done:?}");
        }
        let wire = node.wire()?;
        let sent = node.exchange(50)?;
        let missed = node.wire()?.since(&wire);
        let counted = wire.since(&self.counted_from).of(|_| true);
        let dump: Counters = serde_json::from_str(&node.seen_outside(&["dump", "--format", "json"])?)?;
        let row = self.row("removed: the counters stay", format!("{sent} afterwards"), WITNESS);
        evidence.row(
            row.amounts(counted, dump.container_or_zero(CONTAINER))
                .count("programs on the interfaces, by the kernel's list", 0, node.attached()?)
                .fact("the service is not active", !node.is_active()?)
                .fact("no unit failed", node.failed_units()?.is_empty()),
        );
        let row = self.row("removed: the ledger stays", "nothing more", WITNESS);
        evidence.row(row.amounts(counted, node.booked_seen_outside()?));
        Ok(missed)
    }

    fn install_again(&self, evidence: &mut Evidence, missed: &WireCount) -> Result<()> {
        let node = &self.node;
        node.install(Version::Current)?;
        let sent = node.exchange(31)?;
        let missed = missed.of(|_| true);
        let wire = node.wire()?.since(&self.counted_from).of(|_| true).since(missed);
        let gaps: Value = serde_json::from_str(&node.trafctl(&["gaps", "--format", "json"])?)?;
        let of_container = |way: &str| -> u64 {
            let gaps = gaps["gaps"].as_array().into_iter().flatten();
            let ours = gaps.filter(|gap| gap["interface"] == "veth101.0" && gap["reason"] == "before_attach");
            ours.filter_map(|gap| gap["size"][way].as_u64()).sum()
        };
        let row = self.row(
            "installed again: the counters continue, and a gap has what was missed",
            format!("{sent}, besides the above"),
            WITNESS,
        );
        evidence.row(
            row.amounts(wire, node.counters()?.container_or_zero(CONTAINER))
                .count("buffers in, in the gap", missed.in_packets, of_container("in_skbs"))
                .count("buffers out, in the gap", missed.out_packets, of_container("out_skbs")),
        );
        Ok(())
    }

    fn purge(&self, evidence: &mut Evidence) -> Result<()> {
        let node = &self.node;
        let done = node.apt(&["purge", "trafctl"])?;
        if !done.status.success() {
            bail!("apt cannot purge the package: {done:?}");
        }
        let mut find = node.command("find");
        find.args(["/", "-xdev", "-name", "*trafctl*"]);
        let left = run_ok(&mut find)?;
        let left: Vec<&str> =
            left.lines().filter(|path| !MAY_STAY.iter().any(|place| path.starts_with(place))).collect();
        let sent = node.exchange(9)?;
        let row = self.row("purged", format!("{sent} afterwards"), "find, and the kernel's list");
        let mut row = row
            .count("programs on the interfaces", 0, node.attached()?)
            .fact("no pins", !node.pins().exists())
            .count("files named after it", 0, left.len() as u64)
            .fact("no unit failed", node.failed_units()?.is_empty());
        if !left.is_empty() {
            row.witness += &format!(" (left: {})", left.join(", "));
        }
        evidence.row(row);
        Ok(())
    }
}
