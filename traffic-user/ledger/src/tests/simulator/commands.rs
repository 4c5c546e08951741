//! What people do with a ledger.

use rusqlite::Connection;
use traffic_model::{ContainerId, is_pending};

use super::{Random, checks, world::World};
use crate::{
    AdjustmentRequest, LedgerError, PvaImport,
    testing::{as_version_3, id},
};

/// Above all generations of containers that are known from the beginning.
const FIRST_PENDING: u32 = 1_000_000;

/// Whose the interface of a pending owner is: in every history after a revert the same.
fn owner_of(generation: u32) -> String {
    format!("10{}", generation % 4)
}

impl World {
    pub fn retire(&mut self, random: &mut Random) {
        let container = format!("10{}", random.within(0, 2));
        self.drain(random);
        // A slot is given away only after its final reading is in the ledger.
        let now = Some((self.node.boot_id.clone(), self.node.boottime.as_nanos()));
        if !self.book.knows(&container) || self.book.last_reading() != now {
            return;
        }
        let label = format!("{container}@{:.0}", self.node.wall);
        self.log.push(format!("retired: {label}"));
        // The slot first; and no other container keeps the generation.
        self.node.give_away("100").give_away("101");
        self.generations += 1;
        self.copies.iter_mut().for_each(|copy| copy.book.misses_slots = true);
        let after = self.book.retired(&container, &label);
        let result = self.change(random, 10, after, |ledger, node| {
            ledger.retire(&container, node.wall).map(|retired| assert_eq!(retired, label))
        });
        assert!(matches!(result, Ok(()) | Err(LedgerError::UnknownContainer(_))), "{result:?}");
        self.node.pass(2);
    }

    pub fn close(&mut self, random: &mut Random) {
        self.maintain(random);
        let months = checks::months(self.ledger());
        let Some((name, sums)) = months.into_iter().find(|(month, _)| !self.book.closed.contains_key(month))
        else {
            return;
        };
        let mut after = self.book.clone();
        after.closed.insert(name.clone(), sums);
        let (start, end, _) = self.ledger().month(&name).unwrap();
        after.closed_spans.push((start, end));
        let force = !random.once_in(3);
        let result = self.change(random, 60, after, |ledger, node| {
            let closed =
                if force { ledger.close_anyway(&name, node.wall) } else { ledger.close(&name, node.wall) };
            closed.map(drop)
        });
        assert!(matches!(result, Ok(()) | Err(LedgerError::NotClosable { .. })), "{result:?}");
        self.log.push(format!("close {name}, forced: {force}: {}", result.is_ok()));
        // By dice of its own: what comes next stays the same.
        if self.book.closed.contains_key(&name) && self.dice.once_in(2) {
            let mut dice = self.dice.clone();
            self.adjust(&mut dice);
        }
    }

    pub fn adjust(&mut self, random: &mut Random) {
        let closed: Vec<_> = self.book.closed.iter().collect();
        if closed.is_empty() {
            return;
        }
        let (period, sums) = closed[random.below(closed.len())];
        // What was frozen of a pending owner may be another's by now.
        let Some(((container, class), frozen)) = sums.iter().find(|((id, _), _)| !is_pending(id)) else {
            return;
        };
        let bytes = random.within(-50, 1000);
        let request = AdjustmentRequest {
            period: period.clone(),
            container: container.clone(),
            class: *class,
            family: None,
            packets: [0, 1],
            bytes: [bytes, 0],
            reason: format!("number {}", random.next()),
            made: self.node.wall,
        };
        self.log.push(format!("adjust {request:?}"));
        if i64::try_from(frozen[1]).unwrap() + self.book.adjustments.1 + bytes < 0 {
            return;
        }
        let mut after = self.book.clone();
        after.adjustments.0 += 1;
        after.adjustments.1 += bytes;
        self.change(random, 20, after, |ledger, _| ledger.adjust(&request).map(drop)).unwrap();
    }

    /// What the note says is of no matter to the ledger.
    pub fn change_key(&mut self, random: &mut Random) {
        // An older version knows no such entries, and closed no month either where it is tried.
        if self.book.closed.is_empty() {
            return;
        }
        let (note, made) = (format!("a note\n\nnumber {}\n", random.next()), self.node.wall);
        let entries = u64::try_from(self.book.closed.len() + self.book.chained()).unwrap();
        self.log.push(format!("change the key {note:?}"));
        let stale = self.ledger().append_key_change(&note, made, entries + 1);
        assert!(stale.is_err(), "decided by other entries");
        let mut after = self.book.clone();
        after.key_changes += 1;
        self.change(random, 20, after, |ledger, _| ledger.append_key_change(&note, made, entries).map(drop))
            .unwrap();
    }

    /// An interface appears whose container is unknown, and carries something.
    pub fn new_pending(&mut self, random: &mut Random) {
        self.pending_so_far += 1;
        let number = self.pending_so_far;
        let pending = ContainerId::pending("veth1", number, self.node.wall.as_second().unsigned_abs());
        self.log.push(format!("{pending} appears"));
        let bytes = random.next() % 1_000_000;
        // No other slot has had its generation.
        let sums = [1, bytes, 2, bytes / 2];
        self.node.traffic_in(pending.as_str(), FIRST_PENDING + number, 1, sums);
    }

    /// What a store has by now is what an attribution moves.
    fn ship_perhaps(&mut self) {
        if self.dice.once_in(2) {
            self.store.ship(self.ledger.as_ref().unwrap(), None);
        }
    }

