//! What is shipped next: everything that changed since the store's number, the oldest first, and live rows between.
//!
//! - `batch_size`: how much one batch brings.
//! - `missing_drops`: what a store lacks that was older than drops.

mod batch_size;
mod missing_drops;

use std::{collections::BTreeSet, sync::Arc};

use traffic_ledger::{Changes, Content, Identity, Ledger, LedgerError, ShippedExtent};

use crate::{
    refusal::{self, Refusal},
    store::{Batch, Known, Node, Put, Store, StoreError, Takeover},
};

/// How many parts the first batch has at most: how many rows they have is not known yet.
const FIRST_PARTS: usize = 4;
/// How often another shipper may be faster in one batch.
const MOST_TRIES: u32 = 20;

pub use batch_size::BatchSize;
use batch_size::MOST_PARTS;

type Part = (&'static str, i64, i64);

/// Why a ledger was not shipped.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The ledger cannot be read.
    #[error("cannot read the ledger")]
    Ledger(#[from] LedgerError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It must not be shipped.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Other shippers were always faster.
    #[error("other processes ship this ledger all the time; run one `trafctl ship` for each target")]
    Busy,
}

/// What a call shipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shipped {
    /// Parts: five minutes, days, records.
    pub parts: u64,
    /// Rows of those that the store did not have.
    pub rows: u64,
}

/// Ships one ledger.
#[derive(Debug)]
pub struct Shipper<'a> {
    /// The ledger, open for reading.
    pub ledger: &'a Ledger,
    /// This machine, if something tells it from others.
    pub machine: Option<&'a str>,
    /// The node of the ledger.
    pub node: &'a Node,
    /// What was learned about the store, for the next time.
    pub size: Arc<BatchSize>,
}

/// Parts of one step, and the change number up to which everything is shipped after it.
#[derive(Clone, Copy, Default)]
struct Step<'p> {
    parts: &'p [Part],
    done: i64,
    /// With it, all drops are there that were missing when the store knew this number of [`Known::without_drops`].
    completes: i64,
}

