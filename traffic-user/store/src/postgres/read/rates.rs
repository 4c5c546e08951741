//! Percentiles: the server adds up all nodes in each five minutes, and then ranks the sums.
//!
//! The rates of a closed month were frozen with it. They answer for a container that only one node has; of several
//! nodes, rates cannot be added, so their rows are ranked anew.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_postgres::types::Type;
use traffic_ledger::{Basis, LedgerError, LineKey, Ranking, Rates, StoredQuery, bits_per_second};

use super::{
    Reader,
    pieces::{Piece, require_kept},
    shares,
    sums::{class_group, classes_filter, family_group},
};
use crate::read::key;

/// Seconds by which a reading may miss its border, as in the ledger.
const GRACE_S: i64 = 2;
/// Stands for all billed classes together.
const BILLED: i64 = -1;

/// Containers of the report, whose rows are ranked: ledger, number in it, number in the report, from when to when.
type Ranked = shares::Columns;

pub(super) fn rates(
    reader: &Reader,
    query: &StoredQuery<'_>,
    ranking: &Ranking<'_>,
) -> Result<Vec<(LineKey, Rates)>, LedgerError> {
    let mut all = Vec::new();
    let mut open: Vec<(usize, usize)> = Vec::new();
    for step in 0..query.starts.len() {
        let is_frozen_alone = ranking.takes_frozen && reader.shares.is_none();
        let frozen = if is_frozen_alone { frozen(reader, query, ranking, step)? } else { Frozen::default() };
        if frozen.ledgers.is_empty() {
            match open.last_mut() {
                Some(last) if last.1 == step => last.1 = step + 1,
                _ => open.push((step, step + 1)),
            }
            continue;
        }
        all.extend(frozen.rates);
        let others = members(reader, query, |of| !is_frozen(of, &frozen.ledgers));
        all.extend(ranked(reader, query, ranking, ((step, step + 1), others))?);
    }
    for steps in open {
        all.extend(ranked(reader, query, ranking, (steps, members(reader, query, |_| true)))?);
    }
    Ok(all)
}

/// Whether all of a container is in one ledger whose month was closed.
fn is_frozen(members: &[(i32, i64)], ledgers: &HashSet<i32>) -> bool {
    matches!(members, [(ledger, _)] if ledgers.contains(ledger))
}

/// The asked containers that fulfil a condition, with their members.
fn members(reader: &Reader, query: &StoredQuery<'_>, is_meant: impl Fn(&[(i32, i64)]) -> bool) -> Ranked {
    if let Some(shares) = &reader.shares {
        return shares::columns(shares.within(query.range, query.containers));
    }
    let mut found = Ranked::default();
    let mut numbers: Vec<&i64> = reader.members.keys().collect();
    numbers.sort_unstable();
    for number in numbers {
        let of = &reader.members[number];
        if query.containers.is_none_or(|asked| asked.contains(number)) && is_meant(of) {
            for (ledger, in_ledger) in of {
                found.0.push(*ledger);
                found.1.push(*in_ledger);
                found.2.push(*number);
                found.3.push(i64::MIN);
                found.4.push(i64::MAX);
            }
        }
    }
    found
}

/// What was frozen of a step that is a closed month.
#[derive(Default)]
struct Frozen {
    /// The ledgers that froze the rates of this month.
    ledgers: HashSet<i32>,
    rates: Vec<(LineKey, Rates)>,
}

fn frozen(
    reader: &Reader,
    query: &StoredQuery<'_>,
    ranking: &Ranking<'_>,
    step: usize,
) -> Result<Frozen, LedgerError> {
    let span = query.span(step);
    let closed = reader.periods.iter().filter(|period| period.span == span);
    let (ledgers, periods): (Vec<i32>, Vec<i64>) =
        closed.map(|period| (period.ledger, period.number)).unzip();
    let mut found = Frozen::default();
    if ledgers.is_empty() {
        return Ok(found);
    }
    let basis: i64 = match ranking.basis {
        Basis::L3 => 3,
        Basis::L2 => 2,
        Basis::L1 => 1,
    };
    let sql =
        "SELECT r.ledger, r.number, r.class, r.in_bits, r.out_bits, r.total_bits, r.buckets, r.spread_buckets
               FROM trafctl.closed_rate r JOIN unnest($1::int[], $2::bigint[]) c(ledger, period)
                   ON r.ledger = c.ledger AND r.period = c.period WHERE r.basis = $3";
    let parameters =
        [(&ledgers as _, Type::INT4_ARRAY), (&periods as _, Type::INT8_ARRAY), (&basis as _, Type::INT8)];
    let rows = reader.rows(sql, &parameters)?;
    found.ledgers = rows.iter().map(|row| row.get(0)).collect();
    for row in rows {
        let container = reader.container(row.get(0), row.get(1));
        let number: i64 = row.get(2);
        let class = u8::try_from(number).ok();
        let is_alone = reader.members.get(&container).is_some_and(|of| is_frozen(of, &found.ledgers));
        let is_asked = query.containers.is_none_or(|asked| asked.contains(&container))
            && (query.classes.is_empty() || class.is_some_and(|class| query.classes.contains(&class)))
            && (number == 0 || query.split.class == (number != BILLED));
        if !is_alone || !is_asked {
            continue;
        }
        let value = |at: usize| row.get::<_, i64>(at).cast_unsigned();
        let rates = Rates {
            incoming: Some(value(3)),
            outgoing: Some(value(4)),
            total: Some(value(5)),
            buckets: value(6),
            spread_buckets: value(7),
        };
        found.rates.push(((step, container, class, None, number != 0), rates));
    }
    Ok(found)
}

