//! The types of the running kernel, from its BTF.
//!
//! This reads only as much of the format (<https://docs.kernel.org/bpf/btf.html>) as it needs: the sequence
//! of types, the members of structures, and some enumerators.

use std::collections::HashMap;

use super::skb_layout::LayoutError;

/// The extension of a `sk_buff` that says how it was decrypted.
pub(super) const SEC_PATH: &str = "SKB_EXT_SEC_PATH";

/// The number of the helper that writes formatted text, from 5.13.
pub(super) const SNPRINTF: &str = "BPF_FUNC_snprintf";

/// The enumerators that are kept: segmentation types, [`SEC_PATH`], reasons of drops, and [`SNPRINTF`].
const ENUMERATOR_PREFIXES: [&str; 7] = [
    "SKB_GSO_",
    SEC_PATH,
    "SKB_DROP_REASON_",
    "QDISC_DROP_",
    "SKB_NOT_DROPPED_YET",
    "SKB_CONSUMED",
    SNPRINTF,
];

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// The offset in bytes of a member that is no bit field.
///
/// # Errors
/// When there is no such member.
pub(super) fn byte_offset(members: &HashMap<&str, u32>, name: &'static str) -> Result<u32, LayoutError> {
    let bits = members.get(name).copied().filter(|bits| bits.is_multiple_of(8));
    bits.map(|bits| bits / 8).ok_or(LayoutError::Missing(name))
}

/// The member list of a structure or union.
struct Aggregate {
    /// Offset of the members in the type section.
    members_at: usize,
    count: usize,
    /// Whether member offsets share their word with a bit-field size.
    bit_fields: bool,
}

/// The types of a kernel.
pub(super) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    aggregates: HashMap<u32, Aggregate>,
    pub(super) structs_by_name: HashMap<&'a str, u32>,
    /// The enumerators whose names begin with one of [`ENUMERATOR_PREFIXES`].
    pub(super) enumerators: HashMap<&'a str, u32>,
}

impl<'a> Btf<'a> {
    /// Reads BTF data.
    ///
    /// # Errors
    /// When it is not in the format.
    pub(super) fn new(data: &'a [u8]) -> Result<Self, LayoutError> {
        const MAGIC: u32 = 0x0000_eb9f;
        let short = || LayoutError::Format("it is too short");
        let header_len = word(data, 4).ok_or_else(short)? as usize;
        // In the other byte order, the magic number differs.
        if word(data, 0).is_none_or(|first| first & 0xffff != MAGIC) {
            return Err(LayoutError::Format("the magic number is missing"));
        }
        let section = |at: usize| -> Option<&'a [u8]> {
            let start = header_len + word(data, at)? as usize;
            data.get(start..start + word(data, at + 4)? as usize)
        };
        let (Some(types), Some(strings)) = (section(8), section(16)) else { return Err(short()) };
        let mut btf = Self {
            types,
            strings,
            aggregates: HashMap::new(),
            structs_by_name: HashMap::new(),
            enumerators: HashMap::new(),
        };
        btf.index()?;
        Ok(btf)
    }

    /// Walks all types once. Type ids count from 1 in the order of the section.
    fn index(&mut self) -> Result<(), LayoutError> {
        let short = || LayoutError::Format("a type is cut short");
        let (mut at, mut id) = (0, 1);
        while at < self.types.len() {
            let name = word(self.types, at).ok_or_else(short)?;
            let info = word(self.types, at + 4).ok_or_else(short)?;
            let (kind, count, flag) = ((info >> 24) & 0x1f, (info & 0xffff) as usize, info >> 31 == 1);
            at += 12;
            let extra = match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION => count * 12,
                KIND_ENUM | KIND_FUNC_PROTO => count * 8,
                KIND_DATASEC | KIND_ENUM64 => count * 12,
                _ => 0,
            };
            match kind {
                KIND_STRUCT | KIND_UNION => {
                    if let Some(name) =
                        self.string(name).filter(|name| !name.is_empty() && kind == KIND_STRUCT)
                    {
                        self.structs_by_name.insert(name, id);
                    }
                    self.aggregates.insert(id, Aggregate { members_at: at, count, bit_fields: flag });
                }
                KIND_ENUM => {
                    for member in 0..count {
                        let name = word(self.types, at + member * 8).ok_or_else(short)?;
                        let value = word(self.types, at + member * 8 + 4).ok_or_else(short)?;
                        let name = self
                            .string(name)
                            .filter(|name| ENUMERATOR_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
                        if let Some(name) = name {
                            self.enumerators.insert(name, value);
                        }
                    }
                }
                _ => {}
            }
            at += extra;
            id += 1;
        }
        Ok(())
    }

    /// Returns the offsets in bits of a structure's members, including those of unnamed inner structures and
    /// unions.
    ///
    /// # Errors
    /// When there is no such structure.
    pub(super) fn members(&self, name: &'static str) -> Result<HashMap<&'a str, u32>, LayoutError> {
        let id = *self.structs_by_name.get(name).ok_or(LayoutError::Missing(name))?;
        let mut found = HashMap::new();
        self.collect(id, 0, 0, &mut found);
        Ok(found)
    }

    fn collect(&self, id: u32, base_bits: u32, depth: u32, found: &mut HashMap<&'a str, u32>) {
        const MAX_NESTING: u32 = 16;
        let Some(aggregate) = self.aggregates.get(&id).filter(|_| depth < MAX_NESTING) else { return };
        for member in 0..aggregate.count {
            let at = aggregate.members_at + member * 12;
            let (Some(name), Some(member_type), Some(offset)) =
                (word(self.types, at), word(self.types, at + 4), word(self.types, at + 8))
            else {
                return;
            };
            let bits = base_bits + if aggregate.bit_fields { offset & 0x00ff_ffff } else { offset };
            match self.string(name) {
                Some("") => self.collect(member_type, bits, depth + 1, found),
                Some(name) => {
                    found.entry(name).or_insert(bits);
                }
                None => {}
            }
        }
    }

    fn string(&self, offset: u32) -> Option<&'a str> {
        let rest = self.strings.get(offset as usize..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
}
