//! The output of `trafctl dump`, parsed here from its documented JSON without trafctl's code.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::Lab;

/// Packets and layer-3 bytes in both directions, as seen by the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Amounts {
    /// Bytes to the container.
    pub in_bytes: u64,
    /// Packets to the container.
    pub in_packets: u64,
    /// Bytes from the container.
    pub out_bytes: u64,
    /// Packets from the container.
    pub out_packets: u64,
}

impl Amounts {
    /// Amounts of the direction in, to the container.
    #[must_use]
    pub const fn incoming(packets: u64, bytes: u64) -> Self {
        Self { in_bytes: bytes, in_packets: packets, out_bytes: 0, out_packets: 0 }
    }

    /// Amounts of the direction out, from the container.
    #[must_use]
    pub const fn outgoing(packets: u64, bytes: u64) -> Self {
        Self { in_bytes: 0, in_packets: 0, out_bytes: bytes, out_packets: packets }
    }

    /// Amounts of both directions, each as packets and bytes.
    #[must_use]
    pub const fn both(incoming: (u64, u64), outgoing: (u64, u64)) -> Self {
        Self { in_bytes: incoming.1, in_packets: incoming.0, out_bytes: outgoing.1, out_packets: outgoing.0 }
    }

    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            in_bytes: with(self.in_bytes, other.in_bytes),
            in_packets: with(self.in_packets, other.in_packets),
            out_bytes: with(self.out_bytes, other.out_bytes),
            out_packets: with(self.out_packets, other.out_packets),
        }
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u64::wrapping_add)
    }

    /// The growth since an earlier reading. A counter that went back shows as a huge number.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.zip(earlier, u64::wrapping_sub)
    }
}

/// One class counter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ClassRow {
    /// The id of the container.
    pub container: String,
    /// The class.
    pub class: u8,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The amounts.
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// One fault counter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FaultRow {
    /// The interface.
    pub interface: String,
    /// The name of the fault.
    pub fault: String,
    /// The amounts.
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// The traffic of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct InterfaceRow {
    /// The name of the interface.
    pub interface: String,
    /// The container, unless several share the interface.
    pub container: Option<String>,
    /// Packets and layer-3 bytes on the wire.
    #[serde(flatten)]
    pub amounts: Amounts,
    /// Buffers to the container.
    pub in_skbs: u64,
    /// Their bytes with the link layer.
    pub in_skb_bytes: u64,
    /// Packets whose size was estimated.
    pub in_estimated_packets: u64,
    /// Packets in segments below 48 bytes, and their layer-3 bytes.
    pub in_small_segment_packets: u64,
    /// See `in_small_segment_packets`.
    pub in_small_segment_bytes: u64,
    /// Copies that no wire carried.
    pub in_copied_skbs: u64,
    /// Buffers that the kernel counted while the program was not attached: missed traffic.
    pub in_unseen_skbs: u64,
    /// Their bytes.
    pub in_unseen_skb_bytes: u64,
    /// Buffers from the container.
    pub out_skbs: u64,
    /// Their bytes with the link layer.
    pub out_skb_bytes: u64,
    /// Packets whose size was estimated.
    pub out_estimated_packets: u64,
    /// See `in_small_segment_packets`.
    pub out_small_segment_packets: u64,
    /// See `in_small_segment_packets`.
    pub out_small_segment_bytes: u64,
    /// Copies that no wire carried.
    pub out_copied_skbs: u64,
    /// See `in_unseen_skbs`.
    pub out_unseen_skbs: u64,
    /// Their bytes.
    pub out_unseen_skb_bytes: u64,
}

/// The class table in force.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TableRow {
    /// Its hash.
    pub hash: String,
    /// Its prefixes.
    pub prefixes: u64,
}

/// The amounts of containers and interfaces whose slots were given to others.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FormerRow {
    /// The traffic of their interfaces.
    pub passed: Amounts,
    /// The part of it in class counters.
    pub classes: Amounts,
    /// The part of it in fault counters.
    pub faults: Amounts,
}

/// One reading of all counters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Counters {
    /// The class table in force.
    pub class_table: TableRow,
    /// The class counters that are not zero.
    pub counters: Vec<ClassRow>,
    /// The fault counters that are not zero.
    pub faults: Vec<FaultRow>,
    /// All registered interfaces.
    pub interfaces: Vec<InterfaceRow>,
    /// The amounts of former owners of slots.
    pub former_owners: FormerRow,
}