impl Shipper<'_> {
    /// Ships everything that changed before this call. While a backlog ships, what changes meanwhile goes between.
    /// `on_step` gets what was shipped so far, and how many parts are left.
    ///
    /// # Errors
    /// When the ledger must not be shipped or cannot be read, or the store does not take it. What it took before stays.
    pub async fn ship(
        &self,
        store: &mut impl Store,
        on_step: &mut dyn FnMut(Shipped, usize),
    ) -> Result<Shipped, ShipError> {
        let (mut known, identity) = self.compare(store).await?;
        let (after, until) = (known.as_ref().map_or(0, |known| known.done), identity.changes);
        let seen = known.as_ref().map_or(0, |known| known.changes);
        let parts = self.lacking(store, seen, self.list(after, until)?).await?;
        let mut left = &parts[..];
        let mut shipped = Shipped::default();
        let mut live_after = until;
        let mut size = FIRST_PARTS;
        loop {
            let (parts, rest) = self.split(left, size)?;
            left = rest;
            // One number may have changed many parts: it is done when all of them are shipped.
            let done = left.first().map_or(until, |next| next.2 - 1);
            // Without parts, the store still learns who this is, and that nothing has changed until now.
            let rows = self.put(store, &mut known, Step { parts, done, ..Step::default() }).await?;
            shipped.parts += parts.len() as u64;
            shipped.rows += rows as u64;
            size = self.size.next(parts.len(), rows, size);
            on_step(shipped, left.len());
            if left.is_empty() {
                let drops = self.ship_missing_drops(store, &mut known).await?;
                shipped.parts += drops.parts;
                shipped.rows += drops.rows;
                return Ok(shipped);
            }
            let now = self.ledger.shipping_identity()?.changes;
            if now > live_after {
                let live = self.list(live_after, now)?;
                let mut live = &live[..];
                while !live.is_empty() {
                    let (parts, rest) = self.split(live, size)?;
                    live = rest;
                    shipped.rows +=
                        self.put(store, &mut known, Step { parts, done, ..Step::default() }).await? as u64;
                    shipped.parts += parts.len() as u64;
                }
                live_after = now;
            }
        }
    }

    /// Without those parts of a change that came before a connection was lost: one that ends soon would never come past
    /// them in batches that were halved. Nothing of changes after `seen` has come.
    async fn lacking(
        &self,
        store: &mut impl Store,
        seen: i64,
        mut parts: Vec<Part>,
    ) -> Result<Vec<Part>, ShipError> {
        let mut arrived = BTreeSet::new();
        let may_be_there = parts.partition_point(|part| part.2 <= seen);
        for some in parts[..may_be_there].chunks(MOST_PARTS) {
            arrived.extend(store.arrived(some).await?);
        }
        parts.retain(|part| !arrived.contains(&(part.0.to_owned(), part.1)));
        Ok(parts)
    }

    /// The parts of the next batch, and the others. A quiet hour may be followed by a busy one: how many rows the last
    /// batch had is no bound.
    fn split<'p>(&self, parts: &'p [Part], most: usize) -> Result<(&'p [Part], &'p [Part]), ShipError> {
        let next = &parts[..most.min(self.size.most_parts()).min(parts.len())];
        Ok(parts.split_at(self.ledger.fitting(next, self.size.most())?))
    }

    /// The parts that changed, the oldest change first. Of one change, names come before the figures that have them.
    fn list(&self, after: i64, until: i64) -> Result<Vec<Part>, ShipError> {
        let of = |units| self.ledger.changes(Changes { after, until, units });
        let mut parts = of(false)?;
        parts.extend(of(true)?);
        parts.sort_by_key(|part| part.2);
        Ok(parts)
    }

    /// What [`Store::take_over`] would be asked for, so that this ledger may be shipped although it was refused.
    ///
    /// # Errors
    /// When the ledger is another machine's, or it or the store cannot be read.
    pub async fn takeover(&self, store: &mut impl Store) -> Result<Takeover, ShipError> {
        let identity = self.ledger.shipping_identity()?;
        if identity.machine.as_deref().zip(self.machine).is_some_and(|(of, here)| of != here) {
            return Err(Refusal::Copied.into());
        }
        let mut place = identity.ledger.clone();
        match (store.known(&place).await?, identity.parent) {
            (Some(Known { replaced_by: Some(by), .. }), _) => place = by,
            (None, Some(parent)) if store.known(&parent).await?.is_some() => place = parent,
            _ => {}
        }
        let Identity { ledger, machine, changes, token, kept_from, .. } = identity;
        Ok(Takeover {
            ledger,
            place,
            known: Known { machine, changes, token, ..Known::default() },
            kept_from,
        })
    }

    /// What the store knows, and the ledger, which goes on from there.
    async fn compare(&self, store: &mut impl Store) -> Result<(Option<Known>, Identity), ShipError> {
        let id = self.ledger.shipping_identity()?.ledger;
        let known = store.known(&id).await?;
        // After the store was asked: otherwise another shipper's change would look like one that this ledger lacks.
        let identity = self.ledger.shipping_identity()?;
        self.check(known.as_ref(), &identity)?;
        Ok((known, identity))
    }

    fn check(&self, known: Option<&Known>, identity: &Identity) -> Result<(), ShipError> {
        let at_known = known.map(|known| self.ledger.lineage_at(known.changes)).transpose()?.flatten();
        refusal::check((known, at_known.as_deref()), identity, self.machine)?;
        for (changes, token) in known.iter().flat_map(|known| &known.others) {
            let at_other = self.ledger.lineage_at(*changes)?;
            refusal::check_other((*changes, token.as_deref()), at_other.as_deref(), identity)?;
        }
        Ok(())
    }

    /// Puts parts into the store, with their present rows. Returns how many rows, or 0 if the store had all of them.
    async fn put(
        &self,
        store: &mut impl Store,
        known: &mut Option<Known>,
        step: Step<'_>,
    ) -> Result<usize, ShipError> {
        self.put_contents(store, known, (step, false)).await
    }

    pub(crate) async fn repair(&self, store: &mut impl Store, parts: &[Part]) -> Result<(), ShipError> {
        let (mut known, _) = self.compare(store).await?;
        let mut left = parts;
        while !left.is_empty() {
            let (parts, rest) = self.split(left, FIRST_PARTS)?;
            left = rest;
            let done = known.as_ref().map_or(0, |known| known.done);
            self.put_contents(store, &mut known, (Step { parts, done, ..Step::default() }, true)).await?;
        }
        Ok(())
    }

    /// Removes those of some units that the owner of the store has dropped: it takes none of them again.
    pub(crate) async fn retain_taken(
        &self,
        store: &mut impl Store,
        units: &mut Vec<Part>,
    ) -> Result<(), ShipError> {
        let dropped = store.dropped_spans(&self.ledger.shipping_identity()?.ledger).await?;
        units.retain(|unit| !dropped.iter().any(|span| (span.0..span.1).contains(&unit.1)));
        Ok(())
    }

    async fn put_contents(
        &self,
        store: &mut impl Store,
        known: &mut Option<Known>,
        (step, repairs): (Step<'_>, bool),
    ) -> Result<usize, ShipError> {
        let names: Vec<(&'static str, i64)> = step.parts.iter().map(|part| (part.0, part.1)).collect();
        let contents = self.ledger.contents(&names)?;
        let rows = contents.iter().map(Content::count).sum();
        let mut batch = Batch {
            ledger: String::new(),
            before: None,
            after: Known::default(),
            node: self.node.clone(),
            extent: ShippedExtent::default(),
            contents,
            repairs,
        };
        for _ in 0..MOST_TRIES {
            // After the rows: no row is newer than the number that the store then knows.
            let identity = self.ledger.shipping_identity()?;
            self.check(known.as_ref(), &identity)?;
            let done = known.as_ref().map_or(0, |known| known.done).max(step.done);
            batch.extent = self.ledger.shipped_extent()?;
            batch.ledger = identity.ledger;
            batch.before.clone_from(known);
            let Identity { machine, changes, token, kept_from, .. } = identity;
            // A machine that cannot be named now keeps the name that it had.
            let machine = machine.or_else(|| known.as_ref().and_then(|known| known.machine.clone()));
            let missing = known.as_ref().map_or(0, |known| known.without_drops);
            let without_drops = if missing == step.completes { 0 } else { missing };
            let mut drops_kept_from = known.as_ref().and_then(|known| known.drops_kept_from);
            if without_drops < missing {
                drops_kept_from = drops_kept_from.max(kept_from);
            }
            batch.after =
                Known { machine, changes, token, done, without_drops, drops_kept_from, ..Known::default() };
            let put = store.put(&batch).await.inspect_err(|error| {
                if matches!(error, StoreError::Away(_)) {
                    self.size.has_failed();
                }
            })?;
            match put {
                Put::Taken(new) => {
                    // What came before a failure is not sent again: that says nothing about the size.
                    if new > 0 && new == batch.contents.len() {
                        self.size.was_taken();
                    }
                    *known = Some(batch.after);
                    return Ok(if new > 0 { rows } else { 0 });
                }
                Put::Moved => *known = self.compare(store).await?.0,
            }
        }
        Err(ShipError::Busy)
    }
}
