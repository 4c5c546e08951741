//! Decodes netlink messages into interfaces, addresses, filters and changes. Pure.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use traffic_common::{Direction, InterfaceStatistics};
use traffic_model::notation::name_text;

use super::{
    interface::{
        BpfFilter, ForeignFilter, HookQdisc, InterfaceEvent, NetInterface, Xdp, XdpMode, is_machines_end,
    },
    link_type,
    message::{Message, attribute, attributes, u16_at, u32_at, u64_at},
};

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWQDISC: u16 = 36;
pub(super) const RTM_GETQDISC: u16 = 38;
pub(super) const RTM_NEWTFILTER: u16 = 44;
pub(super) const RTM_DELTFILTER: u16 = 45;
pub(super) const RTM_GETTFILTER: u16 = 46;

/// Bytes of `struct ifinfomsg`.
pub(super) const IFINFOMSG: usize = 16;
/// Bytes of `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;
/// Bytes of `struct tcmsg`.
pub(super) const TCMSG: usize = 20;

const IFLA_ADDRESS: u16 = 1;
const IFLA_BROADCAST: u16 = 2;
pub(super) const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_QDISC: u16 = 6;
const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_VNET_HDR: u16 = 5;
const IFLA_STATS64: u16 = 23;
const IFLA_LINK_NETNSID: u16 = 37;
/// Where an interface moved to.
const IFLA_NEW_NETNSID: u16 = 45;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_CARRIER_UP_COUNT: u16 = 47;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

pub(super) const TCA_KIND: u16 = 1;
pub(super) const TCA_OPTIONS: u16 = 2;
pub(super) const TCA_BPF_FD: u16 = 6;
pub(super) const TCA_BPF_NAME: u16 = 7;
pub(super) const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_INGRESS_BLOCK: u16 = 13;
const TCA_EGRESS_BLOCK: u16 = 14;

/// `AF_UNSPEC`: the family of a message about an interface itself. A bridge reports its ports under
/// `AF_BRIDGE`, and the end of a membership as `RTM_DELLINK`, while the interface lives on.
const AF_UNSPEC: u8 = 0;
/// `ARPHRD_ETHER`
const ARPHRD_ETHER: u16 = 1;
static KERNEL: LazyLock<(u32, u32)> = LazyLock::new(link_type::running_kernel);
/// `IFF_UP | IFF_LOWER_UP`
const CARRIER: u32 = 0x1 | 0x1_0000;

/// Text of the kernel, up to its terminating zero. Different names stay different.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    name_text(&bytes[..end])
}

/// The interface that a `RTM_NEWLINK` message describes; `None` for messages about something else.
pub(super) fn interface(message: &Message<'_>) -> Option<NetInterface> {
    if message.kind == RTM_NEWLINK { described(message.body) } else { None }
}

/// The interface in the body of a message about it.
fn described(body: &[u8]) -> Option<NetInterface> {
    if *body.first()? != AF_UNSPEC {
        return None;
    }
    let link_type = u16_at(body, 2)?;
    let mut broadcast: &[u8] = &[];
    let mut interface = NetInterface {
        index: u32_at(body, 4)?,
        ethernet: link_type == ARPHRD_ETHER,
        has_carrier: u32_at(body, 8)? & CARRIER == CARRIER,
        ..NetInterface::default()
    };
    for (kind, value) in attributes(body.get(IFINFOMSG..)?) {
        match kind {
            IFLA_IFNAME => interface.name = text(value),
            IFLA_ADDRESS => interface.mac = value.try_into().ok(),
            IFLA_BROADCAST => broadcast = value,
            IFLA_LINK => interface.peer = u32_at(value, 0),
            IFLA_LINK_NETNSID => {
                interface.peer_is_elsewhere = true;
                interface.peer_namespace = u32_at(value, 0).map(u32::cast_signed);
            }
            IFLA_MASTER => interface.master = u32_at(value, 0),
            IFLA_LINKINFO => {
                interface.kind = attribute(value, IFLA_INFO_KIND).map(text).unwrap_or_default();
                interface.has_offload_header = interface.kind == "tun" && has_offload_header(value);
            }
            IFLA_CARRIER_UP_COUNT => interface.carrier_ups = u32_at(value, 0).unwrap_or(0),
            IFLA_XDP => interface.xdp = xdp(value),
            IFLA_QDISC => interface.queue = text(value),
            IFLA_STATS64 => {
                interface.statistics = statistics(value);
                interface.send_drops = send_drops(value);
            }
            IFLA_PROP_LIST => {
                let names = attributes(value).filter(|(kind, _)| *kind == IFLA_ALT_IFNAME);
                interface.alternative_names = names.map(|(_, name)| text(name)).collect();
            }
            _ => {}
        }
    }
    interface.obstacle = link_type::obstacle(link_type, broadcast, *KERNEL);
    if is_machines_end(&interface.kind) {
        for values in [&mut interface.statistics.packets, &mut interface.statistics.bytes] {
            values.swap(0, 1);
        }
    }
    (!interface.name.is_empty()).then_some(interface)
}

