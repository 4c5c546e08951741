//! Since when the nodes of a report have drops, and which of them lack some.

/// What the store knows of the drops of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DropsOf {
    pub node: String,
    /// Where its rows begin and end, Unix seconds. Equal without any.
    pub recorded: (i64, i64),
    /// Since when it records drops, Unix seconds.
    pub from: Option<i64>,
    /// Whether all of them are in the store.
    pub are_all_here: bool,
}

/// Since when all have drops that have any, Unix seconds.
pub(crate) fn recorded_from(all: &[DropsOf]) -> Option<i64> {
    all.iter().filter_map(|of| of.from).max()
}

/// The nodes with rows in a span whose drops are not here, or not all. A single node that records none says so by having
/// no start.
pub(crate) fn nodes_without(all: &[DropsOf], (start, end): (i64, i64)) -> Vec<String> {
    let has_start = recorded_from(all).is_some();
    let lacks = |of: &&DropsOf| {
        of.recorded.0.max(start) < of.recorded.1.min(end)
            && (!of.are_all_here || has_start && of.from.is_none())
    };
    let mut without: Vec<String> = all.iter().filter(lacks).map(|of| of.node.clone()).collect();
    without.dedup();
    without
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(node: &str, recorded: (i64, i64), from: Option<i64>) -> DropsOf {
        DropsOf { node: node.to_owned(), recorded, from, are_all_here: from.is_some() }
    }

    #[test]
    fn nodes_without_rows_in_the_span_are_not_named() {
        let all = [
            of("former", (300, 9000), None),
            of("n1", (6000, 18_000), Some(6000)),
            of("none", (0, 0), None),
            of("n2", (9000, 18_000), None),
        ];
        assert_eq!(nodes_without(&all, (8700, 20_000)), ["former", "n2"]);
        assert_eq!(nodes_without(&all, (9000, 20_000)), ["n2"]);
        assert_eq!(nodes_without(&all, (0, 9000)), ["former"]);
        assert!(nodes_without(&all, (0, 300)).is_empty());
        assert_eq!(recorded_from(&all), Some(6000));
        let only = DropsOf { are_all_here: true, ..of("n1", (0, 600), None) };
        assert!(nodes_without(&[only], (0, 600)).is_empty());
    }
}
