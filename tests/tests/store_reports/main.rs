//! Reports from a store equal those of the ledgers that were shipped to it: for random ledgers, in a real PostgreSQL and a
//! real ClickHouse.

mod compared_days;
mod days;
mod drops;
mod moments;
mod random_node;
mod tenants;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use traffic_ledger::{
    Basis, By, DropReport, Ledger, LedgerError, Report, ReportQuery, SeriesQuery, Split, TopQuery,
};
use traffic_model::calendar::Calendar;
use traffic_store::{Reported, Target, open_ledger};
use traffic_tests::{
    Namespace,
    clickhouse::ClickHouse,
    clickhouse_cluster::{CLUSTER, ClickHouseCluster, Shape},
    postgres::Postgres,
};

use random_node::{Habits, RandomNode};

/// 2026-09-26, noon UTC: a month border and the end of summer time follow.
const BEGIN: i64 = 1_790_424_000;
/// Random ledgers of a run. `TRAFCTL_HISTORIES` asks for more.
const HISTORIES: u64 = 3;
/// Nodes whose sum a percentile is of.
const NODES: usize = 20;
/// Queries to each of them.
const QUERIES: usize = 15;
/// The same in ClickHouse, where a small report takes 20 times as long. With `TRAFCTL_HISTORIES`, there are as many.
const FEWER_QUERIES: usize = 6;

const ZONES: [(&str, u8); 5] = [
    ("UTC", 1),
    ("Europe/Berlin", 1),
    ("Europe/Berlin", 15),
    ("America/New_York", 31),
    ("Asia/Kathmandu", 3),
];
const CONTAINERS: [&str; 5] = ["101", "102", "7", "web-1", "3f2b8c1e-2f43-4c62-9c1d-5f6d0e8a7b90"];
const STEPS: [By; 7] = [By::FiveMinutes, By::Hour, By::Day, By::Week, By::Month, By::Year, By::Total];

fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

/// A server that can have a store.
trait Server {
    /// Its store, of which nothing is left.
    fn emptied(&self) -> Result<Target>;
    /// The cluster that the store is to be on.
    fn cluster(&self) -> Option<&str> {
        None
    }
    /// How many queries each history asks.
    fn queries(&self) -> usize;
}

impl Server for Postgres<'_> {
    fn emptied(&self) -> Result<Target> {
        self.query("drop schema if exists trafctl cascade")?;
        Target::parse(&self.url("postgres")).map_err(anyhow::Error::msg)
    }

    fn queries(&self) -> usize {
        QUERIES
    }
}

impl Server for ClickHouse<'_> {
    fn emptied(&self) -> Result<Target> {
        self.query("DROP DATABASE IF EXISTS traffic")?;
        Target::parse(&self.url("default")).map_err(anyhow::Error::msg)
    }

    fn queries(&self) -> usize {
        if asked_histories().is_some() { QUERIES } else { FEWER_QUERIES }
    }
}

impl Server for ClickHouseCluster<'_> {
    fn emptied(&self) -> Result<Target> {
        self.query(0, &format!("DROP DATABASE IF EXISTS traffic ON CLUSTER {CLUSTER}"))?;
        // Reports are asked of one server, and have rows of both.
        Target::parse(&self.url(1, "default")).map_err(anyhow::Error::msg)
    }

    fn cluster(&self) -> Option<&str> {
        Some(CLUSTER)
    }

    fn queries(&self) -> usize {
        if asked_histories().is_some() { QUERIES } else { FEWER_QUERIES / 2 }
    }
}

fn new_store(server: &impl Server) -> Result<Target> {
    let target = server.emptied()?;
    block_on(target.init(server.cluster()))??;
    Ok(target)
}

fn time(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}

