//! Single packets through the pinned program with `BPF_PROG_TEST_RUN`: each shape of header, each fault, and
//! super-packets as far as the context can tell of them. Lengths are added up here from the parts of each packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader,
};
use traffic_tests::{Amounts, Counters, Lab};

const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const CONTAINER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);
/// In class 2 by a /24, inside class 1 by the default route.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
/// In class 3 by a /32 inside that /24.
const SPECIAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
/// In class 0 by name.
const FREE: Ipv4Addr = Ipv4Addr::new(172, 16, 5, 5);
const FOREIGN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 9);
const SPECIAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 0x77);
/// No prefix has it, so it is in class 0.
const NOWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1);

const CLASSES: &str = "0 172.16.0.0/12\n1 0.0.0.0/0\n2 192.0.2.0/24\n3 192.0.2.77/32\n\
    2 2001:db8:0:2::/64\n4 2001:db8:0:2::77/128\n1 2001:db8::/32\n";

/// `TC_ACT_UNSPEC`: the next program on the hook has its say.
const UNSPEC: u32 = u32::MAX;

/// A mark that somebody else has set.
const MARK: u32 = 0xbeef;
/// Byte of `struct __sk_buff` where the mark is.
const CONTEXT_MARK: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}
use Way::{In, Out};