impl Counters {
    /// Reads the counters with `trafctl dump`.
    ///
    /// # Errors
    ///
    /// When the program fails or its output is not the documented JSON.
    pub fn read(lab: &Lab) -> Result<Self> {
        Ok(serde_json::from_value(lab.run_json(&["dump", "--format", "json"])?)?)
    }

    /// Reads the counters until they stop changing, and checks their balance: interface traffic = classes +
    /// faults. This must hold for the node, and for each interface that is its container's only one.
    ///
    /// # Errors
    ///
    /// When the traffic does not stop, or the sums differ.
    pub fn at_rest(lab: &Lab) -> Result<Self> {
        Self::at_rest_as(|| Self::read(lab))
    }

    /// As [`Counters::at_rest`], with another way to read them.
    ///
    /// # Errors
    ///
    /// See [`Counters::at_rest`]; also when they cannot be read.
    pub fn at_rest_as(read: impl Fn() -> Result<Self>) -> Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut last = read()?;
        loop {
            thread::sleep(Duration::from_millis(30));
            let now = read()?;
            if now == last {
                now.check_balance()?;
                return Ok(now);
            }
            ensure!(Instant::now() < deadline, "the traffic does not stop");
            last = now;
        }
    }

    fn check_balance(&self) -> Result<()> {
        let former = &self.former_owners;
        let passed = sum(self.interfaces.iter().map(|row| row.amounts)).plus(former.passed);
        let classes = sum(self.counters.iter().map(|row| row.amounts)).plus(former.classes);
        let faults = sum(self.faults.iter().map(|row| row.amounts)).plus(former.faults);
        ensure!(
            passed == classes.plus(faults),
            "interfaces {passed:?} differ from classes {classes:?} + faults {faults:?} in {self:#?}"
        );
        // An interface and its container may give up their slots at different times.
        let one_to_one = former.passed == Amounts::default();
        for row in self.interfaces.iter().filter(|_| one_to_one) {
            let Some(container) = &row.container else { continue };
            let siblings =
                self.interfaces.iter().filter(|other| other.container.as_ref() == Some(container)).count();
            let shared =
                self.interfaces.iter().any(|other| other.container.is_none() && other.interface != "(other)");
            // Containers may have devices on an uplink, which is the node's interface.
            let on_uplink = container == "0"
                && self.counters.iter().any(|of| {
                    !self.interfaces.iter().any(|other| other.container.as_ref() == Some(&of.container))
                });
            if siblings > 1 || shared || on_uplink {
                continue;
            }
            let faults = sum(self.faults.iter().filter(|f| f.interface == row.interface).map(|f| f.amounts));
            // What passed may be in faults alone.
            let expected = self.container_or_zero(container).plus(faults);
            ensure!(
                row.amounts == expected,
                "{}: interface {:?}, classes and faults {expected:?}",
                row.interface,
                row.amounts
            );
        }
        Ok(())
    }

    /// One class counter.
    ///
    /// # Panics
    ///
    /// When there is none: a misspelt name must not count as zero. Use [`Counters::class_or_zero`] where the
    /// counter may be absent.
    #[must_use]
    #[track_caller]
    pub fn class(&self, container: &str, class: u8, family: &str) -> Amounts {
        let Some(amounts) = self.find_class(container, class, family) else {
            panic!("no {family} counter of container {container} in class {class} in {self:#?}")
        };
        amounts
    }

    /// One class counter, or zero: `dump` omits a counter that has never counted.
    #[must_use]
    pub fn class_or_zero(&self, container: &str, class: u8, family: &str) -> Amounts {
        self.find_class(container, class, family).unwrap_or_default()
    }

    fn find_class(&self, container: &str, class: u8, family: &str) -> Option<Amounts> {
        let is_it =
            |row: &&ClassRow| row.container == container && row.class == class && row.family == family;
        sum_if_any(self.counters.iter().filter(is_it).map(|row| row.amounts))
    }

    /// All classes and families of a container.
    ///
    /// # Panics
    ///
    /// When the container has no counters.
    #[must_use]
    #[track_caller]
    pub fn container(&self, container: &str) -> Amounts {
        let rows = self.counters.iter().filter(|row| row.container == container);
        let Some(amounts) = sum_if_any(rows.map(|row| row.amounts)) else {
            panic!("no counter of container {container} in {self:#?}")
        };
        amounts
    }

    /// All classes and families of a container, or zero: `dump` omits a counter that has never counted.
    #[must_use]
    pub fn container_or_zero(&self, container: &str) -> Amounts {
        sum(self.counters.iter().filter(|row| row.container == container).map(|row| row.amounts))
    }

    /// One fault of one interface.
    ///
    /// # Panics
    ///
    /// When there is none; see [`Counters::class`].
    #[must_use]
    #[track_caller]
    pub fn fault(&self, interface: &str, fault: &str) -> Amounts {
        let Some(amounts) = self.find_fault(interface, fault) else {
            panic!("no fault {fault} on {interface} in {self:#?}")
        };
        amounts
    }

    /// One fault of one interface, or zero: `dump` omits a fault that has never occurred.
    #[must_use]
    pub fn fault_or_zero(&self, interface: &str, fault: &str) -> Amounts {
        self.find_fault(interface, fault).unwrap_or_default()
    }

    fn find_fault(&self, interface: &str, fault: &str) -> Option<Amounts> {
        let rows = self.faults.iter().filter(|row| row.interface == interface && row.fault == fault);
        sum_if_any(rows.map(|row| row.amounts))
    }

    /// The traffic of one interface.
    ///
    /// # Panics
    ///
    /// When the interface is not registered.
    #[must_use]
    #[track_caller]
    pub fn interface(&self, interface: &str) -> InterfaceRow {
        let Some(row) = self.find_interface(interface) else {
            panic!("no interface {interface} in {self:#?}")
        };
        row
    }

    /// The traffic of one interface, or zero: an interface is registered when it is attached, and `(other)`
    /// with its first packet.
    #[must_use]
    pub fn interface_or_zero(&self, interface: &str) -> InterfaceRow {
        self.find_interface(interface).unwrap_or_default()
    }

    fn find_interface(&self, interface: &str) -> Option<InterfaceRow> {
        self.interfaces.iter().find(|row| row.interface == interface).cloned()
    }
}

