//! What the path programs and userspace share: which way packets took through the node.
//!
//! These maps are not pinned. They live as long as the process that measures.

use core::mem::size_of;

use crate::Tally;

/// Name of the program before a device is handed a packet, on the tracepoint `net_dev_start_xmit`.
pub const PATH_BEGIN_PROGRAM: &str = "trafctl_begin";
/// Name of the program after it, on the tracepoint `net_dev_xmit`.
pub const PATH_SENT_PROGRAM: &str = "trafctl_sent";
/// Name of the program on packets that are dropped, on the tracepoint `kfree_skb`.
pub const PATH_DROPPED_PROGRAM: &str = "trafctl_dropped";
/// Name of the program on netfilter's hook for what is delivered to the node.
pub const PATH_LOCAL_PROGRAM: &str = "trafctl_local";
/// Name of the program on what is delivered to the node by IPv4, where there is no such hook.
pub const PATH_LOCAL_V4_PROGRAM: &str = "trafctl_local4";
/// The same of IPv6.
pub const PATH_LOCAL_V6_PROGRAM: &str = "trafctl_local6";

/// Name of the program on what interfaces receive, on the tracepoint `netif_receive_skb`.
pub const PATH_RECEIVED_PROGRAM: &str = "trafctl_received";

/// Most ways that are told apart. All interfaces of containers are one end.
pub const PATH_ENTRIES: u32 = 4096;

/// In place of an interface's index: the node itself, which sent the packet or was its destination.
pub const PATH_NODE: u32 = 0;
/// In place of an interface's index: any interface of a container.
pub const PATH_CONTAINERS: u32 = u32::MAX;
/// In place of the index of the interface that a packet came in on: the packet leaves by the same interface. An ifb
/// sends it again, and hides where it came from.
pub const PATH_HIDDEN: u32 = u32::MAX - 1;
/// In place of the index of the interface that sends: the packet came in and is addressed to many. What becomes of
/// its copies is counted apart.
pub const PATH_TO_MANY: u32 = u32::MAX - 2;

/// Bits of [`PathKey::flags`].
pub mod path_flags {
    /// IP, and not anything else.
    pub const IP: u32 = 1;
    /// To a broadcast or multicast address, of the link layer or of IP.
    pub const TO_MANY: u32 = 2;
    /// The sending device refused the packet, as when the queue at its other end is full, and the drop program does not
    /// see it: it is in another network namespace by then.
    pub const REFUSED: u32 = 4;
}

/// A way through the node. Copied in words of eight bytes, which the verifier wants aligned on the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct PathKey {
    /// Index of the interface that the packet came in on last, or one of the constants.
    pub from: u32,
    /// Index of the interface that sent it, or one of the constants.
    pub to: u32,
    /// Bits of [`path_flags`].
    pub flags: u32,
    /// Always 0.
    pub reserved: u32,
}

/// What took a way. Added to atomically.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PathTally {
    /// Packets and layer-3 bytes as on the wire, by the arithmetic of the classifiers.
    pub on_wire: Tally,
    /// The same in buffers of the kernel, with link-layer headers: what a device in software counts.
    pub buffers: Tally,
}

/// Whether the programs count. One element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PathControl {
    /// 1 while they do.
    pub is_active: u32,
    /// Packets that found no room in a table, or whose way was not seen from its beginning.
    pub lost: u32,
}

const _: () = {
    assert!(size_of::<PathKey>() == 16);
    assert!(size_of::<PathTally>() == 32);
    assert!(size_of::<PathControl>() == 8);
};

impl PathKey {
    /// Whether all of these flags are set.
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }
}
