//! Percentiles: which containers have the rates that were frozen when a month was closed, and which are ranked anew.
//!
//! Frozen rates answer for a container that only one node has. Of several nodes, rates cannot be added.

use std::collections::{BTreeMap, HashMap, HashSet};

use traffic_ledger::{Basis, LineKey, Rates, StoredQuery};

use super::book::Book;

/// Stands for all billed classes together.
const BILLED: i64 = -1;

/// A container whose rows are ranked: ledger, number in it, number in the report, and while it is that.
pub(crate) type Ranked = (i32, i64, i64, (i64, i64));

const ALL_TIME: (i64, i64) = (i64::MIN, i64::MAX);

/// A frozen rate: ledger, number of the container in it, class, and five values.
pub(crate) struct RateRow {
    pub ledger: i32,
    pub number: i64,
    pub class: i64,
    /// Bits per second in, out and together, five-minute values, and how many of these were spread.
    pub values: [u64; 5],
}

/// The number of a basis in the ledger.
pub(crate) const fn basis_number(basis: Basis) -> i64 {
    match basis {
        Basis::L3 => 3,
        Basis::L2 => 2,
        Basis::L1 => 1,
    }
}

/// The ledgers and numbers of the closed months that a step is exactly.
pub(crate) fn closed_of(book: &Book, span: (i64, i64)) -> Vec<(i32, i64)> {
    let closed = book.periods.iter().filter(|period| period.span == span);
    closed.map(|period| (period.ledger, period.number)).collect()
}

/// Whether all of a container is in one ledger whose month was closed.
fn is_frozen(members: &[(i32, i64)], ledgers: &HashSet<i32>) -> bool {
    matches!(members, [(ledger, _)] if ledgers.contains(ledger))
}

/// The frozen rates of a step that answer, and the containers that are ranked anew.
pub(crate) fn choose(
    book: &Book,
    query: &StoredQuery<'_>,
    step: usize,
    rows: &[RateRow],
) -> (Vec<(LineKey, Rates)>, Vec<Ranked>) {
    let ledgers: HashSet<i32> = rows.iter().map(|row| row.ledger).collect();
    let mut rates = Vec::new();
    for row in rows {
        let container = book.container(row.ledger, row.number);
        let class = u8::try_from(row.class).ok();
        let is_alone = book.members.get(&container).is_some_and(|of| is_frozen(of, &ledgers));
        let is_asked = query.containers.is_none_or(|asked| asked.contains(&container))
            && (query.classes.is_empty() || class.is_some_and(|class| query.classes.contains(&class)))
            && (row.class == 0 || query.split.class == (row.class != BILLED));
        if !is_alone || !is_asked {
            continue;
        }
        let [incoming, outgoing, total, buckets, spread_buckets] = row.values;
        let (incoming, outgoing, total) = (Some(incoming), Some(outgoing), Some(total));
        let of = Rates { incoming, outgoing, total, buckets, spread_buckets };
        rates.push(((step, container, class, None, row.class != 0), of));
    }
    (rates, members(book, query, |of| !is_frozen(of, &ledgers)))
}

/// The asked containers that fulfil a condition, with their members.
pub(crate) fn members(
    book: &Book,
    query: &StoredQuery<'_>,
    is_meant: impl Fn(&[(i32, i64)]) -> bool,
) -> Vec<Ranked> {
    if let Some(shares) = &book.shares {
        let mut all: Vec<Ranked> = shares
            .within(query.range, query.containers)
            .map(|share| (share.ledger, share.number, share.shown, share.span))
            .collect();
        // Those of one tenant together.
        all.sort_by_key(|one| (one.2, one.0, one.1, one.3));
        return all;
    }
    let mut numbers: Vec<i64> = book.members.keys().copied().collect();
    numbers.sort_unstable();
    let mut found = Vec::new();
    for number in numbers {
        let of = &book.members[&number];
        if query.containers.is_none_or(|asked| asked.contains(&number)) && is_meant(of) {
            found.extend(of.iter().map(|(ledger, in_ledger)| (*ledger, *in_ledger, number, ALL_TIME)));
        }
    }
    found
}

/// Splits containers into those that one ledger has alone, and those of several.
pub(crate) fn alone_and_shared(all: &[Ranked]) -> (Vec<Ranked>, Vec<Ranked>) {
    let mut ledgers: HashMap<i64, Option<i32>> = HashMap::new();
    for (ledger, _, shown, _) in all {
        let of = ledgers.entry(*shown).or_insert(Some(*ledger));
        *of = of.filter(|first| first == ledger);
    }
    all.iter().copied().partition(|one| ledgers.get(&one.2).copied().flatten().is_some())
}

/// Steps one after the other whose rows are ranked together, as no frozen rates answer for them.
pub(crate) fn together(open: &[usize]) -> Vec<(usize, usize)> {
    let mut all: BTreeMap<usize, usize> = BTreeMap::new();
    for &step in open {
        match all.last_entry() {
            Some(mut last) if *last.get() == step => *last.get_mut() = step + 1,
            _ => drop(all.insert(step, step + 1)),
        }
    }
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_container_of_one_closed_ledger_has_frozen_rates() {
        let closed = HashSet::from([1, 2]);
        assert!(is_frozen(&[(1, 7)], &closed));
        assert!(!is_frozen(&[(3, 7)], &closed));
        assert!(!is_frozen(&[(1, 7), (2, 7)], &closed));
        assert_eq!(together(&[0, 1, 3, 4, 6]), [(0, 2), (3, 5), (6, 7)]);
        let all = [(1, 5, 10), (2, 6, 11), (1, 7, 12), (2, 8, 12)].map(|(a, b, c)| (a, b, c, ALL_TIME));
        let (alone, shared) = alone_and_shared(&all);
        assert_eq!((alone, shared), (all[..2].to_vec(), all[2..].to_vec()));
        // A tenant with two containers on one node.
        assert_eq!(alone_and_shared(&[(1, 5, 10, (0, 9)), (1, 6, 10, ALL_TIME)]).0.len(), 2);
    }
}