fn query(own: &Calendar, containers: &[String], random: &mut fastrand::Rng) -> Result<ReportQuery> {
    let (zone, day) = ZONES[random.usize(..ZONES.len())];
    let span = |random: &mut fastrand::Rng| time(BEGIN + random.i64(-200_000..7_000_000));
    let mut chosen = containers.to_vec();
    random.shuffle(&mut chosen);
    chosen.truncate(if random.bool() { 0 } else { random.usize(1..3) });
    Ok(ReportQuery {
        by: STEPS[random.usize(..STEPS.len())],
        containers: chosen,
        classes: if random.u8(..4) == 0 { vec![random.u8(0..4), 1] } else { Vec::new() },
        from: if random.bool() { span(random) } else { None },
        to: if random.u8(..3) == 0 { span(random) } else { None },
        calendar: match random.u8(..3) {
            0 => Some(Calendar::new(zone, day)?),
            _ => Some(own.clone()),
        },
        split: Split { class: random.bool(), direction: random.bool(), family: random.u8(..3) == 0 },
        percentile: [None, Some(95.0), Some(50.0), Some(100.0), Some(99.9)][random.usize(..5)],
        basis: [Basis::L3, Basis::L2, Basis::L1][random.usize(..3)],
    })
}

/// Both answers, or that both refuse.
fn equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    ledger: Result<T, LedgerError>,
    store: Result<T, LedgerError>,
) -> Result<()> {
    match (ledger, store) {
        (Ok(ledger), Ok(store)) if ledger == store => Ok(()),
        (Err(LedgerError::Query(a)), Err(LedgerError::Query(b))) => {
            ensure!(a == b, "{what}: {a:?} and {b:?}");
            Ok(())
        }
        (ledger, store) => {
            let (ledger, store) = (format!("{ledger:#?}"), format!("{store:#?}"));
            let differing = ledger.lines().zip(store.lines()).position(|(a, b)| a != b).unwrap_or(0);
            let part = |text: &str| {
                text.lines().skip(differing.saturating_sub(12)).take(24).collect::<Vec<_>>().join("\n")
            };
            anyhow::bail!("{what}\nledger:\n{}\nstore:\n{}", part(&ledger), part(&store))
        }
    }
}

fn one_node(server: &impl Server, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let target = new_store(server)?;
    let (zone, day) = ZONES[random.usize(..ZONES.len())];
    let mut node = RandomNode::new("n1", Calendar::new(zone, day)?, &mut random)?;
    // Another node, whose rows must not be in the answers.
    let mut other = RandomNode::new("n2", Calendar::new("UTC", 1)?, &mut random)?;
    other.live(Habits { is_late: true, drains: 20 }, &mut random)?;
    other.ship(&target)?;
    for _ in 0..3 {
        node.live(Habits { is_late: true, drains: 50 }, &mut random)?;
        node.ship(&target)?;
    }
    let stored = node.stored(&target)?;
    let containers: Vec<String> =
        node.ledger.containers()?.into_iter().map(|container| container.container).collect();
    for _ in 0..server.queries() {
        let query = query(&node.calendar, &containers, &mut random)?;
        let what = format!("seed {seed}, {zone} {day}: {query:?}");
        equal(&what, node.ledger.report(&query), stored.report(&query))?;
        equal(&what, node.ledger.months(&query, 5), stored.months(&query, 5))?;
        let plain =
            ReportQuery { classes: Vec::new(), split: Split::default(), percentile: None, ..query.clone() };
        equal(&what, node.ledger.report_interfaces(&plain), stored.report_interfaces(&plain))?;
        let without = ReportQuery { percentile: None, ..query.clone() };
        equal(&what, node.ledger.report_drops(&without), stored.report_drops(&without))?;
        let series = SeriesQuery { of: query.clone(), by: Some(By::Day), most_points: 500 };
        equal(&what, node.ledger.series(&series), stored.series(&series))?;
        let top = TopQuery {
            count: random.usize(1..5),
            from: query.from,
            to: query.to,
            classes: query.classes.clone(),
            by_class: query.split.class,
            calendar: query.calendar.clone(),
            basis: query.basis,
        };
        equal(&what, node.ledger.top_talkers(&top), stored.top_talkers(&top))?;
        let gaps = |ledger: &Ledger| match query.containers.is_empty() {
            true => ledger.gaps(query.from, query.to),
            false => ledger.gaps_of(&query.containers, query.from, query.to),
        };
        equal(&what, gaps(&node.ledger), gaps(&stored))?;
    }
    equal("containers", node.ledger.containers(), stored.containers())?;
    equal("extent", node.ledger.extent(), stored.extent())?;
    ensure!(node.ledger.node()? == stored.node()?);
    Ok(())
}

