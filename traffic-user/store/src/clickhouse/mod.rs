//! The store in ClickHouse, which has neither transactions nor locks. What makes it exact all the same:
//!
//! 1. **A part is replaced by one insertion.** Its rows, and a row for the part itself, go into one table and one
//!    partition, which the server adds as a whole or not at all.
//! 2. **A row counts if its version is that of its part.** Versions grow with the change number, and the tables keep the
//!    newest of each row. So a row that the part no longer has does not count, nor does an older repetition that
//!    arrives late; the same version always has the same rows.
//! 3. **Notes about progress are true for ever**: the change number that a shipper has *seen*, written before the rows,
//!    and the number up to which everything is *done*, written after them. The highest of true notes is true, whoever
//!    wrote them in whatever order. A shipper that notes what it has seen looks once more before it writes rows. If two
//!    copies of a ledger go separate ways, at least one of them finds the other's note there, and writes nothing.
//! 4. **A ledger that takes over begins another place.** Rows are those of a place. What arrives for the former one,
//!    however late, is read by nobody. One insertion says which place is the ledger's.
//!
//! - `engine`: what is asked of the server, and `http`, which asks it.
//! - `schema`, `sql`, `views`: the tables, the statements, and what people read. `binary`: the rows of parts.
//! - `cluster`: the same on many servers.
//! - `tenants`: who has which container.
//! - `target`: URLs. `setup`: creates and checks the tables. `columns`: whether somebody altered them. `nodes`: how far each node is. `read`: reports.

mod binary;
mod cluster;
mod columns;
pub(crate) mod engine;
mod http;
mod nodes;
mod read;
mod schema;
mod setup;
mod sql;
mod target;
mod tenants;
mod views;

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};
use traffic_ledger::{Content, ShippedExtent};

use crate::store::{Batch, Known, Node, PartDigest, Put, Store, StoreError, Takeover};
use engine::{Adoption, Engine, Notes, Progress, Seen};

pub use http::Http;
pub use nodes::nodes;
pub use read::open_ledger;
pub use setup::{check, init, migrate, statements};
pub use target::Target;
pub use tenants::{assign, assignments, unassign};

/// Versions that a change number has: its own, and those of repairs.
const VERSIONS_BITS: u32 = 16;

/// A store in ClickHouse.
pub type ClickHouse = Replacing<Http>;

impl ClickHouse {
    /// Connects to a store that was created.
    ///
    /// # Errors
    /// When the server cannot be reached, does not let this user in, or has no store of this version.
    pub async fn connect(target: &Target) -> Result<Self, StoreError> {
        let mut server = Http::connect(target).await?;
        server.has_drops = setup::require_version(&server).await? >= schema::WITH_DROPS;
        Ok(Self::new(server))
    }
}

/// A store in tables that keep the newest version of each row.
#[derive(Debug)]
pub struct Replacing<E> {
    engine: E,
    told: Option<Told>,
}

/// What the shipper was told of a ledger, and has noted itself since.
#[derive(Debug)]
struct Told {
    ledger: String,
    place: u64,
    progress: Progress,
}

impl Progress {
    /// The note with the highest number. Of the same number, one that names the machine.
    fn newest(&self) -> Option<&Seen> {
        self.seen.iter().max_by_key(|seen| (seen.changes, seen.machine.is_some()))
    }

    fn known(&self) -> Option<Known> {
        let newest = self.newest()?;
        let others = self.seen.iter().filter(|seen| *seen != newest);
        Some(Known {
            machine: newest.machine.clone(),
            changes: newest.changes,
            token: newest.token.clone(),
            done: self.done,
            replaced_by: None,
            without_drops: i64::from(!self.has_drops),
            drops_kept_from: self.drops_kept_from,
            others: others.map(|seen| (seen.changes, seen.token.clone())).collect(),
        })
    }

    /// Whether a note says nothing new.
    fn has(&self, note: &Seen) -> bool {
        self.seen.iter().any(|seen| {
            (&seen.machine, &seen.token) == (&note.machine, &note.token) && seen.changes >= note.changes
        })
    }

    fn add(&mut self, note: &Seen, done: i64) {
        self.done = self.done.max(done);
        match self.seen.iter_mut().find(|seen| (&seen.machine, &seen.token) == (&note.machine, &note.token)) {
            Some(seen) => seen.changes = seen.changes.max(note.changes),
            None => self.seen.push(note.clone()),
        }
    }
}

