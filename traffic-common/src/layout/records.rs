//! Who owns each slot, and what the set of maps is. Written and read by userspace; of [`Meta`], the kernel
//! program reads only the class of each column.

use core::mem::{offset_of, size_of};

use crate::DIRECTIONS;

/// Room for a container id in bytes, with a closing zero. A UUID in braces has 38.
pub const CONTAINER_ID_BYTES: usize = 64;
/// `IFNAMSIZ`: room for an interface name with its closing zero.
pub const INTERFACE_NAME_BYTES: usize = 16;

/// States of a slot record.
pub mod slot_state {
    /// Never used, or released after its owner was gone. The counts it holds belong to former owners, and
    /// become its base when it passes to the next owner.
    pub const FREE: u32 = 0;
    /// Owned by the named container or interface, which exists or may return.
    pub const IN_USE: u32 = 1;
    /// Its owner was retired. The counters stay until the slot passes on; a returning owner gets another
    /// slot.
    pub const RETIRED: u32 = 2;
}

/// States of a set of maps, in [`Meta::ready`].
pub mod set_state {
    /// Being created. Nothing was ever counted in it.
    pub const CREATING: u32 = 0;
    /// Complete, and in use.
    pub const READY: u32 = 1;
    /// Its counters were carried over to another set, which is in use instead. Nothing is counted in it any
    /// more.
    pub const REPLACED: u32 = 2;
    /// Complete, but hooks may still run the program that counts in the set before it.
    pub const MOVING: u32 = 3;
}

/// The owner of a container slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ContainerRecord {
    /// One of [`slot_state`].
    pub state: u32,
    /// Grows each time the slot passes to another container; 0 before the first. Stays when the slot is
    /// released.
    pub generation: u32,
    /// When this container got the slot, in seconds since the Unix epoch.
    pub since_unix_s: u64,
    /// The id in UTF-8, padded with zeros.
    pub id: [u8; CONTAINER_ID_BYTES],
}

/// The kernel's own statistics of an interface, in the container's directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InterfaceStatistics {
    /// Socket buffers, by [`Direction`](crate::Direction).
    pub packets: [u64; DIRECTIONS],
    /// Bytes with the link-layer header, by [`Direction`](crate::Direction).
    pub bytes: [u64; DIRECTIONS],
}

/// The owner of an interface slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct InterfaceRecord {
    /// One of [`slot_state`].
    pub state: u32,
    /// Grows each time the slot passes to another interface; 0 before the first. Stays when the slot is
    /// released.
    pub generation: u32,
    /// The interface's index while it exists, 0 afterwards.
    pub ifindex: u32,
    /// The container's slot; `u32::MAX` for a shared interface or one whose container has no slot.
    pub container_slot: u32,
    /// 1 if several containers share the interface.
    pub shared: u32,
    /// Bytes before the network header.
    pub link_header_len: u32,
    /// When the program was attached to the interface of this index, in seconds since the Unix epoch.
    pub attached_unix_s: u64,
    /// The kernel's statistics just before that.
    pub kernel_before: InterfaceStatistics,
    /// Our own totals (buffers and their bytes) at that moment. A slot outlives its interface, so they need
    /// not be 0.
    pub counted_before: InterfaceStatistics,
    /// When the interface was removed, in seconds since the Unix epoch; 0 while it exists.
    pub gone_unix_s: u64,
    /// Missed traffic: what the kernel counted on this slot's interfaces while the program was not attached.
    /// Only grows.
    pub missed: InterfaceStatistics,
    /// The name in UTF-8, padded with zeros.
    pub name: [u8; INTERFACE_NAME_BYTES],
    /// The id of its container as text, padded with zeros; empty if shared.
    pub container: [u8; CONTAINER_ID_BYTES],
    /// What distinguishes the device that was attached from one made again under its name; 0 where unknown.
    pub device: u64,
}

/// [`InterfaceRecord`] in layout 2, which lacked the last field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields of `InterfaceRecord`")]
pub struct InterfaceRecordV2 {
    pub state: u32,
    pub generation: u32,
    pub ifindex: u32,
    pub container_slot: u32,
    pub shared: u32,
    pub link_header_len: u32,
    pub attached_unix_s: u64,
    pub kernel_before: InterfaceStatistics,
    pub counted_before: InterfaceStatistics,
    pub gone_unix_s: u64,
    pub missed: InterfaceStatistics,
    pub name: [u8; INTERFACE_NAME_BYTES],
    pub container: [u8; CONTAINER_ID_BYTES],
}

impl From<InterfaceRecordV2> for InterfaceRecord {
    fn from(old: InterfaceRecordV2) -> Self {
        Self {
            state: old.state,
            generation: old.generation,
            ifindex: old.ifindex,
            container_slot: old.container_slot,
            shared: old.shared,
            link_header_len: old.link_header_len,
            attached_unix_s: old.attached_unix_s,
            kernel_before: old.kernel_before,
            counted_before: old.counted_before,
            gone_unix_s: old.gone_unix_s,
            missed: old.missed,
            name: old.name,
            container: old.container,
            device: 0,
        }
    }
}

/// What the set of maps is. One element, written under the lock on the pinned directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Meta {
    /// [`LAYOUT_VERSION`](super::LAYOUT_VERSION) of the creator. First, so that every version can read it.
    pub layout_version: u32,
    /// One of [`set_state`]. Distinguishes an interrupted creation from a finished set.
    pub ready: u32,
    /// Random number of this set of counters. A reader that sees another number starts from zero.
    pub epoch: u64,
    /// When the set was created, in seconds since the Unix epoch.
    pub created_unix_s: u64,
    /// The kernel's boot id, as text without a closing zero.
    pub boot_id: [u8; 36],
    /// Number of container slots.
    pub container_slots: u32,
    /// Number of interface slots.
    pub interface_slots: u32,
    /// Number of columns: how many classes can be in use.
    pub columns: u32,
    /// Columns assigned to classes so far.
    pub columns_used: u32,
    /// Version of the attached program, as `major << 20 | minor << 10 | patch`.
    pub program_version: u32,
    /// SHA-256 of the program's object file.
    pub program_hash: [u8; 32],
    /// SHA-256 that names the class table in force.
    pub table_hash: [u8; 32],
    /// When that table was loaded, in seconds since the Unix epoch.
    pub table_loaded_unix_s: u64,
    /// Prefixes in that table after compilation.
    pub table_prefixes: u64,
    /// Class of each column. Only the first [`Meta::columns_used`] are valid.
    pub column_class: [u8; 256],
}

const _: () = {
    assert!(size_of::<ContainerRecord>() == 80);
    assert!(offset_of!(ContainerRecord, id) == 16);
    assert!(size_of::<InterfaceStatistics>() == 32);
    assert!(size_of::<InterfaceRecord>() == 224);
    assert!(offset_of!(InterfaceRecord, attached_unix_s) == 24);
    assert!(offset_of!(InterfaceRecord, kernel_before) == 32);
    assert!(offset_of!(InterfaceRecord, missed) == 104);
    assert!(offset_of!(InterfaceRecord, name) == 136);
    assert!(offset_of!(InterfaceRecord, device) == size_of::<InterfaceRecordV2>());
    assert!(size_of::<Meta>() == 416);
    assert!(offset_of!(Meta, epoch) == 8);
    assert!(offset_of!(Meta, container_slots) == 60);
    assert!(offset_of!(Meta, table_hash) == 112);
    assert!(offset_of!(Meta, column_class) == 160);
};
