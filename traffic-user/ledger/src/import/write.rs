//! LedgerHandle staged sums: into five minutes where those are kept, into hours or days where the finer rows were dropped long ago,
//! always marked so that everything above is summed up again. A dry run finds out the same and writes nothing, so that it does
//! with a transaction that reads.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};
use traffic_model::{
    calendar::{Calendar, FIVE_MINUTES_S, Level},
    hex,
};

use crate::{
    error::LedgerError,
    ids,
    import::{
        PvaContainer, PvaImport, PvaImported,
        source::VALUES,
        staging::{Staged, Staging, Sums},
    },
    schema::TRAFFIC,
};

/// Conflicts that are told one by one.
const CONFLICTS_SHOWN: usize = 20;

/// What the classes of one unit and container come to: four values each.
type ByClass = BTreeMap<u8, [i64; 4]>;

/// What is staged of one owner in the unit that is being filled.
#[derive(Debug, Default)]
struct OfOwner {
    fresh: ByClass,
    known: ByClass,
    /// Values of which something was imported before.
    known_values: BTreeSet<u8>,
    holder: i64,
}

/// A unit: its level, start and end.
type Unit = (Level, i64, i64);

pub struct RowWriter<'a> {
    conn: &'a Connection,
    calendar: &'a Calendar,
    import: &'a PvaImport,
    owners: &'a BTreeMap<String, bool>,
    /// `None` in a dry run of a first import.
    stream: Option<i64>,
    /// Containers that a dry run would have made: their numbers are negative.
    unmade: i64,
    /// Before what no rows of five minutes and of hours are kept.
    dropped: (Option<i64>, Option<i64>),
    holders: HashMap<usize, Vec<Holder>>,
    classes_seen: HashSet<(i64, u8)>,
    containers: BTreeMap<i64, PvaContainer>,
    done: PvaImported,
}

/// Who had an id.
#[derive(Clone, Debug)]
struct Holder {
    /// Until when; `i64::MAX` for now.
    until: i64,
    number: i64,
    label: String,
}

impl<'a> RowWriter<'a> {
    pub fn new(
        conn: &'a Connection,
        calendar: &'a Calendar,
        import: &'a PvaImport,
        owners: &'a BTreeMap<String, bool>,
    ) -> Result<Self, LedgerError> {
        Ok(Self {
            conn,
            calendar,
            import,
            owners,
            stream: if import.dry_run {
                find_stream(conn, &import.node)?
            } else {
                Some(make_stream(conn, &import.node)?)
            },
            unmade: 0,
            dropped: (
                ids::meta_integer(conn, "dropped_before_5min")?,
                ids::meta_integer(conn, "dropped_before_hour")?,
            ),
            holders: HashMap::new(),
            classes_seen: HashSet::new(),
            containers: BTreeMap::new(),
            done: PvaImported { dry_run: import.dry_run, ..PvaImported::default() },
        })
    }

