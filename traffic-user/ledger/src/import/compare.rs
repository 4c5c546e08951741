//! Compares history that was imported before with what the ledger holds, and chooses between classes and
//! total.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::Connection;
use traffic_model::calendar::Level;

use crate::{
    days::read::{self, Selection},
    error::LedgerError,
    import::{
        PvaConflicts,
        source::{ONE, VALUES},
        staging::Staging,
    },
    query::{collected::pva_series, rows::owner},
    schema::TRAFFIC,
};

/// Number of conflicts that are described one by one.
const CONFLICTS_SHOWN: usize = 20;

/// Packets in, bytes in, packets out, bytes out, by class.
pub type ByClass = BTreeMap<u8, [i64; 4]>;

/// What the file holds of one owner in one unit and was imported before.
#[derive(Debug, Default)]
pub struct ImportedBefore {
    pub sums: ByClass,
    /// The values that were imported before, as indexes of [`VALUES`].
    pub values: BTreeSet<usize>,
}

/// A bucket of some level. Unix seconds.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    pub level: Level,
    pub start: i64,
    pub end: i64,
}

/// The rows of one container and unit to compare with.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    pub unit: Unit,
    /// Index of the owner in [`Staging::owners`].
    pub owner: usize,
    /// The container's id in the ledger.
    pub container: i64,
}

/// Records where the file differs from the ledger, as far as the file contains everything that was imported.
pub fn compare(
    conn: &Connection,
    staging: &Staging,
    subject: &Subject,
    imported: &ImportedBefore,
    conflicts: &mut PvaConflicts,
) -> Result<(), LedgerError> {
    let Unit { level, start, end } = subject.unit;
    let mut held = ByClass::new();
    let imports = pva_series(conn)?;
    let owners = [subject.container];
    let rows = Selection { owners: Some(&owners), ..Selection::all(&TRAFFIC, level, (start, start + 1)) };
    read::each(conn, &rows, |row| {
        let (_, class, family) = owner(&row.series)?;
        if family == 0 && imports.contains(&row.series[3]) {
            let sums = held.entry(class).or_default();
            sums.iter_mut().zip(row.values).for_each(|(sum, value)| *sum += value.cast_signed());
        }
        Ok(())
    })?;
    let classes: BTreeSet<u8> = held.keys().chain(imported.sums.keys()).copied().collect();
    for class in classes {
        let of = |by_class: &ByClass| by_class.get(&class).copied().unwrap_or_default();
        let (in_ledger, in_file) = (of(&held), of(&imported.sums));
        for &at in &imported.values {
            let differs = if staging.is_whole((subject.owner, at), start, end) {
                in_file[at] != in_ledger[at]
            } else {
                in_file[at] > in_ledger[at]
            };
            if !differs {
                continue;
            }
            conflicts.count += 1;
            if conflicts.first.len() < CONFLICTS_SHOWN {
                conflicts.first.push(format!(
                    "{} of {} class {class}, {} from {}: the ledger has {}, this file {}",
                    VALUES[at],
                    staging.owners[subject.owner],
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

/// Chooses the classes if they add up to the total or there is no total, otherwise the total under
/// `class_of_total`. Returns the choice, and false if classes had to be dropped.
///
/// PVA's total may or may not contain class 0, so both sums are accepted. Amounts are in parts of [`ONE`].
pub fn choose(amounts: &[(Option<u8>, i64)], class_of_total: u8) -> (Vec<(u8, i64)>, bool) {
    let classes: Vec<(u8, i64)> =
        amounts.iter().filter_map(|&(class, amount)| Some((class?, amount))).collect();
    let total = amounts.iter().find(|(class, _)| class.is_none()).map(|(_, amount)| *amount);
    let Some(total) = total else { return (classes, true) };
    let sum: i64 = classes.iter().map(|(_, amount)| amount).sum();
    let billed: i64 = classes.iter().filter(|(class, _)| *class != 0).map(|(_, amount)| amount).sum();
    // Fractions are not exact.
    let adds_up = |sum: i64| (total - sum).abs() < ONE;
    if !classes.is_empty() && (adds_up(sum) || adds_up(billed)) {
        return (classes, true);
    }
    (vec![(class_of_total, total)], classes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_chosen_if_they_add_up() {
        let chosen = |amounts: &[(Option<u8>, i64)]| {
            let amounts: Vec<_> = amounts.iter().map(|&(class, amount)| (class, amount * ONE)).collect();
            let (chosen, adds_up) = choose(&amounts, 9);
            (chosen.into_iter().map(|(class, amount)| (class, amount / ONE)).collect::<Vec<_>>(), adds_up)
        };
        assert_eq!(chosen(&[(None, 7)]), (vec![(9, 7)], true));
        assert_eq!(chosen(&[(Some(1), 7)]), (vec![(1, 7)], true));
        assert_eq!(chosen(&[(None, 12), (Some(1), 7), (Some(2), 5)]), (vec![(1, 7), (2, 5)], true));
        // The total may contain class 0 or not.
        assert_eq!(chosen(&[(None, 12), (Some(0), 5), (Some(1), 7)]), (vec![(0, 5), (1, 7)], true));
        assert_eq!(chosen(&[(None, 7), (Some(0), 5), (Some(1), 7)]), (vec![(0, 5), (1, 7)], true));
        assert_eq!(chosen(&[(None, 13), (Some(1), 7), (Some(2), 5)]), (vec![(9, 13)], false));
        assert_eq!(chosen(&[(None, 0), (Some(1), 7)]), (vec![(9, 0)], false));
    }
}