/// Splits containers into those of each ledger alone, and those that several ledgers have. The rows of one ledger lie
/// together, so that the server needs less memory for them.
fn by_ledger(all: &Ranked) -> Vec<Ranked> {
    let mut ledgers: HashMap<i64, Option<i32>> = HashMap::new();
    for (&ledger, shown) in all.0.iter().zip(&all.2) {
        let of = ledgers.entry(*shown).or_insert(Some(ledger));
        *of = of.filter(|&first| first == ledger);
    }
    let mut split: BTreeMap<Option<i32>, Ranked> = BTreeMap::new();
    for at in 0..all.0.len() {
        let part = split.entry(ledgers.get(&all.2[at]).copied().flatten()).or_default();
        part.0.push(all.0[at]);
        for (into, from) in
            [(&mut part.1, &all.1), (&mut part.2, &all.2), (&mut part.3, &all.3), (&mut part.4, &all.4)]
        {
            into.push(from[at]);
        }
    }
    split.into_values().collect()
}

/// Ranks the rows of some steps.
fn ranked(
    reader: &Reader,
    query: &StoredQuery<'_>,
    ranking: &Ranking<'_>,
    (steps, containers): ((usize, usize), Ranked),
) -> Result<Vec<(LineKey, Rates)>, LedgerError> {
    let mut all = Vec::new();
    for part in by_ledger(&containers) {
        all.extend(ranked_part(reader, query, ranking, (steps, part))?);
    }
    Ok(all)
}

