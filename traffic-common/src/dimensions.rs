//! What a counter is counted by, apart from container and class: direction, address family and fault.
//!
//! The numbers are indexes into the values of the maps, so they never change within a layout version.

/// Direction as the container sees it. Users never see any other notion of direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Direction {
    /// To the container: TC egress of the host-side interface.
    In = 0,
    /// From the container: TC ingress of the host-side interface.
    Out = 1,
}

impl Direction {
    /// Both, in the order of their numbers.
    pub const BOTH: [Self; DIRECTIONS] = [Self::In, Self::Out];

    /// The opposite direction.
    pub const fn reversed(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

/// Number of [`Direction`] values.
pub const DIRECTIONS: usize = 2;

/// Address family of a counted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Family {
    /// IPv4.
    Ipv4 = 0,
    /// IPv6.
    Ipv6 = 1,
}

impl Family {
    /// Both families, in the order of their numbers.
    pub const ALL: [Self; FAMILIES] = [Self::Ipv4, Self::Ipv6];

    /// The name used in output: `ipv4` or `ipv6`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

/// Number of [`Family`] values.
pub const FAMILIES: usize = 2;

/// Why a packet is in no class counter. Every early return of the kernel program names one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Fault {
    /// The frame carries no IP: ARP, LLDP, spanning tree and the like.
    NotIp = 0,
    /// The packet ends before its IP header does.
    Truncated = 1,
    /// The version nibble contradicts the protocol, or the IPv4 header length is below 20 bytes.
    Malformed = 2,
    /// The frame has more than two in-band VLAN tags.
    VlanDepth = 3,
    /// On a shared interface: the local address belongs to no container.
    NoContainer = 4,
    /// All container slots were taken when the interface or address was registered.
    ContainerTableFull = 5,
    /// The program ran on an interface that userspace never registered.
    UnknownInterface = 6,
    /// No class table is loaded. Cannot happen after a successful attach.
    NoClassTable = 7,
    /// A slot or column number lies outside its map. Cannot happen unless something else wrote to the maps.
    NoCounter = 8,
    /// On an uplink: the local address is not the node's. The packet belongs to a container, which counts it
    /// on its own interface, or is merely forwarded. Nothing is wrong.
    NotTheNodes = 9,
}

/// Number of [`Fault`] values.
pub const FAULTS: usize = 10;
/// Places for faults in a map value. The spare ones let a newer program add a fault without a new layout. The
/// last ones belong to [`Note`].
pub const FAULT_PLACES: usize = 16;

/// Packets that are no fault but are reported apart, in places of the fault counters that no fault uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Note {
    /// Cut into segments below [`SMALLEST_SEGMENT`](crate::gso::SMALLEST_SEGMENT). These packets *are* in a
    /// class or fault counter as well.
    SmallSegments = 15,
    /// Copies that no wire carried: the second pass of a packet that an ifb sends again, or the host's own
    /// broadcast that it loops back to itself. They are *not* in any other counter, and in no total.
    Copies = 14,
}

const _: () = assert!(FAULTS <= Note::Copies as usize && (Note::SmallSegments as usize) < FAULT_PLACES);

impl Fault {
    /// All faults, in the order of their numbers.
    pub const ALL: [Self; FAULTS] = [
        Self::NotIp,
        Self::Truncated,
        Self::Malformed,
        Self::VlanDepth,
        Self::NoContainer,
        Self::ContainerTableFull,
        Self::UnknownInterface,
        Self::NoClassTable,
        Self::NoCounter,
        Self::NotTheNodes,
    ];

    /// The name used in output and in the ledger. Names never change once released.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::VlanDepth => "vlan_depth",
            Self::NoContainer => "no_container",
            Self::ContainerTableFull => "container_table_full",
            Self::UnknownInterface => "unknown_interface",
            Self::NoClassTable => "no_class_table",
            Self::NoCounter => "no_counter",
            Self::NotTheNodes => "not_the_nodes",
        }
    }
}
