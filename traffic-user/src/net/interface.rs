//! An interface as the rest of trafctl sees it. Where it comes from: `netlink`.

use traffic_common::InterfaceStatistics;

/// One network interface at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetInterface {
    /// Its index, unique in its network namespace while it exists.
    pub index: u32,
    /// Its name, which can change.
    pub name: String,
    /// Its hardware address, where it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Whether its packets begin with an Ethernet header.
    pub ethernet: bool,
    /// Whether it is an uplink of the node: what comes in there is in to it.
    pub is_uplink: bool,
    /// What the kernel counted on it, in the container's directions.
    pub statistics: InterfaceStatistics,
}

impl NetInterface {
    /// The same as an uplink, without the kernel's statistics: those are of everybody's traffic there, and count buffers
    /// before they are put together.
    pub fn as_uplink(self) -> Self {
        Self { is_uplink: true, statistics: InterfaceStatistics::default(), ..self }
    }

    /// Bytes before the network header of its packets.
    pub const fn link_header_len(&self) -> u32 {
        if self.ethernet { 14 } else { 0 }
    }
}