fn sum_if_any(mut amounts: impl Iterator<Item = Amounts>) -> Option<Amounts> {
    amounts.next().map(|first| amounts.fold(first, Amounts::plus))
}

pub(crate) fn sum(amounts: impl Iterator<Item = Amounts>) -> Amounts {
    amounts.fold(Amounts::default(), Amounts::plus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> Counters {
        let amounts = Amounts::outgoing(3, 300);
        Counters {
            class_table: TableRow { hash: String::new(), prefixes: 1 },
            counters: vec![ClassRow { container: "101".into(), class: 2, family: "ipv4".into(), amounts }],
            faults: vec![FaultRow { interface: "veth101.0".into(), fault: "not_ip".into(), amounts }],
            interfaces: vec![InterfaceRow { interface: "veth101.0".into(), ..InterfaceRow::default() }],
            former_owners: FormerRow { passed: amounts, classes: amounts, faults: amounts },
        }
    }

    #[test]
    fn what_exists_is_found() {
        let (counters, amounts) = (counters(), Amounts::outgoing(3, 300));
        assert_eq!(counters.class("101", 2, "ipv4"), amounts);
        assert_eq!(counters.class_or_zero("101", 2, "ipv4"), amounts);
        assert_eq!(counters.container("101"), amounts);
        assert_eq!(counters.fault("veth101.0", "not_ip"), amounts);
        assert_eq!(counters.fault_or_zero("veth101.0", "not_ip"), amounts);
        assert_eq!(counters.interface("veth101.0").interface, "veth101.0");
    }

    #[test]
    fn absence_is_zero_only_when_asked_for() {
        let counters = counters();
        assert_eq!(counters.class_or_zero("101", 3, "ipv4"), Amounts::default());
        assert_eq!(counters.fault_or_zero("veth101.0", "truncated"), Amounts::default());
        assert_eq!(counters.interface_or_zero("veth102.0"), InterfaceRow::default());
        let questions: [&(dyn Fn() + std::panic::RefUnwindSafe); 7] = [
            &|| drop(counters.interface("veth102.0")),
            &|| assert_ne!(counters.class("102", 2, "ipv4"), Amounts::incoming(1, 1)),
            &|| assert_ne!(counters.class("101", 3, "ipv4"), Amounts::incoming(1, 1)),
            &|| assert_ne!(counters.class("101", 2, "IPv4"), Amounts::incoming(1, 1)),
            &|| assert_ne!(counters.container("10"), Amounts::incoming(1, 1)),
            &|| assert_ne!(counters.fault("veth101.0", "no_ip"), Amounts::incoming(1, 1)),
            &|| assert_ne!(counters.fault("veth101.1", "not_ip"), Amounts::incoming(1, 1)),
        ];
        for (number, question) in questions.into_iter().enumerate() {
            assert!(std::panic::catch_unwind(question).is_err(), "question {number} found something");
        }
    }
}
