//! The plainest store that is right, and a connection to it that fails.

use std::{
    cell::{Cell as StdCell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use traffic_ledger::{Cell, Content};

use crate::{
    digests,
    store::{Batch, Known, PartDigest, Put, Store, StoreError, Takeover},
};

#[derive(Clone, Debug, Default)]
pub struct OfLedger {
    pub known: Known,
    pub parts: BTreeMap<(String, i64), Content>,
}

/// A store that the histories are run on.
pub trait Simulated: Default {
    type Connection: Store;

    /// A connection. One call in `fails` fails, or none if it is 0; after `puts` batches, every one.
    fn connect(&self, seed: u64, fails: usize, puts: usize) -> Self::Connection;

    /// A connection that ends when more rows than these would pass.
    fn connect_by_bad_link(&self, seed: u64, rows: usize) -> Self::Connection;

    /// What it knows and holds of each ledger.
    fn ledgers(&self) -> BTreeMap<String, OfLedger>;

    /// A while passes, such as a restore takes: no note of before arrives after it.
    fn settle(&self) {}

    /// Whether it was made before there were drops. A connection stays as it was.
    fn set_old(&self, is_old: bool);

    /// A connection of a shipper that knows no drops, to a store that has them.
    fn connect_older(&self, _seed: u64) -> Option<Self::Connection> {
        None
    }

    /// Alters, removes or adds one row of a part.
    fn alter(&self, random: &mut fastrand::Rng) -> (String, i64);
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    ledgers: Rc<RefCell<BTreeMap<String, OfLedger>>>,
    is_old: Rc<StdCell<bool>>,
}

impl Simulated for Model {
    type Connection = Connection;

    fn connect(&self, seed: u64, fails: usize, puts: usize) -> Connection {
        let random = fastrand::Rng::with_seed(seed);
        let takes_drops = !self.is_old.get();
        Connection {
            model: Rc::clone(&self.ledgers),
            random,
            fails,
            late: Vec::new(),
            puts_left: puts,
            rows_left: usize::MAX,
            takes_drops,
        }
    }

    fn connect_by_bad_link(&self, seed: u64, rows: usize) -> Connection {
        Connection { rows_left: rows, ..self.connect(seed, 0, usize::MAX) }
    }

    fn set_old(&self, is_old: bool) {
        self.is_old.set(is_old);
    }

    fn connect_older(&self, seed: u64) -> Option<Connection> {
        let connection = self.connect(seed, 4, usize::MAX);
        connection.takes_drops.then_some(Connection { takes_drops: false, ..connection })
    }

    fn ledgers(&self) -> BTreeMap<String, OfLedger> {
        self.ledgers.borrow().clone()
    }

    fn alter(&self, random: &mut fastrand::Rng) -> (String, i64) {
        let mut model = self.ledgers.borrow_mut();
        let of = model.values_mut().next().unwrap();
        let kept: Vec<_> =
            of.parts.iter().filter(|part| !part.1.rows.is_empty()).map(|part| part.0.clone()).collect();
        let key = kept[random.usize(..kept.len())].clone();
        let rows = &mut of.parts.get_mut(&key).unwrap().rows;
        let at = random.usize(..rows.len());
        match random.u8(..3) {
            0 => drop(rows.remove(at)),
            1 => rows.push(rows[at].clone()),
            _ => {
                let number = rows[at].1.iter_mut().rev().find_map(|cell| match cell {
                    Cell::Integer(number) => Some(number),
                    _ => None,
                });
                *number.unwrap() += 1;
            }
        }
        key
    }
}

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    /// The connection is lost before the store does it.
    Undone,
    /// The connection is lost afterwards: nobody hears that it was done.
    Unheard,
}

/// A connection.
pub struct Connection {
    pub model: Rc<RefCell<BTreeMap<String, OfLedger>>>,
    pub random: fastrand::Rng,
    /// One call in this many fails; 0 for none.
    pub fails: usize,
    /// Batches that another shipper sends late, each after one of ours.
    pub late: Vec<Batch>,
    /// After so many more puts, every put fails.
    pub puts_left: usize,
    /// The connection ends before more rows than these. Those of parts that the store has are not sent.
    pub rows_left: usize,
    /// Otherwise the store or the shipper is older than drops.
    pub takes_drops: bool,
}

impl Connection {
    fn fate(&mut self) -> Fate {
        match self.fails {
            0 => Fate::Well,
            most if self.random.usize(..most) > 0 => Fate::Well,
            _ if self.random.bool() => Fate::Undone,
            _ => Fate::Unheard,
        }
    }

    fn call<T>(&mut self, work: impl FnOnce(&mut BTreeMap<String, OfLedger>) -> T) -> Result<T, StoreError> {
        let fate = self.fate();
        let lost = Err(StoreError::Away("the connection was lost".to_owned()));
        if fate == Fate::Undone {
            return lost;
        }
        let done = work(&mut self.model.borrow_mut());
        if fate == Fate::Unheard { lost } else { Ok(done) }
    }
}

fn put(ledgers: &mut BTreeMap<String, OfLedger>, batch: &Batch, takes_drops: bool) -> Put {
    let missing = ledgers.get(&batch.ledger).map_or(0, |of| of.known.without_drops);
    let before = batch.before.clone().map(|known| Known { without_drops: missing, ..known });
    if ledgers.get(&batch.ledger).map(|of| &of.known) != before.as_ref() {
        return Put::Moved;
    }
    let batch = &if takes_drops { batch.clone() } else { batch.without_drops() };
    let of = ledgers.entry(batch.ledger.clone()).or_default();
    let mut new = 0;
    assert!(batch.after.changes >= of.known.changes && batch.after.done >= of.known.done, "{batch:?} {of:?}");
    for content in &batch.contents {
        assert!(content.rev <= batch.after.changes);
        let key = (content.name.to_owned(), content.number);
        let newer = |before: &Content| content.rev > before.rev || batch.repairs && content.rev == before.rev;
        if of.parts.get(&key).is_none_or(newer) {
            new += 1;
            let mut content = content.clone();
            super::sort(&mut content);
            of.parts.insert(key, content);
        }
    }
    let completes = batch.after.without_drops == 0
        && batch.before.as_ref().map_or(0, |known| known.without_drops) == missing;
    let without_drops = match takes_drops {
        true if completes => 0,
        true => missing,
        false => missing + 1,
    };
    of.known = Known { without_drops, ..batch.after.clone() };
    Put::Taken(new)
}

impl Store for Connection {
    fn takes_drops(&self) -> bool {
        self.takes_drops
    }

    async fn known(&mut self, ledger: &str) -> Result<Option<Known>, StoreError> {
        self.call(|ledgers| ledgers.get(ledger).map(|of| of.known.clone()))
    }

    async fn put(&mut self, batch: &Batch) -> Result<Put, StoreError> {
        if self.puts_left == 0 {
            return Err(StoreError::Away("the store is down".to_owned()));
        }
        self.puts_left -= 1;
        let rows: usize = {
            let ledgers = self.model.borrow();
            let parts = ledgers.get(&batch.ledger).map(|of| &of.parts);
            let has = |content: &&Content| {
                let part = parts.and_then(|parts| parts.get(&(content.name.to_owned(), content.number)));
                part.is_none_or(|part| part.rev < content.rev)
            };
            batch.contents.iter().filter(has).map(Content::count).sum()
        };
        let Some(rows_left) = self.rows_left.checked_sub(rows) else {
            self.puts_left = 0;
            return Err(StoreError::Away("the link is down".to_owned()));
        };
        self.rows_left = rows_left;
        // Another shipper's batch, written long ago, arrives now, and once more.
        if !self.late.is_empty() && self.random.bool() {
            let late = self.late.swap_remove(self.random.usize(..self.late.len()));
            put(&mut self.model.borrow_mut(), &late, self.takes_drops);
        }
        if self.random.u8(..4) == 0 {
            self.late.push(batch.clone());
        }
        let takes_drops = self.takes_drops;
        self.call(|ledgers| put(ledgers, batch, takes_drops))
    }

    async fn take_over(&mut self, takeover: &Takeover) -> Result<(), StoreError> {
        self.call(|ledgers| {
            let mut of = ledgers.remove(&takeover.place).unwrap_or_default();
            of.parts.retain(|(name, number), _| {
                name == "5min" && takeover.kept_from.is_some_and(|from| *number < from)
            });
            of.known = takeover.known.clone();
            if takeover.place != takeover.ledger {
                let known = Known { replaced_by: Some(takeover.ledger.clone()), ..Known::default() };
                ledgers.insert(takeover.place.clone(), OfLedger { known, ..OfLedger::default() });
            }
            ledgers.insert(takeover.ledger.clone(), of);
        })
    }

    async fn digests(
        &mut self,
        ledger: &str,
        units: Option<(i64, i64)>,
    ) -> Result<Vec<PartDigest>, StoreError> {
        self.call(|ledgers| {
            let parts = ledgers.get(ledger).into_iter().flat_map(|of| of.parts.values());
            let chosen = parts.filter(|part| match (units, matches!(part.name, "5min" | "day")) {
                (Some((from, until)), true) => (from..until).contains(&part.number),
                (units, is_unit) => units.is_none() && !is_unit,
            });
            chosen.flat_map(digests::of).collect()
        })
    }
}