/// Where a packet is to be counted.
#[derive(Clone, Copy, Debug)]
enum Place {
    Class(u8, &'static str),
    Fault(&'static str),
}
use Place::{Class, Fault};

/// One packet and what is to become of it.
struct Case {
    what: &'static str,
    way: Way,
    frame: Vec<u8>,
    gso: Option<Gso>,
    place: Place,
    packets: u64,
    bytes: u64,
}

/// What the context tells of a super-packet.
#[derive(Clone, Copy)]
struct Gso {
    size: u32,
    segments: u32,
}

/// Runs packets through one node's program and compares the counters before and after each.
struct Bench {
    lab: Lab,
    ifindex: u32,
    before: Counters,
}

impl Bench {
    fn new(name: &str) -> Result<Self> {
        Self::configured(name, "")
    }

    /// With these tables in the configuration.
    fn configured(name: &str, tables: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let classes = lab.write("classes", CLASSES)?;
        lab.configure(&format!("class_file = {classes:?}\n{tables}"))?;
        // The container is made only to have an interface of that name: no packet of its own is sent.
        let container = lab.bridged(101, 0, CONTAINER, CONTAINER_V6)?;
        let ifindex = index_of(&lab, container.interface())?;
        lab.run_ok(&["attach"])?;
        // The interface may go: the program finds its entry by the index given in the context.
        std::mem::forget(container);
        let before = Counters::read(&lab)?;
        Ok(Self { lab, ifindex, before })
    }

    fn run(
        &mut self,
        way: Way,
        frame: &[u8],
        gso: Option<Gso>,
        ifindex: u32,
    ) -> Result<(Counters, Counters)> {
        let mark = run(&self.lab, way, frame, gso, ifindex)?;
        ensure!(mark == MARK, "the mark was changed to {mark}");
        let after = Counters::read(&self.lab)?;
        let before = std::mem::replace(&mut self.before, after.clone());
        Ok((before, after))
    }

    fn check(&mut self, case: &Case) -> Result<()> {
        let (before, after) = self.run(case.way, &case.frame, case.gso, self.ifindex)?;
        let expected = match case.way {
            In => Amounts::incoming(case.packets, case.bytes),
            Out => Amounts::outgoing(case.packets, case.bytes),
        };
        // Before the first packet of its kind there is no counter.
        let counted = match case.place {
            Class(class, family) => {
                after.class("101", class, family).since(before.class_or_zero("101", class, family))
            }
            Fault(fault) => after.fault("veth101.0", fault).since(before.fault_or_zero("veth101.0", fault)),
        };
        ensure!(counted == expected, "counted {counted:?} instead of {expected:?}: {after:#?}");
        let (was, is) = (before.interface("veth101.0"), after.interface("veth101.0"));
        let passed = is.amounts.since(was.amounts);
        ensure!(passed == expected, "passed {passed:?} instead of {expected:?}");
        // And nothing anywhere else.
        let all = |counters: &Counters| {
            let classes = counters.counters.iter().map(|row| row.amounts);
            classes
                .chain(counters.faults.iter().map(|row| row.amounts))
                .fold(Amounts::default(), Amounts::plus)
        };
        ensure!(all(&after).since(all(&before)) == expected, "something else was counted too: {after:#?}");
        let skbs = Amounts::both(
            (is.in_skbs - was.in_skbs, is.in_skb_bytes - was.in_skb_bytes),
            (is.out_skbs - was.out_skbs, is.out_skb_bytes - was.out_skb_bytes),
        );
        let len = case.frame.len() as u64;
        let buffer = match case.way {
            In => Amounts::incoming(1, len),
            Out => Amounts::outgoing(1, len),
        };
        ensure!(skbs == buffer, "the buffer was counted as {skbs:?}");
        let estimated = is.in_estimated_packets + is.out_estimated_packets
            - was.in_estimated_packets
            - was.out_estimated_packets;
        // The test run sets no kind of segmentation, so the program has to say that it went by the plain rule.
        let expected = if case.gso.is_some() { case.packets } else { 0 };
        ensure!(estimated == expected, "{estimated} packets were called estimated, not {expected}");
        Ok(())
    }
}

/// Runs a packet that has a mark through the pinned program, and gives the mark that it has then.
fn run(lab: &Lab, way: Way, frame: &[u8], gso: Option<Gso>, ifindex: u32) -> Result<u32> {
    let name = match way {
        In => "trafctl_egress",
        Out => "trafctl_ingress",
    };
    let program = SchedClassifier::from_pin(lab.bpffs().join("programs").join(name))?;
    let mut context = [0_u8; 192];
    let mut put = |at: usize, value: u32| context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    put(CONTEXT_MARK, MARK);
    // `struct __sk_buff`: ifindex, gso_segs, gso_size.
    put(40, ifindex);
    if let Some(gso) = gso {
        put(164, gso.segments);
        put(176, gso.size);
    }
    let mut left = [0_u8; 192];
    let verdict = lab.host().enter(|| {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&context);
        options.ctx_out = Some(&mut left);
        Ok(program.test_run(options)?.return_value)
    })?;
    ensure!(verdict == UNSPEC, "the verdict was {verdict}");
    Ok(u32::from_ne_bytes(left[CONTEXT_MARK..CONTEXT_MARK + 4].try_into()?))
}

fn index_of(lab: &Lab, interface: &str) -> Result<u32> {
    let text = lab.host().ip(&format!("-o link show {interface}"))?;
    text.split(':').next().and_then(|index| index.trim().parse().ok()).context("an index")
}

fn case(what: &'static str, way: Way, frame: Vec<u8>, place: Place, bytes: usize) -> Case {
    Case { what, way, frame, gso: None, place, packets: 1, bytes: bytes as u64 }
}

fn ethernet(ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header {
        source: [2, 0, 0, 0, 0, 1],
        destination: [2, 0, 0, 0, 0, 2],
        ether_type: EtherType(ethertype),
    };
    [header.to_bytes().as_slice(), rest].concat()
}

fn tagged(tags: &[u16], ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (at, _) in tags.iter().enumerate() {
        body.extend([0, 7]);
        body.extend(tags.get(at + 1).unwrap_or(&ethertype).to_be_bytes());
    }
    body.extend(rest);
    ethernet(tags[0], &body)
}

fn ipv4(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Result<Vec<u8>> {
    let header = Ipv4Header::new(
        payload.len().try_into()?,
        64,
        IpNumber(protocol),
        source.octets(),
        destination.octets(),
    )?;
    Ok([header.to_bytes().as_slice(), payload].concat())
}

fn ipv6(next_header: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Result<Vec<u8>> {
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: payload.len().try_into()?,
        next_header: IpNumber(next_header),
        hop_limit: 64,
        source: source.octets(),
        destination: destination.octets(),
    };
    Ok([header.to_bytes().as_slice(), payload].concat())
}

fn udp(len: usize) -> Result<Vec<u8>> {
    let header =
        UdpHeader { source_port: 7, destination_port: 8, length: (8 + len).try_into()?, checksum: 0 };
    Ok([header.to_bytes().as_slice(), &vec![0xab; len]].concat())
}

fn tcp(options: &[u8], len: usize) -> Result<Vec<u8>> {
    let mut header = TcpHeader::new(7, 8, 1, 1000);
    header.set_options_raw(options)?;
    Ok([header.to_bytes().as_slice(), &vec![0xcd; len]].concat())
}

/// Headers of every shape that is an IP packet.
fn accepted() -> Result<Vec<Case>> {
    let v4 = |peer, payload: &[u8]| ipv4(17, CONTAINER, peer, payload);
    let v6 = |peer, payload: &[u8]| ipv6(17, CONTAINER_V6, peer, payload);
    let mut with_options = ipv4(17, CONTAINER, FOREIGN, &[&[1; 40], udp(11)?.as_slice()].concat())?;
    with_options[0] = 0x4f;
    let mut fragment = v4(FOREIGN, &[0x55; 123])?;
    fragment[6..8].copy_from_slice(&[0x20, 0xb9]);
    let mut lying = v4(FOREIGN, &udp(300)?)?;
    lying[2..4].copy_from_slice(&[0, 20]);
    let mut lying_v6 = v6(FOREIGN_V6, &udp(301)?)?;
    lying_v6[4..6].copy_from_slice(&[0, 0]);
    let padded = |mut frame: Vec<u8>| {
        frame.resize(60, 0);
        frame
    };
    // hop-by-hop, then destination options, then UDP
    let extended = [&[60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0], udp(21)?.as_slice()].concat();
    let fragment_v6 = [&[17, 0, 0x05, 0xa9, 0, 0, 0, 9], [0x66; 57].as_slice()].concat();
    Ok(vec![
        case("UDP out to a /24", Out, ethernet(0x0800, &v4(FOREIGN, &udp(100)?)?), Class(2, "ipv4"), 128),
        case(
            "UDP in from a /24",
            In,
            ethernet(0x0800, &ipv4(17, FOREIGN, CONTAINER, &udp(101)?)?),
            Class(2, "ipv4"),
            129,
        ),
        case("a /32 inside the /24", Out, ethernet(0x0800, &v4(SPECIAL, &udp(102)?)?), Class(3, "ipv4"), 130),
        case("class 0 by name", Out, ethernet(0x0800, &v4(FREE, &udp(103)?)?), Class(0, "ipv4"), 131),
        case(
            "the default route",
            In,
            ethernet(0x0800, &ipv4(17, [8, 8, 8, 8].into(), CONTAINER, &udp(104)?)?),
            Class(1, "ipv4"),
            132,
        ),
        case(
            "the longest IPv4 options",
            Out,
            ethernet(0x0800, &with_options),
            Class(2, "ipv4"),
            20 + 40 + 19,
        ),
        case("a later fragment", Out, ethernet(0x0800, &fragment), Class(2, "ipv4"), 143),
        case("a total length that lies", Out, ethernet(0x0800, &lying), Class(2, "ipv4"), 328),
        case(
            "padding that is carried",
            Out,
            padded(ethernet(0x0800, &v4(FOREIGN, &udp(1)?)?)),
            Class(2, "ipv4"),
            46,
        ),
        case(
            "a protocol nobody knows",
            Out,
            ethernet(0x0800, &ipv4(253, CONTAINER, FOREIGN, &[1; 77])?),
            Class(2, "ipv4"),
            97,
        ),
        case(
            "a header and nothing more",
            Out,
            ethernet(0x0800, &ipv4(59, CONTAINER, FOREIGN, &[])?),
            Class(2, "ipv4"),
            20,
        ),
        case("one tag", Out, tagged(&[0x8100], 0x0800, &v4(FOREIGN, &udp(33)?)?), Class(2, "ipv4"), 61),
        case(
            "two tags",
            In,
            tagged(&[0x88a8, 0x8100], 0x0800, &ipv4(17, FOREIGN, CONTAINER, &udp(34)?)?),
            Class(2, "ipv4"),
            62,
        ),
        case(
            "two tags, IPv6",
            Out,
            tagged(&[0x8100, 0x8100], 0x86dd, &v6(FOREIGN_V6, &udp(35)?)?),
            Class(2, "ipv6"),
            83,
        ),
        case("IPv6 out to a /64", Out, ethernet(0x86dd, &v6(FOREIGN_V6, &udp(200)?)?), Class(2, "ipv6"), 248),
        case(
            "IPv6 in from a /128",
            In,
            ethernet(0x86dd, &ipv6(17, SPECIAL_V6, CONTAINER_V6, &udp(201)?)?),
            Class(4, "ipv6"),
            249,
        ),
        case("IPv6 in no prefix", Out, ethernet(0x86dd, &v6(NOWHERE_V6, &udp(202)?)?), Class(0, "ipv6"), 250),
        case(
            "IPv6 extension headers",
            Out,
            ethernet(0x86dd, &ipv6(0, CONTAINER_V6, FOREIGN_V6, &extended)?),
            Class(2, "ipv6"),
            40 + 16 + 29,
        ),
        case(
            "a later IPv6 fragment",
            In,
            ethernet(0x86dd, &ipv6(44, FOREIGN_V6, CONTAINER_V6, &fragment_v6)?),
            Class(2, "ipv6"),
            40 + 65,
        ),
        case("a payload length that lies", Out, ethernet(0x86dd, &lying_v6), Class(2, "ipv6"), 349),
        case("a long packet", Out, ethernet(0x0800, &v4(FOREIGN, &udp(3000)?)?), Class(2, "ipv4"), 3028),
    ])
}

/// Frames that belong into no class, each with its reason.
fn refused() -> Result<Vec<Case>> {
    let good = ipv4(17, CONTAINER, FOREIGN, &udp(50)?)?;
    let good_v6 = ipv6(17, CONTAINER_V6, FOREIGN_V6, &udp(50)?)?;
    let with_first_byte = |byte: u8| {
        let mut packet = good.clone();
        packet[0] = byte;
        packet
    };
    let mut wrong_version_v6 = good_v6.clone();
    wrong_version_v6[0] = 0x40;
    Ok(vec![
        case("ARP", In, ethernet(0x0806, &[1; 28]), Fault("not_ip"), 28),
        case("LLDP", Out, ethernet(0x88cc, &[2; 46]), Fault("not_ip"), 46),
        case("802.3 with a length", Out, ethernet(38, &[0x42; 38]), Fault("not_ip"), 38),
        case("ARP behind a tag", Out, tagged(&[0x8100], 0x0806, &[3; 28]), Fault("not_ip"), 28),
        case(
            "three tags",
            Out,
            tagged(&[0x8100, 0x8100, 0x8100], 0x0800, &good),
            Fault("vlan_depth"),
            4 + 78,
        ),
        case("a tag cut short", Out, ethernet(0x8100, &[0, 7]), Fault("truncated"), 0),
        // Behind a tag, because the test run itself refuses frames that end within an IP header.
        case("IPv4 without a header", Out, tagged(&[0x8100], 0x0800, &[]), Fault("truncated"), 0),
        case("IPv4 one byte short", Out, tagged(&[0x8100], 0x0800, &good[..19]), Fault("truncated"), 19),
        case(
            "options that are not there",
            In,
            ethernet(0x0800, &with_first_byte(0x4f)[..59]),
            Fault("truncated"),
            59,
        ),
        case("IPv6 one byte short", In, tagged(&[0x8100], 0x86dd, &good_v6[..39]), Fault("truncated"), 39),
        case(
            "a header length below 5",
            Out,
            ethernet(0x0800, &with_first_byte(0x44)),
            Fault("malformed"),
            78,
        ),
        case(
            "version 6 in an IPv4 frame",
            Out,
            ethernet(0x0800, &with_first_byte(0x65)),
            Fault("malformed"),
            78,
        ),
        case("version 4 in an IPv6 frame", Out, ethernet(0x86dd, &wrong_version_v6), Fault("malformed"), 98),
    ])
}

/// Super-packets, as far as the context tells of them.
fn segmented() -> Result<Vec<Case>> {
    let gso = |mut case: Case, size, segments, packets, bytes| {
        case.gso = Some(Gso { size, segments });
        (case.packets, case.bytes) = (packets, bytes);
        case
    };
    let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let plain = |way, frame, class| case("", way, frame, class, 0);
    let named = |what, mut case: Case| {
        case.what = what;
        case
    };
    let tcp_v4 = ethernet(0x0800, &ipv4(6, CONTAINER, FOREIGN, &tcp(&timestamps, 3000)?)?);
    let tcp_v6 = ethernet(0x86dd, &ipv6(6, FOREIGN_V6, CONTAINER_V6, &tcp(&timestamps, 2999)?)?);
    let udp_v4 = ethernet(0x0800, &ipv4(17, CONTAINER, FOREIGN, &udp(3000)?)?);
    let extended = [&[6, 0, 1, 4, 0, 0, 0, 0], tcp(&[], 2000)?.as_slice()].concat();
    let tcp_extended = ethernet(0x86dd, &ipv6(60, CONTAINER_V6, FOREIGN_V6, &extended)?);
    let sctp = ethernet(0x0800, &ipv4(132, CONTAINER, FOREIGN, &[9; 12 + 2500])?);
    let tagged_tcp = tagged(&[0x8100], 0x0800, &ipv4(6, CONTAINER, FOREIGN, &tcp(&[], 1500)?)?);
    let not_ip = ethernet(0x0806, &[1; 1000]);
    Ok(vec![
        named(
            "TCP, three segments and a bit",
            gso(plain(Out, tcp_v4.clone(), Class(2, "ipv4")), 900, 4, 4, 3000 + 4 * 52),
        ),
        named(
            "TCP without a number of segments",
            gso(plain(Out, tcp_v4.clone(), Class(2, "ipv4")), 1000, 0, 3, 3000 + 3 * 52),
        ),
        named("TCP that fits one segment", gso(plain(Out, tcp_v4, Class(2, "ipv4")), 3000, 0, 1, 3052)),
        named("TCP over IPv6, in", gso(plain(In, tcp_v6, Class(2, "ipv6")), 1000, 3, 3, 2999 + 3 * 72)),
        named("UDP segments", gso(plain(Out, udp_v4, Class(2, "ipv4")), 1472, 3, 3, 3000 + 3 * 28)),
        named(
            "TCP behind destination options",
            gso(plain(Out, tcp_extended, Class(2, "ipv6")), 500, 4, 4, 2000 + 4 * 68),
        ),
        named(
            "SCTP, where only the number is true",
            gso(plain(Out, sctp, Class(2, "ipv4")), 0xffff, 5, 5, 2500 + 5 * 32),
        ),
        named("TCP behind a tag", gso(plain(Out, tagged_tcp, Class(2, "ipv4")), 500, 3, 3, 1500 + 3 * 40)),
        named("a super-packet that is no IP", gso(plain(Out, not_ip, Fault("not_ip")), 400, 3, 3, 1000)),
    ])
}

fn check_all(name: &str, cases: &[Case]) -> Result<()> {
    let mut bench = Bench::new(name)?;
    for case in cases {
        bench.check(case).with_context(|| case.what)?;
    }
    Ok(())
}

#[test]
fn every_shape_of_header_is_counted_in_its_class() -> Result<()> {
    check_all("accepted", &accepted()?)
}

#[test]
fn every_fault_has_its_own_counter() -> Result<()> {
    check_all("refused", &refused()?)
}

#[test]
fn super_packets_count_as_their_segments() -> Result<()> {
    check_all("segmented", &segmented()?)
}

#[test]
fn an_interface_without_an_entry_is_counted_by_name() -> Result<()> {
    let mut bench = Bench::new("unknown")?;
    let packet = ethernet(0x0800, &ipv4(17, CONTAINER, FOREIGN, &udp(66)?)?);
    let loopback = 1;
    let (_, after) = bench.run(Out, &packet, None, loopback)?;
    assert_eq!(after.fault("(other)", "unknown_interface"), Amounts::outgoing(1, 94));
    assert_eq!(after.interface("(other)").amounts, Amounts::outgoing(1, 94));
    assert_eq!(after.counters, [], "no container is charged");
    Ok(())
}

#[test]
fn a_container_without_a_slot_is_counted_by_name() -> Result<()> {
    let lab = Lab::new("full")?;
    lab.configure("[limits]\ncontainers = 1\n")?;
    let first = lab.bridged(101, 0, CONTAINER, CONTAINER_V6)?;
    lab.run_ok(&["attach"])?;
    let second = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    lab.run_ok(&["attach"])?;
    let before = Counters::read(&lab)?;
    let mut bench = Bench { ifindex: index_of(&lab, second.interface())?, lab, before };
    let packet = ethernet(0x0800, &ipv4(17, [10, 1, 0, 2].into(), FOREIGN, &udp(67)?)?);
    let (_, after) = bench.run(Out, &packet, None, bench.ifindex)?;
    assert_eq!(after.fault("veth102.0", "container_table_full"), Amounts::outgoing(1, 95));
    assert_eq!(after.faults.len(), 1, "the other interface has no fault: {after:#?}");
    drop(first);
    Ok(())
}

#[test]
fn what_a_container_sends_is_marked_where_that_is_configured() -> Result<()> {
    let bench = Bench::configured("marked", "[shaping]\nenabled = true\n")?;
    for case in accepted()?.into_iter().chain(refused()?).chain(segmented()?) {
        let expected = match (case.way, case.place) {
            (Out, Class(class, _)) => 101 * 32 + u32::from(class),
            // To the container, and in no class: what was there before.
            _ => MARK,
        };
        let mark = run(&bench.lab, case.way, &case.frame, case.gso, bench.ifindex)?;
        ensure!(mark == expected, "{}: {mark} and not {expected}", case.what);
    }
    let packet = ethernet(0x0800, &ipv4(17, CONTAINER, FOREIGN, &udp(66)?)?);
    let loopback = 1;
    assert_eq!(run(&bench.lab, Out, &packet, None, loopback)?, MARK, "nobody's interface");
    Ok(())
}

#[test]
fn what_a_mark_has_no_room_for_is_left_as_it_is() -> Result<()> {
    let lab = Lab::new("no-room")?;
    let classes =
        lab.write("classes", "1 0.0.0.0/0\n31 192.0.2.9/32\n32 192.0.2.77/32\n254 172.16.0.0/12\n")?;
    let uuid = "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f";
    let ids = ["1", "134217727", "134217728", "4294967297", "web", uuid];
    let mut tables = "[shaping]\nenabled = true\n[host]\npreset = 'custom'\n".to_owned();
    let mut interfaces = Vec::new();
    for (number, id) in (0..).zip(ids) {
        tables += &format!("[[container]]\nid = '{id}'\ninterfaces = ['if{number}']\n");
        let v6 = format!("fd00:1::{number}").parse()?;
        interfaces.push(lab.bridged_as(&format!("if{number}"), [10, 1, 0, number].into(), v6)?);
    }
    lab.configure(&format!("class_file = {classes:?}\n{tables}"))?;
    let output = lab.trafctl(&["attach"])?.output()?;
    let said = String::from_utf8(output.stderr)?;
    for id in &ids[2..] {
        ensure!(
            said.contains(&format!("what container {id} sends gets no shaping mark: {id} is ")),
            "{said}"
        );
    }
    assert_eq!(said.matches("no shaping mark").count(), 4, "{said}");

    let to = |peer| anyhow::Ok(ethernet(0x0800, &ipv4(17, CONTAINER, peer, &udp(9)?)?));
    for (id, interface) in ids.iter().zip(&interfaces) {
        let ifindex = index_of(&lab, interface.interface())?;
        let base = match *id {
            "1" => Some(32),
            "134217727" => Some(u32::MAX - 31),
            _ => None,
        };
        for (peer, class) in
            [([8, 8, 8, 8].into(), Some(1)), (FOREIGN, Some(31)), (SPECIAL, None), (FREE, None)]
        {
            let expected = base.zip(class).map_or(MARK, |(base, class): (u32, u32)| base + class);
            assert_eq!(run(&lab, Out, &to(peer)?, None, ifindex)?, expected, "{id} to {peer}");
        }
    }
    let status = lab.run_json(&["status", "--format", "json"])?;
    let mark = &status["shaping_mark"];
    assert_eq!((&mark["configured"], &mark["in_force"]), (&true.into(), &true.into()));
    let unmarked = mark["unmarked_containers"].as_array().context("containers")?;
    let unmarked: Vec<_> = unmarked.iter().filter_map(|row| row["container"].as_str()).collect();
    assert_eq!(unmarked, ids[2..]);
    assert_eq!(mark["unmarked_classes"], serde_json::json!([32, 254]));
    let text = lab.run_ok(&["status"])?;
    let line = format!(
        "shaping mark on: id * 32 + class; not on containers 134217728, 4294967297, web, {uuid}; not on classes 32, 254\n"
    );
    ensure!(text.contains(&line), "{text}");
    Ok(())
}
