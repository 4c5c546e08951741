//! What each query must give, from `trafctl dump`, `trafctl status` and the frames that were sent.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use traffic_tests::Amounts;
use traffic_tests::prometheus::Labels;

/// A result.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    Exactly(f64),
    /// A growth that Prometheus has extrapolated: at least this, and not much more.
    Grown(f64),
    /// What changes by itself.
    Within(f64, f64),
}

/// What is known from elsewhere.
#[derive(Debug)]
pub struct Truth {
    /// What each container and class gained between the first sample and the last.
    pub gained: BTreeMap<(String, u8), Amounts>,
    /// Frames that are not IP, both directions together, by interface.
    pub not_ip: BTreeMap<String, Amounts>,
    /// Places in use and all places of each table.
    pub tables: BTreeMap<String, (f64, f64)>,
    pub prefixes: f64,
    pub hash: String,
    /// How many nodes a query selects. They all show the same.
    pub nodes: f64,
    /// The window of `rate()` in seconds.
    pub window: f64,
}

type Field = fn(&Amounts) -> u64;
const IN: Field = |amounts| amounts.in_bytes;
const OUT: Field = |amounts| amounts.out_bytes;
const BOTH: Field = |amounts| amounts.in_bytes + amounts.out_bytes;
const IN_PACKETS: Field = |amounts| amounts.in_packets;
const OUT_PACKETS: Field = |amounts| amounts.out_packets;

fn label<'l>(labels: &'l Labels, name: &str) -> Result<&'l str> {
    labels.get(name).map(String::as_str).with_context(|| format!("no label {name}"))
}

impl Truth {
    /// What a query with these labels gained, on one node.
    fn gain(&self, field: Field, container: Option<&str>, labels: &Labels) -> Result<f64> {
        let container = container.or_else(|| labels.get("container").map(String::as_str));
        let class = labels.get("class").map(|class| class.parse::<u8>()).transpose()?;
        let rows = self.gained.iter().filter(|((of, at), _)| {
            container.is_none_or(|container| container == of) && class.is_none_or(|class| class == *at)
        });
        let sum: u64 = rows.map(|(_, amounts)| field(amounts)).sum();
        // Exact: far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        Ok(sum as f64)
    }

    /// The frames without a class of one or all interfaces of one node.
    fn not_ip_of(&self, interface: Option<&str>, field: Field) -> f64 {
        let interfaces = self.not_ip.iter().filter(|(name, _)| interface.is_none_or(|one| one == *name));
        let sum: u64 = interfaces.map(|(_, frames)| field(frames)).sum();
        // Exact: far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let sum = sum as f64;
        sum
    }

    /// The result of a query by its name, on the nodes that it selects.
    pub fn of(&self, query: &str, labels: &Labels) -> Result<Expected> {
        let (dashboard, panel) = query.split_once(": ").context("a dashboard")?;
        if let Some(class) = labels.get("class") {
            // Only class 2 has a name.
            let name = labels.get("name").map(String::as_str);
            let is_named = panel.starts_with("Throughput by class") || panel.starts_with("By class");
            ensure!(
                !is_named || name == (class == "2").then_some("exchange"),
                "the name {name:?} of {class}"
            );
        }
        match dashboard {
            "trafctl-overview" => self.overview(panel, labels),
            "trafctl-container" => self.container(panel, labels),
            "trafctl-node" => self.node(panel, labels),
            "rules" => self.rule(panel, labels),
            other => bail!("nothing is known of {other}"),
        }
    }

    fn overview(&self, panel: &str, labels: &Labels) -> Result<Expected> {
        let gained =
            |field, container| -> Result<f64> { Ok(self.gain(field, container, labels)? * self.nodes) };
        let bits = |field| -> Result<_> { Ok(Expected::Grown(gained(field, None)? * 8.0 / self.window)) };
        let of_one = |field| -> Result<_> {
            label(labels, "instance")?;
            Ok(Expected::Grown(self.gain(field, None, labels)? * 8.0 / self.window))
        };
        Ok(match panel {
            "To containers/A" | "Throughput by class/in" => bits(IN)?,
            "From containers/A" | "Throughput by class/out" => bits(OUT)?,
            "Throughput by node/in" => of_one(IN)?,
            "Throughput by node/out" => of_one(OUT)?,
            "Packets/in" => Expected::Grown(gained(IN_PACKETS, None)? / self.window),
            "Packets/out" => Expected::Grown(gained(OUT_PACKETS, None)? / self.window),
            "Largest containers/in" => Expected::Grown(gained(IN, Some(label(labels, "container")?))?),
            "Largest containers/out" => Expected::Grown(gained(OUT, Some(label(labels, "container")?))?),
            "Largest containers/total" => Expected::Grown(gained(BOTH, Some(label(labels, "container")?))?),
            "Throughput of the largest containers/A" => {
                label(labels, "container")?;
                bits(BOTH)?
            }
            "Containers/A" => Expected::Exactly(2.0),
            "Nodes/A" => Expected::Exactly(self.nodes),
            "Not counted/A" | "Gaps/A" => Expected::Exactly(0.0),
            "Oldest drain/A" => Expected::Within(0.0, 90.0),
            other => bail!("nothing is known of the panel {other}"),
        })
    }