    /// LedgerHandle everything.
    pub fn book(
        mut self,
        staging: &Staging,
        sums: &mut Sums<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<PvaImported, LedgerError> {
        let mut unit: Option<Unit> = None;
        let mut of_unit: BTreeMap<usize, OfOwner> = BTreeMap::new();
        // The sums of one five minutes, owner and value: the total and the classes.
        let mut together: Vec<Staged> = Vec::new();
        let mut done = 0;
        while let Some(staged) = sums.next()? {
            done += 1;
            progress(done, staging.sums);
            let same = together.first().is_some_and(|first| {
                (first.start, first.owner, first.value) == (staged.start, staged.owner, staged.value)
            });
            if !same {
                self.settle(staging, &mut together, &mut of_unit)?;
                if unit.is_none_or(|unit| staged.start >= unit.2) {
                    if let Some(unit) = unit {
                        self.write(staging, unit, &mut of_unit)?;
                    }
                    unit = Some(self.unit(staged.start)?);
                }
            }
            together.push(staged);
        }
        self.settle(staging, &mut together, &mut of_unit)?;
        if let Some(unit) = unit {
            self.write(staging, unit, &mut of_unit)?;
        }
        self.done.containers = self.containers.into_values().collect();
        self.done.containers.sort_by(|a, b| {
            let rank = |container: &PvaContainer| container.eid.parse::<u64>().unwrap_or(u64::MAX);
            rank(a).cmp(&rank(b)).then_with(|| a.container.cmp(&b.container))
        });
        Ok(self.done)
    }

    fn unit(&self, start: i64) -> Result<Unit, LedgerError> {
        let before = |dropped: Option<i64>| dropped.is_some_and(|dropped| start < dropped);
        let level = match self.dropped {
            (_, hours) if before(hours) => Level::Day,
            (five_minutes, _) if before(five_minutes) => Level::Hour,
            _ => Level::FiveMinutes,
        };
        let start = self.calendar.start(level, start)?;
        Ok((level, start, self.calendar.end(level, start)?))
    }

    /// Decides whether the classes or the total are taken for one five minutes, owner and value.
    fn settle(
        &mut self,
        staging: &Staging,
        together: &mut Vec<Staged>,
        of_unit: &mut BTreeMap<usize, OfOwner>,
    ) -> Result<(), LedgerError> {
        let Some(first) = together.first() else { return Ok(()) };
        let (start, owner, value) = (first.start, first.owner, first.value);
        let holder = self.holder(&staging.owners[owner], owner, start)?;
        let container = self.containers.entry(holder.number).or_insert_with(|| PvaContainer {
            container: holder.label.clone(),
            eid: staging.owners[owner].clone(),
            retired: holder.until != i64::MAX,
            first: None,
            last: None,
            in_packets: 0,
            in_bytes: 0,
            out_packets: 0,
            out_bytes: 0,
        });
        let sums = of_unit.entry(owner).or_default();
        sums.holder = holder.number;
        let part = |of: fn(&Staged) -> (u64, i64)| -> Vec<(Option<u8>, i64)> {
            together
                .iter()
                .filter(|staged| of(staged).0 > 0)
                .map(|staged| (staged.class, of(staged).1))
                .collect()
        };
        let (fresh, known) = (part(|staged| staged.fresh), part(|staged| staged.known));
        self.done.samples += together.iter().map(|staged| staged.fresh.0).sum::<u64>();
        self.done.samples_imported_before += together.iter().map(|staged| staged.known.0).sum::<u64>();
        let at = usize::from(value);
        if !fresh.is_empty() {
            let (chosen, adds_up) = choose(&fresh, self.import.class);
            if !adds_up {
                self.done.totals_taken.count += 1;
                let time = Timestamp::from_second(start)?;
                self.done
                    .totals_taken
                    .first
                    .get_or_insert_with(|| format!("{} of {} at {time}", VALUES[at], staging.owners[owner]));
            }
            let time = Timestamp::from_second(start)?;
            container.first.get_or_insert(time);
            container.last = Some(time);
            for (class, amount) in chosen {
                sums.fresh.entry(class).or_default()[at] += amount;
                let total = match value {
                    0 => &mut container.in_packets,
                    1 => &mut container.in_bytes,
                    2 => &mut container.out_packets,
                    _ => &mut container.out_bytes,
                };
                *total += amount.unsigned_abs();
            }
        }
        if !known.is_empty() {
            sums.known_values.insert(value);
            for (class, amount) in choose(&known, self.import.class).0 {
                sums.known.entry(class).or_default()[at] += amount;
            }
        }
        together.clear();
        Ok(())
    }

    /// Who had the id then. History is older than all retirements, so it goes to the first one.
    fn holder(&mut self, eid: &str, owner: usize, start: i64) -> Result<Holder, LedgerError> {
        let holders = match self.holders.entry(owner) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(holders(self.conn, eid)?),
        };
        if let Some(holder) = holders.iter().find(|holder| start < holder.until) {
            return Ok(holder.clone());
        }
        let kind = if self.owners.get(eid).copied().unwrap_or(false) { "vm" } else { "ct" };
        let number = if self.import.dry_run {
            self.unmade -= 1;
            self.unmade
        } else {
            ids::container(self.conn, eid, kind, start)?
        };
        let holder = Holder { until: i64::MAX, number, label: eid.to_owned() };
        holders.push(holder.clone());
        Ok(holder)
    }

