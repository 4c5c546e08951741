//! What was dropped behind the hooks, from the counters of drops to rows.
//!
//! These counters are optional and live shorter than those of classes: they begin when the daemon has loaded their
//! program, and each set of them begins at zero. The table `drop_set` names the set that was read last. From it and
//! the present one follows what the readings mean ([`Meaning`]), and from when to when drops are not known. That is a
//! gap of its own reason: what was dropped then is in the classes like everything else, and nothing else depends on it.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};
use traffic_common::DropGroup;
use traffic_model::DropReading;

use crate::{
    error::LedgerError,
    schema::DROPPED,
    write::{
        difference::{self, Change, DroppedKey, TALLY_VALUES},
        drain::Drain,
        gaps::{self, Gap, GapLinks, GapReason},
        readings::{self, ContainerLife, LastReadings},
    },
};

/// What a reading of a set of drop counters means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The same set as at the last reading: its growth since then is new.
    Continued,
    /// A set that nothing was recorded of: all of it is new.
    Begun,
    /// A set that counted before as well, and nobody knows how much of that is recorded: only what follows is new.
    Baseline,
}

/// The set of drop counters that was read last. Times in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
struct LastSet {
    epoch: i64,
    /// `None` if nobody knows what was recorded of the present one.
    number: Option<u32>,
    read_s: i64,
    /// Since when this ledger records drops.
    recorded_s: i64,
    /// The gap that began when no set could be read.
    gap: Option<i64>,
    /// Whether it counted in the boot of this reading.
    is_of_boot: bool,
}

/// What is known of the present reading.
#[derive(Clone, Copy, Debug)]
struct Now {
    epoch: i64,
    set: u32,
    /// When the set began, in booked time.
    since_s: i64,
    /// The last reading of this epoch, with drops or without.
    before_s: Option<i64>,
    /// Whether the memory went back, or another set of counters was drained meanwhile.
    is_interrupted: bool,
}

impl Meaning {
    fn of(last: Option<&LastSet>, now: &Now) -> Self {
        let is_same = |last: &LastSet| last.number == Some(now.set) && last.is_of_boot;
        match last {
            _ if now.is_interrupted => Self::Baseline,
            Some(last) if is_same(last) && last.epoch == now.epoch => Self::Continued,
            // An older one that was out of sight: the kernel numbers maps upwards within a boot.
            Some(last) if last.is_of_boot && last.number.is_some_and(|number| now.set < number) => {
                Self::Baseline
            }
            // Slots have other owners in another epoch.
            Some(last) if is_same(last) || last.number.is_none() && last.is_of_boot => Self::Baseline,
            // The ledger is older than its knowledge of drops: what it says of earlier times stays.
            None if now.before_s.is_some_and(|before| now.since_s < before) => Self::Baseline,
            _ => Self::Begun,
        }
    }
}

