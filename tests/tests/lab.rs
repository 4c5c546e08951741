//! Tests of the lab itself: a witness is trustworthy when it agrees with another.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use traffic_tests::container::introduce;
use traffic_tests::lab::sweep;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::{Superdatagrams, tcp_exchange, tcp_transfer, udp_send, udp_send_segmented};
use traffic_tests::witness::{Capture, InterfaceStatistics, QdiscWitness, StrayResets};
use traffic_tests::{Container, Lab, Namespace};

const MEGABYTE: u64 = 1 << 20;

/// Two containers on the bridge that know each other.
fn pair(lab: &Lab) -> Result<(Container, Container)> {
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    Ok((a, b))
}

fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

#[test]
fn a_namespace_exists_as_long_as_its_guard() {
    let mut namespace = Namespace::new("come-and-go").unwrap();
    let path = namespace.path();
    assert!(path.exists());
    let inside = namespace.enter(|| Ok(std::fs::read_link("/proc/thread-self/ns/net")?)).unwrap();
    assert_ne!(inside, std::fs::read_link("/proc/self/ns/net").unwrap());
    assert!(namespace.ip("link show lo").unwrap().contains("LOOPBACK,UP"));

    namespace.delete().unwrap();
    assert!(namespace.enter(|| Ok(())).is_err());
    namespace.create().unwrap();
    drop(namespace);
    assert!(!path.exists());
}

#[test]
fn a_queue_counts_tcp_as_on_the_wire() {
    let lab = Lab::new("tcp").unwrap();
    let (a, b) = pair(&lab).unwrap();
    for to in [b.v4(), b.v6()] {
        let out = QdiscWitness::attach(a.namespace(), "eth0").unwrap();
        let back = QdiscWitness::attach(b.namespace(), "eth0").unwrap();
        let before = InterfaceStatistics::read(lab.host(), a.interface()).unwrap();
        let count = tcp_exchange(a.namespace(), b.namespace(), at(to), 20 * MEGABYTE, 3 * MEGABYTE).unwrap();
        let after = InterfaceStatistics::read(lab.host(), a.interface()).unwrap();
        let (out, back) = (out.read().unwrap(), back.read().unwrap());

        assert_eq!(out.packets, count.client.segments, "{count:?}");
        assert_eq!(back.packets, count.server.segments, "{count:?}");
        assert_eq!(out.l3_bytes(14), count.client.l3_bytes, "{count:?}");
        assert_eq!(back.l3_bytes(14), count.server.l3_bytes, "{count:?}");
        // The kernel must have passed super-packets, or the test proves little.
        assert!(after.rx_packets - before.rx_packets < out.packets / 4, "{before:?} {after:?}");
    }
}

