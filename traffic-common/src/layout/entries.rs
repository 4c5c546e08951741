//! What the kernel program looks up to find a packet's container: interface entries and addresses.

use core::mem::{offset_of, size_of};

/// Interfaces with an index below this are found by one array load, others through a hash.
pub const INTERFACE_INDEX_ENTRIES: u32 = 65_536;
/// The interface slot for interfaces without an entry, so that nothing passes uncounted.
pub const UNKNOWN_INTERFACE_SLOT: u32 = 0;
/// In place of the slot of a local address whose owner has no counter slot.
pub const ADDRESS_WITHOUT_SLOT: u32 = u32::MAX >> 1;
/// Beside the slot of a local address: it is that of a device that containers have on an uplink (macvlan, ipvlan), and
/// is on no shared interface.
pub const ADDRESS_ON_UPLINK: u32 = 1 << 31;

/// What the program knows of an interface, found by its index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InterfaceEntry {
    /// Bits of [`interface_flags`]. Zero means that there is no entry.
    pub flags: u32,
    /// The slot of its totals and faults.
    pub interface_slot: u32,
    /// The slot of its container. Meaningless with [`interface_flags::SHARED`] or
    /// [`interface_flags::NO_SLOT`].
    pub container_slot: u32,
    /// Bytes before the network header: 14 with Ethernet, 0 on a layer-3 device. The program may have added
    /// [`CARRIED_IPSEC`].
    pub link_header_len: u32,
}

/// In [`InterfaceEntry::link_header_len`]: an IPsec packet has come in on the interface. If the host decrypts
/// it, it comes in there once more. Written by the program, so that only such interfaces pay for the test.
///
/// It is in this field because the program's write may cross with one of userspace, and the length never
/// changes while an index has the same owner.
pub const CARRIED_IPSEC: u32 = 1 << 31;

impl InterfaceEntry {
    /// The entry as userspace wrote it.
    #[must_use]
    pub const fn as_written(mut self) -> Self {
        self.link_header_len &= !CARRIED_IPSEC;
        self
    }
}

/// Bits of [`InterfaceEntry::flags`].
pub mod interface_flags {
    /// The entry is in use.
    pub const PRESENT: u32 = 1;
    /// Several containers share the interface; the local address decides. On an uplink: containers have devices on it
    /// (macvlan, ipvlan), and addresses with [`ADDRESS_ON_UPLINK`](crate::ADDRESS_ON_UPLINK) are theirs.
    pub const SHARED: u32 = 2;
    /// No container slot was free: every packet is a [`ContainerTableFull`](crate::Fault::ContainerTableFull)
    /// fault.
    pub const NO_SLOT: u32 = 4;
    /// An uplink of the node. It carries the node's own traffic beside that of others, and *ingress* is in to
    /// the node. Set instead of [`PRESENT`], so that the common path does not test for it.
    pub const UPLINK: u32 = 8;
    /// Not an interface of a container, and not an ifb. Such an entry has no slots. It only spares packets
    /// that came in there the test whether an ifb sends them a second time.
    pub const ORDINARY: u32 = 16;
    /// An ifb, which sends packets again that were redirected to it. Such an entry has no slots.
    pub const REPEATER: u32 = 32;
    /// *Ingress* is in to the machine, as on an uplink: a macvtap is the machine's own end.
    pub const REVERSED: u32 = 64;
    /// A bridge's own interface. A packet that the node routes from a bridge names the bridge as the interface
    /// that it came from, not the port. Set beside [`ORDINARY`]. Only the drop program reads it.
    pub const BRIDGE: u32 = 128;
}

/// The key of an IPv4 address among the node's own addresses: mapped into IPv6.
pub const fn node_address_v4([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

const _: () = {
    assert!(size_of::<InterfaceEntry>() == 16);
    assert!(offset_of!(InterfaceEntry, interface_slot) == 4);
    assert!(offset_of!(InterfaceEntry, container_slot) == 8);
    assert!(offset_of!(InterfaceEntry, link_header_len) == 12);
};
