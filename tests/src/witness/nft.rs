//! nftables counters at both hooks of an interface: buffers and layer-3 bytes, by family. They are exact when
//! each buffer is one packet (offloads off).

use std::collections::HashMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::process::{run_ok, run_with_input};

/// The value of one counter.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct NftCounter {
    /// Buffers.
    pub packets: u64,
    /// Layer-3 bytes.
    pub bytes: u64,
}

/// The counters of one direction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct NftDirection {
    /// IPv4.
    pub v4: NftCounter,
    /// IPv6.
    pub v6: NftCounter,
    /// Everything else, such as ARP.
    pub other: NftCounter,
}

impl NftDirection {
    /// The sum over all families.
    #[must_use]
    pub fn buffers(&self) -> u64 {
        self.v4.packets + self.v6.packets + self.other.packets
    }
}

/// Both directions, as seen by the interface.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct NftCount {
    /// Received by the interface.
    pub ingress: NftDirection,
    /// Sent by the interface.
    pub egress: NftDirection,
}

/// An nftables table with counters at one interface.
#[derive(Debug)]
pub struct NftWitness<'a> {
    namespace: &'a Namespace,
    table: String,
    link_header: u64,
}

impl<'a> NftWitness<'a> {
    /// Creates the counters at zero.
    ///
    /// # Errors
    ///
    /// When the interface does not exist.
    pub fn attach(namespace: &'a Namespace, interface: &str) -> Result<Self> {
        let link = namespace.ip(&format!("-j link show dev {interface}"))?;
        let link: Value = serde_json::from_str(&link).context("cannot read the output of ip -j")?;
        // At egress a buffer has its link header, at ingress no longer.
        let link_header = if link[0]["link_type"] == "ether" { 14 } else { 0 };
        let table = format!("witness-{interface}").replace(['.', '-'], "_");
        let mut text = format!("table netdev {table} {{\n");
        for hook in ["ingress", "egress"] {
            for family in ["v4", "v6", "other"] {
                text += &format!("    counter {hook}_{family} {{ }}\n");
            }
            text += &format!(
                "    chain {hook} {{
        type filter hook {hook} device \"{interface}\" priority 0; policy accept;
        meta protocol ip counter name {hook}_v4 accept
        meta protocol ip6 counter name {hook}_v6 accept
        counter name {hook}_other
    }}\n"
            );
        }
        text += "}\n";
        run_with_input(namespace.command("nft").args(["-f", "-"]), &text)?;
        Ok(Self { namespace, table, link_header })
    }

    /// The counts so far.
    ///
    /// # Errors
    ///
    /// When the table is gone.
    pub fn read(&self) -> Result<NftCount> {
        let all = counters(self.namespace, "netdev", &self.table)?;
        let counter = |name: &str, link_header: u64| {
            let &NftCounter { packets, bytes } =
                all.get(name).with_context(|| format!("no counter {name}"))?;
            anyhow::Ok(NftCounter { packets, bytes: bytes - packets * link_header })
        };
        let direction = |hook: &str, link_header: u64| {
            anyhow::Ok(NftDirection {
                v4: counter(&format!("{hook}_v4"), link_header)?,
                v6: counter(&format!("{hook}_v6"), link_header)?,
                other: counter(&format!("{hook}_other"), link_header)?,
            })
        };
        Ok(NftCount { ingress: direction("ingress", 0)?, egress: direction("egress", self.link_header)? })
    }
}

impl Drop for NftWitness<'_> {
    fn drop(&mut self) {
        // The namespace may be gone, and the table with it.
        let _ = run_ok(self.namespace.command("nft").args(["delete", "table", "netdev", &self.table]));
    }
}

/// The named counters of a table.
fn counters(namespace: &Namespace, family: &str, table: &str) -> Result<HashMap<String, NftCounter>> {
    let text = run_ok(namespace.command("nft").args(["-j", "list", "table", family, table]))?;
    let value: Value = serde_json::from_str(&text).context("cannot read the output of nft -j")?;
    let all = value["nftables"].as_array().context("no objects in the output of nft -j")?;
    let named = all.iter().map(|object| &object["counter"]).filter_map(|counter| {
        let value = NftCounter { packets: counter["packets"].as_u64()?, bytes: counter["bytes"].as_u64()? };
        Some((counter["name"].as_str()?.to_owned(), value))
    });
    Ok(named.collect())
}

/// The resets with which a namespace answers segments that have no socket. They are in no connection's
/// `TCP_INFO`. On a busy machine they occur, when a retransmitted segment arrives after the connection has
/// ended. Their TCP header has no options, which distinguishes them from the resets of a connection, which
/// have timestamps here.
#[derive(Debug)]
pub struct StrayResets<'a> {
    namespace: &'a Namespace,
}

impl<'a> StrayResets<'a> {
    const TABLE: &'static str = "table inet stray_resets {
    counter sent { }
    chain output {
        type filter hook output priority 0; policy accept;
        tcp flags & rst == rst tcp doff 5 counter name sent
    }
}
";

    /// Starts to count.
    ///
    /// # Errors
    ///
    /// When a table for them exists already.
    pub fn watch(namespace: &'a Namespace) -> Result<Self> {
        run_with_input(namespace.command("nft").args(["-f", "-"]), Self::TABLE)?;
        Ok(Self { namespace })
    }

    /// Their number and their layer-3 bytes.
    ///
    /// # Errors
    ///
    /// When the table is gone.
    pub fn read(&self) -> Result<NftCounter> {
        let all = counters(self.namespace, "inet", "stray_resets")?;
        all.get("sent").copied().context("no counter of stray resets")
    }
}
