//! Devices that few kernels have: VLANs, a bond, an ipvlan, a netkit and Open vSwitch. What passes the hook of an
//! interface must be counted once, and what takes a path around it must be a gap of its size.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use traffic_tests::check::{bypassed, carried, eventually, output, trafctl};
use traffic_tests::container::introduce;
use traffic_tests::foreign::Foreign;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Container, Counters, Daemon, Lab, Namespace, Resync};

use crate::evidence::{Evidence, Row};

/// The modules besides those of the scenario.
pub const MODULES: [&str; 19] = [
    "8021q",
    "garp",
    "mrp",
    "bonding",
    "tls",
    "ipvlan",
    "openvswitch",
    "nsh",
    "psample",
    "nf_conncount",
    "nf_conntrack",
    "nf_defrag_ipv4",
    "nf_defrag_ipv6",
    "nf_nat",
    "ip_tunnel",
    "vxlan",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "gre",
];

/// Those that must be loaded by name.
pub const LOADED: [&str; 4] = ["8021q", "bonding", "ipvlan", "openvswitch"];

/// The program that makes switches.
pub const PROGRAM: &str = "ovs-dpctl";

/// A datagram's payload in bytes.
const PAYLOAD: usize = 311;

/// The witness of what is counted.
const SENDER: &str = "the sender";

/// The witness of gaps.
const STATISTICS: &str = "the kernel's statistics of the device in the container";

/// Runs the scenario on the running kernel.
pub fn run(evidence: &mut Evidence) -> Result<()> {
    let lab = Lab::new("prove-devices")?;
    let classes = lab.write("classes", "1 0.0.0.0/0\n1 ::/0\n")?;
    lab.configure(&format!(
        "class_file = {classes:?}\n[node]\nuplinks = ['eno1']\n[drops]\nenabled = false\n\
         [drain]\ninterval = '500ms'\n[limits]\ncontainers = 64\ninterfaces = 64\naddresses = 64\n\
         [[container]]\nid = 'kit'\ninterfaces = ['kit0']\n"
    ))?;
    let outside = Namespace::new("wire")?;
    lab.host().ip(&format!("link add eno1 type veth peer name wire netns {}", outside.name()))?;
    lab.host().ip_batch("link set eno1 up\naddress add 10.9.0.1/24 dev eno1")?;
    outside.ip_batch("link set wire up\naddress add 10.9.0.254/24 dev wire")?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let scene = Scene { lab, outside, a, b };
    let daemon = Daemon::start_with(&scene.lab, Resync::AsShipped)?;
    evidence.row(scene.vlan_above()?);
    evidence.row(scene.bond()?);
    evidence.row(scene.on_uplink("a VLAN device on an uplink, in a container", "vlan", "vlan id 5")?);
    evidence.row(scene.on_uplink("an ipvlan on an uplink, in a container", "ipvlan", "ipvlan mode l2")?);
    scene.netkit(evidence)?;
    scene.switch(evidence)?;
    daemon.stop_after_errors()
}

/// The host, its wire, and two containers on its bridge.
struct Scene {
    lab: Lab,
    outside: Namespace,
    a: Container,
    b: Container,
}

impl Scene {
    fn counted(&self, container: &str) -> Result<Amounts> {
        Ok(Counters::at_rest(&self.lab)?.class_or_zero(container, 1, "ipv4"))
    }

    /// Sends both ways between a container's namespace and another one. Returns what the container sent and received.
    fn exchange(&self, inside: &Namespace, own: &str, other: &Namespace, its: &str) -> Result<Amounts> {
        let to = |address: &str| anyhow::Ok(SocketAddr::new(address.parse()?, 0));
        let out = udp_send(inside, other, to(its)?, 23, PAYLOAD)?;
        let back = udp_send(other, inside, to(own)?, 41, PAYLOAD + 100)?;
        Ok(Amounts::both((back.packets, back.l3_bytes), (out.packets, out.l3_bytes)))
    }

    /// Whether `status` names a device as one that nothing counts.
    fn tells_of(&self, device: &str, what: &str) -> Result<bool> {
        let shown = trafctl(&self.lab, &["status"])?;
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        let line = text.lines().find(|line| line.contains(&format!("{device}: ")));
        let is_so =
            line.is_some_and(|line| line.contains(what) && line.contains("it has no end on this host"));
        if !is_so {
            eprintln!("{text}");
        }
        Ok(is_so && shown.status.code() == Some(1))
    }

