//! A node, its ledger, and what can happen to both.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    sync::OnceLock,
};

use jiff::tz::TimeZone;
use traffic_model::calendar::{Calendar, Retention};

use super::{
    Random,
    book::Book,
    checks, connections,
    copies::{Copy, Earlier},
    disk::Disk,
    shipping::Store,
};
use crate::{
    DrainOutcome, Ledger, LedgerConfig, LedgerError,
    query::percentile_report::SHARES_ALWAYS,
    testing::{NOON, Node, ledger_with, quietly, time, zone},
};

pub const HOUR: i64 = 3600;
pub const DAY: i64 = 24 * HOUR;

/// A node and its ledger.
pub struct World {
    pub disk: Rc<Disk>,
    pub path: PathBuf,
    pub ledger: Option<Ledger>,
    pub node: Node,
    pub machine: String,
    pub calendar: Calendar,
    /// The clock is never wrong and the zone's rules never change, so every figure is known.
    pub calm: bool,
    /// How far the wall clock is from the true time, in seconds.
    pub off_by_s: i64,
    pub generations: u32,
    pub pending_so_far: u32,
    pub book: Book,
    /// What was reported as failed. A sync that failed may have left a commit in the log, which counts after a
    /// kill unless a later one replaced it.
    pub failed: Vec<Book>,
    pub copies: Vec<Copy>,
    pub earlier: Option<Earlier>,
    /// What PVA recorded before: its first sample, and the number of them.
    pub history: (i64, i64),
    pub store: Store,
    /// The shipper's own dice, so that histories stay what they are without one.
    pub dice: Random,
    /// Those of what happens to drops.
    pub drop_dice: Random,
    pub log: Vec<String>,
    /// Whether it takes over connections, see `connections`.
    pub reuses: bool,
}

/// How something ended that may have been killed.
pub enum Ended<T> {
    Done(T),
    /// Whether it reported success before.
    Killed(bool),
    /// The same of something during which the disk failed.
    Failed(bool),
}

impl World {
    pub fn new(random: &mut Random) -> Self {
        let calm = random.once_in(2);
        let wrong = match random.within(0, 6) {
            _ if calm => 0,
            0 => -NOON,
            1 => 3650 * DAY,
            2 => random.within(-90, 90) * DAY,
            _ => 0,
        };
        let begin = NOON + random.within(-400, 400) * DAY + random.within(0, DAY);
        let calendar = if calm { fixed_rules(random) } else { rules(random) };
        let disk = Disk::new();
        let path = disk.path().join("ledger.sqlite");
        let is_made = random.once_in(20);
        if !is_made {
            disk.put(&path, empty_ledger().to_vec());
        }
        let mut world = Self {
            disk,
            path,
            ledger: None,
            node: Node::balanced(begin + wrong),
            machine: "machine 1".to_owned(),
            calendar,
            calm,
            off_by_s: wrong,
            generations: 1,
            pending_so_far: 0,
            book: Book::new(calm),
            failed: Vec::new(),
            copies: Vec::new(),
            earlier: None,
            history: (begin.div_euclid(3600) * 3600 - random.within(1, 80) * DAY, random.within(1, 40)),
            store: Store::default(),
            dice: Random::new(begin.unsigned_abs()),
            drop_dice: Random::new(!begin.unsigned_abs()),
            log: vec![format!("a {} history", if calm { "calm" } else { "wild" })],
            reuses: false,
        };
        let reuses = begin % 16 != 0;
        world.reuses = reuses && !is_made;
        SHARES_ALWAYS.set(!reuses);
        let (ledger, _) = world.open_through_kills(random, if is_made { 2 } else { 50 }, 500);
        world.reuses = reuses;
        let ledger = if is_made { world.with_statements(ledger) } else { ledger };
        // Up to here, a real file would be empty.
        ledger.checkpoint().unwrap();
        world.ledger = Some(ledger);
        world
    }

    pub fn config(&self) -> LedgerConfig {
        LedgerConfig {
            calendar: self.calendar.clone(),
            retention: Retention { five_minutes_days: 35, hours_months: 3 },
            machine: Some(self.machine.clone()),
            ..LedgerConfig::default()
        }
    }