/// SQL for the part of a late reading that falls into the five minutes at `b.at`: all parts add up to the whole.
fn part(column: &str) -> String {
    let until = |at: &str| {
        format!(
            "div(t.{column}::numeric * (least(greatest({at}, l.\"from\"), l.until) - l.\"from\"),
             greatest(l.until - l.\"from\", 1))"
        )
    };
    format!("({} - {})::bigint", until("b.at + 300"), until("b.at"))
}

/// Ranks the rows of some containers, of which the server adds up those of each.
fn ranked_part(
    reader: &Reader,
    query: &StoredQuery<'_>,
    ranking: &Ranking<'_>,
    (steps, (ledgers, numbers, shown, froms, untils)): ((usize, usize), Ranked),
) -> Result<Vec<(LineKey, Rates)>, LedgerError> {
    let span = (query.span(steps.0).0, query.span(steps.1 - 1).1);
    let mut of_ledgers = ledgers.clone();
    of_ledgers.sort_unstable();
    of_ledgers.dedup();
    require_kept(reader, &Piece { level: 0, span, ledgers: of_ledgers.clone() })?;
    let late = format!(
        "SELECT ledger, start, series, \"from\", until FROM trafctl.span WHERE level = 0 AND ledger = ANY($1)
         AND (\"from\" < start - {GRACE_S} OR until > start + 300 + {GRACE_S}) AND \"from\" < $3 AND until > $2"
    );
    let (class, family) = (class_group(query.split.class), family_group(query.split.family));
    let columns = ["in_packets", "in_bytes", "out_packets", "out_bytes"];
    let plain: Vec<String> = columns.iter().map(|column| format!("t.{column}")).collect();
    let spread: Vec<String> = columns.iter().map(|column| part(column)).collect();
    let filter = classes_filter(query.classes);
    let overhead = ranking.basis.overhead();
    // `+ 0` keeps the server from looking up each container by itself: the index has them behind the time, so that
    // each look would read all rows.
    let sql = format!(
        "WITH shown AS MATERIALIZED (
             SELECT * FROM unnest($5::int[], $6::bigint[], $7::bigint[], $9::bigint[], $10::bigint[])
                 s(ledger, container, shown, begun, ended)),
         late AS MATERIALIZED ({late}),
         one AS (
             SELECT t.start AS at, s.shown, {class} AS class, {family} AS family, {}, false AS is_spread
             FROM trafctl.traffic t JOIN shown s ON s.ledger = t.ledger AND s.container = t.container + 0
                 AND t.start + 0 >= s.begun AND t.start + 0 < s.ended
             WHERE t.level = 0 AND t.ledger = ANY($1) AND t.start >= $2 AND t.start < $3{filter}
                 AND (t.ledger, t.start, t.series) NOT IN (SELECT ledger, start, series FROM late)
             UNION ALL
             SELECT b.at, s.shown, {class}, {family}, {}, true
             FROM late l
             JOIN trafctl.traffic t
                 ON t.ledger = l.ledger AND t.level = 0 AND t.start = l.start AND t.series = l.series{filter}
             JOIN shown s ON s.ledger = t.ledger AND s.container = t.container
             CROSS JOIN LATERAL generate_series(greatest(l.\"from\", $2) - greatest(l.\"from\", $2) % 300,
                 least(l.until, $3) - 1, 300) b(at)
             WHERE b.at >= s.begun AND b.at < s.ended),
         bucket AS (
             SELECT shown, class, family, at, bool_or(is_spread) AS is_spread,
                 (sum(in_bytes) + {overhead} * sum(in_packets))::bigint AS in_bytes,
                 (sum(out_bytes) + {overhead} * sum(out_packets))::bigint AS out_bytes
             FROM one o(at, shown, class, family, in_packets, in_bytes, out_packets, out_bytes, is_spread)
             GROUP BY 1, 2, 3, 4),
         stepped AS (SELECT width_bucket(at, $4) AS step, * FROM bucket)
         SELECT step, shown, class, family,
             coalesce((array_agg(in_bytes ORDER BY in_bytes DESC))[$8[step]], 0),
             coalesce((array_agg(out_bytes ORDER BY out_bytes DESC))[$8[step]], 0),
             coalesce((array_agg(in_bytes + out_bytes ORDER BY in_bytes + out_bytes DESC))[$8[step]], 0),
             count(*) FILTER (WHERE is_spread)
         FROM stepped GROUP BY 1, 2, 3, 4",
        plain.join(", "),
        spread.join(", "),
    );
    let ranks: Vec<i32> =
        ranking.steps.iter().map(|step| i32::try_from(step.from_top).unwrap_or(i32::MAX)).collect();
    let rows = reader.rows(
        &sql,
        &[
            (&of_ledgers, Type::INT4_ARRAY),
            (&span.0, Type::INT8),
            (&span.1, Type::INT8),
            (&query.starts, Type::INT8_ARRAY),
            (&ledgers, Type::INT4_ARRAY),
            (&numbers, Type::INT8_ARRAY),
            (&shown, Type::INT8_ARRAY),
            (&ranks, Type::INT4_ARRAY),
            (&froms, Type::INT8_ARRAY),
            (&untils, Type::INT8_ARRAY),
        ],
    )?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let step = usize::try_from(row.get::<_, i32>(0) - 1).unwrap_or_default();
        let bits = |at: usize| Some(bits_per_second(row.get::<_, i64>(at).cast_unsigned()));
        let rates = Rates {
            incoming: bits(4),
            outgoing: bits(5),
            total: bits(6),
            buckets: ranking.steps.get(step).map_or(0, |step| step.values),
            spread_buckets: row.get::<_, i64>(7).cast_unsigned(),
        };
        all.push((key(step, row.get(1), row.get(2), row.get(3)), rates));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_one_ledger_are_ranked_apart_from_those_of_several() {
        let all: Ranked =
            (vec![1, 2, 1, 2], vec![5, 6, 7, 8], vec![10, 11, 12, 12], vec![0; 4], vec![9, 8, 7, 6]);
        let split = by_ledger(&all);
        assert_eq!(
            split,
            [
                (vec![1, 2], vec![7, 8], vec![12, 12], vec![0, 0], vec![7, 6]),
                (vec![1], vec![5], vec![10], vec![0], vec![9]),
                (vec![2], vec![6], vec![11], vec![0], vec![8]),
            ]
        );
        assert!(by_ledger(&Ranked::default()).is_empty());
    }

    #[test]
    fn only_a_container_of_one_closed_ledger_has_frozen_rates() {
        let closed = HashSet::from([1, 2]);
        assert!(is_frozen(&[(1, 7)], &closed));
        assert!(!is_frozen(&[(3, 7)], &closed));
        assert!(!is_frozen(&[(1, 7), (2, 7)], &closed));
    }
}