/// The XDP program on an interface. `XDP_ATTACHED_*` says where.
fn xdp(value: &[u8]) -> Option<Xdp> {
    let mode = match attribute(value, IFLA_XDP_ATTACHED)?.first()? {
        0 => return None,
        1 => XdpMode::Native,
        2 => XdpMode::Generic,
        3 => XdpMode::Offloaded,
        _ => XdpMode::Several,
    };
    let program = attribute(value, IFLA_XDP_PROG_ID).and_then(|id| u32_at(id, 0));
    Some(Xdp { mode, program: program.unwrap_or(0) })
}

/// Whether a tun or tap device has a vnet header. `tun` is the only kind whose data are looked at.
fn has_offload_header(info: &[u8]) -> bool {
    let data = attribute(info, IFLA_INFO_DATA).and_then(|data| attribute(data, IFLA_TUN_VNET_HDR));
    data.and_then(|value| value.first()).is_some_and(|&value| value != 0)
}

/// `struct rtnl_link_stats64` begins with packets received and sent, then their bytes. The host receives what
/// the container sends.
fn statistics(value: &[u8]) -> InterfaceStatistics {
    let at = |position: usize| u64_at(value, position * 8).unwrap_or(0);
    let by_direction = |incoming, outgoing| {
        let mut values = [0; 2];
        values[Direction::In as usize] = incoming;
        values[Direction::Out as usize] = outgoing;
        values
    };
    InterfaceStatistics { packets: by_direction(at(1), at(0)), bytes: by_direction(at(3), at(2)) }
}

/// Behind them come errors received and sent, then drops likewise.
fn send_drops(value: &[u8]) -> u64 {
    let at = |position: usize| u64_at(value, position * 8).unwrap_or(0);
    at(5).saturating_add(at(7))
}

/// The node's own address in a `RTM_NEWADDR` message. Where both ends of a point-to-point interface have one,
/// the node's is the local one.
pub(super) fn address(message: &Message<'_>) -> Option<IpAddr> {
    if message.kind != RTM_NEWADDR {
        return None;
    }
    let rest = message.body.get(IFADDRMSG..)?;
    let value = attribute(rest, IFA_LOCAL).or_else(|| attribute(rest, IFA_ADDRESS))?;
    match value.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

/// Index of the interface and kind of a qdisc.
pub(super) fn qdisc(message: &Message<'_>) -> Option<(u32, String)> {
    if message.kind != RTM_NEWQDISC {
        return None;
    }
    let kind = attribute(message.body.get(TCMSG..)?, TCA_KIND)?;
    Some((u32_at(message.body, 4)?, text(kind)))
}

/// The qdisc of both TC hooks in a `RTM_NEWQDISC` message.
pub(super) fn hook_qdisc(message: &Message<'_>) -> Option<HookQdisc> {
    let (_, kind) = qdisc(message)?;
    let rest = message.body.get(TCMSG..)?;
    let block = |kind| attribute(rest, kind).and_then(|value| u32_at(value, 0)).filter(|&block| block != 0);
    Some(HookQdisc { kind, in_block: block(TCA_EGRESS_BLOCK), out_block: block(TCA_INGRESS_BLOCK) })
}

/// The classifier in a `RTM_NEWTFILTER` message, if it is a BPF program.
pub(super) fn filter(message: &Message<'_>) -> Option<BpfFilter> {
    if message.kind != RTM_NEWTFILTER {
        return None;
    }
    let body = message.body;
    let rest = body.get(TCMSG..)?;
    if attribute(rest, TCA_KIND).map(text)? != "bpf" {
        return None;
    }
    let options = attribute(rest, TCA_OPTIONS)?;
    Some(BpfFilter {
        handle: u32_at(body, 8)?,
        // The upper half of `tcm_info` is the priority.
        priority: u16::try_from(u32_at(body, 16)? >> 16).ok()?,
        name: attribute(options, TCA_BPF_NAME).map(text).unwrap_or_default(),
        program_id: u32_at(attribute(options, TCA_BPF_ID)?, 0)?,
    })
}

/// The filter in a `RTM_NEWTFILTER` message, of whatever kind.
pub(super) fn any_filter(message: &Message<'_>) -> Option<ForeignFilter> {
    if message.kind != RTM_NEWTFILTER {
        return None;
    }
    let rest = message.body.get(TCMSG..)?;
    let name = attribute(rest, TCA_OPTIONS).and_then(|options| attribute(options, TCA_BPF_NAME)).map(text);
    Some(ForeignFilter {
        kind: attribute(rest, TCA_KIND).map(text)?,
        priority: u16::try_from(u32_at(message.body, 16)? >> 16).ok()?,
        handle: u32_at(message.body, 8)?,
        name,
    })
}

/// The change in a message of the event socket; `None` for messages that trafctl does not need.
pub(super) fn event(message: &Message<'_>) -> Option<InterfaceEvent> {
    match message.kind {
        RTM_NEWLINK => interface(message).map(InterfaceEvent::Seen),
        RTM_DELLINK if message.body.first() == Some(&AF_UNSPEC) => {
            let attributes = message.body.get(IFINFOMSG..)?;
            let has_moved = attribute(attributes, IFLA_NEW_NETNSID).is_some();
            let last = described(message.body).map(Box::new);
            u32_at(message.body, 4).map(|index| InterfaceEvent::Gone { index, last, has_moved })
        }
        RTM_NEWADDR | RTM_DELADDR => Some(InterfaceEvent::Addresses),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