impl Drain<'_> {
    /// Writes what the drop counters grew by. Returns the number of rows.
    pub(super) fn write_drops(
        &mut self,
        last: &LastReadings,
        lives: &HashMap<(&str, u32), ContainerLife>,
    ) -> Result<usize, LedgerError> {
        let before = self.last_set()?;
        let snapshot = self.snapshot;
        let Some(drops) = &snapshot.drops else {
            return self.note_missing_drops(before.as_ref()).map(|()| 0);
        };
        let now = Now {
            epoch: self.epoch,
            set: drops.set,
            since_s: self.times.within_boot(drops.since).as_second(),
            before_s: self.times.same_epoch.map(Timestamp::as_second),
            is_interrupted: self.is_interrupted(),
        };
        let meaning = Meaning::of(before.as_ref(), &now);
        let rows = self.write_drop_changes(meaning, drops, (last, lives))?;
        let now_s = self.times.now.as_second();
        let complete_from_s = if meaning == Meaning::Baseline { now_s } else { now.since_s };
        if let Some(before) = &before {
            let span = (self.missing_from(before)?, complete_from_s);
            self.settle_gap(before, meaning == Meaning::Continued, span)?;
        }
        let recorded_s = before.map_or(complete_from_s, |before| before.recorded_s);
        self.transaction
            .prepare_cached("INSERT OR REPLACE INTO drop_set VALUES (1, ?1, ?2, ?3, ?4, NULL)")?
            .execute(params![self.epoch, drops.set, now_s, recorded_s])?;
        Ok(rows)
    }

    fn write_drop_changes(
        &mut self,
        meaning: Meaning,
        drops: &DropReading,
        (last, lives): (&LastReadings, &HashMap<(&str, u32), ContainerLife>),
    ) -> Result<usize, LedgerError> {
        let none = HashMap::new();
        let previous = if meaning == Meaning::Continued { &last.drops } else { &none };
        if meaning != Meaning::Continued {
            delete(self.transaction, self.epoch)?;
        }
        let mut upsert = self.transaction.prepare_cached(&DROPPED.upsert())?;
        let mut rows = 0;
        for (key, change) in difference::differences(previous, difference::drop_readings(drops)) {
            let Some(life) = lives.get(&(key.container.as_str(), key.generation)) else { continue };
            store(self.transaction, life.id, &key, &change)?;
            if meaning == Meaning::Baseline {
                continue;
            }
            self.record_fallen_drops(&change, (key.container.as_str(), life.container))?;
            self.control_totals.add(&DROPPED, &change);
            let (class, family, reason) = (key.class.into(), key.family as u8, key.group as u8);
            let row = [life.container, class, family.into(), reason.into(), self.series];
            rows += self.add_change(&mut upsert, &row, &change)?;
        }
        Ok(rows)
    }

    fn last_set(&self) -> Result<Option<LastSet>, LedgerError> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT d.epoch, d.number, d.read, d.recorded, d.gap, e.boot_id = ?1
             FROM drop_set d JOIN epoch e ON e.id = d.epoch",
        )?;
        let set = statement.query_row([&self.snapshot.boot_id], |row| {
            Ok(LastSet {
                epoch: row.get(0)?,
                number: row.get(1)?,
                read_s: row.get(2)?,
                recorded_s: row.get(3)?,
                gap: row.get(4)?,
                is_of_boot: row.get(5)?,
            })
        });
        Ok(set.optional()?)
    }

    /// From when on drops are not known if the last set does not continue: in another epoch nothing was counted
    /// before that began.
    fn missing_from(&self, last: &LastSet) -> Result<i64, LedgerError> {
        if last.epoch == self.epoch {
            return Ok(last.read_s);
        }
        let sql = "SELECT created FROM epoch WHERE id = ?1";
        let created: i64 = self.transaction.prepare_cached(sql)?.query_row([self.epoch], |row| row.get(0))?;
        Ok(last.read_s.max(created))
    }

    /// Begins a gap, or lets it reach up to this drain: no drop counters can be read. A ledger that never recorded
    /// drops misses none.
    fn note_missing_drops(&self, last: Option<&LastSet>) -> Result<(), LedgerError> {
        let Some(last) = last else { return Ok(()) };
        let span = (self.missing_from(last)?, self.times.now.as_second());
        let gap = self.keep_gap(last.gap, span)?;
        if last.gap != Some(gap) {
            self.transaction.prepare_cached("UPDATE drop_set SET gap = ?1")?.execute([gap])?;
        }
        if self.is_interrupted() {
            let sql = "UPDATE drop_set SET epoch = ?1, number = NULL";
            self.transaction.prepare_cached(sql)?.execute([self.epoch])?;
        }
        Ok(())
    }

    /// Removes the gap if the last set was only out of sight, and otherwise ends it where a set has counted since.
    fn settle_gap(&self, last: &LastSet, is_continued: bool, span: (i64, i64)) -> Result<(), LedgerError> {
        // What the last set counted after its last reading is lost, even if the next one followed at once.
        let is_over = is_continued || span.1 <= span.0 && last.epoch != self.epoch;
        match last.gap {
            Some(gap) if is_over => {
                self.transaction.prepare_cached("DELETE FROM gap WHERE id = ?1")?.execute([gap])?;
            }
            _ if is_over => {}
            gap => drop(self.keep_gap(gap, (span.0, span.1.max(span.0)))?),
        }
        Ok(())
    }

    /// Moves the end of a gap, or inserts it. Returns its number.
    fn keep_gap(&self, gap: Option<i64>, (from_s, to_s): (i64, i64)) -> Result<i64, LedgerError> {
        if let Some(gap) = gap {
            let sql = "UPDATE gap SET end = max(?2, coalesce(start, ?2)) WHERE id = ?1";
            if self.transaction.prepare_cached(sql)?.execute([gap, to_s])? == 1 {
                return Ok(gap);
            }
        }
        let (from, to) = (Timestamp::from_second(from_s)?, Timestamp::from_second(to_s)?);
        let gap = Gap::of_node(GapReason::DropsNotCounted, from, to);
        gaps::insert(self.transaction, self.times.now, &gap, GapLinks::default())?;
        Ok(self.transaction.last_insert_rowid())
    }

    /// Records a drop counter that fell: what was dropped since the last reading is unknown.
    fn record_fallen_drops<const N: usize>(
        &mut self,
        change: &Change<N>,
        (container, number): (&str, i64),
    ) -> Result<(), LedgerError> {
        if !change.is_loss() {
            return Ok(());
        }
        let now = self.times.now;
        let gap = Gap {
            container: Some(container.to_owned()),
            ..Gap::of_node(GapReason::DropsNotCounted, self.times.same_epoch.unwrap_or(now), now)
                .with_detail("a counter of drops fell".to_owned())
        };
        let links = GapLinks { container: Some(number), once: None };
        gaps::insert(self.transaction, now, &gap, links)?;
        self.gaps.push(gap);
        Ok(())
    }
}

