//! Whole histories of a node over years, from a seed: readings, clock jumps, updates of time zone rules,
//! reboots, reverts, closed months, retention. After each history the ledger is compared with plain sums.
//!
//! `TRAFCTL_HISTORIES=N` runs N histories instead of the usual number, and `TRAFCTL_SEED=S` one. What it does
//! not model: killed processes and lost pages (`crashes`), clones and restored files, imports, corrections.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use traffic_model::calendar::{Calendar, Retention};

use crate::{By, Ledger, LedgerConfig, ReportQuery, testing::*};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const HISTORIES: u64 = 150;

/// A small generator, so that a seed means the same history everywhere (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to below `high`.
    fn within(&mut self, low: i64, high: i64) -> i64 {
        let range = u64::try_from(high - low).unwrap();
        low + i64::try_from(self.next() % range).unwrap()
    }
}

/// A node, its ledger, and what is known about both.
struct Simulation {
    random: Random,
    file: File,
    node: Node,
    /// How far the wall clock is from the true time, in seconds.
    off_by_s: i64,
    /// The largest rate in any direction, in bytes per second.
    fastest: u64,
    /// Frozen bytes of closed months.
    closed: BTreeMap<String, u64>,
    log: Vec<String>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let wrong = match random.within(0, 6) {
            0 => -NOON,
            1 => 3650 * DAY,
            2 => random.within(-90, 90) * DAY,
            _ => 0,
        };
        let begin = NOON + random.within(-400, 400) * DAY + random.within(0, DAY);
        let config = LedgerConfig {
            calendar: rules(&mut random),
            retention: Retention { five_minutes_days: 35, hours_months: 3 },
            ..LedgerConfig::default()
        };
        let (file, node) = (ledger_with(config), Node::balanced(begin + wrong));
        Self { random, file, node, off_by_s: wrong, fastest: 0, closed: BTreeMap::new(), log: Vec::new() }
    }

    fn drain(&mut self) {
        self.node.drain(&mut self.file.ledger);
    }

    /// Readings at some distance for some time.
    fn run(&mut self) {
        let distance =
            [300, 600, 1500, HOUR, 5 * HOUR, 11 * HOUR][usize::try_from(self.random.within(0, 6)).unwrap()];
        let readings = self.random.within(1, 40);
        self.log.push(format!("{readings} readings, one in {distance} s"));
        for _ in 0..readings {
            let container = format!("10{}", self.random.within(0, 2));
            let class = u8::try_from(self.random.within(0, 3)).unwrap();
            let bytes = u64::try_from(self.random.within(0, 1_000_000)).unwrap();
            self.fastest = self.fastest.max(bytes * 3 / distance.unsigned_abs() + 1);
            self.node.traffic(&container, class, [1, bytes, 2, bytes * 2]).pass(distance.unsigned_abs());
            self.drain();
        }
    }

    fn set_clock(&mut self, by_s: i64) {
        self.log.push(format!("clock set by {by_s} s"));
        self.node.set_clock(by_s);
        self.off_by_s += by_s;
    }

    fn step(&mut self) {
        match self.random.within(0, 17) {
            0 => {
                let by_s = self.random.within(-30 * HOUR, 30 * HOUR);
                self.set_clock(by_s);
            }
            1 => {
                let by_s = self.random.within(-70, 70) * DAY;
                self.set_clock(by_s);
            }
            2..=4 => self.set_clock(-self.off_by_s),
            5 => self.reboot(),
            6 => self.revert(),
            7 => {
                self.log.push("new rules of the zone".to_owned());
                self.file.ledger.calendar = rules(&mut self.random);
            }
            8..=9 => self.close(),
            10..=11 => {
                self.log.push("maintenance".to_owned());
                self.file.ledger.maintain(self.node.wall).unwrap();
            }
            12 => {
                self.log.push("quiet for days".to_owned());
                let days = u64::try_from(self.random.within(1, 60)).unwrap();
                self.node.pass(days * DAY.unsigned_abs());
                self.drain();
            }
            _ => self.run(),
        }
    }

    fn reboot(&mut self) {
        let down_s = self.random.within(60, 4 * DAY);
        self.log.push(format!("reboot, down for {down_s} s"));
        self.drain();
        self.node.reboot(down_s);
        match self.random.within(0, 5) {
            0 => {
                let by_s = 60 - self.node.wall.as_second();
                self.set_clock(by_s);
            }
            1 => {
                let by_s = self.random.within(-90, 3650) * DAY;
                self.set_clock(by_s);
            }
            _ => {}
        }
        self.node.renew_maps();
    }

    /// The node goes back to an earlier state of its memory. What it counts before the next reading is lost.
    fn revert(&mut self) {
        self.drain();
        let node = &self.node;
        let (wall, boottime, counters, passed) =
            (node.wall, node.boottime, node.counters.clone(), node.passed);
        self.run();
        self.log.push("reverted".to_owned());
        let known = self.node.truth.clone();
        let went_on = self.node.boottime.saturating_sub(boottime);
        (self.node.wall, self.node.boottime, self.node.counters, self.node.passed) =
            (wall, boottime, counters, passed);
        self.off_by_s -= i64::try_from(went_on.as_secs()).unwrap();
        self.node.traffic("100", 1, [3, 300, 3, 300]).pass(60);
        self.drain();
        self.node.truth = known;
    }

    fn months(&self) -> BTreeMap<String, u64> {
        let mut months = BTreeMap::new();
        let report =
            self.file.ledger.report(&ReportQuery { by: By::Month, ..ReportQuery::default() }).unwrap();
        for row in report.rows {
            *months.entry(row.period).or_default() += row.figures.total.bytes;
        }
        months
    }

    fn close(&mut self) {
        self.file.ledger.maintain(self.node.wall).unwrap();
        let Some(next) = self.months().into_keys().find(|month| !self.closed.contains_key(month)) else {
            return;
        };
        let closed = self.file.ledger.close_anyway(&next, self.node.wall);
        self.log.push(format!("close {next}: {:?}", closed.as_ref().map(|closed| closed.rows)));
        if closed.is_ok() {
            let bytes = self.months().get(&next).copied().unwrap_or(0);
            self.closed.insert(next, bytes);
        }
    }

    /// Compares the ledger with plain sums.
    fn check(&mut self) {
        self.drain();
        self.file.ledger.maintain(self.node.wall).unwrap();
        let ledger = &self.file.ledger;
        assert_eq!(ledger.audit().unwrap().problems, Vec::<String>::new());
        let truth: u64 = self.node.truth.values().map(|sums| sums[1] + sums[3]).sum();
        for by in [By::Total, By::Month, By::Day] {
            let report = ledger.report(&ReportQuery { by, ..ReportQuery::default() }).unwrap();
            let sum: u64 = report.rows.iter().map(|row| row.figures.total.bytes).sum();
            assert_eq!(sum, truth, "{by:?}");
            let mut keys: Vec<_> =
                report.rows.iter().map(|row| (&row.period, &row.container, row.class)).collect();
            let all = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), all, "each name of a step stands for one step: {by:?}");
        }
        let months = self.months();
        for (month, bytes) in &self.closed {
            assert_eq!(months.get(month).unwrap_or(&0), bytes, "{month} was closed");
        }
        check_borders(ledger);
    }
}

