//! The bars: ratios within one run that must hold, and the milliseconds that a page may take.

use serde::Serialize;

use crate::{
    control, drains, fleet, hosts, packets,
    program::{self, Draw},
    quotas,
    real::{self, Peers},
    results::Results,
    statistics::{Summary, ratios},
    web,
};
use traffic_common::Family;

/// Test runs cannot distinguish a cost below this many nanoseconds per packet from zero.
const LEAST_LOOKUP_NS: f64 = 0.5;
/// The same for real packets.
const LEAST_PACKET_NS: f64 = 10.0;
/// The numbers of prefixes for which lookups have bars.
const PREFIXES: usize = 800_000;

/// The bound of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The median must be at least this.
    AtLeast(f64),
    /// The median must be at most this.
    AtMost(f64),
}

impl Goal {
    /// Whether a value keeps the bound.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    /// The bound as text.
    pub fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound:.3}"),
        }
    }
}

/// A bar and its measurement.
#[derive(Debug, Serialize)]
pub struct Bar {
    /// The name of the ratio.
    pub name: String,
    /// The bound.
    pub goal: Goal,
    /// The ratios of all rounds.
    pub measured: Summary,
    /// Whether the median keeps the bound.
    pub met: bool,
}

impl Bar {
    /// Describes by how much a bar is missed.
    pub fn miss(&self) -> String {
        let bound = match self.goal {
            Goal::AtLeast(bound) | Goal::AtMost(bound) => bound,
        };
        format!(
            "{}: {:.3} instead of {} ({:+.0} %)",
            self.name,
            self.measured.median,
            self.goal.text(),
            (self.measured.median / bound - 1.0) * 100.0
        )
    }
}

/// All bars whose figures were measured.
pub fn all(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut add = |name: String, goal: Goal, ratios: Option<Vec<f64>>| {
        if let Some(measured) = ratios.and_then(|ratios| Summary::of(&ratios)) {
            bars.push(Bar { name, goal, measured, met: goal.is_met(measured.median) });
        }
    };
    for (family, bounds) in [(Family::Ipv4, [15.0, 15.0, 8.0]), (Family::Ipv6, [2.5, 6.0, 4.0])] {
        for (draw, bound) in Draw::ALL.into_iter().zip(bounds) {
            let case = program::case(family, PREFIXES, draw);
            let above = |variant| results.above(program::PART, &case, variant, "floor");
            let ratios = above("trie").zip(above("trafctl")).map(|(a, b)| ratios(&a, &b, LEAST_LOOKUP_NS));
            add(format!("lookup, trie / trafctl, {case}"), Goal::AtLeast(bound), ratios);
        }
    }
    for family in Family::ALL {
        let case = program::case(family, PREFIXES, Draw::Zipf);
        let above = |variant| results.above(program::PART, &case, variant, "generator");
        let ratios = above("floor").zip(above("floor by hash")).map(|(a, b)| ratios(&a, &b, LEAST_LOOKUP_NS));
        add(format!("floor above null, arrays / hashes, {case}"), Goal::AtMost(0.5), ratios);
    }
    for (case, bound) in [(packets::RANDOM, 0.96), (packets::REAL, 0.94)] {
        let name = format!("packets for the same CPU time, trafctl / nothing attached, {case}");
        add(name, Goal::AtLeast(bound), packets::kept(results, case, "trafctl"));
    }
    for (other, bound) in
        [("nft map", 1.0 / 4.0), ("ipset", 1.0 / 15.0), ("nft table a container", 1.0 / 25.0)]
    {
        let ratios = packets::added(results, "trafctl")
            .zip(packets::added(results, other))
            .map(|(a, b)| ratios(&a, &b, LEAST_PACKET_NS));
        add(format!("added CPU a packet, trafctl / {other}"), Goal::AtMost(bound), ratios);
    }
    add(
        "a neighbour's packet, after hostile traffic / after friendly".to_owned(),
        Goal::AtMost(1.05),
        packets::slowed(results, "trafctl"),
    );
    add(
        "load of 800,000 prefixes, trafctl / nft -f".to_owned(),
        Goal::AtMost(0.5),
        results.ratio(control::PART, control::LOAD, "trafctl", "nft -f"),
    );
    add(
        "dump of 1,000 containers, trafctl / nft list counters".to_owned(),
        Goal::AtMost(0.2),
        results.ratio(control::PART, control::DUMP, "trafctl", "nft list counters"),
    );
    add(
        "dump of 1,000 containers, table / JSON".to_owned(),
        Goal::AtMost(1.2),
        results.ratio(control::PART, control::DUMP, control::AS_TABLE, "trafctl"),
    );
    add(
        "drain of 1,000 containers, with drops for 4 reasons each / without".to_owned(),
        Goal::AtMost(1.5),
        results.ratio(control::PART, drains::DRAIN, drains::WITH_DROPS, "trafctl"),
    );
    quota_bars(results, &mut add);
    host_bars(results, &mut add);
    real_bars(results, &mut add);
    web_bars(results, &mut add);
    fleet_bars(results, &mut add);
    bars
}

