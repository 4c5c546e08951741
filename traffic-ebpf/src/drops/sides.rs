//! The two ends of a dropped packet: which container has it in its counters, and in which direction.

use core::arch::asm;

use aya_ebpf::btf_maps::lpm_trie::Key;
use traffic_common::{
    CARRIED_IPSEC, Direction, DropFault, Family, InterfaceEntry, drop_kind, interface_flags,
};

use crate::{
    class_table::{slot_in, slot_of},
    finding::{ADDRESSES_V4, ADDRESSES_V6, NODE_ADDRESSES},
    frame::{self, Frame},
    headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_HEADER_LEN, Ipv4Header},
    interfaces::entry_of,
    segments::{Buffer as _, forgotten},
};

const COUNTS: u32 = interface_flags::PRESENT | interface_flags::UPLINK;

/// A side of a packet whose hook has counted it.
pub struct Side {
    /// The direction in which it was counted, as a number.
    direction: u32,
    /// The flags of the interface that counted it, or [`BY_ADDRESS`]. 0 if none has.
    flags: u32,
    /// The container of that interface.
    container_slot: u32,
}

/// In place of an interface's flags: the interface is not known, and the local address decides.
const BY_ADDRESS: u32 = 1 << 31;

impl Side {
    /// No hook has counted the packet.
    const NONE: Self = Self { direction: 0, flags: 0, container_slot: 0 };

    /// Whether a hook has counted the packet.
    #[inline(always)]
    pub const fn has_counted(&self) -> bool {
        self.flags != 0
    }

    /// The direction in which it was counted.
    #[inline(always)]
    pub const fn direction(&self) -> Direction {
        if self.direction == Direction::In as u32 { Direction::In } else { Direction::Out }
    }

    /// The same side, of which the verifier knows nothing: it checks all that follows once, and not once for each
    /// way on which the side was found.
    #[inline(always)]
    pub fn forgotten(self) -> Self {
        Self {
            direction: forgotten(self.direction),
            flags: forgotten(self.flags),
            container_slot: forgotten(self.container_slot),
        }
    }

    /// The side of an interface, on the hook that packets come in by, or on the other one.
    #[inline(always)]
    fn of(entry: &InterfaceEntry, comes_in: bool) -> Self {
        let is_reversed = entry.flags & (interface_flags::UPLINK | interface_flags::REVERSED) != 0;
        let direction = if comes_in == is_reversed { Direction::In } else { Direction::Out };
        Self { direction: direction as u32, flags: entry.flags, container_slot: entry.container_slot }
    }

    /// The slot of the container. `Err(None)` for a packet that the hook counted for nobody.
    #[inline(always)]
    pub fn slot(&self, addresses: &Addresses) -> Result<u32, Option<DropFault>> {
        if self.flags == BY_ADDRESS {
            let found = addresses.owner(self.direction()).and_then(|&value| slot_in(value).ok());
            return found.ok_or(Some(DropFault::NoSender));
        }
        if self.flags & interface_flags::NO_SLOT != 0 {
            return Err(None);
        }
        let is_uplink = self.flags & interface_flags::UPLINK != 0;
        let is_shared = self.flags & interface_flags::SHARED != 0;
        // On an uplink, the entry's container is the node.
        let is_of_entry = if is_uplink { addresses.is_of_node(self.direction()) } else { !is_shared };
        if is_of_entry {
            return Ok(self.container_slot);
        }
        if !is_shared {
            return Err(None);
        }
        let found = addresses.owner(self.direction());
        slot_of(found, self.flags).map_err(|_| (!is_uplink).then_some(DropFault::NoContainer))
    }
}

/// The side that counted the packet when it came in.
#[inline(always)]
pub fn received(frame: &Frame, kind: u8) -> Side {
    if frame.came_from == 0 {
        return Side::NONE;
    }
    let Some(entry) = entry_of(frame.came_from) else { return Side::NONE };
    // An ifb between two interfaces: the packet came from the egress hook of the one that is named.
    let hides = interface_flags::BRIDGE | interface_flags::REPEATER;
    if entry.flags & hides != 0 || is_between(frame) {
        return Side { direction: Direction::Out as u32, flags: BY_ADDRESS, container_slot: 0 };
    }
    if entry.flags & COUNTS == 0 || kind & drop_kind::BEFORE_INGRESS != 0 && frame.came_from == frame.device {
        return Side::NONE;
    }
    Side::of(entry, true)
}

/// The side that counted the packet when it was to leave.
#[inline(always)]
pub fn transmitted(frame: &Frame, kind: u8) -> Side {
    let is_between = is_between(frame);
    if !is_between && kind & drop_kind::BEFORE_EGRESS != 0 {
        return Side::NONE;
    }
    let Some(entry) = entry_of(if is_between { frame.came_from } else { frame.device }) else {
        return Side::NONE;
    };
    let is_counted = entry.flags & COUNTS != 0
        && (is_between || frame.is_in_transmission(entry.link_header_len & !CARRIED_IPSEC));
    if is_counted { Side::of(entry, false) } else { Side::NONE }
}

