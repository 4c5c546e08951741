//! Shippers at the same time, whose requests to a fake of ClickHouse come in any order.

use std::sync::Arc;

use traffic_ledger::{Content, Ledger};

use super::{
    fake::Fake,
    histories::{World, block_on, config, of_node},
    model::Simulated,
    sort,
};
use crate::{Refusal, ShipError, Shipped, Shipper, Store, StoreError};

const RACES: u64 = 60;

async fn ship(shipper: &Shipper<'_>, store: &mut impl Store) -> Result<Shipped, ShipError> {
    shipper.ship(store, &mut |_, _| {}).await
}

#[test]
fn two_shippers_of_one_ledger_end_with_its_rows() {
    for seed in 0..RACES {
        let mut world = World::<Fake>::new(seed);
        for _ in 0..4 {
            (0..3).for_each(|_| world.drain());
            let fails = world.random.usize(..2) * 5;
            let mut connections =
                [0, 1].map(|_| world.store.connect(world.random.u64(..), fails, usize::MAX));
            let node = of_node();
            let shipper =
                Shipper { ledger: &world.ledger, machine: Some("m1"), node: &node, size: Arc::default() };
            let [one, two] = &mut connections;
            let both = block_on(async { tokio::join!(ship(&shipper, one), ship(&shipper, two)) });
            for shipped in [both.0, both.1] {
                match shipped {
                    Ok(_) | Err(ShipError::Busy) => {}
                    Err(ShipError::Store(StoreError::Away(_))) if fails > 0 => {}
                    Err(other) => panic!("seed {seed}: {other}"),
                }
            }
        }
        world.check(&format!("seed {seed}"));
    }
}

/// Whether parts that changed after the copy was made are those of a ledger.
fn are_of(ledger: &Ledger, parts: &[Content]) -> bool {
    parts.iter().all(|part| {
        let mut own = ledger.contents(&[(part.name, part.number)]).unwrap();
        own.iter_mut().for_each(sort);
        own == [part.clone()]
    })
}

#[test]
fn two_copies_that_ship_at_once_never_mix() {
    let mut refused = 0;
    for seed in 0..RACES {
        let mut world = World::<Fake>::new(seed);
        (0..4).for_each(|_| world.drain());
        if seed % 2 == 0 {
            world.check("before the copy");
        }
        let path = world.copy();
        let base = world.ledger.shipping_identity().unwrap().changes;
        (0..3).for_each(|_| world.drain());
        let copy = Ledger::open(&path, config("m1")).unwrap();
        let original = std::mem::replace(&mut world.ledger, copy);
        (0..3).for_each(|_| world.drain());
        for ledger in [&original, &world.ledger] {
            assert!(ledger.shipping_identity().unwrap().changes > base, "seed {seed}: nothing to ship");
        }
        let node = of_node();
        let [mut one, mut two] = [0, 1].map(|_| world.store.connect(world.random.u64(..), 0, usize::MAX));
        let of = |ledger| Shipper { ledger, machine: Some("m1"), node: &node, size: Arc::default() };
        let (first, second) = (of(&original), of(&world.ledger));
        let both = block_on(async { tokio::join!(ship(&first, &mut one), ship(&second, &mut two)) });
        let id = original.shipping_identity().unwrap().ledger;
        let ledgers = world.store.ledgers();
        let mut parts: Vec<Content> =
            ledgers[&id].parts.values().filter(|part| part.rev > base).cloned().collect();
        parts.iter_mut().for_each(sort);
        let whose = (are_of(&original, &parts), are_of(&world.ledger, &parts));
        assert!(whose.0 || whose.1, "seed {seed}: rows of both, {both:?}");
        for (shipped, is_its) in [(&both.0, whose.0), (&both.1, whose.1)] {
            match shipped {
                Ok(_) => assert!(is_its, "seed {seed}: {both:?}"),
                Err(ShipError::Refused(Refusal::Restored { .. })) => refused += 1,
                Err(other) => panic!("seed {seed}: {other}"),
            }
        }
        assert!(both.0.is_err() || both.1.is_err(), "seed {seed}: both went on");
        // The deliberate way on.
        world.adopt();
        world.check(&format!("seed {seed}, adopted"));
    }
    assert!(refused >= RACES, "{refused}");
}
