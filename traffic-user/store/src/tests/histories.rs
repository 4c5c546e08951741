//! The histories.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use traffic_common::DropGroup;
use traffic_ledger::{Changes, DROPPED_TABLE, Ledger, LedgerConfig, testing};

use super::{
    fake::Fake,
    model::{Model, Simulated},
    sort,
};
use crate::{Node, Refusal, ShipError, Shipper, StoreError, verify};

const NOON: i64 = 1_794_312_000;
/// Everyday histories. `TRAFCTL_HISTORIES` asks for others, from `TRAFCTL_FIRST` on.
const HISTORIES: u64 = 500;

pub struct World<S> {
    directory: tempfile::TempDir,
    pub ledger: Ledger,
    pub node: testing::Node,
    pub store: S,
    pub random: fastrand::Rng,
    copies: usize,
    is_old: bool,
}

pub fn config(machine: &str) -> LedgerConfig {
    LedgerConfig { machine: Some(machine.to_owned()), ..LedgerConfig::default() }
}

pub fn of_node() -> Node {
    Node {
        name: "n1".to_owned(),
        version: "0.2.0".to_owned(),
        kernel: "6.1.0".to_owned(),
        has_cluster_ids: false,
    }
}

impl<S: Simulated> World<S> {
    pub fn new(seed: u64) -> Self {
        // In memory: syncing is not what these tests are about, and a busy disk takes seconds for it.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let ledger = Ledger::open(&directory.path().join("ledger.sqlite"), config("m1")).unwrap();
        let random = fastrand::Rng::with_seed(seed);
        let mut node = testing::Node::balanced(NOON);
        node.count_drops();
        Self { directory, ledger, node, store: S::default(), random, copies: 0, is_old: false }
    }

    pub fn drain(&mut self) {
        for _ in 0..self.random.usize(0..3) {
            let container = ["101", "102", "103"][self.random.usize(..3)];
            let sums = [0; 4].map(|_: u64| self.random.u64(1..5000));
            let class = self.random.u8(0..3);
            self.node.traffic(container, class, sums);
            if self.random.bool() {
                let group = DropGroup::ALL[self.random.usize(..DropGroup::ALL.len())];
                self.node.dropped(container, class, group, sums.map(|value| value / 3));
            }
        }
        let seconds =
            if self.random.u8(..5) == 0 { self.random.u64(3600..90_000) } else { self.random.u64(20..700) };
        self.node.pass(seconds).drain(&mut self.ledger);
    }

    pub fn copy(&mut self) -> PathBuf {
        self.copies += 1;
        let path = self.directory.path().join(format!("copy{}.sqlite", self.copies));
        self.ledger.backup(&path).unwrap();
        path
    }

    fn connection(&mut self, fails: usize) -> S::Connection {
        self.store.connect(self.random.u64(..), fails, usize::MAX)
    }

    fn ship_over(&self, connection: &mut S::Connection) -> Result<crate::Shipped, ShipError> {
        let node = of_node();
        let shipper =
            Shipper { ledger: &self.ledger, machine: Some("m1"), node: &node, size: Arc::default() };
        block_on(shipper.ship(connection, &mut |_, _| {}))
    }

    fn ship_well(&mut self) -> Result<(), Refusal> {
        let mut connection = self.connection(0);
        match self.ship_over(&mut connection) {
            Ok(_) => Ok(()),
            Err(ShipError::Refused(refusal)) => Err(refusal),
            Err(other) => panic!("{other}"),
        }
    }

    /// The store is made before there were drops, or migrated.
    fn set_old(&mut self, is_old: bool) {
        self.is_old = is_old;
        self.store.set_old(is_old);
    }

    /// Ships by a program that knows no drops.
    fn ship_by_older(&mut self) -> Result<(), Refusal> {
        let seed = self.random.u64(..);
        let Some(mut connection) = self.store.connect_older(seed) else { return Ok(()) };
        match self.ship_over(&mut connection) {
            Ok(_) | Err(ShipError::Store(StoreError::Away(_) | StoreError::NotNow(_))) => Ok(()),
            Err(ShipError::Refused(refusal)) => Err(refusal),
            Err(other) => panic!("{other}"),
        }
    }