/// Stored days and months do not overlap, have names in order, and nest.
fn check_borders(ledger: &Ledger) {
    let of_level = |level: u8| -> Vec<(i64, i64, String)> {
        let mut statement = ledger
            .conn
            .prepare("SELECT start, end, name FROM border WHERE level = ?1 ORDER BY start")
            .unwrap();
        let rows = statement.query_map([level], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.unwrap().map(Result::unwrap).collect()
    };
    let (days, months) = (of_level(2), of_level(3));
    for units in [&days, &months] {
        for pair in units.windows(2) {
            assert!(pair[0].0 < pair[0].1 && pair[0].1 <= pair[1].0 && pair[0].2 < pair[1].2, "{pair:?}");
        }
    }
    for day in &days {
        assert!(months.iter().any(|month| month.0 <= day.0 && day.1 <= month.1), "{day:?} in {months:?}");
    }
}

/// Some rules of a zone: a fixed offset, or one that changes now and then.
fn rules(random: &mut Random) -> Calendar {
    const OFFSETS: [i32; 7] = [0, 3600, 18_000, 19_800, 20_700, -12_600, 21_600];
    let mut offset = || OFFSETS[usize::try_from(random.within(0, 7)).unwrap()];
    let (first, second, third) = (offset(), offset(), offset());
    let changes =
        [(NOON + random.within(-500, 0) * DAY, second), (NOON + random.within(1, 900) * DAY, third)];
    let zone: TimeZone = zone("Test/City", first, &changes);
    Calendar::with_rules(zone, "Test/City", 1).unwrap()
}

fn history(seed: u64) {
    let mut simulation = Simulation::new(seed);
    let run = std::panic::AssertUnwindSafe(|| {
        for _ in 0..simulation.random.within(5, 60) {
            simulation.step();
        }
        simulation.check();
    });
    if let Err(panic) = std::panic::catch_unwind(run) {
        let log = std::mem::take(&mut simulation.log);
        panic!(
            "history with seed {seed} (repeat it with TRAFCTL_SEED={seed}):\n{}\n{}",
            log.join("\n"),
            text(&panic)
        );
    }
}

fn text(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

#[test]
fn every_history_ends_with_the_right_sums() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("TRAFCTL_SEED") {
        return history(seed);
    }
    for seed in 0..number("TRAFCTL_HISTORIES").unwrap_or(HISTORIES) {
        history(seed);
    }
}
