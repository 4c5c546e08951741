//! Super-packets behind NSH, MPLS and ESP, which few kernels can make. The witness is the statistics of the
//! interface inside the container, behind the kernel's own segmentation.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use traffic_tests::check::eventually;
use traffic_tests::container::Mac;
use traffic_tests::traffic::tcp_transfer;
use traffic_tests::witness::InterfaceStatistics;
use traffic_tests::{Container, Counters, Lab, Namespace, Tap, VnetHeader};

use crate::evidence::{Evidence, Row};

/// The modules besides those of the scenario.
pub const MODULES: [&str; 15] = [
    "nsh",
    "xfrm_user",
    "xfrm_algo",
    "esp4",
    "esp4_offload",
    "seqiv",
    "geniv",
    "gcm",
    "ghash_generic",
    "gf128mul",
    "crypto_null",
    "ip_tunnel",
    "mpls_router",
    "mpls_iptunnel",
    "mpls_gso",
];

/// Those that must be loaded by name: nothing asks for them when it needs them, or only by the name of an
/// algorithm.
pub const LOADED: [&str; 9] = [
    "nsh",
    "xfrm_user",
    "esp4",
    "esp4_offload",
    "ghash_generic",
    "seqiv",
    "gcm",
    "mpls_iptunnel",
    "mpls_gso",
];

const MACHINE: Mac = Mac([0x02, 0, 0, 0, 2, 1]);
const ETHERNET_HEADER: u64 = 14;
const SOURCE: [u8; 4] = [10, 2, 0, 1];
const TARGET: [u8; 4] = [10, 1, 0, 1];

/// Runs the scenario on the running kernel.
pub fn run(evidence: &mut Evidence) -> Result<()> {
    let lab = Lab::new("prove-tunnels")?;
    let file = lab.write("networks_classes", crate::classes::FILE)?;
    lab.configure(&format!(
        "node = \"proof\"\nclass_file = {file:?}\n[limits]\ncontainers = 64\ninterfaces = 64\naddresses = 64\n"
    ))?;
    let tap = lab.tap("vme201.0")?;
    tap.on_bridge(lab.bridge()?, MACHINE)?;
    let container = lab.bridged(101, 0, TARGET.into(), "fd00:1::1".parse()?)?;
    let encrypted = Routed::encrypted(&lab)?;
    let labelled = Routed::labelled(&lab)?;
    lab.run_ok(&["attach"])?;
    container.offload(false)?;
    // Version and time to live, 2 words in all, metadata of type 2 (none), and IPv4 behind.
    let service = [0x0f, 0xc2, 2, 1, 0, 0, 7, 255];
    let (payload, segment) = (25_009, 1203);
    let frame = frame(container.mac(), &service, payload);
    let start = u16::try_from(14 + service.len() + 20)?;
    let header = VnetHeader::tcp_v4(start, start + 20, segment);
    evidence.row(not_ip(&lab, (&tap, &container), "a super-packet behind NSH", (header, &frame))?);
    evidence.row(encrypted.encrypted_row(&lab)?);
    evidence.row(labelled.labelled_row(&lab)?);
    Ok(())
}

