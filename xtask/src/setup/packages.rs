//! Debian packages. Each is detected by a file or program in it, so a machine that has these from elsewhere
//! needs neither dpkg nor root.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::{State, Step};
use crate::{
    bpf,
    command::{is_installed, is_root, run_watched},
    package::Architecture,
    report::Progress,
};

/// Libraries for host programs: `(package, path)`.
const LIBRARIES: [(&str, &str); 1] = [("libc6-dev", "/usr/include/stdio.h")];

/// Tools of the build: `(package, program)`.
const BUILD_TOOLS: [(&str, &str); 1] = [("gcc", "cc")];

/// Tools of the build for arm64 on another machine: `(package, program or file)`.
const CROSS_TOOLS: [(&str, &str); 2] = [
    ("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
    ("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/include/stdio.h"),
];

/// A compiler with a prebuilt `core` for BPF, which replaces nightly's `rust-src`.
const COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Tools of the tests and the demonstration: `(package, program)`.
const TEST_TOOLS: [(&str, &str); 36] = [
    // Runs a command on a terminal.
    ("bsdutils", "script"),
    // Podman and what it runs containers with, as a platform whose interfaces have random names.
    ("busybox-static", "busybox"),
    ("conmon", "conmon"),
    ("netavark", "/usr/lib/podman/netavark"),
    ("iptables", "iptables"),
    ("podman", "podman"),
    ("runc", "runc"),
    // Lists pinned objects without trafctl's code.
    ("bpftool", "bpftool"),
    // Opens the web page, and is driven by the second.
    ("chromium", "chromium"),
    ("chromium-driver", "chromedriver"),
    // The other store of many nodes. Its service is not started either.
    ("clickhouse-server", "/usr/sbin/clickhouse-server"),
    ("curl", "curl"),
    ("ethtool", "ethtool"),
    // Gives a daemon another wall clock than the machine's.
    ("faketime", "faketime"),
    ("iperf3", "iperf3"),
    ("iproute2", "ip"),
    ("iputils-ping", "ping"),
    // The kernel runs it to load the module of an interface or hook that is used for the first time.
    ("kmod", "modprobe"),
    // Scripts on Virtuozzo's nodes use awk and perl.
    ("mawk", "awk"),
    // Puts the web page behind a path and a password.
    ("nginx-light", "nginx"),
    ("nftables", "nft"),
    // Makes the certificates of a server.
    ("openssl", "openssl"),
    // A switch in a process. Its service is not started either.
    ("openvswitch-switch", "/usr/sbin/ovs-vswitchd"),
    ("perl-base", "perl"),
    // A pooler between shippers and the store. Its service is not started either.
    ("pgbouncer", "/usr/sbin/pgbouncer"),
    // The store of many nodes. Its service is not started: the tests have clusters of their own.
    ("postgresql-15", "/usr/lib/postgresql/15/bin/postgres"),
    ("procps", "sysctl"),
    // Writes packages, which must be the same from every directory.
    ("rpm", "rpmbuild"),
    // Verifies the ledger's hashes, and turns reports into bills (`docs/verify_ledger.py`, `contrib/billing`).
    ("python3", "python3"),
    // Verifies statements without trafctl's code (`docs/verify_statement.py`).
    ("python3-cryptography", "/usr/lib/python3/dist-packages/cryptography/__init__.py"),
    // Reads the ledger as its users do, without trafctl's code.
    ("sqlite3", "sqlite3"),
    // The system calls of the service, and systemd's analysis of its unit.
    ("strace", "strace"),
    ("systemd", "systemd-analyze"),
    ("tcpdump", "tcpdump"),
    ("util-linux", "nsenter"),
    // Has the servers of a ClickHouse cluster agree. No service of it is started.
    ("zookeeper", "/usr/share/java/zookeeper.jar"),
];

/// Additional tools of the benchmark, for the methods it compares: `(package, program)`.
const BENCH_TOOLS: [(&str, &str); 2] = [("ipset", "ipset"), ("iptables", "iptables-restore")];
/// Additional tools of the quick proof: `(package, program)`.
const QUICK_PROOF_TOOLS: [(&str, &str); 2] = [("busybox-static", "busybox"), ("lxc", "lxc-start")];

/// Additional tools of the whole proof: `(package, program)`.
const PROOF_TOOLS: [(&str, &str); 3] = [
    // Makes the initramfs of other kernels.
    ("cpio", "cpio"),
    // Makes the systems in which packages are installed.
    ("mmdebstrap", "mmdebstrap"),
    // Some kernels compress their modules with it.
    ("zstd", "zstd"),
];

/// Installs packages without starting their services, which have no place on a developer's machine. This is a
/// shell script because its trap removes the policy even when the task is interrupted.
const INSTALL: &str = r#"
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\n# Created by `cargo xtask setup` while it installs packages; safe to remove.\nexit 101\n' >"$policy"
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
    /// The packages of the build.
    pub(super) fn for_building() -> Self {
        Self { tools: BUILD_TOOLS.to_vec() }
    }

    /// The packages of the build for a machine, which may be this one.
    pub(super) fn for_building_for(architecture: Architecture) -> Self {
        let is_native = Architecture::of_machine().is_ok_and(|machine| machine == architecture);
        let crossing = (!is_native && architecture == Architecture::Arm).then_some(CROSS_TOOLS);
        Self { tools: [BUILD_TOOLS.as_slice(), crossing.as_ref().map_or(&[], |tools| tools)].concat() }
    }

    /// The packages of the build, the tests and the demonstration.
    pub(super) fn for_testing() -> Self {
        Self { tools: [BUILD_TOOLS.as_slice(), &TEST_TOOLS].concat() }
    }

    /// The packages of the benchmark, including those of the tests.
    pub(super) fn for_bench() -> Self {
        Self { tools: [Self::for_testing().tools.as_slice(), &BENCH_TOOLS].concat() }
    }

    /// The packages of the quick proof, including those of the tests.
    pub(super) fn for_quick_proof() -> Self {
        Self { tools: [Self::for_testing().tools.as_slice(), &QUICK_PROOF_TOOLS].concat() }
    }

    /// The packages of the whole proof, including those of the tests.
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

/// Whether Debian's compiler is complete. The compiler that other Debian packages depend on has no `core` for
/// BPF.
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
            return State::Present("all required packages".to_owned());
        }
        State::Missing(missing.into_iter().collect::<Vec<_>>().join(" "))
    }

    fn install(&self, progress: &Progress) -> Result<()> {
        let missing: Vec<_> = self.missing().into_iter().collect();
        let names = missing.join(" ");
        if !is_installed("apt-get") {
            bail!(
                "apt-get is not installed; install the contents of the Debian packages {names} by other means"
            );
        }
        if !is_root() {
            bail!(
                "the installation needs root; run `apt-get update && apt-get install --no-install-recommends {names}` as \
                 root, then repeat this task"
            );
        }
        let mut command = Command::new("sh");
        command.args(["-c", INSTALL, "apt-get"]).args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
        run_watched(&mut command, progress).context(if missing.contains(&COMPILER[0]) {
            "cannot install packages; where Debian has no such compiler, use `rustup toolchain install nightly --component \
             rust-src`"
        } else {
            "cannot install packages"
        })
    }
}
