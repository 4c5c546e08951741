//! Whether store and ledger hold the same rows, day by day.

use std::collections::{BTreeMap, BTreeSet};

use traffic_ledger::{Changes, DROPPED_TABLE, TABLES};

use crate::{
    digests,
    shipper::{ShipError, Shipper},
    store::{Difference, PartDigest, Store},
};

/// Seconds of a day of UTC, in which units are compared.
const DAY_S: i64 = 86_400;
/// Parts whose rows are read at once.
const PARTS_AT_ONCE: usize = 16;

type Key = (String, i64, usize);
/// Name, number and change number of a part.
type Part = (&'static str, i64, i64);

/// Which of the ledger's days to compare. Everything that belongs to no day is always compared, and all time in which
/// the ledger has nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Days of UTC that end at this time (Unix seconds) or before it.
    pub until: i64,
    /// Those of them in which something changed after this change number.
    pub after: i64,
    /// And those of the others whose number since the Unix epoch leaves this remainder when divided by the second.
    pub turn: (i64, i64),
    /// And these days, by their number since the Unix epoch, also if they are not over.
    pub days: BTreeSet<i64>,
}

impl Scope {
    /// Whether a day is compared, given the highest change number of its parts.
    fn has(&self, day: i64, rev: i64) -> bool {
        let (remainder, divisor) = self.turn;
        let is_due = rev > self.after || day.rem_euclid(divisor.max(1)) == remainder;
        ((day + 1) * DAY_S <= self.until && is_due) || self.days.contains(&day)
    }
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Days of UTC that were compared.
    pub days: usize,
    /// Parts that were compared.
    pub parts: usize,
    /// Those that differed.
    pub differences: Vec<Difference>,
    /// How many of these were shipped again, and are now equal.
    pub repaired: usize,
    /// Those that still differ: all of them, unless they were shipped again.
    pub left: Vec<Difference>,
    /// Whether drops were compared: the store may be older than they are.
    pub has_drops: bool,
    /// What changed after this change number was not compared: the store did not have it yet.
    pub changes: i64,
    /// Name and number of the parts that were not compared for that reason.
    pub later: BTreeSet<(String, i64)>,
}

/// Compares everything that a store holds of a ledger with what the ledger holds. `repairs` ships again what differs,
/// and compares that once more.
///
/// # Errors
/// As for [`Shipper::ship`].
pub async fn verify(
    shipper: &Shipper<'_>,
    store: &mut impl Store,
    repairs: bool,
) -> Result<Verified, ShipError> {
    let mut verified = compare(shipper, store, None).await?;
    if repairs && !verified.differences.is_empty() {
        let differing: BTreeSet<(&str, i64)> = verified
            .differences
            .iter()
            .map(|differing| (differing.name.as_str(), differing.number))
            .collect();
        let parts: Vec<_> = [false, true]
            .map(|units| shipper.ledger.changes(Changes { after: 0, until: i64::MAX, units }))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        let parts: Vec<_> = parts.into_iter().filter(|part| differing.contains(&(part.0, part.1))).collect();
        shipper.repair(store, &parts).await?;
        let after = compare(shipper, store, None).await?;
        let is_left = |before: &Difference| {
            after.left.iter().any(|now| (&now.name, now.number) == (&before.name, before.number))
        };
        verified.repaired = verified.differences.iter().filter(|before| !is_left(before)).count();
        (verified.left, verified.later) = (after.left, after.later);
    }
    Ok(verified)
}

/// Compares some days, and whatever belongs to no day of the ledger: also days that only the store has.
///
/// # Errors
/// As for [`Shipper::ship`].
pub async fn verify_days(
    shipper: &Shipper<'_>,
    store: &mut impl Store,
    scope: Scope,
) -> Result<Verified, ShipError> {
    compare(shipper, store, Some(scope)).await
}

async fn compare(
    shipper: &Shipper<'_>,
    store: &mut impl Store,
    scope: Option<Scope>,
) -> Result<Verified, ShipError> {
    let identity = shipper.ledger.shipping_identity()?;
    let done = store.known(&identity.ledger).await?.map_or(0, |known| known.done);
    let mut verified = Verified { changes: done, ..Verified::default() };
    let records = shipper.ledger.changes(Changes { after: 0, until: i64::MAX, units: false })?;
    let stored = store.digests(&identity.ledger, None).await?;
    compare_parts(shipper, (&records, done), stored, &mut verified)?;
    let mut units = shipper.ledger.changes(Changes { after: 0, until: i64::MAX, units: true })?;
    shipper.retain_taken(store, &mut units).await?;
    verified.has_drops = store.takes_drops();
    let mut days: BTreeMap<i64, Vec<Part>> = BTreeMap::new();
    for part in units {
        days.entry(part.1.div_euclid(DAY_S)).or_default().push(part);
    }
    let newest = |parts: &[Part]| parts.iter().map(|part| part.2).max().unwrap_or(0);
    let chosen: BTreeSet<i64> = days
        .iter()
        .filter(|(day, parts)| scope.as_ref().is_none_or(|scope| scope.has(**day, newest(parts))))
        .map(|(day, _)| *day)
        .collect();
    verified.days = chosen.len();
    let spans = with_spans_between(days);
    for (span, parts) in spans.into_iter().filter(|(span, parts)| {
        // Nothing is in between, so a question for a long time costs little.
        parts.is_empty() || chosen.contains(&span.0.div_euclid(DAY_S))
    }) {
        let mut stored = store.digests(&identity.ledger, Some(span)).await?;
        // What the ledger has dropped is in the store alone.
        stored.retain(|digest| {
            digest.name != "5min" || identity.kept_from.is_none_or(|from| digest.number >= from)
        });
        compare_parts(shipper, (&parts, done), stored, &mut verified)?;
    }
    verified.differences.sort_unstable();
    verified.left.clone_from(&verified.differences);
    Ok(verified)
}

