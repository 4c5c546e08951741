use super::*;
use crate::net::message::{Request, messages};

fn ifinfomsg(family: u8, kind: u16, index: u32) -> Vec<u8> {
    let mut body = vec![family, 0];
    body.extend(kind.to_ne_bytes());
    body.extend(index.to_ne_bytes());
    // `IFF_UP | IFF_BROADCAST | IFF_LOWER_UP` in an announcement of a new interface.
    body.extend((if index == 70_001 { 0x1_0003_u32 } else { 0x3 }).to_ne_bytes());
    body.resize(IFINFOMSG, 0);
    body
}

/// Returns what `decode` makes of a message.
fn decoded<T>(request: Request, decode: impl Fn(&Message<'_>) -> Option<T>) -> Option<T> {
    let bytes = request.finish(0).unwrap();
    messages(&bytes).next().and_then(|message| decode(&message))
}

fn veth(family: u8) -> Request {
    let statistics: Vec<u8> =
        [11_u64, 22, 33, 44, 55, 66, 77, 88].iter().flat_map(|n| n.to_ne_bytes()).collect();
    Request::new(RTM_NEWLINK, 0, &ifinfomsg(family, ARPHRD_ETHER, 70_001))
        // An alias that is not valid UTF-8.
        .attribute(20, b"Caf\xe9\0")
        .attribute(IFLA_IFNAME, b"veth101.0\0")
        .attribute(IFLA_ADDRESS, &[0, 0x18, 0x51, 1, 2, 3])
        .attribute(IFLA_LINK, &9_u32.to_ne_bytes())
        .attribute(IFLA_LINK_NETNSID, &3_u32.to_ne_bytes())
        .attribute(IFLA_MASTER, &5_u32.to_ne_bytes())
        .attribute(IFLA_QDISC, b"noqueue\0")
        .attribute(IFLA_CARRIER_UP_COUNT, &6_u32.to_ne_bytes())
        .nested(IFLA_LINKINFO, &[(IFLA_INFO_KIND, b"veth")])
        .nested(IFLA_PROP_LIST | 0x8000, &[(IFLA_ALT_IFNAME, b"caf\xe9\0"), (IFLA_ALT_IFNAME, b"web\0")])
        .attribute(IFLA_STATS64, &statistics)
        // An attribute cut short must not hide what came before it.
        .attribute(99, &[])
}

#[test]
fn an_interface_is_read_whatever_other_attributes_it_has() {
    let interface = decoded(veth(AF_UNSPEC), interface).unwrap();
    let expected = NetInterface {
        index: 70_001,
        name: "veth101.0".to_owned(),
        alternative_names: vec!["caf\\xe9".to_owned(), "web".to_owned()],
        kind: "veth".to_owned(),
        master: Some(5),
        peer: Some(9),
        peer_is_elsewhere: true,
        peer_namespace: Some(3),
        has_offload_header: false,
        mac: Some([0, 0x18, 0x51, 1, 2, 3]),
        ethernet: true,
        obstacle: None,
        is_uplink: false,
        is_shared_uplink: false,
        has_carrier: true,
        carrier_ups: 6,
        statistics: InterfaceStatistics { packets: [22, 11], bytes: [44, 33] },
        send_drops: 66 + 88,
        queue: "noqueue".to_owned(),
        xdp: None,
    };
    assert_eq!(interface, expected);
    assert_eq!(interface.device(), 0x0018_5101_0203_0009);
    assert!(interface.is_called("web") && interface.is_called("veth101.0") && !interface.is_called("x"));
}

#[test]
fn an_xdp_program_is_named_with_its_place() {
    let with = |attached: u8, id: Option<u32>| {
        let id = id.map(u32::to_ne_bytes);
        let mut data: Vec<(u16, &[u8])> = vec![(IFLA_XDP_ATTACHED, std::slice::from_ref(&attached))];
        data.extend(id.as_ref().map(|id| (IFLA_XDP_PROG_ID, id.as_slice())));
        decoded(veth(AF_UNSPEC).nested(IFLA_XDP, &data), interface).unwrap().xdp.map(|xdp| xdp.to_string())
    };
    assert_eq!(with(0, None), None);
    assert_eq!(with(1, Some(12)).unwrap(), "an XDP program (native, id 12)");
    assert_eq!(with(2, Some(13)).unwrap(), "an XDP program (generic, id 13)");
    assert_eq!(with(3, Some(14)).unwrap(), "an XDP program (offloaded, id 14)");
    assert_eq!(with(4, None).unwrap(), "several XDP programs");
}

#[test]
fn the_other_end_adds_only_what_it_has_more() {
    let end = |index, peer, kind: &str, packets, bytes| NetInterface {
        index,
        peer,
        kind: kind.to_owned(),
        statistics: InterfaceStatistics { packets, bytes },
        ..NetInterface::default()
    };
    let here = || end(7, Some(2), "veth", [5, 60], [500, 6000]);
    let after = |other: NetInterface| {
        let mut here = here();
        here.add_other_end(&other);
        (here.statistics.packets, here.statistics.bytes)
    };
    assert_eq!(after(end(2, Some(7), "veth", [9, 59], [900, 5900])), ([9, 60], [900, 6000]));
    assert_eq!(after(end(7, None, "veth", [9, 61], [900, 6100])), ([9, 61], [900, 6100]));
    // Not its other end: another device has taken the index.
    assert_eq!(after(end(2, Some(8), "veth", [9, 99], [900, 9900])), ([5, 60], [500, 6000]));
    assert_eq!(after(end(2, Some(7), "netkit", [9, 99], [900, 9900])), ([5, 60], [500, 6000]));
}

#[test]
fn a_tap_of_a_hypervisor_is_told_from_a_vpns() {
    let tun = |link_type, vnet_header: u8, master: Option<u32>| {
        let mut data = Vec::new();
        // The type, which is looked at by the link's own type, and the header.
        for (kind, value) in [(3_u16, 2_u8), (IFLA_TUN_VNET_HDR, vnet_header)] {
            data.extend([5, 0]);
            data.extend(kind.to_ne_bytes());
            data.extend([value, 0, 0, 0]);
        }
        let mut request = Request::new(RTM_NEWLINK, 0, &ifinfomsg(0, link_type, 7))
            .attribute(IFLA_IFNAME, b"vnet0\0")
            .nested(IFLA_LINKINFO, &[(IFLA_INFO_KIND, b"tun"), (IFLA_INFO_DATA, &data)]);
        if let Some(master) = master {
            request = request.attribute(IFLA_MASTER, &master.to_ne_bytes());
        }
        decoded(request, interface).unwrap()
    };
    const ARPHRD_NONE: u16 = 0xfffe;
    assert!(tun(ARPHRD_ETHER, 1, None).looks_like_a_containers());
    assert!(tun(ARPHRD_ETHER, 0, Some(5)).looks_like_a_containers());
    assert!(!tun(ARPHRD_ETHER, 0, None).looks_like_a_containers(), "a VPN's tap");
    assert!(!tun(ARPHRD_NONE, 1, None).looks_like_a_containers(), "a VPN's tun");
}

#[test]
fn what_a_machines_own_end_receives_is_in_to_the_machine() {
    let statistics: Vec<u8> = [11_u64, 22, 33, 44].iter().flat_map(|n| n.to_ne_bytes()).collect();
    for (kind, packets) in [("macvtap", [11, 22]), ("ipvtap", [11, 22]), ("macvlan", [22, 11])] {
        let request = Request::new(RTM_NEWLINK, 0, &ifinfomsg(0, ARPHRD_ETHER, 7))
            .attribute(IFLA_IFNAME, b"vm7\0")
            .attribute(IFLA_STATS64, &statistics)
            .nested(IFLA_LINKINFO, &[(IFLA_INFO_KIND, kind.as_bytes())]);
        let interface = decoded(request, interface).unwrap();
        assert_eq!(interface.statistics.packets, packets, "{kind}");
        assert_eq!(interface.is_reversed(), kind != "macvlan");
    }
}

#[test]
fn a_name_that_is_not_utf_8_stays_distinct() {
    let named = |name: &[u8]| {
        let request = Request::new(RTM_NEWLINK, 0, &ifinfomsg(0, 512, 1)).attribute(IFLA_IFNAME, name);
        decoded(request, interface).unwrap().name
    };
    assert_eq!((named(b"v\xe9\0"), named(b"v\xea")), ("v\\xe9".to_owned(), "v\\xea".to_owned()));
}

#[test]
fn messages_of_a_bridge_say_nothing_of_the_interface_itself() {
    const AF_BRIDGE: u8 = 7;
    assert_eq!(decoded(veth(AF_BRIDGE), event), None);
    let gone = |family| Request::new(RTM_DELLINK, 0, &ifinfomsg(family, 1, 7));
    assert_eq!(decoded(gone(AF_BRIDGE), event), None);
    let end = |last, has_moved| Some(InterfaceEvent::Gone { index: 7, last, has_moved });
    assert_eq!(decoded(gone(AF_UNSPEC), event), end(None, false));
    assert_eq!(decoded(gone(AF_UNSPEC).attribute(IFLA_NEW_NETNSID, &[3, 0, 0, 0]), event), end(None, true));
    // The end shows the interface as it was.
    let last = NetInterface { index: 7, name: "v".to_owned(), ethernet: true, ..NetInterface::default() };
    let named = gone(AF_UNSPEC).attribute(IFLA_IFNAME, b"v\0");
    assert_eq!(decoded(named, event), end(Some(Box::new(last)), false));
}

#[test]
fn addresses_are_the_nodes_end_of_a_link() {
    let local = Request::new(RTM_NEWADDR, 0, &[0; IFADDRMSG])
        .attribute(IFA_ADDRESS, &[10, 0, 0, 2])
        .attribute(IFA_LOCAL, &[10, 0, 0, 1]);
    assert_eq!(decoded(local.clone(), address), Some("10.0.0.1".parse().unwrap()));
    assert_eq!(decoded(local, event), Some(InterfaceEvent::Addresses));
    let v6 = Request::new(RTM_NEWADDR, 0, &[0; IFADDRMSG]).attribute(IFA_ADDRESS, &[0xfd; 16]);
    assert_eq!(decoded(v6, address), Some("fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd".parse().unwrap()));
}

#[test]
fn a_filter_is_told_from_others() {
    let mut body = [0; TCMSG];
    body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
    body[8..12].copy_from_slice(&0x7472_u32.to_ne_bytes());
    body[16..20].copy_from_slice(&(1_u32 << 16 | 0x300).to_ne_bytes());
    let with_kind = |kind: &[u8]| {
        Request::new(RTM_NEWTFILTER, 0, &body)
            .attribute(TCA_KIND, kind)
            .nested(TCA_OPTIONS, &[(TCA_BPF_NAME, b"trafctl_egress\0"), (TCA_BPF_ID, &77_u32.to_ne_bytes())])
    };
    let expected =
        BpfFilter { priority: 1, handle: 0x7472, name: "trafctl_egress".to_owned(), program_id: 77 };
    assert_eq!(decoded(with_kind(b"bpf\0"), filter), Some(expected));
    assert_eq!(decoded(with_kind(b"u32\0"), filter), None);
    let qdisc_message = Request::new(RTM_NEWQDISC, 0, &body)
        .attribute(TCA_KIND, b"clsact\0")
        .attribute(TCA_INGRESS_BLOCK, &21_u32.to_ne_bytes())
        .attribute(TCA_EGRESS_BLOCK, &0_u32.to_ne_bytes());
    let expected = HookQdisc { kind: "clsact".to_owned(), in_block: None, out_block: Some(21) };
    assert_eq!(decoded(qdisc_message.clone(), hook_qdisc), Some(expected));
    assert_eq!(decoded(qdisc_message, qdisc), Some((7, "clsact".to_owned())));
}
