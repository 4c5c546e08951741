//! Debian's systems, made once by mmdebstrap and kept in the cache. A node gets a copy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use traffic_tests::process::run_ok;

use crate::bench::Bench;

/// A release of Debian.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// Its number.
    pub number: u32,
    /// Its name in the archive.
    pub suite: &'static str,
}

/// The releases that run the packages.
pub const RELEASES: [Release; 2] =
    [Release { number: 12, suite: "bookworm" }, Release { number: 13, suite: "trixie" }];

/// What a node has besides the packages that every Debian has.
const INCLUDED: &str = "systemd,systemd-sysv,dbus,iproute2,procps,rpm";

/// Units that have no place in namespaces: the devices and modules are the machine's, and there is no terminal.
/// Some exist in one of the releases only.
const MASKED: [&str; 8] = [
    "getty.target",
    "systemd-firstboot.service",
    "systemd-modules-load.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "systemd-networkd.service",
];

/// Copies the files of a release to a directory that does not exist.
///
/// # Errors
///
/// When mmdebstrap cannot make the system, or it cannot be copied.
pub fn copy(bench: &Bench, release: Release, to: &Path) -> Result<()> {
    let tree = tree(bench, release)?;
    run_ok(Command::new("cp").args(["--archive", "--reflink=auto"]).arg(tree).arg(to)).map(drop)
}

/// The system in the cache.
fn tree(bench: &Bench, release: Release) -> Result<PathBuf> {
    let directory = bench.cache_directory("packages")?;
    let tree = directory.join(release.suite);
    let complete = directory.join(format!("{}.complete", release.suite));
    if fs::read_to_string(&complete).is_ok_and(|included| included == INCLUDED) {
        return Ok(tree);
    }
    bench.step(&format!("fetch Debian {}", release.number));
    if tree.exists() {
        fs::remove_dir_all(&tree).context("cannot remove the files of an interrupted run")?;
    }
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--quiet", "--variant=minbase", &format!("--include={INCLUDED}"), release.suite]);
    run_ok(mmdebstrap.arg(&tree)).with_context(|| format!("cannot make Debian {}", release.number))?;
    run_ok(Command::new("systemctl").arg("--root").arg(&tree).arg("mask").args(MASKED))?;
    // With an id, the first boot is one of many: it enables no units.
    let number = release.number;
    for (name, text) in [
        ("machine-id", format!("000000000000000000000000000000{number}\n")),
        ("hostname", "node\n".to_owned()),
    ] {
        fs::write(tree.join("etc").join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    fs::write(complete, INCLUDED).context("cannot mark the system as complete")?;
    Ok(tree)
}
