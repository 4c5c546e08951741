//! A backlog of one change, as an import leaves it, over links that end after some rows.

use std::sync::Arc;

use traffic_ledger::{Changes, Content, testing};

use super::{
    fake::Fake,
    histories::{World, block_on, of_node},
    model::{Model, Simulated},
};
use crate::{
    BatchSize, ShipError, Shipper, StoreError,
    store::{Batch, Known, PartDigest, Put, Store, Takeover},
};

/// Calls before the first batch, and of one.
const CALLS: usize = 14;

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
        (0..150).for_each(|_| world.drain());
        testing::from_outside(&world.ledger, "UPDATE outbox SET rev = (SELECT number FROM changes)");
        let (largest, all) = rows(&world);
        // Hardly more than the largest part passes at once: the first batches are larger, and so are all later ones.
        // Each call counts like a row.
        let passes = CALLS + largest + world.random.usize(..2 * largest);
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

/// Knows nothing, and takes nothing for this reason.
struct TakesNothing(StoreError);

impl Store for TakesNothing {
    async fn known(&mut self, _ledger: &str) -> Result<Option<Known>, StoreError> {
        Ok(None)
    }

    async fn put(&mut self, _batch: &Batch) -> Result<Put, StoreError> {
        Err(self.0.clone())
    }

    async fn take_over(&mut self, _takeover: &Takeover) -> Result<(), StoreError> {
        Err(self.0.clone())
    }

    async fn digests(
        &mut self,
        _ledger: &str,
        _units: Option<(i64, i64)>,
    ) -> Result<Vec<PartDigest>, StoreError> {
        Err(self.0.clone())
    }
}

#[test]
fn batches_are_smaller_only_after_what_their_size_may_explain() {
    let mut world = World::<Model>::new(1);
    world.drain();
    let node = of_node();
    for (error, halvings) in [
        (StoreError::Away(String::new()), 1),
        (StoreError::NotNow(String::new()), 0),
        (StoreError::Refused(String::new()), 0),
        (StoreError::Unusable(String::new()), 0),
    ] {
        let size = Arc::new(BatchSize::default());
        let shipper =
            Shipper { ledger: &world.ledger, machine: Some("m1"), node: &node, size: Arc::clone(&size) };
        block_on(shipper.ship(&mut TakesNothing(error.clone()), &mut |_, _| {})).unwrap_err();
        assert_eq!(size.halvings(), halvings, "{error:?}");
    }
}