    /// The device above the host's end sees the same packets once more, and its end in the container leads to it.
    fn vlan_above(&self) -> Result<Row> {
        let (host, inside) = (self.lab.host(), self.a.namespace());
        host.ip("link add link veth101.0 name tagged type vlan id 7")?;
        host.ip_batch("link set tagged up\naddress add 10.7.0.254/24 dev tagged")?;
        inside.ip("link add link eth0 name eth0.7 type vlan id 7")?;
        inside.ip_batch("link set eth0.7 up\naddress add 10.7.0.1/24 dev eth0.7")?;
        let before = self.counted("101")?;
        let sent = self.exchange(inside, "10.7.0.1", host, "10.7.0.254")?;
        let counted = self.counted("101")?.since(before);
        let well = trafctl(&self.lab, &["status"])?;
        let row = Row::new("a VLAN device above a container's interface", "64 datagrams", SENDER)
            .amounts(sent, counted)
            .fact("`status` reports no problem", well.status.success());
        inside.ip("link delete eth0.7")?;
        host.ip("link delete tagged")?;
        Ok(row)
    }

    /// Two interfaces of one container: each packet passes one of them.
    fn bond(&self) -> Result<Row> {
        let inside = Namespace::new("bonded")?;
        for number in [0, 1] {
            self.lab.host().ip_batch(&format!(
                "link add veth103.{number} type veth peer name eth{number} netns {}
                 link set veth103.{number} master br0 up",
                inside.name()
            ))?;
        }
        inside.ip("link add bond0 type bond mode balance-rr")?;
        inside.ip_batch(
            "link set eth0 master bond0\nlink set eth1 master bond0\nlink set bond0 up\n\
             address add 10.1.0.3/8 dev bond0",
        )?;
        eventually("both interfaces are attached", || {
            Ok(Counters::read(&self.lab)?
                .interfaces
                .iter()
                .filter(|row| row.container.as_deref() == Some("103"))
                .count()
                == 2)
        })?;
        // The bridge learns the address, so that nothing is flooded to both ports.
        self.exchange(&inside, "10.1.0.3", self.a.namespace(), "10.1.0.1")?;
        let before = self.counted("103")?;
        let sent = self.exchange(&inside, "10.1.0.3", self.a.namespace(), "10.1.0.1")?;
        let counted = self.counted("103")?.since(before);
        let each = ["veth103.0", "veth103.1"]
            .map(|name| Counters::read(&self.lab).map(|all| all.interface(name).out_skbs));
        let [first, second] = each;
        Ok(Row::new("a bond of two interfaces in a container", "64 datagrams", SENDER)
            .amounts(sent, counted)
            .fact("both interfaces carried some", first? > 5 && second? > 5))
    }

    /// A device in a container that is on the uplink: named, and a gap.
    fn on_uplink(&self, case: &str, kind: &str, options: &str) -> Result<Row> {
        let inside = Namespace::new(kind)?;
        let host = self.lab.host();
        host.ip(&format!("link add link eno1 name eth0 netns {} type {options}", inside.name()))?;
        inside.ip_batch("link set eth0 up\naddress add 10.9.0.7/24 dev eth0")?;
        if kind == "vlan" {
            self.outside.ip("link add link wire name wire.5 type vlan id 5")?;
            self.outside.ip_batch(
                "address flush dev wire\nlink set wire.5 up\naddress add 10.9.0.254/24 dev wire.5",
            )?;
        }
        self.exchange(&inside, "10.9.0.7", &self.outside, "10.9.0.254")?;
        let label = format!("{}/eth0", inside.name());
        let row = self.gap(case, &label, &inside, "eth0")?;
        let told = self.tells_of(&label, &format!("{kind} on eno1"))?;
        if kind == "vlan" {
            self.outside.ip("link delete wire.5")?;
            self.outside.ip("address add 10.9.0.254/24 dev wire")?;
        }
        Ok(row.fact("`status` names it and exits with 1", told))
    }

    /// A gap that must have the size that the kernel's statistics have.
    fn gap(&self, case: &str, label: &str, inside: &Namespace, interface: &str) -> Result<Row> {
        let (mut is, mut gap) = ([0; 4], [0; 4]);
        // Only waits: the row compares the figures that were read last. A neighbour may be asked for meanwhile.
        let _ = eventually("the gap has its size", || {
            is = carried(inside, interface)?;
            gap = bypassed(&self.lab, label)?;
            Ok(is[2] >= 23 && is == gap)
        });
        let mut row = Row::new(case, "64 datagrams", STATISTICS).fact("it carried some", is[2] >= 23);
        for (at, name) in ["in buffers", "in bytes", "out buffers", "out bytes"].into_iter().enumerate() {
            row = row.count(name, is[at], gap[at]);
        }
        Ok(row)
    }

