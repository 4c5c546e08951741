//! An interface's own statistics, as any monitoring reads them: buffers, before segmentation.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::namespace::Namespace;

/// The statistics of an interface, from its own point of view (a container's `in` is its host side's tx). With
/// offloads on they count buffers: fewer packets and fewer bytes than the wire.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceStatistics {
    /// Bytes received, link header included.
    pub rx_bytes: u64,
    /// Buffers received.
    pub rx_packets: u64,
    /// Buffers received and not passed on.
    pub rx_dropped: u64,
    /// Bytes sent, link header included.
    pub tx_bytes: u64,
    /// Buffers sent.
    pub tx_packets: u64,
    /// Buffers that the device could not send.
    pub tx_dropped: u64,
}

impl InterfaceStatistics {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// When there is no such interface.
    pub fn read(namespace: &Namespace, interface: &str) -> Result<Self> {
        let text = namespace.ip(&format!("-j -s link show dev {interface}"))?;
        let value: Value = serde_json::from_str(&text).context("read the output of ip -j")?;
        let field = |direction: &str, name: &str| {
            value[0]["stats64"][direction][name]
                .as_u64()
                .with_context(|| format!("no {direction} {name} in the statistics of {interface}"))
        };
        Ok(Self {
            rx_bytes: field("rx", "bytes")?,
            rx_packets: field("rx", "packets")?,
            rx_dropped: field("rx", "dropped")?,
            tx_bytes: field("tx", "bytes")?,
            tx_packets: field("tx", "packets")?,
            tx_dropped: field("tx", "dropped")?,
        })
    }
}
