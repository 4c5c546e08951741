//! Percentiles: the server adds up all nodes in each five minutes, and then ranks the sums.
//!
//! Late readings are few. They come here, are spread over their own span as in the ledger, and go back as a part of the
//! statement. What is sent with a statement is one text: a list would be too many elements for the server's parser.

use std::fmt::Write as _;

use traffic_ledger::{LedgerError, LineKey, Ranking, Rates, StoredQuery, bits_per_second};

use super::{
    Reader, Row,
    days::Days,
    list,
    sums::{class_group, classes_filter, family_group, of_piece},
    value,
};
use crate::read::{
    frozen::{self, Ranked, RateRow},
    key,
    pieces::Piece,
};

/// Seconds by which a reading may miss its border, as in the ledger.
const GRACE_S: i64 = 2;
/// Seconds of a bucket.
const BUCKET_S: i64 = 300;
/// Containers that are ranked by one statement: each has some thousand sums for each class.
const AT_ONCE: usize = 200;

pub(super) fn rates(
    reader: &Reader,
    query: &StoredQuery<'_>,
    ranking: &Ranking<'_>,
) -> Result<Vec<(LineKey, Rates)>, LedgerError> {
    let days = Days::of(reader, query);
    let mut all = Vec::new();
    let mut open = Vec::new();
    for step in 0..query.starts.len() {
        let rows = if ranking.takes_frozen && reader.book.shares.is_none() {
            frozen_rows(reader, query.span(step), ranking)?
        } else {
            Vec::new()
        };
        if rows.is_empty() {
            open.push(step);
            continue;
        }
        let (rates, others) = frozen::choose(&reader.book, query, step, &rows);
        all.extend(rates);
        all.extend(ranked(&days, query, ranking, ((step, step + 1), &others))?);
    }
    let members = frozen::members(&reader.book, query, |_| true);
    for steps in frozen::together(&open) {
        all.extend(ranked(&days, query, ranking, (steps, &members))?);
    }
    Ok(all)
}

/// The rates that were frozen with the months that a span is exactly.
fn frozen_rows(
    reader: &Reader,
    span: (i64, i64),
    ranking: &Ranking<'_>,
) -> Result<Vec<RateRow>, LedgerError> {
    let closed = frozen::closed_of(&reader.book, span);
    if closed.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT place, number, class, in_bits, out_bits, total_bits, buckets, spread_buckets FROM {} AND basis = {}",
        reader.rows_of("closed_rate", &reader.of_pairs("place, part_number", &closed)),
        frozen::basis_number(ranking.basis)
    );
    let of = |row: &Row| {
        let mut values = [0; 5];
        for (at, one) in values.iter_mut().enumerate() {
            *one = value::<i64>(row, at + 3)?.cast_unsigned();
        }
        Ok(RateRow { ledger: reader.ledger(row, 0)?, number: value(row, 1)?, class: value(row, 2)?, values })
    };
    reader.ask(&sql)?.iter().map(of).collect()
}

/// Ranks the rows of some steps.
fn ranked(
    days: &Days<'_>,
    query: &StoredQuery<'_>,
    ranking: &Ranking<'_>,
    (steps, containers): ((usize, usize), &[Ranked]),
) -> Result<Vec<(LineKey, Rates)>, LedgerError> {
    let (alone, shared) = frozen::alone_and_shared(containers);
    let mut all = Vec::new();
    for part in alone.chunk_by(|one, other| one.0 == other.0).chain([shared.as_slice()]) {
        // All members of a container are ranked together.
        for part in together(part) {
            all.extend(ranked_part(days, query, ranking, (steps, part))?);
        }
    }
    Ok(all)
}

/// Cuts a list between containers.
fn together(mut all: &[Ranked]) -> Vec<&[Ranked]> {
    let mut parts = Vec::new();
    while !all.is_empty() {
        let mut end = AT_ONCE.min(all.len());
        while end < all.len() && all[end].2 == all[end - 1].2 {
            end += 1;
        }
        let (part, rest) = all.split_at(end);
        parts.push(part);
        all = rest;
    }
    parts
}

/// A late reading: ledger, bucket, series, and the span that it is of.
type Late = (i32, i64, i64, (i64, i64));

fn late(reader: &Reader, ledgers: &[i32], span: (i64, i64)) -> Result<Vec<Late>, LedgerError> {
    let filter = format!("{} AND part = '5min'", reader.of_ledgers(ledgers));
    let sql = format!(
        "SELECT place, part_number, series, ifNull(`from`, 0), ifNull(until, 0) FROM {} AND (ifNull(`from`, 0) < part_number - \
         {GRACE_S} OR ifNull(until, 0) > part_number + {}) AND ifNull(`from`, 0) < {} AND ifNull(until, 0) > {}",
        reader.rows_of("span", &filter),
        BUCKET_S + GRACE_S,
        span.1,
        span.0
    );
    let of = |row: &Row| {
        let span = (value(row, 3)?, value(row, 4)?);
        Ok((reader.ledger(row, 0)?, value(row, 1)?, value(row, 2)?, span))
    };
    reader.ask(&sql)?.iter().map(of).collect()
}

