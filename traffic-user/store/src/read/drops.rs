//! Since when the nodes of a report have drops, and which of them lack some.

use traffic_ledger::LedgerError;

use super::pieces::LedgerSpan;

/// What the store knows of the drops of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DropsOf {
    /// Its number in the report.
    pub ledger: i32,
    pub node: String,
    /// Where its rows begin and end, Unix seconds. Equal without any.
    pub recorded: (i64, i64),
    /// Since when it records drops, Unix seconds.
    pub from: Option<i64>,
    /// Whether all of them are in the store.
    pub are_all_here: bool,
    /// Five minutes before this time may lack theirs, Unix seconds; see [`crate::store::Known::drops_kept_from`].
    pub kept_from: Option<i64>,
}

impl DropsOf {
    /// The part of a span in which rows of five minutes may lack drops that were recorded.
    fn lacking(&self, (start, end): (i64, i64)) -> Option<(i64, i64)> {
        let begin = start.max(self.recorded.0).max(self.from?);
        let end = end.min(self.kept_from?);
        (begin < end).then_some((begin, end))
    }
}

/// The ledgers of which rows of five minutes that may lack their drops are in a span. `pieces`: the rows of a report, by
/// level, span and ledgers. `has_five_minutes`: whether a ledger has any in a span.
pub(crate) fn with_lacking_rows(
    all: &[DropsOf],
    span: (i64, i64),
    pieces: impl FnOnce() -> Result<Vec<(i16, LedgerSpan)>, LedgerError>,
    has_five_minutes: impl Fn(LedgerSpan) -> Result<bool, LedgerError>,
) -> Result<Vec<i32>, LedgerError> {
    let mut found = Vec::new();
    if all.iter().all(|of| of.lacking(span).is_none()) {
        return Ok(found);
    }
    for (_, (ledger, span)) in pieces()?.into_iter().filter(|piece| piece.0 == 0) {
        let of = all.iter().find(|of| of.ledger == ledger);
        if let Some(lacking) = of.and_then(|of| of.lacking(span))
            && !found.contains(&ledger)
            && has_five_minutes((ledger, lacking))?
        {
            found.push(ledger);
        }
    }
    Ok(found)
}

/// Since when all have drops that have any, Unix seconds.
pub(crate) fn recorded_from(all: &[DropsOf]) -> Option<i64> {
    all.iter().filter_map(|of| of.from).max()
}

/// The nodes with rows in a span whose drops are not here, or not all. A single node that records none says so by having
/// no start. `lacking`: the ledgers of [`with_lacking_rows`].
pub(crate) fn nodes_without(all: &[DropsOf], (start, end): (i64, i64), lacking: &[i32]) -> Vec<String> {
    let has_start = recorded_from(all).is_some();
    let lacks = |of: &&DropsOf| {
        of.recorded.0.max(start) < of.recorded.1.min(end)
            && (!of.are_all_here || has_start && of.from.is_none() || lacking.contains(&of.ledger))
    };
    let mut without: Vec<String> = all.iter().filter(lacks).map(|of| of.node.clone()).collect();
    without.dedup();
    without
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(node: &str, recorded: (i64, i64), from: Option<i64>) -> DropsOf {
        DropsOf { node: node.to_owned(), recorded, from, are_all_here: from.is_some(), ..DropsOf::default() }
    }

    #[test]
    fn nodes_without_rows_in_the_span_are_not_named() {
        let all = [
            of("former", (300, 9000), None),
            of("n1", (6000, 18_000), Some(6000)),
            of("none", (0, 0), None),
            of("n2", (9000, 18_000), None),
        ];
        assert_eq!(nodes_without(&all, (8700, 20_000), &[]), ["former", "n2"]);
        assert_eq!(nodes_without(&all, (9000, 20_000), &[]), ["n2"]);
        assert_eq!(nodes_without(&all, (0, 9000), &[]), ["former"]);
        assert!(nodes_without(&all, (0, 300), &[]).is_empty());
        assert_eq!(recorded_from(&all), Some(6000));
        let only = DropsOf { are_all_here: true, ..of("n1", (0, 600), None) };
        assert!(nodes_without(&[only], (0, 600), &[]).is_empty());
    }

    #[test]
    fn five_minutes_that_were_gone_before_drops_came_are_named_and_days_are_not() {
        let all = [DropsOf { ledger: 7, kept_from: Some(9000), ..of("n1", (3000, 18_000), Some(3600)) }];
        let span = (0, 18_000);
        let named = |pieces: &[(i16, LedgerSpan)]| {
            // There are rows from 3900 on.
            let has_rows = |(_, span): LedgerSpan| Ok(span.1 > 3900);
            let lacking = with_lacking_rows(&all, span, || Ok(pieces.to_vec()), has_rows).unwrap();
            !nodes_without(&all, span, &lacking).is_empty()
        };
        assert!(named(&[(0, (7, (8700, 18_000)))]));
        assert!(!named(&[(0, (7, (9000, 18_000)))]));
        assert!(!named(&[(0, (8, (0, 18_000)))]), "of another ledger");
        assert!(!named(&[(2, (7, (0, 18_000)))]), "whole days have theirs");
        // Nothing was recorded then, which the report says anyway.
        assert!(!named(&[(0, (7, (0, 3600))), (0, (7, (12_000, 18_000)))]));
        assert!(!named(&[(0, (7, (0, 3900)))]), "without rows");
        assert!(named(&[(0, (7, (0, 4200)))]));
        let refused = || panic!("nobody needs them");
        assert!(with_lacking_rows(&all, (9000, 18_000), refused, |_| Ok(true)).unwrap().is_empty());
    }
}
