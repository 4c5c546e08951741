//! Tests of the lab itself: `venet0`, taps, and the witnesses of single buffers.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Result;
use etherparse::PacketBuilder;
use traffic_tests::container::{HOST_V4, Mac, introduce};
use traffic_tests::traffic::{
    Superdatagrams, send_raw, tcp_exchange, tcp_transfer, udp_send, udp_send_segmented,
};
use traffic_tests::witness::{Capture, InterfaceStatistics, NftWitness, QdiscWitness};
use traffic_tests::{Lab, RoutedContainer, Venet, VnetHeader};

const MEGABYTE: u64 = 1 << 20;
const MACHINE: Mac = Mac([0x02, 0, 0, 0, 2, 1]);
const SECOND: Duration = Duration::from_secs(1);

fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

fn routed<'a>(venet: &Venet<'a>) -> Result<(RoutedContainer<'a>, RoutedContainer<'a>)> {
    let a = venet.container("301", [10, 3, 0, 1].into(), "fd00:3::1".parse()?)?;
    let b = venet.container("302", [10, 3, 0, 2].into(), "fd00:3::2".parse()?)?;
    Ok((a, b))
}

#[test]
fn venet_passes_tcp_in_super_packets() {
    let lab = Lab::new("venet-tcp").unwrap();
    let venet = lab.venet().unwrap();
    let (a, b) = routed(&venet).unwrap();
    for to in [b.v4(), b.v6()] {
        let out = QdiscWitness::attach(a.namespace(), a.interface()).unwrap();
        let back = QdiscWitness::attach(b.namespace(), b.interface()).unwrap();
        let host = NftWitness::attach(lab.host(), venet.interface()).unwrap();
        let count = tcp_exchange(a.namespace(), b.namespace(), at(to), 20 * MEGABYTE, 2 * MEGABYTE).unwrap();
        let (out, back, host) = (out.read().unwrap(), back.read().unwrap(), host.read().unwrap());
        assert_eq!(
            (out.packets, out.l3_bytes(0)),
            (count.client.segments, count.client.l3_bytes),
            "{count:?}"
        );
        assert_eq!(
            (back.packets, back.l3_bytes(0)),
            (count.server.segments, count.server.l3_bytes),
            "{count:?}"
        );
        // Through the host twice, in buffers larger than packets.
        assert_eq!(host.ingress, host.egress);
        let seen = if to.is_ipv4() { host.ingress.v4 } else { host.ingress.v6 };
        assert!(seen.packets < out.packets / 4, "{host:?} {count:?}");
        assert_eq!(host.ingress.other.packets, 0);
    }
    assert_eq!(venet.lost(), 0);
}

#[test]
fn venet_passes_udp_to_containers_and_to_the_host() {
    let lab = Lab::new("venet-udp").unwrap();
    let venet = lab.venet().unwrap();
    let (mut a, b) = routed(&venet).unwrap();
    let buffers = Superdatagrams { sends: 30, payload_bytes: 10 * 1200, segment_bytes: 1200 };
    for to in [b.v4(), b.v6()] {
        let out = QdiscWitness::attach(a.namespace(), a.interface()).unwrap();
        let plain = udp_send(a.namespace(), b.namespace(), at(to), 300, 700).unwrap();
        let cut = udp_send_segmented(a.namespace(), b.namespace(), at(to), buffers).unwrap();
        assert_eq!((plain.packets_received, cut.packets_received), (300, 300));
        let out = out.read().unwrap();
        assert_eq!(out.packets, plain.packets + cut.packets);
        assert_eq!(out.l3_bytes(0), plain.l3_bytes + cut.l3_bytes);
    }
    tcp_transfer(a.namespace(), lab.host(), at(traffic_tests::venet::HOST_V4.into()), MEGABYTE).unwrap();
    tcp_transfer(lab.host(), a.namespace(), at(a.v6()), MEGABYTE).unwrap();

    a.stop().unwrap();
    assert!(tcp_transfer(lab.host(), a.namespace(), at(a.v4()), 1).is_err());
    a.start().unwrap();
    a.add_address([198, 51, 100, 7].into()).unwrap();
    tcp_transfer(b.namespace(), a.namespace(), at([198, 51, 100, 7].into()), MEGABYTE).unwrap();
    assert_eq!(venet.lost(), 0);
}