/// Which part of a late reading is of a bucket. All parts add up to the whole.
fn part(figure: i64, (from, until): (i64, i64), bucket: i64) -> i64 {
    let up_to = |at: i64| {
        let covered = i128::from(at.max(from).min(until) - from);
        i128::from(figure) * covered / i128::from((until - from).max(1))
    };
    i64::try_from(up_to(bucket + BUCKET_S) - up_to(bucket)).unwrap_or(i64::MAX)
}

/// The parts of late readings in a span, as lines of numbers: bucket, place, container, class, family, four figures.
fn spread(
    reader: &Reader,
    query: &StoredQuery<'_>,
    late: &[Late],
    span: (i64, i64),
) -> Result<String, LedgerError> {
    let mut lines = String::new();
    for late in late.chunks(1000) {
        let parts: Vec<(i32, i64)> = late.iter().map(|one| (one.0, one.1)).collect();
        let filter = format!("{} AND part = '5min'", reader.of_pairs("place, part_number", &parts));
        let sql = format!(
            "SELECT place, part_number, series, container, {}, {}, in_packets, in_bytes, out_packets, out_bytes FROM {}{}",
            class_group(query.split.class),
            family_group(query.split.family),
            reader.rows_of("traffic", &filter),
            classes_filter(query.classes)
        );
        for row in &reader.ask(&sql)? {
            let (ledger, bucket, series) =
                (reader.ledger(row, 0)?, value::<i64>(row, 1)?, value::<i64>(row, 2)?);
            let Some(of) = late.iter().find(|one| (one.0, one.1, one.2) == (ledger, bucket, series)) else {
                continue;
            };
            let figures = (6..10).map(|at| value(row, at)).collect::<Result<Vec<i64>, _>>()?;
            let from = of.3.0.max(span.0);
            let mut at = from - from.rem_euclid(BUCKET_S);
            while at < of.3.1.min(span.1) {
                let parts = list(figures.iter().map(|figure| part(*figure, of.3, at)));
                let parts = parts.replace(' ', "");
                let place = reader.place(ledger);
                let key = [value::<i64>(row, 3)?, value(row, 4)?, value(row, 5)?];
                let separator = if lines.is_empty() { "" } else { ";" };
                // Writing to a string cannot fail.
                let _done = write!(lines, "{separator}{at},{place},{},{},{},{parts}", key[0], key[1], key[2]);
                at += BUCKET_S;
            }
        }
    }
    Ok(lines)
}

/// A text of numbers as rows, whose fields are `f`.
fn fields(lines: &str) -> String {
    format!("(SELECT splitByChar(',', arrayJoin(splitByChar(';', '{lines}'))) AS f)")
}

/// Ranks the rows of some containers.
fn ranked_part(
    days: &Days<'_>,
    query: &StoredQuery<'_>,
    ranking: &Ranking<'_>,
    (steps, containers): ((usize, usize), &[Ranked]),
) -> Result<Vec<(LineKey, Rates)>, LedgerError> {
    let span = (query.span(steps.0).0, query.span(steps.1 - 1).1);
    let mut ledgers: Vec<i32> = containers.iter().map(|one| one.0).collect();
    ledgers.sort_unstable();
    ledgers.dedup();
    let piece = Piece { level: 0, span, ledgers, days: Vec::new() };
    days.require_parts(&piece)?;
    let reader = days.reader;
    let late = late(reader, &piece.ledgers, span)?;
    let sql = statement(reader, query, ranking, &Part { steps, containers, piece: &piece, late: &late })?;
    let mut all = Vec::new();
    for row in &reader.ask(&sql)? {
        let step = query.step(value(row, 0)?).unwrap_or_default();
        let bits =
            |at: usize| Ok::<_, LedgerError>(Some(bits_per_second(value::<i64>(row, at)?.cast_unsigned())));
        let rates = Rates {
            incoming: bits(4)?,
            outgoing: bits(5)?,
            total: bits(6)?,
            buckets: ranking.steps.get(step).map_or(0, |step| step.values),
            spread_buckets: value(row, 7)?,
        };
        all.push((key(step, value(row, 1)?, value(row, 2)?, value(row, 3)?), rates));
    }
    Ok(all)
}

/// What one statement ranks.
struct Part<'a> {
    steps: (usize, usize),
    containers: &'a [Ranked],
    piece: &'a Piece,
    late: &'a [Late],
}

