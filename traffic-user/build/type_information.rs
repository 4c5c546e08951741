//! Changes the object's type information (BTF) so that the kernel accepts it.
//!
//! The linker emits two types of Rust's globals that the kernel refuses. Then it refuses all type
//! information, and maps cannot be created. The first is a union whose name has angle brackets
//! (`MaybeUninit<u8>`); the loader corrects such names of structures, but not of unions. The second is `()`
//! as an integer of zero bytes. The union loses its name. The integer gets one byte, which overlaps the next
//! value and is never read.

use std::{fs, path::Path};

use anyhow::{Context as _, anyhow};
use object::{Object as _, ObjectSection as _};

/// `BTF_KIND_INT`
const KIND_INT: u32 = 1;
/// `BTF_KIND_UNION`
const KIND_UNION: u32 = 5;
/// One byte, in the encoding of an integer's last word: encoding, bit offset and number of bits.
const EIGHT_BITS: u32 = 8;

/// Corrects the object in place.
///
/// # Errors
/// When the file is not an object, or its type information violates the format.
pub fn correct(path: &Path) -> anyhow::Result<()> {
    let mut data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (start, len) = {
        let object = object::File::parse(data.as_slice())?;
        let section = object.section_by_name(".BTF").context("the object has no type information")?;
        section.file_range().context("the type information is empty")?
    };
    let start = usize::try_from(start)?;
    patch(&mut data[start..start + usize::try_from(len)?])?;
    fs::write(path, data).with_context(|| format!("cannot write {}", path.display()))
}

/// Walks the consecutive types. The format is described in <https://docs.kernel.org/bpf/btf.html>.
fn patch(btf: &mut [u8]) -> anyhow::Result<()> {
    let header = word(btf, 4)?;
    let types = usize::try_from(header + word(btf, 8)?)?;
    let strings = usize::try_from(header + word(btf, 16)?)?;
    let end = types + usize::try_from(word(btf, 12)?)?;
    let mut at = types;
    while at < end {
        let info = word(btf, at + 4)?;
        let count = usize::try_from(info & 0xffff)?;
        let kind = info >> 24 & 0x1f;
        if kind == KIND_INT && word(btf, at + 8)? == 0 {
            btf[at + 8..at + 12].copy_from_slice(&1_u32.to_ne_bytes());
            btf[at + 12..at + 16].copy_from_slice(&EIGHT_BITS.to_ne_bytes());
        }
        if kind == KIND_UNION && !is_identifier(btf, strings + usize::try_from(word(btf, at)?)?) {
            btf[at..at + 4].fill(0);
        }
        at += 12
            + match kind {
                // Integer, variable, declaration tag.
                KIND_INT | 14 | 17 => 4,
                // Array.
                3 => 12,
                // Structure, union, data section, 64-bit enumeration.
                4 | KIND_UNION | 15 | 19 => count * 12,
                // Enumeration, function prototype.
                6 | 13 => count * 8,
                _ => 0,
            };
    }
    Ok(())
}

/// Whether the kernel accepts the name at this offset. It also accepts an empty name.
fn is_identifier(btf: &[u8], at: usize) -> bool {
    let name = btf.get(at..).unwrap_or_default();
    name.iter().take_while(|&&byte| byte != 0).all(|&byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

fn word(data: &[u8], at: usize) -> anyhow::Result<u32> {
    let bytes = data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_ne_bytes).ok_or_else(|| anyhow!("the type information is truncated"))
}