impl Told {
    /// Whether the shipper has compared everything that is noted now with its ledger.
    fn has_all(&self, now: &Progress) -> bool {
        now.done == self.progress.done && now.seen.iter().all(|seen| self.progress.has(seen))
    }
}

/// A number from some texts, for a place.
fn number_of(texts: &[&str]) -> u64 {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update(text.len().to_be_bytes());
        digest.update(text);
    }
    digest.finalize().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// The last turn of a ledger.
fn last(adoptions: &[Adoption]) -> Option<&Adoption> {
    adoptions.iter().max_by_key(|adoption| (adoption.turn, adoption.place))
}

/// The version of a part's rows after a change.
const fn version(rev: i64) -> u64 {
    rev.unsigned_abs() << VERSIONS_BITS
}

pub(crate) fn is_unit(content: &Content) -> bool {
    is_of_unit(content.name)
}

fn is_of_unit(part: &str) -> bool {
    matches!(part, "5min" | "day")
}

impl<E: Engine> Replacing<E> {
    pub(crate) const fn new(engine: E) -> Self {
        Self { engine, told: None }
    }

    /// Ends a connection of before the store had drops. What it brought from now on would lack them for good: nobody
    /// ships again what is noted as done.
    async fn require_no_migration(&mut self) -> Result<(), StoreError> {
        if self.engine.was_migrated().await? {
            return Err(StoreError::NotNow(
                "the store was migrated since this connection was made".to_owned(),
            ));
        }
        Ok(())
    }

    /// Adds parts with all of their rows.
    async fn add(&mut self, place: u64, batch: &Batch) -> Result<(), StoreError> {
        // Names before the figures that have them.
        for of_units in [false, true] {
            let contents: Vec<&Content> =
                batch.contents.iter().filter(|content| is_unit(content) == of_units).collect();
            if contents.is_empty() {
                continue;
            }
            let versioned = if batch.repairs {
                self.repaired(place, &contents).await?
            } else {
                contents.iter().map(|content| (*content, version(content.rev))).collect()
            };
            if !versioned.is_empty() {
                self.engine.add(place, &versioned).await?;
            }
        }
        Ok(())
    }

    /// Versions that replace whatever is there of the same change number.
    async fn repaired<'c>(
        &mut self,
        place: u64,
        contents: &[&'c Content],
    ) -> Result<Vec<(&'c Content, u64)>, StoreError> {
        let names: Vec<(&str, i64)> = contents.iter().map(|content| (content.name, content.number)).collect();
        let found = self.engine.versions(place, &names).await?;
        let of = |content: &&'c Content| {
            let there = found.iter().find(|one| one.part == content.name && one.number == content.number);
            let own = version(content.rev);
            let Some(there) = there else { return Some((*content, own)) };
            // A later change, which another shipper brought.
            if there.of_part.is_some_and(|of_part| of_part >= version(content.rev.saturating_add(1))) {
                return None;
            }
            Some((*content, there.highest.saturating_add(1).max(own)))
        };
        Ok(contents.iter().filter_map(of).collect())
    }
}

impl<E: Engine> Store for Replacing<E> {
    fn takes_drops(&self) -> bool {
        self.engine.takes_drops()
    }

    async fn known(&mut self, ledger: &str) -> Result<Option<Known>, StoreError> {
        self.told = None;
        let adoptions = self.engine.adoptions(ledger).await?;
        let place = match last(&adoptions) {
            Some(Adoption { replaced_by: Some(by), .. }) => {
                return Ok(Some(Known { replaced_by: Some(by.clone()), ..Known::default() }));
            }
            Some(adoption) => adoption.place,
            None => number_of(&[ledger]),
        };
        let progress = self.engine.progress(place).await?;
        let known = progress.known();
        self.told = Some(Told { ledger: ledger.to_owned(), place, progress });
        Ok(known)
    }

