//! One temporary node with real traffic, and trafctl's counters beside those of the senders.

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result, bail};
use traffic_tests::{
    Amounts, Container, Counters, Lab, Namespace, RoutedContainer, Tap, Venet, VnetHeader,
    container::{Mac, introduce},
    interrupt,
    traffic::{Superdatagrams, tcp_transfer, udp_send, udp_send_segmented},
};

use crate::{print, step};

/// The prices of the networks.
const CLASSES: &str = "\
# class 0: our own networks, free of charge
0 10.0.0.0/8
0 fd00::/16
# class 1: everything else
1 0.0.0.0/0
1 ::/0
# class 2: \"foreign\"
2 203.0.113.0/24
2 2001:db8::/32
# inside \"foreign\" a hole that is class 3, \"partner\"
3 203.0.113.128/25
3 2001:db8:3::/48
";

const MEGABYTE: u64 = 1 << 20;
const MACHINE: Mac = Mac([0x02, 0, 0, 0, 0x02, 0x01]);

/// Shows the node. `keep` waits for Enter before it is removed. Whether every count agrees.
///
/// # Errors
///
/// When something cannot be created or sent, or the user wants the end.
pub(crate) fn run(keep: bool) -> Result<bool> {
    step("create a host with two bridged containers, a virtual machine and two routed containers")?;
    let lab = Lab::new("demo")?;
    let classes = lab.write("networks_classes", CLASSES)?;
    lab.configure(&format!("node = \"demo\"\nclass_file = {classes:?}\n"))?;
    let node = Node::new(&lab)?;
    for (id, addresses) in [("301", ["10.3.0.1", "fd00:3::1"]), ("302", ["203.0.113.132", "2001:db8:3::2"])] {
        for address in addresses {
            lab.run_ok(&["address", "add", id, address])?;
        }
    }
    step("trafctl attach")?;
    lab.run_ok(&["attach"])?;

    step("send TCP and UDP over IPv4 and IPv6")?;
    let mut flows = Vec::new();
    node.send_everything(&lab, &mut flows)?;
    let counters = Counters::at_rest(&lab)?;

    print(&format!("\n$ trafctl dump\n{}", lab.run_ok(&["dump"])?))?;
    print(&format!("\nThe counts of each sender, and those of trafctl:\n\n{}", table(&flows)))?;
    let exact = flows.iter().all(Flow::is_exact);
    print(&format!(
        "\n{}; classes + faults = passed on {} interfaces\n",
        if exact { "every packet and byte agrees" } else { "SOME COUNTS DIFFER" },
        counters.interfaces.len()
    ))?;
    print(&format!("\n$ trafctl status\n{}", lab.run_ok(&["status"])?))?;
    if keep {
        stay(&lab, &node)?;
    }
    Ok(exact)
}

/// Every endpoint on the host.
struct Node<'a> {
    web: Container,
    mail: Container,
    machine: Tap<'a>,
    near: RoutedContainer<'a>,
    far: RoutedContainer<'a>,
    _venet: Venet<'a>,
}