/// Whether an ifb has the packet, from an egress hook.
#[inline(always)]
fn is_between(frame: &Frame) -> bool {
    entry_of(frame.device).is_some_and(|entry| entry.flags & interface_flags::REPEATER != 0)
        && frame.is_redirected_on_egress()
}

/// An address. One of IPv4 is in the first four bytes. In words, because the verifier requires aligned loads from
/// the stack.
pub type Address = [u64; 2];

/// Source and destination of a packet.
#[repr(C)]
pub struct Addresses {
    /// Where the packet came from.
    pub source: Address,
    /// Where it was to go.
    pub destination: Address,
    /// The address family.
    pub family: Family,
}

/// The bytes of an IPv4 address.
#[inline(always)]
pub fn v4(address: &Address) -> [u8; 4] {
    #[expect(clippy::cast_possible_truncation, reason = "the first four bytes")]
    (address[0] as u32).to_ne_bytes()
}

/// The bytes of an IPv6 address.
#[inline(always)]
pub fn v6(address: &Address) -> [u8; 16] {
    // SAFETY: both are sixteen bytes without padding.
    unsafe { core::mem::transmute(*address) }
}

/// A key whose address is aligned: the compiler stores it in words, and the verifier insists.
#[repr(C, align(8))]
struct KeyV6 {
    in_front: u32,
    key: Key<[u8; 16]>,
}

impl Addresses {
    /// Reads them. `Err(None)` for a packet that the classifiers count in no class.
    #[inline(always)]
    pub fn read(frame: &Frame, (offset, ethertype): (u32, u32)) -> Result<Self, Option<DropFault>> {
        const UNREADABLE: Option<DropFault> = Some(DropFault::Unreadable);
        if ethertype == ETHERTYPE_IPV4 {
            // In words, as above: the last two are the addresses.
            let header: [u32; 5] = frame.load(offset).ok_or(UNREADABLE)?;
            let [version_ihl, ..] = header[0].to_ne_bytes();
            let header_len = Ipv4Header::len(version_ihl);
            let is_valid = version_ihl >> 4 == 4
                && header_len >= IPV4_HEADER_LEN
                && frame.len_behind(offset) >= header_len;
            return is_valid
                .then_some(Self {
                    source: [header[3].into(), 0],
                    destination: [header[4].into(), 0],
                    family: Family::Ipv4,
                })
                .ok_or(None);
        }
        if ethertype == ETHERTYPE_IPV6 {
            let header: [u64; 5] = frame.load(offset).ok_or(UNREADABLE)?;
            let [first, ..] = header[0].to_ne_bytes();
            return (first >> 4 == 6)
                .then_some(Self {
                    source: [header[1], header[2]],
                    destination: [header[3], header[4]],
                    family: Family::Ipv6,
                })
                .ok_or(None);
        }
        Err(None)
    }

    /// Whether the packet was to go to many.
    #[inline(always)]
    pub fn is_to_many(&self) -> bool {
        frame::is_to_many(u32::from_be_bytes(v4(&self.destination)), matches!(self.family, Family::Ipv4))
    }

    /// The address at the other end.
    #[inline(always)]
    pub fn peer(&self, direction: Direction) -> Address {
        match direction {
            Direction::In => self.source,
            Direction::Out => self.destination,
        }
    }

    #[inline(always)]
    fn local(&self, direction: Direction) -> Address {
        self.peer(direction.reversed())
    }

    /// What the maps know of the container that has the local address.
    #[inline(always)]
    fn owner(&self, direction: Direction) -> Option<&'static u32> {
        let local = self.local(direction);
        match self.family {
            Family::Ipv4 => ADDRESSES_V4.get(&Key::new(32, v4(&local))),
            Family::Ipv6 => {
                let key = KeyV6 { in_front: 0, key: Key::new(128, v6(&local)) };
                let mut at = &raw const key;
                // SAFETY: moves a register to itself. The compiler takes it for a use of the whole, and keeps its
                // layout.
                unsafe {
                    asm!("{at} = {at}", at = inout(reg) at);
                    ADDRESSES_V6.get(&(*at).key)
                }
            }
        }
    }

    /// Whether the local address is one of the node.
    #[inline(always)]
    fn is_of_node(&self, direction: Direction) -> bool {
        let local = self.local(direction);
        let key = match self.family {
            Family::Ipv4 => {
                let [a, b, c, d] = v4(&local);
                [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])]
            }
            Family::Ipv6 => local,
        };
        // SAFETY: the value is not read.
        unsafe { NODE_ADDRESSES.get(&key) }.is_some()
    }
}