impl LastReadings {
    /// Loads the last readings of the counters of drops. `names` has the lives of the epoch.
    pub(super) fn load_drops(
        &mut self,
        conn: &Connection,
        epoch: i64,
        names: &HashMap<i64, (String, u32)>,
    ) -> Result<(), LedgerError> {
        let mut statement = conn.prepare_cached(
            "SELECT r.life, r.class, r.family, r.reason, r.in_packets, r.in_bytes, r.out_packets, r.out_bytes
             FROM container_life l CROSS JOIN drop_reading r ON r.life = l.id WHERE l.epoch = ?1",
        )?;
        let mut rows = statement.query([epoch])?;
        while let Some(row) = rows.next()? {
            let group = DropGroup::ALL.get(usize::from(row.get::<_, u8>(3)?));
            // A newer program counts a group that this build does not know; its reading stays as it is.
            if let (Some((container, generation)), Some(&group)) = (names.get(&row.get(0)?), group) {
                let key = DroppedKey {
                    container: container.clone(),
                    generation: *generation,
                    class: row.get(1)?,
                    family: readings::family(row, 2)?,
                    group,
                };
                self.drops.insert(key, readings::values(row, 4)?);
            }
        }
        Ok(())
    }
}

/// Stores the reading of a counter of drops.
fn store(
    conn: &Connection,
    life: i64,
    key: &DroppedKey,
    change: &Change<TALLY_VALUES>,
) -> Result<(), LedgerError> {
    let (class, family, reason) = (key.class.into(), (key.family as u8).into(), (key.group as u8).into());
    let all = [life, class, family, reason].into_iter().chain(change.reading.map(u64::cast_signed));
    conn.prepare_cached("INSERT OR REPLACE INTO drop_reading VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?
        .execute(rusqlite::params_from_iter(all))?;
    Ok(())
}

/// Deletes the readings of an epoch's drops, because another set counts them now.
fn delete(conn: &Connection, epoch: i64) -> Result<(), LedgerError> {
    let lives = "SELECT id FROM container_life WHERE epoch = ?1";
    conn.prepare_cached(&format!("DELETE FROM drop_reading WHERE life IN ({lives})"))?.execute([epoch])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: LastSet =
        LastSet { epoch: 3, number: Some(7), read_s: 1000, recorded_s: 500, gap: None, is_of_boot: true };
    const NOW: Now = Now { epoch: 3, set: 7, since_s: 900, before_s: Some(1000), is_interrupted: false };

    #[test]
    fn only_growth_of_which_it_is_known_that_it_is_new_is_recorded() {
        use Meaning::{Baseline, Begun, Continued};
        for (last, now, expected, why) in [
            (Some(LAST), NOW, Continued, "the same set"),
            (Some(LAST), Now { set: 8, ..NOW }, Begun, "it was switched off and on"),
            (Some(LAST), Now { epoch: 4, set: 8, ..NOW }, Begun, "counters and drop counters are new"),
            (Some(LAST), Now { set: 6, ..NOW }, Baseline, "an older set came back"),
            (Some(LAST), Now { epoch: 4, ..NOW }, Baseline, "its slots belong to others now"),
            (
                Some(LastSet { is_of_boot: false, ..LAST }),
                Now { epoch: 4, ..NOW },
                Begun,
                "another boot's number",
            ),
            (Some(LAST), Now { is_interrupted: true, ..NOW }, Baseline, "the memory went back"),
            (Some(LastSet { number: None, ..LAST }), NOW, Baseline, "the memory went back unseen"),
            (None, NOW, Baseline, "the ledger was migrated"),
            (None, Now { since_s: 1000, ..NOW }, Begun, "the set is new"),
            (None, Now { before_s: None, ..NOW }, Begun, "the ledger is new"),
        ] {
            assert_eq!(Meaning::of(last.as_ref(), &now), expected, "{why}");
        }
    }
}
