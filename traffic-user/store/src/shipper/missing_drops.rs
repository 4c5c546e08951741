//! Ships the drops that a store lacks: it, or the shipper of their units, was older than drops.

use std::collections::{BTreeMap, BTreeSet};

use traffic_ledger::DROPPED_TABLE;

use super::{Part, ShipError, Shipped, Shipper, Step};
use crate::{
    digests,
    store::{Known, PartDigest, Store},
};

/// Seconds of a day of UTC. Nothing is asked of the store that is about more than one.
const DAY_S: i64 = 86_400;
/// Units that are compared at once.
const COMPARED_AT_ONCE: usize = 16;

impl Shipper<'_> {
    /// Ships the units again whose drops the store lacks. The store itself is asked which: so what came before a failure
    /// is not shipped once more, and of what older shippers brought only that.
    pub(super) async fn ship_missing_drops(
        &self,
        store: &mut impl Store,
        known: &mut Option<Known>,
    ) -> Result<Shipped, ShipError> {
        let missing = known.as_ref().map_or(0, |known| known.without_drops);
        let mut shipped = Shipped::default();
        if missing == 0 || !store.takes_drops() {
            return Ok(shipped);
        }
        let ledger = self.ledger.shipping_identity()?.ledger;
        let mut parts = self.ledger.units_with_drops()?;
        self.retain_taken(store, &mut parts).await?;
        parts.sort_unstable_by_key(|part| part.1);
        // How many rows a unit has is not known yet.
        let mut size = 1;
        for day in parts.chunk_by(|a, b| a.1.div_euclid(DAY_S) == b.1.div_euclid(DAY_S)) {
            let lacking = self.without_their_drops(store, &ledger, day).await?;
            let mut left = &lacking[..];
            while !left.is_empty() {
                let (parts, rest) = self.split(left, size)?;
                left = rest;
                let done = known.as_ref().map_or(0, |known| known.done);
                let step = Step { parts, done, ..Step::default() };
                let rows = self.put_contents(store, known, (step, true)).await?;
                shipped.parts += parts.len() as u64;
                shipped.rows += rows as u64;
                size = self.size.next(parts.len(), rows, size);
            }
        }
        // What an older shipper brought meanwhile is missing again: then the next round finds it.
        self.put_contents(store, known, (Step { completes: missing, ..Step::default() }, false)).await?;
        Ok(shipped)
    }

    /// Those of some units, by start, whose drops in the store are not those of the ledger.
    async fn without_their_drops(
        &self,
        store: &mut impl Store,
        ledger: &str,
        units: &[Part],
    ) -> Result<Vec<Part>, ShipError> {
        let mut lacking = Vec::new();
        for units in units.chunks(COMPARED_AT_ONCE) {
            let ([first, ..], [.., last]) = (units, units) else { continue };
            let stored = store.digests(ledger, Some((first.1, last.1 + 1))).await?;
            let stored: BTreeMap<(String, i64), PartDigest> = stored
                .into_iter()
                .filter(|digest| digest.table == DROPPED_TABLE)
                .map(|digest| ((digest.name.clone(), digest.number), digest))
                .collect();
            let names: Vec<(&'static str, i64)> = units
                .iter()
                .map(|unit| (unit.0, unit.1))
                .filter(|unit| stored.contains_key(&(unit.0.to_owned(), unit.1)))
                .collect();
            let is_equal = |digest: &PartDigest| {
                stored.get(&(digest.name.clone(), digest.number)).is_some_and(|found| found == digest)
            };
            let mut equal = BTreeSet::new();
            for content in self.ledger.contents(&names)? {
                if digests::of(&content).iter().filter(|digest| digest.table == DROPPED_TABLE).any(is_equal) {
                    equal.insert((content.name, content.number));
                }
            }
            lacking.extend(units.iter().copied().filter(|unit| !equal.contains(&(unit.0, unit.1))));
        }
        Ok(lacking)
    }
}