    async fn arrived(
        &mut self,
        parts: &[(&'static str, i64, i64)],
    ) -> Result<BTreeSet<(String, i64)>, StoreError> {
        let mut arrived = BTreeSet::new();
        let Some(&Told { place, .. }) = self.told.as_ref() else { return Ok(arrived) };
        for of_units in [false, true] {
            let own = parts.iter().filter(|part| is_of_unit(part.0) == of_units);
            let own: Vec<_> = own.map(|(name, number, rev)| (*name, *number, version(*rev))).collect();
            if !own.is_empty() {
                arrived.extend(self.engine.arrived(place, &own).await?);
            }
        }
        Ok(arrived)
    }

    async fn put(&mut self, batch: &Batch) -> Result<Put, StoreError> {
        let Some(mut told) = self.told.take().filter(|told| told.ledger == batch.ledger) else {
            return Ok(Put::Moved);
        };
        let place = told.place;
        // A repair without drops would replace those that are there.
        self.require_no_migration().await?;
        let main = |known: Option<&Known>| {
            known.map(|known| (known.machine.clone(), known.changes, known.token.clone(), known.done))
        };
        let now = self.engine.progress(place).await?;
        if main(now.known().as_ref()) != main(batch.before.as_ref()) || !told.has_all(&now) {
            return Ok(Put::Moved);
        }
        let Known { machine, changes, token, done, .. } = &batch.after;
        let seen = Seen { changes: *changes, token: token.clone(), machine: machine.clone() };
        let notes = Notes {
            place,
            ledger: &batch.ledger,
            seen: &seen,
            done: None,
            has_drops: false,
            drops_kept_from: batch.after.drops_kept_from,
            node: &batch.node,
            extent: &batch.extent,
        };
        if !batch.contents.is_empty() && !now.has(&seen) {
            self.engine.note(notes).await?;
            told.progress.add(&seen, 0);
            // Whoever noted something else meanwhile may be another copy of the ledger.
            if !told.has_all(&self.engine.progress(place).await?) {
                return Ok(Put::Moved);
            }
        }
        let takes_drops = self.engine.takes_drops();
        if takes_drops {
            self.add(place, batch).await?;
        } else {
            self.add(place, &batch.without_drops()).await?;
        }
        // Whoever ships after the migration brings everything that is not noted as done before it.
        self.require_no_migration().await?;
        let has_drops = takes_drops && batch.after.without_drops == 0;
        self.engine.note(Notes { done: Some(*done), has_drops, ..notes }).await?;
        told.progress.has_drops |= has_drops;
        told.progress.drops_kept_from = told.progress.drops_kept_from.max(batch.after.drops_kept_from);
        told.progress.add(&seen, *done);
        self.told = Some(told);
        // Whoever ships has asked before what has arrived.
        Ok(Put::Taken(batch.contents.len()))
    }

    async fn take_over(&mut self, takeover: &Takeover) -> Result<(), StoreError> {
        self.told = None;
        let Takeover { ledger, place: of, known, kept_from } = takeover;
        let former = self.engine.adoptions(of).await?;
        let own = if of == ledger { former.clone() } else { self.engine.adoptions(ledger).await? };
        let turns = former.iter().chain(&own).map(|adoption| adoption.turn);
        let turn = turns.max().unwrap_or(0).saturating_add(1);
        let token = known.token.as_deref().unwrap_or_default();
        let to = number_of(&[ledger, &turn.to_string(), token, &known.changes.to_string()]);
        let from = match last(&former) {
            Some(Adoption { replaced_by: Some(_), .. }) => None,
            Some(adoption) => Some(adoption.place),
            None => Some(number_of(&[of])),
        };
        let mut drops_kept_from = None;
        if let Some((from, before)) = from.zip(*kept_from) {
            let former = self.engine.progress(from).await?;
            drops_kept_from =
                if former.has_drops { former.drops_kept_from.min(*kept_from) } else { *kept_from };
            self.engine.copy(from, to, before).await?;
        }
        let seen =
            Seen { changes: known.changes, token: known.token.clone(), machine: known.machine.clone() };
        let (node, extent) = (Node::default(), ShippedExtent::default());
        let notes = Notes {
            place: to,
            ledger,
            seen: &seen,
            done: Some(0),
            has_drops: self.engine.takes_drops(),
            drops_kept_from,
            node: &node,
            extent: &extent,
        };
        self.engine.note(notes).await?;
        // From here on, it is so.
        let mut adoptions = vec![Adoption { ledger: ledger.clone(), turn, place: to, replaced_by: None }];
        if of != ledger {
            adoptions.push(Adoption {
                ledger: of.clone(),
                turn,
                place: 0,
                replaced_by: Some(ledger.clone()),
            });
        }
        self.engine.adopt(&adoptions).await
    }

    async fn digests(
        &mut self,
        ledger: &str,
        units: Option<(i64, i64)>,
    ) -> Result<Vec<PartDigest>, StoreError> {
        let place = match &self.told {
            Some(told) if told.ledger == ledger => told.place,
            _ => {
                self.known(ledger).await?;
                let Some(told) = &self.told else { return Ok(Vec::new()) };
                told.place
            }
        };
        self.engine.digests(place, units).await
    }
}
