//! What the programs on tracepoints know of the running kernel: offsets in its structures, from its BTF.

use traffic_common::DropLayout;

/// What the loader knows of the running kernel. Read-only data, frozen before load.
#[unsafe(no_mangle)]
pub static DROP_LAYOUT: DropLayout = DropLayout {
    number: 0,
    namespace_inode: 0,
    has_reason: 0,
    has_places: 0,
    qdisc_subsystem: 0,
    jumbo_is_removed: 0,
    skb_len: 0,
    skb_data_len: 0,
    skb_head: 0,
    skb_data: 0,
    skb_end: 0,
    skb_network_header: 0,
    skb_transport_header: 0,
    skb_inner_transport_header: 0,
    skb_protocol: 0,
    skb_iif: 0,
    skb_dev: 0,
    skb_pkt_len: 0,
    skb_tc_at_ingress: 0,
    skb_tc_at_ingress_mask: 0,
    skb_redirected: 0,
    skb_redirected_mask: 0,
    skb_from_ingress: 0,
    skb_from_ingress_mask: 0,
    skb_pkt_type: 0,
    skb_pkt_type_shift: 0,
    net_device_ifindex: 0,
    net_device_net: 0,
    net_inum: 0,
    shared_gso_size: 0,
    shared_gso_segs: 0,
    shared_gso_type: 0,
};

/// Reads one field of [`DROP_LAYOUT`] as set by the loader. Each by itself: of a copy on the stack, the verifier
/// would not know that it is a constant.
macro_rules! of_kernel {
    ($field:ident) => {
        // SAFETY: a valid static; volatile because the loader replaces its bytes, which the compiler does not
        // see.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel_layout::DROP_LAYOUT.$field) }
    };
}
pub(crate) use of_kernel;
