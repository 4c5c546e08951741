//! Copies of a ledger, and machines that go back to an earlier state or become two.

use super::{
    Random,
    book::Book,
    checks,
    disk::{Disk, Files},
    shipping::Store,
    world::{HOUR, SECOND, World},
};
use crate::{Ledger, LedgerConfig, LedgerError, testing::Node};

/// A copy of a ledger's files, and what it holds.
pub struct Copy {
    files: Files,
    pub book: Book,
}

/// An earlier state of a machine.
pub struct Earlier {
    node: Node,
    /// The same time.
    off_by_s: i64,
    disk: Copy,
    generations: u32,
}

impl World {
    /// Keeps the state of the machine.
    pub fn remember(&mut self) {
        self.log.push("snapshot of the machine".to_owned());
        let disk = Copy { files: self.disk.files(&self.path), book: self.book.clone() };
        self.earlier = Some(Earlier {
            node: self.node.clone(),
            off_by_s: self.off_by_s,
            disk,
            generations: self.generations,
        });
    }

    /// The machine goes back to an earlier state, with or without its disk. What it counts before the next
    /// reading is lost unless its disk went back as well.
    pub fn revert(&mut self, random: &mut Random) {
        let Some(earlier) = self.earlier.take() else { return };
        let true_s = self.node.wall.as_second() - self.off_by_s;
        let then_s = earlier.node.wall.as_second() - earlier.off_by_s;
        let same_boot = self.book.last_boottime(&earlier.node.boot_id);
        let is_soon = same_boot.is_some_and(|last| last < earlier.node.boottime + 100 * SECOND);
        let with_disk = random.once_in(2);
        // What a clock that was set by more than a day does to the figures is not known exactly.
        if is_soon && !with_disk || self.calm && true_s - then_s > 20 * HOUR {
            return;
        }
        self.log.push(format!("reverted by {} s, with its disk: {with_disk}", true_s - then_s));
        self.node = earlier.node;
        self.generations = earlier.generations;
        if with_disk {
            self.put_back(earlier.disk);
        }
        self.off_by_s = earlier.off_by_s - (true_s - then_s);
        if self.calm || random.once_in(2) {
            self.set_clock(-self.off_by_s);
        }
        self.traffic(random);
        // A revert that no drain sees for longer than the machine went back is not modelled: then the ledger can
        // only tell by counters that fell, and what they count for is not known exactly.
        let before = self.book.last_reading();
        for _ in 0..40 {
            self.node.pass(60);
            self.drain(random);
            if self.book.last_reading() != before {
                break;
            }
        }
    }

    /// Puts a copy of the ledger in its place.
    pub fn put_back(&mut self, copy: Copy) {
        self.end_process();
        self.disk.put_files(&self.path, copy.files);
        self.book = copy.book;
        self.ledger = Some(self.open_again().unwrap());
    }

    pub fn restore(&mut self, random: &mut Random) {
        if self.copies.is_empty() {
            return;
        }
        self.log.push("an older copy is restored".to_owned());
        let copy = self.copies.remove(random.below(self.copies.len()));
        self.put_back(copy);
    }

    pub fn copy(&mut self, random: &mut Random) {
        match random.within(0, 3) {
            0 => self.torn_copy(random),
            1 => self.copy_beside_reader(random),
            _ => {
                self.log.push("a copy of the ledger".to_owned());
                self.ledger().checkpoint().unwrap();
                let files = vec![("", self.disk.read(&self.path)), ("-wal", Vec::new())];
                self.copies.push(Copy { files, book: self.book.clone() });
            }
        }
    }

    /// A copy of which a part was read before some drains and the rest afterwards. It holds the state before or
    /// after one of them, or it is refused. After a drain that failed on the disk, its changes may be in the log
    /// alone, and the file is older.
    pub fn torn_copy(&mut self, random: &mut Random) {
        self.log.push("a torn copy of the ledger".to_owned());
        let (before, first) = (self.book.clone(), self.disk.read(&self.path));
        let mut states = self.run(random);
        let second = self.disk.read(&self.path);
        let pages = random.below(second.len() / 4096 + 1).min(first.len() / 4096);
        let content = [&first[..pages * 4096], &second[pages * 4096..]].concat();
        states.push(before);
        self.open_copy(content, &states);
    }

    /// A copy while a reader keeps the log from being written into the file. SQLite then writes the pages that
    /// did not change since the reader began, so the file holds no state at all.
    pub fn copy_beside_reader(&mut self, random: &mut Random) {
        self.log.push("a copy beside a reader".to_owned());
        self.ledger().checkpoint().unwrap();
        let reader = Ledger::open_read_only(&self.path).unwrap();
        reader.conn.execute_batch("BEGIN; SELECT count(*) FROM epoch").unwrap();
        let mut states = vec![self.book.clone()];
        for _ in 0..2 {
            self.show_unknown_drops();
            self.traffic(random);
            self.node.pass(300);
            let after = self.book.drained(&self.node);
            self.node.clone().drain(self.ledger());
            self.book = after.clone();
            states.push(after);
        }
        let content = self.disk.read(&self.path);
        drop(reader);
        self.open_copy(content, &states);
    }

    /// Opens a copy beside the ledger. It holds one of these states, or it is refused.
    pub fn open_copy(&mut self, content: Vec<u8>, states: &[Book]) {
        let path = self.disk.path().join("copy.sqlite");
        self.disk.put(&path, content);
        match Ledger::open(&path, self.config()) {
            Ok(copy) => {
                let found = checks::state(&copy);
                let known: Vec<_> = states.iter().map(checks::expected).collect();
                assert!(known.contains(&found), "a copy holds {found:?}, not one of {known:?}");
            }
            // In whichever way: nothing is booked on it.
            Err(error) => self.log.push(format!("the copy is refused: {error}")),
        }
        assert_eq!(self.disk.remove(&path, true), Ok(true));
    }

    /// A second machine with the same state. It needs a ledger of its own.
    pub fn clone_machine(&mut self, random: &mut Random) -> Self {
        self.log.push("cloned".to_owned());
        let disk = Disk::new();
        let path = disk.path().join("ledger.sqlite");
        disk.put_files(&path, self.disk.files(&self.path));
        let mut clone = Self {
            disk,
            path,
            ledger: None,
            node: self.node.clone(),
            machine: format!("machine {:x}", random.next()),
            calendar: self.calendar.clone(),
            calm: self.calm,
            off_by_s: self.off_by_s,
            generations: self.generations,
            pending_so_far: self.pending_so_far,
            book: self.book.clone(),
            failed: Vec::new(),
            copies: Vec::new(),
            earlier: None,
            history: self.history,
            store: Store::default(),
            dice: self.dice.clone(),
            drop_dice: self.drop_dice.clone(),
            log: vec!["a clone".to_owned()],
            reuses: self.reuses,
        };
        let refused = clone.open();
        assert!(matches!(refused, Err(LedgerError::OtherMachine)), "{refused:?}");
        let adopted = Ledger::open(&clone.path, LedgerConfig { adopt: true, ..clone.config() }).unwrap();
        assert_ne!(adopted.id().unwrap(), self.ledger().id().unwrap());
        clone.ledger = Some(clone.with_statements(adopted));
        if random.once_in(2) {
            clone.restart_node(random);
        }
        clone
    }
}