#[test]
fn a_test_can_inject_packets_into_venet() {
    let lab = Lab::new("venet-inject").unwrap();
    let venet = lab.venet().unwrap();
    let (a, b) = routed(&venet).unwrap();
    let host = NftWitness::attach(lab.host(), venet.interface()).unwrap();
    let socket = b.namespace().enter(|| Ok(UdpSocket::bind("10.3.0.2:9")?)).unwrap();
    socket.set_read_timeout(Some(SECOND)).unwrap();
    let mut packet = Vec::new();
    // From an address of no container: source addresses are not checked.
    PacketBuilder::ipv4([10, 3, 0, 99], [10, 3, 0, 2], 64)
        .udp(1234, 9)
        .write(&mut packet, &[7; 100])
        .unwrap();
    venet.inject(&packet).unwrap();
    let mut buffer = [0; 200];
    assert_eq!(socket.recv_from(&mut buffer).unwrap(), (100, "10.3.0.99:1234".parse().unwrap()));
    let seen = host.read().unwrap();
    assert_eq!((seen.ingress.v4.packets, seen.ingress.v4.bytes), (1, 128));
    assert_eq!(seen.ingress, seen.egress);

    // Undeliverable packets are counted: the address is routed, but its container is gone.
    drop(a);
    let socket = lab.host().enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?)).unwrap();
    socket.send_to(&[1; 10], "10.3.0.1:9").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(venet.lost(), 1);
}

#[test]
fn tap_frames_arrive_both_ways() {
    let lab = Lab::new("tap").unwrap();
    let tap = lab.tap("vme201.0").unwrap();
    tap.on_bridge(lab.bridge().unwrap(), MACHINE).unwrap();
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse().unwrap()).unwrap();
    let machine = [10, 2, 0, 1];
    a.knows_at(&[machine.into()], MACHINE).unwrap();

    // To the machine: datagrams of the container, which nothing segments on the way.
    let host = QdiscWitness::attach(lab.host(), "vme201.0").unwrap();
    let socket = a.namespace().enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?)).unwrap();
    socket.send_to(&[1; 500], (IpAddr::from(machine), 9)).unwrap();
    let (header, frame) = tap.receive(SECOND).unwrap().unwrap();
    assert_eq!((header.gso_type, frame.len()), (VnetHeader::GSO_NONE, 542));
    assert_eq!(frame[..6], MACHINE.0);
    assert_eq!((host.read().unwrap().packets, host.read().unwrap().bytes), (1, 542));

    // From the machine: a TCP buffer of 20 segments, which reaches the container's interface whole.
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MACHINE.0, a.mac().0)
        .ipv4(machine, [10, 1, 0, 1], 64)
        .tcp(1000, 9, 1, 1000)
        .write(&mut frame, &[3; 20 * 1000])
        .unwrap();
    let before = InterfaceStatistics::read(a.namespace(), "eth0").unwrap();
    let towards = QdiscWitness::attach(lab.host(), a.interface()).unwrap();
    tap.send(VnetHeader::tcp_v4(34, 54, 1000), &frame).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let after = InterfaceStatistics::read(a.namespace(), "eth0").unwrap();
    assert_eq!((after.rx_packets - before.rx_packets, after.rx_bytes - before.rx_bytes), (1, 20_054));
    // A frame from a tap has no segment count when a queue sees it. The byte count is right.
    let towards = towards.read().unwrap();
    assert_eq!((towards.packets, towards.bytes), (0, 20 * 1054));
    // No socket listens: the container reports that to the machine.
    assert_eq!(tap.receive(SECOND).unwrap().unwrap().1.len(), 54);
    assert_eq!(tap.receive(Duration::from_millis(200)).unwrap(), None);
}