    /// Ships with failures for a while.
    fn ship_badly(&mut self) -> Result<(), Refusal> {
        let mut connection = self.connection(4);
        for _ in 0..3 {
            match self.ship_over(&mut connection) {
                Ok(_) | Err(ShipError::Store(StoreError::Away(_))) => {}
                Err(ShipError::Refused(refusal)) => return Err(refusal),
                Err(other) => panic!("{other}"),
            }
            if self.random.bool() {
                self.drain();
            }
        }
        Ok(())
    }

    pub fn adopt(&mut self) {
        let node = of_node();
        let mut connection = self.connection(0);
        let shipper =
            Shipper { ledger: &self.ledger, machine: Some("m1"), node: &node, size: Arc::default() };
        block_on(async {
            let takeover = shipper.takeover(&mut connection).await.unwrap();
            crate::Store::take_over(&mut connection, &takeover).await.unwrap();
        });
    }

    /// Ships everything, and compares each row.
    pub fn check(&mut self, what: &str) {
        let mut connection = self.connection(0);
        self.ship_over(&mut connection).unwrap_or_else(|error| panic!("{what}: {error}"));
        let identity = self.ledger.shipping_identity().unwrap();
        let mut expected = Vec::new();
        for units in [false, true] {
            let parts = self.ledger.changes(Changes { after: 0, until: i64::MAX, units }).unwrap();
            let names: Vec<_> = parts.iter().map(|part| (part.0, part.1)).collect();
            expected.extend(self.ledger.contents(&names).unwrap());
        }
        let ledgers = self.store.ledgers();
        let of = &ledgers[&identity.ledger];
        assert_eq!(of.known.done, identity.changes, "{what}");
        for content in &expected {
            let mut sorted = content.clone();
            sort(&mut sorted);
            sorted.rows.retain(|row| !self.is_old || row.0 != DROPPED_TABLE);
            let mut found = of.parts[&(content.name.to_owned(), content.number)].clone();
            sort(&mut found);
            assert_eq!(found, sorted, "{what}");
        }
        let kept =
            |part: &&(String, i64)| part.0 != "5min" || identity.kept_from.is_none_or(|from| part.1 >= from);
        assert_eq!(of.parts.keys().filter(kept).count(), expected.len(), "{what}: the store has other parts");
    }