#[test]
fn a_node_is_reported_as_by_its_ledger() -> Result<()> {
    let namespace = Namespace::new("store-one")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    let histories = histories();
    (0..histories).try_for_each(|seed| one_node(&server, seed).with_context(|| format!("seed {seed}")))
}

#[test]
fn a_node_is_reported_as_by_its_ledger_from_clickhouse() -> Result<()> {
    let namespace = Namespace::new("ch-one")?;
    let server = ClickHouse::start(&namespace, None)?;
    namespace.enter(|| {
        (0..histories()).try_for_each(|seed| one_node(&server, seed).with_context(|| format!("seed {seed}")))
    })
}

#[test]
fn a_report_ends_with_its_time_although_the_store_waits() -> Result<()> {
    let namespace = Namespace::new("store-time")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    let target = new_store(&server)?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut node = RandomNode::new("n1", Calendar::utc(), &mut random)?;
    node.live(Habits { is_late: false, drains: 5 }, &mut random)?;
    node.ship(&target)?;
    std::thread::scope(|scope| {
        let held =
            scope.spawn(|| server.query("begin; lock table trafctl.traffic; select pg_sleep(8); commit"));
        while server.query("select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted")?
            == "0"
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        let begun = Instant::now();
        let until = Some(begun + Duration::from_secs(2));
        let stored = open_ledger(&target, &Reported { until, ..Reported::default() })?;
        let error = stored.report(&ReportQuery { by: By::Total, ..ReportQuery::default() }).err();
        ensure!(
            error.as_ref().is_some_and(|error| error.to_string().contains("no answer in time")),
            "{error:?}"
        );
        ensure!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        held.join().map_err(|_| anyhow::anyhow!("holding the lock failed"))??;
        anyhow::Ok(())
    })
}

fn asked_histories() -> Option<u64> {
    std::env::var("TRAFCTL_HISTORIES").ok().and_then(|text| text.parse().ok())
}

fn histories() -> u64 {
    asked_histories().unwrap_or(HISTORIES)
}

/// Sums of a row: packets in, bytes in, packets out, bytes out, and what to bill.
type Figures = [i128; 6];
/// Step, container, class, family and direction of a row.
type Key = (String, String, Option<u8>, Option<&'static str>, Option<&'static str>);

/// The rows of a report by their keys, with a prefix before the container.
fn rows(report: &Report, prefix: &str, with_corrections: bool) -> BTreeMap<Key, Figures> {
    let mut rows = BTreeMap::new();
    for row in &report.rows {
        let key =
            (row.period.clone(), format!("{prefix}{}", row.container), row.class, row.family, row.direction);
        let (incoming, outgoing) =
            (row.figures.incoming.unwrap_or_default(), row.figures.outgoing.unwrap_or_default());
        let billing = row.billing.filter(|_| with_corrections).unwrap_or_default();
        let to_bill = billing.to_bill.total;
        let figures = [
            incoming.packets.into(),
            incoming.bytes.into(),
            outgoing.packets.into(),
            outgoing.bytes.into(),
            to_bill.packets.into(),
            to_bill.bytes.into(),
        ];
        rows.insert(key, figures);
    }
    rows
}

fn add(total: &mut BTreeMap<Key, Figures>, rows: BTreeMap<Key, Figures>) {
    for (key, figures) in rows {
        total.entry(key).or_default().iter_mut().zip(figures).for_each(|(sum, value)| *sum += value);
    }
}

/// What was counted and dropped, by row: packets and bytes of the sums, then of each reason.
type Drops = BTreeMap<(Key, String), [u64; 2]>;