/// The bars of quotas: how late an action begins in the worst round, and what it costs not to miss that.
fn quota_bars(results: &Results, add: &mut impl FnMut(String, Goal, Option<Vec<f64>>)) {
    let latest = results
        .get(quotas::PART, quotas::LATENCY, quotas::CLOSE)
        .map(|rounds| vec![rounds.iter().copied().fold(0.0, f64::max)]);
    add(format!("{}, the latest, s", quotas::LATENCY), Goal::AtMost(1.0), latest);
    // Drains and all else are there with far thresholds, too.
    let added = results.above(quotas::PART, quotas::DAEMON_CPU, quotas::CLOSE, quotas::FAR);
    add(format!("{}, close - far, % of a core", quotas::DAEMON_CPU), Goal::AtMost(1.0), added);
    let runner = results.get(quotas::PART, quotas::RUNNER_CPU, quotas::CLOSE).map(<[f64]>::to_vec);
    add(format!("{}, % of a core", quotas::RUNNER_CPU), Goal::AtMost(1.0), runner);
}

/// The bars of a host with 1,000 containers: the worst round, because each container is found once.
fn host_bars(results: &Results, add: &mut impl FnMut(String, Goal, Option<Vec<f64>>)) {
    for (part, case, most_s) in [
        (hosts::PART, hosts::IDENTITY, 1.0),
        (hosts::CPU, hosts::SURVEY, 0.5),
        (hosts::CPU, hosts::DAEMON, 3.0),
    ] {
        let worst = results.get(part, case, "trafctl");
        let worst = worst.map(|rounds| vec![rounds.iter().copied().fold(0.0, f64::max)]);
        add(format!("{part}, {case}, the worst, s"), Goal::AtMost(most_s), worst);
    }
}

/// The bars of the web page: what somebody waits for, in milliseconds, and whether memory grows.
fn web_bars(results: &Results, add: &mut impl FnMut(String, Goal, Option<Vec<f64>>)) {
    let others = web::spans().map(|name| (name, 1000.0));
    for (name, most_ms) in [(web::FIRST_VIEW, 300.0), (web::METRICS, 100.0)].into_iter().chain(others) {
        let measured = results.get(web::PART, name, "trafctl").map(<[f64]>::to_vec);
        add(format!("{name}, ms"), Goal::AtMost(most_ms), measured);
    }
    let grown = results.ratio(web::MEMORY, web::ANONYMOUS, web::LAST, web::WARM);
    add("memory after an hour's requests, at the end / after a third".to_owned(), Goal::AtMost(1.25), grown);
}

