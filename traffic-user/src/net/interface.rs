//! A network interface, a change of one, and a filter on one, as the rest of trafctl sees them.
//! [`super::netlink`] and [`super::events`] read them from the kernel.

use traffic_common::{Direction, InterfaceStatistics};

/// One network interface at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetInterface {
    /// Its index, unique in its network namespace while it exists.
    pub index: u32,
    /// Its name, which can change. Bytes that are not UTF-8 are written as `\xNN`.
    pub name: String,
    /// Its alternative names, which `ip link property` adds.
    pub alternative_names: Vec<String>,
    /// Its kind as the kernel names it, such as `veth`, `tun` or `bridge`; empty for a physical one.
    pub kind: String,
    /// Index of the bridge or other interface that it is a port of.
    pub master: Option<u32>,
    /// Index of its other end or of the interface below it, in that one's network namespace.
    pub peer: Option<u32>,
    /// Whether that one is in another network namespace.
    pub peer_is_elsewhere: bool,
    /// The kernel's id of that namespace, valid in this one.
    pub peer_namespace: Option<i32>,
    /// Whether its frames carry a header for segmentation offloads: a hypervisor's tap.
    pub has_offload_header: bool,
    /// Its hardware address, where it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Whether its packets begin with an Ethernet header.
    pub ethernet: bool,
    /// Why its packets cannot be counted, if so.
    pub obstacle: Option<&'static str>,
    /// Whether it is an uplink of the node: what comes in there is in to the node.
    pub is_uplink: bool,
    /// Whether containers have devices on this uplink, which are counted there by their addresses.
    pub is_shared_uplink: bool,
    /// Whether packets can pass: both its ends are up.
    pub has_carrier: bool,
    /// How often it got a carrier; 0 where the kernel does not say. It stays with the device.
    pub carrier_ups: u32,
    /// What the kernel counted on it, in the container's directions.
    pub statistics: InterfaceStatistics,
    /// Buffers that the kernel dropped instead of sending them on it.
    pub send_drops: u64,
    /// Kind of its root qdisc; empty where the kernel does not name it.
    pub queue: String,
    /// The XDP program on it, which sees what it receives before any hook of TC.
    pub xdp: Option<Xdp>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// Where it runs.
    pub mode: XdpMode,
    /// The id of the program; 0 where there are several.
    pub program: u32,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the kernel's common code.
    Generic,
    /// In the network card.
    Offloaded,
    /// In more than one of them.
    Several,
}

impl std::fmt::Display for Xdp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = match self.mode {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Offloaded => "offloaded",
            XdpMode::Several => return f.write_str("several XDP programs"),
        };
        write!(f, "an XDP program ({mode}, id {})", self.program)
    }
}

/// The other end of a cable, in another network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherEnd {
    /// The hardware address of this end, by which it is known to be the same device.
    mac: Option<[u8; 6]>,
    peer: Option<u32>,
    namespace: Option<i32>,
}

impl NetInterface {
    /// The same as an uplink, without the kernel's statistics: on an uplink they cover everybody's traffic
    /// and count buffers before GRO merges them.
    #[must_use]
    pub fn as_uplink(self) -> Self {
        Self { is_uplink: true, statistics: InterfaceStatistics::default(), ..self }
    }

    /// The same, with the kernel's statistics in the directions of whoever lives in its network namespace: what it
    /// receives is in to them.
    #[must_use]
    pub(super) fn seen_from_inside(mut self) -> Self {
        if !is_machines_end(&self.kind) {
            self.statistics.packets.swap(0, 1);
            self.statistics.bytes.swap(0, 1);
        }
        self
    }

    /// Adds what the kernel counted on its other end only, which was read after this one.
    pub(in crate::net) fn add_other_end(&mut self, other: &Self) {
        // Where both indexes are the same, the kernel does not repeat it.
        let is_other_end = other.kind == self.kind && other.peer.is_none_or(|peer| peer == self.index);
        if !is_other_end {
            return;
        }
        let (own, other) = (&mut self.statistics, &other.statistics);
        let values = own.packets.iter_mut().chain(&mut own.bytes);
        for (own, other) in values.zip(other.packets.iter().chain(&other.bytes)) {
            *own = (*own).max(*other);
        }
    }

    /// What its device keeps over renames and moves, and what a device made again rarely has: the hardware
    /// address, and the index of its other end. 0 where it has neither.
    pub fn device(&self) -> u64 {
        let [a, b, c, d, e, f] = self.mac.unwrap_or_default();
        u64::from_be_bytes([a, b, c, d, e, f, 0, 0]) | u64::from(self.peer.unwrap_or(0) & 0xffff)
    }

