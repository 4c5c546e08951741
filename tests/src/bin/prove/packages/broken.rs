//! Installations that do not go well: a script of the package fails, the disk is full, dpkg is interrupted, the
//! configuration has a mistake, the service does not stop. Counting goes on, and the next attempt succeeds.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context, Result};
use traffic_tests::check::output;
use traffic_tests::process::run_ok;

use super::node::{Node, Version};
use super::{LARGER, Life, WITNESS};
use crate::evidence::Evidence;

/// A place of the package that a full disk is put on.
const FULL: &str = "/usr/share/doc/trafctl";

/// A service that is never content with being stopped.
const STUBBORN: &str = "[Service]\nExecStop=/bin/sleep 600\nTimeoutStopSec=2\n";

/// Where the drop-in is.
const DROP_IN: &str = "run/systemd/system/trafctl.service.d";

impl Life {
    /// What cannot succeed while the old version is installed: the version and the process stay.
    pub(super) fn failed_upgrades(&self, evidence: &mut Evidence) -> Result<()> {
        let node = &self.node;
        let (version, process) = (node.version()?, node.process()?);
        let unchanged = |node: &Node| -> Result<bool> {
            Ok(node.version()? == version && node.is_active()? && node.process()? == process)
        };

        run_ok(node.command("mount").args(["-t", "tmpfs", "-o", "size=16k", "tmpfs", FULL]))?;
        let done = node.apt(&["install", &node.file(Version::Current)])?;
        let sent = node.exchange(19)?;
        let row = self.row("an upgrade onto a full disk", sent, WITNESS);
        let row = self.compared(row)?.fact("apt fails", !done.status.success());
        let row = row.fact("the old version counts on, in its process", unchanged(node)?);
        evidence.row(row.fact("`status` reports no problem", node.status()?.contains("no problems")));
        run_ok(node.command("umount").arg(FULL))?;

        let script = node.path("var/lib/dpkg/info/trafctl.prerm");
        let intact = fs::read(&script).context("cannot read the script")?;
        fs::write(&script, "#!/bin/sh\nexit 3\n")?;
        let done = node.apt(&["remove", "trafctl"])?;
        let sent = node.exchange(21)?;
        let row = self.row("a removal whose first script fails", sent, WITNESS);
        let row = self.compared(row)?.fact("apt fails", !done.status.success());
        evidence.row(row.fact("the version counts on, in its process", unchanged(node)?));
        fs::write(&script, intact)?;
        Ok(())
    }

    /// dpkg ends between the files and the scripts of a new version, and is then told to go on. Meanwhile the
    /// configuration has a mistake.
    pub(super) fn interrupted_upgrade(&self, evidence: &mut Evidence) -> Result<()> {
        let node = &self.node;
        let configuration = node.path("etc/trafctl/trafctl.toml");
        run_ok(node.command("dpkg").args(["--unpack", &node.file(Version::Current)]))?;
        let process = node.process()?;
        let sent = node.exchange(25)?;
        let row = self.row("an upgrade that ends between files and scripts", sent, WITNESS);
        evidence.row(self.compared(row)?.fact("the service is active", node.is_active()?));
        fs::write(&configuration, "[limits\ncontainers = many\n")?;
        let done = output(node.command("dpkg").args(["--configure", "--pending"]))?;
        let sent = node.exchange(27)?;
        let row = self.row("completed, with a mistake in the configuration", sent, WITNESS);
        let (status, is_active) = (node.status()?, node.is_active()?);
        fs::write(&configuration, LARGER)?;
        run_ok(node.command("systemctl").args(["reload", "trafctl"]))?;
        let mut row = self
            .compared(row)?
            .fact("dpkg succeeds", done.status.success())
            .fact("the service is active, in another process", is_active && node.process()? != process)
            .fact("the mistake is a problem of `status`", status.contains("trafctl.toml:1"));
        if !row.agrees() {
            row.witness += &format!(": {status}");
        }
        evidence.row(row);
        Ok(())
    }