    fn write(
        &mut self,
        staging: &Staging,
        unit: Unit,
        of_unit: &mut BTreeMap<usize, OfOwner>,
    ) -> Result<(), LedgerError> {
        let (level, start, end) = unit;
        let mut wrote = false;
        for (owner, sums) in std::mem::take(of_unit) {
            if !sums.known_values.is_empty() {
                self.compare(staging, unit, owner, &sums)?;
            }
            for (class, values) in sums.fresh {
                if values == [0; 4] {
                    continue;
                }
                *self.done.rows.of(level) += 1;
                let Some(stream) = self.stream.filter(|_| !self.import.dry_run) else { continue };
                wrote = true;
                self.use_class(sums.holder, class)?;
                let key = [start, sums.holder, i64::from(class), 0, stream];
                self.conn
                    .prepare_cached(&TRAFFIC.upsert_at(level))?
                    .execute(rusqlite::params_from_iter(key.into_iter().chain(values)))?;
            }
        }
        let Some(stream) = self.stream.filter(|_| wrote) else { return Ok(()) };
        self.conn
            .prepare_cached(
                "INSERT INTO unit (level, start, end, dirty, finest) VALUES (?1, ?2, ?3, 1, 1)
                 ON CONFLICT (level, start) DO UPDATE SET dirty = 1",
            )?
            .execute(params![level as u8, start, end])?;
        if level == Level::FiveMinutes && staging.interval > FIVE_MINUTES_S {
            self.conn
                .prepare_cached(
                    "INSERT INTO span (bucket, stream, start, end) VALUES (?1, ?2, ?1, ?3) ON CONFLICT DO NOTHING",
                )?
                .execute([start, stream, start + staging.interval])?;
        }
        Ok(())
    }

    fn use_class(&mut self, container: i64, class: u8) -> Result<(), LedgerError> {
        if self.classes_seen.insert((container, class)) {
            self.conn
                .execute("INSERT OR IGNORE INTO class_use VALUES (?1, ?2)", params![container, class])?;
        }
        Ok(())
    }

