//! The records of slots: the values of a record without an owner, and the texts in a record.

use traffic_common::{
    CONTAINER_ID_BYTES, ContainerRecord, DIRECTIONS, INTERFACE_NAME_BYTES, InterfaceRecord,
    InterfaceStatistics, slot_state,
};
use traffic_model::{
    ContainerId,
    notation::{name_bytes, name_text},
};

/// The record of a container slot that has never had an owner.
pub const EMPTY_CONTAINER: ContainerRecord =
    ContainerRecord { state: slot_state::FREE, generation: 0, since_unix_s: 0, id: [0; CONTAINER_ID_BYTES] };

/// No packets and no bytes.
pub const NOTHING: InterfaceStatistics =
    InterfaceStatistics { packets: [0; DIRECTIONS], bytes: [0; DIRECTIONS] };

/// The record of an interface slot that has never had an owner.
pub const EMPTY_INTERFACE: InterfaceRecord = InterfaceRecord {
    state: slot_state::FREE,
    generation: 0,
    ifindex: 0,
    container_slot: u32::MAX,
    shared: 0,
    link_header_len: 0,
    attached_unix_s: 0,
    gone_unix_s: 0,
    kernel_before: NOTHING,
    counted_before: NOTHING,
    missed: NOTHING,
    name: [0; INTERFACE_NAME_BYTES],
    container: [0; CONTAINER_ID_BYTES],
    device: 0,
};

/// Writes a text into a field and pads it with zeros. A text that is too long is cut.
pub fn write_text(field: &mut [u8], text: &str) {
    let len = text.len().min(field.len() - 1);
    field.fill(0);
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
}

/// Returns the text of a field that is padded with zeros, or an empty text if it is not UTF-8.
pub fn read_text(field: &[u8]) -> &str {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    std::str::from_utf8(&field[..end]).unwrap_or("")
}

/// Writes an interface's name as the kernel has it: at most 15 bytes, which fit whatever they are.
pub fn write_name(field: &mut [u8; INTERFACE_NAME_BYTES], name: &str) {
    let bytes = name_bytes(name);
    let len = bytes.len().min(field.len() - 1);
    field.fill(0);
    field[..len].copy_from_slice(&bytes[..len]);
}

/// Returns the name in an interface's record as text.
pub fn read_name(record: &InterfaceRecord) -> String {
    let end = record.name.iter().position(|&byte| byte == 0).unwrap_or(record.name.len());
    name_text(&record.name[..end])
}

/// Returns the id in a container's record, or `None` for a free slot.
pub fn container_id(record: &ContainerRecord) -> Option<ContainerId> {
    if record.state == slot_state::FREE {
        return None;
    }
    ContainerId::new(read_text(&record.id)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_back_as_written_or_cut_to_its_field() {
        let mut field = [7; 16];
        write_text(&mut field, "veth101.0");
        assert_eq!(read_text(&field), "veth101.0");
        write_text(&mut field, "a name that is too long");
        assert_eq!(read_text(&field), "a name that is ");
    }

    #[test]
    fn names_that_differ_in_any_byte_stay_different() {
        let names = [
            &b"\xe9\xe9\xe9\xe9\xe9"[..],
            b"\xe9\xe9\xe9\xe9\xea",
            b"\\xe9\\xe9\\xe9\\xe",
            &[0xff; 15],
            b"veth101.0",
        ];
        for name in names {
            let text = name_text(name);
            let mut record = EMPTY_INTERFACE;
            write_name(&mut record.name, &text);
            assert_eq!(&record.name[..name.len()], name);
            assert_eq!(read_name(&record), text);
        }
    }
}
