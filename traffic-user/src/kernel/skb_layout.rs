//! Offsets of fields in the kernel's `sk_buff` that `__sk_buff` does not offer, from the running kernel's
//! BTF.

use std::{collections::HashMap, path::Path};

use traffic_common::gso::{ENUMERATORS, SkbLayout};

use super::btf::{Btf, SEC_PATH, byte_offset};

/// The BTF of the running kernel.
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why the layout is not known. The program then uses the plain segmentation rule and counts these packets as
/// estimated.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The kernel's BTF cannot be read.
    #[error("cannot read {VMLINUX}: {0}")]
    Read(#[from] std::io::Error),
    /// The file is not valid BTF.
    #[error("{VMLINUX} is not valid BTF: {0}")]
    Format(&'static str),
    /// A structure or member is missing or of an unexpected kind.
    #[error("the kernel's BTF has no usable {0}")]
    Missing(&'static str),
    /// The kernel refuses a program that reads its memory, but not the one that does not.
    #[error(
        "this kernel does not let programs read its memory (lockdown=confidentiality, or built without \
         BPF_EVENTS)"
    )]
    Helper,
    /// A segmentation type has another number in this kernel.
    #[error("{name} is {found:#x} in this kernel, not {expected:#x}")]
    Enumerator {
        /// Name of the enumerator.
        name: &'static str,
        /// The kernel's number.
        found: u32,
        /// The number that the program was built with.
        expected: u32,
    },
}

/// Returns the layout of the running kernel.
///
/// # Errors
/// When the kernel has no BTF, or the BTF lacks a structure or member.
pub fn of_running_kernel() -> Result<SkbLayout, LayoutError> {
    Ok(SkbLayout { interleaves: interleaves().into(), ..parse(&std::fs::read(Path::new(VMLINUX))?)? })
}

/// What the program may assume where the layout is unknown.
pub fn unknown() -> SkbLayout {
    SkbLayout { interleaves: interleaves().into(), ..SkbLayout::default() }
}

/// Whether two programs can interleave on one CPU: on PREEMPT_RT, where disabling bottom halves does not keep
/// others from running (from 6.18 without `PREEMPT_RT_NEEDS_BH_LOCK`; atomic additions are right on earlier kernels
/// too).
fn interleaves() -> bool {
    is_realtime(&rustix::system::uname().version().to_string_lossy())
}

/// Whether a kernel's version, such as `#1 SMP PREEMPT_RT Debian 7.3.4-1`, is that of a PREEMPT_RT kernel.
/// `/sys/kernel/realtime` only exists with the patches from before this was part of Linux.
fn is_realtime(version: &str) -> bool {
    version.contains("PREEMPT_RT") || version.contains("PREEMPT RT")
}

/// Returns the offset of the first value in the kernel's array maps.
///
/// # Errors
/// As [`of_running_kernel`].
pub fn array_value_offset() -> Result<u32, LayoutError> {
    let data = std::fs::read(Path::new(VMLINUX))?;
    let members = Btf::new(&data)?.members("bpf_array")?;
    byte_offset(&members, "value")
}

/// Returns the layout that BTF data describes.
///
/// # Errors
/// When the data is not BTF, or lacks a structure or member.
fn parse(data: &[u8]) -> Result<SkbLayout, LayoutError> {
    let btf = Btf::new(data)?;
    let buff = btf.members("sk_buff")?;
    let shared = btf.members("skb_shared_info")?;
    let of = byte_offset;
    for (name, expected) in ENUMERATORS {
        match btf.enumerators.get(name).copied() {
            Some(found) if found != expected => {
                return Err(LayoutError::Enumerator { name, found, expected });
            }
            // An older kernel may lack a segmentation type. No packet has that type then.
            _ => {}
        }
    }
    // Missing only where the kernel was built without the actions of tc, and so without redirects.
    let skip_bit = buff.get("tc_skip_classify").copied();
    Ok(SkbLayout {
        known: 1,
        head: of(&buff, "head")?,
        data: of(&buff, "data")?,
        end: of(&buff, "end")?,
        inner_transport_header: of(&buff, "inner_transport_header")?,
        gso_type: of(&shared, "gso_type")?,
        transport_header: of(&buff, "transport_header")?,
        network_header: of(&buff, "network_header")?,
        tc_skip_classify: skip_bit.map_or(0, |bit| bit / 8),
        tc_skip_classify_mask: skip_bit.map_or(0, |bit| 1 << (bit % 8)),
        // The only user of this structure removes the header.
        jumbo_is_removed: btf.structs_by_name.contains_key("hop_jumbo_hdr").into(),
        interleaves: 0,
        ..ipsec(&btf, &buff).unwrap_or_default()
    })
}