    /// As a process that begins, whose every write counts.
    pub fn open(&self) -> Result<Ledger, LedgerError> {
        Ledger::open(&self.path, self.config())
    }

    /// The same where the opening is not killed.
    pub fn open_again(&self) -> Result<Ledger, LedgerError> {
        if !self.reuses {
            return self.open();
        }
        let connect = |path: &Path| connections::connect(&self.disk, path);
        Ledger::open_by(&self.path, self.config(), &quietly(), connect)
    }

    /// A ledger that was opened by a process that began, with the statements of an earlier one.
    pub fn with_statements(&self, mut opened: Ledger) -> Ledger {
        if self.reuses {
            connections::exchange(&mut opened, &self.disk).unwrap();
        }
        opened
    }

    /// The process ends, whatever it was doing.
    pub fn end_process(&mut self) {
        let Some(ledger) = self.ledger.take() else { return };
        if self.reuses && connections::is_idle(&ledger.conn) {
            connections::keep(ledger);
        }
    }

    pub fn ledger(&mut self) -> &mut Ledger {
        self.ledger.as_mut().unwrap()
    }

    /// Does something. Sometimes everything stops at one of its first `changes` writes.
    pub fn guarded<T>(
        &mut self,
        random: &mut Random,
        changes: i64,
        action: impl FnOnce(&mut Ledger, &Node) -> Result<T, LedgerError>,
    ) -> Ended<Result<T, LedgerError>> {
        if random.once_in(20) {
            self.disk.stop_after(random.within(1, changes).unsigned_abs());
        }
        if random.once_in(30) {
            let count = if random.once_in(2) { 1 } else { 1000 };
            self.disk.fail_after(random.within(1, changes).unsigned_abs(), count);
        }
        let result = action(self.ledger.as_mut().unwrap(), &self.node);
        let failed = self.disk.heal();
        if self.disk.is_stopped() {
            return Ended::Killed(result.is_ok());
        }
        self.disk.never_stop();
        if failed { Ended::Failed(result.is_ok()) } else { Ended::Done(result) }
    }

    /// Starts again after a kill, or after a power failure, and finds out which of these states the ledger has.
    pub fn recover(&mut self, random: &mut Random, mut states: Vec<Book>) {
        states.append(&mut self.failed);
        self.end_process();
        let power_failed = random.once_in(2);
        if power_failed {
            self.disk.lose_power(random);
        }
        self.disk.restart();
        let (ledger, power_failed_again) = self.open_through_kills(random, 4, 30);
        let power_failed = power_failed || power_failed_again;
        self.log.push(format!("killed, power failed: {power_failed}"));
        let found = checks::state(&ledger);
        self.ledger = Some(ledger);
        self.take_state(&found, states);
        if power_failed {
            self.restart_node(random);
        }
    }

    /// Finds out which of these states the ledger has.
    fn take_state(&mut self, found: &checks::State, states: Vec<Book>) {
        let known: Vec<_> = states.iter().map(checks::expected).collect();
        let at = known.iter().position(|state| state == found);
        let at = at.unwrap_or_else(|| panic!("the ledger holds {found:?}, not one of {known:?}"));
        self.book = states.into_iter().nth(at).unwrap();
    }

    /// Opens the ledger. Once in `times`, everything stops at one of the first `changes` writes. Returns whether
    /// the power failed.
    fn open_through_kills(&mut self, random: &mut Random, times: usize, changes: i64) -> (Ledger, bool) {
        let mut power_failed = false;
        loop {
            let is_killed = random.once_in(times);
            if is_killed {
                self.disk.stop_after(random.within(1, changes).unsigned_abs());
            }
            let opened = if is_killed { self.open() } else { self.open_again() };
            if !self.disk.is_stopped() {
                self.disk.never_stop();
                let opened = opened.unwrap_or_else(|error| panic!("cannot be opened after a kill: {error}"));
                return (if is_killed { self.with_statements(opened) } else { opened }, power_failed);
            }
            drop(opened);
            if random.once_in(2) {
                power_failed = true;
                self.disk.lose_power(random);
            }
            self.disk.restart();
        }
    }

