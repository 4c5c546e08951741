//! The kernel's interface statistics, which monitoring systems read. They count buffers, before segmentation.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::namespace::Namespace;

/// The statistics of an interface, as seen by the interface: `in` of a container is tx of its host side. With
/// offloads on they count buffers, which are fewer packets and fewer bytes than on the wire.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceStatistics {
    /// Bytes received, including link headers.
    pub rx_bytes: u64,
    /// Buffers received.
    pub rx_packets: u64,
    /// Buffers received and dropped.
    pub rx_dropped: u64,
    /// Bytes sent, including link headers.
    pub tx_bytes: u64,
    /// Buffers sent.
    pub tx_packets: u64,
    /// Buffers that the device could not send.
    pub tx_dropped: u64,
}

impl InterfaceStatistics {
    /// Reads the statistics.
    ///
    /// # Errors
    ///
    /// When the interface does not exist.
    pub fn read(namespace: &Namespace, interface: &str) -> Result<Self> {
        let text = namespace.ip(&format!("-j -s link show dev {interface}"))?;
        let value: Value = serde_json::from_str(&text).context("cannot read the output of ip -j")?;
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
