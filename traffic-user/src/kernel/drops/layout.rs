//! What the drop program must know of the running kernel: offsets, reasons, and what is missing.

use std::{fs, os::unix::fs::MetadataExt as _};

use anyhow::Context as _;
use traffic_common::{DropLayout, DropReasons, drop_lacks};

use super::reasons;
use crate::kernel::{
    btf::{Btf, SNPRINTF, byte_offset},
    skb_layout::{LayoutError, VMLINUX},
};

/// The network namespace of this process, whose interfaces are counted.
const OWN_NAMESPACE: &str = "/proc/self/ns/net";

/// Reads the layout of the running kernel. The number of the program is left to the caller.
///
/// # Errors
/// When the kernel has no BTF, or lacks a structure or member.
pub(in crate::kernel) fn of_running_kernel() -> anyhow::Result<(DropLayout, DropReasons)> {
    let data = fs::read(VMLINUX).map_err(LayoutError::Read)?;
    let (layout, reasons) = parse(&data)?;
    Ok((DropLayout { namespace_inode: namespace_inode()?, ..layout }, reasons))
}

/// The inode by which the kernel names the network namespace of this process.
///
/// # Errors
/// When it cannot be read.
pub(super) fn namespace_inode() -> anyhow::Result<u32> {
    let metadata = fs::metadata(OWN_NAMESPACE).with_context(|| format!("cannot read {OWN_NAMESPACE}"))?;
    u32::try_from(metadata.ino()).context("the network namespace has an inode of more than 32 bits")
}

fn parse(data: &[u8]) -> Result<(DropLayout, DropReasons), LayoutError> {
    let btf = Btf::new(data)?;
    let [buff, shared, device, net, common, queued] =
        ["sk_buff", "skb_shared_info", "net_device", "net", "ns_common", "qdisc_skb_cb"]
            .map(|name| btf.members(name));
    let (buff, shared, device, net, common, queued) = (buff?, shared?, device?, net?, common?, queued?);
    let of = byte_offset;
    let bit = |name: &'static str| buff.get(name).copied().ok_or(LayoutError::Missing(name));
    let [at_ingress, redirected, from_ingress, pkt_type] =
        ["tc_at_ingress", "redirected", "from_ingress", "pkt_type"].map(bit);
    let (at_ingress, pkt_type) = (at_ingress?, pkt_type?);
    // Without them the kernel has no ifb, and no packet is redirected there.
    let (redirected, from_ingress) = (redirected.ok(), from_ingress.ok());
    let mask = |bit: u32| 1 << (bit % 8);
    let (reasons, qdisc_subsystem) = reasons::of(&btf);
    let layout = DropLayout {
        number: 0,
        namespace_inode: 0,
        has_reason: btf.enumerators.contains_key(reasons::NOT_SPECIFIED).into(),
        has_places: btf.enumerators.contains_key(SNPRINTF).into(),
        qdisc_subsystem,
        // The only user of this structure removes the header.
        jumbo_is_removed: btf.structs_by_name.contains_key("hop_jumbo_hdr").into(),
        skb_len: of(&buff, "len")?,
        skb_data_len: of(&buff, "data_len")?,
        skb_head: of(&buff, "head")?,
        skb_data: of(&buff, "data")?,
        skb_end: of(&buff, "end")?,
        skb_network_header: of(&buff, "network_header")?,
        skb_transport_header: of(&buff, "transport_header")?,
        skb_inner_transport_header: of(&buff, "inner_transport_header")?,
        skb_protocol: of(&buff, "protocol")?,
        skb_iif: of(&buff, "skb_iif")?,
        skb_dev: of(&buff, "dev")?,
        skb_pkt_len: of(&buff, "cb")? + of(&queued, "pkt_len")?,
        skb_tc_at_ingress: at_ingress / 8,
        skb_tc_at_ingress_mask: mask(at_ingress),
        skb_redirected: redirected.map_or(0, |bit| bit / 8),
        skb_redirected_mask: redirected.map_or(0, mask),
        skb_from_ingress: from_ingress.map_or(0, |bit| bit / 8),
        skb_from_ingress_mask: from_ingress.map_or(0, mask),
        skb_pkt_type: pkt_type / 8,
        skb_pkt_type_shift: pkt_type % 8,
        net_device_ifindex: of(&device, "ifindex")?,
        net_device_net: of(&device, "nd_net")?,
        net_inum: of(&net, "ns")? + of(&common, "inum")?,
        shared_gso_size: of(&shared, "gso_size")?,
        shared_gso_segs: of(&shared, "gso_segs")?,
        shared_gso_type: of(&shared, "gso_type")?,
    };
    Ok((layout, reasons))
}

/// What a program with this layout cannot know.
pub(super) const fn lacks(layout: &DropLayout) -> u32 {
    (if layout.has_reason == 0 { drop_lacks::REASONS } else { 0 })
        | (if layout.has_places == 0 { drop_lacks::PLACES } else { 0 })
}

/// What the kernel lacks, in words. Empty if nothing.
pub fn lacks_text(lacks: u32) -> Vec<&'static str> {
    let mut texts = Vec::new();
    if lacks & drop_lacks::REASONS != 0 {
        texts.push(
            "this kernel states no reasons (they came with 5.17), so every drop is in the group `other`",
        );
    }
    if lacks & drop_lacks::PLACES != 0 {
        texts.push(
            "this kernel does not let programs name its functions (from 5.13), so pieces and their whole may both \
             count, and what a full sniffer discards counts as dropped",
        );
    }
    texts
}

#[cfg(test)]
mod tests {
    use traffic_common::{DropGroup, drop_kind};

    use super::*;

    /// The kernel that runs the tests must have BTF and reasons.
    #[test]
    fn the_layout_of_the_running_kernel_is_found() {
        let (layout, reasons) = of_running_kernel().unwrap();
        assert_eq!((layout.has_reason, layout.has_places, lacks(&layout)), (1, 1, 0));
        assert_eq!(layout.skb_data, layout.skb_head + 8);
        assert!(layout.skb_pkt_len < layout.skb_len && layout.skb_pkt_type_shift < 8);
        assert!(layout.skb_tc_at_ingress_mask.is_power_of_two());
        assert!(layout.namespace_inode > 0 && layout.net_inum > 0 && layout.net_device_ifindex > 0);
        assert!(reasons.core.contains(&(DropGroup::Firewall as u8 | drop_kind::BEFORE_EGRESS)));
        assert_ne!(reasons.core[0] & drop_kind::NO_LOSS, 0);
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(lacks_text(0).is_empty());
        assert_eq!(lacks_text(drop_lacks::REASONS | drop_lacks::PLACES).len(), 2);
        assert!(parse(b"no BTF").is_err());
    }
}
