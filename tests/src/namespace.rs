//! Network namespaces as guards. They have unique names, are silent, and are deleted on drop.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::netlink::{self, IFLA_GSO_IPV4_MAX_SIZE, IFLA_GSO_MAX_SIZE};
use crate::process::{run_ok, run_with_input};

/// The directory in which iproute2 keeps namespaces.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// The prefix of every name, by which leftovers are recognised.
pub(crate) const PREFIX: &str = "trafctl-lab";

/// Settings that keep an interface from sending anything by itself. They are written for `default`, so that a
/// new interface has them at once, and for `all`.
const QUIET_IPV6: &[(&str, &str)] = &[
    ("accept_dad", "0"),
    ("dad_transmits", "0"),
    ("accept_ra", "0"),
    ("accept_redirects", "0"),
    ("autoconf", "0"),
    ("router_solicitations", "0"),
    // Without a link-local address an interface sends no reports for its group, and a router no redirects.
    ("addr_gen_mode", "1"),
];
const QUIET_IPV4: &[(&str, &str)] = &[
    ("accept_redirects", "0"),
    ("arp_notify", "0"),
    // Routed containers reach each other through one interface. Without this, the first packet of each causes
    // a redirect.
    ("send_redirects", "0"),
    ("rp_filter", "0"),
];

/// Without selective acknowledgements, every TCP header after the SYN has the same length, even with loss or
/// reordering. Bytes then follow from segments ([`crate::traffic::TcpSide::l3_bytes`]).
const EVEN_HEADERS: (&str, &str) = ("ipv4/tcp_sack", "0");

/// The kernel always reports the multicast groups it joins (every IPv6 interface joins some), at a moment of
/// its choice. The reports are dropped before they reach an interface.
const SILENCE: &str = "table inet quiet {
    chain output {
        type filter hook output priority raw; policy accept;
        icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } drop
        icmpv6 type nd-router-solicit drop
    }
}
";

/// A network namespace that exists as long as its guard.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    exists: bool,
}

impl Namespace {
    /// Creates a namespace with its loopback up and everything in it silent. The label is for people who list
    /// namespaces. The name is unique.
    ///
    /// # Errors
    ///
    /// Without root, or when the namespace cannot be created.
    pub fn new(label: &str) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        crate::require_root()?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let mut namespace =
            Self { name: format!("{PREFIX}-{}-{number}-{label}", std::process::id()), exists: false };
        // This process has not created it: a process of the same id, which was killed, left it.
        if Path::new(DIRECTORY).join(&namespace.name).exists() {
            run_ok(Command::new("ip").args(["netns", "delete", &namespace.name]))?;
        }
        namespace.create()?;
        Ok(namespace)
    }

    /// Creates the namespace again, under its name, after [`Namespace::delete`].
    ///
    /// # Errors
    ///
    /// When it exists already.
    pub fn create(&mut self) -> Result<()> {
        run_ok(Command::new("ip").args(["netns", "add", &self.name]))?;
        self.exists = true;
        self.enter(silence)?;
        run_with_input(self.command("nft").args(["-f", "-"]), SILENCE)?;
        self.ip("link set lo up")?;
        Ok(())
    }

    /// Deletes the namespace and all interfaces in it before the guard ends.
    ///
    /// # Errors
    ///
    /// When it does not exist.
    pub fn delete(&mut self) -> Result<()> {
        run_ok(Command::new("ip").args(["netns", "delete", &self.name]))?;
        self.exists = false;
        Ok(())
    }

    /// The name in the output of `ip netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that represents it, for `setns` and `nsenter`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(DIRECTORY).join(&self.name)
    }

    /// Runs a closure inside, on its own thread: a thread can enter a namespace without its process. A socket
    /// created inside belongs to this namespace wherever it is used.
    ///
    /// # Errors
    ///
    /// When the namespace is gone, or the closure fails.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        enter(&self.path(), work)
    }

    /// A command that runs inside. It enters only the network: `ip netns exec` would mount a new `/sys`,
    /// which hides the caller's bpffs. The process id is that of the program.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `ip` inside, with its arguments as one string.
    ///
    /// # Errors
    ///
    /// When it fails; the error contains its output.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run_ok(self.command("ip").args(arguments.split_whitespace()))
    }

    /// Runs several `ip` commands in one process, one in each line, without the word `ip`.
    ///
    /// # Errors
    ///
    /// When one of them fails. Later commands do not run.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        run_with_input(self.command("ip").args(["-batch", "-"]), lines).map(drop)
    }

    /// Writes a setting below `/proc/sys/net`. The path has slashes, such as `ipv4/ip_forward`.
    ///
    /// # Errors
    ///
    /// When the setting does not exist or refuses the value.
    pub fn sysctl(&self, setting: &str, value: &str) -> Result<()> {
        self.enter(|| write_sysctl(setting, value))
    }

    /// Allows TCP buffers of up to this many bytes on an interface, over IPv6 and IPv4 (BIG TCP above 64
    /// KiB).
    ///
    /// # Errors
    ///
    /// When the interface does not exist, or the kernel lacks BIG TCP over IPv4 (before 6.3).
    pub fn gso_max_size(&self, interface: &str, bytes: u32) -> Result<()> {
        // `ip` of Debian 12 can set this for IPv6 only.
        let attributes = [IFLA_GSO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE].map(|attribute| (attribute, bytes));
        self.enter(|| netlink::set_link(interface, &attributes))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.exists {
            // A drop cannot report an error. A process that is still inside keeps the namespace until it
            // ends.
            let _ = self.delete();
        }
    }
}

/// As [`Namespace::enter`], for a thread that may outlive the guard.
pub(crate) fn enter<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let inside = move || {
        let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter {}", path.display()))?;
        work()
    };
    match std::thread::scope(|scope| scope.spawn(inside).join()) {
        Ok(result) => result,
        // Passes on a failed assertion of the closure.
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Writes the settings that silence the namespace of this thread.
fn silence() -> Result<()> {
    let (setting, value) = EVEN_HEADERS;
    write_sysctl(setting, value)?;
    for scope in ["default", "all"] {
        for (name, value) in QUIET_IPV6 {
            write_sysctl(&format!("ipv6/conf/{scope}/{name}"), value)?;
        }
        for (name, value) in QUIET_IPV4 {
            write_sysctl(&format!("ipv4/conf/{scope}/{name}"), value)?;
        }
    }
    Ok(())
}

/// Unlike `/proc/net`, `/proc/sys/net` is that of the thread that opens it.
fn write_sysctl(setting: &str, value: &str) -> Result<()> {
    let path = PathBuf::from("/proc/sys/net").join(setting);
    fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
}