impl<'a> Node<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let web = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
        let mail = lab.bridged(102, 0, [203, 0, 113, 2].into(), "2001:db8:1::2".parse()?)?;
        introduce(&[&web, &mail])?;
        let machine = lab.tap("vme201.0")?;
        machine.on_bridge(lab.bridge()?, MACHINE)?;
        web.knows_at(&[IpAddr::from([198, 51, 100, 7])], MACHINE)?;
        let venet = lab.venet()?;
        let near = venet.container("301", [10, 3, 0, 1].into(), "fd00:3::1".parse()?)?;
        let far = venet.container("302", [203, 0, 113, 132].into(), "2001:db8:3::2".parse()?)?;
        Ok(Self { web, mail, machine, near, far, _venet: venet })
    }

    fn send_everything(&self, lab: &Lab, flows: &mut Vec<Flow>) -> Result<()> {
        let (web, mail) = (self.web.namespace(), self.mail.namespace());
        let (near, far) = (self.near.namespace(), self.far.namespace());
        let bridged = |family| Pair { from: "101", to: "102", family, classes: (2, 0) };
        let routed = |family| Pair { from: "301", to: "302", family, classes: (3, 0) };
        tcp(lab, flows, &bridged("ipv4"), (web, mail, self.mail.v4()), 40 * MEGABYTE)?;
        tcp(lab, flows, &bridged("ipv6"), (web, mail, self.mail.v6()), 30 * MEGABYTE)?;
        udp(lab, flows, "UDP", &bridged("ipv4"), || udp_send(web, mail, at(self.mail.v4()), 1000, 700))?;
        let large = Superdatagrams { sends: 40, payload_bytes: 40_000, segment_bytes: 1200 };
        udp(lab, flows, "UDP segmented", &bridged("ipv6"), || {
            udp_send_segmented(web, mail, at(self.mail.v6()), large)
        })?;
        tcp(lab, flows, &routed("ipv4"), (near, far, self.far.v4()), 20 * MEGABYTE)?;
        tcp(lab, flows, &routed("ipv6"), (near, far, self.far.v6()), 10 * MEGABYTE)?;
        udp(lab, flows, "UDP", &routed("ipv4"), || udp_send(near, far, at(self.far.v4()), 500, 300))?;
        self.send_from_machine(lab, flows)
    }

    /// The machine sends TCP super-packets as a guest with offloads does, with their segment count left at 0.
    fn send_from_machine(&self, lab: &Lab, flows: &mut Vec<Flow>) -> Result<()> {
        const FRAMES: u64 = 25;
        const SEGMENT: u16 = 1448;
        const SEGMENTS: u64 = 20;
        let payload = usize::from(SEGMENT) * usize::try_from(SEGMENTS)?;
        let frame = tcp_frame(self.web.mac().0, payload)?;
        let before = Counters::at_rest(lab)?;
        for _ in 0..FRAMES {
            self.machine.send(VnetHeader::tcp_v4(34, 54, SEGMENT), &frame)?;
        }
        let after = Counters::at_rest(lab)?;
        let sent = (FRAMES * SEGMENTS, FRAMES * (payload as u64 + SEGMENTS * 40));
        // The peer of the machine is 101, in class 0. The address of the machine is only in the default
        // network: class 1.
        let counted =
            |id, class| after.class(id, class, "ipv4").since(before.class_or_zero(id, class, "ipv4"));
        let machine = counted("201", 0);
        flows.push(Flow {
            what: "TCP super-packets from a VM",
            from: "201",
            to: "101",
            family: "ipv4",
            sent,
            out: (machine.out_packets, machine.out_bytes),
            arrived: incoming(counted("101", 1)),
        });
        Ok(())
    }
}

fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

