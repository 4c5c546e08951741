//! Metrics about the node itself: its program, its tables, its interfaces, its ledger.

use jiff::Timestamp;
use traffic_common::{Direction, Fault, Tally};
use traffic_model::{ClassTableInfo, Snapshot};

use super::page::{Metric, Page};
use crate::{
    api::{lives::Shown, quota_rows::QuotaFacts},
    kernel::drops::Drops,
    node::status::TableUse,
    quota_actions::LastLooks,
    shipping::ShipState,
};

/// What is known besides the counters.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// What earlier pages showed of the lives of counters.
    pub shown: Shown,
    /// What was dropped behind the hooks; `None` where that is not counted.
    pub drops: Option<Drops>,
    /// How full the tables are; `None` while nobody has looked.
    pub tables: Option<&'a [TableUse]>,
    /// How many interfaces of the host are not watched; `None` while nobody has looked.
    pub not_watched: Option<usize>,
    /// Bytes of the ledger's files.
    pub ledger_bytes: Option<u64>,
    /// What is used of quotas; none while nobody has looked.
    pub quotas: Option<&'a QuotaFacts>,
    /// When somebody last looked for their actions, and for problems of the node.
    pub last_looks: LastLooks,
    /// What became of shipping; `None` where that is not known.
    pub shipped: Option<ShipState>,
}

/// Selects the figure of a fault, or of a table, that a metric shows.
type OfFault = fn(Tally) -> u64;
type OfTable = fn(&TableUse) -> u64;

pub(super) fn build(page: &mut Page) {
    let build = Metric::info("trafctl_build", "The running trafctl.");
    page.open(build);
    page.sample(build, &[("version", &env!("CARGO_PKG_VERSION"))], 1);
}

pub(super) fn class_table(page: &mut Page, table: &ClassTableInfo) {
    page.single(
        Metric::gauge(
            "trafctl_class_table_loaded_timestamp_seconds",
            Some("seconds"),
            "When the class table in force was loaded.",
        ),
        seconds(table.loaded),
    );
    page.single(
        Metric::gauge("trafctl_class_table_prefixes", None, "Prefixes in the class table in force."),
        table.prefixes,
    );
}

/// A time with milliseconds.
pub(super) fn seconds(time: Timestamp) -> String {
    let ms = time.as_millisecond();
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}

/// Faults of each interface that has some. An interface of a new owner begins at zero.
pub(super) fn interface_faults(page: &mut Page, snapshot: &Snapshot) {
    if snapshot.faults.is_empty() {
        return;
    }
    let metrics: [(Metric, OfFault); 2] = [
        (
            Metric::counter(
                "trafctl_interface_fault_packets",
                Some("packets"),
                "Packets of an interface that are in no class, by reason.",
            ),
            |tally| tally.packets,
        ),
        (
            Metric::counter(
                "trafctl_interface_fault_bytes",
                Some("bytes"),
                "Layer-3 bytes of these packets; of a packet that is not IP, its bytes behind the link layer.",
            ),
            |tally| tally.bytes,
        ),
    ];
    for (metric, value) in metrics {
        page.open(metric);
        for counter in &snapshot.faults {
            let fault: Fault = counter.fault;
            for (name, direction) in [("in", Direction::In), ("out", Direction::Out)] {
                let labels: [(&str, &dyn std::fmt::Display); 3] =
                    [("interface", &counter.interface), ("fault", &fault.name()), ("direction", &name)];
                page.sample(metric, &labels, value(*counter.tally.of(direction)));
                page.created(metric, &labels, snapshot.epoch_created);
            }
        }
    }
}

pub(super) fn facts(page: &mut Page, facts: &Facts<'_>) {
    if let Some(tables) = facts.tables {
        let metrics: [(Metric, OfTable); 3] = [
            (Metric::gauge("trafctl_table_used", None, "Places taken in a table of the kernel."), |of| {
                of.used
            }),
            (
                Metric::gauge(
                    "trafctl_table_gone",
                    None,
                    "Taken places whose owner is gone; they can be used again.",
                ),
                |of| of.gone,
            ),
            (Metric::gauge("trafctl_table_capacity", None, "Places in a table of the kernel."), |of| {
                of.capacity
            }),
        ];
        for (metric, value) in metrics {
            page.open(metric);
            for table in tables {
                page.sample(metric, &[("table", &table.table)], value(table));
            }
        }
    }
    if let Some(number) = facts.not_watched {
        page.single(
            Metric::gauge(
                "trafctl_unwatched_interfaces",
                Some("interfaces"),
                "Interfaces of the host that nothing names as a container's; `trafctl status` lists them.",
            ),
            number,
        );
    }
    if let Some(bytes) = facts.ledger_bytes {
        page.single(
            Metric::gauge("trafctl_ledger_bytes", Some("bytes"), "Size of the ledger's file and its log."),
            bytes,
        );
    }
}