    /// Does something that changes what the ledger holds.
    pub fn change(
        &mut self,
        random: &mut Random,
        changes: i64,
        after: Book,
        action: impl FnOnce(&mut Ledger, &Node) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        match self.guarded(random, changes, action) {
            Ended::Done(result) => {
                result?;
                self.failed.clear();
                self.book = after;
            }
            Ended::Killed(true) => self.recover(random, vec![after]),
            Ended::Killed(false) => self.recover(random, vec![self.book.clone(), after]),
            Ended::Failed(true) => {
                self.log.push("the disk failed afterwards".to_owned());
                self.book = after;
            }
            Ended::Failed(false) => {
                self.log.push("the disk failed".to_owned());
                self.failed.push(after.clone());
                let found = checks::state(self.ledger());
                self.take_state(&found, vec![self.book.clone(), after]);
            }
        }
        Ok(())
    }

    pub fn drain(&mut self, random: &mut Random) {
        self.show_unknown_drops();
        let after = self.book.drained(&self.node);
        let drain = |ledger: &mut Ledger, node: &Node| node.try_drain(ledger).map(|_: DrainOutcome| ());
        self.change(random, 40, after, drain).unwrap();
    }

    pub fn maintain(&mut self, random: &mut Random) {
        let same = self.book.clone();
        let changes = 10_i64.pow(u32::try_from(random.within(1, 4)).unwrap());
        let maintain = |ledger: &mut Ledger, node: &Node| ledger.maintain(node.wall).map(drop);
        self.change(random, changes, same, maintain).unwrap();
    }

    /// Readings at some distance for some time. Returns the state after each.
    pub fn run(&mut self, random: &mut Random) -> Vec<Book> {
        let distance = [60, 300, 600, 1500, HOUR, 5 * HOUR, 11 * HOUR, 30 * HOUR][random.below(8)];
        let readings = random.within(1, 6);
        self.log.push(format!("{readings} readings, one in {distance} s, now {}", self.node.wall));
        let mut states = Vec::new();
        for _ in 0..readings {
            self.traffic(random);
            let late = if random.once_in(4) { random.within(0, 40) } else { 0 };
            self.node.pass((distance + late).unsigned_abs());
            self.drain(random);
            states.push(self.book.clone());
        }
        states
    }

    pub fn traffic(&mut self, random: &mut Random) {
        let container = random.within(0, 2);
        let class = u8::try_from(random.within(0, 3)).unwrap();
        let bytes = random.next() % 1_000_000;
        let packets = 1 + bytes / 1500;
        let (container, generation) = (format!("10{container}"), self.generations);
        let sums = [packets, bytes, packets + 1, bytes * 2];
        self.node.traffic_in(&container, generation, class, sums);
        self.drop_some(&container, generation, class, sums);
    }

    pub fn set_clock(&mut self, by_s: i64) {
        self.log.push(format!("clock set by {by_s} s"));
        self.node.set_clock(by_s);
        self.off_by_s += by_s;
    }

    /// Does something by chance. Returns the clone, if that was a clone.
    pub fn step(&mut self, random: &mut Random) -> Option<Self> {
        if self.dice.once_in(3) {
            let ledger = self.ledger.as_ref().unwrap();
            self.store.ship(ledger, Some(&mut self.dice));
        }
        self.step_drops();
        match random.within(0, 33) {
            0..=4 if !self.calm => match random.within(0, 4) {
                0 => self.set_clock(random.within(-30 * HOUR, 30 * HOUR)),
                1 => self.set_clock(random.within(-70, 70) * DAY),
                2 => {
                    self.log.push("new rules of the zone".to_owned());
                    self.calendar = rules(random);
                    self.ledger().calendar = self.calendar.clone();
                }
                _ => self.set_clock(-self.off_by_s),
            },
            5 => self.reboot(random),
            6 => self.remember(),
            7 => self.revert(random),
            8..=9 => self.close(random),
            10 => {
                self.log.push("maintenance".to_owned());
                self.maintain(random);
            }
            11..=12 => {
                self.log.push("quiet for days".to_owned());
                let days = random.within(1, 60);
                self.node.pass((days * DAY).unsigned_abs());
                self.drain(random);
            }
            13 => self.new_counters(random),
            14 => self.retire(random),
            15 if random.once_in(2) => self.copy(random),
            16 if random.once_in(2) => self.restore(random),
            17 if random.once_in(4) => return Some(self.clone_machine(random)),
            18 if random.once_in(3) => self.change_key(random),
            18 => self.adjust(random),
            // It takes as long as two whole histories.
            19 if random.once_in(20) => self.migrate(random),
            20 => self.import(random),
            21 if random.once_in(3) => self.reopen(),
            22 => self.new_pending(random),
            23 | 24 => self.attribute(random),
            25 => self.attribute_by_hand(random),
            _ => drop(self.run(random)),
        }
        None
    }

