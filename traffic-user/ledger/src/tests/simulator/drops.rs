//! What is dropped of the traffic, and the counters of it: they are switched off and on, cannot be read for a while,
//! and begin anew. The reference is plain sums again.

use std::collections::BTreeMap;

use traffic_common::DropGroup;
use traffic_model::calendar::Level;

use super::{Random, world::World};
use crate::{
    Ledger,
    schema::DROPPED,
    testing::{Node, Sums, add},
};

/// Sums by container, class and group of reasons.
pub type Dropped = BTreeMap<(String, u8, DropGroup), Sums>;

/// What a ledger must hold of drops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropBook {
    /// The set that was read last: boot, epoch, number.
    set: Option<(String, u64, Option<u32>)>,
    /// Its last readings.
    counters: BTreeMap<(String, u32, u8, DropGroup), Sums>,
    booked: BTreeMap<(i64, String, u8, DropGroup), Sums>,
}

impl DropBook {
    /// After a drain. `label` is the label of a container's slot, and `went_back` whether the memory did.
    pub fn drained(
        &mut self,
        node: &Node,
        bucket: i64,
        went_back: bool,
        label: impl Fn(&str, u32) -> Option<String>,
    ) {
        let Some((number, _)) = node.drop_set.filter(|_| !node.drops_hidden) else {
            if went_back && self.set.is_some() {
                self.set = Some((node.boot_id.clone(), node.epoch, None));
            }
            return;
        };
        let now = (node.boot_id.clone(), node.epoch, Some(number));
        let is_same = self.set.as_ref() == Some(&now);
        // The slots of another epoch have other owners; or the memory went back unseen.
        let is_old = self
            .set
            .as_ref()
            .is_some_and(|set| set.0 == now.0 && (set.2 == now.2 || set.2.is_none()) && !is_same);
        if !is_same || went_back {
            self.counters.clear();
        }
        for ((container, generation, class, group), &sums) in &node.drops {
            let Some(label) = label(container, *generation) else { continue };
            let life = (container.clone(), *generation, *class, *group);
            let before = self.counters.insert(life, sums).unwrap_or_default();
            let new: Sums = std::array::from_fn(|at| sums[at] - before[at]);
            if !went_back && !is_old && new != [0; 4] {
                add(self.booked.entry((bucket, label, *class, *group)).or_default(), new);
            }
        }
        self.set = Some(now);
    }

    pub fn is_known(&self) -> bool {
        self.set.is_some()
    }

    /// After a migration from a version without drops.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    pub fn rename(&mut self, rename: impl Fn(String) -> String) {
        let booked = std::mem::take(&mut self.booked).into_iter();
        self.booked = booked
            .map(|((start, label, class, group), sums)| ((start, rename(label), class, group), sums))
            .collect();
    }

    pub fn totals(&self) -> Dropped {
        let mut totals = Dropped::new();
        for ((_, label, class, group), sums) in &self.booked {
            add(totals.entry((label.clone(), *class, *group)).or_default(), *sums);
        }
        totals
    }
}

/// All that a ledger holds of drops. The finest rows of a time hold every packet once.
pub fn totals(ledger: &Ledger) -> Dropped {
    let mut totals = Dropped::new();
    for level in Level::ALL {
        let sql = format!(
            "SELECT c.label, t.class, t.reason, t.in_packets, t.in_bytes, t.out_packets, t.out_bytes
             FROM unit u CROSS JOIN {} t ON t.start = u.start JOIN container c ON c.id = t.container
             WHERE u.level = {} AND u.finest",
            DROPPED.table(level),
            level as u8,
        );
        let mut statement = ledger.conn.prepare_cached(&sql).unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let value = |at| row.get::<_, i64>(at).unwrap().cast_unsigned();
            let group = DropGroup::ALL[usize::from(row.get::<_, u8>(2).unwrap())];
            let key = (row.get(0).unwrap(), row.get(1).unwrap(), group);
            add(totals.entry(key).or_default(), [value(3), value(4), value(5), value(6)]);
        }
    }
    totals
}

impl World {
    /// Drops some of what a container carried.
    pub fn drop_some(&mut self, container: &str, generation: u32, class: u8, sums: Sums) {
        if self.drop_dice.once_in(2) {
            return;
        }
        let group = DropGroup::ALL[self.drop_dice.below(DropGroup::ALL.len())];
        let part = 1 + self.drop_dice.next() % 4;
        self.node.dropped_in((container, generation), class, group, sums.map(|value| value / part));
    }

    /// What happens to the counters of drops between two steps. Not before the ledger knows of them: what they mean
    /// then follows from the clock, which may be wrong.
    pub fn step_drops(&mut self) {
        if !self.book.drops.is_known() {
            return self.show_drops();
        }
        match self.drop_dice.below(12) {
            0 => {
                self.log.push("drops are not counted any more".to_owned());
                self.node.stop_drops();
            }
            1 | 2 => {
                self.log.push("another set of drop counters".to_owned());
                self.node.stop_drops().count_drops();
            }
            3 => {
                self.log.push("drop counters cannot be read".to_owned());
                self.node.drops_hidden = true;
            }
            4..=7 => self.show_drops(),
            _ => {}
        }
    }

    /// Has a ledger that knows nothing of drops read some with its next drain.
    pub fn show_drops(&mut self) {
        self.node.drops_hidden = false;
        if self.node.drop_set.is_none() {
            self.node.count_drops();
        }
    }

    pub fn show_unknown_drops(&mut self) {
        if !self.book.drops.is_known() {
            self.show_drops();
        }
    }

    /// After a migration: until the ledger knows the set, nothing is dropped.
    pub fn begin_drops(&mut self, random: &mut Random) {
        self.node.stop_drops().count_drops();
        while !self.book.drops.is_known() {
            self.node.pass(60);
            self.drain(random);
        }
    }
}
