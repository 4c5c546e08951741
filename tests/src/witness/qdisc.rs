//! A queueing discipline as a witness: the kernel accounts a GSO buffer in it as the packets it will become.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::process::run_ok;

/// What has left through a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QdiscCount {
    /// Packets on the wire.
    pub packets: u64,
    /// Bytes on the wire, the link header of every packet included.
    pub bytes: u64,
    /// Buffers the queue had no room for. They are not in the other two.
    pub drops: u64,
}

impl QdiscCount {
    /// Layer-3 bytes, where every packet has a link header of this length: 14 on Ethernet, 0 on `venet0`.
    #[must_use]
    pub fn l3_bytes(&self, link_header: u64) -> u64 {
        self.bytes - self.packets * link_header
    }

    /// What was added since an earlier count.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            bytes: self.bytes - earlier.bytes,
            drops: self.drops - earlier.drops,
        }
    }
}

/// A plain first-in first-out queue at an interface's egress, for its statistics. It counts from nothing when
/// made. What it counts on a container's `eth0` is that container's `out`; on a sender's, what is on its way to
/// the receiver.
///
/// Packets are exact for what this kernel's own TCP and UDP have made. A super-packet that came out of a tap or a
/// TUN device counts as no packet at all until the kernel has looked into it, which it does on the way through a
/// device that can't be trusted with it (a veth, a bridge), not on the way to one. Bytes are exact for all.
#[derive(Debug)]
pub struct QdiscWitness<'a> {
    namespace: &'a Namespace,
    interface: String,
}

impl<'a> QdiscWitness<'a> {
    /// Puts the queue in place. It is long enough never to drop what a test sends.
    ///
    /// # Errors
    ///
    /// When there is no such interface, or it has a root queue already.
    pub fn attach(namespace: &'a Namespace, interface: &str) -> Result<Self> {
        let arguments = ["qdisc", "add", "dev", interface, "root", "pfifo", "limit", "10000"];
        run_ok(namespace.command("tc").args(arguments))?;
        Ok(Self { namespace, interface: interface.to_owned() })
    }

    /// What has left so far.
    ///
    /// # Errors
    ///
    /// When the interface is gone.
    pub fn read(&self) -> Result<QdiscCount> {
        let text =
            run_ok(self.namespace.command("tc").args(["-s", "-j", "qdisc", "show", "dev", &self.interface]))?;
        let value: Value = serde_json::from_str(&text).context("read the output of tc -j")?;
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