/// The bars of many nodes and one store. Those of times are for the full scale.
fn fleet_bars(results: &Results, add: &mut impl FnMut(String, Goal, Option<Vec<f64>>)) {
    let measured = |part, case: &str, variant| results.get(part, case, variant).map(<[f64]>::to_vec);
    let (backlog, month) = (fleet::full_backlog(), fleet::full_month());
    for (kind, most_s, most_of_month_s) in [(fleet::CLICKHOUSE, 60.0, 1.0), (fleet::POSTGRES, 600.0, 5.0)] {
        add(format!("{backlog}, to {kind}, s"), Goal::AtMost(most_s), measured(fleet::TIME, &backlog, kind));
        let name = format!("memory of the shipper of {}, to {kind}, MB", fleet::BACKLOG);
        add(name, Goal::AtMost(100.0), measured(fleet::MEMORY, fleet::BACKLOG, kind));
        add(
            format!("{month}, from {kind}, s"),
            Goal::AtMost(most_of_month_s),
            measured(fleet::TIME, &month, kind),
        );
        let bucket = measured(fleet::CPU, fleet::BUCKET, kind);
        add(format!("CPU to ship {}, to {kind}, s", fleet::BUCKET), Goal::AtMost(0.1), bucket);
        let drains = results.ratio(fleet::DRAINS, &fleet::drain_case(kind), kind, fleet::ALONE);
        add(format!("a drain while a backlog ships to {kind} / alone"), Goal::AtMost(1.2), drains);
    }
    let size = measured(fleet::SIZE, fleet::ROW, fleet::CLICKHOUSE);
    add("a row in ClickHouse after merging, bytes".to_owned(), Goal::AtMost(6.0), size);
}

/// The bars of real tables and of this version against the previous one.
fn real_bars(results: &Results, add: &mut impl FnMut(String, Goal, Option<Vec<f64>>)) {
    let mut bar = |table: &str, peers: Peers, (variant, to): (&str, &str), goal: Goal| {
        let case = real::case(table, peers);
        add(format!("{variant} / {to}, {case}"), goal, real::ratio(results, &case, variant, to));
    };
    let new_to_previous = ("trafctl", "previous");
    for table in ["random:100k", "random:800k"] {
        for peers in [Peers::ZipfPrefixes, Peers::Prefixes] {
            bar(table, peers, new_to_previous, Goal::AtMost(0.6));
        }
        bar(table, Peers::ZipfPrefixes, ("trafctl", "limit"), Goal::AtMost(1.2));
        bar(table, Peers::Single, new_to_previous, Goal::AtMost(1.0));
    }
    for table in ["geo:2", "geo:4", "geo:16"] {
        bar(table, Peers::ZipfPrefixes, new_to_previous, Goal::AtMost(0.25));
    }
    bar("geo6:16", Peers::ZipfPrefixes, new_to_previous, Goal::AtMost(0.55));
    for table in ["geo:2", "geo:4", "geo:16", "geo6:16"] {
        bar(table, Peers::ZipfPrefixes, (real::WITH_SHADOW, "trafctl"), Goal::AtMost(1.8));
    }
    bar("geo:16", Peers::ZipfPrefixes, ("trie", "trafctl"), Goal::AtLeast(8.0));
    bar("geo6:16", Peers::ZipfPrefixes, ("trie", "trafctl"), Goal::AtLeast(6.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_on_the_right_side_of_its_bound() {
        assert!(Goal::AtLeast(15.0).is_met(15.0) && !Goal::AtLeast(15.0).is_met(14.9));
        assert!(Goal::AtMost(0.5).is_met(0.5) && !Goal::AtMost(0.5).is_met(0.51));
    }

    #[test]
    fn the_lookup_cost_is_above_the_floor_of_the_same_round() {
        let mut results = Results::default();
        let case = program::case(Family::Ipv4, PREFIXES, Draw::Zipf);
        // (floor, trafctl, trie): the machine was slower in the second round.
        for (floor, trafctl, trie) in [(40.0, 50.0, 240.0), (60.0, 75.0, 360.0)] {
            for (variant, value) in [("floor", floor), ("trafctl", trafctl), ("trie", trie)] {
                results.push(program::PART, &case, variant, (value, "ns/packet"));
            }
        }
        let bars = all(&results);
        assert_eq!(bars.len(), 1);
        assert_eq!((bars[0].measured.median, bars[0].met), (20.0, true));
    }

    #[test]
    fn a_missed_bar_states_by_how_much() {
        let measured = Summary { median: 12.0, lower_quartile: 11.0, upper_quartile: 13.0 };
        let bar = Bar { name: "lookup".to_owned(), goal: Goal::AtLeast(15.0), measured, met: false };
        assert_eq!(bar.miss(), "lookup: 12.000 instead of >= 15 (-20 %)");
    }
}