    /// Compares what was imported before with what the ledger holds, as far as this file has all of it.
    fn compare(
        &mut self,
        staging: &Staging,
        unit: Unit,
        owner: usize,
        sums: &OfOwner,
    ) -> Result<(), LedgerError> {
        let (level, start, end) = unit;
        let table = TRAFFIC.table(level);
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT class, in_packets, in_bytes, out_packets, out_bytes FROM {table}
             WHERE start = ?1 AND container = ?2 AND family = 0 AND stream = ?3"
        ))?;
        let held = statement.query_map(params![start, sums.holder, self.stream], |row| {
            Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))
        })?;
        let held: ByClass = held.collect::<Result<_, _>>()?;
        let classes: BTreeSet<u8> = held.keys().chain(sums.known.keys()).copied().collect();
        for class in classes {
            let of = |by_class: &ByClass| by_class.get(&class).copied().unwrap_or_default();
            let (in_ledger, in_file) = (of(&held), of(&sums.known));
            for &value in &sums.known_values {
                let at = usize::from(value);
                let differs = if staging.is_whole(owner, value, start, end) {
                    in_file[at] != in_ledger[at]
                } else {
                    in_file[at] > in_ledger[at]
                };
                if !differs {
                    continue;
                }
                self.done.conflicts.count += 1;
                if self.done.conflicts.first.len() < CONFLICTS_SHOWN {
                    self.done.conflicts.first.push(format!(
                        "{} of {} class {class}, {} from {}: the ledger has {}, this file {}",
                        VALUES[at],
                        staging.owners[owner],
                        level.name(),
                        Timestamp::from_second(start)?,
                        in_ledger[at],
                        in_file[at],
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The classes where they add up to the total or there is none, with or without class 0, which PVA may or may not have
/// in it; else the total under the class given. False when classes had to be left out.
fn choose(amounts: &[(Option<u8>, i64)], class_of_total: u8) -> (Vec<(u8, i64)>, bool) {
    let classes: Vec<(u8, i64)> =
        amounts.iter().filter_map(|&(class, amount)| Some((class?, amount))).collect();
    let total = amounts.iter().find(|(class, _)| class.is_none()).map(|(_, amount)| *amount);
    let Some(total) = total else { return (classes, true) };
    let sum: i64 = classes.iter().map(|(_, amount)| amount).sum();
    let billed: i64 = classes.iter().filter(|(class, _)| *class != 0).map(|(_, amount)| amount).sum();
    if !classes.is_empty() && (total == sum || total == billed) {
        return (classes, true);
    }
    (vec![(class_of_total, total)], classes.is_empty())
}

/// All who had an id, the earliest first.
fn holders(conn: &Connection, eid: &str) -> Result<Vec<Holder>, LedgerError> {
    let mut statement = conn.prepare_cached(
        "SELECT coalesce(retired, ?2), id, label FROM container WHERE name = ?1 ORDER BY 1, id",
    )?;
    let holders = statement.query_map(params![eid, i64::MAX], |row| {
        Ok(Holder { until: row.get(0)?, number: row.get(1)?, label: row.get(2)? })
    })?;
    Ok(holders.collect::<Result<_, _>>()?)
}

/// The stream of imported rows, if there is one.
fn find_stream(conn: &Connection, node: &str) -> Result<Option<i64>, LedgerError> {
    let sql = "SELECT s.id FROM stream s JOIN node n ON n.id = s.node JOIN epoch e ON e.id = s.epoch
        WHERE n.name = ?1 AND e.boot_id = 'pva-import'";
    Ok(conn.query_row(sql, [node], |row| row.get(0)).optional()?)
}

/// The stream of imported rows: an epoch that never was drained, under a table that nobody knows.
fn make_stream(conn: &Connection, node: &str) -> Result<i64, LedgerError> {
    let node = ids::node(conn, node)?;
    conn.execute(
        "INSERT OR IGNORE INTO epoch (boot_id, epoch, created) VALUES ('pva-import', '0000000000000000', 0)",
        [],
    )?;
    conn.execute(
        "INSERT OR IGNORE INTO class_table (hash, loaded, prefixes) VALUES (?1, 0, 0)",
        [hex(&[0; 32])],
    )?;
    let epoch = conn.query_row("SELECT id FROM epoch WHERE boot_id = 'pva-import'", [], |row| row.get(0))?;
    let table =
        conn.query_row("SELECT id FROM class_table WHERE hash = ?1", [hex(&[0; 32])], |row| row.get(0))?;
    ids::stream(conn, node, epoch, table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_taken_where_they_add_up() {
        let chosen = |amounts: &[(Option<u8>, i64)]| choose(amounts, 9);
        assert_eq!(chosen(&[(None, 7)]), (vec![(9, 7)], true));
        assert_eq!(chosen(&[(Some(1), 7)]), (vec![(1, 7)], true));
        assert_eq!(chosen(&[(None, 12), (Some(1), 7), (Some(2), 5)]), (vec![(1, 7), (2, 5)], true));
        // Class 0 within the total, and beside it.
        assert_eq!(chosen(&[(None, 12), (Some(0), 5), (Some(1), 7)]), (vec![(0, 5), (1, 7)], true));
        assert_eq!(chosen(&[(None, 7), (Some(0), 5), (Some(1), 7)]), (vec![(0, 5), (1, 7)], true));
        assert_eq!(chosen(&[(None, 13), (Some(1), 7), (Some(2), 5)]), (vec![(9, 13)], false));
        assert_eq!(chosen(&[(None, 0), (Some(1), 7)]), (vec![(9, 0)], false));
    }
}
