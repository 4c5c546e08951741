//! What `trafctl dump` says, as the tests compare it: parsed anew here, from the documented JSON.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::Lab;

/// Packets and layer-3 bytes in both directions, as the container sees them.
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
    /// Only what goes in to the container.
    #[must_use]
    pub const fn incoming(packets: u64, bytes: u64) -> Self {
        Self { in_bytes: bytes, in_packets: packets, out_bytes: 0, out_packets: 0 }
    }

    /// Only what comes out of the container.
    #[must_use]
    pub const fn outgoing(packets: u64, bytes: u64) -> Self {
        Self { in_bytes: 0, in_packets: 0, out_bytes: bytes, out_packets: packets }
    }

    /// Both directions, each from packets and bytes.
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

    /// What came since an earlier reading; a counter that went back shows as a huge number.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.zip(earlier, u64::wrapping_sub)
    }
}

/// One class counter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ClassRow {
    /// The container's id.
    pub container: String,
    /// The class.
    pub class: u8,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// What was counted.
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// One fault counter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FaultRow {
    /// Name of the interface.
    pub interface: String,
    /// Name of the fault.
    pub fault: String,
    /// What was counted.
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// What passed one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct InterfaceRow {
    /// Name of the interface.
    pub interface: String,
    /// Its container, unless many share it.
    pub container: Option<String>,
    /// What was counted.
    #[serde(flatten)]
    pub amounts: Amounts,
    /// Buffers to the container.
    pub in_skbs: u64,
    /// Their bytes with the link layer.
    pub in_skb_bytes: u64,
    /// Packets whose size was estimated.
    pub in_estimated_packets: u64,
    /// Buffers that the kernel counted before the program was attached.
    pub in_unseen_skbs: u64,
    /// Their bytes.
    pub in_unseen_skb_bytes: u64,
    /// Buffers from the container.
    pub out_skbs: u64,
    /// Their bytes with the link layer.
    pub out_skb_bytes: u64,
    /// Packets whose size was estimated.
    pub out_estimated_packets: u64,
    /// Buffers that the kernel counted before the program was attached.
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

/// What was counted for containers and interfaces whose slots went to others.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FormerRow {
    /// What passed.
    pub passed: Amounts,
    /// What of that is in classes.
    pub classes: Amounts,
    /// What of that is in faults.
    pub faults: Amounts,
}

/// One reading of all counters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Counters {
    /// The table in force.
    pub class_table: TableRow,
    /// Class counters.
    pub counters: Vec<ClassRow>,
    /// Fault counters.
    pub faults: Vec<FaultRow>,
    /// Interfaces.
    pub interfaces: Vec<InterfaceRow>,
    /// What is in nobody's name any more.
    pub former_owners: FormerRow,
}

impl Counters {
    /// Reads them with `trafctl dump`.
    ///
    /// # Errors
    ///
    /// When the program fails or prints something else.
    pub fn read(lab: &Lab) -> Result<Self> {
        Ok(serde_json::from_value(lab.run_json(&["dump", "--format", "json"])?)?)
    }

    /// Reads them until nothing moves any more, and checks that nothing is missing: what passed is in a class or a
    /// fault, over the node, and over each interface whose container has no other.
    ///
    /// # Errors
    ///
    /// When traffic does not come to rest, or the sums differ.
    pub fn at_rest(lab: &Lab) -> Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut last = Self::read(lab)?;
        loop {
            thread::sleep(Duration::from_millis(30));
            let now = Self::read(lab)?;
            if now == last {
                now.check_balance()?;
                return Ok(now);
            }
            ensure!(Instant::now() < deadline, "the traffic does not come to rest");
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
            "passed {passed:?} is not classes {classes:?} + faults {faults:?} in {self:#?}"
        );
        // An interface and its container need not have given up their slots at the same time.
        let one_to_one = former.passed == Amounts::default();
        for row in self.interfaces.iter().filter(|_| one_to_one) {
            let Some(container) = &row.container else { continue };
            let siblings =
                self.interfaces.iter().filter(|other| other.container.as_ref() == Some(container)).count();
            let shared =
                self.interfaces.iter().any(|other| other.container.is_none() && other.interface != "(other)");
            if siblings > 1 || shared {
                continue;
            }
            let faults = sum(self.faults.iter().filter(|f| f.interface == row.interface).map(|f| f.amounts));
            let expected = self.container(container).plus(faults);
            ensure!(
                row.amounts == expected,
                "{}: passed {:?}, counted {expected:?}",
                row.interface,
                row.amounts
            );
        }
        Ok(())
    }

    /// One class counter, zero if it is not there.
    #[must_use]
    pub fn class(&self, container: &str, class: u8, family: &str) -> Amounts {
        sum(self
            .counters
            .iter()
            .filter(|row| row.container == container && row.class == class && row.family == family)
            .map(|row| row.amounts))
    }

    /// All classes and families of a container.
    #[must_use]
    pub fn container(&self, container: &str) -> Amounts {
        sum(self.counters.iter().filter(|row| row.container == container).map(|row| row.amounts))
    }

    /// One fault of one interface, zero if it is not there.
    #[must_use]
    pub fn fault(&self, interface: &str, fault: &str) -> Amounts {
        sum(self
            .faults
            .iter()
            .filter(|row| row.interface == interface && row.fault == fault)
            .map(|row| row.amounts))
    }

    /// What passed one interface; nothing if it is not there.
    #[must_use]
    pub fn interface(&self, interface: &str) -> InterfaceRow {
        self.interfaces.iter().find(|row| row.interface == interface).cloned().unwrap_or_default()
    }
}

pub(crate) fn sum(amounts: impl Iterator<Item = Amounts>) -> Amounts {
    amounts.fold(Amounts::default(), Amounts::plus)
}