    /// Of container 101.
    fn container(&self, panel: &str, labels: &Labels) -> Result<Expected> {
        let gained = |field| -> Result<f64> { Ok(self.gain(field, Some("101"), labels)? * self.nodes) };
        let bits = |field| -> Result<_> { Ok(Expected::Grown(gained(field)? * 8.0 / self.window)) };
        // The samples rise from zero to the whole rate.
        let percentile = |field| -> Result<_> {
            let whole = gained(field)? * 8.0 / self.window;
            Ok(Expected::Within(whole / 2.0, whole * 1.2))
        };
        // Bytes and packets are extrapolated apart.
        let size = |bytes, packets| -> Result<_> {
            let size = gained(bytes)? / gained(packets)?;
            Ok(Expected::Within(size * 0.95, size * 1.05))
        };
        Ok(match panel {
            "In/A" | "Throughput by class/in" => bits(IN)?,
            "Out/A" | "Throughput by class/out" => bits(OUT)?,
            "In, time shown/A" | "By class/in" | "Volume by hour/in" => Expected::Grown(gained(IN)?),
            "Out, time shown/A" | "By class/out" | "Volume by hour/out" => Expected::Grown(gained(OUT)?),
            "95th percentile, in/A" => percentile(IN)?,
            "95th percentile, out/A" => percentile(OUT)?,
            "Packets/in" => Expected::Grown(gained(IN_PACKETS)? / self.window),
            "Packets/out" => Expected::Grown(gained(OUT_PACKETS)? / self.window),
            "Size of packets/in" => size(IN, IN_PACKETS)?,
            "Size of packets/out" => size(OUT, OUT_PACKETS)?,
            "Node/A" => {
                label(labels, "instance")?;
                Expected::Exactly(1.0)
            }
            other => bail!("nothing is known of the panel {other}"),
        })
    }

    fn node(&self, panel: &str, labels: &Labels) -> Result<Expected> {
        if panel.starts_with("Faults") {
            ensure!(label(labels, "fault")? == "not_ip", "{labels:?}");
        }
        Ok(match panel {
            "Version/A" => {
                label(labels, "version")?;
                Expected::Exactly(1.0)
            }
            "Parts of the daemon/A" => {
                label(labels, "component")?;
                Expected::Exactly(1.0)
            }
            "Last drain/A" | "Age of the last drain/A" => Expected::Within(0.0, 90.0),
            "Class table/A" => Expected::Within(0.0, 600.0),
            "Failed drains/A"
            | "Gaps/A"
            | "Counted twice/A"
            | "Balance/A"
            | "Reported apart/small"
            | "Reported apart/estimated"
            | "Reported apart/copies" => Expected::Exactly(0.0),
            "Interfaces that need somebody/uncounted" | "Interfaces that need somebody/pending" => {
                Expected::Exactly(0.0)
            }
            "Faults by reason/A" => {
                let packets = self.not_ip_of(None, |frames| frames.in_packets + frames.out_packets);
                Expected::Grown(packets / self.window * self.nodes)
            }
            "Faults by interface/A" => {
                Expected::Grown(self.not_ip_of(Some(label(labels, "interface")?), BOTH) * 8.0 / self.window)
            }
            "Places in the kernel's tables/A" => {
                let table = label(labels, "table")?;
                let (used, capacity) = self.tables.get(table).with_context(|| table.to_owned())?;
                Expected::Exactly(used / capacity)
            }
            "Ledger/A" => Expected::Within(4096.0, 1e8),
            "Cost of scraping/A" => Expected::Within(0.0, 5.0),
            "Class tables/prefixes" => {
                ensure!(label(labels, "hash")? == self.hash, "{labels:?}");
                Expected::Exactly(self.prefixes)
            }
            other => bail!("nothing is known of the panel {other}"),
        })
    }

    fn rule(&self, record: &str, labels: &Labels) -> Result<Expected> {
        ensure!(labels.contains_key("instance") && labels.contains_key("job"), "{labels:?}");
        let rate = |field| -> Result<_> { Ok(Expected::Grown(self.gain(field, None, labels)? / 300.0)) };
        let (by, of) = record.split_once(':').context("what it is a sum by")?;
        ensure!(labels.contains_key(by), "{record} has no label {by}");
        Ok(match of {
            "trafctl_network_receive_bytes:rate5m" | "trafctl_billed_receive_bytes:rate5m" => rate(IN)?,
            "trafctl_network_transmit_bytes:rate5m" | "trafctl_billed_transmit_bytes:rate5m" => rate(OUT)?,
            "trafctl_network_receive_packets:rate5m" => rate(IN_PACKETS)?,
            "trafctl_network_transmit_packets:rate5m" => rate(OUT_PACKETS)?,
            "trafctl_interface_fault_bytes:rate5m" => Expected::Grown(self.not_ip_of(None, BOTH) / 300.0),
            "trafctl_table_used:ratio" => return self.node("Places in the kernel's tables/A", labels),
            other => bail!("nothing is known of the rule {other}"),
        })
    }
}
