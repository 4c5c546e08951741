//! A Debian that systemd boots in namespaces, with two containers and a witness in the first.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use traffic_tests::check::{PATIENCE, eventually, output, reported};
use traffic_tests::container::introduce;
use traffic_tests::process::{Process, run_ok};
use traffic_tests::systemd::{SERVICE, Systemd};
use traffic_tests::traffic::udp_send;
use traffic_tests::witness::{Side, WireCount, WireWitness};
use traffic_tests::{Amounts, Container, Counters, Lab, lab};

use super::tree::{self, Release};
use crate::bench::Bench;

/// The container with the witness.
pub const CONTAINER: &str = "101";

/// The versions of the package, and their directories in the cache and on the node.
#[derive(Clone, Copy, Debug)]
pub enum Version {
    Previous,
    Current,
}

impl Version {
    fn directory(self) -> &'static str {
        match self {
            Self::Previous => "previous",
            Self::Current => "current",
        }
    }
}

/// The node.
pub struct Node {
    // Ends before the interfaces and the directories that it uses.
    systemd: Systemd,
    witness: WireWitness,
    web: Container,
    shop: Container,
    lab: Lab,
}

impl Node {
    /// Boots a release without trafctl, beside two containers.
    ///
    /// # Errors
    ///
    /// When a part of it cannot be made, or does not start.
    pub fn boot(bench: &Bench, release: Release) -> Result<Self> {
        let lab = Lab::new(release.suite)?;
        let web = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
        let shop = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
        introduce(&[&web, &shop])?;
        let witness = WireWitness::start(&web.namespace().path(), "eth0", Side::Container)?;
        let root = lab.path("root");
        tree::copy(bench, release, &root)?;
        let packages = bench.cache_directory("packages")?;
        for version in [Version::Previous, Version::Current] {
            let to = root.join("packages").join(version.directory());
            fs::create_dir_all(&to).context("cannot create a directory for packages")?;
            for (kind, name) in [(".deb", "trafctl.deb"), (".rpm", "trafctl.rpm")] {
                let package = only_package(&packages.join(version.directory()), kind)?;
                fs::copy(&package, to.join(name))
                    .with_context(|| format!("cannot copy {}", package.display()))?;
            }
        }
        let systemd = Systemd::boot_tree(&lab, root)?;
        Ok(Self { systemd, witness, web, shop, lab })
    }

