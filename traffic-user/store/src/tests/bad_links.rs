//! A backlog of one change, as an import leaves it, over links that end after some rows.

use std::sync::Arc;

use traffic_ledger::{Changes, Content, testing};

use super::{
    fake::Fake,
    histories::{World, block_on, of_node},
    model::{Model, Simulated},
};
use crate::{BatchSize, ShipError, Shipper, StoreError};

/// The rows of the largest part, and of all of them.
fn rows<S: Simulated>(world: &World<S>) -> (usize, usize) {
    let mut names = Vec::new();
    for units in [false, true] {
        let parts = world.ledger.changes(Changes { after: 0, until: i64::MAX, units }).unwrap();
        names.extend(parts.iter().map(|part| (part.0, part.1)));
    }
    let counts: Vec<usize> = world.ledger.contents(&names).unwrap().iter().map(Content::count).collect();
    (counts.iter().copied().max().unwrap(), counts.iter().sum())
}

fn a_backlog_of_one_change<S: Simulated>() {
    for seed in 0..4 {
        let mut world = World::<S>::new(seed);
        (0..60).for_each(|_| world.drain());
        testing::from_outside(&world.ledger, "UPDATE outbox SET rev = (SELECT number FROM changes)");
        let (largest, all) = rows(&world);
        // Hardly more than the largest part passes at once: the first batches are larger, and so are all later ones.
        let passes = largest + world.random.usize(..2 * largest);
        let (size, node) = (Arc::new(BatchSize::default()), of_node());
        // Most of the first connections only find out how little passes.
        let most_rounds = 20 + 4 * all.div_ceil(passes);
        assert!(all > 8 * passes, "{all} rows, {passes} pass at once");
        for round in 0.. {
            assert!(
                round < most_rounds,
                "seed {seed}: not after {round} connections of {passes} rows, {all} rows"
            );
            let mut connection = world.store.connect_by_bad_link(world.random.u64(..), passes);
            let (ledger, size) = (&world.ledger, Arc::clone(&size));
            let shipper = Shipper { ledger, machine: Some("m1"), node: &node, size };
            match block_on(shipper.ship(&mut connection, &mut |_, _| {})) {
                Ok(_) => break,
                Err(ShipError::Store(StoreError::Away(_))) => {}
                Err(other) => panic!("seed {seed}, round {round}: {other}"),
            }
        }
        world.check(&format!("seed {seed}"));
    }
}

#[test]
fn a_backlog_of_one_change_comes_through_in_transactions() {
    a_backlog_of_one_change::<Model>();
}

#[test]
fn a_backlog_of_one_change_comes_through_in_replacing_tables() {
    a_backlog_of_one_change::<Fake>();
}
