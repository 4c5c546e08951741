//! A [`Snapshot`] as metrics: OpenMetrics, or the Prometheus text format for clients that accept only that.
//!
//! Labels are container ids, classes, names of faults and the hash of the class table. They are never
//! addresses: those are private to the customers, and too many. `page` formats samples, `node` has the
//! metrics about the node itself.

mod drops;
mod node;
mod page;
mod parts;
mod quotas;
mod shipping;

use std::{collections::BTreeMap, fmt::Display};

use traffic_common::{Fault, Tally};
use traffic_model::{ByDirection, PassedCounter, Snapshot};

use crate::{
    api::{DaemonHealth, drain_health::Drains, lives::Shown},
    render::ClassNames,
};
use page::{Kind, Metric, Page};

pub use node::Facts;

/// The format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4.
    Text,
}

impl Format {
    /// OpenMetrics, unless the `Accept` header has plain text and no OpenMetrics.
    pub fn for_accept(accept: Option<&str>) -> Self {
        match accept {
            Some(accept)
                if accept.contains("text/plain") && !accept.contains("application/openmetrics-text") =>
            {
                Self::Text
            }
            _ => Self::OpenMetrics,
        }
    }

    /// The value of the `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The whole page, for a reader that saw no earlier one.
pub fn render(snapshot: &Snapshot, health: &DaemonHealth, format: Format) -> String {
    render_with(snapshot, health, &Facts::default(), format)
}

/// The whole page, with what is known besides the counters.
pub(super) fn render_with(
    snapshot: &Snapshot,
    health: &DaemonHealth,
    facts: &Facts<'_>,
    format: Format,
) -> String {
    let mut page = Page { text: String::new(), format };
    node::build(&mut page);
    network(&mut page, snapshot, &facts.shown);
    if let Some(dropped) = &facts.drops {
        drops::write(&mut page, dropped, snapshot, &facts.shown);
    }

    let table =
        Metric { kind: Kind::Info, name: "trafctl_class_table", unit: None, help: "Class table in force." };
    page.open(table);
    page.sample(table, &[("hash", &snapshot.class_table.hash_hex())], 1);
    node::class_table(&mut page, &snapshot.class_table);
    class_names(&mut page, &health.class_names);

    let faults = Metric {
        kind: Kind::Counter,
        name: "trafctl_faults",
        unit: None,
        help: "Packets that are in no class, by reason.",
    };
    page.open(faults);
    // Including zeros: a rate needs the value before the first fault.
    for fault in Fault::ALL {
        let counters = snapshot.faults.iter().filter(|counter| counter.fault == fault);
        // Including former owners of slots: a counter that falls would be taken for one that restarted.
        let former = snapshot.former_faults[fault as usize].packets;
        let packets = counters.fold(former, |sum: u64, counter| {
            sum.wrapping_add(counter.tally.incoming.packets).wrapping_add(counter.tally.outgoing.packets)
        });
        page.sample(faults, &[("fault", &fault.name())], packets);
        page.created(faults, &[("fault", &fault.name())], snapshot.epoch_created);
    }
    node::interface_faults(&mut page, snapshot);

    let balance = snapshot.balance();
    page.single(
        Metric {
            kind: Kind::Gauge,
            name: "trafctl_unaccounted_bytes",
            unit: Some("bytes"),
            help: "Bytes that passed interfaces less those in classes less those in faults; zero when traffic rests.",
        },
        balance.incoming.unaccounted().1 + balance.outgoing.unaccounted().1,
    );
    let pending = snapshot.interfaces.iter().filter(|interface| interface.ifindex.is_some());
    let pending = pending.filter_map(|interface| interface.container.as_ref());
    page.single(
        Metric {
            kind: Kind::Gauge,
            name: "trafctl_pending_interfaces",
            unit: Some("interfaces"),
            help: "Interfaces that are counted for an owner who is not known yet (container pending:...).",
        },
        pending.filter(|container| container.is_pending()).count(),
    );
    page.single_since(
        Metric {
            kind: Kind::Counter,
            name: "trafctl_estimated_packets",
            unit: Some("packets"),
            help: "Packets of super-packets whose size came from the plain segmentation rule.",
        },
        snapshot.interfaces.iter().fold(snapshot.former_estimated.packets, |sum: u64, interface| {
            sum.wrapping_add(interface.passed.incoming.estimated.packets)
                .wrapping_add(interface.passed.outgoing.estimated.packets)
        }),
        snapshot.epoch_created,
    );
    reported_apart(&mut page, snapshot);
    if let Some(drains) = &health.drains {
        drained(&mut page, drains);
    }
    node::facts(&mut page, facts);
    quotas::write(&mut page, facts.quotas, facts.last_looks);
    shipping::write(&mut page, facts.shipped.as_ref(), snapshot.time);
    parts::write(&mut page, health);
    if format == Format::OpenMetrics {
        page.line(format_args!("# EOF"));
    }
    page.text
}

/// What is counted and also reported apart, and what is reported but not counted, over the whole node.
fn reported_apart(page: &mut Page, snapshot: &Snapshot) {
    let sum = |former: u64, of: fn(&PassedCounter) -> u64| {
        let both = snapshot.interfaces.iter().flat_map(|one| [&one.passed.incoming, &one.passed.outgoing]);
        both.fold(former, |sum, passed| sum.wrapping_add(of(passed)))
    };
    let former = (snapshot.former_small_segments, snapshot.former_copies);
    let counter = |name, unit, help| Metric { kind: Kind::Counter, name, unit: Some(unit), help };
    page.single_since(
        counter(
            "trafctl_small_segment_packets",
            "packets",
            "Packets in segments below 48 bytes, a size that only the sender claims; they are in their class too.",
        ),
        sum(former.0.packets, |passed| passed.small_segments.packets),
        snapshot.epoch_created,
    );
    page.single_since(
        counter("trafctl_small_segment_bytes", "bytes", "Layer-3 bytes of these packets, headers included."),
        sum(former.0.bytes, |passed| passed.small_segments.bytes),
        snapshot.epoch_created,
    );
    page.single_since(
        counter(
            "trafctl_copied_buffers",
            "buffers",
            "Copies that no wire carried, such as what an ifb sends again; in no other figure.",
        ),
        sum(former.1.packets, |passed| passed.copies.packets),
        snapshot.epoch_created,
    );
}

/// Selects the figure of a container that a metric shows.
type Value = fn(&ByDirection<Tally>) -> u64;

/// The traffic of containers, both families added up. An id that went to a new customer restarts at zero, as
/// after a reboot, so that no customer sees another's figures. `lives` says why it may be shown as zero
/// first.
fn network(page: &mut Page, snapshot: &Snapshot, shown: &Shown) {
    let mut sums = BTreeMap::<_, ByDirection<Tally>>::new();
    let present = snapshot.present_counters();
    for counter in &present {
        let sum = sums.entry((&counter.container, counter.class)).or_default();
        for (to, from) in
            [(&mut sum.incoming, counter.tally.incoming), (&mut sum.outgoing, counter.tally.outgoing)]
        {
            to.packets = to.packets.wrapping_add(from.packets);
            to.bytes = to.bytes.wrapping_add(from.bytes);
        }
    }
    let counter = |name, unit, help| Metric { kind: Kind::Counter, name, unit: Some(unit), help };
    let metrics: [(Metric, Value); 4] = [
        (
            counter(
                "trafctl_network_receive_bytes",
                "bytes",
                "Layer-3 bytes to the container, as on the wire.",
            ),
            |sum| sum.incoming.bytes,
        ),
        (
            counter(
                "trafctl_network_transmit_bytes",
                "bytes",
                "Layer-3 bytes from the container, as on the wire.",
            ),
            |sum| sum.outgoing.bytes,
        ),
        (
            counter("trafctl_network_receive_packets", "packets", "Packets on the wire to the container."),
            |sum| sum.incoming.packets,
        ),
        (
            counter("trafctl_network_transmit_packets", "packets", "Packets on the wire from the container."),
            |sum| sum.outgoing.packets,
        ),
    ];
    for (metric, value) in metrics {
        page.open(metric);
        for ((container, class), sum) in &sums {
            let labels: [(&str, &dyn Display); 2] = [("container", container), ("class", class)];
            page.sample(metric, &labels, if shown.is_zero(container) { 0 } else { value(sum) });
            page.created(metric, &labels, shown.created(container).unwrap_or(snapshot.epoch_created));
        }
    }
}

fn drained(page: &mut Page, drains: &Drains) {
    let since = drains.since.unwrap_or_default();
    // Zero before the first drain: an alert on the age must not wait for a drain that never happens.
    let last = drains.last_success.map_or(0, jiff::Timestamp::as_millisecond);
    page.single(
        Metric {
            kind: Kind::Gauge,
            name: "trafctl_last_drain_timestamp_seconds",
            unit: Some("seconds"),
            help: "When the counters were last recorded in the ledger; zero if not since the daemon started.",
        },
        format_args!("{}.{:03}", last.div_euclid(1000), last.rem_euclid(1000)),
    );
    if let Some(since) = drains.held_since {
        page.single(
            Metric::gauge(
                "trafctl_retention_held_since_timestamp_seconds",
                Some("seconds"),
                "Since when five-minute rows are kept beyond their retention, as a store has not verified them; zero for none.",
            ),
            since.map_or(0, jiff::Timestamp::as_second),
        );
    }
    page.single_since(
        Metric {
            kind: Kind::Counter,
            name: "trafctl_gaps",
            unit: None,
            help: "Gaps that drains recorded since the daemon started.",
        },
        drains.gaps,
        since,
    );
    page.single_since(
        Metric {
            kind: Kind::Counter,
            name: "trafctl_drain_failures",
            unit: None,
            help: "Drains that failed since the daemon started.",
        },
        drains.failures,
        since,
    );
    page.single(
        Metric {
            kind: Kind::Gauge,
            name: "trafctl_excess_buffers",
            unit: Some("buffers"),
            help: "Buffers counted beyond what the kernel's interface statistics show, as of the last drain.",
        },
        drains.excess_skbs,
    );
}

/// The names of classes, to be joined by the label `class`: a label of the counters' own would end their
/// series whenever a name changes.
fn class_names(page: &mut Page, names: &ClassNames) {
    if names.is_empty() {
        return;
    }
    let named = Metric { kind: Kind::Info, name: "trafctl_class", unit: None, help: "Names of classes." };
    page.open(named);
    for (class, name) in names {
        page.sample(named, &[("class", class), ("name", name)], 1);
    }
}