fn statement(
    reader: &Reader,
    query: &StoredQuery<'_>,
    ranking: &Ranking<'_>,
    of: &Part<'_>,
) -> Result<String, LedgerError> {
    let keys: Vec<String> = of
        .late
        .iter()
        .map(|(ledger, bucket, series, _)| format!("({}, {bucket}, {series})", reader.place(*ledger)))
        .collect();
    let not_late = if keys.is_empty() {
        String::new()
    } else {
        format!(" AND (place, part_number, series) NOT IN ({})", keys.join(", "))
    };
    let mut one = format!(
        "SELECT part_number AS at, place, container, {} AS of_class, {} AS of_family, in_packets AS ip, in_bytes AS ib, \
         out_packets AS op, out_bytes AS ob, toUInt8(0) AS spread FROM {}{}{not_late}",
        class_group(query.split.class),
        family_group(query.split.family),
        reader.rows_of("traffic", &of_piece(reader, of.piece)),
        classes_filter(query.classes),
    );
    let lines = spread(reader, query, of.late, of.piece.span)?;
    if !lines.is_empty() {
        let number = |at: usize| format!("toInt64(f[{at}])");
        let figures: Vec<String> = (3..10).map(number).collect();
        one.push_str(&format!(
            " UNION ALL SELECT {} AS at, toUInt64(f[2]) AS place, {} AS container, {} AS of_class, {} AS of_family, {} AS ip, {} \
             AS ib, {} AS op, {} AS ob, toUInt8(1) AS spread FROM {}",
            number(1),
            figures[0],
            figures[1],
            figures[2],
            figures[3],
            figures[4],
            figures[5],
            figures[6],
            fields(&lines)
        ));
    }
    let members: Vec<String> = of
        .containers
        .iter()
        .map(|(ledger, number, shown, span)| {
            format!("{},{number},{shown},{},{}", reader.place(*ledger), span.0, span.1)
        })
        .collect();
    let members = format!(
        "SELECT toUInt64(f[1]) AS place, toInt64(f[2]) AS container, toInt64(f[3]) AS shown, toInt64(f[4]) AS begun, \
         toInt64(f[5]) AS ended FROM {}",
        fields(&members.join(";"))
    );
    let overhead = ranking.basis.overhead();
    let steps = &query.starts[of.steps.0..of.steps.1];
    let ranks = ranking.steps.iter().skip(of.steps.0).take(steps.len());
    let ranks = list(ranks.map(|step| i64::try_from(step.from_top).unwrap_or(i64::MAX)));
    let starts = list(steps);
    let begun_at = reader.start_of("at", steps, true);
    let nth = |figure: &str| {
        format!(
            "if(rank = 0, toInt64(0), arrayElement(arrayReverseSort(groupArray({figure})), if(rank = 0, toInt64(1), rank)))"
        )
    };
    // The start and the rank are columns of their own: an old server does not know the expression again.
    Ok(format!(
        "SELECT begun_at, shown, of_class, of_family, {}, {}, {}, sum(is_spread) FROM (SELECT begun_at, transform(begun_at, \
         [{starts}], [{ranks}], toInt64(0)) AS rank, shown, of_class, of_family, i, o, is_spread FROM (SELECT {begun_at} AS \
         begun_at, shown, of_class, of_family, i, o, is_spread FROM (SELECT at, shown, of_class, of_family, sum(ib) + {overhead} \
         * sum(ip) AS i, sum(ob) + {overhead} * sum(op) AS o, max(spread) AS is_spread FROM ({one}) AS r ALL INNER JOIN \
         ({members}) AS m USING place, container WHERE at >= begun AND at < ended GROUP BY at, shown, of_class, of_family))) GROUP BY begun_at, rank, shown, \
         of_class, of_family",
        nth("i"),
        nth("o"),
        nth("i + o")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_late_reading_are_the_whole() {
        let span = (1000, 2050);
        let parts: Vec<i64> = (3..7).map(|at| part(100, span, at * BUCKET_S)).collect();
        assert_eq!(parts.iter().sum::<i64>(), 100);
        assert_eq!(parts, [19, 28, 29, 24]);
        assert_eq!(part(100, (1000, 1000), 900), 0);
        assert_eq!(part(i64::MAX, (0, 300), 0), i64::MAX);
    }

    #[test]
    fn a_container_is_ranked_by_one_statement() {
        let mut all: Vec<Ranked> = (0..199).map(|at| (1, at, at, (0, 9))).collect();
        all.extend([(1, 7, 500), (2, 7, 500), (3, 7, 500), (1, 8, 501)].map(|(a, b, c)| (a, b, c, (0, 9))));
        let lengths: Vec<usize> = together(&all).iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [202, 1]);
        assert!(together(&[]).is_empty());
    }
}