/// A frame with TCP over IPv4 behind a service header.
fn frame(to: Mac, service: &[u8], payload: usize) -> Vec<u8> {
    let mut frame = [to.0, MACHINE.0].concat();
    frame.extend(0x894f_u16.to_be_bytes());
    frame.extend(service);
    let length = u16::try_from(40 + payload).unwrap_or(0).to_be_bytes();
    frame.extend([0x45, 0, length[0], length[1], 0, 1, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(SOURCE);
    frame.extend(TARGET);
    frame.extend([0, 7, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0x40, 0, 0, 0, 0, 0]);
    frame.extend(vec![0xcd; payload]);
    frame
}

/// Sends a frame from the machine, and compares both ends with what arrived in the container.
fn not_ip(
    lab: &Lab,
    (tap, container): (&Tap<'_>, &Container),
    case: &str,
    (header, frame): (VnetHeader, &[u8]),
) -> Result<Row> {
    let received = || InterfaceStatistics::read(container.namespace(), "eth0");
    let (counted, was) = (Counters::at_rest(lab)?, received()?);
    tap.send(header, frame)?;
    eventually("segments arrive", || Ok(received()?.rx_packets > was.rx_packets + 1))?;
    let after = Counters::at_rest(lab)?;
    let now = received()?;
    let packets = now.rx_packets - was.rx_packets;
    let bytes = now.rx_bytes - was.rx_bytes - ETHERNET_HEADER * packets;
    let growth = |interface: &str| {
        after.fault_or_zero(interface, "not_ip").since(counted.fault_or_zero(interface, "not_ip"))
    };
    let (sent, arrived) = (growth("vme201.0"), growth(container.interface()));
    let estimated = |counters: &Counters| {
        let (machine, row) = (counters.interface("vme201.0"), counters.interface(container.interface()));
        machine.out_estimated_packets + row.in_estimated_packets
    };
    Ok(Row::new(case, format!("{} bytes in segments of {}", frame.len(), header.gso_size), WITNESS)
        .count("not_ip out packets", packets, sent.out_packets)
        .count("not_ip out bytes", bytes, sent.out_bytes)
        .count("not_ip in packets", packets, arrived.in_packets)
        .count("not_ip in bytes", bytes, arrived.in_bytes)
        .count("packets marked as estimated", 2 * packets, estimated(&after) - estimated(&counted)))
}

const WITNESS: &str = "the kernel's statistics of eth0 in the container, behind segmentation";

/// A container that the host reaches over a veth without a bridge, because a bridge would segment before.
struct Routed {
    interface: &'static str,
    namespace: Namespace,
}

impl Routed {
    /// Creates one whose address is the seventh of a network. The host has the last but one.
    fn new(lab: &Lab, interface: &'static str, network: &str) -> Result<Self> {
        let namespace = Namespace::new(interface)?;
        lab.host().ip_batch(&format!(
            "link add {interface} type veth peer name eth0 netns {}
             address add {network}.254/24 dev {interface}
             link set {interface} up",
            namespace.name()
        ))?;
        namespace
            .ip_batch(&format!("address add {network}.7/24 dev eth0\nlink set eth0 up\nlink set lo up"))?;
        // Segments arrive one by one, so that the statistics count packets.
        let off = ["-K", "eth0", "gro", "off"];
        traffic_tests::process::run_ok(namespace.command("ethtool").args(off))?;
        Ok(Self { interface, namespace })
    }

    fn encrypted(lab: &Lab) -> Result<Self> {
        let routed = Self::new(lab, "veth102.0", "10.2.0")?;
        let state = "xfrm state add src 10.2.0.254 dst 10.2.0.7 proto esp spi 0x1234 reqid 7 mode transport \
                     aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128";
        lab.host().ip(state)?;
        lab.host().ip("xfrm policy add src 10.2.0.254 dst 10.2.0.7 dir out \
             tmpl src 10.2.0.254 dst 10.2.0.7 proto esp reqid 7 mode transport")?;
        routed.namespace.ip(state)?;
        Ok(routed)
    }

    /// Its address 10.4.0.7 is reached behind a label.
    fn labelled(lab: &Lab) -> Result<Self> {
        let routed = Self::new(lab, "veth103.0", "10.2.1")?;
        // The device could take super-packets behind a label as they are.
        let off = ["-K", routed.interface, "tso", "off"];
        traffic_tests::process::run_ok(lab.host().command("ethtool").args(off))?;
        lab.host().ip("route add 10.4.0.7/32 encap mpls 100 via inet 10.2.1.7 dev veth103.0")?;
        routed.namespace.enter(|| {
            for (name, value) in [("platform_labels", "1000"), ("conf/eth0/input", "1")] {
                let path = format!("/proc/sys/net/mpls/{name}");
                fs::write(&path, value).with_context(|| format!("cannot write {path}"))?;
            }
            anyhow::Ok(())
        })?;
        routed.namespace.ip_batch("address add 10.4.0.7/32 dev lo")?;
        routed.namespace.ip("-f mpls route add 100 dev lo")?;
        Ok(routed)
    }

    /// Transfers to an address. Returns what the kernel counted inside, our totals, and the number of segments.
    fn transfer(&self, lab: &Lab, address: [u8; 4]) -> Result<Transfer> {
        const BYTES: u64 = 1_500_017;
        let received = || InterfaceStatistics::read(&self.namespace, "eth0");
        let (before, was) = (Counters::at_rest(lab)?, received()?);
        let count = tcp_transfer(lab.host(), &self.namespace, SocketAddr::new(address.into(), 0), BYTES)?;
        let (after, now) = (Counters::at_rest(lab)?, received()?);
        let packets = now.rx_packets - was.rx_packets;
        Ok(Transfer {
            sent: format!("{BYTES} bytes TCP, {} segments", count.client.segments),
            packets,
            bytes: now.rx_bytes - was.rx_bytes - ETHERNET_HEADER * packets,
            before,
            after,
        })
    }

    /// The trailer that encryption adds is not there yet at the hook: 2 to 5 bytes to a multiple of 4, and 16
    /// of the check value.
    fn encrypted_row(&self, lab: &Lab) -> Result<Row> {
        let done = self.transfer(lab, [10, 2, 0, 7])?;
        let (before, after) = (done.before.interface(self.interface), done.after.interface(self.interface));
        let ours = after.amounts.since(before.amounts);
        let estimated = after.in_estimated_packets - before.in_estimated_packets;
        let short = done.bytes.saturating_sub(ours.in_bytes);
        Ok(Row::new("super-packets that are encrypted behind the hook", done.sent, WITNESS)
            .count("in packets", done.packets, ours.in_packets)
            .fact("super-packets are marked as estimated", estimated > done.packets / 2)
            .fact("only their trailers are missing", (18 * estimated..=21 * estimated).contains(&short)))
    }

    fn labelled_row(&self, lab: &Lab) -> Result<Row> {
        let done = self.transfer(lab, [10, 4, 0, 7])?;
        let fault = |counters: &Counters| counters.fault_or_zero(self.interface, "not_ip");
        let (before, after) = (done.before.interface(self.interface), done.after.interface(self.interface));
        let (ours, total) =
            (fault(&done.after).since(fault(&done.before)), after.amounts.since(before.amounts));
        let buffers = after.in_skbs - before.in_skbs;
        Ok(Row::new("super-packets behind a label of MPLS", done.sent, WITNESS)
            .count("not_ip in packets", done.packets, ours.in_packets)
            .count("not_ip in bytes", done.bytes, ours.in_bytes)
            .count("in packets", done.packets, total.in_packets)
            .fact("there were super-packets", buffers < done.packets / 2))
    }
}

/// What a transfer came to.
struct Transfer {
    sent: String,
    /// What the kernel counted in the container.
    packets: u64,
    bytes: u64,
    before: Counters,
    after: Counters,
}
