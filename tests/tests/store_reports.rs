//! Reports from a store equal those of the ledgers that were shipped to it: for random ledgers, in a real PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use traffic_ledger::{
    AdjustmentRequest, Basis, By, Ledger, LedgerConfig, LedgerError, Report, ReportQuery, SeriesQuery, Split,
    TopQuery, testing,
};
use traffic_model::calendar::{Calendar, Retention};
use traffic_store::{
    Node, Shipper,
    postgres::{self, Assignment, Postgres as Store, Reported, Target, open_ledger},
};
use traffic_tests::{Namespace, postgres::Postgres};

/// 2026-09-26, noon UTC: a month border and the end of summer time follow.
const BEGIN: i64 = 1_790_424_000;
/// Random ledgers of a run. `TRAFCTL_HISTORIES` asks for more.
const HISTORIES: u64 = 3;
/// Queries to each of them.
const QUERIES: usize = 15;

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

/// A node with a ledger of random traffic.
struct RandomNode {
    _directory: tempfile::TempDir,
    ledger: Ledger,
    node: testing::Node,
    about: Node,
    calendar: Calendar,
}

/// What a history may do to a node.
#[derive(Clone, Copy)]
struct Habits {
    /// Readings may be hours apart.
    is_late: bool,
    drains: usize,
}

impl RandomNode {
    fn new(name: &str, calendar: Calendar, random: &mut fastrand::Rng) -> Result<Self> {
        let directory = tempfile::tempdir_in("/dev/shm")?;
        let config = LedgerConfig {
            calendar: calendar.clone(),
            retention: Retention { five_minutes_days: 1000, hours_months: 60 },
            ..LedgerConfig::default()
        };
        let ledger = Ledger::open(&directory.path().join("ledger.sqlite"), config)?;
        let mut node = testing::Node::balanced(BEGIN + random.i64(0..100_000));
        node.name = name.to_owned();
        node.ipv6.insert("7".to_owned());
        let about = Node {
            name: name.to_owned(),
            version: "0.2.0".to_owned(),
            kernel: "6.1.0".to_owned(),
            has_cluster_ids: false,
        };
        Ok(Self { _directory: directory, ledger, node, about, calendar })
    }

    fn live(&mut self, habits: Habits, random: &mut fastrand::Rng) -> Result<()> {
        for _ in 0..habits.drains {
            for _ in 0..random.usize(0..4) {
                let sums = [0; 4].map(|_: u64| random.u64(1..1_000_000));
                self.node.traffic(CONTAINERS[random.usize(..CONTAINERS.len())], random.u8(0..4), sums);
            }
            let seconds = match (random.u8(..10), habits.is_late) {
                (0, true) => random.u64(600..200_000),
                (1..4, true) => random.u64(30..900),
                (0, false) => 300,
                _ => 300,
            };
            self.node.pass(seconds).drain(&mut self.ledger);
            match random.u8(..40) {
                0 => drop(self.ledger.maintain(self.node.wall)?),
                1 if habits.is_late => self.close(random)?,
                2 if habits.is_late => self.node.table = random.u8(1..4),
                3 if habits.is_late => {
                    let name = format!("shop-{}", random.u8(..9));
                    self.ledger.note_names(BTreeMap::from([("101".to_owned(), name)]));
                }
                4 if habits.is_late => drop(self.node.reboot(random.i64(60..5000))),
                _ => {}
            }
        }
        Ok(())
    }