fn add_drops(all: &mut Drops, report: DropReport, prefix: &str) {
    for row in report.rows {
        let key = (row.period, format!("{prefix}{}", row.container), row.class, row.family, row.direction);
        let reasons = row.delivery.reasons.into_iter().map(|of| (of.reason, of.figures.total));
        for (what, of) in reasons.chain([("counted".to_owned(), row.delivery.counted.total)]) {
            let sum = all.entry((key.clone(), what)).or_default();
            *sum = [sum[0] + of.packets, sum[1] + of.bytes];
        }
    }
}

fn several_nodes(server: &impl Server, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let target = new_store(server)?;
    let has_cluster_ids = random.bool();
    let (zone, day) = ZONES[random.usize(..ZONES.len())];
    let calendar = Calendar::new(zone, day)?;
    let mut nodes = Vec::new();
    for name in ["n1", "n2", "n3"] {
        let mut node = RandomNode::new(name, calendar.clone(), &mut random)?;
        node.about.has_cluster_ids = has_cluster_ids;
        node.live(Habits { is_late: true, drains: 70 }, &mut random)?;
        node.ship(&target)?;
        nodes.push(node);
    }
    let stored = open_ledger(&target, &Reported { with_interfaces: true, ..Reported::default() })?;
    for _ in 0..server.queries() {
        let mut query = query(&calendar, &[], &mut random)?;
        // All ledgers must have the same span and, in steps, the same rows without traffic.
        query.from = time(BEGIN - 86_400);
        query.to = time(BEGIN + 300 * random.i64(1000..25_000));
        query.percentile = None;
        // A correction is in the step with everything recorded of its month, which begins with the first node.
        let with_corrections = matches!(query.by, By::Month | By::Year | By::Total);
        let what = format!("seed {seed}, {zone} {day}: {query:?}");
        let found = stored.report(&query).with_context(|| what.clone())?;
        let mut expected = BTreeMap::new();
        let mut expected_drops = Drops::new();
        let (mut faults, mut gaps) = (0, 0);
        for node in &nodes {
            let report = node.ledger.report(&query).with_context(|| what.clone())?;
            let prefix = if has_cluster_ids { String::new() } else { format!("{}/", node.about.name) };
            add(&mut expected, rows(&report, &prefix, with_corrections));
            faults += report.faults.total.bytes;
            gaps += report.gaps.len();
            add_drops(&mut expected_drops, node.ledger.report_drops(&query)?, &prefix);
        }
        let mut found_drops = Drops::new();
        let report = stored.report_drops(&query)?;
        ensure!(report.nodes_without_drops.is_empty() && report.recorded_from.is_some());
        add_drops(&mut found_drops, report, "");
        ensure!(found_drops == expected_drops, "{what}\n{found_drops:?}\n{expected_drops:?}");
        let found_rows = rows(&found, "", with_corrections);
        for (key, figures) in &expected {
            let row = found_rows.get(key);
            ensure!(row == Some(figures), "{what}\n{key:?}: {row:?} is not {figures:?}");
        }
        ensure!(found_rows.len() == expected.len(), "{what}\n{found_rows:?}\n{expected:?}");
        ensure!(found.faults.total.bytes == faults && found.gaps.len() == gaps, "{what}");
        let names: BTreeSet<_> = found.gaps.iter().filter_map(|gap| gap.node.as_deref()).collect();
        ensure!(
            names.len() == gaps.min(3).min(names.len()) && found.gaps.iter().all(|gap| gap.node.is_some())
        );
    }
    Ok(())
}

#[test]
fn several_nodes_are_reported_as_their_sum() -> Result<()> {
    let namespace = Namespace::new("store-sum")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    (0..histories()).try_for_each(|seed| several_nodes(&server, seed).with_context(|| format!("seed {seed}")))
}

#[test]
fn several_nodes_are_reported_as_their_sum_from_clickhouse() -> Result<()> {
    let namespace = Namespace::new("ch-sum")?;
    let server = ClickHouse::start(&namespace, None)?;
    namespace.enter(|| {
        (0..histories())
            .try_for_each(|seed| several_nodes(&server, seed).with_context(|| format!("seed {seed}")))
    })
}

