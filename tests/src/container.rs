//! Bridged containers: a veth pair with `veth101.0` on the host's `br0` and `eth0` in a namespace.
//!
//! Every destination is on-link for a container, so a test may choose any address. Neighbours are configured
//! statically: no neighbour discovery happens unless a test wants it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::check::PATIENCE;
use crate::namespace::Namespace;
use crate::process::run_ok;

/// The addresses of the host, on the bridge.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 254);
/// See [`HOST_V4`].
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xffff, 0, 0, 0, 0, 0, 0xfffe);

/// The hardware address of `br0`. Without one, a bridge takes the lowest of its ports, which changes.
const BRIDGE_MAC: Mac = Mac([0x02, 0xff, 0, 0, 0, 0xfe]);

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Mac {
    /// A locally administered address, derived from the name.
    fn of(name: &str, first: u8) -> Self {
        // FNV-1a: a good spread is all that is needed.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let [a, b, c, d, e, ..] = hash.to_le_bytes();
        Self([first, a, b, c, d, e])
    }
}

/// The bridge of the host. It is silent: no spanning tree, no multicast queries.
#[derive(Debug)]
pub struct Bridge {
    name: &'static str,
}

impl Bridge {
    pub(crate) fn new(host: &Namespace) -> Result<Self> {
        let name = "br0";
        host.ip_batch(&format!(
            "link add {name} address {BRIDGE_MAC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0
             address add {HOST_V4}/32 dev {name}
             address add {HOST_V6}/128 dev {name} nodad
             link set {name} up\n"
        ))?;
        Ok(Self { name })
    }

    /// The name in the host's namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }

    /// The hardware address. Containers see it as the host's.
    #[must_use]
    pub fn mac(&self) -> Mac {
        BRIDGE_MAC
    }
}

