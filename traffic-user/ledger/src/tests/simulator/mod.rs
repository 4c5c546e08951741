//! Whole histories of a node over years, from a seed, compared with plain sums.
//!
//! A history draws from: readings at any distance, drops and sets of counters of them, steps of the clock, updates of time zone rules, reboots,
//! power failures, reverts of the memory and of the whole machine, new counters, clones, restored and torn
//! copies, retired containers, imports, closed months, corrections, maintenance, retention, a migration. The
//! process is killed at any write of any of these, and at any write of the opening afterwards; or writes fail for
//! a while.
//!
//! - `disk`, `vfs`: a disk in memory below SQLite, which stops at a write and loses what was not synced.
//! - `connections`: those that one history leaves to the next.
//! - `world`: a node and its ledger, and what can happen to it; `copies`, `commands`: the same of its files and
//!   of what people do.
//! - `book`: what the ledger must hold; `drops`: the same of what was dropped.
//! - `shipping`: a store that the ledger is shipped to, through everything that can happen to a shipper.
//! - `checks`: the comparison.
//!
//! `TRAFCTL_HISTORIES=N` runs N histories instead of the usual number, from `TRAFCTL_FIRST=S` on, and
//! `TRAFCTL_SEED=S` one. What it cannot show is in CONTRIBUTING.md.

mod book;
mod checks;
mod commands;
mod connections;
mod copies;
pub mod disk;
mod drops;
pub mod shipping;
mod vfs;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use world::World;

const HISTORIES: u64 = 2000;

/// A small generator, so that a seed means the same history everywhere (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

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

    /// From 0 to below `end`.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// True once in `times`.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// Runs one history. Returns what failed, with what happened before. `closely` compares after each step.
fn history(seed: u64, closely: bool) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut worlds = Vec::new();
    let run = std::panic::AssertUnwindSafe(|| {
        worlds.push(World::new(&mut random));
        for _ in 0..random.within(3, 15) {
            let at = random.below(worlds.len());
            let clone = worlds[at].step(&mut random);
            worlds.extend(clone);
            if closely {
                worlds.iter_mut().for_each(checks::check_state);
            }
        }
        for world in &mut worlds {
            world.finish(&mut random);
        }
    });
    let outcome = std::panic::catch_unwind(run);
    if outcome.is_ok() {
        worlds.iter_mut().for_each(World::end_process);
    }
    outcome.map_err(|panic| {
        let logs: Vec<String> = worlds.iter().map(|world| world.log.join("\n")).collect();
        format!(
            "history with seed {seed} (repeat it with TRAFCTL_SEED={seed}):\n{}\n{}",
            logs.join("\nthe clone:\n"),
            text(&*panic)
        )
    })
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

#[test]
fn every_history_ends_with_the_right_sums() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("TRAFCTL_SEED") {
        return history(seed, true).unwrap_or_else(|failure| panic!("{failure}"));
    }
    let first = number("TRAFCTL_FIRST").unwrap_or(0);
    let asked = number("TRAFCTL_HISTORIES");
    let count = asked.unwrap_or(HISTORIES);
    let next = AtomicU64::new(0);
    let threads = number("TRAFCTL_THREADS").and_then(|threads| usize::try_from(threads).ok());
    let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, Into::into));
    let run = || {
        let mut failures = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                connections::close_all();
                return failures;
            }
            if let Err(failure) = history(first + number, false) {
                // Whoever waits for a long run wants to know now.
                eprintln!("{failure}");
                failures.push(failure);
            }
            if asked.is_some() && (number + 1).is_multiple_of(10_000) {
                eprintln!("{} histories", number + 1);
            }
        }
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{} of {count} histories:\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn what_was_found_after_a_kill_is_still_there_after_a_power_failure() {
    let begin = |seed| {
        let mut random = Random::new(seed);
        let mut world = World::new(&mut random);
        world.reuses = false;
        world.traffic(&mut random);
        world.node.pass(60);
        (world, random)
    };
    let writes = |seed| {
        let (mut world, _) = begin(seed);
        let before = world.disk.changes();
        world.node.clone().drain(world.ledger());
        world.disk.changes() - before
    };
    let mut found_late = 0;
    for (stop, seed) in (0..3).flat_map(|seed| (1..=writes(seed)).map(move |stop| (stop, seed))) {
        let (mut world, mut random) = begin(seed);
        let before = checks::state(world.ledger());
        world.disk.stop_after(stop);
        // Killed at one of its writes, or afterwards.
        let drained = world.node.clone().try_drain(world.ledger());
        world.disk.stop_after(1);
        world.end_process();
        world.disk.restart();
        world.ledger = Some(world.open().unwrap());
        let found = checks::state(world.ledger());
        found_late += u64::from(drained.is_err() && found != before);
        world.disk.stop_after(1);
        world.end_process();
        world.disk.lose_power(&mut random);
        world.disk.restart();
        world.ledger = Some(world.open().unwrap());
        assert_eq!(checks::state(world.ledger()), found, "killed at write {stop}, seed {seed}");
    }
    assert!(found_late > 0, "no kill came between a commit and its sync");
}

#[test]
fn a_disk_that_forgets_what_was_synced_is_noticed() {
    disk::FORGETS.set(true);
    let noticed = (0..300).find(|&seed| history(seed, false).is_err());
    disk::FORGETS.set(false);
    connections::close_all();
    assert!(noticed.is_some(), "no history lost anything");
}