/// An Ethernet frame with IPv4 and TCP. The TCP checksum is left to the segmentation; the bridge checks that
/// of the IP header.
fn tcp_frame(to: [u8; 6], payload: usize) -> Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(54 + payload);
    frame.extend(to);
    frame.extend(MACHINE.0);
    frame.extend([0x08, 0x00]);
    let total = u16::try_from(40 + payload).context("a super-packet has at most 64 KiB")?;
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 7, 10, 1, 0, 1]);
    let words = frame[14..34].chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let folded = !u16::try_from((sum & 0xffff) + (sum >> 16))?;
    frame[24..26].copy_from_slice(&folded.to_be_bytes());
    frame.extend([0x1f, 0x90, 0x1f, 0x91, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(54 + payload, 0x5a);
    Ok(frame)
}

/// A sender and a receiver, with the class of the receiver for the sender and of the sender for the receiver.
struct Pair {
    from: &'static str,
    to: &'static str,
    family: &'static str,
    classes: (u8, u8),
}

/// What was sent in one direction, and what trafctl counted for both ends.
struct Flow {
    what: &'static str,
    from: &'static str,
    to: &'static str,
    family: &'static str,
    sent: (u64, u64),
    out: (u64, u64),
    arrived: (u64, u64),
}

impl Flow {
    fn is_exact(&self) -> bool {
        self.sent == self.out && self.sent == self.arrived
    }
}

const fn incoming(amounts: Amounts) -> (u64, u64) {
    (amounts.in_packets, amounts.in_bytes)
}

const fn outgoing(amounts: Amounts) -> (u64, u64) {
    (amounts.out_packets, amounts.out_bytes)
}

fn tcp(
    lab: &Lab,
    flows: &mut Vec<Flow>,
    pair: &Pair,
    (from, to, address): (&Namespace, &Namespace, IpAddr),
    bytes: u64,
) -> Result<()> {
    let (count, sender, receiver) = counting(lab, pair, || tcp_transfer(from, to, at(address), bytes))?;
    let Pair { from, to, family, .. } = *pair;
    let (client, server) = (count.client, count.server);
    let what = "TCP";
    let sent = (client.segments, client.l3_bytes);
    flows.push(Flow { what, from, to, family, sent, out: outgoing(sender), arrived: incoming(receiver) });
    let sent = (server.segments, server.l3_bytes);
    let what = "TCP acknowledgements";
    flows.push(Flow {
        what,
        from: to,
        to: from,
        family,
        sent,
        out: outgoing(receiver),
        arrived: incoming(sender),
    });
    Ok(())
}

fn udp(
    lab: &Lab,
    flows: &mut Vec<Flow>,
    what: &'static str,
    pair: &Pair,
    send: impl FnOnce() -> Result<traffic_tests::traffic::UdpCount>,
) -> Result<()> {
    let (count, sender, receiver) = counting(lab, pair, send)?;
    let Pair { from, to, family, .. } = *pair;
    let sent = (count.packets, count.l3_bytes);
    flows.push(Flow { what, from, to, family, sent, out: outgoing(sender), arrived: incoming(receiver) });
    Ok(())
}

/// Sends, and returns the sender's count together with trafctl's counts for sender and receiver.
fn counting<T>(lab: &Lab, pair: &Pair, send: impl FnOnce() -> Result<T>) -> Result<(T, Amounts, Amounts)> {
    interrupt::check()?;
    let before = Counters::at_rest(lab)?;
    let count = send()?;
    let after = Counters::at_rest(lab)?;
    let counted = |id: &str, class| {
        after.class(id, class, pair.family).since(before.class_or_zero(id, class, pair.family))
    };
    Ok((count, counted(pair.from, pair.classes.0), counted(pair.to, pair.classes.1)))
}

fn table(flows: &[Flow]) -> String {
    let mut text = format!(
        "{:<28} {:<4} {:>4} {:>4}  {:>21}  {:>21}  {:>21}  {}\n",
        "", "", "", "", "sender", "trafctl, out", "trafctl, in to peer", "difference"
    );
    let amounts = |(packets, bytes): (u64, u64)| format!("{packets:>9} {bytes:>11}");
    let differs = |a: (u64, u64), b: (u64, u64)| (a.0.abs_diff(b.0) + a.1.abs_diff(b.1)).to_string();
    for flow in flows {
        // A write to a string cannot fail.
        let _infallible = writeln!(
            text,
            "{:<28} {:<4} {:>4} {:>4}  {}  {}  {}  {} {}",
            flow.what,
            flow.family,
            flow.from,
            flow.to,
            amounts(flow.sent),
            amounts(flow.out),
            amounts(flow.arrived),
            differs(flow.sent, flow.out),
            differs(flow.sent, flow.arrived),
        );
    }
    text
}

/// Waits for Enter or the end of input before the node is removed.
fn stay(lab: &Lab, node: &Node<'_>) -> Result<()> {
    let program = traffic_tests::lab::trafctl_program()?;
    let options = format!(
        "--bpffs {} --state-dir {} --config {}",
        lab.bpffs().display(),
        lab.state_dir().display(),
        lab.config().display()
    );
    let host = lab.host().path();
    let inside = node.web.namespace().path();
    print(&format!(
        "\nEverything is left standing. In another terminal, for example:\n\n  \
         nsenter --net={host} {program} {options} dump --watch\n  \
         nsenter --net={host} {program} {options} classes explain 203.0.113.200\n  \
         nsenter --net={host} ip -br link\n  \
         nsenter --net={inside} ip -br address            # within container 101\n\n\
         Press Enter to clean up. ",
        host = host.display(),
        program = program.display(),
        inside = inside.display(),
    ))?;
    // The first process has the terminal, and passes the line on.
    interrupt::readable(&io::stdin())?;
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        bail!("--keep needs a terminal to wait for Enter; run it from one");
    }
    Ok(())
}