/// Waits until a bridge forwards to a port and the host can send through the bridge. The kernel handles the
/// carrier of a new interface in a work queue. On a busy machine this is well after both ends are up, and
/// earlier packets are dropped.
pub(crate) fn await_forwarding(host: &str, interface: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = run_ok(in_host_command(host, "ip").args(["-json", "-details", "link", "show"]))?;
        let links: Value = serde_json::from_str(&shown).context("`ip -json link show`")?;
        let named = |name: &Value| {
            let found = links.as_array().and_then(|all| all.iter().find(|link| link["ifname"] == *name));
            found.with_context(|| format!("{name} is not in {shown}"))
        };
        let port = named(&interface.into())?;
        let bridge = named(&port["master"])?;
        let (port, bridge) = (&port["linkinfo"]["info_slave_data"]["state"], &bridge["operstate"]);
        if port == "forwarding" && bridge == "UP" {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{interface} is still {port}, and its bridge {bridge}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A bridged container; see the [module](self).
#[derive(Debug)]
pub struct Container {
    interface: String,
    bridge: &'static str,
    host: String,
    mac: Mac,
    addresses: Vec<IpAddr>,
    namespace: Namespace,
}

impl Container {
    pub(crate) fn new(
        host: &Namespace,
        bridge: &Bridge,
        interface: &str,
        v4: Ipv4Addr,
        v6: Ipv6Addr,
    ) -> Result<Self> {
        let container = Self {
            interface: interface.to_owned(),
            bridge: bridge.name,
            host: host.name().to_owned(),
            mac: Mac::of(interface, 0x02),
            addresses: vec![v4.into(), v6.into()],
            namespace: Namespace::new(interface)?,
        };
        container.connect()?;
        Ok(container)
    }

    /// The interface on the host, such as `veth101.0`.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The hardware address of the container's `eth0`.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// The first IPv4 address.
    #[must_use]
    pub fn v4(&self) -> IpAddr {
        self.addresses[0]
    }

    /// The first IPv6 address.
    #[must_use]
    pub fn v6(&self) -> IpAddr {
        self.addresses[1]
    }

    /// The namespace. It keeps its name over a stop and a start.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Adds an address, for a peer that stands for many hosts.
    ///
    /// # Errors
    ///
    /// When the container has the address already.
    pub fn add_address(&mut self, address: IpAddr) -> Result<()> {
        self.namespace.ip_batch(&add_address(address))?;
        in_host(&self.host, &self.known_to_host(&[address]))?;
        self.addresses.push(address);
        Ok(())
    }

    /// Configures the hardware address behind all addresses of another container, so that no discovery is
    /// needed.
    ///
    /// # Errors
    ///
    /// When the container is stopped.
    pub fn knows(&self, other: &Self) -> Result<()> {
        self.knows_at(&other.addresses, other.mac)
    }

    /// Configures the hardware address behind some addresses, such as those of a virtual machine.
    ///
    /// # Errors
    ///
    /// When the container is stopped.
    pub fn knows_at(&self, addresses: &[IpAddr], mac: Mac) -> Result<()> {
        self.namespace.ip_batch(&neighbours(addresses, mac, "eth0"))
    }

    /// Switches segmentation offloads on or off, on both ends. When they are off, each buffer is one packet
    /// from the start. Without the limit on segments, TCP would still make super-packets, and the queueing
    /// layer would cut them after a qdisc or a classifier has seen them.
    ///
    /// # Errors
    ///
    /// When the container is stopped.
    pub fn offload(&self, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        // The limit below does not apply to packets from a tap, which have no segment count, and `gso` does
        // not include UDP segmentation.
        let features = ["tso", state, "gso", state, "gro", state, "tx-udp-segmentation", state];
        run_ok(self.namespace.command("ethtool").args(["-K", "eth0"]).args(features))?;
        run_ok(in_host_command(&self.host, "ethtool").args(["-K", &self.interface]).args(features))?;
        let segments = if on { 65535 } else { 1 };
        self.namespace.ip(&format!("link set eth0 gso_max_segs {segments}"))?;
        in_host(&self.host, &format!("link set {} gso_max_segs {segments}\n", self.interface))
    }

    /// Stops the container: deletes its interface and its namespace, as on a real node.
    ///
    /// # Errors
    ///
    /// When it is stopped.
    pub fn stop(&mut self) -> Result<()> {
        // The interface first: a deleted namespace removes its interfaces only some time later.
        self.unplug()?;
        self.namespace.delete()
    }

    /// Starts the container again under the same names and addresses. It knows the host but no other
    /// container.
    ///
    /// # Errors
    ///
    /// When it is running.
    pub fn start(&mut self) -> Result<()> {
        self.namespace.create()?;
        self.connect()
    }

    /// Takes the container off its node, as a live migration does: its interface is deleted, and what runs in it goes
    /// on. [`Container::plug_into`] connects it again.
    ///
    /// # Errors
    ///
    /// When it has no interface.
    pub fn unplug(&self) -> Result<()> {
        in_host(&self.host, &format!("link delete {}\n", self.interface))
    }

    /// Gives the container its interface on another node, with the same name and hardware address. It is down inside:
    /// nothing passes before [`Container::bring_up`].
    ///
    /// # Errors
    ///
    /// When the name is in use there, or the container is stopped.
    pub fn plug_into(&mut self, host: &Namespace, bridge: &Bridge) -> Result<()> {
        (self.host, self.bridge) = (host.name().to_owned(), bridge.name);
        self.plug()
    }

    fn connect(&self) -> Result<()> {
        self.plug()?;
        self.bring_up()
    }

    /// Creates the interface, with its end on the bridge of the host.
    fn plug(&self) -> Result<()> {
        let Self { interface, bridge, mac, .. } = self;
        let namespace = self.namespace.name();
        let host_mac = Mac::of(interface, 0xfe);
        in_host(
            &self.host,
            &format!(
                "link add {interface} address {host_mac} type veth peer name eth0 address {mac} netns {namespace}
                 link set {interface} master {bridge} up\n{}",
                self.known_to_host(&self.addresses)
            ),
        )?;
        // The bridge floods frames to unknown addresses, which would be counted for other containers.
        run_ok(in_host_command(&self.host, "bridge").args([
            "fdb",
            "replace",
            &mac.to_string(),
            "dev",
            interface,
            "master",
            "static",
        ]))
        .map(drop)
    }

    /// Brings the interface up inside, with all addresses. The container then knows the host but no other container.
    ///
    /// # Errors
    ///
    /// When it has no interface, or has an address already.
    pub fn bring_up(&self) -> Result<()> {
        let addresses: String = self.addresses.iter().map(|&address| add_address(address)).collect();
        self.namespace.ip_batch(&format!(
            "{addresses}link set eth0 up
             route add 0.0.0.0/0 dev eth0
             route add ::/0 dev eth0\n{}",
            neighbours(&[HOST_V4.into(), HOST_V6.into()], BRIDGE_MAC, "eth0")
        ))?;
        await_forwarding(&self.host, &self.interface)
    }

    fn known_to_host(&self, addresses: &[IpAddr]) -> String {
        let mut lines = neighbours(addresses, self.mac, self.bridge);
        for address in addresses {
            // A write to a string cannot fail.
            let _ = writeln!(lines, "route replace {address} dev {}", self.bridge);
        }
        lines
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The container may be stopped, or the host and the interface with it may be gone.
        let _ = in_host(&self.host, &format!("link delete {}\n", self.interface));
    }
}

/// Makes containers know each other, so that none needs neighbour discovery.
///
/// # Errors
///
/// When one of them is stopped.
pub fn introduce(containers: &[&Container]) -> Result<()> {
    for (index, container) in containers.iter().enumerate() {
        for (other_index, other) in containers.iter().enumerate() {
            if index != other_index {
                container.knows(other)?;
            }
        }
    }
    Ok(())
}

fn add_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("address add {v4}/32 dev eth0\n"),
        IpAddr::V6(v6) => format!("address add {v6}/128 dev eth0 nodad\n"),
    }
}

fn neighbours(addresses: &[IpAddr], mac: Mac, device: &str) -> String {
    addresses
        .iter()
        .map(|address| format!("neighbour replace {address} lladdr {mac} dev {device} nud permanent\n"))
        .collect()
}

/// A container does not outlive the host, so it keeps only the host's name.
fn in_host_command(host: &str, program: &str) -> std::process::Command {
    let mut command = std::process::Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{host}")).arg("--").arg(program);
    command
}

fn in_host(host: &str, lines: &str) -> Result<()> {
    crate::process::run_with_input(in_host_command(host, "ip").args(["-batch", "-"]), lines).map(drop)
}
