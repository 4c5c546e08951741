//! What the kernel dropped behind the hooks, of what the containers' counters hold.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Display,
};

use traffic_common::{DropFault, Tally};
use traffic_model::{ByDirection, Snapshot};

use super::page::{Metric, Page};
use crate::{api::lives::Shown, kernel::drops::Drops};

type Value = fn(&ByDirection<Tally>) -> u64;

/// The drops of containers, both families added up. Only those of the present owners of ids, as in
/// `trafctl_network_*`.
pub(super) fn write(page: &mut Page, drops: &Drops, snapshot: &Snapshot, shown: &Shown) {
    let present = snapshot.present_counters();
    let present: HashSet<_> =
        present.iter().map(|counter| (&counter.container, counter.generation)).collect();
    let mut sums = BTreeMap::<_, ByDirection<Tally>>::new();
    for row in drops.rows.iter().filter(|row| present.contains(&(&row.container, row.generation))) {
        *sums.entry((&row.container, row.class, row.group)).or_default() += row.tally;
    }
    let metrics: [(Metric, Value); 4] = [
        (
            Metric::counter(
                "trafctl_dropped_receive_bytes",
                Some("bytes"),
                "Layer-3 bytes to the container that were counted and then dropped, by reason.",
            ),
            |sum| sum.incoming.bytes,
        ),
        (
            Metric::counter(
                "trafctl_dropped_transmit_bytes",
                Some("bytes"),
                "Layer-3 bytes from the container that were counted and then dropped, by reason.",
            ),
            |sum| sum.outgoing.bytes,
        ),
        (
            Metric::counter(
                "trafctl_dropped_receive_packets",
                Some("packets"),
                "Packets on the wire to the container that were counted and then dropped, by reason.",
            ),
            |sum| sum.incoming.packets,
        ),
        (
            Metric::counter(
                "trafctl_dropped_transmit_packets",
                Some("packets"),
                "Packets on the wire from the container that were counted and then dropped, by reason.",
            ),
            |sum| sum.outgoing.packets,
        ),
    ];
    for (metric, value) in metrics {
        page.open(metric);
        for ((container, class, group), sum) in &sums {
            let reason = group.name();
            let labels: [(&str, &dyn Display); 3] =
                [("container", container), ("class", class), ("reason", &reason)];
            page.sample(metric, &labels, if shown.is_zero(container) { 0 } else { value(sum) });
            let since = shown.created(container).map_or(drops.since, |created| created.max(drops.since));
            page.created(metric, &labels, since);
        }
    }
    let not_attributed = Metric::counter(
        "trafctl_dropped_unattributed_packets",
        Some("packets"),
        "Dropped packets on the wire that are in no container's drops, by fault.",
    );
    page.open(not_attributed);
    for fault in DropFault::ALL.into_iter().filter(|fault| *fault != DropFault::Estimated) {
        let name = fault.name();
        page.sample(not_attributed, &[("fault", &name)], drops.fault(fault).packets);
        page.created(not_attributed, &[("fault", &name)], drops.since);
    }
}

#[cfg(test)]
mod tests {
    use traffic_common::{DROP_FAULTS, DropGroup, Family};
    use traffic_model::{DropCounter, sample};

    use super::*;
    use crate::api::metrics::Format;

    #[test]
    fn drops_have_a_reason_and_only_present_owners() {
        let snapshot = sample::snapshot();
        let counter = &snapshot.counters[0];
        let row = |generation, family, group, packets| DropCounter {
            container: counter.container.clone(),
            generation,
            class: 2,
            family,
            group,
            tally: ByDirection {
                incoming: Tally { packets, bytes: packets * 100 },
                outgoing: Tally { packets: packets + 1, bytes: packets * 1000 },
            },
        };
        let (v4, v6) = (Family::Ipv4, Family::Ipv6);
        let mut faults = [Tally::default(); DROP_FAULTS];
        faults[DropFault::NoSender as usize].packets = 7;
        faults[DropFault::Estimated as usize].packets = 8;
        let rows = vec![
            row(counter.generation, v4, DropGroup::Shaper, 1),
            row(counter.generation, v6, DropGroup::Shaper, 20),
            row(counter.generation, v4, DropGroup::NoRoute, 300),
            row(counter.generation + 9, v4, DropGroup::NoRoute, 4000),
        ];
        let drops = Drops {
            set: 1,
            since: snapshot.epoch_created,
            lacks: 0,
            is_outdated: false,
            rows,
            former: ByDirection::default(),
            faults,
        };
        let mut page = Page { text: String::new(), format: Format::Text };
        write(&mut page, &drops, &snapshot, &Shown::default());
        let container = counter.container.as_str();
        for line in [
            format!(
                "trafctl_dropped_receive_bytes_total{{container=\"{container}\",class=\"2\",reason=\"shaper\"}} 2100"
            ),
            format!(
                "trafctl_dropped_transmit_bytes_total{{container=\"{container}\",class=\"2\",reason=\"no_route\"}} 300000"
            ),
            format!(
                "trafctl_dropped_receive_packets_total{{container=\"{container}\",class=\"2\",reason=\"no_route\"}} 300"
            ),
            format!(
                "trafctl_dropped_transmit_packets_total{{container=\"{container}\",class=\"2\",reason=\"shaper\"}} 23"
            ),
            "trafctl_dropped_unattributed_packets_total{fault=\"no_sender\"} 7".to_owned(),
        ] {
            assert!(page.text.lines().any(|found| found == line), "{line}: {}", page.text);
        }
        assert!(!page.text.contains("estimated") && !page.text.contains("4000"), "{}", page.text);
    }
}