    /// Closes the first open month that is over, and corrects something of it.
    fn close(&mut self, random: &mut fastrand::Rng) -> Result<()> {
        for month in ["2026-09", "2026-10", "2026-11"] {
            match self.ledger.close_anyway(month, self.node.wall) {
                Ok(_) => {}
                Err(LedgerError::NotClosable { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            for container in [0, 1].map(|_| CONTAINERS[random.usize(..CONTAINERS.len())]) {
                let request = AdjustmentRequest {
                    period: month.to_owned(),
                    container: container.to_owned(),
                    class: random.u8(0..3),
                    family: None,
                    packets: [random.i64(1..9), 0],
                    bytes: [random.i64(1..999), random.i64(-5..0)],
                    reason: format!("credit {}", random.u16(..)),
                    made: self.node.wall,
                };
                match self.ledger.adjust(&request) {
                    Ok(_) | Err(LedgerError::Query(_) | LedgerError::NoSuchContainer(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn ship(&self, target: &Target) -> Result<()> {
        block_on(async {
            let mut store = Store::connect(target).await?;
            let shipper = Shipper { ledger: &self.ledger, machine: None, node: &self.about };
            shipper.ship(&mut store, &mut |_, _| {}).await?;
            anyhow::Ok(())
        })?
    }

    fn stored(&self, target: &Target) -> Result<Ledger> {
        Ok(open_ledger(
            target,
            &Reported {
                nodes: std::slice::from_ref(&self.about.name),
                with_interfaces: true,
                ..Reported::default()
            },
        )?)
    }
}

fn new_store(server: &Postgres<'_>) -> Result<Target> {
    server.query("drop schema if exists trafctl cascade")?;
    let target = Target::parse(&server.url("postgres")).map_err(anyhow::Error::msg)?;
    block_on(async { postgres::init(&mut Store::connect(&target).await?).await })??;
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

fn one_node(server: &Postgres<'_>, seed: u64) -> Result<()> {
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
    for _ in 0..QUERIES {
        let query = query(&node.calendar, &containers, &mut random)?;
        let what = format!("seed {seed}, {zone} {day}: {query:?}");
        equal(&what, node.ledger.report(&query), stored.report(&query))?;
        equal(&what, node.ledger.months(&query, 5), stored.months(&query, 5))?;
        let plain =
            ReportQuery { classes: Vec::new(), split: Split::default(), percentile: None, ..query.clone() };
        equal(&what, node.ledger.report_interfaces(&plain), stored.report_interfaces(&plain))?;
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
fn a_day_that_is_older_than_its_five_minutes_does_not_answer() -> Result<()> {
    let namespace = Namespace::new("store-stale")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    let mut random = fastrand::Rng::with_seed(1);
    let target = new_store(&server)?;
    let mut node = RandomNode::new("n1", Calendar::utc(), &mut random)?;
    node.live(Habits { is_late: true, drains: 60 }, &mut random)?;
    node.ledger.maintain(node.node.wall)?;
    node.ship(&target)?;
    let of = ReportQuery { by: By::Day, ..ReportQuery::default() };
    let report = node.ledger.report(&of)?;
    ensure!(node.stored(&target)?.report(&of)? == report && report.steps.len() > 3);
    // Only whole days are altered: they are what answers.
    server.query("update trafctl.traffic set in_bytes = in_bytes + 1 where level = 2")?;
    ensure!(node.stored(&target)?.report(&of)? != report);
    // Five minutes of each day come to be newer than it.
    server.query(
        "update trafctl.part set rev = rev + 1000000 where name = '5min' and number in (
             select max(p.number) from trafctl.part p join trafctl.unit u on u.level = 2 and p.number >= u.start
                 and p.number < u.\"end\" where p.name = '5min' group by u.start)",
    )?;
    ensure!(node.stored(&target)?.report(&of)? == report);
    Ok(())
}

fn histories() -> u64 {
    std::env::var("TRAFCTL_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(HISTORIES)
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

fn several_nodes(server: &Postgres<'_>, seed: u64) -> Result<()> {
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
    for _ in 0..QUERIES {
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
        let (mut faults, mut gaps) = (0, 0);
        for node in &nodes {
            let report = node.ledger.report(&query).with_context(|| what.clone())?;
            let prefix = if has_cluster_ids { String::new() } else { format!("{}/", node.about.name) };
            add(&mut expected, rows(&report, &prefix, with_corrections));
            faults += report.faults.total.bytes;
            gaps += report.gaps.len();
        }
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

/// Sums of one five minutes of a container: packets in, bytes in, packets out, bytes out.
type FiveMinutes = BTreeMap<(String, i64, Option<u8>), [u64; 4]>;

/// All rows of a ledger in five minutes, by container and class.
fn five_minutes(ledger: &Ledger) -> Result<FiveMinutes> {
    let split = Split { class: true, ..Split::default() };
    let report = ledger.report(&ReportQuery { by: By::FiveMinutes, split, ..ReportQuery::default() })?;
    let mut rows = FiveMinutes::new();
    for row in report.rows {
        let (a, b) = (row.figures.incoming.unwrap_or_default(), row.figures.outgoing.unwrap_or_default());
        let key = (row.container, row.start.as_second(), row.class);
        rows.insert(key, [a.packets, a.bytes, b.packets, b.bytes]);
    }
    Ok(rows)
}

/// Containers whose tenants change, also in the middle of days and of closed months.
fn tenants(server: &Postgres<'_>, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let target = new_store(server)?;
    let mut nodes = Vec::new();
    for name in ["n1", "n2"] {
        let mut node = RandomNode::new(name, Calendar::utc(), &mut random)?;
        node.live(Habits { is_late: true, drains: 90 }, &mut random)?;
        node.ship(&target)?;
        nodes.push(node);
    }
    let mut assigned: Vec<Assignment> = Vec::new();
    let mut refused = 0;
    for _ in 0..14 {
        let from = if random.u8(..4) == 0 { 0 } else { BEGIN + random.i64(0..3_000_000) };
        let new = Assignment {
            number: 0,
            tenant: ["acme", "beta", "gamma"][random.usize(..3)].to_owned(),
            container: CONTAINERS[random.usize(..CONTAINERS.len())].to_owned(),
            node: Some(["n1", "n2"][random.usize(..2)].to_owned()),
            from,
            until: random.bool().then(|| from.max(BEGIN) + random.i64(300..2_000_000)),
        };
        let made = block_on(async { postgres::assign(&mut Store::connect(&target).await?, &new).await })?;
        let start = |time: i64| time.div_euclid(300) * 300;
        let (from, until) = (start(new.from), new.until.map_or(i64::MAX, start));
        let overlaps = assigned.iter().any(|other| {
            (&other.container, &other.node) == (&new.container, &new.node)
                && other.from < until
                && other.until.unwrap_or(i64::MAX) > from
        });
        ensure!(made.is_err() == overlaps, "{new:?} {made:?} {assigned:?}");
        match made {
            Ok(made) => assigned.push(made.assignment),
            Err(error) => {
                refused += 1;
                ensure!(
                    error.to_string().contains(&new.tenant) && error.to_string().contains("while"),
                    "{error}"
                );
            }
        }
    }
    ensure!(refused > 0 && assigned.len() > 3, "{refused} {assigned:?}");
    let tenant_of = |node: &str, container: &str, at: i64| -> String {
        let is_it = |one: &&Assignment| {
            one.container == container
                && one.node.as_deref() == Some(node)
                && one.from <= at
                && one.until.is_none_or(|until| at < until)
        };
        assigned.iter().find(is_it).map_or_else(|| "(no tenant)".to_owned(), |one| one.tenant.clone())
    };
    let stored = open_ledger(&target, &Reported { by_tenant: true, ..Reported::default() })?;
    let fine: Vec<(String, FiveMinutes)> = nodes
        .iter()
        .map(|node| Ok((node.about.name.clone(), five_minutes(&node.ledger)?)))
        .collect::<Result<_>>()?;
    for by in [By::Total, By::Month, By::Day, By::Hour] {
        let split = Split { class: true, ..Split::default() };
        let from = time(if random.bool() { BEGIN } else { BEGIN + 300 * random.i64(0..300) });
        let report = stored.report(&ReportQuery { by, split, from, ..ReportQuery::default() })?;
        let mut expected: BTreeMap<(i64, String, Option<u8>), [u64; 4]> = BTreeMap::new();
        for (node, rows) in &fine {
            for ((container, start, class), sums) in rows {
                let at = Timestamp::from_second(*start)?;
                let Some(step) = report.steps.iter().find(|step| step.start <= at && at < step.end) else {
                    continue;
                };
                let key = (step.start.as_second(), tenant_of(node, container, *start), *class);
                expected.entry(key).or_default().iter_mut().zip(sums).for_each(|(sum, value)| *sum += value);
            }
        }
        let mut found = BTreeMap::new();
        for row in &report.rows {
            let (a, b) = (row.figures.incoming.unwrap_or_default(), row.figures.outgoing.unwrap_or_default());
            let sums = [a.packets, a.bytes, b.packets, b.bytes];
            // A tenant may have a correction of a month without traffic of its own.
            if sums != [0; 4] {
                found.insert((row.start.as_second(), row.container.clone(), row.class), sums);
            }
        }
        ensure!(found == expected, "{by:?}\n{found:?}\n{expected:?}\n{assigned:#?}");
        let only = ReportQuery { by, containers: vec!["acme".to_owned()], ..ReportQuery::default() };
        if assigned.iter().any(|one| one.tenant == "acme") && stored.has_label("acme")? {
            let one = stored.report(&only)?;
            ensure!(one.rows.iter().all(|row| row.container == "acme"));
        }
    }
    Ok(())
}

#[test]
fn a_tenant_has_what_its_containers_counted_while_they_were_its_own() -> Result<()> {
    let namespace = Namespace::new("store-tenant")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    (0..histories()).try_for_each(|seed| tenants(&server, seed).with_context(|| format!("seed {seed}")))
}

#[test]
fn several_nodes_are_reported_as_their_sum() -> Result<()> {
    let namespace = Namespace::new("store-sum")?;
    let server = Postgres::start(&namespace, &["-c", "fsync=off"])?;
    (0..histories()).try_for_each(|seed| several_nodes(&server, seed).with_context(|| format!("seed {seed}")))
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
    for seed in 0..histories() {
        let mut random = fastrand::Rng::with_seed(seed);
        let target = new_store(&server)?;
        let mut nodes = Vec::new();
        for name in ["n1", "n2"] {
            let mut node = RandomNode::new(name, Calendar::utc(), &mut random)?;
            node.about.has_cluster_ids = true;
            // On the border of five minutes, so that no reading is late.
            node.node.wall = Timestamp::from_second(BEGIN)?;
            node.node.epoch_created = node.node.wall;
            node.live(Habits { is_late: false, drains: 1 }, &mut random)?;
            for _ in 0..150 {
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