    /// The service does not stop in time, and the configuration has a mistake.
    pub(super) fn stubborn_removal(&self, evidence: &mut Evidence) -> Result<()> {
        let node = &self.node;
        run_ok(node.command("mkdir").args(["-p", &format!("/{DROP_IN}")]))?;
        let write = format!("printf '{}' >/{DROP_IN}/stubborn.conf", STUBBORN.replace('\n', "\\n"));
        run_ok(node.command("sh").args(["-ec", &write]))?;
        run_ok(node.command("systemctl").arg("daemon-reload"))?;
        let sent = node.exchange(33)?;
        let row = "removed although the service does not stop, and the configuration has a mistake";
        let mut row = self.compared(self.row(row, sent, WITNESS))?;
        fs::write(node.path("etc/trafctl/trafctl.toml"), "preset = \n")?;
        let done = node.apt(&["remove", "trafctl"])?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if said.contains("trafctl: ") {
            row.witness += &format!(": {said}");
        }
        evidence.row(
            row.fact("apt succeeds", done.status.success())
                .fact("no script warns of what is not so", !said.contains("may still be attached"))
                .count("programs on the interfaces, by the kernel's list", 0, node.attached()?)
                .fact("the service is not active", !node.is_active()?)
                .fact("no unit failed", node.failed_units()?.is_empty()),
        );
        run_ok(node.command("rm").args(["-r", &format!("/{DROP_IN}")]))?;
        run_ok(node.command("systemctl").arg("daemon-reload"))?;
        fs::write(node.path("etc/trafctl/trafctl.toml"), LARGER)?;
        Ok(())
    }

    /// A file system of its own at the state directory cannot be removed.
    pub(super) fn purge_with_a_mount(&self, evidence: &mut Evidence) -> Result<()> {
        let node = &self.node;
        let state = "/var/lib/trafctl";
        run_ok(node.command("mount").args(["-t", "tmpfs", "tmpfs", state]))?;
        run_ok(node.command("touch").arg(format!("{state}/ledger.sqlite")))?;
        let done = node.apt(&["purge", "trafctl"])?;
        let left = output(node.command("ls").args(["-A", state]))?;
        let mut row = self.row("purged, with a file system of its own for the figures", "nothing", "ls");
        if !done.status.success() {
            row.witness += &format!(": {}", String::from_utf8_lossy(&done.stderr));
        }
        evidence.row(
            row.fact("apt succeeds", done.status.success())
                .fact("nothing is left in it", left.stdout.is_empty()),
        );
        run_ok(node.command("umount").arg(state))?;
        run_ok(node.command("rm").args(["-rf", state])).map(drop)
    }

    /// The calendar that was configured before the first start is that of the ledger, and the state directory is
    /// closed to others from the start.
    pub(super) fn install_with_a_calendar(&self, evidence: &mut Evidence) -> Result<()> {
        let node = &self.node;
        let text = "[ledger]\ntime_zone = \"Asia/Kolkata\"\nbilling_day = 17\n";
        fs::create_dir_all(node.path("etc/trafctl"))?;
        fs::write(node.path("etc/trafctl/trafctl.toml"), text)?;
        node.install(Version::Current)?;
        // The figures are fixed with the file: a later change does not move them.
        fs::write(node.path("etc/trafctl/trafctl.toml"), text.replace("Kolkata", "Tokyo"))?;
        node.exchange(5)?;
        let report = node.trafctl(&["report", "--by", "month"])?;
        let state = fs::metadata(node.path("var/lib/trafctl")).context("there is no state directory")?;
        let row = self.row("installed with a calendar", "nothing", "the file that was there before");
        evidence.row(
            row.fact(
                "zone and day are those of the file",
                report.contains("zone Asia/Kolkata, months from day 17"),
            )
            .count("mode of the state directory", 0o750, u64::from(state.mode() & 0o7777))
            .fact("it is root's, and of root's group", (state.uid(), state.gid()) == (0, 0)),
        );
        Ok(())
    }
}
