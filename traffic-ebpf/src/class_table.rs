//! Looks up classes and local addresses in the maps of `finding.rs`. Shared by both programs.

use aya_ebpf::btf_maps::ArrayOfMaps;
use traffic_common::{
    ADDRESS_ON_UPLINK, ADDRESS_WITHOUT_SLOT, ARRAY_WORDS, Control, Fault, LINE_WORDS, Line, TableWord,
    interface_flags,
    lookup::{self, Lines},
};

use crate::finding::{CLASS_CONTROL, CLASS_LINES, ClassArray};

/// The column of an IPv4 peer.
#[inline(always)]
pub fn column_v4(control: &Control, peer: [u8; 4]) -> Result<u32, Fault> {
    let word = TableWord(control.active_table);
    lookup::column_v4(&Table(word), word.is_wide(), u32::from_be_bytes(peer)).ok_or(Fault::NoClassTable)
}

/// The column of an IPv6 peer.
#[inline(always)]
pub fn column_v6(control: &Control, peer: [u8; 16]) -> Result<u32, Fault> {
    lookup::column_v6(&Table(TableWord(control.active_table)), peer).ok_or(Fault::NoClassTable)
}

/// The class table in force.
struct Table(TableWord);

impl Lines for Table {
    #[inline(always)]
    fn line_of(&self, array: u32, within: u32) -> Option<&Line> {
        line_in(&CLASS_LINES, self.0, array, within)
    }
}

/// The line of this number within this array of a table that a word describes.
#[inline(always)]
pub fn line_in<const ARRAYS: usize>(
    arrays: &'static ArrayOfMaps<ClassArray, ARRAYS>,
    word: TableWord,
    array: u32,
    within: u32,
) -> Option<&'static Line> {
    // With `get_value(_, &0)` the key is a constant in a section of its own, which some objects do not reach.
    let words = arrays.get(word.first_array() + array)?.get(0)?;
    let first = within as usize * LINE_WORDS + word.offset_words() as usize;
    if first > ARRAY_WORDS - LINE_WORDS {
        return None;
    }
    // SAFETY: `first` and the words behind it are within the array, as checked above and again by the
    // verifier. Userspace does not write to an array of a table that programs read.
    Some(unsafe { &*words.as_ptr().add(first).cast::<Line>() })
}

/// Read once per packet, so that the table in force and the row width belong together.
#[inline(always)]
pub fn control() -> Result<&'static Control, Fault> {
    CLASS_CONTROL.get(0).ok_or(Fault::NoCounter)
}

/// The container slot that a lookup of a local address has found, on an interface with these flags.
#[inline(always)]
pub fn slot_of(found: Option<&u32>, flags: u32) -> Result<u32, Fault> {
    let is_uplink = flags & interface_flags::UPLINK != 0;
    match found {
        // An address on an uplink is on no shared interface, and the other way round: the same packet passes both.
        Some(&value) if (value & ADDRESS_ON_UPLINK != 0) == is_uplink => slot_in(value),
        _ if is_uplink => Err(Fault::NotTheNodes),
        _ => Err(Fault::NoContainer),
    }
}

/// The container slot in the value of a local address, wherever it is.
#[inline(always)]
pub fn slot_in(value: u32) -> Result<u32, Fault> {
    match value & !ADDRESS_ON_UPLINK {
        ADDRESS_WITHOUT_SLOT => Err(Fault::ContainerTableFull),
        slot => Ok(slot),
    }
}