    /// A command as an administrator runs it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.systemd.command("env");
        command.args(["-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"]);
        command.args(["DEBIAN_FRONTEND=noninteractive", program]);
        command
    }

    /// Runs apt-get, whatever its exit status.
    pub fn apt(&self, arguments: &[&str]) -> Result<Output> {
        output(
            self.command("apt-get")
                .args(["--quiet", "--yes", "-o", "APT::Sandbox::User=root"])
                .args(arguments),
        )
    }

    /// The package of a version, on the node.
    pub fn file(&self, version: Version) -> String {
        format!("/packages/{}/trafctl.deb", version.directory())
    }

    /// The same for rpm.
    pub fn rpm_file(&self, version: Version) -> String {
        format!("/packages/{}/trafctl.rpm", version.directory())
    }

    /// Installs a version, as `apt install ./FILE` does.
    pub fn install(&self, version: Version) -> Result<()> {
        let file = self.file(version);
        let done = self.apt(&["install", &file])?;
        ensure!(done.status.success(), "apt cannot install {file}: {done:?}");
        Ok(())
    }

    /// The installed version, or an empty text.
    pub fn version(&self) -> Result<String> {
        let query = ["--show", "--showformat=${db:Status-Status} ${Version}", "trafctl"];
        let shown = output(self.command("dpkg-query").args(query))?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        Ok(shown.strip_prefix("installed ").unwrap_or_default().to_owned())
    }

    /// Whether systemd says that the service is active.
    pub fn is_active(&self) -> Result<bool> {
        Ok(self.systemd.property("ActiveState")? == "active")
    }

    /// The main process of the service.
    pub fn process(&self) -> Result<String> {
        self.systemd.property("MainPID")
    }

    /// Runs the installed trafctl, which must succeed.
    pub fn trafctl(&self, arguments: &[&str]) -> Result<String> {
        run_ok(self.command("trafctl").args(arguments))
    }

    /// What `trafctl status` says, also where that is a problem.
    pub fn status(&self) -> Result<String> {
        let shown = output(self.command("trafctl").arg("status"))?;
        Ok(String::from_utf8_lossy(&shown.stdout).into_owned())
    }

    /// The counters, read by the installed trafctl when they have stopped changing.
    pub fn counters(&self) -> Result<Counters> {
        Counters::at_rest_as(|| Ok(serde_json::from_str(&self.trafctl(&["dump", "--format", "json"])?)?))
    }

    /// What the witness saw.
    pub fn wire(&self) -> Result<WireCount> {
        self.witness.at_rest()
    }

    /// Sends this many datagrams from the container with the witness, and more to it. Returns what was sent.
    pub fn exchange(&self, datagrams: u64) -> Result<String> {
        let (web, shop) = (&self.web, &self.shop);
        let (more, [small, large]) = (2 * datagrams + 7, [300, 700]);
        udp_send(web.namespace(), shop.namespace(), SocketAddr::new(shop.v4(), 0), datagrams, small)?;
        udp_send(shop.namespace(), web.namespace(), SocketAddr::new(web.v6(), 0), more, large)?;
        Ok(format!(
            "{datagrams} datagrams of {small} bytes from the container, {more} of {large} bytes to it"
        ))
    }

    /// Starts to send echo requests from the container with the witness.
    pub fn ping(&self) -> Result<Ping> {
        let mut command = self.web.namespace().command("ping");
        command.args(["-n", "-q", "-i", "0.005", &self.shop.v4().to_string()]);
        Ok(Ping { process: Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))? })
    }

    /// Waits until the witness has seen this many more packets from its container.
    pub fn flows(&self, packets: u64) -> Result<()> {
        let until = self.witness.read()?.total().out_packets + packets;
        eventually("packets flow", || Ok(self.witness.read()?.total().out_packets >= until))
    }

    /// A directory or file of the node.
    pub fn path(&self, name: &str) -> PathBuf {
        self.systemd.root().join(name)
    }

    /// The pinned counters and the ledger, read without the package: by the program from outside.
    pub fn seen_outside(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.lab.host().command(lab::trafctl_program()?);
        command.arg("--bpffs").arg(self.lab.bpffs().join("trafctl"));
        command.arg("--state-dir").arg(self.path("var/lib/trafctl"));
        command.arg("--config").arg(self.path("etc/trafctl/trafctl.toml")).args(arguments);
        run_ok(&mut command)
    }

    /// The container's total in the ledger.
    pub fn booked_seen_outside(&self) -> Result<Amounts> {
        let report = self.seen_outside(&["report", "--split", "class", "--format", "json"])?;
        reported(&serde_json::from_str(&report)?, CONTAINER)
    }

    /// How many programs are on the hooks of both containers, by the kernel's own list.
    pub fn attached(&self) -> Result<u64> {
        let mut programs = 0;
        for container in [&self.web, &self.shop] {
            programs += traffic_tests::check::hooks(&self.lab, container.interface())?.len() as u64;
        }
        Ok(programs)
    }

    /// The pins of trafctl in the kernel's file system.
    pub fn pins(&self) -> PathBuf {
        self.lab.bpffs().join("trafctl")
    }

    /// Names of units that failed.
    pub fn failed_units(&self) -> Result<String> {
        self.systemd.systemctl(&["--failed", "--no-legend", "--plain"])
    }

    /// What systemd and the service wrote, for messages.
    pub fn log(&self) -> Result<String> {
        run_ok(self.command("journalctl").args(["--no-pager", "--unit", SERVICE]))
    }

    /// Whether the figures of the container agree with the witness since a reading, waiting for that. Returns the
    /// seconds since `start`.
    pub fn exact_after(&self, from: &WireCount, start: Instant) -> Result<f64> {
        let wire = self.witness.at_rest()?.since(from).of(|_| true);
        eventually("the first exact figure", || {
            let dump: Counters = serde_json::from_str(&self.trafctl(&["dump", "--format", "json"])?)?;
            Ok(dump.container_or_zero(CONTAINER) == wire)
        })
        .with_context(|| self.log().unwrap_or_default())?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// A `ping` that runs.
pub struct Ping {
    process: Process,
}

impl Ping {
    /// Ends it. Returns the number of requests that it sent.
    pub fn stop(mut self) -> Result<u64> {
        self.process.signal(Signal::INT)?;
        self.process.wait(PATIENCE)?;
        let mut text = String::new();
        let mut stdout = self.process.child().stdout.take().context("ping has no output")?;
        std::io::Read::read_to_string(&mut stdout, &mut text).context("cannot read the output of ping")?;
        let sent =
            text.lines().find_map(|line| line.split_once(" packets transmitted")).map(|(sent, _)| sent);
        sent.and_then(|sent| sent.parse().ok()).with_context(|| format!("the output of ping is {text:?}"))
    }
}

/// The package of the program in a directory of the cache, by the end of its name.
fn only_package(directory: &Path, kind: &str) -> Result<PathBuf> {
    let missing =
        || format!("no package in {}; run `cargo xtask prove --part packages`", directory.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(missing)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("trafctl") && !name.starts_with("trafctl-virtuozzo") && name.ends_with(kind) {
            found.push(path);
        }
    }
    ensure!(found.len() == 1, "{}: {found:?}", missing());
    found.pop().with_context(missing)
}