#[test]
fn only_resets_outside_of_connections_are_stray() {
    let lab = Lab::new("resets").unwrap();
    let (a, b) = pair(&lab).unwrap();
    let resets = StrayResets::watch(b.namespace()).unwrap();
    for (to, expected) in [(b.v4(), (1, 40)), (b.v6(), (2, 40 + 60))] {
        let refused = a.namespace().enter(|| Ok(TcpStream::connect((to, 9)).unwrap_err().kind())).unwrap();
        assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
        let counted = resets.read().unwrap();
        assert_eq!((counted.packets, counted.bytes), expected);
    }
    // An end that closes with unread data resets its connection, and counts that itself.
    let listener = b.namespace().enter(|| Ok(TcpListener::bind(at(b.v4()))?)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = a.namespace().enter(|| Ok(TcpStream::connect(address)?)).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.write_all(b"unread").unwrap();
    while server.peek(&mut [0]).unwrap() == 0 {}
    drop(server);
    client.read(&mut [0]).unwrap_err();
    assert_eq!(resets.read().unwrap().packets, 2);
}

#[test]
fn without_offloads_every_buffer_is_a_packet() {
    let lab = Lab::new("no-gso").unwrap();
    let (a, b) = pair(&lab).unwrap();
    a.offload(false).unwrap();
    b.offload(false).unwrap();
    let before = InterfaceStatistics::read(lab.host(), a.interface()).unwrap();
    let out = QdiscWitness::attach(a.namespace(), "eth0").unwrap();
    let count = tcp_transfer(a.namespace(), b.namespace(), at(b.v4()), 5 * MEGABYTE).unwrap();
    let after = InterfaceStatistics::read(lab.host(), a.interface()).unwrap();
    assert_eq!(out.read().unwrap().packets, count.client.segments);
    assert_eq!(after.rx_packets - before.rx_packets, count.client.segments);
    assert_eq!(after.rx_bytes - before.rx_bytes, count.client.l3_bytes + 14 * count.client.segments);
    assert_eq!(after.tx_packets - before.tx_packets, count.server.segments);
}

#[test]
fn udp_is_counted_as_datagrams_and_as_segments() {
    let lab = Lab::new("udp").unwrap();
    let (a, b) = pair(&lab).unwrap();
    for to in [b.v4(), b.v6()] {
        let out = QdiscWitness::attach(a.namespace(), "eth0").unwrap();
        let plain = udp_send(a.namespace(), b.namespace(), at(to), 500, 1000).unwrap();
        assert_eq!((plain.packets, plain.packets_received), (500, 500));
        assert_eq!(plain.payload_bytes_received, 500_000);
        let first = out.read().unwrap();
        assert_eq!((first.packets, first.l3_bytes(14)), (plain.packets, plain.l3_bytes));

        // 12 full segments, and a last one of 400 bytes.
        let buffers = Superdatagrams { sends: 40, payload_bytes: 12 * 1200 + 400, segment_bytes: 1200 };
        let before = InterfaceStatistics::read(lab.host(), a.interface()).unwrap();
        let cut = udp_send_segmented(a.namespace(), b.namespace(), at(to), buffers).unwrap();
        let after = InterfaceStatistics::read(lab.host(), a.interface()).unwrap();
        assert_eq!((cut.packets, cut.packets_received), (520, 520));
        assert_eq!(cut.payload_bytes_received, cut.payload_bytes);
        let second = out.read().unwrap().since(&first);
        assert_eq!((second.packets, second.l3_bytes(14)), (cut.packets, cut.l3_bytes));
        assert_eq!(after.rx_packets - before.rx_packets, 40);
    }
}

#[test]
fn a_container_stops_and_starts() {
    let lab = Lab::new("restart").unwrap();
    let (mut a, b) = pair(&lab).unwrap();
    a.stop().unwrap();
    assert!(lab.host().ip("link show dev veth101.0").is_err());
    a.start().unwrap();
    a.knows(&b).unwrap();
    let count = tcp_transfer(a.namespace(), b.namespace(), at(b.v6()), MEGABYTE).unwrap();
    assert_eq!(count.payload_bytes, MEGABYTE);
    // The host is a peer like any other.
    let count = tcp_transfer(lab.host(), a.namespace(), at(a.v4()), MEGABYTE).unwrap();
    assert_eq!(count.payload_bytes, MEGABYTE);
}

#[test]
fn an_idle_lab_is_silent() {
    let lab = Lab::new("idle").unwrap();
    let (a, b) = pair(&lab).unwrap();
    let read = || {
        let ends = [(lab.host(), a.interface()), (lab.host(), b.interface()), (lab.host(), "br0")];
        ends.map(|(namespace, interface)| InterfaceStatistics::read(namespace, interface).unwrap())
    };
    let nothing = [InterfaceStatistics::default(); 3];
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(read(), nothing);
}

#[test]
fn a_lab_leaves_nothing_behind() {
    let lab = Lab::new("gone").unwrap();
    let (a, b) = pair(&lab).unwrap();
    let namespaces = [lab.host().path(), a.namespace().path(), b.namespace().path()];
    let bpffs = lab.bpffs().to_owned();
    let mounted = || std::fs::read_to_string("/proc/self/mounts").unwrap().contains(bpffs.to_str().unwrap());
    assert!(namespaces.iter().all(|path| path.exists()));
    assert!(mounted());
    // The bpffs is visible to a program inside; `ip netns exec` would hide it under a new /sys.
    let kind = run_ok(lab.host().command("stat").args(["-f", "-c", "%t"]).arg(&bpffs)).unwrap();
    assert_eq!(kind.trim(), "cafe4a11");
    let capture = Capture::start(lab.host(), "br0", &lab.path("killed.pcap"), "").unwrap();
    let tcpdump = PathBuf::from(format!("/proc/{}", capture.id()));
    assert!(std::fs::read_to_string(tcpdump.join("comm")).unwrap().starts_with("tcpdump"));
    drop((capture, a, b, lab));
    assert!(!tcpdump.exists());
    assert!(!namespaces.iter().any(|path| path.exists()));
    assert!(!mounted());
    assert!(!bpffs.exists());
}

#[test]
fn what_a_killed_process_left_is_removed() {
    // A process that has ended and been reaped: its id is free.
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let name = format!("trafctl-lab-{}-0-killed", ended.id());
    run_ok(std::process::Command::new("ip").args(["netns", "add", &name])).unwrap();
    let directory = std::env::temp_dir().join(format!("trafctl-lab-{}-x", ended.id()));
    std::fs::create_dir(&directory).unwrap();
    let alive = Namespace::new("alive").unwrap();
    sweep().unwrap();
    assert!(!PathBuf::from("/run/netns").join(name).exists());
    assert!(!directory.exists());
    assert!(alive.path().exists());
}
