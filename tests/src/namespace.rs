//! Network namespaces as guards: made under a name of their own, silent, gone on drop.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::netlink::{self, IFLA_GSO_IPV4_MAX_SIZE, IFLA_GSO_MAX_SIZE};
use crate::process::{run_ok, run_with_input};

/// Where iproute2 keeps its namespaces.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// Every name starts so: it tells whose a leftover is.
pub(crate) const PREFIX: &str = "trafctl-lab";

/// Settings under which an interface says nothing by itself. They are written for `default`, so that an
/// interface has them from its first moment, and for `all`.
const QUIET_IPV6: &[(&str, &str)] = &[
    ("accept_dad", "0"),
    ("dad_transmits", "0"),
    ("accept_ra", "0"),
    ("accept_redirects", "0"),
    ("autoconf", "0"),
    ("router_solicitations", "0"),
    // Without a link-local address there are no reports for its group, and a router can't send redirects.
    ("addr_gen_mode", "1"),
];
const QUIET_IPV4: &[(&str, &str)] = &[
    ("accept_redirects", "0"),
    ("arp_notify", "0"),
    // Routed containers reach each other through one interface: without this each first packet is answered.
    ("send_redirects", "0"),
    ("rp_filter", "0"),
];

/// Without selective acknowledgements every TCP header after the SYN has the same length, whatever was lost or
/// overtaken on the way, so that bytes can be had by arithmetic ([`crate::traffic::TcpSide::l3_bytes`]).
const EVEN_HEADERS: (&str, &str) = ("ipv4/tcp_sack", "0");

/// No setting keeps the kernel from reporting the multicast groups it joins (every IPv6 interface joins some), and
/// it does so at a moment of its own choosing. The reports are dropped before they reach an interface.
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
    /// Makes a namespace with its loopback up and everything in it silent. The label is for people who list
    /// namespaces; the name is unique among processes and within this one.
    ///
    /// # Errors
    ///
    /// Without root, or when the namespace can't be made.
    pub fn new(label: &str) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        crate::require_root()?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let mut namespace =
            Self { name: format!("{PREFIX}-{}-{number}-{label}", std::process::id()), exists: false };
        namespace.create()?;
        Ok(namespace)
    }

    /// Makes the namespace again, under its name, after [`Namespace::delete`].
    ///
    /// # Errors
    ///
    /// When it exists.
    pub fn create(&mut self) -> Result<()> {
        run_ok(Command::new("ip").args(["netns", "add", &self.name]))?;
        self.exists = true;
        self.enter(silence)?;
        run_with_input(self.command("nft").args(["-f", "-"]), SILENCE)?;
        self.ip("link set lo up")?;
        Ok(())
    }

    /// Deletes the namespace ahead of the guard's end, with all interfaces in it.
    ///
    /// # Errors
    ///
    /// When it does not exist.
    pub fn delete(&mut self) -> Result<()> {
        run_ok(Command::new("ip").args(["netns", "delete", &self.name]))?;
        self.exists = false;
        Ok(())
    }

    /// The name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it, for `setns` and `nsenter`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(DIRECTORY).join(&self.name)
    }

    /// Runs a closure inside, on a thread of its own: a thread can enter a namespace without taking the
    /// process along. A socket made inside stays of this namespace wherever it is used later.
    ///
    /// # Errors
    ///
    /// When the namespace is gone, or what the closure returns.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        let inside = move || {
            let file = fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("enter {}", path.display()))?;
            work()
        };
        match std::thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result,
            // An assertion inside is an assertion of the caller's.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A command that will run inside. Only the network is entered: `ip netns exec` would also mount a fresh
    /// `/sys` and so hide the bpffs of the caller. The process id is the program's own.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `ip` inside with the arguments in one line, as one would type them.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run_ok(self.command("ip").args(arguments.split_whitespace()))
    }

    /// Runs several `ip` commands in one process, a line each, without the word `ip`.
    ///
    /// # Errors
    ///
    /// When one of them fails; those after it are not run.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        run_with_input(self.command("ip").args(["-batch", "-"]), lines).map(drop)
    }

    /// Writes a setting under `/proc/sys/net`, its path given with slashes, such as `ipv4/ip_forward`.
    ///
    /// # Errors
    ///
    /// When there is no such setting, or it refuses the value.
    pub fn sysctl(&self, setting: &str, value: &str) -> Result<()> {
        self.enter(|| write_sysctl(setting, value))
    }

    /// Lets an interface carry TCP buffers of up to this many bytes, over IPv6 and IPv4 (BIG TCP above 64 KiB).
    ///
    /// # Errors
    ///
    /// When there is no such interface, or the kernel does not know BIG TCP over IPv4 (before 6.3).
    pub fn gso_max_size(&self, interface: &str, bytes: u32) -> Result<()> {
        // `ip` of Debian 12 knows the sizes for IPv6 only.
        let attributes = [IFLA_GSO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE].map(|attribute| (attribute, bytes));
        self.enter(|| netlink::set_link(interface, &attributes))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.exists {
            // Nobody is left to be told; what was in use inside keeps the namespace until it ends.
            let _ = self.delete();
        }
    }
}

/// Writes the quiet settings of the namespace this thread is in.
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

/// `/proc/sys/net` is that of the thread that opens it, unlike `/proc/net`.
fn write_sysctl(setting: &str, value: &str) -> Result<()> {
    let path = PathBuf::from("/proc/sys/net").join(setting);
    fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
}