/// Where the record of decrypted packets is. `None` where the kernel was built without IPsec.
fn ipsec(btf: &Btf<'_>, buff: &HashMap<&str, u32>) -> Option<SkbLayout> {
    let id = *btf.enumerators.get(SEC_PATH)?;
    let [extension, path, offload] =
        ["skb_ext", "sec_path", "xfrm_offload"].map(|name| btf.members(name).ok());
    let (extension, path, offload) = (extension?, path?, offload?);
    let of = |members, name| byte_offset(members, name).ok();
    Some(SkbLayout {
        sec_path_mask: 1_u32.checked_shl(id).filter(|&mask| mask < 1 << u8::BITS)?,
        active_extensions: of(buff, "active_extensions")?,
        extensions: of(buff, "extensions")?,
        sec_path_at: of(&extension, "offset")? + id,
        sec_path_len: of(&path, "len")?,
        sec_path_olen: of(&path, "olen")?,
        sec_path_flags: of(&path, "ovec")? + of(&offload, "flags")?,
        ..SkbLayout::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realtime_kernel_is_known_by_its_version() {
        assert!(is_realtime("#1 SMP PREEMPT_RT Debian 7.3.4-1~bpo13+1 (2026-11-15)"));
        assert!(is_realtime("#1 SMP PREEMPT RT Debian 4.19.316-1"));
        for version in
            ["#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1", "#1 SMP Debian 5.10.1", "#1 SMP PREEMPT", ""]
        {
            assert!(!is_realtime(version), "{version}");
        }
    }

    #[test]
    fn invalid_btf_is_refused_without_a_panic() {
        assert!(matches!(parse(b""), Err(LayoutError::Format(_))));
        assert!(matches!(parse(&[0; 64]), Err(LayoutError::Format(_))));
        let mut cut = 0x0001_eb9f_u32.to_ne_bytes().to_vec();
        cut.extend(24_u32.to_ne_bytes());
        cut.extend([0xff; 16]);
        assert!(matches!(parse(&cut), Err(LayoutError::Format(_))));
    }

    /// The kernel that runs the tests must have BTF: packet tests depend on it.
    #[test]
    fn the_layout_of_the_running_kernel_is_found() {
        let layout = of_running_kernel().unwrap();
        assert_eq!(layout.known, 1);
        // `data` has followed `head` in every kernel since 2009. The other offsets only have to be plausible.
        assert_eq!(layout.data, layout.head + 8);
        assert!(layout.end < layout.head && layout.inner_transport_header < layout.end);
        assert!(layout.gso_type < 64);
        assert!(layout.transport_header < layout.head && layout.network_header < layout.head);
        // The record of decrypted packets: its bit, and plausible positions.
        assert!(layout.sec_path_mask.is_power_of_two() && layout.sec_path_mask < 256);
        assert!(layout.extensions > layout.head && layout.active_extensions < layout.extensions);
        assert!(layout.sec_path_at >= 4 && layout.sec_path_at < 16);
        assert_eq!((layout.sec_path_len, layout.sec_path_olen), (0, 4));
        assert!(layout.sec_path_flags > 8);
        assert!(layout.tc_skip_classify < layout.head && layout.tc_skip_classify_mask.is_power_of_two());
    }

    #[test]
    fn the_values_of_an_array_follow_its_header() {
        let offset = array_value_offset().unwrap();
        assert!((128..448).contains(&offset) && offset.is_multiple_of(8), "{offset}");
    }
}
