//! Real containers of Podman, run by runc, and a pod.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use traffic_tests::check::{eventually, is_well};
use traffic_tests::daemon::Daemon;
use traffic_tests::process::run_ok;
use traffic_tests::{Amounts, Counters, Lab};

use crate::{host, is_attached, node};

/// The machine may not raise limits, and its cgroups have no controllers.
const CONFIGURATION: &str = "[containers]\ndefault_ulimits = []\npids_limit = -1\n";
/// What an echo request and its reply take on layer 3.
const ECHO_BYTES: u64 = 84;

/// An IGMPv3 report of one group.
const REPORT_BYTES: u64 = 40;

/// Podman with all its data in the lab. The drop removes its containers.
struct Podman<'a> {
    lab: &'a Lab,
}

impl<'a> Podman<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        lab.write("containers.conf", CONFIGURATION)?;
        let podman = Self { lab };
        let root = lab.path("image");
        for directory in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir_all(root.join(directory))?;
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).context("busybox-static is missing")?;
        for name in ["sh", "sleep", "ping"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
        }
        let archive = lab.path("image.tar");
        run_ok(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."))?;
        podman.run(&["import", &archive.display().to_string(), "image"])?;
        Ok(podman)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.lab.host().command("podman");
        command.env("CONTAINERS_CONF", self.lab.path("containers.conf"));
        for (option, place) in [
            ("--root", "podman"),
            ("--runroot", "podman-run"),
            ("--tmpdir", "podman-tmp"),
            ("--network-config-dir", "podman-networks"),
        ] {
            command.arg(option).arg(self.lab.path(place));
        }
        command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command.args(["--network-backend", "netavark"]).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        Ok(run_ok(&mut self.command(arguments))?.trim().to_owned())
    }

    /// Starts a container and returns its id as it is counted.
    fn start(&self, name: &str, more: &[&str]) -> Result<String> {
        let fixed = ["run", "--detach", "--name", name, "--cap-add", "NET_RAW"];
        let id = self.run(&[&fixed, more, &["image", "/bin/sleep", "600"]].concat())?;
        Ok(id.get(..12).context("an id")?.to_owned())
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        for arguments in [&["pod", "rm", "--force", "--all"][..], &["rm", "--force", "--all"]] {
            // It reports by itself what it cannot remove.
            let _ = self.command(arguments).output();
        }
    }
}

/// Waits until an interface of this container exists and is attached.
fn counted(lab: &Lab, id: &str) -> Result<()> {
    eventually(id, || {
        let report = host(lab)?;
        let present = report["interfaces"].as_array().context("interfaces")?;
        let mut names =
            present.iter().filter(|row| row["container"] == id).filter_map(|row| row["interface"].as_str());
        names.next().map_or(Ok(false), |name| is_attached(lab, name))
    })
}

#[test]
fn containers_and_a_pod_of_podman_are_counted_under_their_ids() -> Result<()> {
    let lab = node("podman")?;
    let podman = Podman::new(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let id = podman.start("db", &[])?;
    counted(&lab, &id)?;
    let ping = |container: &str, count: &str| {
        podman.run(&["exec", container, "/bin/ping", "-q", "-c", count, "-i", "0.1", "10.88.0.1"]).map(drop)
    };
    ping("db", "7")?;
    let has_echoes = |id: &str, n: u64| {
        let counted = Counters::at_rest(&lab)?.class(id, 1, "ipv4");
        // It counts from its first packet on, and the bridge may have sent its IGMP reports by then.
        let reports = counted.in_packets.saturating_sub(n);
        let (packets, bytes) = (n + reports, n * ECHO_BYTES + reports * REPORT_BYTES);
        ensure!(counted == Amounts::both((packets, bytes), (n, n * ECHO_BYTES)), "{n} echoes: {counted:?}");
        anyhow::Ok(())
    };
    has_echoes(&id, 7)?;
    // The id stays over a restart, which makes another interface.
    podman.run(&["restart", "--time", "0", "db"])?;
    counted(&lab, &id)?;
    ping("db", "5")?;
    has_echoes(&id, 12)?;
    // Another container in its namespace has no interface of its own, and the pod owns that of its containers.
    let host_only = podman.start("hosty", &["--network", "host"])?;
    podman.run(&[
        "pod",
        "create",
        "--name",
        "shop",
        "--infra-image",
        "image",
        "--infra-command",
        "/bin/sleep 600",
    ])?;
    podman.start("a1", &["--pod", "shop"])?;
    podman.start("a2", &["--pod", "shop"])?;
    let pod = podman.run(&["pod", "inspect", "shop", "--format", "{{.ID}}"])?;
    let pod = pod.get(..12).context("a pod's id")?.to_owned();
    counted(&lab, &pod)?;
    ping("a1", "3")?;
    ping("a2", "2")?;
    has_echoes(&pod, 5)?;
    is_well(&lab)?;
    let report = host(&lab)?;
    let idle: Vec<_> = report["without_interface"].as_array().context("list")?.iter().collect();
    ensure!(idle.iter().any(|row| row["container"] == host_only.as_str()), "{idle:?}");
    assert_eq!(
        Counters::read(&lab)?
            .interfaces
            .iter()
            .filter(|row| row.container.as_deref() == Some(&host_only))
            .count(),
        0
    );
    daemon.stop()
}
