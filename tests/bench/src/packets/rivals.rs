//! Other methods to count by class: nftables with one map, nftables with a table for each container, iptables
//! with ipset.
//!
//! Prefixes are loaded once. What is attached to a hook is added before each sample and removed after it.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use traffic_tests::{
    Namespace,
    process::{run_ok, run_with_input},
};

use super::node::{CONTAINERS, id, interface};
use crate::{
    control::class_map,
    table::{CLASSES, Table},
};

/// The number of containers with their own nftables table. 100 of them, each with all prefixes, would take
/// ten million elements. Fewer make this method look better, because less memory is accessed.
pub const OWN_TABLES: usize = 4;

fn nft(host: &Namespace, text: &str) -> Result<String> {
    run_with_input(host.command("nft").args(["-f", "-"]), text)
}

/// Loads the map of prefixes, and a counter for each container and class.
pub fn load_nft_map(host: &Namespace, table: &Table) -> Result<()> {
    let mut text = format!("table netdev bench {{\n{}", class_map(table));
    let mut elements = String::new();
    for container in 0..CONTAINERS.into() {
        for class in 0..=CLASSES {
            // A write to a string cannot fail; here and below.
            let _ = writeln!(text, "counter c{}_{class} {{ }}", id(container));
            let _ = writeln!(
                elements,
                "\"{}\" . {class} : \"c{}_{class}\",",
                interface(container),
                id(container)
            );
        }
    }
    let _ = writeln!(
        text,
        "map counters {{\ntype iface_index . mark : counter;\nelements = {{\n{elements}}}\n}}\n}}"
    );
    nft(host, &text).map(drop).context("cannot load an nftables map of prefixes")
}

/// Attaches the map to the interfaces of all containers.
pub fn attach_nft_map(host: &Namespace) -> Result<()> {
    let devices: Vec<_> = (0..CONTAINERS.into()).map(|number| format!("\"{}\"", interface(number))).collect();
    let text = format!(
        "table netdev bench {{ chain in {{
            type filter hook ingress devices = {{ {} }} priority 0; policy accept;
            meta mark set ip daddr map @classes
            counter name iif . meta mark map @counters
        }}
        }}\n",
        devices.join(", ")
    );
    nft(host, &text).map(drop)
}

/// Detaches the map.
pub fn detach_nft_map(host: &Namespace) -> Result<()> {
    nft(host, "delete chain netdev bench in\n").map(drop)
}

/// The packets in the counters of the map.
pub fn nft_map_packets(host: &Namespace) -> Result<u64> {
    let text = run_ok(host.command("nft").args(["-j", "list", "counters", "table", "netdev", "bench"]))?;
    let value: serde_json::Value = serde_json::from_str(&text).context("cannot read the output of nft -j")?;
    let objects = value["nftables"].as_array().context("no objects in the output of nft -j")?;
    Ok(objects.iter().filter_map(|object| object["counter"]["packets"].as_u64()).sum())
}

/// Loads a table with a set and a counter for each class, for each of the first containers.
pub fn load_nft_tables(host: &Namespace, table: &Table) -> Result<()> {
    for container in 0..OWN_TABLES {
        let mut text = format!("table netdev ct{} {{\n", id(container));
        for class in 1..=CLASSES {
            let _ = writeln!(
                text,
                "counter k{class} {{ }}\nset c{class} {{ type ipv4_addr; flags interval;\nelements = {{"
            );
            for line in table.lines.iter().filter(|line| line.class == class) {
                let _ = writeln!(text, "{},", table.prefix(line));
            }
            text.push_str("}\n}\n");
        }
        nft(host, &(text + "}\n")).context("cannot load an nftables table for a container")?;
    }
    Ok(())
}

/// Attaches the tables to the interfaces of the first containers.
pub fn attach_nft_tables(host: &Namespace) -> Result<()> {
    let mut text = String::new();
    for container in 0..OWN_TABLES {
        let _ = writeln!(
            text,
            "table netdev ct{} {{ chain in {{ type filter hook ingress device \"{}\" priority 0; policy accept;",
            id(container),
            interface(container)
        );
        for class in 1..=CLASSES {
            let _ = writeln!(text, "ip daddr @c{class} counter name k{class}");
        }
        text.push_str("}\n}\n");
    }
    nft(host, &text).map(drop)
}

/// Detaches the tables.
pub fn detach_nft_tables(host: &Namespace) -> Result<()> {
    let text: String =
        (0..OWN_TABLES).map(|container| format!("delete chain netdev ct{} in\n", id(container))).collect();
    nft(host, &text).map(drop)
}

/// Loads a set of prefixes for each class.
pub fn load_ipset(host: &Namespace, table: &Table) -> Result<()> {
    let mut text = String::new();
    for class in 1..=CLASSES {
        let _ = writeln!(text, "create c{class} hash:net maxelem {}", table.lines.len());
    }
    for line in &table.lines {
        let _ = writeln!(text, "add c{} {}", line.class, table.prefix(line));
    }
    run_with_input(host.command("ipset").arg("restore"), &text)
        .map(drop)
        .context("cannot load sets of prefixes")
}

/// A chain for each container with a rule for each class.
pub fn attach_ipset(host: &Namespace) -> Result<()> {
    let (mut chains, mut jumps, mut rules) = (String::new(), String::new(), String::new());
    for container in 0..CONTAINERS.into() {
        let chain = format!("ct{}", id(container));
        let _ = writeln!(chains, ":{chain} - [0:0]");
        let _ = writeln!(jumps, "-A FORWARD -i {} -j {chain}", interface(container));
        for class in 1..=CLASSES {
            let _ = writeln!(rules, "-A {chain} -m set --match-set c{class} dst");
        }
    }
    let text = format!("*filter\n:FORWARD ACCEPT [0:0]\n{chains}{jumps}{rules}COMMIT\n");
    run_with_input(&mut host.command("iptables-restore"), &text).map(drop)
}

/// Also removes the hook, because an empty chain has a cost.
pub fn detach_ipset(host: &Namespace) -> Result<()> {
    nft(host, "delete table ip filter\n").map(drop)
}