    pub fn reboot(&mut self, random: &mut Random) {
        if random.once_in(2) {
            self.drain(random);
        }
        self.restart_node(random);
        match random.within(0, 5) {
            _ if self.calm => {}
            0 => self.set_clock(60 - self.node.wall.as_second()),
            1 => self.set_clock(random.within(-90, 3650) * DAY),
            _ => {}
        }
        self.node.renew_maps();
    }

    pub fn restart_node(&mut self, random: &mut Random) {
        let down_s = random.within(60, 4 * DAY);
        self.log.push(format!("reboot, down for {down_s} s"));
        self.node.reboot(down_s);
        // A boot after a revert is another one than that which was reverted.
        self.node.boot_id = format!("boot {:016x}", random.next());
        self.node.epoch = random.next();
        self.generations = 1;
    }

    pub fn new_counters(&mut self, random: &mut Random) {
        self.log.push("new counters".to_owned());
        if random.once_in(2) {
            self.drain(random);
        }
        self.node.pass(random.within(1, HOUR).unsigned_abs()).renew_maps();
        self.node.epoch = random.next();
    }

    /// Everything is read a last time and compared.
    pub fn finish(&mut self, random: &mut Random) {
        if !self.calm {
            self.set_clock(-self.off_by_s);
        }
        self.drain(random);
        // Few histories are long enough for months that somebody closes by chance.
        if self.dice.once_in(2) {
            let mut dice = self.dice.clone();
            self.close(&mut dice);
        }
        self.maintain(random);
        checks::check(self);
        self.store.check(self.ledger.as_ref().unwrap());
    }
}

pub const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

/// A ledger in which nothing was recorded yet. Creating one takes longer than a history.
fn empty_ledger() -> &'static [u8] {
    static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
    EMPTY.get_or_init(|| {
        let file = ledger_with(LedgerConfig::default());
        crate::digest::change(&file.ledger.conn, |transaction| {
            Ok(transaction.execute_batch("DELETE FROM meta WHERE key IN ('file', 'zone', 'billing_day')")?)
        })
        .unwrap();
        file.ledger.checkpoint().unwrap();
        std::fs::read(file.ledger.path()).unwrap()
    })
}

const OFFSETS: [i32; 7] = [0, 3600, 18_000, 19_800, 20_700, -12_600, 21_600];

/// A zone whose offset does not change in these years, and which a migration finds by its name.
fn fixed_rules(random: &mut Random) -> Calendar {
    let names = ["UTC", "Asia/Karachi", "Asia/Kolkata", "Asia/Kathmandu", "America/Bogota", "Asia/Dhaka"];
    Calendar::new(names[random.below(names.len())], 1).unwrap()
}

/// Some rules of a zone: a fixed offset, or one that changes now and then.
fn rules(random: &mut Random) -> Calendar {
    let mut offset = || OFFSETS[random.below(7)];
    let (first, second, third) = (offset(), offset(), offset());
    let changes =
        [(NOON + random.within(-500, 0) * DAY, second), (NOON + random.within(1, 900) * DAY, third)];
    let zone: TimeZone = zone("Test/City", first, &changes);
    Calendar::with_rules(zone, "Test/City", 1).unwrap()
}

/// The time of a day's name.
pub fn at(unix_s: i64) -> jiff::Timestamp {
    time(unix_s)
}
