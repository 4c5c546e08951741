//! Changes the object's type information (BTF) so that the kernel accepts it, and so that its paths are the same
//! on every machine.
//!
//! The linker emits two types of Rust's globals that the kernel refuses. Then it refuses all type
//! information, and maps cannot be created. The first is a union whose name has angle brackets
//! (`MaybeUninit<u8>`); the loader corrects such names of structures, but not of unions. The second is `()`
//! as an integer of zero bytes. The union loses its name. The integer gets one byte, which overlaps the next
//! value and is never read.
//!
//! The format is described in <https://docs.kernel.org/bpf/btf.html>.

use std::collections::HashMap;

use anyhow::{Context as _, Result, anyhow};

/// `BTF_KIND_INT`
const KIND_INT: u32 = 1;
/// `BTF_KIND_UNION`
const KIND_UNION: u32 = 5;
/// One byte, in the encoding of an integer's last word: encoding, bit offset and number of bits.
const EIGHT_BITS: u32 = 8;

/// Offsets of words in the header of `.BTF`: size of the header, and place and size of the types and the strings
/// behind it.
const HEADER_SIZE: usize = 4;
const TYPES: usize = 8;
const TYPES_SIZE: usize = 12;
const STRINGS: usize = 16;
const STRINGS_SIZE: usize = 20;

/// The parts of `.BTF.ext`: the offset of the word in the header that has its place, and the words of each of its
/// records that are strings. They are the functions, the lines, and the relocations.
const EXTENSION: [(usize, &[usize]); 3] = [(8, &[]), (16, &[1, 2]), (24, &[2])];

/// The strings of the type information with other paths, and where each of them is now.
pub struct Strings {
    table: Vec<u8>,
    moved: HashMap<u32, u32>,
}

impl Strings {
    /// Replaces the strings for which `place` has another.
    ///
    /// # Errors
    /// When the type information has no strings.
    pub fn placed(btf: &[u8], place: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let start = word(btf, HEADER_SIZE)? + word(btf, STRINGS)?;
        let (start, size) = (usize::try_from(start)?, usize::try_from(word(btf, STRINGS_SIZE)?)?);
        let old = btf.get(start..start + size).and_then(|old| old.strip_suffix(&[0]));
        let (mut table, mut moved, mut at) = (Vec::new(), HashMap::new(), 0);
        for text in old.context("the type information has no strings")?.split(|&byte| byte == 0) {
            moved.insert(at, u32::try_from(table.len())?);
            match std::str::from_utf8(text).ok().and_then(&place) {
                Some(path) => table.extend_from_slice(path.as_bytes()),
                None => table.extend_from_slice(text),
            }
            table.push(0);
            at += u32::try_from(text.len())? + 1;
        }
        Ok(Self { table, moved })
    }

    /// Replaces the place of a string, which is the word at an offset.
    fn replace(&self, data: &mut [u8], at: usize) -> Result<()> {
        let old = word(data, at)?;
        let new = self.moved.get(&old).context("the type information refers into the middle of a string")?;
        put(data, at, *new);
        Ok(())
    }

    /// Whether the kernel accepts the name at this place. It also accepts an empty name.
    fn is_identifier(&self, at: u32) -> bool {
        let name = self.table.get(at as usize..).unwrap_or_default();
        name.iter().take_while(|&&byte| byte != 0).all(|&byte| byte == b'_' || byte.is_ascii_alphanumeric())
    }
}

/// The corrected contents of `.BTF` with these strings.
///
/// # Errors
/// When they violate the format.
pub fn corrected(btf: &[u8], strings: &Strings) -> Result<Vec<u8>> {
    let header = word(btf, HEADER_SIZE)?;
    let start = usize::try_from(header + word(btf, TYPES)?)?;
    let end = start + usize::try_from(word(btf, TYPES_SIZE)?)?;
    let mut new = btf.get(..end).context("the type information is truncated")?.to_vec();
    correct_types(&mut new[start..], strings)?;
    put(&mut new, STRINGS, u32::try_from(end)? - header);
    put(&mut new, STRINGS_SIZE, u32::try_from(strings.table.len())?);
    new.extend_from_slice(&strings.table);
    Ok(new)
}

/// Walks the consecutive types.
fn correct_types(types: &mut [u8], strings: &Strings) -> Result<()> {
    let mut at = 0;
    while at < types.len() {
        strings.replace(types, at)?;
        let info = word(types, at + 4)?;
        let count = usize::try_from(info & 0xffff)?;
        let kind = info >> 24 & 0x1f;
        if kind == KIND_INT && word(types, at + 8)? == 0 {
            put(types, at + 8, 1);
            put(types, at + 12, EIGHT_BITS);
        }
        if kind == KIND_UNION && !strings.is_identifier(word(types, at)?) {
            put(types, at, 0);
        }
        // The size of what follows the type, and the size of each part that begins with a name.
        let (size, named) = match kind {
            // Integer, variable, declaration tag.
            KIND_INT | 14 | 17 => (4, None),
            // Array.
            3 => (12, None),
            // Structure, union, 64-bit enumeration.
            4 | KIND_UNION | 19 => (count * 12, Some(12)),
            // Data section.
            15 => (count * 12, None),
            // Enumeration, function prototype.
            6 | 13 => (count * 8, Some(8)),
            _ => (0, None),
        };
        at += 12;
        for part in named.map(|step| (at..at + size).step_by(step)).into_iter().flatten() {
            strings.replace(types, part)?;
        }
        at += size;
    }
    Ok(())
}

/// Corrects the contents of `.BTF.ext`, which refer to the strings.
///
/// # Errors
/// When they violate the format.
pub fn correct_extension(extension: &mut [u8], strings: &Strings) -> Result<()> {
    let header = usize::try_from(word(extension, HEADER_SIZE)?)?;
    for (place, names) in EXTENSION {
        // An older header ends before the last part.
        if place + 8 > header {
            continue;
        }
        let start = header + usize::try_from(word(extension, place)?)?;
        let end = start + usize::try_from(word(extension, place + 4)?)?;
        if start == end {
            continue;
        }
        let record = usize::try_from(word(extension, start)?)?;
        let mut at = start + 4;
        while at < end {
            strings.replace(extension, at)?;
            let count = usize::try_from(word(extension, at + 4)?)?;
            at += 8;
            for _ in 0..count {
                for name in names {
                    strings.replace(extension, at + 4 * name)?;
                }
                at += record;
            }
        }
    }
    Ok(())
}

fn word(data: &[u8], at: usize) -> Result<u32> {
    let bytes = data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_le_bytes).ok_or_else(|| anyhow!("the type information is truncated"))
}

fn put(data: &mut [u8], at: usize, value: u32) {
    data[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
