//! What the traffic tests share: a node with two containers, and a comparison of all its counters at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use traffic_tests::container::introduce;
use traffic_tests::traffic::{TcpSide, UdpCount};
use traffic_tests::witness::NftCounter;
use traffic_tests::{Amounts, Container, Counters, Lab};

pub const MEGABYTE: u64 = 1 << 20;

/// The networks of each container are a class of their own, so traffic to another is in the other's class.
pub const CLASSES: &str =
    "1 10.1.0.0/16\n1 fd00:1::/32\n2 10.2.0.0/16\n2 fd00:2::/32\n3 10.3.0.0/16\n3 fd00:3::/32\n";

/// A node with a class table that the first attach loads.
pub fn node(name: &str, classes: &str) -> Result<Lab> {
    let lab = Lab::new(name)?;
    let file = lab.write("classes", classes)?;
    // Peers outside the node are behind an interface of this name.
    let ignored = "[[interfaces.rule]]\npattern = 'uplink'\nkind = 'ignore'\n";
    lab.configure(&format!("class_file = {file:?}\n{ignored}"))?;
    Ok(lab)
}

/// Two bridged containers that know each other: 101 in class 1, 102 in class 2, both attached.
pub fn neighbours(lab: &Lab) -> Result<(Container, Container)> {
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 2, 0, 1].into(), "fd00:2::1".parse()?)?;
    introduce(&[&a, &b])?;
    lab.run_ok(&["attach"])?;
    Ok((a, b))
}

/// An address with port 0, for which the kernel chooses one.
pub fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

/// The name of an address family in the counters.
pub fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// Packets and bytes of a witness.
pub trait Wire {
    /// Packets on the wire and their layer-3 bytes.
    fn wire(&self) -> (u64, u64);
}

impl Wire for TcpSide {
    fn wire(&self) -> (u64, u64) {
        (self.segments, self.l3_bytes)
    }
}

impl Wire for UdpCount {
    fn wire(&self) -> (u64, u64) {
        (self.packets, self.l3_bytes)
    }
}

impl Wire for NftCounter {
    fn wire(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }
}

impl Wire for (u64, u64) {
    fn wire(&self) -> (u64, u64) {
        *self
    }
}

/// The amounts of a container, each direction from its sender.
pub fn amounts(incoming: &impl Wire, outgoing: &impl Wire) -> Amounts {
    Amounts::both(incoming.wire(), outgoing.wire())
}

/// No traffic in a direction.
pub const NONE: (u64, u64) = (0, 0);

/// Every counter that a test expects to grow, under a readable name. All others must be zero.
#[derive(Debug, Default)]
pub struct Expected(BTreeMap<String, Amounts>);

impl Expected {
    /// Adds to the counter of a container, a class and a family.
    #[must_use]
    pub fn class(self, container: &str, class: u8, family: &str, amounts: Amounts) -> Self {
        self.add(format!("container {container} class {class} {family}"), amounts)
    }

    /// Adds to the counter of an interface and a fault.
    #[must_use]
    pub fn fault(self, interface: &str, fault: &str, amounts: Amounts) -> Self {
        self.add(format!("interface {interface} fault {fault}"), amounts)
    }

    fn add(mut self, counter: String, amounts: Amounts) -> Self {
        let sum = self.0.entry(counter).or_default();
        *sum = sum.plus(amounts);
        self
    }

    /// Waits until the traffic has ended and compares all counters, including their balance. No size may be
    /// estimated, because this kernel states the kind of every super-packet.
    pub fn compare(self, lab: &Lab) -> Result<Counters> {
        let counters = Counters::at_rest(lab)?;
        let mut counted = Self::default();
        for row in &counters.counters {
            counted = counted.class(&row.container, row.class, &row.family, row.amounts);
        }
        for row in &counters.faults {
            counted = counted.fault(&row.interface, &row.fault, row.amounts);
        }
        let mut differences = String::new();
        let names: BTreeSet<_> = self.0.keys().chain(counted.0.keys()).collect();
        for name in names {
            let of = |all: &Self| all.0.get(name).copied().unwrap_or_default();
            if of(&counted) != of(&self) {
                differences += &format!("\n{name}: counted {:?}\n  expected {:?}", of(&counted), of(&self));
            }
        }
        ensure!(differences.is_empty(), "the counters differ:{differences}");
        for row in &counters.interfaces {
            let estimated = (row.in_estimated_packets, row.out_estimated_packets);
            ensure!(estimated == (0, 0), "{}: {estimated:?} packets were estimated", row.interface);
        }
        Ok(counters)
    }
}