    /// Of a pending owner in the counters: how much more it carries, and whose it turns out to be.
    pub fn attribute(&mut self, random: &mut Random) {
        let pending: Vec<(String, u32)> = self
            .node
            .counters
            .keys()
            .filter(|(name, ..)| is_pending(name))
            .map(|key| (key.0.clone(), key.1))
            .collect();
        if pending.is_empty() {
            return;
        }
        self.ship_perhaps();
        let (pending, generation) = pending[random.below(pending.len())].clone();
        let class = u8::try_from(random.within(0, 3)).unwrap();
        self.node.traffic_in(&pending, generation, class, [3, random.next() % 9000, 0, 0]);
        if random.once_in(2) {
            self.log.push(format!("{pending} is {} by its counters", owner_of(generation)));
            self.tell_counters(&pending);
        }
        // Sometimes the next reading is of another boot.
        if !random.once_in(4) {
            self.node.pass(30);
            self.drain(random);
        }
    }

    /// The counters have the container's name from now on.
    fn tell_counters(&mut self, pending: &str) {
        let counters = std::mem::take(&mut self.node.counters).into_iter();
        self.node.counters = counters
            .map(|((name, generation, class), sums)| match name == pending {
                true => ((owner_of(generation), generation, class), sums),
                false => ((name, generation, class), sums),
            })
            .collect();
    }

    /// Somebody attributes a pending owner by hand, also one of an earlier boot.
    pub fn attribute_by_hand(&mut self, random: &mut Random) {
        let pending = self.book.pending();
        if pending.is_empty() {
            return;
        }
        self.ship_perhaps();
        let pending = pending[random.below(pending.len())].clone();
        let number: u32 = pending.split(':').nth(2).unwrap().parse().unwrap();
        let owner = owner_of(FIRST_PENDING + number);
        self.log.push(format!("{pending} is {owner} by hand"));
        let after = self.book.attributed(&pending, &owner);
        let result = self.change(random, 60, after, |ledger, node| {
            ledger.attribute(&pending, &id(&owner), "found", node.wall).map(drop)
        });
        result.unwrap();
        // The command may be killed before it tells the counters.
        if self.book.known.contains_key(&pending) && random.once_in(2) {
            self.tell_counters(&pending);
        }
    }

    /// The ledger of an older version, opened by this one.
    pub fn migrate(&mut self, random: &mut Random) {
        // An older version knows no attributions.
        if !self.book.closed.is_empty() || !self.book.known.is_empty() {
            return;
        }
        self.log.push("migrated from version 3".to_owned());
        // Its schema is known to nobody.
        self.reuses = false;
        self.maintain(random);
        self.ledger().conn.execute_batch(&as_version_3()).unwrap();
        self.ledger().checkpoint().unwrap();
        drop(self.ledger.take());
        self.copies.clear();
        // It has no drops either.
        self.book.drops.forget();
        let same = self.book.clone();
        self.disk.stop_after(random.within(1, 400).unsigned_abs());
        match self.open() {
            Ok(ledger) if !self.disk.is_stopped() => self.ledger = Some(ledger),
            opened if self.disk.is_stopped() => {
                drop(opened);
                self.recover(random, vec![same]);
                return self.begin_drops(random);
            }
            opened => panic!("{opened:?}"),
        }
        self.disk.never_stop();
        self.begin_drops(random);
    }

    pub fn reopen(&mut self) {
        self.log.push("the daemon is restarted".to_owned());
        drop(self.ledger.take());
        self.ledger = Some(self.with_statements(self.open().unwrap()));
    }

    /// History before this ledger, from a file that PVA wrote: a sample each minute.
    pub fn import(&mut self, random: &mut Random) {
        let again = self.book.imported;
        // Whose history it is depends on who had the id then.
        let is_plain = self.book.closed.is_empty() && (again || !self.book.has_retired());
        if !self.calm || !is_plain || !self.book.knows("100") {
            return;
        }
        let (first, minutes) = self.history;
        let path = self.disk.path().join("pva");
        let pva = Connection::open(&path).unwrap();
        let sql = format!(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE log_def (id, eid, lclass, instance, counter);
             CREATE TABLE log_data (id, startTime, avg);
             INSERT INTO log_def VALUES (1, '100', 'counters_vz_net', '', 'counter_net_incoming_bytes');
             WITH minute (at) AS (VALUES (0) UNION ALL SELECT at + 1 FROM minute WHERE at + 1 < {minutes})
             INSERT INTO log_data SELECT 1, {first} + 60 * at, 1000 + at FROM minute;"
        );
        pva.execute_batch(&sql).unwrap();
        drop(pva);
        let mut after = self.book.clone();
        after.imported = true;
        if !again {
            for at in 0..minutes {
                let start = (first + 60 * at).div_euclid(300) * 300;
                after.add(start, "100", 1, [0, (1000 + at).unsigned_abs(), 0, 0]);
            }
        }
        self.log.push(format!("import of {minutes} minutes from {first} on, again: {again}"));
        let import = |now| PvaImport { node: "node1".to_owned(), class: 1, until: None, dry_run: false, now };
        let result = self.change(random, 100, after, |ledger, node| {
            ledger.import_pva(&path, &import(node.wall), &mut |_| ()).map(drop)
        });
        result.unwrap();
        // A power failure may have removed it.
        let _ = self.disk.remove(&path, true);
    }
}