    /// Its hooks are those of a veth. What a program on it takes elsewhere is a gap.
    fn netkit(&self, evidence: &mut Evidence) -> Result<()> {
        let inside = Namespace::new("netkit")?;
        let host = self.lab.host();
        // Debian's `ip` cannot name the other end.
        host.ip("link add kit0 type netkit")?;
        let listed = host.ip("-o link show type netkit")?;
        let peer =
            listed.split_whitespace().find_map(|word| word.strip_suffix("@kit0:")).context("no other end")?;
        host.ip(&format!("link set {peer} netns {}", inside.name()))?;
        inside.ip_batch(&format!("link set {peer} up\naddress add 10.8.0.7/24 dev {peer}"))?;
        host.ip_batch("link set kit0 up\naddress add 10.8.0.254/24 dev kit0")?;
        eventually("it is attached", || {
            Ok(Counters::read(&self.lab)?.interfaces.iter().any(|row| row.interface == "kit0"))
        })?;
        let before = self.counted("kit")?;
        let sent = self.exchange(&inside, "10.8.0.7", host, "10.8.0.254")?;
        let counted = self.counted("kit")?.since(before);
        evidence.row(Row::new("a netkit", "64 datagrams", SENDER).amounts(sent, counted));

        let gap_before = bypassed(&self.lab, "kit0")?;
        let _redirect = Foreign::netkit_redirect(host, "kit0", "eno1")?;
        let was = carried(&inside, peer)?;
        inside.enter(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            for _ in 0..29 {
                socket.send_to(&[5; PAYLOAD], "10.8.0.254:9")?;
            }
            Ok(())
        })?;
        let now = carried(&inside, peer)?;
        let is: [u64; 4] = std::array::from_fn(|at| now[at] - was[at]);
        let grown = || {
            anyhow::Ok(
                bypassed(&self.lab, "kit0")?.iter().zip(gap_before).map(|(a, b)| a - b).collect::<Vec<_>>(),
            )
        };
        let _ = eventually("the gap has its size", || Ok(grown()? == is));
        let gap = grown()?;
        let told = output(&mut self.lab.trafctl(&["status"])?)?;
        evidence.row(
            Row::new("a netkit whose program redirects what the container sends", "29 datagrams", STATISTICS)
                .fact("it carried them", is[2] == 29)
                .count("out buffers", is[2], gap[2])
                .count("out bytes", is[3], gap[3])
                .fact("`status` exits with 1", told.status.code() == Some(1)),
        );
        Ok(())
    }

    /// The kernel's datapath of Open vSwitch, with the ports of both containers, and a port of its own in a third.
    fn switch(&self, evidence: &mut Evidence) -> Result<()> {
        let host = self.lab.host();
        let switch = |arguments: &[&str]| run_ok(host.command(PROGRAM).args(arguments)).map(drop);
        let inside = Namespace::new("switched")?;
        host.ip_batch("link set veth101.0 nomaster\nlink set veth102.0 nomaster")?;
        switch(&["add-dp", "dp0"])?;
        switch(&["add-if", "dp0", "veth101.0"])?;
        switch(&["add-if", "dp0", "veth102.0"])?;
        for (from, to) in [("1", "2"), ("2", "1")] {
            switch(&["add-flow", "dp0", &format!("in_port({from}),eth(),eth_type(0x0800),ipv4()"), to])?;
        }
        let (a, b) = (&self.a, &self.b);
        let before = [self.counted("101")?, self.counted("102")?];
        let sent = self.exchange(a.namespace(), &a.v4().to_string(), b.namespace(), &b.v4().to_string())?;
        let counted = self.counted("101")?.since(before[0]);
        let other = self.counted("102")?.since(before[1]);
        evidence.row(
            Row::new("ports of Open vSwitch, in the kernel's datapath", "64 datagrams", SENDER)
                .amounts(sent, counted)
                .count("packets in of the other", sent.out_packets, other.in_packets)
                .count("packets out of the other", sent.in_packets, other.out_packets),
        );
        switch(&["add-if", "dp0", "own0,type=internal"])?;
        host.ip(&format!("link set own0 netns {}", inside.name()))?;
        inside.ip_batch("link set own0 up\naddress add 10.1.0.5/24 dev own0")?;
        inside.ip(&format!("neighbour replace {} lladdr {} dev own0", a.v4(), a.mac()))?;
        switch(&["add-flow", "dp0", "in_port(3),eth(),eth_type(0x0800),ipv4()", "1"])?;
        let before = self.counted("101")?;
        let sent = udp_send(&inside, a.namespace(), SocketAddr::new(a.v4(), 0), 37, PAYLOAD)?;
        let counted = self.counted("101")?.since(before);
        let label = format!("{}/own0", inside.name());
        let row = self.gap("an internal port of Open vSwitch in a container", &label, &inside, "own0")?;
        evidence.row(
            row.count("packets in, of the container that got them", sent.packets, counted.in_packets)
                .fact("`status` names it and exits with 1", self.tells_of(&label, "an internal port")?),
        );
        Ok(())
    }
}
