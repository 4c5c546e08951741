//! Debian packages, each known by a file or program of its own, so that a machine which got these in another way
//! needs neither dpkg nor root.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::{State, Step};
use crate::{
    bpf,
    command::{is_installed, is_root, run_watched},
    report::Progress,
};

/// What the linker of host programs needs: `(package, path)`.
const LIBRARIES: [(&str, &str); 1] = [("libc6-dev", "/usr/include/stdio.h")];

/// What building needs: `(package, program)`.
const BUILD_TOOLS: [(&str, &str); 1] = [("gcc", "cc")];

/// A compiler with a ready-made `core` for BPF. These stand in for nightly's `rust-src`.
const COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// What the tests and the demonstration call: `(package, program)`.
const TEST_TOOLS: [(&str, &str); 18] = [
    // A terminal for a command.
    ("bsdutils", "script"),
    // Tells what is pinned, independently of us.
    ("bpftool", "bpftool"),
    ("curl", "curl"),
    ("ethtool", "ethtool"),
    // A daemon whose wall clock is set, without setting the machine's.
    ("faketime", "faketime"),
    ("iperf3", "iperf3"),
    ("iproute2", "ip"),
    ("iputils-ping", "ping"),
    // The kernel asks it for the modules of an interface or a hook that is used for the first time.
    ("kmod", "modprobe"),
    // Scripts of Virtuozzo's nodes are written in these two.
    ("mawk", "awk"),
    ("nftables", "nft"),
    ("perl-base", "perl"),
    ("procps", "sysctl"),
    // Reads the ledger as its users do, not through our own library.
    ("sqlite3", "sqlite3"),
    // Which system calls the service needs, and what systemd makes of its unit.
    ("strace", "strace"),
    ("systemd", "systemd-analyze"),
    ("tcpdump", "tcpdump"),
    ("util-linux", "nsenter"),
];

/// What the benchmark compares with, beside: `(package, program)`.
const BENCH_TOOLS: [(&str, &str); 2] = [("ipset", "ipset"), ("iptables", "iptables-restore")];
/// What the quick part of the proof calls beside: `(package, program)`.
const QUICK_PROOF_TOOLS: [(&str, &str); 3] =
    [("busybox-static", "busybox"), ("curl", "curl"), ("lxc", "lxc-start")];

/// What the whole proof calls beside: `(package, program)`.
const PROOF_TOOLS: [(&str, &str); 3] = [
    // Archives for the other kernels' first file system.
    ("cpio", "cpio"),
    ("nginx-light", "nginx"),
    // The modules of some kernels are compressed with it.
    ("zstd", "zstd"),
];

/// Installs packages without starting what they bring: daemons on the machine of a developer are not ours to start.
/// A shell does it because its trap removes the policy also when the task is interrupted.
const INSTALL: &str = r#"
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\n# Made by `cargo xtask setup` while it installs packages; may be removed.\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt-get -q update
apt-get -q install --yes --no-install-recommends --no-remove "$@"
"#;

/// The packages that a task needs.
pub(super) struct Packages {
    tools: Vec<(&'static str, &'static str)>,
}

impl Packages {
    /// What compiling needs.
    pub(super) fn for_building() -> Self {
        Self { tools: BUILD_TOOLS.to_vec() }
    }

    /// What the tests and the demonstration need beside.
    pub(super) fn for_testing() -> Self {
        Self { tools: [BUILD_TOOLS.as_slice(), &TEST_TOOLS].concat() }
    }

    /// What the benchmark needs beside.
    pub(super) fn for_bench() -> Self {
        Self { tools: [Self::for_testing().tools.as_slice(), &BENCH_TOOLS].concat() }
    }

    /// What the quick part of the proof needs beside.
    pub(super) fn for_quick_proof() -> Self {
        Self { tools: [Self::for_testing().tools.as_slice(), &QUICK_PROOF_TOOLS].concat() }
    }

    /// What the whole proof needs beside.
    pub(super) fn for_proof() -> Self {
        Self { tools: [Self::for_quick_proof().tools.as_slice(), &PROOF_TOOLS].concat() }
    }

    fn missing(&self) -> BTreeSet<&'static str> {
        let absent = self.tools.iter().filter(|(_, program)| !is_installed(program));
        let mut missing: BTreeSet<_> = absent.map(|(package, _)| *package).collect();
        missing.extend(
            LIBRARIES.iter().filter(|(_, path)| !Path::new(path).exists()).map(|(package, _)| *package),
        );
        if !has_debian_compiler() && bpf::toolchain().is_none() {
            missing.extend(COMPILER);
        }
        missing
    }
}

/// Whether Debian's compiler is complete: the one that other packages of Debian bring has no `core` for BPF.
pub(super) fn has_debian_compiler() -> bool {
    let root = Path::new(bpf::DEBIAN_SYSROOT);
    bpf::has_core(root) && ["bin/rustc", "bin/cargo"].iter().all(|program| root.join(program).exists())
}

impl Step for Packages {
    fn name(&self) -> &'static str {
        "Debian packages"
    }

    fn look(&self) -> State {
        let missing = self.missing();
        if missing.is_empty() {
            return State::Present("all that is needed".to_owned());
        }
        State::Missing(missing.into_iter().collect::<Vec<_>>().join(" "))
    }

    fn install(&self, progress: &Progress) -> Result<()> {
        let missing: Vec<_> = self.missing().into_iter().collect();
        let names = missing.join(" ");
        if !is_installed("apt-get") {
            bail!("this is no Debian system: install by other means what is in the packages {names}");
        }
        if !is_root() {
            bail!(
                "root is needed: run as root `apt-get update && apt-get install --no-install-recommends {names}`, then this again"
            );
        }
        let mut command = Command::new("sh");
        command.args(["-c", INSTALL, "apt-get"]).args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
        run_watched(&mut command, progress).context(if missing.contains(&COMPILER[0]) {
            "installing (where Debian has no such compiler, `rustup toolchain install nightly --component rust-src` does as well)"
        } else {
            "installing"
        })
    }
}