#[test]
fn a_cluster_reports_as_the_ledgers() -> Result<()> {
    let namespace = Namespace::new("ch-shards")?;
    let server = ClickHouseCluster::start(&namespace, Shape { shards: 2, replicas: 1 })?;
    namespace.enter(|| {
        one_node(&server, 1).context("one node")?;
        several_nodes(&server, 2).context("several nodes")?;
        percentiles_of(&server, 1).context("percentiles")
    })
}

/// The rate at a percentile, by the definition: of all five-minute sums, the one at its rank.
fn by_definition(mut sums: Vec<u64>, values: usize, percent: usize) -> u64 {
    sums.resize(values.max(sums.len()), 0);
    sums.sort_unstable();
    let rank = (percent * values).div_ceil(100).max(1);
    u64::try_from(u128::from(sums[sums.len() - values + rank - 1]) * 8 / 300).unwrap_or(u64::MAX)
}

#[test]
fn a_percentile_is_of_the_sum_of_all_nodes() -> Result<()> {
    let namespace = Namespace::new("store-rate")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    percentiles(&server)
}

#[test]
fn a_percentile_is_of_the_sum_of_all_nodes_from_clickhouse() -> Result<()> {
    let namespace = Namespace::new("ch-rate")?;
    let server = ClickHouse::start(&namespace, None)?;
    namespace.enter(|| percentiles(&server))
}

fn percentiles(server: &impl Server) -> Result<()> {
    percentiles_of(server, histories())
}

fn percentiles_of(server: &impl Server, histories: u64) -> Result<()> {
    for seed in 0..histories {
        let mut random = fastrand::Rng::with_seed(seed);
        let target = new_store(server)?;
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            let mut node = RandomNode::new(&format!("n{number}"), Calendar::utc(), &mut random)?;
            node.about.has_cluster_ids = true;
            // On the border of five minutes, so that no reading is late.
            node.node.wall = Timestamp::from_second(BEGIN)?;
            node.node.epoch_created = node.node.wall;
            node.live(Habits { is_late: false, drains: 1 }, &mut random)?;
            for _ in 0..60 {
                node.live(Habits { is_late: false, drains: 1 }, &mut random)?;
            }
            node.ship(&target)?;
            nodes.push(node);
        }
        let stored = open_ledger(&target, &Reported::default())?;
        for (percent, asked) in [(95, 95.0), (50, 50.0), (100, 100.0)] {
            let of = ReportQuery { by: By::Total, percentile: Some(asked), ..ReportQuery::default() };
            let report = stored.report(&of)?;
            let mut buckets: BTreeMap<(String, bool), BTreeMap<String, [u64; 3]>> = BTreeMap::new();
            for node in &nodes {
                let fine = ReportQuery { by: By::FiveMinutes, ..ReportQuery::default() };
                for row in node.ledger.report(&fine)?.rows {
                    let (incoming, outgoing) = (row.figures.incoming, row.figures.outgoing);
                    let (incoming, outgoing) =
                        (incoming.unwrap_or_default().bytes, outgoing.unwrap_or_default().bytes);
                    let sums = buckets
                        .entry((row.container, row.billed))
                        .or_default()
                        .entry(row.period)
                        .or_default();
                    sums[0] += incoming;
                    sums[1] += outgoing;
                    sums[2] += incoming + outgoing;
                }
            }
            ensure!(report.rows.len() == buckets.len() && !report.rows.is_empty());
            for row in &report.rows {
                let rates = row.percentile.context("no percentile")?;
                let of = &buckets[&(row.container.clone(), row.billed)];
                let values = usize::try_from(rates.buckets)?;
                let expected = [0, 1, 2]
                    .map(|at| by_definition(of.values().map(|sums| sums[at]).collect(), values, percent));
                let found = [rates.incoming, rates.outgoing, rates.total].map(Option::unwrap_or_default);
                if rates.spread_buckets == 0 {
                    ensure!(found == expected, "seed {seed}, {percent}: {row:?} {expected:?}");
                }
            }
            ensure!(
                report.rows.iter().any(|row| row.percentile.is_some_and(|rates| rates.spread_buckets == 0))
            );
        }
    }
    Ok(())
}