    fn verify(&mut self, repairs: bool) -> crate::Verified {
        let node = of_node();
        let mut connection = self.connection(0);
        let shipper =
            Shipper { ledger: &self.ledger, machine: Some("m1"), node: &node, size: Arc::default() };
        block_on(verify(&shipper, &mut connection, repairs)).unwrap()
    }
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// One history: drains, maintenance, ships that fail, restored copies.
fn history<S: Simulated>(seed: u64) {
    let mut world = World::<S>::new(seed);
    let mut backup = None;
    if seed.is_multiple_of(3) {
        world.set_old(true);
    }
    for step in 0..25 {
        match world.random.u8(..14) {
            0..6 => world.drain(),
            6 => drop(world.ledger.maintain(world.node.wall).unwrap()),
            7 => backup = Some(world.copy()),
            8 if backup.is_some() => {
                let path = backup.take().unwrap();
                world.store.settle();
                world.ledger = Ledger::open(&path, config("m1")).unwrap();
                world.drain();
                if world.random.bool() {
                    (0..4).for_each(|_| world.drain());
                }
                // Bad connections may all be lost before anything is known.
                match world.ship_badly().and_then(|()| world.ship_well()) {
                    Ok(()) => {}
                    Err(Refusal::Restored { .. }) => world.adopt(),
                    Err(other) => panic!("seed {seed}, step {step}: {other}"),
                }
            }
            9 => {
                world.check(&format!("seed {seed}, step {step}"));
                assert_eq!(world.verify(false).differences, [], "seed {seed}, step {step}");
            }
            10 => world.set_old(false),
            11 => {
                world.ship_by_older().unwrap_or_else(|refusal| panic!("seed {seed}, step {step}: {refusal}"));
            }
            _ => world.ship_badly().unwrap_or_else(|refusal| panic!("seed {seed}, step {step}: {refusal}")),
        }
    }
    world.set_old(false);
    world.drain();
    world.check(&format!("seed {seed}, at the end"));
    assert_eq!(world.verify(false).differences, [], "seed {seed}");
    // A single altered row is found, repaired, and not found again.
    let altered = world.store.alter(&mut world.random);
    let found = world.verify(true);
    assert_eq!(found.differences.len(), 1, "seed {seed}: {altered:?} {found:?}");
    assert_eq!(
        (found.differences[0].name.as_str(), found.differences[0].number),
        (altered.0.as_str(), altered.1)
    );
    assert_eq!(found.repaired, 1, "seed {seed}");
    world.check(&format!("seed {seed}, repaired"));
}

/// Runs all histories, on all CPUs. After a failure, the others run on.
fn histories<S: Simulated>() {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (first, wanted) = (asked("TRAFCTL_FIRST").unwrap_or(0), asked("TRAFCTL_HISTORIES"));
    let count: u64 = wanted.unwrap_or(HISTORIES);
    let next = AtomicU64::new(0);
    let run = || {
        let mut failed = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return failed;
            }
            let seed = first + number;
            if std::panic::catch_unwind(|| history::<S>(seed)).is_err() {
                // Whoever waits for a long run wants to know now. The panic has said why.
                eprintln!("history with seed {seed} failed");
                failed.push(seed);
            }
            if wanted.is_some() && (number + 1).is_multiple_of(1000) {
                eprintln!("{} histories", number + 1);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut failed: Vec<u64> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    failed.sort_unstable();
    // `prove` reads this line.
    println!("{count} histories, {} failed: seeds {failed:?}", failed.len());
    assert!(failed.is_empty(), "seeds {failed:?}");
}

#[test]
fn a_store_in_transactions_holds_what_the_ledger_holds() {
    histories::<Model>();
}

#[test]
fn a_store_in_replacing_tables_holds_what_the_ledger_holds() {
    histories::<Fake>();
}

#[test]
fn a_clone_is_refused_until_it_takes_the_place_of_its_original() {
    a_clone_is_refused::<Model>();
    a_clone_is_refused::<Fake>();
}

fn a_clone_is_refused<S: Simulated>() {
    let mut world = World::<S>::new(7);
    (0..5).for_each(|_| world.drain());
    world.check("the original");
    let copy = world.copy();
    // On another machine, the ledger is not even its own before it is adopted.
    let node = of_node();
    let there = Ledger::open_read_only(&copy).unwrap();
    let ship = |ledger: &Ledger, store: &S| {
        let shipper = Shipper { ledger, machine: Some("m2"), node: &node, size: Arc::default() };
        let mut connection = store.connect(1, 0, usize::MAX);
        block_on(shipper.ship(&mut connection, &mut |_, _| {})).unwrap_err()
    };
    assert!(matches!(ship(&there, &world.store), ShipError::Refused(Refusal::Copied)));
    drop(there);
    let adopting = LedgerConfig { adopt: true, ..config("m2") };
    let there = Ledger::open(&copy, adopting).unwrap();
    let original = world.ledger.shipping_identity().unwrap().ledger;
    let refused = ship(&there, &world.store);
    assert!(
        matches!(&refused, ShipError::Refused(Refusal::Adopted { parent }) if *parent == original),
        "{refused}"
    );
    assert_eq!(world.store.ledgers().len(), 1);
    // The deliberate way on: the same rows, once, under the new id.
    let shipper = Shipper { ledger: &there, machine: Some("m2"), node: &node, size: Arc::default() };
    let mut connection = world.store.connect(2, 0, usize::MAX);
    block_on(async {
        let takeover = shipper.takeover(&mut connection).await.unwrap();
        assert_eq!(takeover.place, original);
        crate::Store::take_over(&mut connection, &takeover).await.unwrap();
        shipper.ship(&mut connection, &mut |_, _| {}).await.unwrap();
    });
    // The original was not gone after all: it is refused, and nothing counts twice.
    let shipper = Shipper { ledger: &world.ledger, machine: Some("m1"), node: &node, size: Arc::default() };
    let refused = block_on(shipper.ship(&mut connection, &mut |_, _| {})).unwrap_err();
    let by = there.shipping_identity().unwrap().ledger;
    assert!(
        matches!(&refused, ShipError::Refused(Refusal::Replaced { by: found }) if *found == by),
        "{refused}"
    );
    let with_rows = |store: &S| store.ledgers().values().filter(|of| !of.parts.is_empty()).count();
    assert_eq!(with_rows(&world.store), 1);
    // Unless somebody decides otherwise.
    world.adopt();
    world.check("the original again");
    assert_eq!(with_rows(&world.store), 1);
}

#[test]
fn a_connection_of_before_the_migration_takes_no_drops_away() {
    let mut world = World::<Fake>::new(5);
    world.set_old(true);
    (0..5).for_each(|_| world.drain());
    let mut before = world.connection(0);
    world.ship_over(&mut before).unwrap();
    world.set_old(false);
    world.check("after the migration");
    for _ in 0..3 {
        world.drain();
        let ended = world.ship_over(&mut before);
        assert!(matches!(ended, Err(ShipError::Store(StoreError::NotNow(_)))), "{ended:?}");
        world.check("after the old connection");
    }
    assert_eq!(world.verify(false).differences, []);
}

#[test]
fn a_store_knows_which_five_minutes_were_gone_before_their_drops_came() {
    five_minutes_were_gone::<Model>();
    five_minutes_were_gone::<Fake>();
}

fn five_minutes_were_gone<S: Simulated>() {
    for is_old in [true, false] {
        let mut world = World::<S>::new(6);
        world.set_old(is_old);
        (0..9).for_each(|_| world.drain());
        world.check("with all rows");
        world.node.pass(500 * 86_400).drain(&mut world.ledger);
        world.ledger.maintain(world.node.wall).unwrap();
        let identity = world.ledger.shipping_identity().unwrap();
        assert!(identity.kept_from.is_some_and(|from| from > NOON));
        world.set_old(false);
        for _ in 0..2 {
            world.check("without the oldest five minutes");
            let known = world.store.ledgers()[&identity.ledger].known.clone();
            assert_eq!(known.drops_kept_from, identity.kept_from.filter(|_| is_old));
            world.drain();
        }
    }
}

#[test]
fn missing_drops_come_in_steps_to_a_store_that_goes_down_all_the_time() {
    missing_drops_come_in_steps::<Model>(2);
    missing_drops_come_in_steps::<Fake>(1);
}

/// `puts`: after so many batches, of which one has no units, the store is down.
fn missing_drops_come_in_steps<S: Simulated>(puts: usize) {
    let mut world = World::<S>::new(4);
    world.set_old(true);
    (0..60).for_each(|_| world.drain());
    world.check("before there were drops");
    world.set_old(false);
    let lacking = world.ledger.units_with_drops().unwrap().len();
    assert!(lacking > 20, "{lacking}");
    let node = of_node();
    let mut there = 0;
    for round in 0.. {
        let shipper =
            Shipper { ledger: &world.ledger, machine: Some("m1"), node: &node, size: Arc::default() };
        let mut connection = world.store.connect(round, 0, puts);
        let result = block_on(shipper.ship(&mut connection, &mut |_, _| {}));
        let ledgers = world.store.ledgers();
        let parts = ledgers.values().flat_map(|of| of.parts.values());
        let now = parts.filter(|part| part.rows.iter().any(|row| row.0 == DROPPED_TABLE)).count();
        // A unit may have any number of rows, so the first batch is of one.
        assert!(round > 0 || (1..=3).contains(&now), "{now}");
        match result {
            Ok(_) => break,
            Err(ShipError::Store(StoreError::Away(_))) => {
                assert!(now > there, "round {round}: no more than {there} of {lacking}");
            }
            Err(other) => panic!("{other}"),
        }
        there = now;
    }
    world.check("at the end");
    // What an older shipper takes away is all that comes again.
    let Some(mut older) = world.store.connect_older(1) else { return };
    world.drain();
    while world.ship_over(&mut older).is_err() {}
    let mut connection = world.connection(0);
    let shipped = world.ship_over(&mut connection).unwrap();
    assert!(shipped.parts < 10, "{shipped:?} of {lacking}");
    world.check("after an older shipper");
}

#[test]
fn a_store_that_goes_down_all_the_time_gets_everything_all_the_same() {
    goes_down_all_the_time::<Model>();
    goes_down_all_the_time::<Fake>();
}

fn goes_down_all_the_time<S: Simulated>() {
    let mut world = World::<S>::new(3);
    (0..60).for_each(|_| world.drain());
    let node = of_node();
    let mut rounds = 0;
    loop {
        let shipper = Shipper { ledger: &world.ledger, machine: None, node: &node, size: Arc::default() };
        let mut connection = world.store.connect(rounds, 0, 2);
        rounds += 1;
        match block_on(shipper.ship(&mut connection, &mut |_, _| {})) {
            Ok(_) => break,
            Err(ShipError::Store(StoreError::Away(_))) => assert!(rounds < 40, "no progress"),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(rounds > 2, "{rounds}");
    world.check("at the end");
}
