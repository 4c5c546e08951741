//! A qdisc as a witness: the kernel accounts a GSO buffer in it as the packets that it becomes.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::process::run_ok;

/// The packets that left a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QdiscCount {
    /// Packets on the wire.
    pub packets: u64,
    /// Bytes on the wire, including the link header of each packet.
    pub bytes: u64,
    /// Buffers that the queue dropped. They are not part of the other two.
    pub drops: u64,
}

impl QdiscCount {
    /// Layer-3 bytes, given the length of the link header: 14 on Ethernet, 0 on `venet0`.
    #[must_use]
    pub fn l3_bytes(&self, link_header: u64) -> u64 {
        self.bytes - self.packets * link_header
    }

    /// The growth since an earlier count.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            bytes: self.bytes - earlier.bytes,
            drops: self.drops - earlier.drops,
        }
    }
}

/// A plain FIFO queue at the egress of an interface, for its statistics. It starts at zero. On a container's
/// `eth0` it counts that container's `out`; on a sender's, the packets towards the receiver.
///
/// Packet counts are exact for this kernel's own TCP and UDP. A super-packet from a tap or TUN device counts
/// as zero packets until the kernel has validated it. That happens on the way through an untrusted device (a
/// veth, a bridge), not on the way to one. Byte counts are always exact.
#[derive(Debug)]
pub struct QdiscWitness<'a> {
    namespace: &'a Namespace,
    interface: String,
}

impl<'a> QdiscWitness<'a> {
    /// Creates the queue. It is long enough for everything that a test sends.
    ///
    /// # Errors
    ///
    /// When the interface does not exist or has a root qdisc.
    pub fn attach(namespace: &'a Namespace, interface: &str) -> Result<Self> {
        let arguments = ["qdisc", "add", "dev", interface, "root", "pfifo", "limit", "10000"];
        run_ok(namespace.command("tc").args(arguments))?;
        Ok(Self { namespace, interface: interface.to_owned() })
    }

    /// The count so far.
    ///
    /// # Errors
    ///
    /// When the interface is gone.
    pub fn read(&self) -> Result<QdiscCount> {
        let text =
            run_ok(self.namespace.command("tc").args(["-s", "-j", "qdisc", "show", "dev", &self.interface]))?;
        let value: Value = serde_json::from_str(&text).context("cannot read the output of tc -j")?;
        let queue = value
            .as_array()
            .and_then(|all| all.iter().find(|queue| queue["kind"] == "pfifo"))
            .with_context(|| format!("no pfifo on {}", self.interface))?;
        let field = |name: &str| queue[name].as_u64().with_context(|| format!("no {name} in {text}"));
        Ok(QdiscCount { packets: field("packets")?, bytes: field("bytes")?, drops: field("drops")? })
    }
}

impl Drop for QdiscWitness<'_> {
    fn drop(&mut self) {
        // The interface may be gone, and the queue with it.
        let _ = run_ok(self.namespace.command("tc").args(["qdisc", "del", "dev", &self.interface, "root"]));
    }
}