    /// Whether this is its name or one of its alternative names.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alternative_names.iter().any(|other| other == name)
    }

    /// Whether what comes in there is in to its container: on an uplink, and on a macvtap, which is the
    /// machine's own end. What the machine sends leaves the host's stack there.
    pub fn is_reversed(&self) -> bool {
        self.is_uplink || is_machines_end(&self.kind)
    }

    /// The direction that is counted on a hook, or the hook on which a direction is counted: the other one on an
    /// uplink or a macvtap.
    pub fn side(&self, direction: Direction) -> Direction {
        if self.is_reversed() { direction.reversed() } else { direction }
    }

    /// Whether it looks like the interface of a container or a machine: its other end is in another network
    /// namespace, it is a tap that is a port of a bridge or that a hypervisor uses, or a machine's own end. A
    /// veth with both ends in this namespace does not: its end may be about to move, and nothing passes before
    /// that.
    pub fn looks_like_a_containers(&self) -> bool {
        match self.kind.as_str() {
            "veth" | "netkit" => self.peer_is_elsewhere,
            // Without Ethernet it is a tunnel's, such as a VPN's.
            "tun" => self.ethernet && (self.master.is_some() || self.has_offload_header),
            kind => is_machines_end(kind),
        }
    }

    /// Whether it is one end of a cable whose other end is in this network namespace as well.
    pub fn has_both_ends_here(&self) -> bool {
        matches!(self.kind.as_str(), "veth" | "netkit") && !self.peer_is_elsewhere
    }

    /// Where its other end is, if that is in another network namespace.
    pub fn other_end_elsewhere(&self) -> Option<OtherEnd> {
        self.peer_is_elsewhere.then_some(OtherEnd {
            mac: self.mac,
            peer: self.peer,
            namespace: self.peer_namespace,
        })
    }

    /// Learns where its other end was from an earlier event about the same device. The other end ends first, and
    /// the kernel then announces the end of this one without a word about it.
    pub fn recall_other_end(&mut self, seen: Option<OtherEnd>) {
        let has_none =
            self.is_counted_on_the_other_end() && !self.peer_is_elsewhere && !self.knows_its_peer();
        if let Some(seen) = seen.filter(|seen| has_none && seen.mac == self.mac) {
            self.peer_is_elsewhere = true;
            self.peer = seen.peer;
            self.peer_namespace = seen.namespace;
        }
    }

    /// Whether the kernel names the index of its other end, or of the interface below it.
    pub fn knows_its_peer(&self) -> bool {
        self.peer.is_some_and(|peer| peer != 0)
    }

    /// Whether the kernel counts what it receives on its other end, which ends first.
    pub fn is_counted_on_the_other_end(&self) -> bool {
        matches!(self.kind.as_str(), "veth" | "netkit")
    }

    /// Whether it sends packets again that others redirect to it.
    pub fn is_repeater(&self) -> bool {
        self.kind == "ifb"
    }

    /// Bytes before the network header of its packets.
    pub const fn link_header_len(&self) -> u32 {
        if self.ethernet { 14 } else { 0 }
    }
}

/// Whether an interface of this kind is a machine's own end, and not the host's end of its cable.
pub(super) fn is_machines_end(kind: &str) -> bool {
    matches!(kind, "macvtap" | "ipvtap")
}

/// A change of one interface, or of the node's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceEvent {
    /// It appeared, or something about it changed.
    Seen(NetInterface),
    /// The kernel announced its end. Ask for it by itself before acting on that.
    Gone {
        /// Its index.
        index: u32,
        /// The interface as it was at its end.
        last: Option<Box<NetInterface>>,
        /// Whether it only moved to another network namespace.
        has_moved: bool,
    },
    /// An address of the node's own came or went.
    Addresses,
}

/// A classifier on a clsact hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfFilter {
    /// Lower ones run first.
    pub priority: u16,
    /// Distinguishes filters of one priority.
    pub handle: u32,
    /// Name given when it was attached.
    pub name: String,
    /// Id of the program.
    pub program_id: u32,
}

/// A filter at the priority that trafctl uses, of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignFilter {
    /// Kind of the classifier, such as `u32` or `bpf`.
    pub kind: String,
    /// Its priority.
    pub priority: u16,
    /// Its handle; 0 in the entry that only begins the list of a priority.
    pub handle: u32,
    /// Name of a BPF program.
    pub name: Option<String>,
}

/// The qdisc that holds the filters of the two TC hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookQdisc {
    /// `clsact`, or the older `ingress`, which has no hook for traffic to the container.
    pub kind: String,
    /// The block that the filters for traffic to the container share with other interfaces.
    pub in_block: Option<u32>,
    /// The same for traffic from the container.
    pub out_block: Option<u32>,
}