#[test]
fn a_tap_sends_every_kind_of_buffer() {
    let lab = Lab::new("tap-gso").unwrap();
    let tap = lab.tap("vme201.0").unwrap();
    tap.with_address("10.2.0.254/24").unwrap();
    tap.knows(&[[10, 2, 0, 1].into()], MACHINE).unwrap();
    let host = NftWitness::attach(lab.host(), "vme201.0").unwrap();
    let send = |header: VnetHeader, tcp: bool, v6: bool| {
        let mut frame = Vec::new();
        let ethernet = PacketBuilder::ethernet2(MACHINE.0, [0x02; 6]);
        let ip = if v6 {
            ethernet.ipv6([1; 16], [2; 16], 64)
        } else {
            ethernet.ipv4([10, 2, 0, 1], [10, 2, 0, 254], 64)
        };
        let payload = [0; 5000];
        if tcp {
            ip.tcp(1, 9, 1, 9).write(&mut frame, &payload)?;
        } else {
            ip.udp(1, 9).write(&mut frame, &payload)?;
        }
        tap.send(header, &frame)
    };
    send(VnetHeader::tcp_v4(34, 54, 1400), true, false).unwrap();
    send(VnetHeader::tcp_v6(54, 74, 1400), true, true).unwrap();
    send(VnetHeader::udp_l4(34, 1400), false, false).unwrap();
    send(VnetHeader::udp_fragments(34, 1400), false, false).unwrap();
    let count = host.read().unwrap();
    assert_eq!((count.ingress.v4.packets, count.ingress.v6.packets), (3, 1));
    assert_eq!((count.ingress.v4.bytes, count.ingress.v6.bytes), (5040 + 5028 + 5028, 5060));
}

#[test]
fn counters_of_nftables_agree_without_offloads() {
    let lab = Lab::new("nft").unwrap();
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse().unwrap()).unwrap();
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse().unwrap()).unwrap();
    introduce(&[&a, &b]).unwrap();
    a.offload(false).unwrap();
    b.offload(false).unwrap();
    let witness = NftWitness::attach(lab.host(), a.interface()).unwrap();
    let inside = NftWitness::attach(a.namespace(), "eth0").unwrap();
    let v4 = tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 3 * MEGABYTE, MEGABYTE).unwrap();
    let v6 = tcp_exchange(a.namespace(), b.namespace(), at(b.v6()), MEGABYTE, 2 * MEGABYTE).unwrap();
    let (host, inside) = (witness.read().unwrap(), inside.read().unwrap());
    for (seen, sent) in [
        (host.ingress.v4, v4.client),
        (host.egress.v4, v4.server),
        (host.ingress.v6, v6.client),
        (host.egress.v6, v6.server),
    ] {
        assert_eq!((seen.packets, seen.bytes), (sent.segments, sent.l3_bytes), "{host:?} {v4:?} {v6:?}");
    }
    assert_eq!((host.ingress, host.egress), (inside.egress, inside.ingress));
    assert_eq!((host.ingress.other.packets, host.egress.other.packets), (0, 0));
}

#[test]
fn a_capture_contains_every_frame() {
    let lab = Lab::new("capture").unwrap();
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse().unwrap()).unwrap();
    let capture = Capture::start(lab.host(), a.interface(), &lab.path("all.pcap"), "").unwrap();
    let sent = udp_send(a.namespace(), lab.host(), at(HOST_V4.into()), 200, 333).unwrap();
    // Two VLAN tags before an unknown EtherType, and a frame that consists of headers only.
    let mut tagged = vec![0xff; 60];
    tagged[12..24].copy_from_slice(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x88, 0xb5, 0, 0]);
    let short = [&[0xff; 6][..], &[0x02; 6], &[0x08, 0x00]].concat();
    send_raw(a.namespace(), "eth0", &tagged).unwrap();
    send_raw(a.namespace(), "eth0", &short).unwrap();
    let packets = capture.stop().unwrap();
    assert_eq!(packets.len(), 202);
    let datagrams = packets.iter().filter(|packet| packet.original_bytes == 333 + 42).count();
    assert_eq!(datagrams as u64, sent.packets);
    assert!(packets.iter().any(|packet| packet.data == tagged));
    assert!(packets.iter().any(|packet| packet.data == short));
    assert!(packets.iter().all(|packet| packet.data.len() == packet.original_bytes));
}

#[test]
fn an_idle_venet_is_silent() {
    let lab = Lab::new("venet-idle").unwrap();
    let venet = lab.venet().unwrap();
    let tap = lab.tap("vme201.0").unwrap();
    let (a, b) = routed(&venet).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let ends = [
        (lab.host(), venet.interface()),
        (lab.host(), tap.interface()),
        (a.namespace(), a.interface()),
        (b.namespace(), b.interface()),
    ];
    for (namespace, interface) in ends {
        let statistics = InterfaceStatistics::read(namespace, interface).unwrap();
        assert_eq!(statistics, InterfaceStatistics::default(), "{interface}");
    }
    // A value that is dropped first must not keep a value alive that is dropped later.
    drop(venet);
    assert!(lab.host().ip("link show dev venet0").is_err());
}