/// The ledger's days with their parts, and all time around them, in which the store must have nothing.
fn with_spans_between(days: BTreeMap<i64, Vec<Part>>) -> Vec<((i64, i64), Vec<Part>)> {
    let mut spans = Vec::new();
    let mut after = i64::MIN;
    for (day, mut parts) in days {
        parts.sort_unstable_by_key(|part| part.1);
        let (start, end) = (day * DAY_S, (day + 1) * DAY_S);
        if after < start {
            spans.push(((after, start), Vec::new()));
        }
        spans.push(((start, end), parts));
        after = end;
    }
    spans.push(((after, i64::MAX), Vec::new()));
    spans
}

/// Compares parts of the ledger, up to a change number, with what the store has of them.
fn compare_parts(
    shipper: &Shipper<'_>,
    (parts, done): (&[Part], i64),
    stored: Vec<PartDigest>,
    verified: &mut Verified,
) -> Result<(), ShipError> {
    let key = |digest: &PartDigest| -> Key { (digest.name.clone(), digest.number, digest.table) };
    let mut stored: BTreeMap<Key, PartDigest> =
        stored.into_iter().map(|digest| (key(&digest), digest)).collect();
    let mut differ = |key: &Key, in_ledger: i64, in_store: i64| {
        let table = TABLES.get(key.2).map_or("", |table| table.name);
        let (name, number) = (key.0.clone(), key.1);
        verified.differences.push(Difference { name, number, table, in_ledger, in_store });
    };
    for parts in parts.chunks(PARTS_AT_ONCE) {
        let names: Vec<(&'static str, i64)> = parts.iter().map(|part| (part.0, part.1)).collect();
        for content in shipper.ledger.contents(&names)? {
            // It changed since: it is shipped next.
            if content.rev > done {
                verified.later.insert((content.name.to_owned(), content.number));
                continue;
            }
            verified.parts += 1;
            let compared = |digest: &PartDigest| verified.has_drops || digest.table != DROPPED_TABLE;
            for digest in digests::of(&content).into_iter().filter(compared) {
                let key = key(&digest);
                match stored.remove(&key) {
                    Some(found) if found == digest => {}
                    found => differ(&key, digest.rows, found.map_or(0, |found| found.rows)),
                }
            }
        }
    }
    if stored.is_empty() {
        return Ok(());
    }
    // What the ledger did not have when its parts were listed may be new since, or dropped since.
    let names: Vec<(&'static str, i64)> =
        stored.keys().filter_map(|key| Some((known_name(&key.0)?, key.1))).collect();
    let now = shipper.ledger.contents(&names)?;
    let newer = now.into_iter().filter(|content| content.rev > done);
    verified.later.extend(newer.map(|content| (content.name.to_owned(), content.number)));
    let kept_from = shipper.ledger.shipping_identity()?.kept_from;
    for (key, digest) in &stored {
        let is_dropped = key.0 == "5min" && kept_from.is_some_and(|from| key.1 < from);
        if !is_dropped && !verified.later.contains(&(key.0.clone(), key.1)) {
            differ(key, 0, digest.rows);
        }
    }
    Ok(())
}

/// The name of a part as the ledger has it.
fn known_name(name: &str) -> Option<&'static str> {
    TABLES.iter().flat_map(|table| table.parts).copied().find(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_compared_when_it_is_over_and_changed_or_has_its_turn() {
        let scope = Scope { until: 9 * DAY_S + 7, after: 50, turn: (3, 5), days: [5, 11].into() };
        assert!(scope.has(8, 1), "its turn");
        assert!(!scope.has(7, 50) && scope.has(7, 51));
        assert!(!scope.has(9, 51), "it is not over");
        assert!(scope.has(-2, 0) && !scope.has(-3, 0));
        assert!(scope.has(5, 1) && scope.has(11, 1) && !scope.has(6, 1) && !scope.has(10, 1), "asked for");
    }

    #[test]
    fn days_and_what_is_between_them_are_all_time() {
        let part = |day: i64| ("day", day * DAY_S, 1);
        let days = [3, 4, 6].map(|day| (day, vec![part(day)]));
        let spans = with_spans_between(days.into());
        let parts: Vec<_> = spans.iter().map(|(_, parts)| parts.len()).collect();
        assert_eq!(parts, [0, 1, 1, 0, 1, 0]);
        assert_eq!((spans[0].0.0, spans[5].0.1), (i64::MIN, i64::MAX));
        assert!(spans.windows(2).all(|pair| pair[0].0.1 == pair[1].0.0));
        assert_eq!(with_spans_between(BTreeMap::new()), [((i64::MIN, i64::MAX), Vec::new())]);
    }
}
